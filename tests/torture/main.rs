//! Faults on three real processes under load, and the proof that nothing was lost.
//!
//! Sixteen clients put, get (linearizable and by lease), compare-and-swap and delete a few keys, at
//! any node, while processes are killed, paused and restarted, links are cut, one way too, delayed
//! and broken, disks fill up, files are damaged, and folders are emptied or put back from copies.
//! Meanwhile routes move from group to group.
//! Afterwards every key's history must be linearizable, every acknowledged write among them, and
//! the totals of the matrix must lie within what the clients were told.
//!
//! One seed decides the faults and the workload. `cargo test` runs it briefly; longer:
//!
//! ```text
//! KEYVIZ_TORTURE=10m KEYVIZ_SEED=7 cargo test --release --test torture -- --nocapture
//! ```

#![cfg(target_os = "linux")]

mod damage;
mod forgetting;
#[path = "../support/linear.rs"]
mod linear;
mod linear_tests;
mod nemesis;
mod net;
mod operator;
#[path = "../support/record.rs"]
mod record;
mod record_tests;
mod schedule;
#[path = "../support"]
mod support {
    mod clock;
    mod cluster;
    mod commands;
    pub mod disk;
    mod processes;

    pub use clock::{clock_apart, faketime};
    pub use cluster::{Cluster, PATIENCE, eventually, http_answer, is_ready};
    pub use processes::stderr;
}
mod workload;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nemesis::{Clocks, FLOOR_BYTES, Nemesis, Replaced};
use net::Net;
use schedule::Schedule;
use support::{Cluster, PATIENCE};
use workload::{Client, Workload};

const NODES: usize = 3;
const CLIENTS: usize = 16;

/// Members, and the nodes that may replace them in the course of a run.
const MOST_NODES: usize = 32;

const FLAGS: &[&str] = &["--groups", "3", "--split-at", "i,r", "--keyviz-step", "5s"];

/// How long the faults go on in `cargo test`.
const BRIEF: Duration = Duration::from_secs(12);

/// From here on a run may pause a node for half a minute.
const LONG: Duration = Duration::from_secs(180);

/// What the clocks of two nodes differ by at most; in brief runs less, because counts of the one
/// that is ahead show when the others have come there.
const APART: Duration = Duration::from_secs(60);
const BRIEFLY_APART: Duration = Duration::from_secs(6);

/// What a kill may cost: the node's counts since its last checkpoint, taken every second, and what
/// writing it takes on a busy machine.
const CHECKPOINT_US: u64 = 1_000_000 + 500_000;

fn from_environment<T>(name: &str, default: T, parse: impl Fn(&str) -> Option<T>) -> T {
    match std::env::var(name) {
        Ok(text) => parse(&text).unwrap_or_else(|| panic!("{name}={text:?} does not parse")),
        Err(_) => default,
    }
}

/// What runs with every test is the same every time; long runs should bring their own.
const DEFAULT_SEED: u64 = 2;

#[test]
fn no_lost_write_and_linearizable_and_conservation_under_faults() {
    let lasting =
        from_environment("KEYVIZ_TORTURE", BRIEF, |text| humantime::parse_duration(text).ok());
    let seed = from_environment("KEYVIZ_SEED", DEFAULT_SEED, |text| text.parse::<u64>().ok());
    let again = format!(
        "KEYVIZ_TORTURE={} KEYVIZ_SEED={seed} cargo test --release --test torture -- --nocapture",
        humantime::format_duration(lasting)
    );
    println!("torture: seed {seed}; the same again: {again}");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let _entered = runtime.enter();
    let long = lasting >= LONG;
    let apart = if long { APART } else { BRIEFLY_APART };
    let clocks = Clocks::new(seed, apart);
    if clocks.is_none() {
        println!("torture: libfaketime is not installed, so all nodes have the same clock");
    }
    let floor = FLOOR_BYTES.to_string();
    let mut cluster = Cluster::prepare(NODES, &[FLAGS, &["--min-free-bytes", &floor]].concat());
    let net = Net::new(MOST_NODES);
    for node in 0..NODES {
        let target = cluster.grpc[node].clone();
        cluster.advertised[node] = runtime.block_on(net.stand_before(node, &target));
    }
    let workload = Workload::new(&cluster.grpc);
    let mut nemesis = Nemesis {
        runtime: &runtime,
        cluster: &mut cluster,
        net: &net,
        workload: &workload,
        members: (0..NODES).collect(),
        kills: Vec::new(),
        replaced: Vec::new(),
        clocks,
        disks: BTreeMap::new(),
    };
    nemesis.start();

    let clients: Vec<_> = (0..CLIENTS)
        .map(|id| runtime.spawn(Client::new(workload.clone(), id, seed).run()))
        .collect();
    let operator = runtime.spawn(operator::run(workload.clone(), seed));
    let faults = inflict(&mut nemesis, Schedule::new(seed, NODES, long), lasting);
    nemesis.cluster.wait_until_serving();
    workload.stop();
    for client in clients {
        runtime.block_on(client).expect("a client found a value that nobody wrote");
    }
    let moves = runtime.block_on(operator).expect("all moves come to their end");
    runtime.block_on(workload.read_all());
    check_histories(&workload, &again);
    check_counts(&nemesis, apart);
    let tally = workload.tally.lock().expect("no panic under it");
    println!(
        "torture: passed with seed {seed}: {faults} faults, {} kills, {} nodes replaced, \
         {} writes and {} \
         reads acknowledged, {} writes of unknown outcome, {} refused, {} keys, {} routes moved \
         and {} moves abandoned",
        nemesis.kills.len(),
        nemesis.replaced.len(),
        tally.write_acks.len(),
        tally.read_acks.len(),
        tally.unknown_writes,
        tally.refused,
        workload.histories().len(),
        moves.moved,
        moves.abandoned,
    );
}

