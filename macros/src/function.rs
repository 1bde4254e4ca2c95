//! The head of the function under an attribute.

use std::iter::Peekable;

use proc_macro::{Delimiter, Group, Ident, TokenStream, TokenTree, token_stream};

use crate::Error;

/// An `async fn` without parameters.
pub(crate) struct Function {
    pub(crate) attributes: TokenStream,
    pub(crate) visibility: TokenStream,
    /// `async fn`.
    pub(crate) keywords: TokenStream,
    pub(crate) name: Ident,
    /// `-> Type`, or nothing.
    pub(crate) result: TokenStream,
    pub(crate) body: Group,
}

type Tokens = Peekable<token_stream::IntoIter>;

impl Function {
    /// Reads the function under the attribute `seedbed::{attribute}`.
    pub(crate) fn parse(item: TokenStream, attribute: &str) -> Result<Self, Error> {
        let mut tokens = item.into_iter().peekable();
        let attributes = attributes(&mut tokens, attribute)?;
        let visibility = visibility(&mut tokens);
        let keywords = keywords(&mut tokens, attribute)?;
        let Some(TokenTree::Ident(name)) = tokens.next() else {
            return Err(no_function(&keywords, attribute));
        };
        parameters(&mut tokens, &name, attribute)?;
        let mut result: Vec<TokenTree> = tokens.collect();
        let body = match result.pop() {
            Some(TokenTree::Group(body)) if body.delimiter() == Delimiter::Brace => body,
            _ => {
                let message = format!("seedbed::{attribute} needs a function with a body");
                return Err(Error::new(name.span(), message));
            }
        };
        if let Some(clause) = result.iter().find(|token| is_ident(token, "where")) {
            let message = format!("a function under seedbed::{attribute} has no `where` clause");
            return Err(Error::new(clause.span(), message));
        }
        Ok(Function {
            attributes,
            visibility,
            keywords,
            name,
            result: result.into_iter().collect(),
            body,
        })
    }
}

fn is_ident(token: &TokenTree, text: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident.to_string() == text)
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

fn attributes(tokens: &mut Tokens, attribute: &str) -> Result<TokenStream, Error> {
    let mut attributes = Vec::new();
    while let Some(hash) = tokens.next_if(|token| is_punct(token, '#')) {
        attributes.push(hash);
        let Some(group) = tokens.next() else { break };
        if let TokenTree::Group(group) = &group {
            let mut path = group.stream().into_iter();
            let first = path.next().filter(|first| is_ident(first, "test"));
            if let (Some(first), None, "test") = (first, path.next(), attribute) {
                let message = "seedbed::test makes the function a test already: remove `#[test]`";
                return Err(Error::new(first.span(), message));
            }
        }
        attributes.push(group);
    }
    Ok(attributes.into_iter().collect())
}

fn visibility(tokens: &mut Tokens) -> TokenStream {
    let mut visibility: Vec<TokenTree> = Vec::new();
    if let Some(public) = tokens.next_if(|token| is_ident(token, "pub")) {
        visibility.push(public);
        let is_scope = |token: &TokenTree| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis);
        visibility.extend(tokens.next_if(is_scope));
    }
    visibility.into_iter().collect()
}

/// Reads `async fn`.
fn keywords(tokens: &mut Tokens, attribute: &str) -> Result<TokenStream, Error> {
    let Some(first) = tokens.next() else {
        return Err(no_function(&TokenStream::new(), attribute));
    };
    let span = first.span();
    if is_ident(&first, "fn") {
        let message = match attribute {
            "test" => {
                "a test of seedbed::test is an `async fn`: write `async fn`, or use std's `#[test]`, as \
                 `#[core::prelude::v1::test]` where a glob import of seedbed hides it"
            }
            _ => "the function under seedbed::main is an `async fn`: write `async fn main()`",
        };
        let mut error = Error::new(span, message);
        error.is_plain_function = true;
        return Err(error);
    }
    let follows = tokens.next_if(|token| is_ident(token, "fn"));
    match follows {
        Some(function) if is_ident(&first, "async") => Ok([first, function].into_iter().collect()),
        _ => {
            let message = format!("seedbed::{attribute} goes on a plain `async fn`");
            Err(Error::new(span, message))
        }
    }
}

fn parameters(tokens: &mut Tokens, name: &Ident, attribute: &str) -> Result<(), Error> {
    let (span, what) = match tokens.next() {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => {
            if group.stream().is_empty() {
                return Ok(());
            }
            (group.span(), "parameters")
        }
        Some(other) if is_punct(&other, '<') => (other.span(), "generic parameters"),
        _ => (name.span(), "parameters, and `()` after its name"),
    };
    let message = format!("a function under seedbed::{attribute} has no {what}");
    Err(Error::new(span, message))
}

fn no_function(near: &TokenStream, attribute: &str) -> Error {
    let span = near.clone().into_iter().last();
    let span = span.map_or_else(proc_macro::Span::call_site, |token| token.span());
    Error::new(span, format!("seedbed::{attribute} goes on an `async fn`"))
}
