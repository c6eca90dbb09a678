//! The connections of callers, the calls on each, and which connections are closed.
//!
//! A connection uses a file descriptor, and an answer that its caller does not read holds memory. A
//! connection without progress is therefore closed:
//!
//! | connection | is closed |
//! |---|---|
//! | without a first request | after [`FIRST_REQUEST_WITHIN`] |
//! | without a call in progress | [`IDLE_WITHIN`] after the last one |
//! | with an answer that waits to be read, and no progress | after [`IDLE_WITHIN`] |
//!
//! If other calls on it make progress, as behind a proxy, only the answers that have waited that
//! long are dropped. A call whose answer has nothing to send yet, such as a watch, may last.
//! (HTTP/2 pings detect whether the other end still exists.)
//!
//! Some descriptors are reserved for the node itself. If callers hold all others, the connection
//! that has been without progress for longest is closed in favour of a new one, so that a peer,
//! which is never idle for long, always gets in. If all make progress, the new one is closed.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The first request of a connection must arrive within this time.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(30);

/// A connection without progress is kept this long.
const IDLE_WITHIN: Duration = Duration::from_secs(300);

/// The interval between checks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Descriptors reserved for files, for connections to other nodes and for listeners; half of all if
/// there are few.
const RESERVE: u64 = 256;

/// The kind of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// gRPC, which requests a certificate from callers.
    Grpc,
    /// HTTP, which does not.
    Http,
}

/// All connections of callers. Clones share them.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    open: Mutex<HashMap<u64, Arc<Activity>>>,
    most: usize,
    next: AtomicU64,
    closed_idle: AtomicU64,
    turned_away: AtomicU64,
    taken: AtomicU64,
    unread: AtomicU64,
}

/// The state of one connection.
pub(super) struct Activity {
    edge: Protocol,
    state: Mutex<State>,
    close: CancellationToken,
}

struct State {
    /// When something moved last.
    moved: Instant,
    /// Calls that were begun so far, which number them.
    begun: u64,
    calls: BTreeMap<u64, Call>,
}

/// A call under way.
#[derive(Default)]
struct Call {
    /// Since when a part of its answer waits to be read.
    waits: Option<Instant>,
    give_up: Option<GiveUp>,
}

/// Frees what an answer holds.
type GiveUp = Box<dyn FnOnce() + Send>;

/// One number of each kind, for the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectionCounts {
    /// Open to the port of gRPC.
    pub grpc: u64,
    /// Open to the port of HTTP.
    pub http: u64,
    /// Taken since the node started.
    pub taken: u64,
    /// Closed because they were idle.
    pub closed_idle: u64,
    /// Closed at once because there were too many.
    pub turned_away: u64,
    /// Answers that were dropped because their clients did not read them.
    pub unread: u64,
}

impl Default for Connections {
    /// As many as the limit of open files leaves.
    fn default() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let most = limit.map_or(u64::MAX, |limit| limit - RESERVE.min(limit / 2));
        Connections::of(usize::try_from(most).unwrap_or(usize::MAX))
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connections").field(&self.counts()).finish()
    }
}

impl Connections {
    /// At most `most` connections.
    pub fn of(most: usize) -> Self {
        let inner = Inner {
            open: Mutex::default(),
            most,
            next: AtomicU64::new(0),
            closed_idle: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            unread: AtomicU64::new(0),
        };
        Connections(Arc::new(inner))
    }

    /// The numbers now.
    pub fn counts(&self) -> ConnectionCounts {
        // Relaxed, as all counts here: nothing else depends on them.
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (grpc, all) = {
            let open = self.0.open.lock();
            let grpc = open.values().filter(|activity| activity.edge == Protocol::Grpc).count();
            (grpc as u64, open.len() as u64)
        };
        ConnectionCounts {
            grpc,
            http: all - grpc,
            taken: read(&self.0.taken),
            closed_idle: read(&self.0.closed_idle),
            turned_away: read(&self.0.turned_away),
            unread: read(&self.0.unread),
        }
    }

    /// Enters a connection; `None`: there are too many, and none of them is idle.
    pub(super) fn enter(&self, edge: Protocol) -> Option<Entry> {
        let activity = Activity::new(edge);
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.0.open.lock();
        if open.len() >= self.0.most {
            let idle = open.iter().filter_map(|(id, one)| Some((one.idle_since()?, *id)));
            let Some((_, longest)) = idle.min() else {
                self.0.turned_away.fetch_add(1, Ordering::Relaxed);
                return None;
            };
            self.close(&mut open, longest);
        }
        open.insert(id, Arc::clone(&activity));
        self.0.taken.fetch_add(1, Ordering::Relaxed);
        drop(open);
        let closed = Box::pin(activity.close.clone().cancelled_owned());
        Some(Entry { all: self.clone(), id, activity, closed })
    }

