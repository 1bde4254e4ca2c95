//! Reads the sources of the crate: its items, implementations and re-exports.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use crate::item::{Item, Kind};
use crate::tokens::{
    calls_panic, end_of_item, group, is_block, is_word, name, punct, returned_names, skip_generics,
    strings, words,
};

/// The items of the crate.
#[derive(Default)]
pub struct Crate {
    pub items: Vec<Item>,
    /// The trait and the type of each `impl .. for`.
    implementations: BTreeSet<(String, String)>,
    /// The top-level module (empty for the root) and the name of each re-export.
    exports: BTreeSet<(String, String)>,
    /// The modules that the root declares `pub`.
    public_modules: BTreeSet<String>,
}

impl Crate {
    pub fn read() -> Self {
        let root = seedbed_checks::root().join("src");
        let mut files = Vec::new();
        gather(&root, &mut files);
        files.sort();
        let mut crate_ = Crate::default();
        for path in files {
            let name = path.strip_prefix(&root).expect("it was found there");
            let text = fs::read_to_string(&path).expect("a source can be read");
            crate_.add(&name.to_string_lossy(), &text);
        }
        crate_.keep_public();
        assert!(
            crate_.items.len() > 200,
            "only {} public items were found",
            crate_.items.len()
        );
        crate_
    }

    pub fn add(&mut self, file: &str, text: &str) {
        let tokens: TokenStream = text.parse().expect("the sources are Rust");
        Reader {
            file,
            owner: None,
            found: self,
        }
        .read(tokens);
    }

    /// Removes the items that other crates cannot name.
    pub fn keep_public(&mut self) {
        let (exports, modules) = (&self.exports, &self.public_modules);
        self.items.retain(|item| {
            let module = module(&item.file);
            let name = item.exported_name();
            let exported = exports.contains(&(module.to_owned(), name.to_owned()));
            let in_public_root =
                item.file == format!("{module}/mod.rs") && modules.contains(module);
            // A macro of a public module declares items under the name of an argument.
            let by_macro = name == "$name" && modules.contains(module);
            exported || in_public_root || by_macro || item.kind == Kind::Macro
        });
    }

    pub fn implements(&self, item: &Item, name: &str) -> bool {
        let implementation = (name.to_owned(), item.name.clone());
        self.implementations.contains(&implementation)
    }

    pub fn returns_a_future(&self, item: &Item) -> bool {
        item.returns.iter().any(|name| {
            let implements = |what: &str| {
                let implementation = (what.to_owned(), name.clone());
                self.implementations.contains(&implementation)
            };
            name == "Future" || implements("Future") || implements("IntoFuture")
        })
    }

    pub fn returned_types<'a>(&'a self, item: &'a Item) -> impl Iterator<Item = &'a Item> {
        self.items
            .iter()
            .filter(|kind| kind.kind == Kind::Type && item.returns.contains(&kind.name))
    }
}

/// Returns the top-level module of a file below `src`; empty for the root.
fn module(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    match first.trim_end_matches(".rs") {
        "lib" => "",
        module => module,
    }
}

/// Reads a file, or a block of it.
struct Reader<'a> {
    file: &'a str,
    /// The type whose methods these are.
    owner: Option<String>,
    found: &'a mut Crate,
}

/// The attributes before an item's keyword.
#[derive(Default)]
struct Attributes {
    docs: String,
    skip: bool,
    exported: bool,
}

