//! Compares the tree with the [model](super::model), and tests what a drop commits.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::model::{Known, Model, Name};
use super::{Changed, End, Kind, NodeId, Tree};

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
