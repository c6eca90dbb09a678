//! The deadline, sharing and calling off, against members that are scripted and a clock that only
//! moves when everybody waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::*;
use keyviz_catalog::AppliedCatalog;
use keyviz_core::hotkeys::HotKeysQuery;
use keyviz_core::matrix::NodeStatus;
use keyviz_core::query::{ColumnPlan, RowAxis};
use keyviz_core::sampler::{Bucket, Counts, Harvest, Layout, Segment, Slot};
use keyviz_core::wire::PackedColumns;
use keyviz_core::{
    GroupId, History, HistoryConfig, Incarnation, KeyRange, Matrix, NodeId, Query, RouteId,
    RouteSpec, Sampler, SamplerConfig, Series, Term, Window,
};
use keyviz_directory::{Directory, MemberAddress};

const STEP_MS: u64 = 1_000;
const NOW_MS: u64 = 1_000_500;
const DEADLINE: Duration = Duration::from_secs(2);

fn route() -> RouteSpec {
    RouteSpec { id: RouteId::FIRST, range: KeyRange::all(), group: GroupId(1) }
}

/// A node that led the only group in the term of its own number, and counted `writes`.
fn local(node: u64, writes: u64, work: Work) -> Arc<LocalMatrix> {
    let sampler = Sampler::new(SamplerConfig::default()).expect("the defaults are valid");
    sampler.publish_routes(1, vec![route()]).expect("one route is a table");
    let config = HistoryConfig { step_ms: STEP_MS, ..HistoryConfig::default() };
    let history = History::new(config, NodeId(node), Incarnation(1), NOW_MS).expect("valid");
    let local = LocalMatrix::new(Arc::new(sampler), Arc::new(history), Clock::of(|| NOW_MS), true);
    let local = Arc::new(local.with_work(work));
    count(&local, node, writes);
    local
}

fn count(local: &LocalMatrix, node: u64, writes: u64) {
    count_at(local, node, writes, NOW_MS);
}

fn count_at(local: &LocalMatrix, node: u64, writes: u64, now_ms: u64) {
    let slot = Slot {
        range: KeyRange::all(),
        bucket: Bucket::Route(RouteId::FIRST),
        group: GroupId(1),
        lead: Some(Term(node)),
    };
    let layout = Arc::new(Layout { catalog_version: 1, slots: vec![slot] });
    let segment = Segment { layout, cells: vec![(0, Counts { writes, ..Counts::ZERO })] };
    let harvest = Harvest { segments: vec![segment], ..Harvest::default() };
    // Opened first: what is harvested goes to the column that was open.
    let _ = local.history().add(now_ms, Harvest::default());
    let _ = local.history().add(now_ms, harvest);
}

/// Members that answer from a history of their own, after a pause a round.
struct Scripted {
    nodes: BTreeMap<NodeId, (Arc<LocalMatrix>, [Duration; 2])>,
    calls: [AtomicU64; 2],
    /// Calls that are under way.
    alive: watch::Sender<u64>,
}

const NEVER: Duration = Duration::from_secs(86_400);
/// The second pause of a member whose version does not know hot keys.
const EARLIER: Duration = Duration::from_secs(86_399);

/// Counts a call for as long as it lives.
struct Alive(watch::Sender<u64>);

