//! Identical queries share one answer.
//!
//! A query joins an answer in progress only until its round two begins. So the answer has
//! everything that was acknowledged before the query arrived, as if it had run alone. The answer is
//! driven by its waiters; when the last of them goes away it is dropped, and with it the calls to
//! all members.

use std::future::Future;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

/// Answers that can still be joined, by question.
pub(super) struct Joinable<Q, A: Clone> {
    open: Mutex<Open<Q, A>>,
}

struct Open<Q, A: Clone> {
    next: u64,
    answers: Vec<(u64, Q, WeakShared<BoxFuture<'static, A>>)>,
}

/// Which answer to close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ticket(u64);

impl<Q, A: Clone> Default for Joinable<Q, A> {
    fn default() -> Self {
        Joinable { open: Mutex::new(Open { next: 0, answers: Vec::new() }) }
    }
}

impl<Q: Clone + PartialEq, A: Clone> Joinable<Q, A> {
    /// The answer to `question` that is on its way, or the one that `begin` begins, and whether it
    /// was joined.
    pub(super) fn join<F>(
        &self,
        question: &Q,
        begin: impl FnOnce(Ticket) -> F,
    ) -> (Shared<BoxFuture<'static, A>>, bool)
    where
        F: Future<Output = A> + Send + 'static,
    {
        let mut open = self.open.lock();
        // Those whose askers have gone; the others are as many as there are askers.
        open.answers.retain(|(_, _, answer)| answer.upgrade().is_some());
        let same = open.answers.iter().find(|(_, asked, _)| asked == question);
        if let Some(answer) = same.and_then(|(_, _, answer)| answer.upgrade()) {
            return (answer, true);
        }
        let ticket = open.next;
        open.next += 1;
        let answer = begin(Ticket(ticket)).boxed().shared();
        let weak = answer.downgrade().expect("it was not polled yet");
        open.answers.push((ticket, question.clone(), weak));
        (answer, false)
    }

    /// No query may join this one.
    pub(super) fn close(&self, Ticket(ticket): Ticket) {
        self.open.lock().answers.retain(|(number, _, _)| *number != ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn once_identical_questions_share_an_answer_until_it_is_closed() {
        let joinable = Joinable::<&str, u64>::default();
        let mut tickets = Vec::new();
        let (first, joined) = joinable.join(&"a", |ticket| {
            tickets.push(ticket);
            async { 1 }
        });
        assert!(!joined);
        let (second, joined) = joinable.join(&"a", |_| async { 2 });
        assert!(joined);
        let (other, joined) = joinable.join(&"b", |_| async { 3 });
        assert!(!joined);
        joinable.close(tickets[0]);
        let (late, joined) = joinable.join(&"a", |_| async { 4 });
        assert!(!joined, "what is counted for the first was counted before this one asked");
        assert_eq!(futures::join!(first, second, other, late), (1, 1, 3, 4));
    }

    #[tokio::test]
    async fn no_harm_an_answer_that_nobody_waits_for_is_dropped() {
        let joinable = Joinable::<&str, ()>::default();
        let (alive, gone) = tokio::sync::oneshot::channel::<()>();
        let (answer, _) = joinable.join(&"a", |_| async move {
            let _alive = alive;
            std::future::pending().await
        });
        let second = answer.clone();
        drop(answer);
        assert!(second.clone().now_or_never().is_none());
        drop(second);
        assert!(gone.await.is_err(), "its calls are dropped with it");
        let (_, joined) = joinable.join(&"a", |_| async {});
        assert!(!joined);
    }
}
