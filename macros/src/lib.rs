//! The attributes `#[seedbed::main]` and `#[seedbed::test]`. Use them through the crate `seedbed`,
//! where they are documented.

mod function;
mod options;

use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

use function::Function;
use options::Options;

#[proc_macro_attribute]
pub fn main(options: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = Function::parse(item.clone(), "main").and_then(|function| {
        if function.name.to_string() != "main" {
            let message = "seedbed::main makes a program's `main`: name the function `main`";
            return Err(Error::new(function.name.span(), message));
        }
        Ok(expand(&function, &Options::parse(options)?, None))
    });
    // A program without a `main` would be a second error.
    expanded.unwrap_or_else(|error| error.report(item, parsed("fn main() {}")))
}

#[proc_macro_attribute]
pub fn test(options: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = Function::parse(item.clone(), "test").and_then(|function| {
        let options = Options::parse(options)?;
        Ok(expand(
            &function,
            &options,
            Some(parsed("#[::core::prelude::v1::test]")),
        ))
    });
    expanded.unwrap_or_else(|error| error.report(item, TokenStream::new()))
}

/// What is wrong with a use of an attribute, and where.
struct Error {
    span: Span,
    message: String,
    /// The function is a `fn` without `async`, which compiles as it is.
    is_plain_function: bool,
}

impl Error {
    fn new(span: Span, message: impl Into<String>) -> Self {
        Error {
            span,
            message: message.into(),
            is_plain_function: false,
        }
    }

    /// Returns a `compile_error!` at the place of the error, and the function if it compiles as it
    /// is, so that there is one error; otherwise `instead`.
    fn report(self, item: TokenStream, instead: TokenStream) -> TokenStream {
        let at = |mut token: TokenTree| {
            token.set_span(self.span);
            TokenStream::from(token)
        };
        let message = at(Literal::string(&self.message).into());
        TokenStream::from_iter([
            at(Ident::new("compile_error", self.span).into()),
            at(Punct::new('!', Spacing::Alone).into()),
            at(Group::new(Delimiter::Brace, message).into()),
            if self.is_plain_function {
                item
            } else {
                instead
            },
        ])
    }
}

/// Writes the function:
///
/// ```text
/// #[attributes] pub fn name() -> Result {
///     async fn name() -> Result { body }
///     ::seedbed::init();
///     ::seedbed::RunBuilder::new().option(value).run(name())
/// }
/// ```
///
/// The body and the result keep their tokens, so that messages and tools find the user's code. The
/// hook comes first: a value of an option is not computed in a worker.
fn expand(function: &Function, options: &Options, test: Option<TokenStream>) -> TokenStream {
    let name = || TokenStream::from(TokenTree::from(function.name.clone()));
    let group =
        |delimiter, tokens| TokenStream::from(TokenTree::from(Group::new(delimiter, tokens)));
    let call =
        || TokenStream::from_iter([name(), group(Delimiter::Parenthesis, TokenStream::new())]);

    let future = match &options.workers {
        None => call(),
        Some(config) => {
            let arguments = [config.clone(), parsed(","), call()];
            let arguments = group(Delimiter::Parenthesis, arguments.into_iter().collect());
            let block = [
                parsed("::seedbed::cache_scope"),
                arguments,
                parsed(".await"),
            ];
            let block = group(Delimiter::Brace, block.into_iter().collect());
            TokenStream::from_iter([parsed("async"), block])
        }
    };
    let mut run = parsed("::seedbed::init(); ::seedbed::RunBuilder::new()");
    for (option, value) in &options.builder {
        let method = TokenStream::from(TokenTree::from(option.clone()));
        let value = group(Delimiter::Parenthesis, value.clone());
        run.extend([parsed("."), method, value]);
    }
    run.extend([parsed(".run"), group(Delimiter::Parenthesis, future)]);

    let inner = [
        function.keywords.clone(),
        name(),
        group(Delimiter::Parenthesis, TokenStream::new()),
        function.result.clone(),
        TokenStream::from(TokenTree::from(function.body.clone())),
        run,
    ];
    TokenStream::from_iter([
        test.unwrap_or_default(),
        function.attributes.clone(),
        function.visibility.clone(),
        parsed("fn"),
        name(),
        group(Delimiter::Parenthesis, TokenStream::new()),
        function.result.clone(),
        group(Delimiter::Brace, inner.into_iter().collect()),
    ])
}

fn parsed(text: &str) -> TokenStream {
    text.parse().expect("the text is Rust")
}
