//! The graph below a value as text, and the jobs in it.

use std::collections::HashMap;
use std::sync::Arc;

use super::awaiter::JobId;
use super::handle::Delayed;
use super::node::Graph;

impl<T: 'static> Delayed<T> {
    /// Describes the graph below the value in the language of Graphviz's `dot`.
    ///
    /// A job is a box with the name of its function, anything else an ellipse with the name of its
    /// method or operator. Nodes that have a value are filled, and failed ones red. An arrow leads
    /// from an operand to what is computed from it. Computing a value lets go of its operands, so
    /// call this before the value is awaited.
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let sum = delayed_val(2.0).map(f64::sqrt) + delayed_val(1.0);
    /// let dot = sum.to_dot();
    /// assert!(dot.starts_with("digraph delayed {"));
    /// assert!(dot.contains("n0 [label=\"add\"]"));
    /// assert_eq!(dot.matches(" -> ").count(), 3);
    /// ```
    pub fn to_dot(&self) -> String {
        let mut text = "digraph delayed {\n".to_owned();
        let mut arrows = String::new();
        visit(
            self.0.clone(),
            |_| true,
            |at, node, operands| {
                let label = escaped(node.label());
                let shape = if node.job().is_some() {
                    ", shape=box"
                } else {
                    ""
                };
                let state = match node.outcome() {
                    None => "",
                    Some(Ok(())) => ", style=filled",
                    Some(Err(_)) => ", color=red",
                };
                text += &format!("    n{at} [label=\"{label}\"{shape}{state}];\n");
                for operand in operands {
                    arrows += &format!("    n{operand} -> n{at};\n");
                }
            },
        );
        text + &arrows + "}\n"
    }

    /// Returns the jobs from whose results the value is computed, as far as the graph has them
    /// still. The arguments of these jobs are not looked at.
    pub(in crate::delayed) fn jobs(&self) -> Vec<JobId> {
        let mut jobs = Vec::new();
        let is_no_job = |node: &dyn Graph| node.job().is_none();
        visit(self.0.clone(), is_no_job, |_, node, _| {
            jobs.extend(node.job());
        });
        jobs
    }
}

/// Calls `see` with the number of each node below `root`, the node, and the numbers of its
/// operands. A node for which `descends` is false has no operands.
fn visit(
    root: Arc<dyn Graph>,
    descends: impl Fn(&dyn Graph) -> bool,
    mut see: impl FnMut(usize, &dyn Graph, &[usize]),
) {
    let address = |node: &Arc<dyn Graph>| Arc::as_ptr(node).cast::<()>().addr();
    let mut numbers = HashMap::from([(address(&root), 0)]);
    // Keeps all nodes, so that no address is that of two.
    let mut nodes = vec![root];
    let (mut operands, mut of_node) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < nodes.len() {
        if descends(&*nodes[at]) {
            nodes[at].add_operands(&mut operands);
        }
        for operand in operands.drain(..) {
            let number = *numbers.entry(address(&operand)).or_insert(nodes.len());
            if number == nodes.len() {
                nodes.push(operand);
            }
            of_node.push(number);
        }
        see(at, &*nodes[at], &of_node);
        of_node.clear();
        at += 1;
    }
    // The last handles of a chain would be dropped from the root on, each within the one before.
    while nodes.pop().is_some() {}
}

/// Escapes a text for a quoted string.
fn escaped(label: &str) -> String {
    let mut text = String::with_capacity(label.len());
    for character in label.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            '\n' => text.push_str("\\n"),
            _ => text.push(character),
        }
    }
    text
}

/// Finds the name of the method or operator in the name of the type of its function: `add` in
/// `<f64 as core::ops::arith::Add>::add`, and `map` in `a::Delayed<T>::map<U, F>::{{closure}}`.
pub(super) fn name_of_function(type_name: &str) -> &str {
    let name = type_name.trim_end_matches("::{{closure}}");
    let mut depth = 0;
    let mut end = name.len();
    for (at, character) in name.char_indices().rev() {
        match character {
            '>' => depth += 1,
            '<' => {
                depth -= 1;
                if depth == 0 {
                    end = at;
                }
            }
            ':' if depth == 0 => return name[at + 1..end].trim_end_matches(':'),
            _ => {}
        }
    }
    &name[..end]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::promise::pending;
    use super::*;

    #[test]
    fn the_name_of_a_function_is_the_last_part_without_generics() {
        for (type_name, name) in [
            ("<f64 as core::ops::arith::Add>::add", "add"),
            (
                "a::b::<impl c::Delayed<T>>::map<U, a::F>::{{closure}}",
                "map",
            ),
            ("a::b::map::{{closure}}::{{closure}}", "map"),
            ("alone<u8>", "alone"),
        ] {
            assert_eq!(name_of_function(type_name), name);
        }
    }

    #[test]
    fn the_jobs_of_a_value_are_those_that_it_is_computed_from_directly() {
        let promises: Vec<_> = (0..4).map(|_| pending::<i32>("job")).collect();
        for pair in promises.windows(2) {
            let [(_, argument), (promise, _)] = pair else {
                unreachable!("windows of two");
            };
            promise.set_argument(argument);
        }
        let value = |at: usize| promises[at].1.clone();
        let job = |at: usize| promises[at].0.job();
        assert_eq!(value(3).jobs(), [job(3)]);
        let computed = (value(1) + 1) * value(3) - value(1);
        let jobs: BTreeSet<JobId> = computed.jobs().into_iter().collect();
        assert_eq!(jobs, BTreeSet::from([job(1), job(3)]));
        assert_eq!(computed.jobs().len(), 2);
    }

    #[test]
    fn quotes_and_backslashes_are_escaped() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
