//! Hot keys of three real nodes beside a ledger of every write: a skewed load, a key that jumps,
//! routes that split and merge, and a node that is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keyviz_client::{Client, HotKeys, HotKeysQuery, Series};

use crate::support::Cluster;

const STEP_MS: u64 = 2_000;
/// How long the load runs: `KEYVIZ_LEDGER_SECONDS` says otherwise.
const SECONDS: u64 = 24;
/// The hot key is another one so many times.
const JUMPS: u64 = 6;
/// A count goes to the column that was open when it was flushed, which can end a little late.
const SLACK_MS: u64 = 400;
/// A killed node loses what it counted since the checkpoint of the second before, and what it had
/// not flushed.
const LOST_MS: u64 = 2_500;
const KEYS: f64 = 1_000_000.0;

/// A write and the time that it took; one of unknown outcome may have been counted or not.
struct Entry {
    key: String,
    from_ms: u64,
    to_ms: u64,
    certain: bool,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    since.as_millis() as u64
}

/// XorShift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    /// One key of a million, the n-th with a chance of about 1/n.
    fn zipf(&mut self) -> u64 {
        let part = self.below(1 << 40) as f64 / (1u64 << 40) as f64;
        KEYS.powf(part) as u64
    }
}

async fn load(client: Client, seed: u64, length: Duration) -> Vec<Entry> {
    let (began, mut ledger, mut random) = (Instant::now(), Vec::new(), Random(seed));
    while began.elapsed() < length {
        let jump = began.elapsed().as_millis() as u64 * JUMPS / length.as_millis() as u64;
        let key = match random.below(4) {
            0 => format!("jump/{:02}", jump * 17 % 100),
            _ => format!("zipf/{:07}", random.zipf()),
        };
        let from_ms = now_ms();
        let certain = client.put(key.clone(), "v").await.is_ok();
        ledger.push(Entry { key, from_ms, to_ms: now_ms(), certain });
    }
    ledger
}

/// Fewest and most operations of each key in a range and a time.
fn truth(
    ledger: &[Entry],
    range: &[String; 2],
    from: u64,
    to: u64,
) -> BTreeMap<String, (u64, u64)> {
    let mut truth: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let inside = |entry: &&Entry| (&range[0]..&range[1]).contains(&&entry.key);
    for entry in ledger.iter().filter(inside) {
        let within = entry.from_ms >= from + SLACK_MS && entry.to_ms + SLACK_MS < to;
        let touches = entry.to_ms + SLACK_MS >= from && entry.from_ms < to + SLACK_MS;
        let sum = truth.entry(entry.key.clone()).or_default();
        sum.0 += u64::from(within && entry.certain);
        sum.1 += u64::from(touches);
    }
    truth
}

/// Splits and merges until told to stop; how many of each were made.
fn change_routes(cluster: &Cluster, stop: &AtomicBool) -> [u64; 2] {
    let mut made = [0; 2];
    let mut random = Random(991);
    while !stop.load(Ordering::Relaxed) {
        let routes = cluster.run(&["routes", "list", "--format", "json"]);
        let routes: serde_json::Value = serde_json::from_slice(&routes.stdout).unwrap_or_default();
        let Some(routes) = routes["routes"].as_array() else { continue };
        let id = |at: usize| routes[at]["route_id"].to_string();
        let kind = usize::from(routes.len() > 6 && random.below(2) == 0);
        let output = if kind == 1 {
            let at = random.below(routes.len() as u64 - 1) as usize;
            cluster.run(&["routes", "merge", &id(at), &id(at + 1)])
        } else {
            let key = format!("zipf/{:07}", random.zipf());
            let starts = |route: &&serde_json::Value| {
                route["start"].as_str().is_some_and(|start| start <= &*key)
            };
            let Some(route) = routes.iter().rev().find(starts) else { continue };
            cluster.run(&["routes", "split", &route["route_id"].to_string(), &key])
        };
        made[kind] += u64::from(output.status.success());
        std::thread::sleep(Duration::from_millis(150));
    }
    made
}

struct Checked {
    cells: u64,
    keys: u64,
    partial: u64,
    threshold: u64,
}

