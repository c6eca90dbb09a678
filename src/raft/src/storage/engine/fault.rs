//! Fail-stop: after the first failed write or sync, all later ones fail too.
//!
//! After a failed sync the kernel may have dropped the dirty pages and report success for the next
//! sync, so a retry could acknowledge data that is not on the disk. Only a restart, which reads
//! what is on the disk, is safe.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

/// The first storage failure of this node.
#[derive(Clone, Debug, thiserror::Error)]
#[error("storage failed while {doing}: {cause}; the node must be restarted")]
pub struct Fault {
    /// What was being done, as a gerund phrase.
    pub doing: &'static str,
    /// The failure in words.
    pub cause: String,
    /// Its kind, where the system told one.
    pub kind: io::ErrorKind,
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        io::Error::new(fault.kind, fault)
    }
}

/// Latches the first fault. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct FaultLatch(Arc<OnceLock<Fault>>);

impl FaultLatch {
    /// The first fault, if there was one.
    pub(crate) fn get(&self) -> Option<&Fault> {
        self.0.get()
    }

    /// Fails when a fault was latched.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        match self.0.get() {
            Some(fault) => Err(fault.clone()),
            None => Ok(()),
        }
    }

    /// Latches `error` unless an earlier fault is latched, and returns the latched fault.
    pub(crate) fn latch(&self, doing: &'static str, error: &io::Error) -> Fault {
        let fault = self.0.get_or_init(|| {
            let fault = Fault { doing, cause: error.to_string(), kind: error.kind() };
            tracing::error!("{fault}");
            fault
        });
        fault.clone()
    }
}

impl fmt::Debug for FaultLatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FaultLatch").field(&self.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_is_the_one_that_stays() {
        let latch = FaultLatch::default();
        assert!(latch.check().is_ok());
        latch.latch("syncing", &io::Error::other("disk gone"));
        let second = latch.latch("writing", &io::Error::other("later"));
        assert_eq!((second.doing, second.cause.as_str()), ("syncing", "disk gone"));
        assert!(latch.clone().check().is_err());
    }
}
