//! How many calls may be open at a time, and how many bytes of messages that are not whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tonic::Status;
use tonic::metadata::MetadataValue;

use keyviz_proto::metadata::NOT_APPLIED_METADATA;

/// What one side may hold.
#[derive(Debug)]
pub(super) struct Budget {
    most_calls: usize,
    most_bytes: usize,
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

impl Budget {
    pub(super) fn new(most_calls: usize, most_bytes: usize) -> Arc<Self> {
        let (calls, bytes) = Default::default();
        Arc::new(Budget { most_calls, most_bytes, calls, bytes })
    }

    // Relaxed throughout: each number is read by itself.
    pub(super) fn begin(self: &Arc<Self>) -> Result<Place, Status> {
        if self.calls.fetch_add(1, Ordering::Relaxed) >= self.most_calls {
            self.calls.fetch_sub(1, Ordering::Relaxed);
            return Err(refused(Status::resource_exhausted(format!(
                "this node has {} calls open, the most that it takes; slow down and try again",
                self.most_calls
            ))));
        }
        Ok(Place(Arc::clone(self)))
    }

    pub(super) fn take(&self, bytes: usize) -> Result<(), Status> {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.most_bytes {
            self.give_back(bytes);
            return Err(refused(Status::resource_exhausted(format!(
                "this node is receiving {} MiB of messages, the most that it takes at once; slow \
                 down and try again",
                self.most_bytes >> 20
            ))));
        }
        Ok(())
    }

    /// Bytes that are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Nothing was done for it.
pub(super) fn refused(mut status: Status) -> Status {
    status.metadata_mut().insert(NOT_APPLIED_METADATA, MetadataValue::from_static("true"));
    status
}

/// A place among the open calls.
#[derive(Debug)]
pub(super) struct Place(Arc<Budget>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_calls_have_places_that_are_given_back() {
        let budget = Budget::new(1, 1_000);
        let place = budget.begin().expect("one call may be open");
        assert!(budget.begin().is_err());
        drop(place);
        assert!(budget.begin().is_ok());
    }
}
