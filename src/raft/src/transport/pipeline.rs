//! Appends of one group on their way to one peer, in order.
//!
//! After a commit that no further entry follows, openraft sends a request without entries so that
//! the peer applies it. With many groups of few proposals each, those would be half of all
//! requests. Such a commit update is held for up to 10 ms so that the next append can piggyback it:
//! entries that follow carry the same word, and so does a heartbeat. This delay never adds client
//! latency: the leader answers from its own rows, and a read at another replica goes to the leader,
//! whose heartbeats carry the commit.

use std::collections::VecDeque;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use openraft::RPCTypes;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::time::Instant;

use super::errors::{RpcError, unreachable};
use super::in_flight::{InFlight, end_of};
use super::link::LinkError;
use super::network::PeerNetwork;
use crate::types::Types;
use keyviz_proto as proto;

/// Appends of one group in flight to one peer. With [`crate::log`]'s 256 KiB a request this bounds
/// the waiting data to 16 MiB per group and peer.
const WINDOW: usize = 64;

/// How long an append with entries may stay unanswered: a sync on a disk that is busy with others
/// takes longer than a heartbeat may.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);

/// A commit update held for the next append.
struct Held {
    request: AppendEntriesRequest<Types>,
    until: Instant,
}

/// The appends of one stream.
pub(super) struct Pipeline<'a, S> {
    network: &'a PeerNetwork,
    input: S,
    input_ended: bool,
    in_flight: VecDeque<InFlight>,
    held: Option<Held>,
    /// For requests without entries: heartbeats, probes and commit updates.
    empty_timeout: Duration,
    /// How long word of a commit waits for entries to travel with.
    hold: Duration,
    failed: bool,
}

impl<'a, S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Pipeline<'a, S> {
    pub(super) fn new(
        network: &'a PeerNetwork,
        input: S,
        empty_timeout: Duration,
        hold: Duration,
    ) -> Self {
        let (in_flight, held) = Default::default();
        let (input_ended, failed) = (false, false);
        Self { network, input, input_ended, in_flight, held, empty_timeout, hold, failed }
    }

    /// The answer to the oldest request, sending further ones while it is awaited. `None`: all are
    /// answered and none follows, or one failed.
    pub(super) async fn next(&mut self) -> Option<Result<StreamAppendResult<Types>, RpcError>> {
        while !self.failed {
            if self.input_ended && self.in_flight.is_empty() {
                return None;
            }
            let may_send = !self.input_ended && self.in_flight.len() < WINDOW;
            let alarm = self.alarm();
            let said = tokio::select! {
                biased;
                answer = first_answer(&mut self.in_flight) => self.answered(answer),
                request = self.input.next(), if may_send => self.push(request).map(|()| None),
                () = sleep_until(alarm) => self.overdue().map(|()| None),
            };
            if let Some(said) = said.transpose() {
                self.failed = !matches!(said, Ok(Ok(_)));
                return Some(said);
            }
        }
        None
    }

    /// The answer to the oldest request, as passed to openraft; `None`: nothing yet.
    fn answered(
        &mut self,
        answer: Result<proto::RaftAppended, LinkError>,
    ) -> Result<Option<StreamAppendResult<Types>>, RpcError> {
        let front = self.in_flight.pop_front().expect("it was there to be awaited");
        let answer = answer.map_err(unreachable)?;
        let outcome = self.network.outcome(&front, answer)?;
        if let Ok(last) = &outcome {
            // openraft takes this for the answer to every request that ends at the same entry, also
            // to those only just asked for: a leader that was long cut off or stopped would believe
            // that it was confirmed now. The answer to the last of them is equivalent, and correct.
            if self.in_flight.front().is_some_and(|next| next.last == *last) {
                return Ok(None);
            }
            if let Some(held) = &self.held
                && end_of(&held.request) == *last
            {
                // Whether this entry is committed may hang on that answer.
                if held.request.leader_commit < *last {
                    self.send_held()?;
                }
                return Ok(None);
            }
        }
        Ok(Some(outcome))
    }

