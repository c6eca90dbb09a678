//! What the bodies of the two ports have in common.

use axum::response::IntoResponse as _;
use bytes::Bytes;
use http_body::Body as HttpBody;
use tonic::Status;
use tonic::codegen::http::Response;

use crate::http::problem;

/// Any error.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of requests and answers of a port.
pub(super) trait Port: HttpBody<Data = Bytes> + Send + Unpin + Sized + 'static {
    /// Wraps `body`.
    fn of<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static;

    /// The answer to a refused call.
    fn refuse(status: &Status) -> Response<Self>;

    /// An error of such a body.
    fn boxed(error: Self::Error) -> BoxError;
}

impl Port for tonic::body::Body {
    fn of<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        tonic::body::Body::new(body)
    }

    fn refuse(status: &Status) -> Response<Self> {
        status.clone().into_http()
    }

    fn boxed(error: Status) -> BoxError {
        error.into()
    }
}

impl Port for axum::body::Body {
    fn of<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        axum::body::Body::new(body)
    }

    fn refuse(status: &Status) -> Response<Self> {
        problem(status).into_response()
    }

    fn boxed(error: axum::Error) -> BoxError {
        error.into()
    }
}
