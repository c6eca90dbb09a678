//! An answer on its way out: it holds what belongs to its call until it has been taken, and tells
//! the connection whether it is.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tonic::Status;

use keyviz_kv::Admitted;
use keyviz_security::UnderWay;

use super::budget::Place;
use super::port::{BoxError, Port};

/// The body of an answer.
pub(super) struct Outgoing<B> {
    /// `None`: it was dropped because the client did not read it.
    body: Arc<Mutex<Option<B>>>,
    /// `None`: it has ended.
    under_way: Option<UnderWay>,
    _place: Place,
    _admitted: Option<Arc<Admitted>>,
}

impl<B: Port> Outgoing<B> {
    pub(super) fn new(
        body: B,
        place: Place,
        admitted: Option<Arc<Admitted>>,
        under_way: Option<UnderWay>,
    ) -> Self {
        let body = Arc::new(Mutex::new(Some(body)));
        if let Some(under_way) = &under_way {
            let body = Arc::clone(&body);
            under_way.unless_taken(move || {
                let unread = body.lock().take();
                drop(unread);
            });
        }
        Outgoing { body, under_way, _place: place, _admitted: admitted }
    }
}

impl<B: Port> HttpBody for Outgoing<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match self.body.lock().as_mut() {
            Some(body) => Pin::new(body).poll_frame(context),
            None => {
                let late = "the answer was given up, because it was not taken in time";
                return Poll::Ready(Some(Err(Status::deadline_exceeded(late).into())));
            }
        };
        match (&frame, &self.under_way) {
            (Poll::Ready(None), _) => self.under_way = None,
            (Poll::Ready(Some(_)), Some(under_way)) => under_way.gave(),
            (Poll::Pending, Some(under_way)) => under_way.taken(),
            (_, None) => {}
        }
        frame.map(|frame| frame.map(|frame| frame.map_err(B::boxed)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.lock().as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.lock().as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tonic::body::Body;

    use super::super::budget::Budget;
    use super::*;

    #[test]
    fn bounds_an_answer_that_was_given_up_holds_nothing_and_says_so() {
        let connection = keyviz_security::ConnectionHandle::default();
        let place = Budget::new(1, 0).begin().expect("there is a place");
        let mut answer = Outgoing::new(Body::empty(), place, None, Some(connection.begin()));
        let held = Arc::downgrade(&answer.body);
        answer.body.lock().take();
        let frame = std::future::poll_fn(|context| Pin::new(&mut answer).poll_frame(context));
        let error = frame.now_or_never().flatten().expect("there is an answer").expect_err("late");
        assert!(error.to_string().contains("not taken in time"), "{error}");
        drop(answer);
        assert!(held.upgrade().is_none(), "nor does its connection");
    }
}
