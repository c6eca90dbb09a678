//! Which connections have a request under way: until its answer is sent or given up.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::ConnectInfo;
use bytes::Bytes;
use futures::future::{FutureExt as _, Map};
use tonic::codegen::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use keyviz_security::{Caller, UnderWay};

/// Tells a connection of its requests.
#[derive(Clone, Copy)]
pub(crate) struct ActivityLayer;

impl<S> Layer<S> for ActivityLayer {
    type Service = Active<S>;

    fn layer(&self, inner: S) -> Active<S> {
        Active(inner)
    }
}

#[derive(Clone)]
pub(crate) struct Active<S>(S);

type Keep<B, E> = Box<dyn FnOnce(Result<Response<B>, E>) -> Result<Response<Kept<B>>, E> + Send>;

impl<S, B, A> Service<Request<B>> for Active<S>
where
    S: Service<Request<B>, Response = Response<A>>,
    S::Error: 'static,
    A: 'static,
{
    type Response = Response<Kept<A>>;
    type Error = S::Error;
    type Future = Map<S::Future, Keep<A, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let extensions = request.extensions();
        let caller = extensions.get::<Caller>();
        let caller = caller.or_else(|| Some(&extensions.get::<ConnectInfo<Caller>>()?.0));
        let under_way = caller.map(|caller| caller.connection.begin());
        let keep = move |answered: Result<Response<A>, S::Error>| {
            answered.map(|response| response.map(|body| Kept { body, under_way }))
        };
        self.0.call(request).map(Box::new(keep))
    }
}

/// A body that has its request count as under way.
pub(crate) struct Kept<B> {
    body: B,
    under_way: Option<UnderWay>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Kept<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) {
            self.under_way = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