    fn close(&self, open: &mut HashMap<u64, Arc<Activity>>, id: u64) {
        if let Some(activity) = open.remove(&id) {
            activity.close.cancel();
            self.0.closed_idle.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends that on which nothing moves, until stopped.
    pub async fn watch(self, stop: CancellationToken) {
        while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
            self.end_idle();
        }
    }

    fn end_idle(&self) {
        let unread: Vec<GiveUp> = {
            let mut open = self.0.open.lock();
            let late = open.iter().filter(|(_, activity)| activity.is_late()).map(|(id, _)| *id);
            for id in late.collect::<Vec<_>>() {
                self.close(&mut open, id);
            }
            open.values().flat_map(|activity| activity.unread()).collect()
        };
        self.0.unread.fetch_add(unread.len() as u64, Ordering::Relaxed);
        // Without a lock: what is freed may end other things.
        unread.into_iter().for_each(|give_up| give_up());
    }
}

impl Activity {
    fn new(edge: Protocol) -> Arc<Self> {
        let state = State { moved: Instant::now(), begun: 0, calls: BTreeMap::new() };
        Arc::new(Activity { edge, state: Mutex::new(state), close: CancellationToken::new() })
    }

    /// Since when nothing moves, if it may make room for another; `None`: something is under way. A
    /// request that begins at this moment may lose its connection, as one that comes a moment later
    /// does.
    fn idle_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        let stands = |call: &Call| call.waits_for(FIRST_REQUEST_WITHIN);
        state.calls.values().all(stands).then_some(state.moved)
    }

    fn is_late(&self) -> bool {
        let state = self.state.lock();
        let limit = if state.begun > 0 { IDLE_WITHIN } else { FIRST_REQUEST_WITHIN };
        let unread = || state.calls.values().any(|call| call.waits_for(IDLE_WITHIN));
        state.moved.elapsed() >= limit && (state.calls.is_empty() || unread())
    }

    /// The functions that drop answers which are not read.
    fn unread(&self) -> Vec<GiveUp> {
        let mut state = self.state.lock();
        let late = state.calls.values_mut().filter(|call| call.waits_for(IDLE_WITHIN));
        late.filter_map(|call| call.give_up.take()).collect()
    }

    fn begin(self: &Arc<Self>) -> UnderWay {
        let mut state = self.state.lock();
        state.begun += 1;
        state.moved = Instant::now();
        let id = state.begun;
        state.calls.insert(id, Call::default());
        UnderWay { activity: Arc::clone(self), id }
    }
}

impl Call {
    fn waits_for(&self, time: Duration) -> bool {
        self.waits.is_some_and(|since| since.elapsed() >= time)
    }
}

/// One connection's place; given back when it is dropped.
pub(super) struct Entry {
    all: Connections,
    id: u64,
    activity: Arc<Activity>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Entry {
    /// Ready once the connection is to end; the task is woken then.
    pub(super) fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.closed.as_mut().poll(context)
    }

    pub(super) fn handle(&self) -> ConnectionHandle {
        ConnectionHandle(Arc::clone(&self.activity))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.all.0.open.lock().remove(&self.id);
    }
}

/// The connection that a request came by.
#[derive(Clone)]
pub struct ConnectionHandle(Arc<Activity>);

impl std::fmt::Debug for ConnectionHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConnectionHandle")
    }
}

/// That of no connection.
impl Default for ConnectionHandle {
    fn default() -> Self {
        ConnectionHandle(Activity::new(Protocol::Grpc))
    }
}

impl ConnectionHandle {
    /// A request is under way until the value is dropped.
    pub fn begin(&self) -> UnderWay {
        self.0.begin()
    }
}

/// A request under way, until it is dropped.
pub struct UnderWay {
    activity: Arc<Activity>,
    id: u64,
}

impl std::fmt::Debug for UnderWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("UnderWay").field(&self.id).finish()
    }
}

impl UnderWay {
    /// Registers the function that frees the answer if it is not read.
    pub fn unless_taken(&self, give_up: impl FnOnce() + Send + 'static) {
        if let Some(call) = self.activity.state.lock().calls.get_mut(&self.id) {
            call.give_up = Some(Box::new(give_up));
        }
    }

    /// A part of the answer waits to be read; the parts before it were.
    pub fn gave(&self) {
        self.moved(Some);
    }