impl Checked {
    fn cell(
        &mut self,
        hot: &HotKeys,
        truth: &BTreeMap<String, (u64, u64)>,
        lost: &BTreeMap<&str, u64>,
    ) {
        let name = |key: &[u8]| String::from_utf8(key.to_vec()).expect("keys are text");
        let named: BTreeSet<String> = hot.keys.iter().map(|key| name(&key.key)).collect();
        // What a kill may have taken, only where the answer says that something is missing.
        let lost = |key: &str| match hot.partial {
            true => lost.get(key).copied().unwrap_or(0),
            false => 0,
        };
        for key in &hot.keys {
            let text = name(&key.key);
            let (least, most) = truth.get(&text).copied().unwrap_or_default();
            assert!(key.lower <= most, "{text}: {} of at most {most}", key.lower);
            let upper = key.upper + lost(&text);
            assert!(upper >= least, "{text}: {upper} of at least {least}, {}", hot.partial);
        }
        for (key, (least, _)) in truth {
            let least = least.saturating_sub(lost(key));
            let named = named.contains(key);
            assert!(named || least <= hot.threshold, "{key}: {least} > {}", hot.threshold);
        }
        let lower: u64 = hot.keys.iter().map(|key| key.lower).sum();
        assert!(lower <= hot.operations, "conservation: {lower} of {}", hot.operations);
        self.cells += 1;
        self.keys += hot.keys.len() as u64;
        self.partial += u64::from(hot.partial);
        self.threshold = self.threshold.max(hot.threshold);
    }
}

#[test]
fn bounds_hold_through_splits_merges_and_a_kill_beside_a_ledger() {
    let mut cluster = Cluster::start(3, &["--keyviz-step", "2s", "--groups", "2"]);
    let seconds = std::env::var("KEYVIZ_LEDGER_SECONDS").ok().and_then(|text| text.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(SECONDS));
    let runtime = tokio::runtime::Runtime::new().expect("the system has threads");
    let client = Client::new(&cluster.grpc).expect("addresses are given");
    let begin_ms = now_ms();
    let loads: Vec<_> =
        (1..=4).map(|seed| runtime.spawn(load(client.clone(), seed * 7_919, length))).collect();
    // Route changes before and after the kill, which needs the cluster for itself.
    let change = |cluster: &Cluster, length: Duration| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let changes = scope.spawn(|| change_routes(cluster, &stop));
            std::thread::sleep(length);
            stop.store(true, Ordering::Relaxed);
            changes.join().expect("it does not panic")
        })
    };
    let before = change(&cluster, length * 2 / 5);
    let killed_ms = now_ms();
    cluster.kill(2);
    std::thread::sleep(length / 10);
    cluster.spawn(2);
    let after = change(&cluster, length * 2 / 5);
    let ledger: Vec<Entry> = runtime.block_on(async {
        let loads = futures::future::join_all(loads).await.into_iter();
        loads.flat_map(|ledger| ledger.expect("it does not panic")).collect()
    });
    cluster.wait_until_serving();
    std::thread::sleep(Duration::from_millis(2 * STEP_MS));
    let mut lost: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in &ledger {
        if entry.to_ms + LOST_MS >= killed_ms && entry.from_ms <= killed_ms {
            *lost.entry(&entry.key).or_default() += 1;
        }
    }

    let mut checked = Checked { cells: 0, keys: 0, partial: 0, threshold: 0 };
    let mut random = Random(77);
    let first_ms = begin_ms - begin_ms % STEP_MS;
    let columns = (now_ms() - first_ms) / STEP_MS;
    let time = |ms: u64| UNIX_EPOCH + Duration::from_millis(ms);
    while checked.cells < 200 {
        let mut key = || ledger[random.below(ledger.len() as u64) as usize].key.clone();
        let mut range = [key(), key()];
        range.sort();
        if checked.cells.is_multiple_of(10) {
            range = ["a".to_owned(), "z~".to_owned()];
        }
        if range[0] == range[1] {
            continue;
        }
        let from_ms = first_ms + random.below(columns) * STEP_MS;
        let to_ms = from_ms + (1 + random.below(8)) * STEP_MS;
        let query = HotKeysQuery::new(Series::Writes).between(time(from_ms), time(to_ms));
        let query = query.range(range[0].clone()..range[1].clone()).limit(1_000);
        let hot = runtime.block_on(client.hot_keys(query)).expect("it answers");
        assert_eq!(hot.responded, 3);
        checked.cell(&hot, &truth(&ledger, &range, from_ms, to_ms), &lost);
    }
    // The killed node's column says that something is missing, and a column long before does not.
    let of = |from_ms: u64| {
        let window = HotKeysQuery::new(Series::Writes).between(time(from_ms), time(from_ms + 1));
        runtime.block_on(client.hot_keys(window)).expect("it answers")
    };
    assert!(of(killed_ms).partial, "a kill is told");
    assert!(!of(first_ms + STEP_MS).partial);
    // The key that jumped is the hottest of its time.
    let jumped = of(first_ms + STEP_MS);
    assert!(jumped.keys[0].key.starts_with(b"jump/"), "{:?}", jumped.keys[0]);
    println!(
        "{} writes ({} of unknown outcome), {} splits and {} merges, {} cells with {} keys \
         compared, {} partial, largest threshold {}",
        ledger.len(),
        ledger.iter().filter(|entry| !entry.certain).count(),
        before[0] + after[0],
        before[1] + after[1],
        checked.cells,
        checked.keys,
        checked.partial,
        checked.threshold,
    );
}
