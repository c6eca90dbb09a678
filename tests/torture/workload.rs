//! Clients that read and write a few keys at a time and take down what they were told.
//!
//! A key is used for some hundred operations and then left, so that its history stays short enough
//! to be checked. Every value written is unique.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use keyviz_proto::kv_client::KvClient;
use keyviz_proto::{self as proto, Consistency};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::linear::{Event, Op, Outcome, Value};

/// Keys in use at a time.
const ACTIVE_KEYS: usize = 5;

/// A key is left after so many operations, or so many of unknown outcome.
const KEY_OPERATIONS: usize = 600;
const KEY_UNKNOWN: usize = 12;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// Longest time a client waits before its next operation.
const THINK_MS: u64 = 8;

/// What the clients have in common.
pub struct Workload {
    began: Instant,
    stop: AtomicBool,
    next_value: AtomicU64,
    keys: Mutex<Keys>,
    /// Where the members are to be asked.
    nodes: Mutex<Vec<String>>,
    pub tally: Mutex<Tally>,
}

#[derive(Default)]
struct Keys {
    histories: BTreeMap<String, Vec<Event>>,
    active: Vec<Active>,
}

struct Active {
    key: String,
    operations: usize,
    unknown: usize,
    /// What the key held lately, for a compare-and-swap to have a chance.
    seen: Option<Value>,
}

/// Operations by kind and outcome.
#[derive(Default, Clone, Debug)]
pub struct Tally {
    /// When each acknowledged write was acknowledged, in microseconds.
    pub write_acks: Vec<u64>,
    /// When each read was answered.
    pub read_acks: Vec<u64>,
    /// Writes that may or may not have happened.
    pub unknown_writes: u64,
    /// Reads that may or may not have been served.
    pub unknown_reads: u64,
    /// Operations that certainly did not happen.
    pub refused: u64,
}

/// An operation that a client is about to send.
struct Task {
    slot: usize,
    key: String,
    op: Op,
    lease: bool,
}

impl Workload {
    pub fn new(nodes: &[String]) -> Arc<Self> {
        let mut keys = Keys::default();
        (0..ACTIVE_KEYS).for_each(|_| keys.open());
        Arc::new(Workload {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            next_value: AtomicU64::new(1),
            keys: Mutex::new(keys),
            nodes: Mutex::new(nodes.to_vec()),
            tally: Mutex::default(),
        })
    }

