//! Matrices and streams of columns.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use tonic::Status;

use keyviz_core::KeyRange;
use keyviz_fanout::{Axis, Fanout, FeedError, Feeds, MatrixError, MatrixRequest};
use keyviz_proto as proto;

use crate::grpc::leaders::LeaderLog;
use crate::metrics::{RequestKind, Requests};
use keyviz_peer::matrix_wire::{matrix_to_wire, role_from_wire, series_from_wire};

pub(crate) struct KeyVizService {
    pub(crate) fanout: Arc<Fanout>,
    pub(crate) feeds: Arc<Feeds>,
    pub(crate) leaders: Arc<LeaderLog>,
    pub(crate) requests: Arc<Requests>,
}

/// The scope of the requested matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// That of all members together.
    Cluster,
    /// That of this node alone.
    Node,
}

impl KeyVizService {
    /// A matrix, encoded by `write` on a thread that no request of the store needs.
    pub(crate) async fn matrix<T: Send + 'static>(
        self: &Arc<Self>,
        scope: Scope,
        request: proto::GetMatrixRequest,
        write: impl FnOnce(proto::Matrix) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let work = async {
            let by_node = request.by_node;
            let request = matrix_request(request)?;
            let answer = match scope {
                Scope::Cluster => self.fanout.cluster(&request).await,
                Scope::Node => self.fanout.node(&request).await,
            };
            let answer = answer.map_err(matrix_status)?;
            let service = Arc::clone(self);
            let written = self.fanout.local().work().write(move || {
                let matrix = matrix_to_wire(Arc::unwrap_or_clone(answer), by_node);
                write(service.with_leaders(&request, matrix))
            });
            written.await.map_err(|error| matrix_status(error.into()))
        };
        self.requests.observe(RequestKind::Matrix, work).await
    }

    /// Adds the changes of leaders in the matrix's columns and keys to its events.
    fn with_leaders(&self, request: &MatrixRequest, mut matrix: proto::Matrix) -> proto::Matrix {
        let (Some(first), Some(last)) = (matrix.columns.first(), matrix.columns.last()) else {
            return matrix;
        };
        let range = KeyRange { start: request.start.clone(), end: request.end.clone() };
        let epoch = self.fanout.local().sampler().epoch_full();
        let leaders = &self.leaders;
        matrix.events.extend(leaders.events((first.start_ms, last.end_ms), &range, epoch.routes()));
        matrix.events.sort_by_key(|event| event.time_ms);
        matrix
    }
}

/// Updates of one stream of columns.
pub(crate) type Updates = Pin<Box<dyn Stream<Item = Result<proto::ColumnsUpdate, Status>> + Send>>;

impl KeyVizService {
    /// Columns as they close.
    pub(crate) async fn stream(
        self: &Arc<Self>,
        request: proto::StreamColumnsRequest,
    ) -> Result<Updates, Status> {
        let after_ms = request.after_ms;
        let question = matrix_request(proto::GetMatrixRequest {
            series: request.series,
            start: request.start,
            end: request.end,
            max_rows: request.max_rows,
            role: request.role,
            boundaries: request.boundaries,
            spread: request.spread,
            ..Default::default()
        })?;
        let subscribed = self.feeds.subscribe(question.clone(), after_ms).await;
        let subscription = subscribed.map_err(feed_status)?;
        let updates = futures::stream::unfold(subscription, |mut subscription| async move {
            let update = subscription.next().await?;
            Some((update, subscription))
        });
        let service = Arc::clone(self);
        let updates = updates.map(move |update| {
            let update = update.map_err(matrix_status)?;
            let matrix = matrix_to_wire(Arc::unwrap_or_clone(update.answer), false);
            let matrix = service.with_leaders(&question, matrix);
            Ok(proto::ColumnsUpdate { matrix: Some(matrix), cursor_ms: update.cursor_ms })
        });
        Ok(Box::pin(updates))
    }
}

fn feed_status(error: FeedError) -> Status {
    match error {
        FeedError::Matrix(error) => matrix_status(error),
        FeedError::TooManyFeeds | FeedError::TooManySubscribers => {
            Status::resource_exhausted(error.to_string())
        }
    }
}

pub(crate) fn matrix_status(error: MatrixError) -> Status {
    let message = error.to_string();
    match error {
        MatrixError::Disabled
        | MatrixError::NotReady
        | MatrixError::Removed { .. }
        | MatrixError::Refused { .. } => Status::unavailable(message),
        MatrixError::Busy(_) => Status::resource_exhausted(message),
        MatrixError::Internal { .. } => Status::internal(message),
        MatrixError::EmptyWindow { .. }
        | MatrixError::EmptyRange
        | MatrixError::Boundaries(_)
        | MatrixError::BoundaryTooLong { .. }
        | MatrixError::KeyTooLong { .. }
        | MatrixError::RoutesAndBoundaries
        | MatrixError::TooManySourceCells { .. }
        | MatrixError::TooManyRows { .. }
        | MatrixError::TooManyColumns { .. } => Status::invalid_argument(message),
    }
}

fn axis_from_wire(axis: i32) -> Result<Axis, Status> {
    match proto::Axis::try_from(axis) {
        Ok(proto::Axis::Unspecified | proto::Axis::Now) => Ok(Axis::Now),
        Ok(proto::Axis::Then) => Ok(Axis::Then),
        Err(_) => Err(Status::invalid_argument(format!(
            "axis {axis} does not exist; 1 is the routes of now, 2 those of then"
        ))),
    }
}

fn matrix_request(request: proto::GetMatrixRequest) -> Result<MatrixRequest, Status> {
    Ok(MatrixRequest {
        series: series_from_wire(request.series)?,
        role: role_from_wire(request.role)?,
        from_ms: request.from_ms,
        to_ms: request.to_ms,
        start: request.start,
        end: request.end,
        max_rows: request.max_rows,
        max_columns: request.max_columns,
        axis: axis_from_wire(request.axis)?,
        spread: request.spread,
        boundaries: request.boundaries.into(),
        by_route: request.by_route,
        sources: request.sources,
    })
}
