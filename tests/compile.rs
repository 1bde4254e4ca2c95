//! Programs that the compiler must refuse, with what it says, and their neighbours that it must accept.
//!
//! The messages are those of Rust 1.95; with another compiler set `TRYBUILD=overwrite` to
//! look at its own.

#[test]
fn the_compiler_refuses_what_would_be_unsound_and_accepts_what_is_sound() {
    let programs = trybuild::TestCases::new();
    programs.pass("tests/compile_pass/*.rs");
    programs.compile_fail("tests/compile_fail/*.rs");
}
