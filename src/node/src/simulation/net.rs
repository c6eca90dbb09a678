//! The network between the hosts, in simulated milliseconds.
//!
//! A message is a closure that the receiving host runs, and its answer travels back the same way.
//! Its delay and fate are a function of the seed, its stream, and its number in that stream: so it
//! does not depend on which of two tasks happened to send first.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::host::Parts;
use super::world::mix;

/// One life of a host. Host 0 stands for the clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Endpoint {
    pub(super) host: u64,
    pub(super) life: u64,
}

/// Streams from this one on carry requests that a connection brings once or not at all; below it
/// are Raft's own, which may come twice.
pub(super) const REQUESTS: u64 = 0x5000;

/// The streams of appends keep several under way.
pub(super) const APPENDS: u64 = 0x1000;

fn is_pipelined(stream: u64) -> bool {
    (APPENDS..0x2000).contains(&stream)
}

/// How soon a sender sees that its connection broke: sooner than any answer.
const BREAKS_AFTER_MS: u64 = 1;

/// The faults of messages from one host to another.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Link {
    /// Everything is lost.
    pub(super) cut: bool,
    /// Longest additional time on the way.
    pub(super) late_ms: u64,
    /// Messages of a thousand that are lost, arrive twice, or overtake others.
    pub(super) lost: u64,
    pub(super) twice: u64,
    pub(super) overtaking: u64,
}

/// The answer to a message.
#[derive(Debug)]
pub(super) enum Answer<R> {
    Answered(R),
    /// The receiver was down: it certainly had no effect.
    Refused,
}

/// The action of a message's receiver.
pub(super) type Work = Box<dyn FnOnce(Parts) -> BoxFuture<'static, ()> + Send>;
type Resolve = Box<dyn FnOnce() + Send>;

/// Something that is due.
pub(super) enum Delivery {
    Request { to: u64, run: Work, refuse: Resolve },
    Reply { to: Endpoint, resolve: Resolve },
}

/// The network. Clones share it.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<Inner>>);

struct Inner {
    now_ms: u64,
    seed: u64,
    links: BTreeMap<(u64, u64), Link>,
    /// By due time, by number in the stream, and by a number that is the message's alone.
    queue: BTreeMap<(u64, u64, u64), Delivery>,
    streams: BTreeMap<(u64, u64, u64), Stream>,
    /// Requests that will never be answered.
    lost: Vec<Resolve>,
    trace: Trace,
    /// Every event, for a test that compares two runs.
    journal: Option<Journal>,
}

/// What happened: when, and the words of the event.
pub(super) type Journal = Vec<(u64, Vec<u64>)>;

#[derive(Default)]
struct Stream {
    sent: u64,
    last_due_ms: u64,
}

/// A running digest of everything that happened.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Trace {
    pub(super) digest: u64,
    pub(super) events: u64,
}

impl Trace {
    /// A sum: what happens within one millisecond has no order, and all else says when it was.
    fn add(&mut self, now_ms: u64, words: &[u64]) {
        let event = words.iter().fold(mix(now_ms), |event, word| mix(event.rotate_left(5) ^ word));
        self.digest = self.digest.wrapping_add(event);
        self.events += 1;
    }
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        Net(Arc::new(Mutex::new(Inner {
            now_ms: 0,
            seed,
            links: BTreeMap::new(),
            queue: BTreeMap::new(),
            streams: BTreeMap::new(),
            lost: Vec::new(),
            trace: Trace::default(),
            journal: None,
        })))
    }

    /// Keeps every event from here on.
    pub(super) fn keep_journal(&self) {
        self.0.lock().journal = Some(Journal::new());
    }

    /// The events kept, in an order that does not depend on which of a millisecond came first.
    pub(super) fn journal(&self) -> Journal {
        let mut journal = self.0.lock().journal.take().unwrap_or_default();
        journal.sort_unstable();
        journal
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.0.lock().now_ms
    }

    /// Lets a millisecond pass and returns the messages that are due.
    pub(super) fn tick(&self) -> Vec<Delivery> {
        let mut inner = self.0.lock();
        inner.now_ms += 1;
        let after = (inner.now_ms + 1, 0, 0);
        let later = inner.queue.split_off(&after);
        std::mem::replace(&mut inner.queue, later).into_values().collect()
    }

    pub(super) fn set_link(&self, from: u64, to: u64, link: Link) {
        self.0.lock().links.insert((from, to), link);
    }

    pub(super) fn heal(&self) {
        self.0.lock().links.clear();
    }

    pub(super) fn trace(&self) -> Trace {
        self.0.lock().trace
    }

    /// Takes something down in the trace.
    pub(super) fn note(&self, words: &[u64]) {
        self.0.lock().note(words);
    }

    /// Sends a message on a stream and returns what to await for its answer, which may never come.
    /// `handle` is run by the receiver, twice where the network doubles the message.
    pub(super) fn call<R: Send + 'static>(
        &self,
        from: Endpoint,
        to: u64,
        stream: u64,
        handle: impl Fn(Parts) -> BoxFuture<'static, R> + Send + Sync + 'static,
    ) -> oneshot::Receiver<Answer<R>> {
        let (answer, answered) = oneshot::channel();
        let handle = Arc::new(handle);
        let mut way = self.0.lock().send(from, to, stream);
        let answer = Mutex::new(Some(answer));
        let answer = Arc::new(Pending { net: self.clone(), to: from, number: way.number, answer });
        if stream >= REQUESTS {
            way.copies = way.copies.min(1);
        }
        for copy in 0..way.copies {
            let refuse = self.resolve(&answer, Answer::Refused, from, way.number);
            let (net, answer, handle) = (self.clone(), Arc::clone(&answer), Arc::clone(&handle));
            let number = way.number;
            let run: Work = Box::new(move |parts| {
                let work = handle(parts);
                Box::pin(async move {
                    let reply = work.await;
                    net.reply(&answer, reply, from, to, number ^ copy);
                })
            });
            let due = (way.due_ms + copy * 7, way.order, way.number ^ copy);
            self.0.lock().queue.insert(due, Delivery::Request { to, run, refuse });
        }
        let refuse = self.resolve(&answer, Answer::Refused, from, way.number);
        let mut inner = self.0.lock();
        if is_pipelined(stream) && (way.overtakes || way.copies == 0 && !way.cut) {
            // A connection never loses or reorders messages: it breaks, and both sides notice.
            // Messages under way may still arrive, but their answers are lost.
            let due = (way.sent_ms + BREAKS_AFTER_MS, way.order, way.number);
            inner.queue.insert(due, Delivery::Reply { to: from, resolve: refuse });
        } else if way.copies == 0 {
            // Kept, so that the waiter gets no answer.
            inner.lost.push(refuse);
        }
        answered
    }

    fn resolve<R: Send + 'static>(
        &self,
        answer: &Arc<Pending<R>>,
        with: Answer<R>,
        to: Endpoint,
        number: u64,
    ) -> Resolve {
        let (net, answer) = (self.clone(), Arc::clone(answer));
        Box::new(move || {
            if let Some(answer) = answer.answer.lock().take() {
                net.note(&[to.host, to.life, number]);
                // The waiter may have given up.
                let _ = answer.send(with);
            }
        })
    }

    fn reply<R: Send + 'static>(
        &self,
        answer: &Arc<Pending<R>>,
        reply: R,
        to: Endpoint,
        from: u64,
        number: u64,
    ) {
        let resolve = self.resolve(answer, Answer::Answered(reply), to, number);
        let mut inner = self.0.lock();
        let way = inner.way(from, to.host, mix(number ^ 0xA05B));
        if way.copies == 0 {
            inner.lost.push(resolve);
            return;
        }
        let due = (inner.now_ms + way.takes_ms, 0, way.number);
        inner.queue.insert(due, Delivery::Reply { to, resolve });
    }
}

