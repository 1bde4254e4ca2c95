//! The types that threads share state with: the standard library's or, in a model, loom's.
//!
//! Files whose interleavings are model-checked import these names instead of `std`'s. In a normal
//! build they are the first of the two modules below, and cost nothing. `tests/loom.sh` builds the
//! unit tests with `--cfg loom`, and runs the models: the tests with `loom` in their names. No
//! other test works in such a build, because loom's types exist in models only.
//! [`Arc`](std::sync::Arc) stays the standard library's, because a `Waker` can be made of no other:
//! the models trust its reference count.

#[cfg(not(all(test, loom)))]
mod real {
    pub(crate) use std::cell::Cell;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, fence};
    #[cfg(all(feature = "workers", target_os = "linux"))]
    pub(crate) use std::sync::atomic::{AtomicU32 as SharedU32, AtomicU64, AtomicU64 as SharedU64};
    pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
    #[cfg(all(feature = "workers", target_os = "linux"))]
    pub(crate) use std::time::Instant;

    pub(crate) use std::thread::{sleep, yield_now};

    pub(crate) use atomic_waker::AtomicWaker;

    /// The standard library's cell, with the interface of loom's.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with<R>(&self, look: impl FnOnce(*const T) -> R) -> R {
            look(self.0.get())
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, change: impl FnOnce(*mut T) -> R) -> R {
            change(self.0.get())
        }
    }

    /// Returns a number that no other living thread has, even and not 0: the address of a
    /// thread-local.
    #[inline]
    pub(crate) fn thread_token() -> usize {
        thread_local! {
            static PLACE: Cell<u16> = const { Cell::new(0) };
        }
        PLACE.with(|place| std::ptr::from_ref(place).addr())
    }

    /// Locks a mutex, also after a panic: data under such a mutex is consistent whenever it is
    /// unlocked.
    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// Accesses the contents of loom's cells, which check that the access is sound.
