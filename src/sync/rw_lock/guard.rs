//! The guards of an [`RwLock`].

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::handle::RwLock;

/// Read access to the value of an [`RwLock`].
///
/// It owns a handle of the lock: it may be stored, sent to other threads, and outlive every other
/// handle.
///
/// ```
/// let lock = seedbed::sync::RwLock::new(5);
/// let guard = lock.try_read().expect("it is unlocked");
/// std::thread::spawn(move || assert_eq!(*guard, 5)).join().unwrap();
/// assert!(lock.try_write().is_some());
/// ```
///
/// # Dropping
///
/// Unlocks: if it was the last reader, the next waiters own the lock before `drop` returns. If the
/// guard is forgotten ([`std::mem::forget`]), no task can write any more.
#[must_use = "dropping the guard unlocks the lock immediately"]
pub struct RwLockReadGuard<T> {
    /// Dropped before `reader`, because fields are dropped in their order: a writer must have the
    /// only share.
    value: Arc<T>,
    reader: Reader<T>,
}

/// Unlocks when a reader's guard is dropped.
struct Reader<T>(RwLock<T>);

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.0.release(None);
    }
}

impl<T> RwLockReadGuard<T> {
    /// Wraps the share of a reader that has entered.
    pub(super) fn new(lock: RwLock<T>, value: Arc<T>) -> Self {
        RwLockReadGuard {
            value,
            reader: Reader(lock),
        }
    }

    /// Returns the lock that the guard holds.
    ///
    /// It is not a method, because a method would hide one of the same name of the value.
    ///
    /// ```
    /// use seedbed::sync::{RwLock, RwLockReadGuard};
    ///
    /// let guard = RwLock::new(5).try_read().expect("it is unlocked");
    /// assert_eq!(RwLockReadGuard::source(&guard).statistics().readers, 1);
    /// ```
    pub fn source(guard: &Self) -> &RwLock<T> {
        &guard.reader.0
    }
}

impl<T> Deref for RwLockReadGuard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Shows the lock, never the value.
impl<T> fmt::Debug for RwLockReadGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockReadGuard")
            .field("lock", Self::source(self))
            .finish_non_exhaustive()
    }
}

/// The value of an [`RwLock`], and the right to change it.
///
/// It owns a handle of the lock: it may be stored, sent to other threads, and outlive every other
/// handle.
///
/// ```
/// let lock = seedbed::sync::RwLock::new(5);
/// let mut guard = lock.try_write().expect("it is unlocked");
/// std::thread::spawn(move || *guard = 6).join().unwrap();
/// assert_eq!(*lock.try_read().unwrap(), 6);
/// ```
///
/// # Dropping
///
/// Unlocks: the next waiters own the lock before `drop` returns. If the guard is forgotten
/// ([`std::mem::forget`]), the lock stays locked forever.
#[must_use = "dropping the guard unlocks the lock immediately"]
pub struct RwLockWriteGuard<T> {
    lock: RwLock<T>,
    /// `Some` until the guard is dropped; the only share.
    value: Option<Arc<T>>,
}

impl<T> RwLockWriteGuard<T> {
    /// Wraps the value of a writer that has entered.
    pub(super) fn new(lock: RwLock<T>, value: Arc<T>) -> Self {
        RwLockWriteGuard {
            lock,
            value: Some(value),
        }
    }

    /// Returns the lock that the guard holds.
    ///
    /// It is not a method, because a method would hide one of the same name of the value.
    ///
    /// ```
    /// use seedbed::sync::{RwLock, RwLockWriteGuard};
    ///
    /// let guard = RwLock::new(5).try_write().expect("it is unlocked");
    /// assert!(RwLockWriteGuard::source(&guard).statistics().writing);
    /// ```
    pub fn source(guard: &Self) -> &RwLock<T> {
        &guard.lock
    }
}

impl<T> Deref for RwLockWriteGuard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
            .as_deref()
            .expect("the value is there until the guard is dropped")
    }
}

impl<T> DerefMut for RwLockWriteGuard<T> {
    fn deref_mut(&mut self) -> &mut T {
        let value = self
            .value
            .as_mut()
            .expect("the value is there until the guard is dropped");
        Arc::get_mut(value).expect("readers give their shares back before a writer enters")
    }
}

impl<T> Drop for RwLockWriteGuard<T> {
    fn drop(&mut self) {
        self.lock.release(self.value.take());
    }
}

/// Shows the lock, never the value.
impl<T> fmt::Debug for RwLockWriteGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockWriteGuard")
            .field("lock", &self.lock)
            .finish_non_exhaustive()
    }
}

/// Locking without waiting.
impl<T> RwLock<T> {
    /// Locks for reading if that is possible without waiting.
    ///
    /// ```
    /// let lock = seedbed::sync::RwLock::new(5);
    /// let writer = lock.try_write();
    /// assert!(lock.try_read().is_none());
    /// drop(writer);
    /// assert_eq!(*lock.try_read().unwrap(), 5);
    /// ```
    pub fn try_read(&self) -> Option<RwLockReadGuard<T>> {
        let share = self.state.lock().try_share()?;
        Some(RwLockReadGuard::new(self.clone(), share))
    }

    /// Locks for writing if that is possible without waiting.
    ///
    /// ```
    /// let lock = seedbed::sync::RwLock::new(5);
    /// let reader = lock.try_read();
    /// assert!(lock.try_write().is_none());
    /// drop(reader);
    /// assert!(lock.try_write().is_some());
    /// ```
    pub fn try_write(&self) -> Option<RwLockWriteGuard<T>> {
        let value = self.state.lock().try_take()?;
        Some(RwLockWriteGuard::new(self.clone(), value))
    }
}
