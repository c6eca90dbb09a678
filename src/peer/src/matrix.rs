//! Both rounds of a cluster matrix, requested from another node.

use std::sync::Arc;

use futures::future::BoxFuture;
use tonic::{Code, Status};

use keyviz_core::hotkeys::HotKeysQuery;
use keyviz_core::query::{ColumnPlan, MAX_TOTALS, NodeTotals, RowAxis};
use keyviz_core::wire::PackedColumns;
use keyviz_core::{NodeId, Query};
use keyviz_fanout::{NodeHotKeys, PeerMatrix, PeerTotals, RoundError};
use keyviz_proto as proto;
use keyviz_proto::key_viz_peer_client::KeyVizPeerClient;
use keyviz_raft::MAX_MESSAGE_BYTES;
use keyviz_security::AuthChannel;

use super::client::PeerClient;
use super::hot_keys_wire;
use super::matrix_wire::{columns_from_chunk, columns_request, query_to_wire};
use super::request_id::carrying;
use super::totals_wire::{ranges_in, totals_from_chunks};
use keyviz_proto::failure::describe;

/// Most cells that one node may contribute to one answer: 1,024 rows x 2,048 columns, four times
/// over for terms and roles. At no more than 10 bytes a packed cell, 84 MB; 12 MB with counts of
/// nine bits, as most are.
const MAX_CELLS: usize = 4 * 1_024 * 2_048;

/// Most messages of a node's hot keys: 4,096 keys of itself and of some that have left.
const MAX_HOT_KEYS_CHUNKS: usize = 1_024;

/// Most memory of them: twice as many keys as one node lists, of 4 KiB and with 240 points each,
/// and some more.
const MAX_HOT_KEYS_BYTES: usize = 64 << 20;

impl PeerClient {
    fn matrix(&self, to: NodeId) -> Result<KeyVizPeerClient<AuthChannel>, RoundError> {
        let channel = self.channel(to).map_err(|error| RoundError::Call(error.to_string()))?;
        Ok(KeyVizPeerClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }
}

impl PeerClient {
    /// The service of copies.
    pub(crate) fn copies(&self, to: NodeId) -> Result<KeyVizPeerClient<AuthChannel>, Status> {
        self.matrix(to).map_err(|error| Status::unavailable(error.to_string()))
    }

    /// Round one, in the name of the node `of` if it is not `to`.
    pub(crate) fn ask_totals(
        &self,
        to: NodeId,
        of: NodeId,
        query: &Query,
    ) -> BoxFuture<'static, Result<PeerTotals, RoundError>> {
        let client = self.matrix(to);
        let ours = self.cluster_id();
        let query = in_name(query_to_wire(query, ours.clone()), to, of);
        Box::pin(async move {
            let request = proto::TotalsRequest { query: Some(query), packed: true };
            let answer = client?.totals(carrying(request)).await.map_err(failed)?;
            let mut stream = answer.into_inner();
            let (mut chunks, mut ranges) = (Vec::new(), 0);
            while let Some(chunk) = stream.message().await.map_err(failed)? {
                ranges += ranges_in(&chunk);
                if ranges > MAX_TOTALS {
                    return Err(RoundError::TooManyRanges(MAX_TOTALS));
                }
                chunks.push(chunk);
            }
            totals_from_chunks(chunks, &ours)
        })
    }

