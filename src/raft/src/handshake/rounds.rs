//! The check at the start of a node, and the marks while it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use futures::future::{BoxFuture, FutureExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::roster::{Participation, Roster};
use super::silence::tell;
use crate::transport::{Peers, status_words};
use keyviz_types::NodeId;

/// A starting node waits at most this long for the others. Those that do not answer by then are
/// identified once they do, before the first message to or from them.
const CHECK_WITHIN: Duration = Duration::from_secs(2);

/// The pause between two attempts to reach a member at the start.
const CHECK_AGAIN: Duration = Duration::from_millis(100);

/// A mark is made at most this often.
const MARK_EVERY: Duration = Duration::from_secs(1);

/// All members are identified again after this many pauses without a mark, so that the status shows
/// a member that came back with another disk or does not answer, even if no group talks to it.
const ROUND_AT_LEAST_EVERY: u32 = 3;

/// The loop of a node's handshakes.
#[derive(Clone, Debug)]
pub struct HandshakeLoop {
    /// Who is who.
    pub roster: Roster,
    /// The ways to them.
    pub peers: Peers,
    /// Ends it.
    pub stop: CancellationToken,
}

impl HandshakeLoop {
    /// Runs until stopped.
    pub fn run(self) -> BoxFuture<'static, ()> {
        async move {
            let stop = self.stop.clone();
            tokio::select! {
                () = self.check_and_mark() => {}
                () = stop.cancelled() => {}
            }
        }
        .boxed()
    }

    async fn check_and_mark(self) {
        self.check().await;
        self.mark().await;
    }

    /// Checks this node with the other members, then lets it take part.
    async fn check(&self) {
        let until = Instant::now() + CHECK_WITHIN;
        let mut waiting = self.roster.others();
        while !waiting.is_empty() && Instant::now() < until {
            waiting = self.ask(waiting).await;
            if matches!(self.roster.participation(), Participation::Refused(_)) {
                return;
            }
            if !waiting.is_empty() {
                tokio::time::sleep(CHECK_AGAIN).await;
            }
        }
        self.roster.take_part();
    }

    /// Identifies these members, and has them identify this node. Those that did not answer.
    async fn ask(&self, others: BTreeMap<NodeId, String>) -> BTreeMap<NodeId, String> {
        let asks = others.into_iter().map(|(node, address)| async move {
            let answer = self.peers.identify(node, &address, true, true).await;
            let silent = answer.err().filter(|status| status.code() != Code::FailedPrecondition);
            self.note(node, &address, silent.as_ref());
            silent.map(|_| (node, address))
        });
        join_all(asks).await.into_iter().flatten().collect()
    }

    /// Notes whether a member answered.
    fn note(&self, node: NodeId, address: &str, silent: Option<&Status>) {
        let (silences, now) = (&self.roster.inner.silences, Instant::now());
        let news = match silent {
            Some(_) => silences.missed(node, now),
            None => silences.answered(node, now),
        };
        if let Some(news) = news {
            tell(node, address, news, &silent.map(status_words).unwrap_or_default());
        }
    }

    async fn mark(&self) {
        let operations = || self.roster.storage().writer_stats().operations;
        // The first round comes at once: a young cluster has to learn its disks.
        let (mut marked_at, mut pauses) = (0, ROUND_AT_LEAST_EVERY);
        loop {
            tokio::time::sleep(MARK_EVERY).await;
            pauses += 1;
            let wrote = operations() != marked_at;
            if wrote || self.roster.has_news() {
                match self.roster.store_round(wrote).await {
                    Ok(()) => marked_at = operations(),
                    // The storage has failed, and reports that itself.
                    Err(error) => tracing::debug!(%error, "no mark was made"),
                }
            }
            if wrote || pauses >= ROUND_AT_LEAST_EVERY {
                pauses = 0;
                let others = self.roster.others();
                self.roster.inner.silences.keep(&others);
                self.ask(others).await;
            }
        }
    }
}
