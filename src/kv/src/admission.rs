//! Admission control: above its limits a node refuses requests before it does any work for them, so
//! that a flood does not affect requests in progress.
//!
//! Client requests and requests of other nodes have separate limits, so that two nodes that forward
//! to each other cannot starve each other.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::KvError;

/// Maximum number of requests in progress, of clients and separately of other nodes. Each has a
/// task of some 10 KiB.
pub const MAX_REQUESTS: usize = 8_192;

/// Maximum number of scans in progress. Each holds a page of at most 1 MiB, and as much may wait in
/// its stream.
pub const MAX_SCANS: usize = 256;

/// Bytes are counted in units of this size.
const PIECE_BYTES: usize = 1_024;

/// The limits of one side.
#[derive(Debug)]
pub(super) struct Admission {
    requests: Arc<Semaphore>,
    pieces: Arc<Semaphore>,
    scans: Arc<Semaphore>,
}

/// An admitted request; it counts until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl Admission {
    /// Admits `queue_bytes` of keys and values.
    pub(super) fn new(queue_bytes: u64) -> Self {
        let pieces = usize::try_from(queue_bytes).unwrap_or(usize::MAX) / PIECE_BYTES;
        Admission {
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            pieces: Arc::new(Semaphore::new(pieces.min(Semaphore::MAX_PERMITS))),
            scans: Arc::new(Semaphore::new(MAX_SCANS)),
        }
    }

    /// Admits a request with this many bytes of keys and values.
    pub(super) fn request(&self, bytes: usize) -> Result<Admitted, KvError> {
        let request = Arc::clone(&self.requests).try_acquire_owned();
        let request = request.map_err(|_| KvError::Busy { what: "requests" })?;
        Ok(Admitted { _permits: [Some(request), self.pieces(bytes, "bytes of requests")?] })
    }

    /// Admits the answer to an admitted request, with this many bytes. They count until the client
    /// has read them.
    pub(super) fn answer(&self, bytes: usize) -> Result<Admitted, KvError> {
        Ok(Admitted { _permits: [None, self.pieces(bytes, "bytes of answers")?] })
    }

    fn pieces(
        &self,
        bytes: usize,
        what: &'static str,
    ) -> Result<Option<OwnedSemaphorePermit>, KvError> {
        let pieces = u32::try_from(bytes / PIECE_BYTES).unwrap_or(u32::MAX);
        if pieces == 0 {
            return Ok(None);
        }
        let permit = Arc::clone(&self.pieces).try_acquire_many_owned(pieces);
        permit.map(Some).map_err(|_| KvError::Busy { what })
    }

    /// Admits a scan.
    pub(super) fn scan(&self) -> Result<Admitted, KvError> {
        let scan = Arc::clone(&self.scans).try_acquire_owned();
        let scan = scan.map_err(|_| KvError::Busy { what: "scans" })?;
        Ok(Admitted { _permits: [Some(scan), None] })
    }

    /// Requests under way.
    pub(super) fn under_way(&self) -> u64 {
        let requests = MAX_REQUESTS - self.requests.available_permits();
        let scans = MAX_SCANS - self.scans.available_permits();
        (requests + scans) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_what_is_too_much_is_refused_and_what_ends_makes_room() {
        let admission = Admission::new(3 << 20);
        let large: Vec<Admitted> =
            (0..3).map(|_| admission.request(1 << 20).expect("there is room")).collect();
        let refused = admission.request(1 << 20).expect_err("no bytes are left");
        assert_eq!(refused, KvError::Busy { what: "bytes of requests" });
        assert!(refused.not_applied());
        let small: Vec<Admitted> = (3..MAX_REQUESTS)
            .map(|_| admission.request(100).expect("small ones have a number of their own"))
            .collect();
        let refused = admission.request(0).expect_err("no request more");
        assert_eq!(refused, KvError::Busy { what: "requests" });
        assert_eq!(admission.under_way(), MAX_REQUESTS as u64);
        drop((large, small));
        assert_eq!(admission.under_way(), 0);
        let scans: Vec<Admitted> =
            (0..MAX_SCANS).map(|_| admission.scan().expect("there is room")).collect();
        assert_eq!(admission.scan().expect_err("too many"), KvError::Busy { what: "scans" });
        assert!(admission.request(1 << 20).is_ok(), "scans do not keep requests out");
        drop(scans);
    }
}
