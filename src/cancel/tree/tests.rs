//! Compares the tree with a model that is slow and obviously right, and tests it at depths where
//! recursion would overflow the stack.
//!
//! The model stores only the settings of each node (parent, cancelled, shielded, defers) and
//! whether it is committed. It computes everything else each time, by walking up to the root or by
//! recursing down.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Changed, End, Kind, NodeId, Tree};

/// A node's name in the model, and its payload in the tree. Never reused, unlike a [`NodeId`].
type Name = usize;

/// One operation; an index picks one of the live nodes, modulo their number.
#[derive(Clone, Copy, Debug)]
enum Step {
    AddRoot(Kind),
    Add(usize, Kind),
    Remove(usize),
    /// The content of the first node is polled at the second one, or at none.
    Move(usize, Option<usize>),
    Cancel(usize),
    SetShielded(usize, bool),
    SetDefers(usize, bool),
    /// Drops content at a node that is cancelled; skips others.
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let kind =
        || prop_oneof![3 => Just(Kind::Plain), 1 => Just(Kind::Shield), 1 => Just(Kind::Defer)];
    let any = any::<usize>;
    prop_oneof![
        1 => kind().prop_map(Step::AddRoot),
        10 => (any(), kind()).prop_map(|(at, kind)| Step::Add(at, kind)),
        4 => any().prop_map(Step::Remove),
        3 => (any(), proptest::option::of(any())).prop_map(|(at, to)| Step::Move(at, to)),
        3 => any().prop_map(Step::Cancel),
        4 => (any(), proptest::bool::ANY).prop_map(|(at, on)| Step::SetShielded(at, on)),
        2 => (any(), proptest::bool::ANY).prop_map(|(at, on)| Step::SetDefers(at, on)),
        4 => any().prop_map(Step::Drop),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 0..80)
}

/// A node of the model.
#[derive(Clone, Debug)]
struct Known {
    parent: Option<Name>,
    cancelled: bool,
    shielded: bool,
    defers: bool,
    committed: bool,
    /// The owner has removed it, and others are below it.
    removed: bool,
}

#[derive(Clone, Debug, Default)]
struct Model(BTreeMap<Name, Known>);

impl Model {
    fn children(&self, name: Name) -> impl Iterator<Item = Name> {
        self.0
            .iter()
            .filter(move |(_, known)| known.parent == Some(name))
            .map(|(name, _)| *name)
    }

    /// Returns the node and all its ancestors.
    fn path(&self, name: Name) -> Vec<Name> {
        let above = self.0[&name]
            .parent
            .map_or(Vec::new(), |parent| self.path(parent));
        std::iter::once(name).chain(above).collect()
    }

    /// Returns the node and the ancestors whose cancellation reaches it.
    fn visible(&self, name: Name) -> Vec<Name> {
        let path = self.path(name);
        let shield = path.iter().position(|name| self.0[name].shielded);
        path[..shield.map_or(path.len(), |at| at + 1)].to_vec()
    }

    /// Returns the outermost node that a node's cancellation comes from, if it is cancelled.
    fn source(&self, name: Name) -> Option<Name> {
        let cancelled = |name: &Name| self.0[name].cancelled || self.0[name].committed;
        self.visible(name).into_iter().rfind(cancelled)
    }

    fn effective(&self, name: Name) -> bool {
        self.source(name).is_some()
    }

    fn blocks(&self, name: Name) -> bool {
        let known = &self.0[&name];
        !known.removed && (known.shielded || known.defers || self.is_deferred(name))
    }

    fn is_deferred(&self, name: Name) -> bool {
        self.children(name).any(|child| self.blocks(child))
    }

    fn must_drop(&self, name: Name) -> bool {
        self.effective(name) && !self.is_deferred(name)
    }

    /// Returns whether a cancellation ends at this node: it is the outermost source of its own
    /// cancellation, and not committed to one further up.
    fn absorbs(&self, name: Name) -> bool {
        self.source(name) == Some(name) && !self.0[&name].committed
    }

    /// Commits the path up to the node that absorbs, or up to one that is committed already and so
    /// is dropped from above.
    fn commit(&mut self, name: Name) -> End {
        if self.absorbs(name) {
            return End::Here;
        }
        let path = self.path(name);
        self.commit_path(&path);
        End::Above
    }