/// Faults until the time is up; how many.
fn inflict(nemesis: &mut Nemesis<'_>, mut schedule: Schedule, lasting: Duration) -> usize {
    let began = Instant::now();
    let mut faults = 0;
    loop {
        let (quiet, fault) = schedule.next();
        std::thread::sleep(quiet);
        if began.elapsed() >= lasting {
            return faults;
        }
        println!("{:>7.1} s  {fault}", began.elapsed().as_secs_f64());
        nemesis.inflict(&fault);
        faults += 1;
    }
}

fn check_histories(workload: &Workload, again: &str) {
    for (key, history) in workload.histories() {
        if let Err(refusal) = linear::check(&history) {
            let mut events = history;
            events.sort_by_key(|event| event.start);
            events.iter().for_each(|event| println!("{event}"));
            panic!("key {key}: {refusal}\nthe same again: {again}");
        }
    }
}

/// The total once it is what it must be at least. What is counted late is counted when the last
/// proposal has ended, and what a node counted whose clock is ahead shows when the asker's has come
/// there.
fn settled(cluster: &Cluster, node: usize, series: &str, least: u64, apart: Duration) -> u64 {
    let deadline = Instant::now() + apart + PATIENCE;
    loop {
        let total = cluster.total(node, series, &[]);
        if total >= least {
            return total;
        }
        assert!(
            Instant::now() < deadline,
            "{series} at node {}: {total}, and {least} were acknowledged and not at risk",
            node + 1
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Cells that say that counts of theirs may be missing.
fn partial_cells(matrix: &serde_json::Value) -> usize {
    let rows = matrix["rows"].as_array().expect("a matrix has rows");
    rows.iter().filter_map(|row| row["partial"].as_array()).map(Vec::len).sum()
}

/// How many of `acks` came while a count could be lost, or so shortly before that it was not
/// stored.
fn at_risk(acks: &[u64], windows: impl Iterator<Item = (u64, u64)> + Clone) -> u64 {
    let within = |at: u64| windows.clone().any(|(from, to)| at + CHECKPOINT_US >= from && at <= to);
    acks.iter().filter(|at| within(**at)).count() as u64
}

/// Laws 1 and 2 at the level of the cluster. A lease read whose answer was lost on its way between
/// nodes is served again, and counted by both that served it; so reads have no upper bound here.
fn check_counts(nemesis: &Nemesis<'_>, apart: Duration) {
    let (cluster, replaced) = (&*nemesis.cluster, &nemesis.replaced);
    let tally = nemesis.workload.tally.lock().expect("no panic under it").clone();
    let bounds = [
        ("writes", &tally.write_acks, Some(tally.unknown_writes)),
        ("reads", &tally.read_acks, None),
    ];
    for (at, (series, acks, unknown)) in bounds.into_iter().enumerate() {
        let acknowledged = acks.len() as u64;
        // What a node had counted that is no more.
        let gone: u64 = replaced.iter().map(|replaced| replaced.counted[at]).sum();
        let windows = replaced.iter().map(|Replaced { from, to, .. }| (*from, *to));
        let unmarked = gone + at_risk(acks, windows.clone());
        let lost = gone + at_risk(acks, nemesis.kills.iter().copied().chain(windows));
        let least = acknowledged.saturating_sub(lost);
        let most = unknown.map(|unknown| acknowledged + unknown);
        for node in nemesis.members.iter().copied() {
            let total = settled(cluster, node, series, least, apart);
            println!("{series} at node {}: {least} <= {total} (at most {most:?})", node + 1);
            let in_bounds = most.is_none_or(|most| total <= most);
            assert!(in_bounds, "{series} at node {}: {total} is more than {most:?}", node + 1);
            let missing = acknowledged.saturating_sub(total);
            // A member that was removed is not missed; one that was killed says what it lost.
            if series == "writes" && missing > unmarked {
                let marked = partial_cells(&cluster.heat(node, series, &[]));
                assert!(marked > 0, "{missing} writes are missing and no cell says so");
            }
        }
    }
}