    /// Microseconds since the beginning.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).expect("a run is shorter than that")
    }

    /// From now on member `at` is to be asked elsewhere.
    pub fn set_node(&self, at: usize, address: &str) {
        address.clone_into(&mut self.nodes.lock().expect("no panic under it")[at]);
    }

    /// Where the members are to be asked now.
    pub fn nodes(&self) -> Vec<String> {
        self.nodes.lock().expect("no panic under it").clone()
    }

    /// Lets the clients end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the clients are to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The histories of all keys.
    pub fn histories(&self) -> BTreeMap<String, Vec<Event>> {
        self.keys().histories.clone()
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().expect("no panic under it")
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no panic under it")
    }

    fn pick(&self, rng: &mut StdRng) -> Task {
        let slot = rng.random_range(0..ACTIVE_KEYS);
        let mut keys = self.keys();
        let active = &mut keys.active[slot];
        active.operations += 1;
        let value = self.next_value.fetch_add(1, Ordering::Relaxed);
        let op = match rng.random_range(0..100) {
            0..42 => Op::Get,
            42..70 => Op::Put(value),
            70..92 => Op::Cas { expected: active.seen, new: rng.random_bool(0.9).then_some(value) },
            _ => Op::Delete,
        };
        Task { slot, key: active.key.clone(), op, lease: rng.random_bool(0.3) }
    }

    fn note(&self, task: &Task, event: Event) {
        let mut keys = self.keys();
        keys.histories.entry(task.key.clone()).or_default().push(event);
        let unknown = event.outcome == Outcome::Unknown;
        let active = &mut keys.active[task.slot];
        if active.key == task.key {
            active.unknown += usize::from(unknown);
            match (event.op, event.outcome) {
                (_, Outcome::Found(found)) => active.seen = found,
                (Op::Put(value), Outcome::Done) => active.seen = Some(value),
                (Op::Cas { new, .. }, Outcome::Swapped) => active.seen = new,
                (_, Outcome::Deleted { .. }) => active.seen = None,
                _ => {}
            }
            if active.operations >= KEY_OPERATIONS || active.unknown >= KEY_UNKNOWN {
                keys.active.remove(task.slot);
                keys.open();
                let last = keys.active.len() - 1;
                keys.active.swap(task.slot, last);
            }
        }
        drop(keys);
        let mut tally = self.tally();
        match (event.op, unknown) {
            (Op::Get, _) => tally.read_acks.push(event.end),
            (_, false) => tally.write_acks.push(event.end),
            (_, true) => tally.unknown_writes += 1,
        }
    }

    /// Reads every key once more, however long it takes: what was acknowledged must be there.
    pub async fn read_all(self: &Arc<Self>) {
        let nodes = self.nodes().len();
        let keys: Vec<String> = self.keys().histories.keys().cloned().collect();
        for (at, key) in keys.into_iter().enumerate() {
            let task = Task { slot: 0, key, op: Op::Get, lease: false };
            let mut client = Client::new(self.clone(), usize::MAX, 0);
            let deadline = Instant::now() + crate::support::PATIENCE;
            while !client.perform(&task, at % nodes).await {
                assert!(Instant::now() < deadline, "{} cannot be read at the end", task.key);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Keys {
    fn open(&mut self) {
        // Over the whole key space, so that all routes and groups have some.
        let at = self.histories.len();
        let letter = char::from(b'a' + (at * 7 % 26) as u8);
        let key = format!("{letter}/{at:06}");
        self.histories.insert(key.clone(), Vec::new());
        self.active.push(Active { key, operations: 0, unknown: 0, seen: None });
    }
}

/// One client: one operation at a time, each at some node.
pub struct Client {
    workload: Arc<Workload>,
    /// One a member, with the address that it leads to.
    stubs: Vec<(String, KvClient<Channel>)>,
    id: usize,
    rng: StdRng,
}

impl Client {
    pub fn new(workload: Arc<Workload>, id: usize, seed: u64) -> Self {
        // A stream of its own for each client (Weyl's sequence).
        let own =
            seed.wrapping_add((id as u64).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let stubs = workload.nodes().into_iter().map(stub).collect();
        Client { workload, stubs, id, rng: StdRng::seed_from_u64(own) }
    }

    pub async fn run(mut self) {
        while !self.workload.stop.load(Ordering::Relaxed) {
            let task = self.workload.pick(&mut self.rng);
            let node = self.rng.random_range(0..self.stubs.len());
            let think = Duration::from_micros(self.rng.random_range(0..THINK_MS * 1_000));
            let answered = self.perform(&task, node).await;
            // A node that is down refuses at once: do not spin.
            let pause = if answered { think } else { think * 8 };
            tokio::time::sleep(pause).await;
        }
    }

    /// The connection to member `node`, where that is now.
    fn stub(&mut self, node: usize) -> &mut KvClient<Channel> {
        let address = self.workload.nodes().swap_remove(node);
        if self.stubs[node].0 != address {
            self.stubs[node] = stub(address);
        }
        &mut self.stubs[node].1
    }

    /// Performs an operation once and takes it down. False: it certainly did not happen.
    async fn perform(&mut self, task: &Task, node: usize) -> bool {
        let start = self.workload.now();
        let call = send(self.stub(node), task);
        let answer = match tokio::time::timeout(PATIENCE, call).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded("the client gave up")),
        };
        let end = self.workload.now();
        let outcome = match answer {
            Ok(outcome) => outcome,
            Err(status) if certainly_not_done(&status) => {
                self.workload.tally().refused += 1;
                return false;
            }
            Err(_) if task.op == Op::Get => {
                self.workload.tally().unknown_reads += 1;
                return false;
            }
            Err(_) => Outcome::Unknown,
        };
        self.workload.note(task, Event { client: self.id, op: task.op, outcome, start, end });
        outcome != Outcome::Unknown
    }
}

fn stub(address: String) -> (String, KvClient<Channel>) {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.expect("a bound address is one");
    (address, KvClient::new(endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy()))
}

/// The server says so, or there was no connection to send it over.
fn certainly_not_done(status: &Status) -> bool {
    if let Some(said) = status.metadata().get(keyviz_proto::metadata::NOT_APPLIED_METADATA) {
        return said == "true";
    }
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    assert_ne!(status.code(), Code::InvalidArgument, "the workload is valid: {status}");
    false
}

async fn send(stub: &mut KvClient<Channel>, task: &Task) -> Result<Outcome, Status> {
    let key = Bytes::from(task.key.clone());
    match task.op {
        Op::Get => {
            let consistency = match task.lease {
                true => Consistency::Lease,
                false => Consistency::Linearizable,
            };
            let request = proto::GetRequest { key, consistency: consistency.into() };
            let found = stub.get(request).await?.into_inner().value;
            Ok(Outcome::Found(found.as_deref().map(decode)))
        }
        Op::Put(value) => {
            stub.put(proto::PutRequest { key, value: encode(value) }).await?;
            Ok(Outcome::Done)
        }
        Op::Delete => {
            let response = stub.delete(proto::DeleteRequest { key }).await?.into_inner();
            Ok(Outcome::Deleted { existed: response.existed })
        }
        Op::Cas { expected, new } => {
            let (expected, value) = (expected.map(encode), new.map(encode));
            let request = proto::CompareAndSwapRequest { key, expected, value };
            let response = stub.compare_and_swap(request).await?.into_inner();
            Ok(match response.swapped {
                true => Outcome::Swapped,
                false => Outcome::Found(response.actual.as_deref().map(decode)),
            })
        }
    }
}

/// A value as it is stored: its number, then filling that follows from it; one in two hundred is
/// so long that the store cuts it into parts.
fn encode(value: Value) -> Bytes {
    let bytes = if value.is_multiple_of(200) { 40_000 } else { 24 + (value * 31 % 180) as usize };
    let mut stored = format!("{value:020}").into_bytes();
    stored.resize(bytes, (value % 251) as u8);
    stored.into()
}

fn decode(stored: &[u8]) -> Value {
    let number = stored.get(..20).and_then(|digits| std::str::from_utf8(digits).ok());
    let value = number.and_then(|digits| digits.parse().ok());
    let value =
        value.unwrap_or_else(|| panic!("nobody wrote {:?}", Bytes::copy_from_slice(stored)));
    assert!(encode(value) == stored, "value {value} came back with other bytes than were written");
    value
}
