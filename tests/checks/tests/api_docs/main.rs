//! Checks the docs of public items: an example that asserts, `# Errors`, `# Cancellation`,
//! `# Panics`.
//!
//! The sources are read as tokens, so that items from macros count too. An item is public if a
//! public module, or the root of the crate, re-exports its name or defines it. The methods of a
//! trait are covered by the trait's example. A panic counts if it is in the function's own body. No
//! test can check that the docs are right.

mod item;
mod source;
mod tokens;

use crate::item::{Item, Kind};
use crate::source::Crate;

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
