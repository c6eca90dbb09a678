//! The `KeyViz` service: matrices, columns and findings.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use keyviz_proto as proto;

use super::cut::matrix_parts;
use super::findings::{FindingsService, FindingsUpdates};
use super::keyviz::{KeyVizService, Scope, Updates};
use super::loads::{LoadsService, LoadsStream};

/// A matrix in parts.
type MatrixStream = Pin<Box<dyn Stream<Item = Result<proto::Matrix, Status>> + Send>>;

/// The services of this module share their state; tonic requires a type for each.
#[derive(Clone)]
pub(crate) struct SharedKeyViz(
    pub(crate) Arc<KeyVizService>,
    pub(crate) Arc<FindingsService>,
    pub(crate) Arc<LoadsService>,
);

#[tonic::async_trait]
impl proto::key_viz_server::KeyViz for SharedKeyViz {
    type StreamColumnsStream = Updates;
    type StreamFindingsStream = FindingsUpdates;
    type StreamMatrixStream = MatrixStream;
    type StreamNodeMatrixStream = MatrixStream;
    type GetLoadsStream = LoadsStream;

    async fn stream_findings(
        &self,
        request: Request<proto::StreamFindingsRequest>,
    ) -> Result<Response<Self::StreamFindingsStream>, Status> {
        Arc::clone(&self.1).stream(request.into_inner()).map(Response::new)
    }

    async fn stream_matrix(
        &self,
        request: Request<proto::GetMatrixRequest>,
    ) -> Result<Response<MatrixStream>, Status> {
        let parts = self.0.matrix(Scope::Cluster, request.into_inner(), matrix_parts).await?;
        Ok(Response::new(futures::stream::iter(parts.into_iter().map(Ok)).boxed()))
    }

    async fn stream_node_matrix(
        &self,
        request: Request<proto::GetMatrixRequest>,
    ) -> Result<Response<MatrixStream>, Status> {
        let parts = self.0.matrix(Scope::Node, request.into_inner(), matrix_parts).await?;
        Ok(Response::new(futures::stream::iter(parts.into_iter().map(Ok)).boxed()))
    }
    type GetNodeLoadsStream = LoadsStream;

    async fn top_ranges(
        &self,
        request: Request<proto::TopRangesRequest>,
    ) -> Result<Response<proto::TopRanges>, Status> {
        self.2.top(request.into_inner()).await.map(Response::new)
    }

    async fn get_loads(
        &self,
        request: Request<proto::GetLoadsRequest>,
    ) -> Result<Response<LoadsStream>, Status> {
        self.2.loads(Scope::Cluster, request.into_inner()).map(Response::new)
    }

    async fn get_node_loads(
        &self,
        request: Request<proto::GetLoadsRequest>,
    ) -> Result<Response<LoadsStream>, Status> {
        self.2.loads(Scope::Node, request.into_inner()).map(Response::new)
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
