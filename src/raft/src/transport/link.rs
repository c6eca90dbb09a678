//! The append stream to one peer.
//!
//! A [`Link`] lives as long as the peer's address; a [`Stream`] is one life of the gRPC stream
//! under it. When a stream ends, every request on it fails, and the next request opens another,
//! not before a wait that doubles with each failure. All groups wait together, so a dead peer
//! costs the same however many groups there are.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::identity::Identity;
use super::wire::RaftReply;
use super::{MAX_MESSAGE_BYTES, RETRY_FIRST, RETRY_LAST};
use crate::types::RaftNodeId;
use keyviz_proto as proto;
use keyviz_proto::raft_transport_client::RaftTransportClient;
use keyviz_security::AuthChannel;

/// Requests and bytes that leave in one frame. The bytes are a quarter of the largest message, so
/// that the last request added cannot exceed it.
const FRAME_REQUESTS: usize = 256;
const FRAME_BYTES: usize = MAX_MESSAGE_BYTES / 4;

/// Requests without an answer may take so much. Far more than a link carries in a round trip.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// The stream to a peer broke, or cannot be opened now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("node {node} cannot be reached: {cause}")]
pub(crate) struct LinkError {
    pub(crate) node: RaftNodeId,
    pub(crate) cause: Arc<str>,
}

/// The append stream to one peer, over all its lives.
pub(crate) struct Link {
    // Not the pool, which holds this link.
    identity: Arc<Identity>,
    node: RaftNodeId,
    channel: AuthChannel,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    stream: Option<Arc<Stream>>,
    /// Lives that ended without an answer, since the last answer.
    failures: u32,
    last_failure: Option<(Instant, Arc<str>)>,
}

/// One life.
struct Stream {
    requests: mpsc::UnboundedSender<proto::RaftAppend>,
    pending: Arc<Mutex<Pending>>,
}

#[derive(Default)]
struct Pending {
    next_seq: u64,
    waiters: HashMap<u64, Waiting>,
    /// Bytes of the requests that have waiters.
    bytes: usize,
    ended: Option<Arc<str>>,
}

/// A request without an answer.
struct Waiting {
    answer: oneshot::Sender<proto::RaftAppended>,
    bytes: usize,
}

impl Pending {
    fn remove(&mut self, seq: u64) -> Option<oneshot::Sender<proto::RaftAppended>> {
        let Waiting { answer, bytes } = self.waiters.remove(&seq)?;
        self.bytes -= bytes;
        Some(answer)
    }
}

impl Link {
    pub(crate) fn new(identity: Arc<Identity>, node: RaftNodeId, channel: AuthChannel) -> Self {
        Self { identity, node, channel, state: Arc::default() }
    }

    /// Queues a request, whose `seq` is given here. A peer that takes nothing has at most
    /// [`QUEUE_BYTES`] waiting for it; beyond, only requests without entries are taken, which keep
    /// its leaders known to it.
    pub(crate) fn send(&self, mut request: proto::RaftAppend) -> Result<Waiter, LinkError> {
        let stream = self.stream()?;
        let (sender, answer) = oneshot::channel();
        let mut pending = stream.pending.lock();
        if let Some(cause) = &pending.ended {
            return Err(self.error(cause.clone()));
        }
        let bytes = append_bytes(&request);
        if pending.bytes + bytes > QUEUE_BYTES && !request.entries.is_empty() {
            return Err(self.error("too much waits for it already".into()));
        }
        pending.bytes += bytes;
        let seq = pending.next_seq;
        pending.next_seq += 1;
        pending.waiters.insert(seq, Waiting { answer: sender, bytes });
        request.seq = seq;
        // Sent under the lock, so that requests leave in the order of their numbers. The receiver
        // is gone only when the stream has just ended, which also drops the waiter.
        let _ = stream.requests.send(request);
        drop(pending);
        Ok(Waiter { node: self.node, seq, answer, pending: stream.pending.clone() })
    }

    /// Requests without an answer so far.
    pub(crate) fn in_flight(&self) -> u64 {
        let stream = self.state.lock().stream.clone();
        stream.map_or(0, |stream| stream.pending.lock().waiters.len() as u64)
    }

    fn error(&self, cause: Arc<str>) -> LinkError {
        LinkError { node: self.node, cause }
    }

