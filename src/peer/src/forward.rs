//! Writes on their way to the leader, in batches.
//!
//! Two of three writes reach a node that does not lead their group. A call of its own for each
//! would cost about as much as everything else that is done for it, so the writes to one group
//! gather while earlier ones are on their way, and share a call.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tonic::Status;
use tonic::metadata::MetadataValue;

use keyviz_kv::{PeerError, PeerOutcome};
use keyviz_proto as proto;
use keyviz_proto::kv_peer_client::KvPeerClient;
use keyviz_proto::propose_outcome::Outcome;
use keyviz_raft::Batcher;
use keyviz_security::AuthChannel;
use keyviz_types::{GroupId, NodeId};

use super::answers::{not_leader, undecodable, write_error};
use super::request_id;
use super::trace;
use keyviz_proto::metadata::{DISK_FULL_METADATA, NOT_APPLIED_METADATA};

pub(crate) type Answer = Result<PeerOutcome<Bytes>, PeerError>;

/// The node that should propose, and the group.
type Goal = (NodeId, GroupId);

struct Forward {
    command: Bytes,
    /// Of the request that wants it; empty: there is none.
    request_id: String,
    parent: String,
    answer: oneshot::Sender<Answer>,
}

/// The writes that wait to be sent, by the node that should propose them and their group.
#[derive(Default)]
pub(crate) struct Forwards {
    batchers: Mutex<HashMap<Goal, Arc<Batcher<Forward>>>>,
}

/// How the batches of one gathering are sent.
pub(crate) struct Way {
    pub(crate) to: NodeId,
    pub(crate) group: GroupId,
    pub(crate) cluster_id: String,
    pub(crate) client: KvPeerClient<AuthChannel>,
    pub(crate) timeout: Duration,
}

impl Forwards {
    /// Has a command sent with whatever else goes the same way meanwhile, under the id of the
    /// request that this task serves. What is under way is bounded by the requests that clients may
    /// have open. Dropping the future does not take the command back.
    pub(crate) fn propose(
        &self,
        way: Way,
        command: Bytes,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let to = way.to;
        let batcher = Arc::clone(self.batchers.lock().entry((to, way.group)).or_default());
        let (answer, answered) = oneshot::channel();
        let bytes = command.len();
        let way = Arc::new(way);
        let send = move |batch| send(Arc::clone(&way), batch);
        let parent = trace::current().unwrap_or_default();
        let forward = Forward { command, request_id: request_id::current_text(), parent, answer };
        let answer = batcher.submit(forward, bytes, answered, send);
        async move {
            let gone = || PeerError::Lost { node: to, reason: "this node is stopping".to_owned() };
            answer.await.unwrap_or_else(|| Err(gone()))
        }
    }
}

/// Sends a batch and hands out its answers. Commands without an answer fail like the call.
async fn send(way: Arc<Way>, batch: Vec<Forward>) {
    let mut request = proto::ProposeBatchRequest {
        cluster_id: way.cluster_id.clone(),
        group_id: way.group.0,
        commands: Vec::with_capacity(batch.len()),
        request_ids: Vec::with_capacity(batch.len()),
        trace_parents: Vec::new(),
    };
    let mut answers = Vec::with_capacity(batch.len());
    let traced = batch.iter().any(|forward| !forward.parent.is_empty());
    for forward in batch {
        request.commands.push(forward.command);
        request.request_ids.push(forward.request_id);
        if traced {
            request.trace_parents.push(forward.parent);
        }
        answers.push(forward.answer);
    }
    let mut answers = answers.into_iter();
    let lost = |reason| PeerError::Lost { node: way.to, reason };
    let failed = match tokio::time::timeout(way.timeout, call(&way, request, &mut answers)).await {
        Ok(Ok(())) => lost("it answered fewer commands than it was sent".to_owned()),
        Ok(Err(status)) => write_error(way.to, way.group, &status),
        Err(_) => lost(format!("no answer within {} ms", way.timeout.as_millis())),
    };
    for answer in answers {
        let _ = answer.send(Err(failed.clone()));
    }
}

async fn call(
    way: &Way,
    request: proto::ProposeBatchRequest,
    answers: &mut impl Iterator<Item = oneshot::Sender<Answer>>,
) -> Result<(), Status> {
    let mut chunks = way.client.clone().propose(request).await?.into_inner();
    while let Some(chunk) = chunks.message().await? {
        for outcome in chunk.outcomes {
            let Some(answer) = answers.next() else { return Ok(()) };
            // The caller may have gone away.
            let _ = answer.send(answer_of(way, outcome));
        }
    }
    Ok(())
}

fn answer_of(way: &Way, outcome: proto::ProposeOutcome) -> Answer {
    match outcome.outcome {
        Some(Outcome::Reply(reply)) => Ok(PeerOutcome::Done(reply)),
        Some(Outcome::NotLeader(hint)) => Ok(not_leader(hint)),
        Some(Outcome::Refused(refusal)) => {
            let mut status = Status::new(tonic::Code::from(refusal.code), refusal.message);
            if refusal.not_applied {
                let yes = MetadataValue::from_static("true");
                status.metadata_mut().insert(NOT_APPLIED_METADATA, yes);
            }
            if refusal.disk_full {
                let yes = MetadataValue::from_static("true");
                status.metadata_mut().insert(DISK_FULL_METADATA, yes);
            }
            Err(write_error(way.to, way.group, &status))
        }
        None => Err(undecodable("a proposal without an outcome")),
    }
}
