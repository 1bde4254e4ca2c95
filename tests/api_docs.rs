//! Checks the docs of public items: an example that asserts, `# Errors`, `# Cancellation`,
//! `# Panics`.
//!
//! The sources are read as tokens, so that items from macros count too. An item is public if a
//! public module, or the root of the crate, re-exports its name or defines it. The methods of a
//! trait are covered by the trait's example. A panic counts if it is in the function's own body. No
//! test can check that the docs are right.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

#[test]
fn every_public_item_has_an_example_that_asserts() {
    let crate_ = Crate::read();
    report(crate_.items.iter().filter_map(|item| {
        let excused = match item.kind {
            Kind::Type => item.is_made_elsewhere(),
            Kind::Function | Kind::Macro => false,
        };
        let fault = match item.example() {
            _ if excused => return None,
            None => "has no example",
            Some(example) if !asserts(&example) => "has an example that asserts nothing",
            Some(_) => return None,
        };
        Some((item, fault))
    }));
}

#[test]
fn every_public_future_says_what_cancellation_does() {
    let crate_ = Crate::read();
    report(crate_.items.iter().filter_map(|item| {
        let future = item.kind == Kind::Function && crate_.returns_a_future(item);
        let says = item.has_section("Cancellation")
            || crate_
                .returned_types(item)
                .any(|kind| kind.has_section("Cancellation"));
        (future && !says).then_some((item, "says nothing of cancellation"))
    }));
}

#[test]
fn every_public_function_that_may_fail_says_with_what() {
    let crate_ = Crate::read();
    report(crate_.items.iter().filter_map(|item| {
        let fails = item.kind == Kind::Function && item.returns.iter().any(|name| name == "Result");
        (fails && !item.has_section("Errors")).then_some((item, "says nothing of its errors"))
    }));
}

#[test]
fn every_public_function_that_panics_says_when() {
    let crate_ = Crate::read();
    report(crate_.items.iter().filter_map(|item| {
        let panics = item.kind == Kind::Function && item.panics;
        (panics && !item.has_section("Panics")).then_some((item, "says nothing of its panics"))
    }));
}

#[test]
fn every_public_type_that_does_something_when_dropped_says_what() {
    let crate_ = Crate::read();
    report(crate_.items.iter().filter_map(|item| {
        let drops = item.kind == Kind::Type && crate_.implements(item, "Drop");
        let says = item.docs.to_lowercase().contains("drop");
        (drops && !says).then_some((item, "does not say what dropping it does"))
    }));
}