    fn stream(&self) -> Result<Arc<Stream>, LinkError> {
        let mut state = self.state.lock();
        if let Some(stream) = &state.stream {
            return Ok(stream.clone());
        }
        if let Some((at, cause)) = &state.last_failure {
            let doubled = RETRY_FIRST.saturating_mul(1 << (state.failures.clamp(1, 16) - 1));
            if at.elapsed() < doubled.min(RETRY_LAST) {
                return Err(self.error(cause.clone()));
            }
        }
        let (requests, queue) = mpsc::unbounded_channel();
        let pending = Arc::<Mutex<Pending>>::default();
        let stream = Arc::new(Stream { requests, pending: pending.clone() });
        state.stream = Some(stream.clone());
        let identity = self.identity.clone();
        let life = Life { pending, state: self.state.clone(), identity, node: self.node };
        tokio::spawn(life.run(self.channel.clone(), queue));
        Ok(stream)
    }
}

/// Answers the requests on a link that leads nowhere.
#[cfg(test)]
pub(crate) struct Answers(Arc<Mutex<Pending>>);

#[cfg(test)]
impl Answers {
    /// Requests without an answer.
    pub(crate) fn awaited(&self) -> usize {
        self.0.lock().waiters.len()
    }

    /// Says that the request of this number was appended.
    pub(crate) fn appended(&self, seq: u64) {
        let outcome = proto::raft_appended::Outcome::Appended.into();
        let waiter = self.0.lock().remove(seq).expect("it was sent");
        let _ = waiter.send(proto::RaftAppended { seq, outcome, ..Default::default() });
    }
}

#[cfg(test)]
impl Link {
    /// A link that leads nowhere.
    pub(crate) fn detached(
        identity: Arc<Identity>,
        node: RaftNodeId,
        channel: AuthChannel,
    ) -> (Self, Answers) {
        let link = Self::new(identity, node, channel);
        let (requests, mut queue) = mpsc::unbounded_channel();
        let pending = Arc::<Mutex<Pending>>::default();
        link.state.lock().stream = Some(Arc::new(Stream { requests, pending: pending.clone() }));
        tokio::spawn(async move { while queue.recv().await.is_some() {} });
        (link, Answers(pending))
    }
}

impl Waiter {
    /// Waits for the answer to a request that was sent over a given wire; calls `lost` where none
    /// comes.
    pub(super) fn over(
        node: RaftNodeId,
        sent: impl Future<Output = Result<RaftReply, tonic::Status>> + Send + 'static,
        lost: impl FnOnce() + Send + 'static,
    ) -> Self {
        let (sender, answer) = oneshot::channel();
        tokio::spawn(async move {
            match sent.await {
                // A waiter that has gone needs no answer.
                Ok(RaftReply::Append(answer)) => drop(sender.send(answer)),
                // As the end of a stream is.
                _ => lost(),
            }
        });
        Waiter { node, seq: 0, answer, pending: Arc::default() }
    }
}

/// Awaits one answer. Dropping it forgets the request.
pub(crate) struct Waiter {
    node: RaftNodeId,
    seq: u64,
    answer: oneshot::Receiver<proto::RaftAppended>,
    pending: Arc<Mutex<Pending>>,
}

impl Future for Waiter {
    type Output = Result<proto::RaftAppended, LinkError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.poll_unpin(context).map(|answer| {
            answer.map_err(|_| {
                let cause = self.pending.lock().ended.clone();
                LinkError { node: self.node, cause: cause.unwrap_or_else(|| "closed".into()) }
            })
        })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.pending.lock().remove(self.seq);
    }
}

/// Runs one stream until it ends.
struct Life {
    pending: Arc<Mutex<Pending>>,
    state: Arc<Mutex<State>>,
    identity: Arc<Identity>,
    node: RaftNodeId,
}

