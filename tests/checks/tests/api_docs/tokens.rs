//! Questions about tokens: where an item ends, its name, what it returns.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// Returns the end of the item at `at`: after a semicolon, or after a block that ends the item.
pub fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
    let ends = |token: &TokenTree| punct(token) == Some(';') || group(token).is_some_and(is_block);
    // The braces of `use a::{b, c};` do not end the item.
    let is_use = tokens[at..]
        .iter()
        .take(3)
        .take_while(|token| group(token).is_none_or(|group| !is_block(group)))
        .any(|token| is_word(token, "use"));
    let semicolon = |token: &TokenTree| punct(token) == Some(';');
    let length = if is_use {
        tokens[at..].iter().position(semicolon)
    } else {
        tokens[at..].iter().position(ends)
    };
    length.map_or(tokens.len(), |length| at + length + 1)
}

/// Returns the name that the tokens begin with, also `$name`; for a path, its last part.
pub fn name(tokens: &[TokenTree]) -> String {
    let mut name = String::new();
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if name == "$" => name.push_str(&ident.to_string()),
            TokenTree::Ident(ident) if name.is_empty() => name = ident.to_string(),
            TokenTree::Punct(p) if p.as_char() == ':' && !name.is_empty() => name.clear(),
            TokenTree::Punct(p) if p.as_char() == '$' && name.is_empty() => name.push('$'),
            TokenTree::Punct(p) if name.is_empty() && ":&".contains(p.as_char()) => {}
            _ if name.is_empty() => {}
            _ => break,
        }
    }
    name
}

/// Returns the tokens after `<..>`, if they begin with it.
pub fn skip_generics(tokens: &[TokenTree]) -> &[TokenTree] {
    if tokens.first().and_then(punct) != Some('<') {
        return tokens;
    }
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        let is_arrow = at > 0 && punct(&tokens[at - 1]) == Some('-');
        match punct(token) {
            Some('<') => depth += 1,
            Some('>') if !is_arrow => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &tokens[at + 1..];
        }
    }
    &[]
}

/// Returns the names in a function's return type, without its bounds.
pub fn returned_names(function: &[TokenTree]) -> Vec<String> {
    let after_name = skip_generics(&function[function.len().min(1)..]);
    // The first group after the generics contains the parameters.
    let Some(parameters) = after_name.iter().position(|token| group(token).is_some()) else {
        return Vec::new();
    };
    let returned: TokenStream = after_name[parameters + 1..]
        .iter()
        .take_while(|token| {
            !is_word(token, "where") && group(token).is_none_or(|group| !is_block(group))
        })
        .cloned()
        .collect();
    words(returned)
}

pub fn calls_panic(body: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = body.into_iter().collect();
    tokens.iter().enumerate().any(|(at, token)| match token {
        TokenTree::Group(group) => calls_panic(group.stream()),
        TokenTree::Ident(ident) => {
            let is_macro = tokens.get(at + 1).and_then(punct) == Some('!');
            is_macro
                && ["panic", "assert", "assert_eq", "assert_ne"]
                    .iter()
                    .any(|word| ident == word)
        }
        _ => false,
    })
}

pub fn words(tokens: TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => found.push(ident.to_string()),
            TokenTree::Group(group) => found.extend(words(group.stream())),
            _ => {}
        }
    }
    found
}

/// Appends the text of string literals: of `"..."`, or of `concat!("..", $part, "..")`.
pub fn strings(tokens: TokenStream, found: &mut String) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => strings(group.stream(), found),
            TokenTree::Literal(literal) => {
                let literal: syn::Lit = syn::parse_str(&literal.to_string()).expect("it is one");
                if let syn::Lit::Str(text) = literal {
                    found.push_str(&text.value());
                }
            }
            _ => {}
        }
    }
}

pub fn punct(token: &TokenTree) -> Option<char> {
    match token {
        TokenTree::Punct(punct) => Some(punct.as_char()),
        _ => None,
    }
}

pub fn group(token: &TokenTree) -> Option<&Group> {
    match token {
        TokenTree::Group(group) => Some(group),
        _ => None,
    }
}

pub fn is_block(group: &Group) -> bool {
    group.delimiter() == Delimiter::Brace
}

pub fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}
