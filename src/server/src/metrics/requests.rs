//! Requests of clients by kind and outcome, with their latency.
//!
//! A count is one relaxed addition, and a latency one short lock (prometheus-client's histogram):
//! some hundred nanoseconds, compared with tens of microseconds for a request.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tonic::{Code, Status};

use super::gauges::gauges;

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RequestKind {
    Put,
    Get,
    Delete,
    DeleteRange,
    Scan,
    Batch,
    CompareAndSwap,
    Matrix,
    Findings,
    HotKeys,
    TopRanges,
    Loads,
}

const KINDS: [(RequestKind, &str); 12] = [
    (RequestKind::Put, "put"),
    (RequestKind::Get, "get"),
    (RequestKind::Delete, "delete"),
    (RequestKind::DeleteRange, "delete_range"),
    (RequestKind::Scan, "scan"),
    (RequestKind::Batch, "batch"),
    (RequestKind::CompareAndSwap, "compare_and_swap"),
    (RequestKind::Matrix, "matrix"),
    (RequestKind::Findings, "findings"),
    (RequestKind::HotKeys, "hot_keys"),
    (RequestKind::TopRanges, "top_ranges"),
    (RequestKind::Loads, "loads"),
];

/// The status codes of gRPC, in order of their numbers.
const OUTCOMES: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// From 64 us, a put without a wait, to 16 s, beyond the time that a request may take.
const FIRST_BUCKET_SECONDS: f64 = 64e-6;
const BUCKETS: u16 = 19;

struct OneKind {
    outcomes: [AtomicU64; OUTCOMES.len()],
    seconds: Histogram,
    in_flight: AtomicU64,
}

/// All requests of clients since the node started.
pub(crate) struct Requests {
    kinds: [OneKind; KINDS.len()],
}

impl Default for Requests {
    fn default() -> Self {
        let kinds = std::array::from_fn(|_| OneKind {
            outcomes: std::array::from_fn(|_| AtomicU64::new(0)),
            seconds: Histogram::new(exponential_buckets(FIRST_BUCKET_SECONDS, 2.0, BUCKETS)),
            in_flight: AtomicU64::new(0),
        });
        Requests { kinds }
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Requests")
    }
}

impl Requests {
    /// Runs a request and records its outcome. A dropped request was cancelled by its client.
    pub(crate) async fn observe<T>(
        &self,
        kind: RequestKind,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let mut running = Running::of(self, kind);
        let answer = work.await;
        running.outcome = answer.as_ref().err().map_or(Code::Ok, Status::code);
        answer
    }

    /// Records a request that runs until the value is dropped.
    pub(crate) fn begin(self: &Arc<Self>, kind: RequestKind) -> Running<Arc<Self>> {
        Running::of(Arc::clone(self), kind)
    }

    fn in_flight(&self) -> impl Iterator<Item = (&'static str, u64)> {
        KINDS.iter().map(|(kind, name)| {
            (*name, self.kinds[*kind as usize].in_flight.load(Ordering::Relaxed))
        })
    }
}

/// A request that runs.
pub(crate) struct Running<R: Deref<Target = Requests>> {
    requests: R,
    kind: RequestKind,
    started: Instant,
    /// The outcome, unless it is changed.
    pub(crate) outcome: Code,
}

impl<R: Deref<Target = Requests>> Running<R> {
    fn of(requests: R, kind: RequestKind) -> Self {
        requests.kinds[kind as usize].in_flight.fetch_add(1, Ordering::Relaxed);
        Running { requests, kind, started: Instant::now(), outcome: Code::Cancelled }
    }
}

impl<R: Deref<Target = Requests>> Drop for Running<R> {
    fn drop(&mut self) {
        let kind = &self.requests.kinds[self.kind as usize];
        kind.in_flight.fetch_sub(1, Ordering::Relaxed);
        kind.outcomes[self.outcome as usize].fetch_add(1, Ordering::Relaxed);
        kind.seconds.observe(self.started.elapsed().as_secs_f64());
    }
}

/// The scrape's view of [`Requests`].
#[derive(Debug)]
pub(crate) struct RequestsCollector(pub(crate) Arc<Requests>);

impl Collector for RequestsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests of clients that ended, by the status they got";
        let mut family = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
        for (kind, name) in KINDS {
            for (code, outcome) in OUTCOMES.iter().enumerate() {
                let count = self.0.kinds[kind as usize].outcomes[code].load(Ordering::Relaxed);
                // Outcomes with a count of 0 are left out, except for OK.
                if count == 0 && code != 0 {
                    continue;
                }
                let labels = [("kind", name), ("outcome", outcome)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Time from a request's arrival to its answer or, for a scan, to its end";
        let kind = MetricType::Histogram;
        let mut family = encoder.encode_descriptor("request_seconds", help, None, kind)?;
        for (kind, name) in KINDS {
            let labels = [("kind", name)];
            self.0.kinds[kind as usize].seconds.encode(family.encode_family(&labels)?)?;
        }
        gauges(
            &mut encoder,
            "requests_in_flight",
            "Requests of clients under way",
            self.0.in_flight().map(|(kind, count)| ([("kind", kind.to_owned())], count)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_outcomes_are_found_by_their_numbers() {
        for (index, (kind, _)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, index);
        }
        assert_eq!(OUTCOMES[Code::ResourceExhausted as usize], "resource_exhausted");
        assert_eq!(OUTCOMES[Code::Unauthenticated as usize], "unauthenticated");
    }

    #[tokio::test]
    async fn a_request_that_its_client_left_is_counted_as_cancelled() {
        let requests = Requests::default();
        let count = |code: Code| {
            requests.kinds[RequestKind::Get as usize].outcomes[code as usize]
                .load(Ordering::Relaxed)
        };
        let waits =
            requests.observe(RequestKind::Get, std::future::pending::<Result<(), Status>>());
        let left = tokio::time::timeout(std::time::Duration::ZERO, waits).await;
        assert!(left.is_err());
        let refused = async { Err::<(), _>(Status::resource_exhausted("full")) };
        assert!(requests.observe(RequestKind::Get, refused).await.is_err());
        assert!(requests.observe(RequestKind::Get, async { Ok(()) }).await.is_ok());
        assert_eq!(count(Code::Cancelled), 1);
        assert_eq!(count(Code::ResourceExhausted), 1);
        assert_eq!(count(Code::Ok), 1);
        assert!(requests.in_flight().all(|(_, count)| count == 0));
    }
}
