//! The body of a request: its bytes are counted, and its messages must arrive in time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use super::budget::{Budget, refused};
use super::port::{BoxError, Port};

/// A message must be complete within this time; that of a client within this time after its call
/// began.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);

/// The prefix of a gRPC message: a flag and its length.
const PREFIX: usize = 5;

/// The position of a body within its messages.
#[derive(Default, Debug)]
struct Framing {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix so far.
    prefixed: usize,
    /// The missing bytes of the message, once its prefix is there.
    lacks: usize,
}

impl Framing {
    /// Consumes bytes and returns whether a message ended in them. Fails if a message is too long.
    fn go(&mut self, mut bytes: &[u8], most: usize) -> Result<bool, Status> {
        let mut ended = false;
        while !bytes.is_empty() {
            if self.prefixed < PREFIX {
                let take = bytes.len().min(PREFIX - self.prefixed);
                let (head, rest) = bytes.split_at(take);
                self.prefix[self.prefixed..self.prefixed + take].copy_from_slice(head);
                self.prefixed += take;
                bytes = rest;
                if self.prefixed < PREFIX {
                    return Ok(ended);
                }
                let length = (&self.prefix[1..]).get_u32() as usize;
                if length > most {
                    return Err(too_long(length, most));
                }
                self.lacks = length;
            } else {
                let take = bytes.len().min(self.lacks);
                self.lacks -= take;
                bytes = &bytes[take..];
            }
            if self.prefixed == PREFIX && self.lacks == 0 {
                (self.prefixed, ended) = (0, true);
            }
        }
        Ok(ended)
    }

    fn is_between(&self) -> bool {
        self.prefixed == 0
    }
}

/// A body whose bytes are counted.
pub(super) struct Incoming<B> {
    body: B,
    most: usize,
    budget: Arc<Budget>,
    /// The position within its messages; `None` if it is one message without frames.
    framing: Option<Framing>,
    /// Bytes held of an incomplete message, and of those before it that arrived with it.
    held: usize,
    /// A message has begun, or must begin.
    due: bool,
    /// When it must be whole, once it has been waited for.
    whole_by: Option<Pin<Box<Sleep>>>,
}

impl Incoming<()> {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Incoming { body: (), most: 0, budget, framing: None, held: 0, due: true, whole_by: None }
    }

    /// gRPC: messages of at most `most` bytes, of which one is `due` from the beginning.
    pub(super) fn framed(mut self, most: usize, due: bool) -> Self {
        (self.most, self.due, self.framing) = (most, due, Some(Framing::default()));
        self
    }

    /// HTTP: at most `most` bytes.
    pub(super) fn unframed(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// The same for this body.
    pub(super) fn of<B>(mut self, body: B) -> Incoming<B> {
        let budget = Arc::clone(&self.budget);
        let (framing, whole_by) = (self.framing.take(), self.whole_by.take());
        Incoming { body, most: self.most, budget, framing, held: 0, due: self.due, whole_by }
    }
}

impl<B> Incoming<B> {
    fn take(&mut self, bytes: &Bytes) -> Result<(), Status> {
        self.budget.take(bytes.len())?;
        self.held += bytes.len();
        let Some(framing) = &mut self.framing else {
            let (held, most) = (self.held, self.most);
            return if held > most { Err(too_long(held, most)) } else { Ok(()) };
        };
        let ended = framing.go(bytes, self.most)?;
        let between = framing.is_between();
        if ended {
            // Whoever reads it holds it now. What follows of the next message is little.
            self.ended();
        }
        self.due |= !between;
        Ok(())
    }

    fn ended(&mut self) {
        self.budget.give_back(std::mem::take(&mut self.held));
        (self.due, self.whole_by) = (false, None);
    }
}

impl<B> Drop for Incoming<B> {
    fn drop(&mut self) {
        self.budget.give_back(self.held);
    }
}

impl<B: Port> HttpBody for Incoming<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(match frame {
                Some(Ok(frame)) => {
                    let counted = frame.data_ref().map_or(Ok(()), |bytes| self.take(bytes));
                    Some(counted.map(|()| frame).map_err(Into::into))
                }
                Some(Err(error)) => Some(Err(B::boxed(error))),
                None => {
                    self.ended();
                    None
                }
            });
        }
        if self.due {
            let whole_by = self.whole_by.get_or_insert_with(|| Box::pin(sleep(WHOLE_WITHIN)));
            ready!(whole_by.as_mut().poll(context));
            let seconds = WHOLE_WITHIN.as_secs();
            let late = format!("the message was not whole within {seconds} s");
            return Poll::Ready(Some(Err(refused(Status::deadline_exceeded(late)).into())));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn too_long(length: usize, most: usize) -> Status {
    refused(Status::invalid_argument(format!(
        "the message has {length} bytes; this call takes at most {most}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: usize) -> Vec<u8> {
        let length = u32::try_from(message).expect("a test's message is short");
        [&[0][..], &length.to_be_bytes(), &vec![7; message]].concat()
    }

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let bytes = [framed(0), framed(300), framed(1), framed(70)].concat();
        for cut in 1..12 {
            let mut framing = Framing::default();
            let mut ends = 0;
            for piece in bytes.chunks(cut) {
                let ended = framing.go(piece, 300).expect("all are short enough");
                ends += u32::from(ended);
            }
            assert!(framing.is_between() && (3..=4).contains(&ends), "cut {cut}: {ends}");
        }
        let refused = Framing::default().go(&framed(301), 300).expect_err("it is too long");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains("301") && refused.message().contains("300"));
    }

    #[test]
    fn bounds_what_is_not_whole_yet_is_counted_over_all_and_given_back() {
        let budget = Budget::new(1, 1_000);
        let incoming = || Incoming::new(Arc::clone(&budget)).framed(900, true).of(());
        let half = Bytes::from(framed(900)[..500].to_vec());
        let (mut first, mut second, mut third) = (incoming(), incoming(), incoming());
        first.take(&half).expect("there is room");
        assert!(first.due, "the rest has to come in time");
        second.take(&half).expect("there is room");
        let full = third.take(&Bytes::from_static(&[0])).expect_err("there is none");
        assert_eq!(full.code(), tonic::Code::ResourceExhausted);
        drop(second);
        first.take(&Bytes::from(vec![7; 405])).expect("there is room");
        assert!(!first.due);
        assert_eq!(budget.held(), 0, "whole messages are others'");
    }

    #[test]
    fn bounds_a_body_without_frames_is_one_message() {
        let budget = Budget::new(1, 1_000);
        let mut incoming = Incoming::new(Arc::clone(&budget)).unframed(600).of(());
        incoming.take(&Bytes::from(vec![7; 600])).expect("it may be so long");
        let refused = incoming.take(&Bytes::from_static(&[7])).expect_err("it is too long");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        drop(incoming);
        assert_eq!(budget.held(), 0);
    }
}
