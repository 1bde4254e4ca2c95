//! Tests the tree at depths where recursion would overflow the stack.

use std::collections::BTreeSet;

use super::{Changed, End, Kind, NodeId, Tree};

/// The depth of the deep trees.
const DEPTH: usize = 100_000;

/// Adds a chain of plain nodes, outermost first.
fn chain(tree: &mut Tree<()>) -> Vec<NodeId> {
    let mut parent = None;
    let add = |_| {
        let id = tree.add(parent, Kind::Plain, ());
        parent = Some(id);
        id
    };
    (0..DEPTH).map(add).collect()
}

/// Runs `test` on a stack that is too small for recursion: 64 KiB, less than a byte per level.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(64 << 10);
    let outcome = thread.spawn(test).expect("a thread can be started").join();
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Removes the last nodes of a tree, in this order.
fn remove_all(mut tree: Tree<()>, ids: impl IntoIterator<Item = NodeId>) {
    let mut changed = Changed::new();
    for id in ids {
        changed.clear();
        tree.remove(id, &mut changed);
    }
    assert_eq!(tree.len(), 0);
}

#[cfg_attr(miri, ignore = "too many nodes")]
#[test]
fn a_deep_chain_is_cancelled_level_by_level() {
    on_a_small_stack(|| {
        let mut tree = Tree::new();
        let ids = chain(&mut tree);
        let mut changed = Changed::new();
        tree.cancel(ids[0], &mut changed);
        assert_eq!(changed, ids);
        assert!(ids.iter().all(|&id| tree.must_drop(id)));
        assert_eq!(tree.visible(ids[DEPTH - 1]).count(), DEPTH);
        remove_all(tree, ids.into_iter().rev());
    });
}

#[cfg_attr(miri, ignore = "too many nodes")]
#[test]
fn a_shield_below_a_deep_chain_defers_it_until_it_is_taken_down() {
    on_a_small_stack(|| {
        let mut tree = Tree::new();
        let ids = chain(&mut tree);
        let mut changed = Changed::new();
        let shield = tree.add(Some(ids[DEPTH - 1]), Kind::Shield, ());
        tree.cancel(ids[0], &mut changed);
        assert!(!tree.is_effective(shield));
        assert!(!ids.iter().any(|&id| tree.must_drop(id)));

        changed.clear();
        tree.set_shielded(shield, false, &mut changed);
        assert_eq!(changed.len(), DEPTH + 1);
        assert!(ids.iter().all(|&id| tree.must_drop(id)));
        assert!(tree.must_drop(shield));
        remove_all(tree, ids.into_iter().chain([shield]));
    });
}

#[cfg_attr(miri, ignore = "too many nodes")]
#[test]
fn a_deep_chain_is_committed_and_removed_from_the_top() {
    on_a_small_stack(|| {
        let mut tree = Tree::new();
        let ids = chain(&mut tree);
        let mut changed = Changed::new();
        tree.cancel(ids[0], &mut changed);
        assert_eq!(tree.commit(ids[DEPTH - 1]), End::Above);
        assert_eq!(tree.commit(ids[1]), End::Above);
        assert_eq!(tree.commit(ids[0]), End::Here);
        remove_all(tree, ids);
    });
}

#[cfg_attr(miri, ignore = "too many nodes")]
#[test]
fn a_deep_chain_without_its_cancelled_root_is_not_cancelled_any_more() {
    on_a_small_stack(|| {
        let mut tree = Tree::new();
        let ids = chain(&mut tree);
        let mut changed = Changed::new();
        tree.cancel(ids[0], &mut changed);
        changed.clear();
        tree.remove(ids[0], &mut changed);
        assert_eq!(changed, ids[1..]);
        assert!(!ids[1..].iter().any(|&id| tree.is_effective(id)));
        remove_all(tree, ids.into_iter().skip(1));
    });
}

#[cfg_attr(miri, ignore = "too many nodes")]
#[test]
fn a_deep_chain_may_be_removed_in_any_order() {
    on_a_small_stack(|| {
        let mut tree = Tree::new();
        let ids = chain(&mut tree);
        let (even, odd): (Vec<_>, Vec<_>) = ids
            .into_iter()
            .enumerate()
            .partition(|(level, _)| level % 2 == 0);
        remove_all(tree, even.into_iter().chain(odd).map(|(_, id)| id));
    });
}

#[cfg_attr(miri, ignore = "too many nodes")]
#[test]
fn a_wide_node_is_cancelled_and_removed_before_its_children() {
    let mut tree = Tree::new();
    let root = tree.add(None, Kind::Plain, ());
    let middle = tree.add(Some(root), Kind::Plain, ());
    let children: Vec<_> = (0..DEPTH)
        .map(|_| tree.add(Some(middle), Kind::Defer, ()))
        .collect();
    let mut changed = Changed::new();
    tree.cancel(middle, &mut changed);
    assert_eq!(changed.len(), DEPTH + 1);
    tree.remove(middle, &mut changed);
    assert!(!children.iter().any(|&id| tree.is_effective(id)));
    assert!(!tree.is_deferred(root), "they belong to no polled node");
    let mut changed = Changed::new();
    for &child in &children {
        tree.move_below(child, Some(root), &mut changed);
    }
    assert!(tree.is_deferred(root));
    assert_eq!(tree.len(), DEPTH + 1, "the removed node is gone");
    remove_all(tree, children.into_iter().chain([root]));
}

#[test]
fn slots_of_removed_nodes_are_reused() {
    let mut tree = Tree::new();
    let ids: BTreeSet<_> = (0..10)
        .map(|_| {
            let id = tree.add(None, Kind::Plain, ());
            tree.remove(id, &mut Changed::new());
            id.index()
        })
        .collect();
    assert_eq!(ids.len(), 1);
}