impl Life {
    async fn run(self, channel: AuthChannel, queue: mpsc::UnboundedReceiver<proto::RaftAppend>) {
        let cause: Arc<str> = match self.exchange(channel, queue).await {
            Ok(()) => "the peer closed the stream".into(),
            Err(status) => {
                let cause: Arc<str> = status_words(&status).into();
                self.warn_if_refused(&status, &cause);
                cause
            }
        };
        tracing::debug!(node = self.node, "append stream ended: {cause}");
        let mut state = self.state.lock();
        state.stream = None;
        state.failures = state.failures.saturating_add(1);
        state.last_failure = Some((Instant::now(), cause.clone()));
        drop(state);
        let mut pending = self.pending.lock();
        pending.ended = Some(cause);
        pending.waiters.clear();
        pending.bytes = 0;
    }

    /// If either node does not accept the other as a member of its cluster, an operator must act,
    /// so it is logged at once, and once.
    fn warn_if_refused(&self, status: &tonic::Status, cause: &Arc<str>) {
        let told = self.state.lock().last_failure.as_ref().is_some_and(|(_, last)| last == cause);
        use tonic::Code;

        // The second is the answer of a TLS port to plain text.
        let refused = matches!(
            status.code(),
            Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition
        );
        if refused && !told {
            let node = self.node;
            tracing::warn!(node, "no Raft messages are exchanged with this peer: {cause}");
        }
    }

    async fn exchange(
        &self,
        channel: AuthChannel,
        queue: mpsc::UnboundedReceiver<proto::RaftAppend>,
    ) -> Result<(), tonic::Status> {
        self.identity.may_take_part()?;
        self.identity.identify(self.node, channel.clone(), true).await?;
        let hello = self.identity.hello(self.node);
        let mut client = RaftTransportClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let mut answers = client.append(frames(hello, queue)).await?.into_inner();
        while let Some(frame) = answers.message().await? {
            let mut pending = self.pending.lock();
            for answer in frame.responses {
                if let Some(waiter) = pending.remove(answer.seq) {
                    // A waiter that has gone needs no answer.
                    let _ = waiter.send(answer);
                }
            }
            drop(pending);
            self.state.lock().failures = 0;
        }
        Ok(())
    }
}

/// The innermost cause of a status, as text.
pub(crate) fn status_words(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    if text.is_empty() { status.code().to_string() } else { text }
}

/// Everything that has gathered leaves in one frame.
fn frames(
    hello: proto::RaftHello,
    queue: mpsc::UnboundedReceiver<proto::RaftAppend>,
) -> impl futures::Stream<Item = proto::RaftAppendFrame> + Send + 'static {
    let start = (queue, None::<proto::RaftAppend>, hello);
    futures::stream::unfold(start, |(mut queue, held, hello)| async move {
        let first = match held {
            Some(first) => first,
            None => queue.recv().await?,
        };
        // Groups that are ready to ask for more do so first.
        tokio::task::yield_now().await;
        let mut bytes = append_bytes(&first);
        let mut requests = vec![first];
        let mut held = None;
        while requests.len() < FRAME_REQUESTS {
            let Ok(request) = queue.try_recv() else { break };
            bytes += append_bytes(&request);
            if bytes > FRAME_BYTES {
                held = Some(request);
                break;
            }
            requests.push(request);
        }
        let frame = proto::RaftAppendFrame { hello: Some(hello.clone()), requests };
        Some((frame, (queue, held, hello)))
    })
    .boxed()
}

/// The approximate size of an append in memory and on the wire.
pub(super) fn append_bytes(request: &proto::RaftAppend) -> usize {
    use proto::raft_entry::Payload;
    let payload = |entry: &proto::RaftEntry| match &entry.payload {
        Some(Payload::Command(command)) => command.len(),
        Some(Payload::Membership(membership)) => prost::Message::encoded_len(membership),
        None => 0,
    };
    64 + request.entries.iter().map(|entry| 32 + payload(entry)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_takes_what_groups_that_are_ready_ask_for() {
        let (requests, queue) = mpsc::unbounded_channel();
        let mut frames = frames(proto::RaftHello::default(), queue);
        let ask = |group| proto::RaftAppend { group, ..Default::default() };
        requests.send(ask(1)).unwrap();
        tokio::spawn(async move { requests.send(ask(2)).unwrap() });
        let frame = frames.next().await.expect("two requests wait");
        let groups: Vec<u64> = frame.requests.iter().map(|request| request.group).collect();
        assert_eq!(groups, [1, 2], "in the order in which they were asked for");
        assert!(frames.next().await.is_none(), "nothing more can come");
    }
}
