//! Clients that read and write a few keys and record the answers, on a runtime of their own, and an
//! operator that splits and merges routes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::host::Parts;
use super::linear::{Event, Op, Outcome, Value};
use super::net::{Answer, Endpoint, Net};
use super::world::mix;
use keyviz_catalog::{CatalogCommand, MoveCommand};
use keyviz_kv::{CasOutcome, Consistency, KvError, KvWrite};
use keyviz_types::GroupId;

pub(super) const CLIENTS: u64 = 10;

/// Clients from this one on only read: a write to a leader that is cut off holds a client up for so
/// long that nobody would be left to see what such a leader answers to reads.
const READERS_FROM: u64 = 6;

/// Clients before this one stay at one host each: those that go about are all held up by a leader
/// that is cut off before another is elected, and then nobody writes what such a leader does not
/// know.
const AT_HOME_UNTIL: u64 = 3;

/// Keys in use at a time, half of them in each group.
const ACTIVE_KEYS: usize = 6;

/// A key is left after so many operations, or so many of unknown outcome.
const KEY_OPERATIONS: usize = 300;
const KEY_UNKNOWN: usize = 8;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(3_000);

const AS_CLIENT: Endpoint = Endpoint { host: 0, life: 0 };
const CLIENT_STREAM: u64 = 0x1_0000;
const OPERATOR_STREAM: u64 = 0x2_0000;

/// State shared by the clients.
#[derive(Clone)]
pub(super) struct Workload {
    pub(super) net: Net,
    hosts: u64,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    stop: bool,
    next_value: Value,
    histories: BTreeMap<String, Vec<Event>>,
    active: Vec<Active>,
    tally: Tally,
}

struct Active {
    key: String,
    operations: usize,
    unknown: usize,
    seen: Option<Value>,
}

/// Operations by kind and outcome.
#[derive(Clone, Default, Debug)]
pub(super) struct Tally {
    /// When each acknowledged write of a key was acknowledged.
    pub(super) write_acks: Vec<u64>,
    /// When each read was answered.
    pub(super) read_acks: Vec<u64>,
    pub(super) unknown_writes: u64,
    pub(super) refused: u64,
    pub(super) changes: u64,
}

/// What a client asks for: one operation, or a batch of puts in one group.
#[derive(Clone)]
enum Task {
    One { slot: usize, key: String, op: Op, lease: bool },
    Batch(Vec<(usize, String, Value)>),
}

impl Workload {
    pub(super) fn new(net: Net, hosts: u64) -> Self {
        let mut shared = Shared { next_value: 1, ..Shared::default() };
        (0..ACTIVE_KEYS).for_each(|slot| shared.open(slot));
        Workload { net, hosts, shared: Arc::new(Mutex::new(shared)) }
    }

    /// Lets the clients end.
    pub(super) fn stop(&self) {
        self.shared.lock().stop = true;
    }

    fn stopped(&self) -> bool {
        self.shared.lock().stop
    }

    pub(super) fn histories(&self) -> BTreeMap<String, Vec<Event>> {
        self.shared.lock().histories.clone()
    }

    pub(super) fn tally(&self) -> Tally {
        self.shared.lock().tally.clone()
    }

    /// One client, until stopped.
    pub(super) async fn client(self, id: u64, seed: u64) {
        let mut rng = StdRng::seed_from_u64(mix(seed ^ mix(id + 1)));
        while !self.stopped() {
            let mut task = self.shared.lock().pick(&mut rng);
            if id >= READERS_FROM {
                let Task::One { op, lease, .. } = &mut task else { continue };
                (*op, *lease) = (Op::Get, true);
            }
            let anywhere = rng.random_range(1..=self.hosts);
            let host = if id < AT_HOME_UNTIL { 1 + id % self.hosts } else { anywhere };
            let think = rng.random_range(0..24);
            let done = self.perform(id, &task, host).await;
            // A host that is down refuses at once: do not spin.
            tokio::time::sleep(Duration::from_millis(if done { think } else { 20 + think })).await;
        }
    }

    /// Splits routes at keys in use and merges neighbours, until stopped.
    pub(super) async fn operator(self, seed: u64) {
        let mut rng = StdRng::seed_from_u64(mix(seed ^ 0x0BE7));
        let mut number = 0;
        while !self.stopped() {
            tokio::time::sleep(Duration::from_millis(rng.random_range(200..900))).await;
            number += 1;
            let (choice, host) = (rng.random::<u64>(), rng.random_range(1..=self.hosts));
            let answer = self.net.call(AS_CLIENT, host, OPERATOR_STREAM, move |parts: Parts| {
                async move {
                    if choice % 5 < 2 {
                        let Some(command) = movement(&parts, choice, number) else { return false };
                        return parts.changes.change_move(&command, PATIENCE / 2).await.is_ok();
                    }
                    let Some(command) = change(&parts, choice, number) else { return false };
                    parts.changes.change(&command, PATIENCE / 2).await.is_ok()
                }
                .boxed()
            });
            let answer = tokio::time::timeout(PATIENCE, answer).await;
            if let Ok(Ok(Answer::Answered(true))) = answer {
                self.shared.lock().tally.changes += 1;
            }
        }
    }

