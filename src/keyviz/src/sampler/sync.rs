//! The synchronisation primitives of the sampler, in one place, so that loom can stand in for
//! them: under `--cfg loom` the same sampler code runs on loom's model.
//!
//! [`Published`] is an `ArcSwap` outside loom. Its swap turns every outstanding borrow into a
//! counted reference before it returns (arc-swap's `Debt::pay_all`), so once a value was swapped
//! out, its strong count says who may still hold it. The loom stand-in keeps exactly that promise
//! with a mutex.

#[cfg(not(loom))]
mod real {
    pub(crate) use parking_lot::Mutex;
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
    pub(crate) use std::sync::{Arc, OnceLock};
    pub(crate) use std::thread::yield_now;
    pub(crate) use std::thread_local;

    /// The one published value: readers never wait, writers swap.
    pub(crate) struct Published<T>(arc_swap::ArcSwap<T>);

    impl<T> Published<T> {
        pub(crate) fn new(value: Arc<T>) -> Self {
            Published(arc_swap::ArcSwap::new(value))
        }

        pub(crate) fn load_full(&self) -> Arc<T> {
            self.0.load_full()
        }

        pub(crate) fn store(&self, value: Arc<T>) {
            self.0.store(value);
        }
    }
}

#[cfg(loom)]
mod modelled {
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
    pub(crate) use loom::thread::yield_now;

    /// `std::thread_local!` of a constant; loom's macro does not know `const` blocks.
    macro_rules! local {
        (static $name:ident: $type:ty = const { $init:expr };) => {
            loom::thread_local! { static $name: $type = $init; }
        };
    }
    pub(crate) use local as thread_local;

    /// parking_lot's interface over loom's mutex.
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("a loom model that panicked has already failed")
        }

        pub(crate) fn try_lock(&self) -> Option<loom::sync::MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    /// A std cell whose publication loom sees as a release store and an acquire load.
    pub(crate) struct OnceLock<T> {
        value: std::sync::OnceLock<T>,
        set: loom::sync::atomic::AtomicBool,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            OnceLock {
                value: std::sync::OnceLock::new(),
                set: loom::sync::atomic::AtomicBool::new(false),
            }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            if self.set.load(Ordering::Acquire) { self.value.get() } else { None }
        }

        pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
            let value = self.value.get_or_init(init);
            self.set.store(true, Ordering::Release);
            value
        }
    }

    /// The stand-in for `ArcSwap`: see the module's text.
    pub(crate) struct Published<T>(Mutex<Arc<T>>);

    impl<T> Published<T> {
        pub(crate) fn new(value: Arc<T>) -> Self {
            Published(Mutex::new(value))
        }

        pub(crate) fn load_full(&self) -> Arc<T> {
            self.0.lock().clone()
        }

        pub(crate) fn store(&self, value: Arc<T>) {
            let old = std::mem::replace(&mut *self.0.lock(), value);
            drop(old);
        }
    }
}

#[cfg(loom)]
pub(crate) use modelled::{
    Arc, AtomicU64, Mutex, OnceLock, Ordering, Published, fence, thread_local, yield_now,
};
#[cfg(not(loom))]
pub(crate) use real::{
    Arc, AtomicU64, Mutex, OnceLock, Ordering, Published, fence, thread_local, yield_now,
};