    /// Round two, in the name of the node `of` if it is not `to`.
    pub(crate) fn ask_columns(
        &self,
        to: NodeId,
        of: NodeId,
        query: &Query,
        rows: &RowAxis,
        columns: &Arc<ColumnPlan>,
    ) -> BoxFuture<'static, Result<Vec<PackedColumns>, RoundError>> {
        let client = self.matrix(to);
        let ours = self.cluster_id();
        let mut request = columns_request(query, ours.clone(), rows, columns);
        request.query = request.query.map(|query| in_name(query, to, of));
        let columns = Arc::clone(columns);
        Box::pin(async move {
            let answer = client?.columns(carrying(request)).await.map_err(failed)?;
            let mut stream = answer.into_inner();
            let mut parts: Vec<PackedColumns> = Vec::new();
            let (mut reached, mut cells) = (0, 0);
            let all = columns.len() as u32;
            while let Some(chunk) = stream.message().await.map_err(failed)? {
                let part = columns_from_chunk(chunk, &ours)?;
                cells += part.cells();
                // The columns that it keeps for nodes that have left follow its own, node by node.
                let known = parts.iter().any(|before| before.node == part.node);
                if reached == all && !parts.is_empty() && !known {
                    reached = 0;
                }
                if part.covers.start != reached || cells > MAX_CELLS {
                    return Err(RoundError::Order);
                }
                reached = part.covers.end;
                parts.push(part);
            }
            if reached as usize != columns.len() {
                return Err(RoundError::Incomplete { reached, asked: columns.len() });
            }
            Ok(parts)
        })
    }

    /// The hot keys, in the name of the node `of` if it is not `to`.
    pub(crate) fn ask_hot_keys(
        &self,
        to: NodeId,
        of: NodeId,
        query: &HotKeysQuery,
    ) -> BoxFuture<'static, Result<NodeHotKeys, RoundError>> {
        let client = self.matrix(to);
        let ours = self.cluster_id();
        let mut request = hot_keys_wire::query_to_wire(query, ours.clone());
        request.query = request.query.map(|query| in_name(query, to, of));
        Box::pin(async move {
            let answer =
                client?.hot_keys(carrying(request)).await.map_err(|status| {
                    match status.code() {
                        Code::Unimplemented => RoundError::NoHotKeys,
                        _ => failed(status),
                    }
                })?;
            let (mut stream, mut chunks) = (answer.into_inner(), Vec::new());
            let mut bytes = 0;
            while let Some(chunk) = stream.message().await.map_err(failed)? {
                bytes += hot_keys_wire::bytes_of(&chunk);
                if bytes > MAX_HOT_KEYS_BYTES {
                    return Err(RoundError::HotKeysTooLarge(MAX_HOT_KEYS_BYTES));
                }
                if chunks.len() == MAX_HOT_KEYS_CHUNKS {
                    return Err(RoundError::TooManyParts(hot_keys_wire::MAX_PARTS));
                }
                chunks.push(chunk);
            }
            hot_keys_wire::answer_from_chunks(chunks, &ours)
        })
    }
}

fn in_name(query: proto::PeerQuery, to: NodeId, of: NodeId) -> proto::PeerQuery {
    proto::PeerQuery { in_name_of: if to == of { 0 } else { of.0 }, ..query }
}

impl PeerMatrix for PeerClient {
    fn totals(
        &self,
        to: NodeId,
        query: Arc<Query>,
    ) -> BoxFuture<'static, Result<PeerTotals, RoundError>> {
        self.ask_totals(to, to, &query)
    }

    fn columns(
        &self,
        to: NodeId,
        query: Arc<Query>,
        rows: Arc<RowAxis>,
        columns: Arc<ColumnPlan>,
    ) -> BoxFuture<'static, Result<Vec<PackedColumns>, RoundError>> {
        self.ask_columns(to, to, &query, &rows, &columns)
    }

    fn hot_keys(
        &self,
        to: NodeId,
        query: Arc<HotKeysQuery>,
    ) -> BoxFuture<'static, Result<NodeHotKeys, RoundError>> {
        self.ask_hot_keys(to, to, &query)
    }

    fn copy_totals(
        &self,
        to: NodeId,
        of: NodeId,
        query: Arc<Query>,
    ) -> BoxFuture<'static, Result<NodeTotals, RoundError>> {
        let asked = self.ask_totals(to, of, &query);
        Box::pin(async move { Ok(asked.await?.totals) })
    }

    fn copy_columns(
        &self,
        to: NodeId,
        of: NodeId,
        query: Arc<Query>,
        rows: Arc<RowAxis>,
        columns: Arc<ColumnPlan>,
    ) -> BoxFuture<'static, Result<Vec<PackedColumns>, RoundError>> {
        self.ask_columns(to, of, &query, &rows, &columns)
    }

    fn copy_hot_keys(
        &self,
        to: NodeId,
        of: NodeId,
        query: Arc<HotKeysQuery>,
    ) -> BoxFuture<'static, Result<NodeHotKeys, RoundError>> {
        self.ask_hot_keys(to, of, &query)
    }
}

fn failed(status: Status) -> RoundError {
    RoundError::Call(describe(&status))
}