    /// Reads every key once at `host`. An error: the first that cannot be read.
    pub(super) async fn read_all(self, host: u64) -> Result<(), String> {
        let keys: Vec<String> = self.shared.lock().histories.keys().cloned().collect();
        for key in keys {
            let task = Task::One { slot: usize::MAX, key: key.clone(), op: Op::Get, lease: false };
            if !self.perform(CLIENTS + host, &task, host).await {
                return Err(key);
            }
        }
        Ok(())
    }

    /// Performs a task once and takes it down. False: it certainly did not happen, or the outcome
    /// is unknown.
    async fn perform(&self, client: u64, task: &Task, host: u64) -> bool {
        let start = self.net.now_ms();
        let sent = task.clone();
        let answer = self.net.call(AS_CLIENT, host, CLIENT_STREAM + client, move |parts: Parts| {
            serve(parts, sent.clone()).boxed()
        });
        let answer = match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(Answer::Answered(Ok(outcome)))) => Some(outcome),
            Ok(Ok(Answer::Answered(Err(error)))) if error.not_applied() => None,
            Ok(Ok(Answer::Refused)) => None,
            Ok(Ok(Answer::Answered(Err(_))) | Err(_)) | Err(_) => Some(Outcome::Unknown),
        };
        let end = self.net.now_ms();
        let mut shared = self.shared.lock();
        let Some(outcome) = answer else {
            shared.tally.refused += 1;
            return false;
        };
        let event = |op| Event { client: client as usize, op, outcome, start, end };
        match task {
            Task::One { op: Op::Get, .. } if outcome == Outcome::Unknown => return false,
            Task::One { slot, key, op, .. } => shared.note(*slot, key, event(*op), &self.net),
            Task::Batch(puts) => {
                for (slot, key, value) in puts {
                    shared.note(*slot, key, event(Op::Put(*value)), &self.net);
                }
            }
        }
        outcome != Outcome::Unknown
    }
}

impl Shared {
    /// The next key of a slot: slots of even number are in the first group, others in the second.
    fn open(&mut self, slot: usize) {
        let at = self.histories.len();
        let letter = char::from(if slot.is_multiple_of(2) { b'a' } else { b'n' } + (at % 12) as u8);
        let key = format!("{letter}/{at:04}");
        self.histories.insert(key.clone(), Vec::new());
        let active = Active { key, operations: 0, unknown: 0, seen: None };
        if slot < self.active.len() {
            self.active[slot] = active;
        } else {
            self.active.push(active);
        }
    }

    fn value(&mut self) -> Value {
        self.next_value += 1;
        self.next_value
    }

    fn pick(&mut self, rng: &mut StdRng) -> Task {
        let slot = rng.random_range(0..ACTIVE_KEYS);
        let value = self.value();
        let kind = rng.random_range(0..100);
        if kind >= 92 {
            let other = (slot + 2) % ACTIVE_KEYS;
            let second = self.value();
            return Task::Batch(vec![
                (slot, self.active[slot].key.clone(), value),
                (other, self.active[other].key.clone(), second),
            ]);
        }
        let active = &mut self.active[slot];
        active.operations += 1;
        let op = match kind {
            0..40 => Op::Get,
            40..60 => Op::Put(value),
            60..84 => Op::Cas { expected: active.seen, new: rng.random_bool(0.9).then_some(value) },
            _ => Op::Delete,
        };
        Task::One { slot, key: active.key.clone(), op, lease: rng.random_bool(0.4) }
    }

    fn note(&mut self, slot: usize, key: &str, event: Event, net: &Net) {
        let (outcome, value) = match event.outcome {
            Outcome::Done => (0, 0),
            Outcome::Found(found) => (1, found.unwrap_or(0)),
            Outcome::Deleted { existed } => (2, u64::from(existed)),
            Outcome::Swapped => (3, 0),
            Outcome::Unknown => (4, 0),
        };
        net.note(&[event.client as u64, event.start, outcome, value]);
        self.histories.entry(key.to_owned()).or_default().push(event);
        let unknown = event.outcome == Outcome::Unknown;
        match event.op {
            Op::Get => self.tally.read_acks.push(event.end),
            _ if unknown => self.tally.unknown_writes += 1,
            _ => self.tally.write_acks.push(event.end),
        }
        let Some(active) = self.active.get_mut(slot).filter(|active| active.key == key) else {
            return;
        };
        active.unknown += usize::from(unknown);
        match (event.op, event.outcome) {
            (_, Outcome::Found(found)) => active.seen = found,
            (Op::Put(value), Outcome::Done) => active.seen = Some(value),
            (Op::Cas { new, .. }, Outcome::Swapped) => active.seen = new,
            (_, Outcome::Deleted { .. }) => active.seen = None,
            _ => {}
        }
        if active.operations >= KEY_OPERATIONS || active.unknown >= KEY_UNKNOWN {
            self.open(slot);
        }
    }
}

