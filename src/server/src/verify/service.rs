//! `Cluster.Verify`: a verification as a stream.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use keyviz_proto as proto;
use keyviz_proto::replica_verified::Outcome;
use keyviz_proto::verify_update::Update;
use keyviz_types::GroupId;

use super::Verification;
use super::coordinate::{Progress, Told};
use super::verdict::{GroupReport, Verdict};
use keyviz_peer::digests::to_wire;

/// What `Cluster.Verify` answers.
pub(crate) type Updates = BoxStream<'static, Result<proto::VerifyUpdate, Status>>;

/// The interval of progress reports.
const TELL_EVERY: Duration = Duration::from_millis(500);

impl Told for watch::Sender<Option<Progress>> {
    fn tell(&self, progress: Progress) {
        self.send_replace(Some(progress));
    }
}

impl Verification {
    /// Verifies groups for a caller, one after the other. It ends when the caller goes away.
    pub(crate) fn stream(
        self: &Arc<Self>,
        request: proto::VerifyRequest,
    ) -> Result<Updates, Status> {
        let groups = self.asked(&request.group_ids)?;
        let place = Arc::clone(&self.runs).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(
                "this node has as many verifications under way as it takes on; try again later",
            )
        })?;
        let (answers, updates) = mpsc::channel(4);
        let verification = Arc::clone(self);
        let bytes_per_s = request.bytes_per_s;
        tokio::spawn(async move {
            let _place = place;
            let stop = verification.stop.clone();
            tokio::select! {
                // An error means that the receiver is gone.
                _ = verification.verify_all(groups, bytes_per_s, &answers) => {}
                () = answers.closed() => {}
                () = stop.cancelled() => {
                    let stopped = Status::unavailable("the node stops; ask another one");
                    let _ = answers.send(Err(stopped)).await;
                }
            }
        });
        Ok(ReceiverStream::new(updates).boxed())
    }

    fn asked(&self, asked: &[u64]) -> Result<Vec<GroupId>, Status> {
        let all = self.group_ids();
        if asked.is_empty() {
            return Ok(all);
        }
        let asked: BTreeSet<GroupId> = asked.iter().copied().map(GroupId).collect();
        match asked.iter().find(|group| !all.contains(group)) {
            Some(group) => Err(Status::not_found(format!("there is no Raft group {group}"))),
            None => Ok(asked.into_iter().collect()),
        }
    }

    async fn verify_all(
        &self,
        groups: Vec<GroupId>,
        bytes_per_s: u64,
        answers: &mpsc::Sender<Result<proto::VerifyUpdate, Status>>,
    ) -> Result<(), mpsc::error::SendError<Result<proto::VerifyUpdate, Status>>> {
        let give = |update| answers.send(Ok(proto::VerifyUpdate { update: Some(update) }));
        let group_ids = groups.iter().map(|group| group.0).collect();
        give(Update::Start(proto::VerifyStart { group_ids })).await?;
        for group in groups {
            let so_far = watch::Sender::new(None);
            let verifying = self.verify_telling(group, bytes_per_s, &so_far);
            tokio::pin!(verifying);
            let mut tell = tokio::time::interval(TELL_EVERY);
            let report = loop {
                tokio::select! {
                    report = &mut verifying => break report,
                    _ = tell.tick() => {
                        let progress = *so_far.borrow();
                        give(Update::Progress(progress_to_wire(group, progress))).await?;
                    }
                }
            };
            give(Update::Verified(report_to_wire(&report))).await?;
        }
        Ok(())
    }
}

fn progress_to_wire(group: GroupId, progress: Option<Progress>) -> proto::VerifyProgress {
    let Progress { group, index, attempt, bytes } =
        progress.unwrap_or(Progress { group, index: 0, attempt: 1, bytes: 0 });
    proto::VerifyProgress { group_id: group.0, index, attempt, bytes }
}

fn report_to_wire(report: &GroupReport) -> proto::GroupVerified {
    let differing = report.differing();
    let replicas = report.replicas.iter().map(|(node, given)| proto::ReplicaVerified {
        node_id: node.0,
        outcome: Some(match given {
            Ok(digest) => Outcome::Digest(to_wire(digest)),
            Err(error) => Outcome::Error(error.to_string()),
        }),
        differs: differing.contains(node),
    });
    let (verdict, majority) = match &report.verdict {
        Verdict::Agree => (proto::VerifyVerdict::Agree, true),
        Verdict::Differ { majority, .. } => (proto::VerifyVerdict::Differ, *majority),
        Verdict::Incomplete => (proto::VerifyVerdict::Incomplete, false),
    };
    proto::GroupVerified {
        group_id: report.group.0,
        index: report.index,
        verdict: verdict.into(),
        replicas: replicas.collect(),
        majority,
    }
}