    fn commit_path(&mut self, path: &[Name]) {
        let is_end = |at| !self.effective(at) || self.absorbs(at) || self.0[&at].committed;
        let end = path.iter().position(|at| is_end(*at));
        for at in &path[..end.unwrap_or(path.len())] {
            self.node(*at).committed = !self.0[at].removed;
        }
    }

    fn remove(&mut self, name: Name) {
        let removed = Known {
            parent: self.0[&name].parent,
            cancelled: false,
            shielded: false,
            defers: false,
            committed: false,
            removed: true,
        };
        self.0.insert(name, removed);
        self.tidy();
    }

    fn move_below(&mut self, name: Name, parent: Option<Name>) {
        if !parent.is_some_and(|parent| self.path(parent).contains(&name)) {
            self.node(name).parent = parent;
            if self.0[&name].committed {
                let path = self.path(name);
                self.commit_path(&path[1..]);
            }
        }
        self.tidy();
    }

    /// Keeps removed nodes only where others are below them, and none below another.
    fn tidy(&mut self) {
        let is_removed = |model: &Self, name: Name| model.0[&name].removed;
        for name in Vec::from_iter(self.0.keys().copied()) {
            while is_removed(self, name)
                && let Some(parent) = self.0[&name].parent
                && is_removed(self, parent)
            {
                self.node(name).parent = self.0[&parent].parent;
            }
        }
        for name in Vec::from_iter(self.0.keys().copied()) {
            if is_removed(self, name) && self.children(name).next().is_none() {
                self.0.remove(&name);
            }
        }
    }

    /// Returns whether the node is committed, and nothing above it is cancelled.
    fn is_committed_to_nothing(&self, name: Name) -> bool {
        let known = &self.0[&name];
        known.committed && !known.parent.is_some_and(|parent| self.effective(parent))
    }

    fn node(&mut self, name: Name) -> &mut Known {
        self.0.get_mut(&name).expect("names of live nodes")
    }

    /// Returns whether the node or anything below it is committed.
    fn is_committed_below(&self, name: Name) -> bool {
        self.0[&name].committed
            || self
                .children(name)
                .any(|child| self.is_committed_below(child))
    }

    /// Returns, for each node with an owner, the values that the owner can see: effective, must
    /// drop, and committed to nothing.
    fn seen(&self) -> BTreeMap<Name, (bool, bool, bool)> {
        let see = |name: Name| {
            let committed = self.is_committed_to_nothing(name);
            (
                name,
                (self.effective(name), self.must_drop(name), committed),
            )
        };
        let owned = self.0.iter().filter(|(_, known)| !known.removed);
        owned.map(|(name, _)| see(*name)).collect()
    }
}

/// The tree and the model.
struct Pair {
    tree: Tree<Name>,
    model: Model,
    ids: BTreeMap<Name, NodeId>,
    next_name: Name,
    /// For each node whose content was dropped, the end that was returned.
    ends: BTreeMap<Name, End>,
}

impl Pair {
    fn new() -> Self {
        Pair {
            tree: Tree::new(),
            model: Model::default(),
            ids: BTreeMap::new(),
            next_name: 0,
            ends: BTreeMap::new(),
        }
    }

    fn pick(&self, index: usize) -> Option<Name> {
        let names = Vec::from_iter(self.ids.keys().copied());
        (!names.is_empty()).then(|| names[index % names.len()])
    }

    fn take(&mut self, step: Step) {
        let before = self.model.seen();
        let mut changed = Changed::new();
        match step {
            Step::AddRoot(kind) => self.add(None, kind),
            Step::Add(at, kind) => self.add(self.pick(at), kind),
            Step::Remove(at) => self.on(at, |pair, name| pair.remove(name, &mut changed)),
            Step::Move(at, to) => {
                let to = to.and_then(|to| self.pick(to));
                self.on(at, |pair, name| pair.move_below(name, to, &mut changed))
            }
            Step::Cancel(at) => self.on(at, |pair, name| pair.cancel(name, &mut changed)),
            Step::SetShielded(at, on) => {
                self.on(at, |pair, name| pair.set_shielded(name, on, &mut changed))
            }
            Step::SetDefers(at, on) => {
                self.on(at, |pair, name| pair.set_defers(name, on, &mut changed))
            }
            Step::Drop(at) => self.on(at, Self::drop_content),
        }
        self.compare();
        let moves = matches!(step, Step::Remove(_) | Step::Move(..));
        self.check_woken_owners(&before, &changed, moves);
    }