/// A change of the routes as the catalog at hand allows it.
fn change(parts: &Parts, choice: u64, number: u64) -> Option<CatalogCommand> {
    let table = parts.changes.applied().table();
    let at = usize::try_from(mix(choice) % (table.len().max(1) as u64)).ok()?;
    let route = table.get(at)?;
    let request_id = format!("change {number}");
    if choice.is_multiple_of(2) || table.len() < 3 {
        let letter = b'a' + (mix(choice ^ 1) % 26) as u8;
        let key = format!("{}/{:02}", char::from(letter), mix(choice ^ 2) % 100).into_bytes();
        let inside = table.locate(&key)?;
        let route_id = table.get(inside)?.id();
        return Some(CatalogCommand::Split {
            route_id,
            key,
            expected_version: 0,
            request_id,
            time_ms: 0,
        });
    }
    let right = table.get(at + 1)?;
    Some(CatalogCommand::Merge {
        left_id: route.id(),
        right_id: right.id(),
        expected_version: 0,
        request_id,
        time_ms: 0,
    })
}

/// A move of a route to the other group, or the end of one.
fn movement(parts: &Parts, choice: u64, number: u64) -> Option<MoveCommand> {
    let table = parts.changes.applied().table();
    let at = usize::try_from(mix(choice ^ 7) % (table.len().max(1) as u64)).ok()?;
    let route = table.get(at)?;
    if mix(choice ^ 8).is_multiple_of(8) {
        let moves = parts.changes.applied().moves();
        return Some(MoveCommand::Cancel { route_id: moves.under_way().first()?.route_id });
    }
    Some(MoveCommand::Start {
        route_id: route.id(),
        to: GroupId(3 - route.group().0),
        expected_version: 0,
        request_id: format!("move {number}"),
        time_ms: 0,
    })
}

/// The service of a host for a client.
fn serve(parts: Parts, task: Task) -> BoxFuture<'static, Result<Outcome, KvError>> {
    async move {
        let kv = &parts.coordinator;
        match task {
            Task::One { key, op: Op::Get, lease, .. } => {
                let consistency = if lease {
                    let epoch = parts.local.sampler().epoch();
                    let located = epoch.locate(key.as_bytes()).ok_or(KvError::NotReady)?;
                    parts.lease(epoch.route(located).group)
                } else {
                    Consistency::Linearizable
                };
                let found = kv.get(Bytes::from(key), consistency).await?;
                Ok(Outcome::Found(found.as_deref().map(decode)))
            }
            Task::One { key, op: Op::Put(value), .. } => {
                kv.put(key.as_bytes(), &encode(value)).await?;
                Ok(Outcome::Done)
            }
            Task::One { key, op: Op::Delete, .. } => {
                let existed = kv.delete(key.as_bytes()).await?;
                Ok(Outcome::Deleted { existed })
            }
            Task::One { key, op: Op::Cas { expected, new }, .. } => {
                let (expected, new) = (expected.map(encode), new.map(encode));
                let swapped = kv
                    .compare_and_swap(key.as_bytes(), expected.as_deref(), new.as_deref())
                    .await?;
                Ok(match swapped {
                    CasOutcome::Swapped => Outcome::Swapped,
                    CasOutcome::Mismatch(actual) => Outcome::Found(actual.as_deref().map(decode)),
                })
            }
            Task::Batch(puts) => {
                let values: Vec<Bytes> = puts.iter().map(|(_, _, value)| encode(*value)).collect();
                let writes = puts
                    .iter()
                    .zip(&values)
                    .map(|((_, key, _), value)| KvWrite::Put { key: key.as_bytes(), value });
                kv.batch(writes.collect()).await?;
                Ok(Outcome::Done)
            }
        }
    }
    .boxed()
}

/// A value as it is stored: its number, then filling; a few are so long that the store cuts them.
fn encode(value: Value) -> Bytes {
    let bytes = if value.is_multiple_of(150) { 30_000 } else { 20 + (value * 31 % 60) as usize };
    let mut stored = format!("{value:020}").into_bytes();
    stored.resize(bytes, (value % 251) as u8);
    stored.into()
}

fn decode(stored: &[u8]) -> Value {
    let number = stored.get(..20).and_then(|digits| std::str::from_utf8(digits).ok());
    let value = number.and_then(|digits| digits.parse().ok()).unwrap_or(Value::MAX);
    assert!(encode(value) == stored, "value {value} has other bytes than were written");
    value
}