    fn push(&mut self, request: Option<AppendEntriesRequest<Types>>) -> Result<(), RpcError> {
        let Some(request) = request else {
            self.input_ended = true;
            return self.send_held();
        };
        if request.entries.is_empty() && !self.hold.is_zero() {
            let until = self.held.as_ref().map(|held| held.until);
            let until = until.unwrap_or_else(|| Instant::now() + self.hold);
            self.held = Some(Held { request, until });
            return Ok(());
        }
        // It carries the same commit as the held one, or a later one.
        self.held = None;
        self.send(request)
    }

    fn send_held(&mut self) -> Result<(), RpcError> {
        self.held.take().map_or(Ok(()), |held| self.send(held.request))
    }

    fn send(&mut self, request: AppendEntriesRequest<Types>) -> Result<(), RpcError> {
        let sent = self.network.send(request)?;
        self.in_flight.push_back(sent);
        Ok(())
    }

    fn limit(&self, request: &InFlight) -> Duration {
        if request.empty { self.empty_timeout } else { APPEND_TIMEOUT }
    }

    /// The time of the next action if no event comes first.
    fn alarm(&self) -> Option<Instant> {
        let deadline = self.in_flight.front().map(|front| front.sent + self.limit(front));
        let until = self.held.as_ref().map(|held| held.until);
        deadline.into_iter().chain(until).min()
    }

    /// Does it.
    fn overdue(&mut self) -> Result<(), RpcError> {
        let now = Instant::now();
        if let Some(front) = self.in_flight.front()
            && front.sent + self.limit(front) <= now
        {
            return Err(self.network.timeout(RPCTypes::AppendEntries, self.limit(front)));
        }
        match &self.held {
            Some(held) if held.until <= now => self.send_held(),
            _ => Ok(()),
        }
    }
}

