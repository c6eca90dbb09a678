//! The loops of this layer that no task awaits, and what happens if one panics.
//!
//! After such a panic the node would look alive, but no longer write its log, notice a full disk,
//! compact its logs, or publish leaders. The panic is therefore caught and published with the name
//! of the loop, and the owner of the node stops it: see [`Storage::failed_loop`].
//!
//! [`Storage::failed_loop`]: crate::Storage::failed_loop

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::FutureExt as _;
use tokio::sync::watch;

/// A loop of this layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RaftLoop {
    /// Writes and syncs the logs of all groups.
    LogWriter,
    /// Measures the free space of the disk.
    DiskWatch,
    /// Compacts the log of a group that has grown; one for each group.
    Compaction,
    /// Publishes who leads a group; one for each group.
    Leadership,
}

impl RaftLoop {
    /// All of them.
    pub const ALL: [RaftLoop; 4] =
        [RaftLoop::LogWriter, RaftLoop::DiskWatch, RaftLoop::Compaction, RaftLoop::Leadership];

    /// The name in the log and in `/readyz`.
    pub fn name(self) -> &'static str {
        match self {
            RaftLoop::LogWriter => "log writer",
            RaftLoop::DiskWatch => "disk watch",
            RaftLoop::Compaction => "log compaction",
            RaftLoop::Leadership => "group leadership",
        }
    }
}

/// Runs loops and publishes the first one that panics. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Loops(watch::Sender<Option<String>>);

impl Default for Loops {
    fn default() -> Self {
        Loops(watch::Sender::new(None))
    }
}

impl Loops {
    /// Why the node cannot go on, once a loop has panicked.
    pub(crate) fn failed(&self) -> watch::Receiver<Option<String>> {
        self.0.subscribe()
    }

    /// Runs a loop as a task.
    pub(crate) fn spawn(
        &self,
        which: RaftLoop,
        running: impl Future<Output = ()> + Send + 'static,
    ) {
        let loops = self.clone();
        tokio::spawn(async move {
            if let Err(panic) = AssertUnwindSafe(running).catch_unwind().await {
                loops.fail(which, &*panic);
            }
        });
    }

    /// Runs a loop on the thread of the caller.
    pub(crate) fn run(&self, which: RaftLoop, running: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(running)) {
            self.fail(which, &*panic);
        }
    }

    fn fail(&self, which: RaftLoop, panic: &(dyn Any + Send)) {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let (name, text) = (which.name(), text.unwrap_or("no message"));
        let reason = format!("the loop \"{name}\" panicked: {text}");
        tracing::error!("{reason}");
        self.0.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(reason);
            first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_that_panics_is_published_by_name_and_the_first_one_stays() {
        for which in RaftLoop::ALL {
            let loops = Loops::default();
            let mut failed = loops.failed();
            loops.spawn(which, async { panic!("put in by a test") });
            let reason = failed.wait_for(Option::is_some).await.unwrap().clone();
            let name = which.name();
            let expected = format!("the loop \"{name}\" panicked: put in by a test");
            assert_eq!(reason, Some(expected.clone()));
            loops.run(RaftLoop::LogWriter, || panic!("a later one"));
            assert_eq!(*loops.failed().borrow(), Some(expected));
        }
    }
}
