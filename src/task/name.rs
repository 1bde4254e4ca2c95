//! Names of tasks that were given none.

/// Returns the default name of a task, from the name of its future's type.
///
/// The future of an `async` block or function has a type name that ends in `::{{closure}}`. The
/// default name is the path of the outermost such type in the future's type, without that ending:
/// the function in which the block stands. A future that wraps another one, such as
/// `Shield<a::f::{{closure}}>`, is so named after the function, and no wrapper needs to be known
/// here. A type without any `async` block keeps its full name, except that a wrapper of this crate
/// around a named future of this crate or of `core` has the name of that future.
pub(super) fn default_name(future: &'static str) -> &'static str {
    let Some(path) = outermost_closure(future) else {
        return innermost_future(future);
    };
    let mut name = path;
    while let Some(shorter) = name.strip_suffix(CLOSURE) {
        name = shorter;
    }
    name
}

const CLOSURE: &str = "::{{closure}}";

/// Finds the path that ends in [`CLOSURE`] and is inside the fewest brackets; of several, the
/// first.
fn outermost_closure(name: &'static str) -> Option<&'static str> {
    let (mut depth, mut previous) = (0_usize, ' ');
    // Where the path at each depth begins.
    let mut starts = vec![0];
    let mut found: Option<(usize, &'static str)> = None;
    for (at, c) in name.char_indices() {
        match c {
            '<' | '(' | '[' => {
                depth += 1;
                starts.truncate(depth);
                starts.push(at + 1);
            }
            // The `>` of `->` closes nothing.
            '>' if previous == '-' => {}
            '>' | ')' | ']' => depth = depth.saturating_sub(1),
            ',' | ' ' | '&' | '*' => starts[depth] = at + 1,
            _ => {}
        }
        previous = c;
        let is_closure = name[at..].starts_with(CLOSURE);
        if is_closure && found.is_none_or(|(least, _)| depth < least) {
            found = Some((depth, &name[starts[depth]..at + CLOSURE.len()]));
        }
    }
    found.map(|(_, path)| path)
}

/// Removes the wrappers around a future that is not an `async` block.
fn innermost_future(mut name: &'static str) -> &'static str {
    const FUTURES: [&str; 2] = ["seedbed::", "core::future::"];
    while name.starts_with(FUTURES[0])
        && let Some((_, parameters)) = name.split_once('<')
        && FUTURES.iter().any(|path| parameters.starts_with(path))
    {
        name = first_parameter(parameters);
    }
    name
}

/// Returns the first of the type parameters that a type's name ends with.
fn first_parameter(parameters: &'static str) -> &'static str {
    let mut depth = 0_usize;
    let end = parameters.find(|c| {
        let ends = depth == 0 && matches!(c, ',' | '>');
        match c {
            '<' | '(' | '[' => depth += 1,
            '>' | ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        ends
    });
    &parameters[..end.unwrap_or(parameters.len())]
}

#[cfg(test)]
mod tests {
    use super::default_name;

    #[test]
    fn a_default_name_is_the_path_of_the_outermost_function_in_the_future_s_type() {
        let block = "seedbed::task::block::Block<seedbed::task::nursery::Nursery<'_>, a::f::{{closure}}, \
                     a::f::{{closure}}::{{closure}}>";
        assert_eq!(default_name(block), "a::f");
        assert_eq!(default_name("a::b::{{closure}}"), "a::b");
        assert_eq!(default_name("a::b::{{closure}}::{{closure}}"), "a::b");
        assert_eq!(
            default_name("core::future::ready::Ready<i32>"),
            "core::future::ready::Ready<i32>"
        );
        let shield =
            "seedbed::cancel::shield::Shield<seedbed::cancel::timeout::MoveOn<a::g::{{closure}}>>";
        assert_eq!(default_name(shield), "a::g");
        let on_cancel =
            "seedbed::cancel::shield::OnCancel<a::g<fn(u8) -> (u8, u8)>::{{closure}}, a::Cleanup>";
        assert_eq!(default_name(on_cancel), "a::g<fn(u8) -> (u8, u8)>");
        // A closure that is an argument of the function is further inside than the function.
        let retry = "a::Timed<a::retry<a::main::{{closure}}>::{{closure}}>";
        assert_eq!(default_name(retry), "a::retry<a::main::{{closure}}>");
        assert_eq!(default_name("(u8, &mut a::f::{{closure}})"), "a::f");
        let checked = "seedbed::testing::Assert<seedbed::cancel::Shield<core::future::ready::Ready<i32>, a::C>>";
        assert_eq!(default_name(checked), "core::future::ready::Ready<i32>");
        let receives = "seedbed::sync::channel::Recv<alloc::string::String>";
        assert_eq!(default_name(receives), receives);
    }

    #[test]
    fn the_library_s_own_wrappers_are_named_after_the_future_in_them() {
        fn name<F>(_: &F) -> &'static str {
            default_name(std::any::type_name::<F>())
        }
        let here = "seedbed::task::name::tests::the_library_s_own_wrappers_are_named_after_the_future_in_them";
        let moment = std::time::Duration::ZERO;
        assert_eq!(name(&async {}), here);
        assert_eq!(
            name(&crate::open_nursery(|_: crate::Nursery<'_>| async {})),
            here
        );
        assert_eq!(name(&crate::CancelScope::new().run(async {})), here);
        assert_eq!(name(&crate::shield(async {})), here);
        assert_eq!(
            name(&crate::on_cancel(async {}, std::future::ready(()))),
            here
        );
        assert_eq!(name(&crate::move_on_after(moment, async {})), here);
        assert_eq!(name(&crate::fail_after(moment, async {})), here);
        static VARIABLE: crate::variables::TreeVar<u8> = crate::variables::TreeVar::new();
        assert_eq!(name(&VARIABLE.scope(5, async {})), here);
    }
}