    /// All that there is of the answer so far is taken.
    pub fn taken(&self) {
        self.moved(|_| None);
    }

    fn moved(&self, waits: impl FnOnce(Instant) -> Option<Instant>) {
        let now = Instant::now();
        let mut state = self.activity.state.lock();
        state.moved = now;
        if let Some(call) = state.calls.get_mut(&self.id) {
            call.waits = waits(now);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.activity.state.lock();
        state.moved = Instant::now();
        let call = state.calls.remove(&self.id);
        drop(state);
        // Without the lock: it may hold anything.
        drop(call);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn is_closed(entry: &mut Entry) -> bool {
        std::future::poll_fn(|context| entry.poll_closed(context)).now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_the_connection_that_is_idle_for_longest_makes_room_and_a_busy_one_never() {
        let connections = Connections::of(2);
        let mut first = connections.enter(Protocol::Grpc).expect("there is room");
        tokio::time::advance(Duration::from_secs(1)).await;
        let mut second = connections.enter(Protocol::Http).expect("there is room");
        let busy = first.handle().begin();
        let mut third = connections.enter(Protocol::Grpc).expect("the second is idle");
        assert!(is_closed(&mut second) && !is_closed(&mut first) && !is_closed(&mut third));
        let _also_busy = third.handle().begin();
        assert!(connections.enter(Protocol::Grpc).is_none(), "nobody is idle");
        drop(busy);
        assert!(connections.enter(Protocol::Grpc).is_some(), "the first is idle now");
        assert!(is_closed(&mut first));
        let counts = connections.counts();
        assert_eq!((counts.taken, counts.closed_idle, counts.turned_away), (4, 2, 1));
        drop((first, second, third));
        assert_eq!((connections.counts().grpc, connections.counts().http), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_asks_nothing_ends_and_one_with_a_request_under_way_does_not() {
        let connections = Connections::of(10);
        let enter = || connections.enter(Protocol::Grpc).expect("there is room");
        let (mut silent, mut idle, mut busy) = (enter(), enter(), enter());
        drop(idle.handle().begin());
        let under_way = busy.handle().begin();
        tokio::time::advance(FIRST_REQUEST_WITHIN).await;
        connections.end_idle();
        assert!(is_closed(&mut silent) && !is_closed(&mut idle) && !is_closed(&mut busy));
        tokio::time::advance(IDLE_WITHIN).await;
        connections.end_idle();
        assert!(is_closed(&mut idle) && !is_closed(&mut busy));
        drop(under_way);
        connections.end_idle();
        assert!(!is_closed(&mut busy), "its last request has just ended");
        tokio::time::advance(IDLE_WITHIN).await;
        connections.end_idle();
        assert!(is_closed(&mut busy));
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_an_answer_that_nobody_takes_ends_its_connection_unless_others_move_on_it() {
        let connections = Connections::of(10);
        let enter = || connections.enter(Protocol::Grpc).expect("there is room");
        let (mut unread, mut shared, mut watched) = (enter(), enter(), enter());
        let begin = |entry: &Entry| {
            let call = entry.handle().begin();
            call.gave();
            let freed = CancellationToken::new();
            let free = freed.clone();
            call.unless_taken(move || free.cancel());
            (call, freed)
        };
        let _alone = begin(&unread);
        let (_stuck, freed) = begin(&shared);
        let moves = shared.handle().begin();
        let watch = watched.handle().begin();
        watch.gave();
        watch.taken();
        for _ in 0..31 {
            tokio::time::advance(IDLE_WITHIN / 30).await;
            moves.gave();
            connections.end_idle();
        }
        assert!(is_closed(&mut unread), "nothing moved on it");
        assert!(!is_closed(&mut shared) && freed.is_cancelled(), "only the answer is given up");
        assert!(!is_closed(&mut watched), "there is nothing to take");
        assert_eq!((connections.counts().closed_idle, connections.counts().unread), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_where_there_are_no_more_an_answer_that_stands_makes_room() {
        let connections = Connections::of(1);
        let mut first = connections.enter(Protocol::Grpc).expect("there is room");
        let call = first.handle().begin();
        call.gave();
        tokio::time::advance(FIRST_REQUEST_WITHIN / 2).await;
        assert!(connections.enter(Protocol::Grpc).is_none(), "it may be taken yet");
        tokio::time::advance(FIRST_REQUEST_WITHIN / 2).await;
        assert!(connections.enter(Protocol::Grpc).is_some());
        assert!(is_closed(&mut first));
    }
}
