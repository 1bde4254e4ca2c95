//! Chunks: encoded items with consecutive indices, and the list of those that a worker has. Pure.

use std::collections::VecDeque;

use crate::transport::map::memory::record_words;

/// Encoded items with consecutive indices, which are handed to a worker together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The index of the first item that is left.
    first: usize,
    /// How often the items have been struck by the end of a worker.
    strikes: u32,
    bytes: Vec<u8>,
    /// Where the items end in `bytes`.
    ends: Vec<usize>,
    /// The number of items at the beginning that are no longer part of the chunk.
    gone: usize,
    /// The words that the items which are left take in a ring.
    words: u64,
}

impl Chunk {
    /// Makes a chunk whose first item will have the index `first`.
    pub(super) fn new(first: usize) -> Self {
        Self {
            first,
            strikes: 0,
            bytes: Vec::new(),
            ends: Vec::new(),
            gone: 0,
            words: 0,
        }
    }

    /// Appends the item whose encoding `encode` appends to the buffer. Does nothing if it returns
    /// anything other than `Ok(true)`.
    pub(super) fn push<E>(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let start = self.bytes.len();
        let fits = encode(&mut self.bytes)?;
        if fits {
            self.words += record_words(self.bytes.len() - start);
            self.ends.push(self.bytes.len());
        }
        Ok(fits)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len() - self.gone
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the index of the first item.
    pub(super) fn first(&self) -> usize {
        self.first
    }

    pub(super) fn strikes(&self) -> u32 {
        self.strikes
    }

    /// Returns how many words the items take in a ring.
    pub(super) fn words(&self) -> u64 {
        self.words
    }

    /// Returns the encoded items.
    pub(super) fn items(&self) -> impl Iterator<Item = &[u8]> {
        (self.gone..self.ends.len()).map(|at| &self.bytes[self.start(at)..self.ends[at]])
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// Returns the number of bytes of the first item.
    fn first_len(&self) -> usize {
        self.ends[self.gone] - self.start(self.gone)
    }

    /// Removes the first item. Returns its index.
    pub(super) fn pop(&mut self) -> usize {
        self.words -= record_words(self.first_len());
        self.gone += 1;
        self.first += 1;
        self.first - 1
    }

    /// Keeps the first `count` items, and returns a chunk of the others.
    pub(super) fn split_off(&mut self, count: usize) -> Self {
        let at = self.gone + count;
        let start = self.start(at);
        let bytes = self.bytes.split_off(start);
        let ends: Vec<usize> = self.ends.drain(at..).map(|end| end - start).collect();
        let mut rest = Self {
            first: self.first + count,
            strikes: self.strikes,
            bytes,
            ends,
            gone: 0,
            words: 0,
        };
        rest.words = rest.items().map(|item| record_words(item.len())).sum();
        self.words -= rest.words;
        rest
    }

    /// Removes the first item, and returns it as a chunk that was struck once more.
    pub(super) fn take_struck(&mut self) -> Self {
        let rest = self.split_off(1);
        let mut struck = std::mem::replace(self, rest);
        struck.strikes += 1;
        struck
    }
}

/// The items that a worker has in one session, in the order in which it works on them.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    chunks: VecDeque<Chunk>,
    /// The number of items that have ended.
    ended: u64,
}

impl Ledger {
    /// Adds a chunk that the worker is given.
    pub(super) fn hand(&mut self, chunk: Chunk) {
        debug_assert!(!chunk.is_empty());
        self.chunks.push_back(chunk);
    }

    /// Returns the number of chunks of which items have not ended.
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    #[cfg(test)]
    fn outstanding(&self) -> usize {
        self.chunks.iter().map(Chunk::len).sum()
    }

    /// Returns the number of items that have ended.
    pub(super) fn ended(&self) -> u64 {
        self.ended
    }

    /// Returns the index of the item that ends next, and how many bytes it has.
    pub(super) fn next(&self) -> Option<(usize, usize)> {
        let chunk = self.chunks.front()?;
        Some((chunk.first(), chunk.first_len()))
    }

    /// Notes that the next item has ended.
    pub(super) fn end_next(&mut self) {
        let chunk = self.chunks.front_mut().expect("an item is outstanding");
        chunk.pop();
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
        self.ended += 1;
    }

    /// Removes the items from number `from` of the session on, which are those that the worker has
    /// not begun. Returns them in order.
    pub(super) fn withdraw(&mut self, from: u64) -> VecDeque<Chunk> {
        let mut kept = usize::try_from(from - self.ended).expect("as many as are outstanding");
        let mut at = 0;
        while at < self.chunks.len() && kept >= self.chunks[at].len() {
            kept -= self.chunks[at].len();
            at += 1;
        }
        let mut withdrawn = self.chunks.split_off(at);
        if kept > 0
            && let Some(mut first) = withdrawn.pop_front()
        {
            withdrawn.push_front(first.split_off(kept));
            self.chunks.push_back(first);
        }
        withdrawn
    }

