//! Serves the contributions of this node to matrices of other nodes. A peer's query is never
//! forwarded.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tonic::{Request, Response, Status};

use keyviz_core::Query;
use keyviz_directory::{Directory, MembershipState};
use keyviz_fanout::{Asker, LocalMatrix, MatrixError, PeerTotals};
use keyviz_proto as proto;
use keyviz_proto::key_viz_peer_server::{KeyVizPeer, KeyVizPeerServer};
use keyviz_raft::{Groups, MAX_MESSAGE_BYTES};
use keyviz_types::NodeId;

use super::checks::check_cluster;
use super::statuses::{answer_status, work_status};
use crate::grpc::hot_keys::hot_keys_status;
use crate::grpc::keyviz::matrix_status;
use keyviz_peer::hot_keys_wire;
use keyviz_peer::matrix_wire::{
    column_plan_from_wire, columns_chunks, query_from_wire, row_axis_from_wire,
};
use keyviz_peer::totals_wire::totals_chunks;

/// Answers both rounds from the counts of this node.
#[derive(Clone)]
pub struct MatrixPeer {
    pub(super) local: Arc<LocalMatrix>,
    pub(super) directory: Arc<Directory>,
    pub(super) groups: Option<Groups>,
}

impl MatrixPeer {
    /// Answers from `local` to nodes of the cluster in `directory`.
    pub fn new(local: Arc<LocalMatrix>, directory: Arc<Directory>) -> Self {
        MatrixPeer { local, directory, groups: None }
    }

    /// The same; senders of copies must have the disks that these groups know.
    #[must_use]
    pub fn knowing_disks_of(self, groups: Groups) -> Self {
        MatrixPeer { groups: Some(groups), ..self }
    }

    /// The gRPC service.
    pub fn into_server(self) -> KeyVizPeerServer<Self> {
        KeyVizPeerServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(usize::MAX)
    }

    fn query(&self, query: Option<proto::PeerQuery>) -> Result<Arc<Query>, Status> {
        let query = query.ok_or_else(|| Status::invalid_argument("a question without a query"))?;
        check_cluster(&self.directory, &query.cluster_id)?;
        if self.directory.membership_state() == MembershipState::Refused {
            let reason = self.directory.refusal().as_str().to_owned();
            return Err(matrix_status(MatrixError::Refused { reason }));
        }
        if !self.local.enabled() {
            return Err(matrix_status(MatrixError::Disabled));
        }
        query_from_wire(query).map(Arc::new)
    }

    fn cluster_id(&self) -> String {
        self.directory.cluster_id().as_str().to_owned()
    }
}

type Chunks<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn stream<T: Send + 'static>(chunks: Vec<T>) -> Response<Chunks<T>> {
    Response::new(Box::pin(futures::stream::iter(chunks.into_iter().map(Ok))))
}

#[tonic::async_trait]
impl KeyVizPeer for MatrixPeer {
    type TotalsStream = Chunks<proto::TotalsChunk>;
    type ColumnsStream = Chunks<proto::ColumnsChunk>;
    type HotKeysStream = Chunks<proto::HotKeysChunk>;

    async fn totals(
        &self,
        request: Request<proto::TotalsRequest>,
    ) -> Result<Response<Self::TotalsStream>, Status> {
        let local = &self.local;
        let proto::TotalsRequest { query, packed } = request.into_inner();
        let (of, query) = (in_name_of(query.as_ref()), self.query(query)?);
        let (totals, copies) = match of {
            Some(of) => {
                let totals = local.copy_totals(Asker::Peer, of, query).await;
                (totals.map_err(answer_status)?, Vec::new())
            }
            None => {
                let totals = local.totals(Asker::Peer, query).await.map_err(work_status)?;
                (totals, local.held_copies())
            }
        };
        let (now_ms, step_ms) = (local.clock().now_ms(), local.history().config().step_ms);
        let answer = PeerTotals { totals, now_ms, step_ms, copies };
        Ok(stream(totals_chunks(answer, local.history().node(), &self.cluster_id(), packed)))
    }

    async fn hot_keys(
        &self,
        request: Request<proto::HotKeysRequest>,
    ) -> Result<Response<Self::HotKeysStream>, Status> {
        let proto::HotKeysRequest { query, points } = request.into_inner();
        let query = query.ok_or_else(|| Status::invalid_argument("a question without a query"))?;
        self.query(Some(query.clone()))?;
        let of = in_name_of(Some(&query));
        let query = Arc::new(hot_keys_wire::query_from_wire(query, points)?);
        let cluster_id = self.cluster_id();
        let answer = match of {
            Some(of) => {
                let answer = self.local.copy_hot_keys(Asker::Peer, of, query, &cluster_id).await;
                answer.map_err(answer_status)?
            }
            None => {
                let answer = self.local.hot_keys_for(Asker::Peer, query, &cluster_id).await;
                answer.map_err(hot_keys_status)?
            }
        };
        Ok(stream(hot_keys_wire::chunks(answer, &cluster_id)))
    }

    async fn columns(
        &self,
        request: Request<proto::ColumnsRequest>,
    ) -> Result<Response<Self::ColumnsStream>, Status> {
        let request = request.into_inner();
        let rows = Arc::new(row_axis_from_wire(&request)?);
        let columns = Arc::new(column_plan_from_wire(&request)?);
        let of = in_name_of(request.query.as_ref());
        let (query, spans) = (self.query(request.query)?, request.spans);
        let parts = match of {
            Some(of) => {
                let part = self.local.copy_columns(Asker::Peer, of, query, rows, columns).await;
                vec![part.map_err(answer_status)?]
            }
            None => {
                let parts = self.local.columns(Asker::Peer, query, rows, columns, spans).await;
                parts.map_err(work_status)?
            }
        };
        let cluster_id = self.cluster_id();
        let chunks = parts.into_iter().flat_map(|part| columns_chunks(part, &cluster_id));
        Ok(stream(chunks.collect()))
    }

    async fn copy_inventory(
        &self,
        request: Request<proto::CopyInventoryRequest>,
    ) -> Result<Response<proto::CopyInventoryResponse>, Status> {
        self.tell_inventory(request).await
    }

    async fn store_copy(
        &self,
        request: Request<proto::StoreCopyRequest>,
    ) -> Result<Response<proto::StoreCopyResponse>, Status> {
        self.take_copy(request).await
    }
}

/// The node in whose name the query is to be answered; `None`: the callee's own.
fn in_name_of(query: Option<&proto::PeerQuery>) -> Option<NodeId> {
    query.map(|query| NodeId(query.in_name_of)).filter(|of| of.0 > 0)
}
