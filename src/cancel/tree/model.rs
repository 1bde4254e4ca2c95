//! A model of the tree that is slow and obviously right.
//!
//! It stores only the settings of each node (parent, cancelled, shielded, defers) and whether it is
//! committed. It computes everything else each time, by walking up to the root or by recursing
//! down.

use std::collections::BTreeMap;

use super::End;

/// A node's name in the model, and its payload in the tree. Never reused, unlike a [`NodeId`].
pub(super) type Name = usize;

/// A node of the model.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) parent: Option<Name>,
    pub(super) cancelled: bool,
    pub(super) shielded: bool,
    pub(super) defers: bool,
    pub(super) committed: bool,
    /// The owner has removed it, and others are below it.
    pub(super) removed: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model(pub(super) BTreeMap<Name, Known>);

impl Model {
    pub(super) fn children(&self, name: Name) -> impl Iterator<Item = Name> {
        self.0
            .iter()
            .filter(move |(_, known)| known.parent == Some(name))
            .map(|(name, _)| *name)
    }

    /// Returns the node and all its ancestors.
    pub(super) fn path(&self, name: Name) -> Vec<Name> {
        let above = self.0[&name]
            .parent
            .map_or(Vec::new(), |parent| self.path(parent));
        std::iter::once(name).chain(above).collect()
    }

    /// Returns the node and the ancestors whose cancellation reaches it.
    pub(super) fn visible(&self, name: Name) -> Vec<Name> {
        let path = self.path(name);
        let shield = path.iter().position(|name| self.0[name].shielded);
        path[..shield.map_or(path.len(), |at| at + 1)].to_vec()
    }

    /// Returns the outermost node that a node's cancellation comes from, if it is cancelled.
    pub(super) fn source(&self, name: Name) -> Option<Name> {
        let cancelled = |name: &Name| self.0[name].cancelled || self.0[name].committed;
        self.visible(name).into_iter().rfind(cancelled)
    }

    pub(super) fn effective(&self, name: Name) -> bool {
        self.source(name).is_some()
    }

    pub(super) fn blocks(&self, name: Name) -> bool {
        let known = &self.0[&name];
        !known.removed && (known.shielded || known.defers || self.is_deferred(name))
    }

    pub(super) fn is_deferred(&self, name: Name) -> bool {
        self.children(name).any(|child| self.blocks(child))
    }

    pub(super) fn must_drop(&self, name: Name) -> bool {
        self.effective(name) && !self.is_deferred(name)
    }

    /// Returns whether a cancellation ends at this node: it is the outermost source of its own
    /// cancellation, and not committed to one further up.
    pub(super) fn absorbs(&self, name: Name) -> bool {
        self.source(name) == Some(name) && !self.0[&name].committed
    }

    /// Commits the path up to the node that absorbs, or up to one that is committed already and so
    /// is dropped from above.
    pub(super) fn commit(&mut self, name: Name) -> End {
        if self.absorbs(name) {
            return End::Here;
        }
        let path = self.path(name);
        self.commit_path(&path);
        End::Above
    }

    pub(super) fn commit_path(&mut self, path: &[Name]) {
        let is_end = |at| !self.effective(at) || self.absorbs(at) || self.0[&at].committed;
        let end = path.iter().position(|at| is_end(*at));
        for at in &path[..end.unwrap_or(path.len())] {
            self.node(*at).committed = !self.0[at].removed;
        }
    }

    pub(super) fn remove(&mut self, name: Name) {
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

    pub(super) fn move_below(&mut self, name: Name, parent: Option<Name>) {
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
    pub(super) fn tidy(&mut self) {
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
    pub(super) fn is_committed_to_nothing(&self, name: Name) -> bool {
        let known = &self.0[&name];
        known.committed && !known.parent.is_some_and(|parent| self.effective(parent))
    }

    pub(super) fn node(&mut self, name: Name) -> &mut Known {
        self.0.get_mut(&name).expect("names of live nodes")
    }

    /// Returns whether the node or anything below it is committed.
    pub(super) fn is_committed_below(&self, name: Name) -> bool {
        self.0[&name].committed
            || self
                .children(name)
                .any(|child| self.is_committed_below(child))
    }

    /// Returns, for each node with an owner, the values that the owner can see: effective, must
    /// drop, and committed to nothing.
    pub(super) fn seen(&self) -> BTreeMap<Name, (bool, bool, bool)> {
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