impl Alive {
    fn new(count: &watch::Sender<u64>) -> Self {
        count.send_modify(|count| *count += 1);
        Alive(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Scripted {
    fn call(&self, to: NodeId, round: usize) -> (Arc<LocalMatrix>, Duration, Alive) {
        self.calls[round].fetch_add(1, Ordering::Relaxed);
        let (local, pauses) = &self.nodes[&to];
        (Arc::clone(local), pauses[round], Alive::new(&self.alive))
    }
}

impl PeerMatrix for Scripted {
    fn totals(
        &self,
        to: NodeId,
        query: Arc<Query>,
    ) -> BoxFuture<'static, Result<PeerTotals, RoundError>> {
        let (local, pause, alive) = self.call(to, 0);
        async move {
            let _alive = alive;
            sleep(pause).await;
            let totals = local.totals(Asker::Peer, query).await?;
            let copies = Vec::new();
            Ok(PeerTotals { totals, now_ms: NOW_MS + 5, step_ms: STEP_MS, copies })
        }
        .boxed()
    }

    fn columns(
        &self,
        to: NodeId,
        query: Arc<Query>,
        rows: Arc<RowAxis>,
        columns: Arc<ColumnPlan>,
    ) -> BoxFuture<'static, Result<Vec<PackedColumns>, RoundError>> {
        let (local, pause, alive) = self.call(to, 1);
        async move {
            let _alive = alive;
            sleep(pause).await;
            let parts = local.columns(Asker::Peer, query, rows, columns, true).await?;
            Ok(parts.into_iter().map(PackedColumns::from).collect())
        }
        .boxed()
    }

    fn hot_keys(
        &self,
        to: NodeId,
        query: Arc<HotKeysQuery>,
    ) -> BoxFuture<'static, Result<NodeHotKeys, RoundError>> {
        let (local, pause, alive) = self.call(to, 0);
        let earlier = self.nodes[&to].1[1] == EARLIER;
        async move {
            let _alive = alive;
            sleep(pause).await;
            if earlier {
                return Err(RoundError::NoHotKeys);
            }
            let answer = local.hot_keys_for(Asker::Peer, query, "salt").await;
            answer.map_err(|error| RoundError::Call(error.to_string()))
        }
        .boxed()
    }
}

struct Cluster {
    fanout: Arc<Fanout>,
    peers: Arc<Scripted>,
}

/// Node 1 asks; the others take so long for each round. Node n counted 10^(n-1) writes.
fn cluster(others: &[[Duration; 2]], work: Work) -> Cluster {
    let node = |index: usize| index as u64 + 2;
    let nodes = others.iter().enumerate().map(|(index, pauses)| {
        let writes = 10u64.pow(index as u32 + 1);
        let local = local(node(index), writes, Work::new(9, 9, 9, 9));
        (NodeId(node(index)), (local, *pauses))
    });
    let peers = Arc::new(Scripted {
        nodes: nodes.collect(),
        calls: Default::default(),
        alive: watch::Sender::new(0),
    });
    let directory = Directory::new();
    let address = |node: u64| MemberAddress { address: format!("n{node}:1"), http: String::new() };
    let members = 1..=others.len() as u64 + 1;
    directory.set_members(members.map(|node| (NodeId(node), address(node))).collect());
    let fanout = Fanout::new(FanoutParts {
        node: NodeId(1),
        local: local(1, 1, work),
        directory,
        catalog: AppliedCatalog::default(),
        peers: Arc::clone(&peers) as _,
        deadline: DEADLINE,
    });
    Cluster { fanout, peers }
}

