//! The job: measures one file. It runs in a worker process, where it may hang, crash, or use all of
//! its memory.
//!
//! `syn` parses recursively: a deeply nested file overflows the stack. This code does not guard
//! against that, nor against a FIFO that never ends or a file larger than memory. The worker
//! process does.

use std::ffi::OsString;
use std::fs;

use serde::{Deserialize, Serialize};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::reason::Reason;

/// The counts of one file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Lines of text, with comments and blank lines.
    pub lines: u64,
    /// Functions and methods with a body. Code inside macros is not counted, here and below.
    pub functions: u64,
    /// `unsafe { .. }` blocks.
    pub unsafe_blocks: u64,
    /// The longest function; the first one if there are several, `None` if there is no function.
    pub longest: Option<Function>,
    /// The depth of the innermost block: 1 for a function without inner blocks.
    pub nesting: u64,
}

/// The place and the length of a function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Function {
    pub name: String,
    /// The line of its `fn`, counted from 1.
    pub line: u64,
    /// The lines from its `fn` to its closing brace.
    pub lines: u64,
}

/// Measures the file at `path`.
///
/// The path is an [`OsString`] instead of a `PathBuf`, because serde encodes paths as text, and not
/// every file name is text.
pub fn measure(path: OsString) -> Result<Metrics, Reason> {
    let bytes = fs::read(path).map_err(|error| Reason::of_reading(&error))?;
    let source = String::from_utf8(bytes).map_err(|error| Reason::NotUtf8 {
        offset: error.utf8_error().valid_up_to(),
    })?;
    let metrics = measure_source(&source);
    // `proc_macro2` keeps the text of everything that a thread has parsed, for line numbers. No
    // token of this file is left, so its text can be freed; otherwise the worker would grow with
    // every file.
    proc_macro2::extra::invalidate_current_thread_spans();
    metrics
}

/// Measures a text.
fn measure_source(source: &str) -> Result<Metrics, Reason> {
    let file = syn::parse_file(source).map_err(|error| syntax_error(&error, source))?;
    let mut counter = Counter::default();
    counter.visit_file(&file);
    Ok(Metrics {
        lines: source.lines().count() as u64,
        ..counter.metrics
    })
}

/// Returns the place and the message of a syntax error.
fn syntax_error(error: &syn::Error, source: &str) -> Reason {
    let span = error.span();
    let (line, column) = if !span.byte_range().is_empty() {
        (span.start().line, span.start().column)
    } else {
        // An error at the end of the file has no place; `syn` then returns an empty span.
        (
            source.lines().count().max(1),
            source.lines().last().map_or(0, |line| line.chars().count()),
        )
    };
    Reason::Syntax {
        line,
        column: column + 1,
        message: error.to_string(),
    }
}

/// Walks a syntax tree and counts.
#[derive(Default)]
struct Counter {
    metrics: Metrics,
    /// The number of open blocks.
    open_blocks: u64,
}

impl Counter {
    fn function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        self.metrics.functions += 1;
        let first = signature.fn_token.span().start().line as u64;
        let last = body.brace_token.span.close().end().line as u64;
        let lines = last - first + 1;
        if self
            .metrics
            .longest
            .as_ref()
            .is_none_or(|longest| lines > longest.lines)
        {
            self.metrics.longest = Some(Function {
                name: signature.ident.to_string(),
                line: first,
                lines,
            });
        }
    }
}