#[cfg(all(test, loom))]
#[allow(unsafe_code)]
mod modelled {
    use std::ops::Sub;
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, PoisonError};
    use std::task::Waker;
    use std::time::Duration;

    use crate::sys::model::step;

    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, fence};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use loom::thread::yield_now;

    /// Defines an atomic number for memory that two processes share. It is loom's type, in which a
    /// thread can be [killed](crate::sys::model::kill_after) before each access, as a process can.
    ///
    /// loom lets a `SeqCst` load see the last `SeqCst` store only if it knows the order of the
    /// stores, and it does not know that a store with `SeqCst` comes after those of other threads.
    /// An exchange does, so it stands for such a store. It also acquires, which a store does not.
    /// That is of no effect for a number that one side stores. `parked` of a map is stored by both:
    /// there, the loads by which the parent goes on are `SeqCst` themselves. The first value counts
    /// as such a store.
    macro_rules! shared_atomic {
        ($name:ident, $atomic:ident, $number:ty) => {
            #[derive(Debug)]
            pub(crate) struct $name(loom::sync::atomic::$atomic);

            #[allow(dead_code, reason = "not each type needs each operation")]
            impl $name {
                pub(crate) fn new(value: $number) -> Self {
                    let word = loom::sync::atomic::$atomic::new(value);
                    word.store(value, Ordering::SeqCst);
                    Self(word)
                }

                pub(crate) fn load(&self, order: Ordering) -> $number {
                    step();
                    self.0.load(order)
                }

                pub(crate) fn store(&self, value: $number, order: Ordering) {
                    step();
                    if order == Ordering::SeqCst {
                        self.0.swap(value, order);
                    } else {
                        self.0.store(value, order);
                    }
                }

                pub(crate) fn swap(&self, value: $number, order: Ordering) -> $number {
                    step();
                    self.0.swap(value, order)
                }

                pub(crate) fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                    step();
                    self.0.fetch_add(value, order)
                }

                pub(crate) fn fetch_max(&self, value: $number, order: Ordering) -> $number {
                    step();
                    self.0.fetch_max(value, order)
                }

                pub(crate) fn compare_exchange(
                    &self,
                    from: $number,
                    to: $number,
                    order: Ordering,
                    failure: Ordering,
                ) -> Result<$number, $number> {
                    step();
                    self.0.compare_exchange(from, to, order, failure)
                }
            }

            impl Default for $name {
                fn default() -> Self {
                    Self::new(0)
                }
            }
        };
    }

    shared_atomic!(SharedU32, AtomicU32, u32);
    shared_atomic!(SharedU64, AtomicU64, u64);

    /// The standard library's, in a model, which has no time: always the same.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Instant;

    impl Instant {
        pub(crate) fn now() -> Self {
            Self
        }
    }

    impl Sub for Instant {
        type Output = Duration;

        fn sub(self, _: Self) -> Duration {
            Duration::ZERO
        }
    }

    /// A cell for which a drop counts as an access: memory must not be freed while another thread
    /// may still read it.
    #[derive(Debug)]
    pub(crate) struct Cell<T>(UnsafeCell<T>);

    impl<T> Cell<T> {
        pub(crate) fn new(value: T) -> Self {
            Cell(UnsafeCell::new(value))
        }

        pub(crate) fn get(&self) -> T
        where
            T: Copy,
        {
            // SAFETY: loom fails the model if another access is not ordered with this one.
            self.0.with(|place| unsafe { *place })
        }

        pub(crate) fn set(&self, value: T) {
            drop(self.replace(value));
        }

        pub(crate) fn replace(&self, value: T) -> T {
            // SAFETY: loom fails the model if another access is not ordered with this one.
            self.0
                .with_mut(|place| unsafe { std::mem::replace(&mut *place, value) })
        }
    }

    impl<T> Drop for Cell<T> {
        fn drop(&mut self) {
            self.0.with_mut(|_| ());
        }
    }

    /// A model has no time.
    pub(crate) fn sleep(_: Duration) {
        yield_now();
    }

    pub(crate) fn thread_token() -> usize {
        loom::thread_local! {
            static PLACE: std::cell::Cell<u16> = std::cell::Cell::new(0);
        }
        PLACE.with(|place| std::ptr::from_ref(place).addr())
    }

    /// Either kind of mutex: files without models keep `std`'s.
    pub(crate) trait Lock {
        type Guard<'a>
        where
            Self: 'a;

        fn lock_it(&self) -> Self::Guard<'_>;
    }

    impl<T> Lock for Mutex<T> {
        type Guard<'a>
            = MutexGuard<'a, T>
        where
            Self: 'a;

        fn lock_it(&self) -> Self::Guard<'_> {
            self.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl<T> Lock for std::sync::Mutex<T> {
        type Guard<'a>
            = std::sync::MutexGuard<'a, T>
        where
            Self: 'a;

        fn lock_it(&self) -> Self::Guard<'_> {
            self.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl<M: Lock> Lock for Arc<M> {
        type Guard<'a>
            = M::Guard<'a>
        where
            Self: 'a;

        fn lock_it(&self) -> Self::Guard<'_> {
            (**self).lock_it()
        }
    }

    pub(crate) fn lock<M: Lock>(mutex: &M) -> M::Guard<'_> {
        mutex.lock_it()
    }

    /// The standard library's type, which loom does not know, with a flag that shows loom the
    /// ordering.
    #[derive(Debug)]
    pub(crate) struct OnceLock<T> {
        value: std::sync::OnceLock<T>,
        is_set: AtomicBool,
        setting: Mutex<()>,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn get(&self) -> Option<&T> {
            if self.is_set.load(Ordering::Acquire) {
                self.value.get()
            } else {
                None
            }
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            let _alone = lock(&self.setting);
            self.value.set(value)?;
            self.is_set.store(true, Ordering::Release);
            Ok(())
        }
    }

    impl<T> Default for OnceLock<T> {
        fn default() -> Self {
            OnceLock {
                value: std::sync::OnceLock::new(),
                is_set: AtomicBool::new(false),
                setting: Mutex::new(()),
            }
        }
    }

    /// A slot behind a mutex. It promises what the real type does: a `wake` wakes the last waker
    /// registered before it, once, and a registration after it sees everything that was done before
    /// the `wake`.
    #[derive(Debug, Default)]
    pub(crate) struct AtomicWaker(Mutex<Option<Waker>>);

    impl AtomicWaker {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn register(&self, waker: &Waker) {
            let before = lock(&self.0).replace(waker.clone());
            drop(before);
        }

        pub(crate) fn wake(&self) {
            if let Some(waker) = self.take() {
                waker.wake();
            }
        }

        pub(crate) fn take(&self) -> Option<Waker> {
            lock(&self.0).take()
        }
    }
}

#[cfg(all(test, loom))]
pub(crate) use modelled::*;
#[cfg(not(all(test, loom)))]
pub(crate) use real::*;
