//! `GetFindings` and `StreamFindings`: what is found in the load of the cluster, as messages.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use keyviz_core::insight::Topology;
use keyviz_fanout::{Findings, FindingsError, FindingsRequest, MAX_FINDINGS, Served};
use keyviz_proto as proto;

use super::cluster::ClusterService;
use super::findings_wire::{ABLE, findings_to_wire, topology};
use super::keyviz::matrix_status;
use crate::metrics::{RequestKind, Requests};

/// Streams of a node, at most.
const MAX_STREAMS: usize = 64;

/// The shortest and the longest time between two looks of a stream, in milliseconds.
const EVERY_MS: [u32; 2] = [1_000, 60_000];

/// The shortest time between two looks where the question does not say.
const LEAST_EVERY: Duration = Duration::from_secs(2);

/// The shortest window of a stream, and the one where the question does not say.
const WINDOW_MS: [u64; 2] = [1_000, 3_600_000];

/// Looks of a stream that may fail one after the other before it ends.
const FAILURES: u32 = 10;

/// Updates of a stream of findings.
pub(crate) type FindingsUpdates =
    Pin<Box<dyn Stream<Item = Result<proto::Findings, Status>> + Send>>;

pub(crate) struct FindingsService {
    pub(crate) findings: Findings,
    pub(crate) cluster: Arc<ClusterService>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) streams: Arc<AtomicUsize>,
    pub(crate) stop: CancellationToken,
}

/// One of the streams there may be.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(streams: &Arc<AtomicUsize>) -> Option<Self> {
        let taken = streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            (taken < MAX_STREAMS).then_some(taken + 1)
        });
        taken.ok().map(|_| Place(Arc::clone(streams)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream between two updates.
struct Following {
    service: Arc<FindingsService>,
    request: proto::StreamFindingsRequest,
    every: Duration,
    told: Option<Vec<(String, u64, u64)>>,
    failures: u32,
    over: bool,
    _place: Place,
}

/// What must change for findings to be told again: which there are, that one has ended, and their
/// size to a tenth.
fn outline(found: &proto::Findings) -> Vec<(String, u64, u64)> {
    let open = found.findings.iter();
    let open = open.map(|one| (one.id.clone(), (one.share * 10.0).round() as u64, 0));
    let ended = found.resolved.iter();
    let ended = ended.map(|one| (one.id.clone(), 0, one.resolved_ms.unwrap_or(0)));
    open.chain(ended).collect()
}

impl Following {
    /// The next update; `None`: the stream is over.
    async fn next(&mut self) -> Option<Result<proto::Findings, Status>> {
        while !self.over {
            if self.told.is_some() || self.failures > 0 {
                let stop = self.service.stop.clone();
                if tokio::time::timeout(self.every, stop.cancelled()).await.is_ok() {
                    return None;
                }
            }
            let window_ms = match self.request.last_ms {
                0 => WINDOW_MS[1],
                last_ms => last_ms,
            };
            let now_ms = self.service.findings.now_ms();
            let asked = self.service.get(proto::GetFindingsRequest {
                from_ms: Some(now_ms.saturating_sub(window_ms)),
                to_ms: None,
                start: self.request.start.clone(),
                end: self.request.end.clone(),
                max_findings: self.request.max_findings,
            });
            match asked.await {
                Ok(found) => {
                    self.failures = 0;
                    let outline = outline(&found);
                    if self.told.as_ref() != Some(&outline) {
                        self.told = Some(outline);
                        return Some(Ok(found));
                    }
                }
                // A busy node says so for a while.
                Err(status) if busy(&status) && self.failures < FAILURES => self.failures += 1,
                Err(status) => {
                    self.over = true;
                    return Some(Err(status));
                }
            }
        }
        None
    }
}

fn busy(status: &Status) -> bool {
    matches!(status.code(), tonic::Code::ResourceExhausted | tonic::Code::Unavailable)
}

impl FindingsService {
    /// Findings of the whole cluster.
    pub(crate) async fn get(
        &self,
        request: proto::GetFindingsRequest,
    ) -> Result<proto::Findings, Status> {
        let request = FindingsRequest {
            from_ms: request.from_ms,
            to_ms: request.to_ms,
            start: request.start,
            end: request.end,
            max_findings: request.max_findings,
        };
        let work = async {
            let found = self.findings.ask(&request, self.served()).await;
            found.map(findings_to_wire).map_err(findings_status)
        };
        self.requests.observe(RequestKind::Findings, work).await
    }

    /// Findings of the whole cluster at once, and again whenever they change.
    pub(crate) fn stream(
        self: Arc<Self>,
        request: proto::StreamFindingsRequest,
    ) -> Result<FindingsUpdates, Status> {
        let refused = |said: String| Err(Status::invalid_argument(said));
        let (every_ms, last_ms) = (request.every_ms, request.last_ms);
        if every_ms != 0 && !(EVERY_MS[0]..=EVERY_MS[1]).contains(&every_ms) {
            let [least, most] = EVERY_MS;
            return refused(format!("every_ms={every_ms}: from {least} to {most}, or 0"));
        }
        if last_ms != 0 && last_ms < WINDOW_MS[0] {
            return refused(format!("last_ms={last_ms}: at least {}, or 0", WINDOW_MS[0]));
        }
        if request.max_findings as usize > MAX_FINDINGS {
            let asked = request.max_findings;
            return Err(findings_status(FindingsError::TooManyFindings { asked }));
        }
        if request.end.as_ref().is_some_and(|end| *end <= request.start) {
            return refused("the end of the range is not after its start".to_owned());
        }
        let Some(place) = Place::take(&self.streams) else {
            let said = format!("{MAX_STREAMS} streams of findings are open, the most of a node");
            return Err(Status::resource_exhausted(said));
        };
        let step = Duration::from_millis(self.findings.step_ms());
        let longest = Duration::from_millis(EVERY_MS[1].into());
        let every = match every_ms {
            0 => step.clamp(LEAST_EVERY, longest),
            every_ms => Duration::from_millis(every_ms.into()),
        };
        let following = Following {
            service: self,
            request,
            every,
            told: None,
            failures: 0,
            over: false,
            _place: place,
        };
        Ok(Box::pin(futures::stream::unfold(following, |mut following| async move {
            let update = following.next().await?;
            Some((update, following))
        })))
    }

    /// Members that answer, and groups with their leaders. What is not known is left out.
    fn served(&self) -> BoxFuture<'_, Served> {
        async move {
            let topology = match self.cluster.status().await {
                Ok(status) => topology(&status),
                Err(_) => Topology::default(),
            };
            Served { topology, able: ABLE }
        }
        .boxed()
    }
}

fn findings_status(error: FindingsError) -> Status {
    let message = error.to_string();
    match error {
        FindingsError::Matrix(error) => matrix_status(error),
        FindingsError::TooManyFindings { .. } => Status::invalid_argument(message),
        FindingsError::Changed(_) => Status::unavailable(message),
    }
}