impl<'ast> Visit<'ast> for Counter {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, method: &'ast syn::ImplItemFn) {
        self.function(&method.sig, &method.block);
        visit::visit_impl_item_fn(self, method);
    }

    fn visit_trait_item_fn(&mut self, method: &'ast syn::TraitItemFn) {
        if let Some(body) = &method.default {
            self.function(&method.sig, body);
        }
        visit::visit_trait_item_fn(self, method);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.metrics.unsafe_blocks += 1;
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        self.open_blocks += 1;
        self.metrics.nesting = self.metrics.nesting.max(self.open_blocks);
        visit::visit_block(self, block);
        self.open_blocks -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Measures a text through a file, as the survey does.
    fn measured(bytes: impl AsRef<[u8]>) -> Result<Metrics, Reason> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes.as_ref()).unwrap();
        measure(file.path().into())
    }

    /// Returns the line and the column of the syntax error in a text. The message is `syn`'s.
    fn place(source: &str) -> (usize, usize) {
        match measured(source) {
            Err(Reason::Syntax { line, column, .. }) => (line, column),
            other => panic!("{source:?} gave {other:?}"),
        }
    }

    #[test]
    fn an_empty_file_has_nothing() {
        assert_eq!(measured(""), Ok(Metrics::default()));
    }

    #[test]
    fn functions_are_counted_wherever_they_have_a_body() {
        let source = "
            fn free() {}
            struct S;
            impl S {
                fn method(&self) {}
            }
            trait T {
                fn required(&self);
                fn provided(&self) { fn nested() {} }
            }
            extern \"C\" { fn foreign(); }
        ";
        let metrics = measured(source).unwrap();
        assert_eq!(metrics.functions, 4);
        assert_eq!(metrics.lines, 12);
    }

    #[test]
    fn the_longest_function_is_the_first_with_the_most_lines() {
        let source =
            "fn one() {}\n\n/// Docs are not counted.\npub fn\n two() {\n}\nfn three() {\n\n}\n";
        assert_eq!(
            measured(source).unwrap().longest,
            Some(Function {
                name: "two".to_owned(),
                line: 4,
                lines: 3,
            })
        );
    }

    #[test]
    fn blocks_are_counted_from_the_outside_and_else_if_is_no_deeper() {
        let nesting = |source: &str| measured(source).unwrap().nesting;
        assert_eq!(nesting("struct S;"), 0);
        assert_eq!(nesting("fn f() {}"), 1);
        assert_eq!(nesting("fn f() { loop { if true { } } }"), 3);
        assert_eq!(
            nesting("fn f() { if a { } else if b { } else if c { } }"),
            2
        );
        assert_eq!(nesting("const C: u8 = { 1 };"), 1);
    }

    #[test]
    fn unsafe_blocks_are_counted_and_unsafe_functions_are_not() {
        let source = "unsafe fn f() { unsafe { unsafe { g() } } } unsafe impl Send for S {}";
        assert_eq!(measured(source).unwrap().unsafe_blocks, 2);
    }

    #[test]
    fn a_file_may_start_with_a_byte_order_mark_or_a_shebang() {
        let metrics = measured("\u{feff}fn f() {}\n").unwrap();
        assert_eq!((metrics.lines, metrics.functions), (1, 1));
        let metrics = measured("#!/usr/bin/env run\nfn f() {}\n").unwrap();
        assert_eq!(metrics.longest.unwrap().line, 2);
    }

    #[test]
    fn a_syntax_error_has_a_line_and_a_column_counted_from_one() {
        assert_eq!(place("?"), (1, 1));
        assert_eq!(place("fn f() {"), (1, 9));
        // Columns are characters, not bytes.
        assert_eq!(place("fn f() {}\nfn g() { \"äöü\" 7 }\n"), (2, 16));
    }

    #[test]
    fn what_is_missing_at_the_end_is_missed_at_the_end() {
        assert_eq!(place("fn f() {}\nstruct"), (2, 7));
    }

    #[test]
    fn the_place_of_an_error_does_not_depend_on_the_files_before_it() {
        for _ in 0..3 {
            assert!(measured("fn f() {}\n").is_ok());
            assert_eq!(place("\n?"), (2, 1));
        }
    }

    #[test]
    fn a_file_that_is_not_utf8_says_where() {
        assert_eq!(
            measured(b"// caf\xe9\n"),
            Err(Reason::NotUtf8 { offset: 6 })
        );
    }

    #[test]
    fn a_missing_file_is_unreadable() {
        let missing = measure("/nowhere/at/all.rs".into());
        assert!(
            matches!(missing, Err(Reason::Unreadable { .. })),
            "{missing:?}"
        );
    }
}
