//! Proposes a batch of commands of a peer, concurrently, each with its own outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{BoxStream, FuturesOrdered};
use futures::{FutureExt as _, Stream, StreamExt as _};
use tonic::Status;
use tracing::Instrument as _;

use keyviz_kv::{Coordinator, KvError, PeerOutcome};
use keyviz_proto as proto;
use keyviz_proto::propose_outcome::Outcome;
use keyviz_raft::MAX_MESSAGE_BYTES;
use keyviz_types::GroupId;

use super::checks::not_leader;
use keyviz_peer::request_id;
use keyviz_peer::status::{is_disk_full, is_not_applied, kv_status};

/// Bytes of replies in one chunk: a quarter of the maximum message, so that the last reply, at most
/// a value, cannot exceed it.
const CHUNK_BYTES: usize = MAX_MESSAGE_BYTES / 4;

/// Proposes the commands of a batch, in order, and streams their outcomes. Dropping the stream does
/// not cancel the proposals. The log shows each with its request id, if the peer gave one.
pub(crate) fn propose_all(
    coordinator: Arc<Coordinator>,
    group: GroupId,
    batch: proto::ProposeBatchRequest,
) -> BoxStream<'static, Result<proto::ProposeBatchChunk, Status>> {
    let proto::ProposeBatchRequest { commands, request_ids, trace_parents, .. } = batch;
    let filled = |texts: Vec<String>| texts.into_iter().chain(std::iter::repeat_with(String::new));
    let outcomes: FuturesOrdered<_> = commands
        .into_iter()
        .zip(filled(request_ids).zip(filled(trace_parents)))
        .map(|(command, (id, parent))| {
            let coordinator = Arc::clone(&coordinator);
            let span = request_id::passed_on(&id, &parent);
            let listens = !span.is_disabled();
            let proposed = async move {
                let began = Instant::now();
                let outcome = outcome(coordinator.propose_here(group, command).await);
                if listens {
                    tell(group, &outcome, began.elapsed());
                }
                outcome
            };
            proposed.instrument(span)
        })
        .collect();
    chunks(outcomes).boxed()
}

/// Logs the outcome of a command.
fn tell(group: GroupId, outcome: &proto::ProposeOutcome, took: Duration) {
    let (group, millis) = (group.0, took.as_secs_f64() * 1_000.0);
    match &outcome.outcome {
        Some(Outcome::Refused(refusal)) => {
            tracing::debug!(group, millis, code = refusal.code, "{}", refusal.message);
        }
        Some(Outcome::NotLeader(hint)) => {
            tracing::debug!(group, millis, leader = hint.leader, "this node does not lead it");
        }
        Some(Outcome::Reply(_)) | None => tracing::debug!(group, millis, "proposed and applied"),
    }
}

/// All outcomes that are known with the first one are sent with it.
fn chunks(
    outcomes: impl Stream<Item = proto::ProposeOutcome> + Send + Unpin + 'static,
) -> impl Stream<Item = Result<proto::ProposeBatchChunk, Status>> + Send {
    futures::stream::unfold(outcomes, |mut outcomes| async move {
        let first = outcomes.next().await?;
        let mut bytes = reply_bytes(&first);
        let mut chunk = proto::ProposeBatchChunk { outcomes: vec![first] };
        while bytes < CHUNK_BYTES
            && let Some(Some(next)) = outcomes.next().now_or_never()
        {
            bytes += reply_bytes(&next);
            chunk.outcomes.push(next);
        }
        Some((Ok(chunk), outcomes))
    })
}

fn reply_bytes(outcome: &proto::ProposeOutcome) -> usize {
    match &outcome.outcome {
        Some(Outcome::Reply(reply)) => reply.len(),
        Some(Outcome::Refused(refusal)) => refusal.message.len(),
        Some(Outcome::NotLeader(_)) | None => 0,
    }
}

fn outcome(proposed: Result<PeerOutcome<Bytes>, KvError>) -> proto::ProposeOutcome {
    let outcome = match proposed {
        Ok(PeerOutcome::Done(reply)) => Outcome::Reply(reply),
        Ok(PeerOutcome::NotLeader(hint)) => Outcome::NotLeader(not_leader(hint)),
        Err(error) => {
            let status = kv_status(error);
            Outcome::Refused(proto::Refusal {
                code: status.code().into(),
                message: status.message().to_owned(),
                not_applied: is_not_applied(&status),
                disk_full: is_disk_full(&status),
            })
        }
    };
    proto::ProposeOutcome { outcome: Some(outcome) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(bytes: usize) -> proto::ProposeOutcome {
        outcome(Ok(PeerOutcome::Done(Bytes::from(vec![7; bytes]))))
    }

    #[tokio::test]
    async fn bounds_of_a_chunk_hold_and_no_outcome_is_left_out() {
        let sizes = [0, 10, CHUNK_BYTES, 1, 1, keyviz_kv::MAX_VALUE_BYTES, 3];
        let outcomes = futures::stream::iter(sizes.map(reply));
        let chunks: Vec<_> = chunks(outcomes).map(Result::unwrap).collect().await;
        assert!(chunks.len() > 1);
        let most = CHUNK_BYTES + keyviz_kv::MAX_VALUE_BYTES;
        assert!(most < MAX_MESSAGE_BYTES);
        for chunk in &chunks {
            assert!(chunk.outcomes.iter().map(reply_bytes).sum::<usize>() <= most);
        }
        let all: Vec<_> =
            chunks.iter().flat_map(|chunk| &chunk.outcomes).map(reply_bytes).collect();
        assert_eq!(all, sizes);
    }
}