impl Reader<'_> {
    pub fn read(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut attributes = Attributes::default();
        let mut at = 0;
        while at < tokens.len() {
            if let (Some('#'), Some(TokenTree::Group(group))) =
                (punct(&tokens[at]), tokens.get(at + 1))
            {
                attributes.add(group);
                at += 2;
                continue;
            }
            let end = end_of_item(&tokens, at);
            let item = &tokens[at..end];
            let attributes = std::mem::take(&mut attributes);
            if !attributes.skip {
                self.item(item, attributes);
            }
            at = end;
        }
    }

    /// Reads an item, without its attributes.
    fn item(&mut self, item: &[TokenTree], attributes: Attributes) {
        let is_restricted = matches!(item.get(1), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
        let public = is_word(&item[0], "pub") && !is_restricted;
        let start = match (is_word(&item[0], "pub"), is_restricted) {
            (true, true) => 2,
            (true, false) => 1,
            (false, _) => 0,
        };
        let rest = &item[start..];
        let qualifiers = ["async", "const", "unsafe"];
        let keyword_at = rest
            .iter()
            .position(|token| !qualifiers.iter().any(|word| is_word(token, word)))
            .unwrap_or(0);
        let Some(TokenTree::Ident(keyword)) = rest.get(keyword_at) else {
            return;
        };
        let after = &rest[keyword_at + 1..];
        match keyword.to_string().as_str() {
            "use" if public => self.export(after),
            "mod" => {
                if public && module(self.file).is_empty() {
                    self.found.public_modules.insert(name(after));
                }
                self.inside(after);
            }
            "impl" => self.implementation(after),
            "macro_rules" => {
                if attributes.exported {
                    self.declare(Kind::Macro, &after[1..], attributes, &[]);
                }
                for token in after.iter().filter_map(group) {
                    for arm in token
                        .stream()
                        .into_iter()
                        .filter(|token| group(token).is_some_and(is_block))
                    {
                        self.inside(&[arm]);
                    }
                }
            }
            "struct" | "enum" | "trait" | "type" | "union" if public => {
                self.declare(Kind::Type, after, attributes, &[]);
            }
            "fn" if public => {
                let is_async = rest[..keyword_at]
                    .iter()
                    .any(|token| is_word(token, "async"));
                let future = is_async.then(|| "Future".to_owned());
                self.declare(Kind::Function, after, attributes, future.as_slice());
            }
            // `pin_project! { .. }`
            _ if after.first().and_then(punct) == Some('!') => self.inside(after),
            _ => {}
        }
    }

    /// Reads the blocks among these tokens.
    fn inside(&mut self, tokens: &[TokenTree]) {
        for block in tokens
            .iter()
            .filter_map(group)
            .filter(|group| is_block(group))
        {
            self.read(block.stream());
        }
    }

    /// Reads the tokens after `impl`.
    fn implementation(&mut self, header_and_block: &[TokenTree]) {
        let after_generics = skip_generics(header_and_block);
        let for_type = |at: &usize| {
            is_word(&after_generics[*at], "for")
                && after_generics.get(at + 1).and_then(punct) != Some('<')
        };
        match (0..after_generics.len()).find(for_type) {
            Some(at) => {
                let (of, kind) = (name(after_generics), name(&after_generics[at + 1..]));
                self.found.implementations.insert((of, kind));
            }
            None => {
                let outer = self.owner.replace(name(after_generics));
                self.inside(&after_generics[after_generics.len() - 1..]);
                self.owner = outer;
            }
        }
    }

    /// Records an item; `item` begins with its name.
    fn declare(
        &mut self,
        kind: Kind,
        item: &[TokenTree],
        attributes: Attributes,
        extra: &[String],
    ) {
        let own_name = name(item);
        let name = match &self.owner {
            Some(owner) => format!("{owner}::{own_name}"),
            None => own_name,
        };
        let mut returns = extra.to_vec();
        let mut panics = false;
        if kind == Kind::Function {
            returns.extend(returned_names(item));
            if let Some(body) = item.last().and_then(group) {
                panics |= calls_panic(body.stream());
            }
        }
        self.found.items.push(Item {
            kind,
            file: self.file.to_owned(),
            line: item[0].span().start().line,
            name,
            docs: attributes.docs,
            returns,
            panics,
        });
    }

    /// Reads the names of a `pub use`, if this is the root or a public module.
    fn export(&mut self, path: &[TokenTree]) {
        let own = module(self.file);
        let is_root = self.file == "lib.rs" || self.file == format!("{own}/mod.rs");
        if !is_root {
            return;
        }
        let words = words(path.iter().cloned().collect());
        let from = match words.first().map(String::as_str) {
            Some("crate") => words[1].clone(),
            Some(first) if own.is_empty() && words.len() > 1 => first.to_owned(),
            _ => own.to_owned(),
        };
        for word in words {
            self.found.exports.insert((from.clone(), word.clone()));
            self.found.exports.insert((own.to_owned(), word));
        }
    }
}

impl Attributes {
    pub fn add(&mut self, attribute: &Group) {
        let tokens: Vec<TokenTree> = attribute.stream().into_iter().collect();
        let text = attribute.stream().to_string().replace(' ', "");
        match text.as_str() {
            "cfg(test)" | "doc(hidden)" => self.skip = true,
            "macro_export" => self.exported = true,
            _ if text.starts_with("doc=") => {
                strings(tokens.into_iter().collect(), &mut self.docs);
                self.docs.push('\n');
            }
            _ => {}
        }
    }
}

/// Collects the sources below a folder that are compiled without tests.
fn gather(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the sources can be listed") {
        let path = entry.expect("the sources can be listed").path();
        let name = path.to_string_lossy();
        if path.is_dir() {
            gather(&path, files);
        } else if name.ends_with(".rs") && !name.ends_with("/tests.rs") && !name.contains("/tests/")
        {
            files.push(path);
        }
    }
}
