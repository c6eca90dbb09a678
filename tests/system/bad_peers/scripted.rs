//! A peer that answers as a healthy one would, changed by a script.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use keyviz_proto as proto;
use keyviz_proto::key_viz_peer_server::KeyVizPeer;
use keyviz_server::MatrixPeer;
use tonic::{Request, Response, Status};

/// What to do next in an answer.
pub enum Step<T> {
    Send(T),
    Wait(Duration),
    /// Say nothing more, and do not end.
    Hang,
}

type Script<T> = Arc<dyn Fn(Vec<T>) -> Vec<Step<T>> + Send + Sync>;

#[derive(Clone)]
pub struct Scripted {
    healthy: MatrixPeer,
    totals: Script<proto::TotalsChunk>,
    columns: Script<proto::ColumnsChunk>,
}

pub fn send<T>(chunks: Vec<T>) -> Vec<Step<T>> {
    chunks.into_iter().map(Step::Send).collect()
}

impl Scripted {
    pub fn new(healthy: MatrixPeer) -> Self {
        Scripted { healthy, totals: Arc::new(send), columns: Arc::new(send) }
    }

    pub fn totals(
        self,
        script: impl Fn(Vec<proto::TotalsChunk>) -> Vec<Step<proto::TotalsChunk>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Scripted { totals: Arc::new(script), ..self }
    }

    pub fn columns(
        self,
        script: impl Fn(Vec<proto::ColumnsChunk>) -> Vec<Step<proto::ColumnsChunk>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Scripted { columns: Arc::new(script), ..self }
    }

    /// Changes the only chunk of round one.
    pub fn total(self, change: fn(&mut proto::TotalsChunk)) -> Self {
        self.totals(move |mut chunks| {
            assert_eq!(chunks.len(), 1);
            change(&mut chunks[0]);
            send(chunks)
        })
    }

    /// Changes the only chunk of round two.
    pub fn column(self, change: impl Fn(&mut proto::ColumnsChunk) + Send + Sync + 'static) -> Self {
        self.columns(move |mut chunks| {
            assert_eq!(chunks.len(), 1);
            change(&mut chunks[0]);
            send(chunks)
        })
    }
}

type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

async fn collected<T>(answer: Response<Answer<T>>) -> Vec<T> {
    let chunks: Vec<Result<T, Status>> = answer.into_inner().collect().await;
    chunks.into_iter().map(|chunk| chunk.expect("a healthy peer answers")).collect()
}

fn play<T: Send + 'static>(steps: Vec<Step<T>>) -> Response<Answer<T>> {
    let steps = futures::stream::iter(steps).filter_map(|step| async move {
        match step {
            Step::Send(chunk) => Some(Ok(chunk)),
            Step::Wait(pause) => {
                tokio::time::sleep(pause).await;
                None
            }
            Step::Hang => std::future::pending().await,
        }
    });
    Response::new(Box::pin(steps))
}

#[tonic::async_trait]
impl KeyVizPeer for Scripted {
    type TotalsStream = Answer<proto::TotalsChunk>;
    type ColumnsStream = Answer<proto::ColumnsChunk>;
    type HotKeysStream = Answer<proto::HotKeysChunk>;

    async fn totals(
        &self,
        request: Request<proto::TotalsRequest>,
    ) -> Result<Response<Self::TotalsStream>, Status> {
        // Scripts change single ranges, which is also what a node of an older version sends.
        let query = request.into_inner().query;
        let request = Request::new(proto::TotalsRequest { query, packed: false });
        let chunks = collected(self.healthy.totals(request).await?).await;
        Ok(play((self.totals)(chunks)))
    }

    async fn columns(
        &self,
        request: Request<proto::ColumnsRequest>,
    ) -> Result<Response<Self::ColumnsStream>, Status> {
        let chunks = collected(self.healthy.columns(request).await?).await;
        Ok(play((self.columns)(chunks)))
    }

    async fn hot_keys(
        &self,
        _: Request<proto::HotKeysRequest>,
    ) -> Result<Response<Self::HotKeysStream>, Status> {
        Err(Status::unimplemented("as a node of an earlier version"))
    }

    async fn copy_inventory(
        &self,
        _: Request<proto::CopyInventoryRequest>,
    ) -> Result<Response<proto::CopyInventoryResponse>, Status> {
        Err(Status::unimplemented("as a node of an earlier version"))
    }

    async fn store_copy(
        &self,
        _: Request<proto::StoreCopyRequest>,
    ) -> Result<Response<proto::StoreCopyResponse>, Status> {
        Err(Status::unimplemented("as a node of an earlier version"))
    }
}
