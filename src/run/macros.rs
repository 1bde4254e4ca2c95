//! The macros `main!` and `test!`, which wrap a function in a run.

/// Makes an `async fn main` the program's `main`: it calls [`run`](crate::run()) with it, before
/// anything else.
///
/// ```
/// seedbed::main! {
///     async fn main() -> Result<(), std::num::ParseIntError> {
///         assert_eq!("5".parse::<u32>()?, 5);
///         Ok(())
///     }
/// }
/// ```
#[macro_export]
macro_rules! main {
    ($(#[$attribute:meta])* async fn main() $(-> $result:ty)? $body:block) => {
        $(#[$attribute])*
        fn main() $(-> $result)? {
            async fn main() $(-> $result)? $body
            $crate::run(main())
        }
    };
}

/// Makes an `async fn` a `#[test]`, which calls [`run`](crate::run()) with it. One block may
/// contain several.
///
/// Jobs work as everywhere: a worker process of the test is the test binary, started again with
/// only this test.
///
/// ```
/// seedbed::test! {
///     async fn two_and_two() {
///         assert_eq!(2 + 2, 4);
///     }
///
///     /// Attributes are kept.
///     #[should_panic = "on purpose"]
///     async fn fails() {
///         panic!("on purpose");
///     }
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! test {
    ($($(#[$attribute:meta])* async fn $name:ident() $(-> $result:ty)? $body:block)*) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $name() $(-> $result)? {
                async fn test() $(-> $result)? $body
                $crate::run(test())
            }
        )*
    };
}