#[test]
fn what_is_looked_for_is_found() {
    let text = r#"
        pub use inner::{plain, Handle};
        /// Says little.
        ///
        /// ```
        /// assert!(true);
        /// ```
        pub fn plain() -> Result<(), ()> { panic!() }
        pub(crate) fn hidden() {}
        pub struct Handle;
        impl<'a, T: Fn() -> u8> Future for Handle where T: for<'b> Fn(&'b u8) {}
        impl Handle {
            /// # Cancellation
            pub async fn wait(&self) { assert!(true) }
            fn private() {}
        }
        #[cfg(test)]
        mod tests { pub fn no() {} }
        macro_rules! m { () => { impl Handle { #[doc = concat!("from ", "parts")] pub fn made(self) -> Handle {} } } }
    "#;
    let mut crate_ = Crate::default();
    crate_.add("lib.rs", text);
    crate_.keep_public();
    let names: Vec<&str> = crate_.items.iter().map(|item| item.name.as_str()).collect();
    assert_eq!(names, ["plain", "Handle", "Handle::wait", "Handle::made"]);
    let [plain, handle, wait, made] = &crate_.items[..] else {
        unreachable!("counted above")
    };
    assert!(asserts(&plain.example().unwrap()) && plain.panics && !crate_.returns_a_future(plain));
    assert!(handle.example().is_none() && crate_.implements(handle, "Future"));
    assert!(wait.has_section("Cancellation") && crate_.returns_a_future(wait) && wait.panics);
    assert!(made.docs.contains("from parts") && crate_.returns_a_future(made));
    assert!(!made.has_section("Cancellation") && !made.panics);
}

fn report<'a>(faults: impl Iterator<Item = (&'a Item, &'a str)>) {
    let faults: Vec<String> = faults
        .map(|(item, fault)| format!("src/{}:{}: `{}` {fault}", item.file, item.line, item.name))
        .collect();
    assert!(
        faults.is_empty(),
        "\n{}\n{} in all",
        faults.join("\n"),
        faults.len()
    );
}

fn asserts(example: &str) -> bool {
    ["assert", "unreachable!", "panic!"]
        .iter()
        .any(|word| example.contains(word))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A free function, a method, or a function of a type.
    Function,
    /// A struct, an enum, a trait or an alias.
    Type,
    Macro,
}

/// An item that is declared `pub`.
#[derive(Debug)]
struct Item {
    kind: Kind,
    file: String,
    line: usize,
    /// `function` or `Type::method`.
    name: String,
    /// The doc comments, one line each.
    docs: String,
    /// The names in the return type of a function; for an `async fn`, also `Future`.
    returns: Vec<String>,
    /// Whether the function's body contains a `panic!` or an `assert!`.
    panics: bool,
}

impl Item {
    /// The name under which it can be re-exported.
    fn exported_name(&self) -> &str {
        self.name
            .split("::")
            .next()
            .expect("a split has a first part")
    }

    /// Returns the code blocks of the docs that are run.
    fn example(&self) -> Option<String> {
        let mut run = String::new();
        let mut found = false;
        for (number, part) in self.docs.split("```").enumerate() {
            let (info, code) = part.split_once('\n').unwrap_or((part, ""));
            let is_run = !["text", "ignore", "no_run", "compile_fail", "sh"]
                .iter()
                .any(|word| info.contains(word));
            if number % 2 == 1 && is_run {
                found = true;
                run.push_str(code);
            }
        }
        found.then_some(run)
    }

    /// Returns whether the docs link to the function that returns this type, whose example covers
    /// it. The docs of a type that a macro declares under an argument's name are among the macro's
    /// arguments.
    fn is_made_elsewhere(&self) -> bool {
        let links = [
            "made by [",
            "returned by [",
            "by awaiting [",
            "from [",
            "given to the ",
        ];
        // A phrase may be broken between two lines.
        let docs = self.docs.to_lowercase();
        let docs = docs.split_whitespace().collect::<Vec<_>>().join(" ");
        links.iter().any(|link| docs.contains(link)) || self.name == "$name"
    }

    fn has_section(&self, title: &str) -> bool {
        let heading = format!("# {title}");
        self.docs.lines().any(|line| line.trim() == heading)
    }
}

/// The items of the crate.
#[derive(Default)]
struct Crate {
    items: Vec<Item>,
    /// The trait and the type of each `impl .. for`.
    implementations: BTreeSet<(String, String)>,
    /// The top-level module (empty for the root) and the name of each re-export.
    exports: BTreeSet<(String, String)>,
    /// The modules that the root declares `pub`.
    public_modules: BTreeSet<String>,
}

impl Crate {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
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

    fn add(&mut self, file: &str, text: &str) {
        let tokens: TokenStream = text.parse().expect("the sources are Rust");
        Reader {
            file,
            owner: None,
            found: self,
        }
        .read(tokens);
    }

    /// Removes the items that other crates cannot name.
    fn keep_public(&mut self) {
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

    fn implements(&self, item: &Item, name: &str) -> bool {
        let implementation = (name.to_owned(), item.name.clone());
        self.implementations.contains(&implementation)
    }

    fn returns_a_future(&self, item: &Item) -> bool {
        item.returns.iter().any(|name| {
            let implements = |what: &str| {
                let implementation = (what.to_owned(), name.clone());
                self.implementations.contains(&implementation)
            };
            name == "Future" || implements("Future") || implements("IntoFuture")
        })
    }

    fn returned_types<'a>(&'a self, item: &'a Item) -> impl Iterator<Item = &'a Item> {
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
    fn read(&mut self, tokens: TokenStream) {
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
    fn add(&mut self, attribute: &Group) {
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

/// Returns the end of the item at `at`: after a semicolon, or after a block that ends the item.
fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
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
fn name(tokens: &[TokenTree]) -> String {
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
fn skip_generics(tokens: &[TokenTree]) -> &[TokenTree] {
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
fn returned_names(function: &[TokenTree]) -> Vec<String> {
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

fn calls_panic(body: TokenStream) -> bool {
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

fn words(tokens: TokenStream) -> Vec<String> {
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
fn strings(tokens: TokenStream, found: &mut String) {
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

fn punct(token: &TokenTree) -> Option<char> {
    match token {
        TokenTree::Punct(punct) => Some(punct.as_char()),
        _ => None,
    }
}

fn group(token: &TokenTree) -> Option<&Group> {
    match token {
        TokenTree::Group(group) => Some(group),
        _ => None,
    }
}

fn is_block(group: &Group) -> bool {
    group.delimiter() == Delimiter::Brace
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
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