    fn on(&mut self, index: usize, act: impl FnOnce(&mut Self, Name)) {
        if let Some(name) = self.pick(index) {
            act(self, name);
        }
    }

    fn add(&mut self, parent: Option<Name>, kind: Kind) {
        let name = self.next_name;
        self.next_name += 1;
        let id = self
            .tree
            .add(parent.map(|parent| self.ids[&parent]), kind, name);
        self.ids.insert(name, id);
        let known = Known {
            parent,
            cancelled: false,
            shielded: kind == Kind::Shield,
            defers: kind == Kind::Defer,
            committed: false,
            removed: false,
        };
        self.model.0.insert(name, known);
    }

    fn remove(&mut self, name: Name, changed: &mut Changed) {
        let id = self.ids.remove(&name).expect("names of live nodes");
        assert_eq!(self.tree.remove(id, changed), name);
        assert!(!changed.contains(&id), "it has no owner any more");
        self.model.remove(name);
        self.ends.remove(&name);
    }

    fn move_below(&mut self, name: Name, to: Option<Name>, changed: &mut Changed) {
        let to_id = to.map(|to| self.ids[&to]);
        self.tree.move_below(self.ids[&name], to_id, changed);
        self.model.move_below(name, to);
    }

    fn cancel(&mut self, name: Name, changed: &mut Changed) {
        self.tree.cancel(self.ids[&name], changed);
        self.model.node(name).cancelled = true;
    }

    fn set_shielded(&mut self, name: Name, on: bool, changed: &mut Changed) {
        self.tree.set_shielded(self.ids[&name], on, changed);
        self.model.node(name).shielded = on;
    }

    fn set_defers(&mut self, name: Name, on: bool, changed: &mut Changed) {
        self.tree.set_defers(self.ids[&name], on, changed);
        self.model.node(name).defers = on;
    }

    fn drop_content(&mut self, name: Name) {
        if !self.model.effective(name) {
            return;
        }
        let end = self.tree.commit(self.ids[&name]);
        assert_eq!(end, self.model.commit(name));
        let earlier = self.ends.insert(name, end);
        assert!(
            earlier != Some(End::Above) || end == End::Above,
            "a node that committed stays so"
        );
    }

    /// Compares every query about every node.
    fn compare(&self) {
        assert_eq!(self.tree.len(), self.model.0.len());
        for (&name, &id) in &self.ids {
            assert_eq!(self.tree.payload(id), Some(&name));
            assert_eq!(
                self.tree.was_cancelled(id),
                self.model.0[&name].cancelled,
                "cancelled of {name}"
            );
            assert_eq!(
                self.tree.is_effective(id),
                self.model.effective(name),
                "effective of {name}"
            );
            assert_eq!(
                self.tree.is_deferred(id),
                self.model.is_deferred(name),
                "is_deferred of {name}"
            );
            assert_eq!(
                self.tree.must_drop(id),
                self.model.must_drop(name),
                "must_drop of {name}"
            );
            let visible: Vec<_> = self
                .tree
                .visible(id)
                .filter_map(|id| self.tree.payload(id).copied())
                .collect();
            let mut known = self.model.visible(name);
            known.retain(|name| !self.model.0[name].removed);
            assert_eq!(visible, known, "visible from {name}");
        }
    }

    /// Checks that exactly those owners are woken whose node became cancelled, is no longer
    /// cancelled, may drop now, or is committed to nothing. A removal or move may wake more.
    fn check_woken_owners(
        &self,
        before: &BTreeMap<Name, (bool, bool, bool)>,
        changed: &Changed,
        moves: bool,
    ) {
        let owner = |id: &NodeId| *self.tree.payload(*id).expect("a removed node has no owner");
        let woken: BTreeSet<Name> = changed.iter().map(owner).collect();
        for (name, now) in self.model.seen() {
            let Some(&was) = before.get(&name) else {
                assert!(
                    !woken.contains(&name),
                    "{name} is new, so its owner need not be woken"
                );
                continue;
            };
            if was.0 != now.0 || (!was.1 && now.1) || (!was.2 && now.2) {
                assert!(
                    woken.contains(&name),
                    "{name} was {was:?}, is {now:?}, and its owner is not woken"
                );
            } else if !moves && !now.2 {
                assert!(
                    !woken.contains(&name),
                    "{name} was {was:?}, is {now:?}, and its owner is woken"
                );
            }
        }
    }