fn request() -> MatrixRequest {
    MatrixRequest {
        series: Series::Writes,
        role: None,
        from_ms: None,
        to_ms: None,
        start: Bytes::new(),
        end: None,
        max_rows: 0,
        max_columns: 0,
        axis: Axis::Now,
        spread: false,
        boundaries: Arc::default(),
        by_route: false,
        sources: false,
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn errors(matrix: &Matrix) -> Vec<&str> {
    matrix.nodes.iter().map(|node| node.error.as_deref().unwrap_or_default()).collect()
}

/// The matrix, and the time that it took.
async fn ask(cluster: &Cluster) -> (Arc<MatrixAnswer>, Duration) {
    let began = Instant::now();
    let answer = cluster.fanout.cluster(&request()).await.expect("there is an answer");
    (answer, began.elapsed())
}

const LATE: &str = "it did not answer within the deadline of 2000 ms";

#[tokio::test(start_paused = true)]
async fn honest_partiality_a_silent_member_costs_nothing_but_the_wait_for_the_deadline() {
    let prompt = [millis(10), millis(10)];
    let cluster = cluster(&[prompt, [NEVER, NEVER], [millis(900), millis(900)]], Work::default());
    let (answer, took) = ask(&cluster).await;
    assert_eq!(took, DEADLINE);
    let matrix = &answer.matrix;
    assert_eq!(errors(matrix), ["", "", LATE, ""]);
    assert_eq!((matrix.total, matrix.responded, matrix.expected), (1 + 10 + 1_000, 3, 4));
    let columns = matrix.columns.len();
    assert!(matrix.rows.iter().all(|row| row.partial.len() == columns), "every cell is partial");
    // What a healthy member says of itself.
    let second = &matrix.nodes[1];
    assert!(second.ok);
    assert_eq!((second.clock_skew_ms, second.columns), (5, 1));
    assert_eq!((second.oldest_ms, second.incarnation), (Some(1_000_000), Some(Incarnation(1))));
    assert_eq!(second.latency_ms, 1_010, "round two began at half of the deadline");
}

#[tokio::test(start_paused = true)]
async fn honest_partiality_a_member_late_in_round_one_is_still_asked_for_its_columns() {
    let cluster =
        cluster(&[[millis(1_500), millis(400)], [millis(1_500), millis(600)]], Work::default());
    let (answer, took) = ask(&cluster).await;
    assert_eq!(took, DEADLINE);
    assert_eq!(errors(&answer.matrix), ["", "", LATE]);
    assert_eq!(answer.matrix.total, 1 + 10);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_in_good_health_does_not_wait_for_any_deadline() {
    let cluster = cluster(&[[millis(30), millis(20)], [millis(10), millis(50)]], Work::default());
    let (answer, took) = ask(&cluster).await;
    assert_eq!((took, answer.matrix.total), (millis(30 + 50), 111));
    assert!(answer.matrix.rows.iter().all(|row| row.partial.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn honest_partiality_a_late_member_with_columns_beyond_the_plan_says_so() {
    let cluster = cluster(&[[millis(1_500), millis(10)]], Work::default());
    let old = History::new(
        HistoryConfig { step_ms: STEP_MS, ..HistoryConfig::default() },
        NodeId(2),
        Incarnation(1),
        NOW_MS - 60_000,
    )
    .expect("valid");
    let _ = old.add(NOW_MS, Harvest::default());
    let (_, pauses) = cluster.peers.nodes[&NodeId(2)];
    let sampler = Arc::new(Sampler::new(SamplerConfig::default()).expect("valid"));
    let old = LocalMatrix::new(sampler, Arc::new(old), Clock::of(|| NOW_MS), true);
    let peers = Arc::new(Scripted {
        nodes: BTreeMap::from([(NodeId(2), (Arc::new(old), pauses))]),
        calls: Default::default(),
        alive: watch::Sender::new(0),
    });
    let parts = FanoutParts {
        node: NodeId(1),
        local: Arc::clone(cluster.fanout.local()),
        directory: Directory::new(),
        catalog: AppliedCatalog::default(),
        peers,
        deadline: DEADLINE,
    };
    let address = MemberAddress { address: "n2:1".to_owned(), http: String::new() };
    parts.directory.set_members(BTreeMap::from([(NodeId(2), address)]));
    let request = MatrixRequest { from_ms: Some(0), ..request() };
    let answer = Fanout::new(parts).cluster(&request).await.expect("there is an answer");
    assert!(errors(&answer.matrix)[1].contains("after the columns were planned"));
    assert_eq!((answer.matrix.total, answer.matrix.responded), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn once_identical_questions_share_a_fanout_until_their_counts_are_read() {
    let cluster = cluster(&[[millis(100), millis(100)]], Work::default());
    let other = MatrixRequest { series: Series::Reads, ..request() };
    let late = async {
        // In round two of the first, which has read node 1's counts but not this write.
        sleep(millis(150)).await;
        count(cluster.fanout.local(), 1, 5);
        ask(&cluster).await.0.matrix.total
    };
    let (first, second, third, late) =
        futures::join!(ask(&cluster), ask(&cluster), cluster.fanout.cluster(&other), late);
    assert!(Arc::ptr_eq(&first.0, &second.0), "one fan-out for both");
    assert_eq!((first.0.matrix.total, third.expect("an answer").matrix.total), (11, 0));
    assert_eq!(late, 16, "who asks after a write sees it");
    let calls = cluster.peers.calls.each_ref().map(|calls| calls.load(Ordering::Relaxed));
    assert_eq!(calls, [3, 3], "the first two together, the third, the late one");
    assert_eq!(cluster.fanout.counters().shared.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn no_harm_the_calls_of_a_question_end_when_the_last_who_waits_goes_away() {
    let cluster = cluster(&[[millis(100), NEVER], [NEVER, NEVER]], Work::default());
    let alive = || *cluster.peers.alive.borrow();
    let request = request();
    let mut first = Box::pin(cluster.fanout.cluster(&request));
    let mut second = Box::pin(cluster.fanout.cluster(&request));
    for round in 0..2 {
        let pause = sleep(millis(if round == 0 { 50 } else { 1_200 }));
        tokio::select! {
            _ = &mut first => panic!("nobody answers"),
            _ = &mut second => panic!("nobody answers"),
            () = pause => {}
        }
        assert_eq!(alive(), 2, "one call a member in round {round}");
    }
    drop(first);
    assert_eq!(alive(), 2, "somebody still waits");
    drop(second);
    assert_eq!(alive(), 0);
    assert_eq!(cluster.fanout.local().work().running_queries(), 0);
}

#[tokio::test(start_paused = true)]
async fn bounds_too_many_questions_are_refused_or_told_in_time() {
    let cluster = cluster(&[[NEVER, NEVER]], Work::new(1, 1, 1, 1));
    let asked = |max_rows: u32| {
        let (fanout, request) =
            (Arc::clone(&cluster.fanout), MatrixRequest { max_rows, ..request() });
        async move {
            let began = Instant::now();
            (fanout.cluster(&request).await.map(|answer| answer.matrix.total), began.elapsed())
        }
    };
    let (first, second, third) = futures::join!(asked(1), asked(2), asked(3));
    assert_eq!(first, (Ok(1), DEADLINE));
    let (Err(MatrixError::Busy(_)), waited) = second else { panic!("{second:?}") };
    assert_eq!(waited, DEADLINE / 2, "it is told while the asker can still go elsewhere");
    let (Err(MatrixError::Busy(busy)), Duration::ZERO) = third else { panic!("{third:?}") };
    assert!(busy.to_string().contains("ask another node"), "{busy}");
    assert_eq!(cluster.fanout.counters().refused.load(Ordering::Relaxed), 2);
}

/// Three members, the asker first, whose clocks are apart by so much; each counts 10^(n-1) writes.
fn apart(offsets_ms: [i64; 3]) -> Cluster {
    let at = |index: usize| {
        let node = index as u64 + 1;
        let now_ms = NOW_MS.saturating_add_signed(offsets_ms[index]);
        let sampler = Sampler::new(SamplerConfig::default()).expect("the defaults are valid");
        sampler.publish_routes(1, vec![route()]).expect("one route is a table");
        let config = HistoryConfig { step_ms: STEP_MS, ..HistoryConfig::default() };
        let history = History::new(config, NodeId(node), Incarnation(1), now_ms).expect("valid");
        let clock = Clock::of(move || now_ms);
        let local = Arc::new(LocalMatrix::new(Arc::new(sampler), Arc::new(history), clock, true));
        count_at(&local, node, 10u64.pow(index as u32), now_ms);
        local
    };
    let nodes = [1, 2].map(|index| (NodeId(index as u64 + 1), (at(index), [millis(1); 2])));
    let peers = Arc::new(Scripted {
        nodes: BTreeMap::from(nodes),
        calls: Default::default(),
        alive: watch::Sender::new(0),
    });
    let directory = Directory::new();
    let address = |node: u64| MemberAddress { address: format!("n{node}:1"), http: String::new() };
    directory.set_members((1..=3).map(|node| (NodeId(node), address(node))).collect());
    let fanout = Fanout::new(FanoutParts {
        node: NodeId(1),
        local: at(0),
        directory,
        catalog: AppliedCatalog::default(),
        peers: Arc::clone(&peers) as _,
        deadline: DEADLINE,
    });
    Cluster { fanout, peers }
}

#[tokio::test(start_paused = true)]
async fn aligned_time_an_answer_reaches_the_newest_column_whoevers_clock_is_ahead() {
    for offsets_ms in [[0, 60_000, -60_000], [-60_000, 0, 60_000], [60_000, -60_000, 0]] {
        let cluster = apart(offsets_ms);
        let (answer, _) = ask(&cluster).await;
        assert_eq!(answer.matrix.total, 111, "{offsets_ms:?}");
        let bounded = MatrixRequest { to_ms: Some(u64::MAX), from_ms: Some(0), ..request() };
        let answer = cluster.fanout.cluster(&bounded).await.expect("there is an answer");
        assert_eq!(answer.matrix.total, 111, "{offsets_ms:?} up to the end of time");
        assert!(answer.matrix.nodes.iter().all(|node| !node.beyond_end));
    }
}

#[tokio::test(start_paused = true)]
async fn aligned_time_columns_that_a_clock_left_in_the_future_are_shown() {
    let cluster = apart([0; 3]);
    // Its clock was 50 minutes ahead for a while.
    count_at(cluster.fanout.local(), 1, 1_000, NOW_MS + 3_000_000);
    let _ = cluster.fanout.local().history().add(NOW_MS + 3_000_000 + STEP_MS, Harvest::default());
    let _ = cluster.fanout.local().history().add(NOW_MS, Harvest::default());
    let (answer, _) = ask(&cluster).await;
    assert_eq!(answer.matrix.total, 1_111);
}

#[tokio::test(start_paused = true)]
async fn honest_partiality_a_member_a_year_ahead_says_so_and_widens_nothing() {
    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    let cluster = apart([0, 0, YEAR_MS]);
    let (answer, _) = ask(&cluster).await;
    let matrix = &answer.matrix;
    assert_eq!(matrix.total, 11);
    let told: Vec<bool> = matrix.nodes.iter().map(|node| node.beyond_end).collect();
    assert_eq!(told, [false, false, true]);
    let ahead_ms = NOW_MS + YEAR_MS.unsigned_abs();
    let newest_ms = ahead_ms - ahead_ms % STEP_MS + STEP_MS;
    assert_eq!(matrix.nodes[2].newest_ms, Some(newest_ms));
    let day_ms = super::request::MAX_AHEAD_MS + 3_600_000;
    let longest = matrix.columns.iter().map(|column| column.end_ms - column.start_ms).max();
    assert!(longest <= Some(day_ms / 480 + STEP_MS), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn honest_partiality_a_window_that_begins_before_what_is_kept_says_so() {
    let cluster = apart([0; 3]);
    let (forgetful, _) = &cluster.peers.nodes[&NodeId(2)];
    forgetful.history().forget_before(NOW_MS - 5_000);
    let told = |answer: &MatrixAnswer| {
        let node = |node: &NodeStatus| (node.past_history, node.forgotten_before_ms > 0);
        answer.matrix.nodes.iter().map(node).collect::<Vec<_>>()
    };
    for from_ms in [Some(0), None, Some(NOW_MS - 5_001)] {
        let answer = cluster.fanout.cluster(&MatrixRequest { from_ms, ..request() }).await;
        let told = told(&answer.expect("there is an answer"));
        assert_eq!(told, [(false, false), (true, true), (false, false)], "{from_ms:?}");
    }
    let later = MatrixRequest { from_ms: Some(NOW_MS), ..request() };
    let answer = cluster.fanout.cluster(&later).await.expect("there is an answer");
    assert_eq!(told(&answer)[1], (false, true));
}

#[tokio::test(start_paused = true)]
async fn honest_partiality_hot_keys_of_a_member_of_an_earlier_version_are_missing_in_words() {
    let others = [[Duration::ZERO, EARLIER], [Duration::ZERO; 2], [NEVER; 2]];
    let cluster = cluster(&others, Work::new(9, 9, 9, 9));
    let request = HotKeysRequest {
        series: Series::Writes,
        from_ms: None,
        to_ms: None,
        start: Bytes::new(),
        end: None,
        limit: 0,
        points: 0,
    };
    let answer = cluster.fanout.cluster_hot_keys(&request).await.expect("it answers");
    let told: Vec<_> = answer.nodes.iter().map(|node| (node.ok, node.error.as_deref())).collect();
    assert_eq!(told[0], (true, None));
    assert!(!told[1].0 && told[1].1.is_some_and(|error| error.contains("does not know hot keys")));
    assert_eq!(told[2], (true, None));
    assert!(!told[3].0 && told[3].1.is_some_and(|error| error.contains("did not answer")));
    // Nobody looked at the keys of what nodes 1 and 3 counted: any key can have had all of it.
    assert!(answer.hot_keys.partial && answer.hot_keys.keys.is_empty());
    assert_eq!((answer.hot_keys.operations, answer.hot_keys.threshold), (101, 101));
    // Whole columns, as those of a matrix.
    let Window { from_ms, to_ms } = answer.window;
    assert_eq!((from_ms % STEP_MS, to_ms % STEP_MS), (0, 0));
}
