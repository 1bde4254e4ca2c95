//! Finds the paths in a source file, as tokens: comments and docs do not count, nor does an item
//! under `#[cfg(test)]`.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The paths and test modules of one source file.
#[derive(Default)]
pub struct Names {
    pub paths: Vec<Path>,
    /// The modules that are declared under `#[cfg(test)]`.
    pub test_modules: Vec<String>,
}

/// A path with at least two segments, or one branch of a `use` tree.
pub struct Path {
    pub segments: Vec<String>,
    /// The inline modules around the path, from the outside in.
    pub inline: Vec<String>,
    /// The name that a `use` gives to the item.
    pub alias: Option<String>,
    pub line: usize,
}

pub fn read(text: &str) -> Names {
    let tokens: TokenStream = text.parse().expect("the sources are Rust");
    let mut names = Names::default();
    search(tokens, &mut Vec::new(), &mut names);
    names
}

fn search(tokens: TokenStream, inline: &mut Vec<String>, names: &mut Names) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        if let Some(end) = end_of_test_only_item(&tokens, at) {
            names.test_modules.extend(declared_module(&tokens[at..end]));
            at = end;
            continue;
        }
        at = match &tokens[at] {
            TokenTree::Ident(word) if word == "use" && !is_punct(&tokens, at + 1, '<') => {
                let end = position(&tokens, at, ';');
                let tree = &tokens[at + 1..end];
                branches(tree, &[], &mut |segments, alias, line| {
                    names.paths.push(Path {
                        segments,
                        inline: inline.clone(),
                        alias,
                        line,
                    });
                });
                end
            }
            TokenTree::Ident(word) if word == "mod" && is_block(&tokens, at + 2) => {
                inline.push(tokens[at + 1].to_string());
                search(stream(&tokens[at + 2]), inline, names);
                inline.pop();
                at + 3
            }
            // `pub(in crate::transport)` imports nothing.
            TokenTree::Group(group) if group.to_string().starts_with("(in ") => at + 1,
            TokenTree::Ident(word)
                if is_colons(&tokens, at + 1) && !is_colons(&tokens, at.wrapping_sub(2)) =>
            {
                let line = word.span().start().line;
                let (segments, end) = segments(&tokens, at);
                names.paths.push(Path {
                    segments,
                    inline: inline.clone(),
                    alias: None,
                    line,
                });
                end
            }
            TokenTree::Group(group) => {
                search(group.stream(), inline, names);
                at + 1
            }
            _ => at + 1,
        };
    }
}

/// Reads the segments of the path that begins at `at`. Returns where the path ends, or its generic
/// arguments begin.
fn segments(tokens: &[TokenTree], mut at: usize) -> (Vec<String>, usize) {
    let mut segments = vec![tokens[at].to_string()];
    at += 1;
    while is_colons(tokens, at) {
        let Some(TokenTree::Ident(name)) = tokens.get(at + 2) else {
            break;
        };
        segments.push(name.to_string());
        at += 3;
    }
    (segments, at)
}

/// Calls `found` for each branch of a `use` tree: with its segments, the name that it gets, and its
/// line.
fn branches(
    tree: &[TokenTree],
    prefix: &[String],
    found: &mut impl FnMut(Vec<String>, Option<String>, usize),
) {
    let begin = if is_colons(tree, 0) { 2 } else { 0 };
    let mut path = prefix.to_vec();
    let (mut at, mut line) = (begin, 0);
    while let Some(token) = tree.get(at) {
        match token {
            TokenTree::Ident(name) if name == "as" => break,
            TokenTree::Ident(name) => {
                line = name.span().start().line;
                if name != "self" || path.is_empty() {
                    path.push(name.to_string());
                }
            }
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for branch in inner.split(is_comma).filter(|branch| !branch.is_empty()) {
                    branches(branch, &path, found);
                }
                return;
            }
            TokenTree::Punct(star) if star.as_char() == '*' => {
                return found(path, None, star.span().start().line);
            }
            _ => {}
        }
        at += 1;
    }
    let alias = tree
        .get(at + 1)
        .map(ToString::to_string)
        .or_else(|| path.last().cloned());
    found(path, alias, line);
}

/// Returns where the item ends that begins at `at` with an attribute such as `#[cfg(test)]` or
/// `#[cfg(all(test, loom))]`: after its semicolon or its block.
fn end_of_test_only_item(tokens: &[TokenTree], at: usize) -> Option<usize> {
    let attribute = tokens.get(at + 1).filter(|_| is_punct(tokens, at, '#'))?;
    let text = attribute.to_string().replace(' ', "");
    if !text.starts_with("[cfg(test)") && !text.starts_with("[cfg(all(test,") {
        return None;
    }
    let ends = |token: &TokenTree| match token {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        _ => false,
    };
    let end = tokens[at..].iter().position(ends)?;
    Some(at + end + 1)
}

/// The name of the module if the item is `mod name;`.
fn declared_module(item: &[TokenTree]) -> Option<String> {
    let [.., word, name, end] = item else {
        return None;
    };
    (word.to_string() == "mod" && end.to_string() == ";").then(|| name.to_string())
}

fn position(tokens: &[TokenTree], at: usize, punct: char) -> usize {
    (at..tokens.len())
        .find(|&at| is_punct(tokens, at, punct))
        .unwrap_or(tokens.len())
}

fn stream(token: &TokenTree) -> TokenStream {
    match token {
        TokenTree::Group(group) => group.stream(),
        other => other.clone().into(),
    }
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens, at, ':') && is_punct(tokens, at.wrapping_add(1), ':')
}

fn is_comma(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',')
}

fn is_punct(tokens: &[TokenTree], at: usize, expected: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == expected)
}

fn is_block(tokens: &[TokenTree], at: usize) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace)
}
