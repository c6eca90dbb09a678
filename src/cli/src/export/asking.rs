//! Matrices and hot keys of an export, asked of the cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use tonic::Code;

use crate::CliError;
use crate::client::{CallError, Client, Effect, MAX_ANSWER_BYTES};
use crate::heat::{Scope, hot};
use crate::terminal::talk::say;
use crate::terminal::text;
use keyviz_proto as proto;
use keyviz_proto::key_viz_client::KeyVizClient;

/// Attempts of a question that a node has no time for, or that a member answers too late.
const ATTEMPTS: u32 = 4;
/// The pause between them.
const PAUSE: Duration = Duration::from_millis(500);

/// Asks the cluster, and again where the reason passes.
pub(super) struct Questions<'a> {
    client: &'a Client,
    /// Members that did not answer any attempt: they are not waited for again.
    silent: BTreeSet<u64>,
}

impl<'a> Questions<'a> {
    pub(super) fn new(client: &'a Client) -> Self {
        Questions { client, silent: BTreeSet::new() }
    }

    /// A matrix. One that lacks a member that may only have been slow is asked again.
    ///
    /// # Errors
    /// No node answers, or one refuses.
    pub(super) async fn matrix(
        &mut self,
        request: &proto::GetMatrixRequest,
    ) -> Result<proto::Matrix, CliError> {
        self.ask(request, true).await
    }

    async fn ask(
        &mut self,
        request: &proto::GetMatrixRequest,
        of_all: bool,
    ) -> Result<proto::Matrix, CliError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let asked = self.client.call(Effect::Read, |channel| async move {
                let mut client =
                    KeyVizClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
                client.get_matrix(request.clone()).await
            });
            match asked.await {
                Ok(matrix) => {
                    let matrix = matrix.into_inner();
                    let partial = matrix.rows.iter().any(|row| !row.partial.is_empty());
                    let counts = of_all && partial;
                    let missed = |node: &&proto::NodeStatus| counts && self.is_missed(node);
                    let missing: Vec<&proto::NodeStatus> =
                        matrix.nodes.iter().filter(missed).collect();
                    if missing.is_empty() {
                        return Ok(matrix);
                    }
                    if attempt == ATTEMPTS {
                        for node in missing {
                            let (id, error) = (node.id, text::inert(&node.error));
                            self.silent.insert(id);
                            say!("keyviz: node {id} does not answer: {error}");
                        }
                        return Ok(matrix);
                    }
                }
                Err(error) if attempt < ATTEMPTS && passes(&error) => {}
                Err(CallError::Refused { address, status })
                    if status.code() == Code::Unavailable =>
                {
                    return Err(CliError::HeatUnavailable(CallError::Refused { address, status }));
                }
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The columns of a matrix; its counts may be missing.
    ///
    /// # Errors
    /// No node answers, or one refuses.
    pub(super) async fn columns(
        &mut self,
        request: &proto::GetMatrixRequest,
    ) -> Result<Vec<proto::Column>, CliError> {
        Ok(self.ask(request, false).await?.columns)
    }

    fn is_missed(&self, node: &proto::NodeStatus) -> bool {
        !node.ok && node.answered_by.is_empty() && !self.silent.contains(&node.id)
    }

    /// Hot keys; `None`: they are off.
    ///
    /// # Errors
    /// No node answers, or one refuses for another reason.
    pub(super) async fn hot_keys(
        &self,
        request: &proto::GetHotKeysRequest,
    ) -> Result<Option<proto::HotKeys>, CliError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match hot::ask(self.client, Scope::Cluster, request).await {
                Ok(hot_keys) => return Ok(Some(hot_keys)),
                Err(CliError::Call(error)) if attempt < ATTEMPTS && passes(&error) => {}
                Err(CliError::HeatUnavailable(error)) => {
                    say!("keyviz: the export has no hot keys: {error}");
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Whether the same question may be answered a moment later.
fn passes(error: &CallError) -> bool {
    match error {
        CallError::NoNode(_) => true,
        CallError::Refused { status, .. } => status.code() == Code::ResourceExhausted,
        _ => false,
    }
}