async fn first_answer(
    in_flight: &mut VecDeque<InFlight>,
) -> Result<proto::RaftAppended, LinkError> {
    match in_flight.front_mut() {
        Some(front) => (&mut front.waiter).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(alarm: Option<Instant>) {
    match alarm {
        Some(alarm) => tokio::time::sleep_until(alarm).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::channel::mpsc;

    use openraft::network::RaftNetworkFactory as _;

    use super::super::link::Answers;
    use super::super::network::GroupNetwork;
    use super::super::pace::Pace;
    use super::super::peers::{Peers, PeersOptions};
    use super::*;
    use crate::types::{Entry, LogId, LogPosition, Member, Payload, Vote};
    use keyviz_types::GroupId;

    const HOLD: Duration = Duration::from_millis(10);

    fn at(index: u64) -> LogId {
        LogPosition { term: 1, index }.into()
    }

    fn append(previous: u64, entries: &[u64], committed: u64) -> AppendEntriesRequest<Types> {
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(at(previous)),
            entries: entries
                .iter()
                .map(|index| Entry { log_id: at(*index), payload: Payload::Blank })
                .collect(),
            leader_commit: Some(at(committed)),
        }
    }

    async fn network() -> (PeerNetwork, Answers) {
        let peers = Peers::anonymous(1, "", PeersOptions::default());
        let answers = peers.detach(2, "peer:1");
        let (group, pace) = (GroupId(1), Pace::new(0).into());
        let mut networks =
            GroupNetwork { peers, group, pace, hold: HOLD, pulse: Default::default() };
        (networks.new_client(2, &Member::grpc("peer:1")).await, answers)
    }

    type Input = mpsc::UnboundedReceiver<AppendEntriesRequest<Types>>;

    /// A pipeline that is polled after each step.
    struct Test<'a> {
        input: mpsc::UnboundedSender<AppendEntriesRequest<Types>>,
        pipeline: Pipeline<'a, Input>,
        answers: &'a Answers,
    }

    impl<'a> Test<'a> {
        fn new((network, answers): &'a (PeerNetwork, Answers), hold: Duration) -> Self {
            let (input, requests) = mpsc::unbounded();
            let pipeline = Pipeline::new(network, requests, Duration::from_secs(60), hold);
            Test { input, pipeline, answers }
        }

        /// Returns the requests to send: no answer comes of it.
        fn ask(&mut self, request: AppendEntriesRequest<Types>) {
            self.input.unbounded_send(request).unwrap();
            assert_eq!(self.heard(), None);
        }

        /// Says that the request of this number was appended: what openraft hears.
        fn answer(&mut self, seq: u64) -> Option<LogId> {
            self.answers.appended(seq);
            self.heard()
        }

        fn heard(&mut self) -> Option<LogId> {
            let next = self.pipeline.next().now_or_never()?;
            next.expect("the stream goes on").unwrap().unwrap()
        }

        /// Requests that the peer has and has not answered.
        fn in_flight(&self) -> usize {
            self.answers.awaited()
        }
    }

    #[tokio::test]
    async fn an_answer_never_stands_for_a_request_that_was_sent_later() {
        let network = network().await;
        let mut test = Test::new(&network, Duration::ZERO);
        test.ask(append(4, &[5], 4));
        test.ask(append(5, &[6], 4));
        test.ask(append(6, &[], 5));
        test.ask(append(6, &[], 6));
        assert_eq!(test.in_flight(), 4);
        assert_eq!(test.answer(0), Some(at(5)));
        assert_eq!(test.answer(1), None, "the commits may not have arrived");
        assert_eq!(test.answer(2), None, "nor the second of them");
        assert_eq!(test.answer(3), Some(at(6)));
    }

    #[tokio::test(start_paused = true)]
    async fn word_of_a_commit_travels_with_entries_or_leaves_after_a_moment() {
        let network = network().await;
        let mut test = Test::new(&network, HOLD);
        test.ask(append(4, &[5], 4));
        assert_eq!(test.answer(0), Some(at(5)));
        test.ask(append(5, &[], 5));
        assert_eq!(test.in_flight(), 0, "it waits for entries");
        test.ask(append(5, &[6], 5));
        assert_eq!(test.in_flight(), 1, "which say it");
        assert_eq!(test.answer(1), Some(at(6)));

        test.ask(append(6, &[], 6));
        tokio::time::advance(HOLD / 2).await;
        test.ask(append(6, &[], 6));
        assert_eq!(test.in_flight(), 0);
        tokio::time::advance(HOLD / 2 + Duration::from_millis(1)).await;
        assert_eq!(test.heard(), None);
        assert_eq!(test.in_flight(), 1, "a later one does not put it off");
        assert_eq!(test.answer(2), Some(at(6)));
    }

    #[tokio::test]
    async fn a_request_without_entries_that_nothing_can_follow_leaves_at_once() {
        let network = network().await;
        let mut test = Test::new(&network, HOLD);
        let heartbeat = append(6, &[], 6);
        test.ask(heartbeat);
        test.input.close_channel();
        assert_eq!(test.heard(), None);
        assert_eq!(test.in_flight(), 1);
        assert_eq!(test.answer(0), Some(at(6)));
        assert!(test.pipeline.next().await.is_none());
    }

    #[tokio::test]
    async fn an_answer_never_stands_for_word_of_a_commit_that_is_held() {
        let network = network().await;
        let mut test = Test::new(&network, HOLD);
        // The other peers made a majority before this one answers.
        test.ask(append(4, &[5], 4));
        test.ask(append(5, &[], 5));
        assert_eq!(test.answer(0), None, "openraft has asked for more since");
        assert_eq!(test.in_flight(), 0, "and no client waits for it");
        test.ask(append(5, &[6], 5));
        assert_eq!(test.answer(1), Some(at(6)));
    }

    #[tokio::test]
    async fn word_of_a_commit_does_not_hold_up_the_commit_of_what_follows() {
        let network = network().await;
        let mut test = Test::new(&network, HOLD);
        test.ask(append(4, &[5], 4));
        test.ask(append(5, &[6], 4));
        test.ask(append(6, &[], 5));
        assert_eq!(test.answer(0), Some(at(5)));
        assert_eq!(test.in_flight(), 1, "the word is held");
        // That this peer has entry 6 may be what commits it.
        assert_eq!(test.answer(1), None);
        assert_eq!(test.in_flight(), 1, "so the answer is asked for at once");
        assert_eq!(test.answer(2), Some(at(6)));
    }
}
