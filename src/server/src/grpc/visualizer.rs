//! The `KeyViz` service: matrices, columns and findings.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use keyviz_proto as proto;

use super::findings::{FindingsService, FindingsUpdates};
use super::keyviz::{KeyVizService, Scope, Updates};

/// The services of this module share their state; tonic requires a type for each.
#[derive(Clone)]
pub(crate) struct SharedKeyViz(pub(crate) Arc<KeyVizService>, pub(crate) Arc<FindingsService>);

#[tonic::async_trait]
impl proto::key_viz_server::KeyViz for SharedKeyViz {
    type StreamColumnsStream = Updates;
    type StreamFindingsStream = FindingsUpdates;

    async fn stream_findings(
        &self,
        request: Request<proto::StreamFindingsRequest>,
    ) -> Result<Response<Self::StreamFindingsStream>, Status> {
        Arc::clone(&self.1).stream(request.into_inner()).map(Response::new)
    }

    async fn stream_columns(
        &self,
        request: Request<proto::StreamColumnsRequest>,
    ) -> Result<Response<Self::StreamColumnsStream>, Status> {
        self.0.stream(request.into_inner()).await.map(Response::new)
    }

    async fn get_matrix(
        &self,
        request: Request<proto::GetMatrixRequest>,
    ) -> Result<Response<proto::Matrix>, Status> {
        self.0.matrix(Scope::Cluster, request.into_inner(), Response::new).await
    }

    async fn get_node_matrix(
        &self,
        request: Request<proto::GetMatrixRequest>,
    ) -> Result<Response<proto::Matrix>, Status> {
        self.0.matrix(Scope::Node, request.into_inner(), Response::new).await
    }

    async fn get_findings(
        &self,
        request: Request<proto::GetFindingsRequest>,
    ) -> Result<Response<proto::Findings>, Status> {
        self.1.get(request.into_inner()).await.map(Response::new)
    }

    async fn get_hot_keys(
        &self,
        request: Request<proto::GetHotKeysRequest>,
    ) -> Result<Response<proto::HotKeys>, Status> {
        self.0.hot_keys(Scope::Cluster, request.into_inner()).await.map(Response::new)
    }

    async fn get_node_hot_keys(
        &self,
        request: Request<proto::GetHotKeysRequest>,
    ) -> Result<Response<proto::HotKeys>, Status> {
        self.0.hot_keys(Scope::Node, request.into_inner()).await.map(Response::new)
    }
}
