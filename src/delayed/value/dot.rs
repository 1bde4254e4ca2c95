//! The graph below a value as text.

use std::collections::HashMap;
use std::sync::Arc;

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
        visit(self.0.clone(), |at, node, operands| {
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
        });
        text + &arrows + "}\n"
    }
}

/// Calls `see` with the number of each node below `root`, the node, and the numbers of its
/// operands.
fn visit(root: Arc<dyn Graph>, mut see: impl FnMut(usize, &dyn Graph, &[usize])) {
    let address = |node: &Arc<dyn Graph>| Arc::as_ptr(node).cast::<()>().addr();
    let mut numbers = HashMap::from([(address(&root), 0)]);
    // Keeps all nodes, so that no address is that of two.
    let mut nodes = vec![root];
    let (mut operands, mut of_node) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < nodes.len() {
        nodes[at].add_operands(&mut operands);
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
    fn quotes_and_backslashes_are_escaped() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