    /// Takes out the next item, in which the worker has ended.
    pub(super) fn take_struck(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.front_mut()?;
        let struck = chunk.take_struck();
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
        self.ended += 1;
        Some(struck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(first: usize, items: &[Vec<u8>]) -> Chunk {
        let mut chunk = Chunk::new(first);
        for item in items {
            let pushed = chunk.push(|out| {
                out.extend_from_slice(item);
                Ok::<_, ()>(true)
            });
            assert_eq!(pushed, Ok(true));
        }
        chunk
    }

    fn contents(chunk: &Chunk) -> Vec<(usize, Vec<u8>)> {
        let items = chunk.items().map(<[u8]>::to_vec);
        (chunk.first()..).zip(items).collect()
    }

    fn words(items: &[(usize, Vec<u8>)]) -> u64 {
        items.iter().map(|(_, item)| record_words(item.len())).sum()
    }

    #[test]
    fn an_item_that_does_not_fit_leaves_the_chunk_as_it_was() {
        let mut chunk = chunk(3, &[vec![1, 2]]);
        let before = chunk.clone();
        assert_eq!(chunk.push(|_| Ok::<_, ()>(false)), Ok(false));
        assert_eq!(chunk.push(|_| Err(())), Err(()));
        assert_eq!(chunk, before);
    }

    /// An event in a session.
    #[derive(Clone, Debug)]
    enum Step {
        Hand(Vec<Vec<u8>>),
        End,
        /// Withdraw all but this many of the outstanding items.
        Withdraw(prop::sample::Index),
        Struck,
    }

    fn step() -> impl Strategy<Value = Step> {
        let item = prop::collection::vec(any::<u8>(), 0..20);
        prop_oneof![
            2 => prop::collection::vec(item, 1..6).prop_map(Step::Hand),
            4 => Just(Step::End),
            1 => any::<prop::sample::Index>().prop_map(Step::Withdraw),
            1 => Just(Step::Struck),
        ]
    }

    proptest! {
        /// The model is a list of the outstanding items.
        #[test]
        fn a_ledger_is_a_list_of_items(steps in prop::collection::vec(step(), 0..60)) {
            let mut ledger = Ledger::default();
            let mut model: VecDeque<(usize, Vec<u8>)> = VecDeque::new();
            let (mut index, mut ended) = (0, 0);
            for step in steps {
                match step {
                    Step::Hand(items) => {
                        ledger.hand(chunk(index, &items));
                        for item in items {
                            model.push_back((index, item));
                            index += 1;
                        }
                        index += 3; // chunks need not follow each other
                    }
                    Step::End => {
                        let next = model.front().map(|(index, item)| (*index, item.len()));
                        prop_assert_eq!(ledger.next(), next);
                        if model.pop_front().is_some() {
                            ledger.end_next();
                            ended += 1;
                        }
                    }
                    Step::Withdraw(kept) => {
                        let kept = kept.index(model.len() + 1);
                        let withdrawn = ledger.withdraw(ended + kept as u64);
                        prop_assert!(withdrawn.iter().all(|chunk| !chunk.is_empty()));
                        let taken: Vec<_> = withdrawn.iter().flat_map(contents).collect();
                        let expected: Vec<_> = model.split_off(kept).into();
                        let sum: u64 = withdrawn.iter().map(Chunk::words).sum();
                        prop_assert_eq!(sum, words(&expected));
                        prop_assert_eq!(taken, expected);
                    }
                    Step::Struck => {
                        let struck = ledger.take_struck();
                        let expected = model.pop_front();
                        ended += u64::from(expected.is_some());
                        prop_assert_eq!(struck.iter().map(Chunk::strikes).max(), expected.as_ref().map(|_| 1));
                        let struck = struck.iter().flat_map(contents).next();
                        prop_assert_eq!(struck, expected);
                    }
                }
                prop_assert_eq!(ledger.outstanding(), model.len());
                prop_assert_eq!(ledger.ended(), ended);
                let left: Vec<_> = ledger.chunks.iter().flat_map(contents).collect();
                prop_assert_eq!(&left, &Vec::from(model.clone()));
                let sum: u64 = ledger.chunks.iter().map(Chunk::words).sum();
                prop_assert_eq!(sum, words(&left));
            }
        }
    }
}