/// An answer that a task waits for.
///
/// When a process is killed its tasks are dropped, in an order that no seed decides: Tokio's, which
/// goes by numbers that all threads of the test draw from. So whoever waits for one of them is not
/// told by the drop but by the network, a moment later and in the order of the messages.
struct Pending<R: Send + 'static> {
    net: Net,
    to: Endpoint,
    number: u64,
    answer: Mutex<Option<oneshot::Sender<Answer<R>>>>,
}

impl<R: Send + 'static> Drop for Pending<R> {
    fn drop(&mut self) {
        let Some(answer) = self.answer.get_mut().take() else { return };
        let mut inner = self.net.0.lock();
        let due = (inner.now_ms + BREAKS_AFTER_MS, 0, self.number);
        let resolve: Resolve = Box::new(move || drop(answer));
        inner.queue.insert(due, Delivery::Reply { to: self.to, resolve });
    }
}

/// The fate of one message.
struct Way {
    number: u64,
    order: u64,
    takes_ms: u64,
    sent_ms: u64,
    due_ms: u64,
    copies: u64,
    cut: bool,
    overtakes: bool,
}

impl Inner {
    fn note(&mut self, words: &[u64]) {
        self.trace.add(self.now_ms, words);
        if let Some(journal) = &mut self.journal {
            journal.push((self.now_ms, words.to_vec()));
        }
    }

    fn send(&mut self, from: Endpoint, to: u64, stream: u64) -> Way {
        let at = self.streams.entry((from.host, to, stream)).or_default();
        at.sent += 1;
        let number = [self.seed, from.host, from.life, to, stream, at.sent]
            .into_iter()
            .fold(0, |number, word| mix(number ^ word).wrapping_add(word));
        let mut way = self.way(from.host, to, number);
        let overtakes = mix(number ^ 3) % 1_000 < self.link(from.host, to).overtaking;
        let now_ms = self.now_ms;
        let at = self.streams.entry((from.host, to, stream)).or_default();
        way.due_ms = now_ms + way.takes_ms;
        way.overtakes = overtakes;
        way.sent_ms = now_ms;
        if !overtakes {
            way.due_ms = way.due_ms.max(at.last_due_ms);
            at.last_due_ms = way.due_ms;
        }
        // Of one stream, what was sent first comes first.
        way.order = at.sent;
        self.note(&[from.host, to, stream, way.due_ms, way.copies]);
        way
    }

    fn link(&self, from: u64, to: u64) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or_default()
    }

    fn way(&self, from: u64, to: u64, number: u64) -> Way {
        let link = self.link(from, to);
        let one_of = |salt: u64, of: u64| mix(number ^ mix(salt)) % of;
        let lost = link.cut || one_of(1, 1_000) < link.lost;
        let twice = one_of(2, 1_000) < link.twice;
        let late_ms = if link.late_ms > 0 { one_of(4, link.late_ms) } else { 0 };
        let takes_ms = 1 + one_of(5, 3) + late_ms;
        let copies = if lost { 0 } else { 1 + u64::from(twice) };
        Way {
            number,
            order: 0,
            takes_ms,
            sent_ms: 0,
            due_ms: 0,
            copies,
            cut: link.cut,
            overtakes: false,
        }
    }
}
