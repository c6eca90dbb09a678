//! What tests of this layer do to a database: let its process die at a write, stall its syncs, fail
//! them. Outside of tests there is nothing of it.

#[cfg(test)]
pub(crate) use hand::Crash;
pub(crate) use hand::Interference;

#[cfg(not(test))]
mod hand {
    use std::io;

    /// Nobody interferes.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Interference {}

    impl Interference {
        /// Whether the process has died, counting one write.
        pub(crate) fn loses_write(&self) -> bool {
            false
        }

        /// Whether the process has died.
        pub(crate) fn is_dead(&self) -> bool {
            false
        }

        /// Before a sync.
        pub(crate) fn before_sync(&self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod hand {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

    use parking_lot::{Condvar, Mutex};

    /// What a test does. Clones share it.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Interference {
        pub(crate) crash: Crash,
        pub(crate) stall: Stall,
        syncs_fail: Arc<AtomicBool>,
    }

    impl Interference {
        pub(crate) fn loses_write(&self) -> bool {
            self.crash.happened()
        }

        pub(crate) fn is_dead(&self) -> bool {
            self.crash.lost_some()
        }

        pub(crate) fn before_sync(&self) -> io::Result<()> {
            self.stall.wait();
            match self.syncs_fail.load(Ordering::SeqCst) {
                true => Err(io::Error::other("the disk is gone")),
                false => Ok(()),
            }
        }

        /// Makes syncs fail from now on, or work again.
        pub(crate) fn fail_syncs(&self, fail: bool) {
            self.syncs_fail.store(fail, Ordering::SeqCst);
        }
    }

    /// Stands for a process that dies: from some write on, nothing reaches the database any more.
    #[derive(Clone, Debug)]
    pub(crate) struct Crash(Arc<AtomicI64>);

    impl Default for Crash {
        fn default() -> Self {
            Self(Arc::new(i64::MAX.into()))
        }
    }

    impl Crash {
        /// Lets `writes` more writes through.
        pub(crate) fn after(&self, writes: i64) {
            self.0.store(writes, Ordering::SeqCst);
        }

        /// Whether the process has died, counting one write.
        fn happened(&self) -> bool {
            self.0.fetch_sub(1, Ordering::SeqCst) <= 0
        }

        /// Whether a write was lost.
        pub(crate) fn lost_some(&self) -> bool {
            self.0.load(Ordering::SeqCst) < 0
        }
    }

    /// Stands for a disk that does not answer: syncs wait until it does.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Stall(Arc<(Mutex<bool>, Condvar)>);

    impl Stall {
        pub(crate) fn set(&self, stalled: bool) {
            *self.0.0.lock() = stalled;
            self.0.1.notify_all();
        }

        fn wait(&self) {
            let mut stalled = self.0.0.lock();
            while *stalled {
                self.0.1.wait(&mut stalled);
            }
        }
    }
}
