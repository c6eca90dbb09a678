//! Proposals of one group on their way into openraft, in batches.
//!
//! openraft takes a batch as one message, appends it as one record and replicates it as one
//! request. Each proposal still has its own answer.

use std::sync::Arc;

use futures::StreamExt as _;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use tokio::sync::oneshot;

use super::batcher::Batcher;
use crate::machine::apply::Applier;
use crate::types::{Command, LogId, Reply, Types};

/// Where a proposal ended up and what the state machine answered.
pub(crate) struct Written {
    pub(crate) log_id: LogId,
    pub(crate) reply: Reply,
}

pub(crate) type Raft = openraft::Raft<Types, Applier>;

pub(crate) type WriteError = RaftError<Types, ClientWriteError<Types>>;

pub(crate) type WriteResult = Result<Written, WriteError>;

/// The proposals of one group that openraft has not been given yet.
#[derive(Clone, Default)]
pub(crate) struct Proposals {
    batcher: Arc<Batcher<Proposal>>,
}

struct Proposal {
    command: Command,
    answer: oneshot::Sender<WriteResult>,
}

impl Proposals {
    /// Proposes `command` with whatever else is proposed meanwhile. Dropping the future does not
    /// take it back.
    pub(crate) async fn write(&self, raft: &Raft, command: Command) -> WriteResult {
        let (answer, written) = oneshot::channel();
        let bytes = command.0.len();
        let raft = raft.clone();
        let send = move |batch| propose(raft.clone(), batch);
        let batcher = Arc::clone(&self.batcher);
        let written = batcher.submit(Proposal { command, answer }, bytes, written, send).await;
        written.unwrap_or(Err(RaftError::Fatal(Fatal::Stopped)))
    }
}

async fn propose(raft: Raft, batch: Vec<Proposal>) {
    let (commands, answers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|proposal| (proposal.command, proposal.answer)).unzip();
    let mut written = match raft.client_write_many(commands).await {
        Ok(written) => written,
        Err(fatal) => return refuse(answers, &fatal),
    };
    let mut answers = answers.into_iter();
    while let Some(result) = written.next().await {
        let answered: WriteResult = match result {
            Ok(Ok(response)) => Ok(Written { log_id: response.log_id, reply: response.response }),
            Ok(Err(error)) => Err(RaftError::APIError(error)),
            Err(fatal) => return refuse(answers, &fatal),
        };
        let Some(answer) = answers.next() else { return };
        // A proposer that has gone needs no answer.
        let _ = answer.send(answered);
    }
}

fn refuse(answers: impl IntoIterator<Item = oneshot::Sender<WriteResult>>, fatal: &Fatal<Types>) {
    for answer in answers {
        let _ = answer.send(Err(RaftError::<Types, ClientWriteError<Types>>::Fatal(fatal.clone())));
    }
}