    /// Checks the invariants that the definitions rely on.
    fn check_invariants(&self) {
        for &name in self.ids.keys() {
            let path = self.model.path(name);
            let above = &path[1..];
            if self.model.blocks(name) {
                let removed = above.iter().position(|at| self.model.0[at].removed);
                let above = &above[..removed.unwrap_or(above.len())];
                assert!(
                    above.iter().all(|at| self.model.is_deferred(*at)),
                    "the ancestors of a blocking node are deferred, up to a removed one"
                );
            }
            if self.model.0[&name].committed {
                assert!(self.model.effective(name), "{name} is committed");
                assert!(
                    above.iter().any(|at| self.model.absorbs(*at)),
                    "no node above {name} will drop it"
                );
            }
            if self.model.effective(name) {
                assert!(
                    path.iter().any(|at| self.model.absorbs(*at)),
                    "no node absorbs the cancellation of {name}"
                );
            }
        }
    }
}

proptest! {
    // A failure prints its steps. A regression file would lie next to the sources.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Removes nodes in any order, as when code outside the crate drops an outer future first.
    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn the_tree_does_what_the_model_does(steps in steps()) {
        let mut pair = Pair::new();
        for step in steps {
            pair.take(step);
        }
        while let Some(name) = pair.pick(0) {
            pair.remove(name, &mut Changed::new());
            pair.compare();
        }
    }

    /// Never removes or moves a node that committed nodes below it rely on.
    #[cfg_attr(miri, ignore = "too many cases")]
    #[test]
    fn a_committed_node_has_an_absorbing_node_above_it(steps in steps()) {
        let mut pair = Pair::new();
        for step in steps {
            let target = match step {
                Step::Remove(at) | Step::Move(at, _) => pair.pick(at),
                _ => None,
            };
            let is_relied_on = |name| pair.model.is_committed_below(name);
            if !target.is_some_and(is_relied_on) {
                pair.take(step);
                pair.check_invariants();
            }
        }
    }
}

/// An outer, a middle and an inner plain node; the middle one is cancelled.
fn middle_cancelled() -> (Tree<()>, [NodeId; 3]) {
    let mut tree = Tree::new();
    let outer = tree.add(None, Kind::Plain, ());
    let middle = tree.add(Some(outer), Kind::Plain, ());
    let inner = tree.add(Some(middle), Kind::Plain, ());
    tree.cancel(middle, &mut Changed::new());
    (tree, [outer, middle, inner])
}

#[test]
fn with_an_inner_and_an_outer_node_cancelled_the_outer_one_absorbs() {
    let (mut tree, [outer, middle, inner]) = middle_cancelled();
    assert_eq!(tree.commit(inner), End::Above);
    assert_eq!(tree.commit(middle), End::Here);
    tree.cancel(outer, &mut Changed::new());
    assert_eq!(tree.commit(middle), End::Above);
    assert_eq!(tree.commit(outer), End::Here);
}

#[test]
fn a_shield_put_up_after_a_drop_does_not_take_back_the_commitment() {
    let (mut tree, [outer, middle, inner]) = middle_cancelled();
    let mut changed = Changed::new();
    tree.cancel(outer, &mut changed);
    assert_eq!(
        tree.commit(middle),
        End::Above,
        "its content is gone, and the outer node goes on"
    );
    tree.set_shielded(middle, true, &mut changed);
    assert!(tree.is_effective(inner));
    assert_eq!(tree.commit(middle), End::Above);
}

#[test]
fn a_second_drop_below_a_committed_node_commits_no_others() {
    let (mut tree, [outer, middle, inner]) = middle_cancelled();
    let mut changed = Changed::new();
    assert_eq!(
        tree.commit(inner),
        End::Above,
        "the middle node will absorb it"
    );
    tree.cancel(outer, &mut changed);
    assert_eq!(tree.commit(inner), End::Above);
    tree.set_shielded(middle, true, &mut changed);
    assert_eq!(tree.commit(middle), End::Here, "it was not committed");
}

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
