//! What happens on a connection, so that one that is used can be told from one that only holds its
//! place.
//!
//! | what | closed after |
//! |---|---|
//! | no call was ever made: silence, half a handshake of HTTP/2, half of a call's headers | [`FIRST_CALL_WITHIN`] |
//! | no call is open | [`IDLE`] |
//! | part of an answer that the other side does not take | [`UNREAD`] |
//!
//! A connection looks at this itself, every [`CHECK_EVERY`], whenever it is polled; a timer polls it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A connection on which no call was ever made is closed after this time.
pub const FIRST_CALL_WITHIN: Duration = Duration::from_secs(60);

/// A connection without an open call is closed after this time.
pub const IDLE: Duration = Duration::from_secs(600);

/// A connection whose other side does not take part of an answer for this long is closed: what it does
/// not take is held for it.
pub const UNREAD: Duration = Duration::from_secs(120);

/// A connection is looked at this often.
pub const CHECK_EVERY: Duration = Duration::from_secs(5);

/// The calls of one connection.
#[derive(Debug)]
pub struct Activity {
    state: Mutex<State>,
    closed: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// Open calls: since when part of their answer waits to be taken.
    calls: Vec<(u64, Option<Instant>)>,
    next: u64,
    used: bool,
    /// When the last call ended, or the connection began.
    idle_since: Instant,
}

/// Why a connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Overdue {
    /// No call was made.
    Silent,
    /// No call is open.
    Idle,
    /// An answer is not taken.
    Unread,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        let state =
            State { calls: Vec::new(), next: 0, used: false, idle_since: Instant::now() };
        Arc::new(Activity { state: Mutex::new(state), closed: CancellationToken::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole, whatever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins; it is open until what this returns is dropped.
    pub fn begin(self: &Arc<Self>) -> Call {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.used = true;
        state.calls.push((id, None));
        Call { activity: Arc::clone(self), id }
    }

    /// Since when no call is open; `None`: one is.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        state.calls.is_empty().then_some(state.idle_since)
    }

    pub(crate) fn overdue(&self, now: Instant) -> Option<Overdue> {
        let state = self.lock();
        let unread = |since: &Option<Instant>| since.is_some_and(|since| now >= since + UNREAD);
        if state.calls.iter().any(|(_, since)| unread(since)) {
            return Some(Overdue::Unread);
        }
        if !state.calls.is_empty() {
            return None;
        }
        let (limit, overdue) = match state.used {
            true => (IDLE, Overdue::Idle),
            false => (FIRST_CALL_WITHIN, Overdue::Silent),
        };
        (now >= state.idle_since + limit).then_some(overdue)
    }

    /// Has the connection close.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }
}

/// A call that is open.
#[derive(Debug)]
pub struct Call {
    activity: Arc<Activity>,
    id: u64,
}

impl Call {
    /// Part of the answer was handed to the connection.
    pub fn gave(&self) {
        self.note(Some(Instant::now()));
    }

    /// The connection asks for more: the other side takes what it is given.
    pub fn is_asked(&self) {
        self.note(None);
    }

    fn note(&self, since: Option<Instant>) {
        let mut state = self.activity.lock();
        if let Some(call) = state.calls.iter_mut().find(|(id, _)| *id == self.id) {
            call.1 = since;
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        state.calls.retain(|(id, _)| *id != self.id);
        state.idle_since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_not_used_any_more_is_told_from_one_that_is() {
        let activity = Activity::new();
        let overdue = |activity: &Activity| activity.overdue(Instant::now());
        assert_eq!(overdue(&activity), None);
        tokio::time::advance(FIRST_CALL_WITHIN).await;
        assert_eq!(overdue(&activity), Some(Overdue::Silent));
        let (call, other) = (activity.begin(), activity.begin());
        tokio::time::advance(IDLE * 2).await;
        assert_eq!(overdue(&activity), None, "calls may last");
        call.gave();
        tokio::time::advance(UNREAD / 2).await;
        call.is_asked();
        call.gave();
        tokio::time::advance(UNREAD / 2).await;
        assert_eq!(overdue(&activity), None, "it is taken slowly");
        tokio::time::advance(UNREAD / 2).await;
        assert_eq!(overdue(&activity), Some(Overdue::Unread));
        drop((call, other));
        assert_eq!(overdue(&activity), None);
        tokio::time::advance(IDLE).await;
        assert_eq!(overdue(&activity), Some(Overdue::Idle));
    }
}
