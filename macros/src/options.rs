//! The options in the parentheses of an attribute.

use proc_macro::{Ident, Span, TokenStream, TokenTree};

use crate::Error;

/// The options that are methods of `RunBuilder`.
const BUILDER: [&str; 5] = ["clock", "ctrl_c", "instrument", "keep_workers", "shuffle"];

const WORKERS: &str = "workers";

/// `name = value` pairs, separated by commas.
#[derive(Default)]
pub(crate) struct Options {
    /// In the order in which they are given.
    pub(crate) builder: Vec<(Ident, TokenStream)>,
    pub(crate) workers: Option<TokenStream>,
}

impl Options {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self, Error> {
        let mut options = Options::default();
        let mut names: Vec<String> = Vec::new();
        let mut tokens = tokens.into_iter().peekable();
        while let Some(first) = tokens.next() {
            let TokenTree::Ident(name) = first else {
                return Err(unknown(first.span(), &first.to_string()));
            };
            let text = name.to_string();
            if text != WORKERS && !BUILDER.contains(&text.as_str()) {
                return Err(unknown(name.span(), &text));
            }
            if names.contains(&text) {
                let message = format!("the option `{text}` is given twice");
                return Err(Error::new(name.span(), message));
            }
            let is_equals = |token: &TokenTree| token.to_string() == "=";
            let value = match tokens.next_if(is_equals) {
                Some(_) => value(&mut tokens),
                None => TokenStream::new(),
            };
            if value.is_empty() {
                let message = format!("the option `{text}` needs a value: write `{text} = ..`");
                return Err(Error::new(name.span(), message));
            }
            if text == WORKERS {
                options.workers = Some(value);
            } else {
                options.builder.push((name, value));
            }
            names.push(text);
        }
        Ok(options)
    }
}

/// Reads an expression up to the next comma. A comma inside of brackets is part of a token tree;
/// one between `<` and `>` is told by the angle brackets of a path, which follow `::`.
fn value(tokens: &mut impl Iterator<Item = TokenTree>) -> TokenStream {
    let mut value: Vec<TokenTree> = Vec::new();
    let mut open_angles = 0_usize;
    for token in tokens {
        if let TokenTree::Punct(punct) = &token {
            let before = value.last().map(ToString::to_string);
            match punct.as_char() {
                ',' if open_angles == 0 => break,
                '<' if open_angles > 0 || before.as_deref() == Some(":") => open_angles += 1,
                '>' if before.as_deref() != Some("-") => {
                    open_angles = open_angles.saturating_sub(1);
                }
                _ => {}
            }
        }
        value.push(token);
    }
    value.into_iter().collect()
}

fn unknown(span: Span, text: &str) -> Error {
    let known = BUILDER.map(|name| format!("`{name}`")).join(", ");
    let message = format!("there is no option `{text}`; the options are {known} and `{WORKERS}`");
    Error::new(span, message)
}
