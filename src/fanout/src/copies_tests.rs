//! A node that holds the copy of a silent member's columns answers in its name.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::*;
use keyviz_catalog::AppliedCatalog;
use keyviz_core::copies::{Copies, CopyPush, CopyRecord, CopyStore, Inventory, Outbox};
use keyviz_core::hotkeys::HotKeysQuery;
use keyviz_core::query::{ColumnPlan, RowAxis};
use keyviz_core::sampler::{Bucket, Counts, Harvest, Layout, Segment, Slot};
use keyviz_core::wire::PackedColumns;
use keyviz_core::{
    GroupId, History, HistoryConfig, Incarnation, KeyRange, NodeId, Query, RouteId, RouteSpec,
    Sampler, SamplerConfig, Series, Term, Window,
};
use keyviz_directory::{Directory, MemberAddress};

const STEP_MS: u64 = 1_000;
const NOW_MS: u64 = 1_005_500;

#[derive(Default)]
struct Memory(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl CopyStore for Memory {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().get(key).cloned())
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        self.0.lock().iter().for_each(|(key, value)| visit(key, value));
        Ok(())
    }

    fn apply(&self, puts: Vec<CopyRecord>, deletes: Vec<Vec<u8>>, _: bool) -> io::Result<()> {
        let mut records = self.0.lock();
        deletes.iter().for_each(|key| drop(records.remove(key)));
        records.extend(puts);
        Ok(())
    }
}

/// Peers that do not answer.
struct Silent;

impl PeerMatrix for Silent {
    fn totals(
        &self,
        _: NodeId,
        _: Arc<Query>,
    ) -> BoxFuture<'static, Result<PeerTotals, RoundError>> {
        async { Err(RoundError::Call("it is gone".to_owned())) }.boxed()
    }

    fn columns(
        &self,
        _: NodeId,
        _: Arc<Query>,
        _: Arc<RowAxis>,
        _: Arc<ColumnPlan>,
    ) -> BoxFuture<'static, Result<Vec<PackedColumns>, RoundError>> {
        async { Err(RoundError::Call("it is gone".to_owned())) }.boxed()
    }

    fn hot_keys(
        &self,
        _: NodeId,
        _: Arc<HotKeysQuery>,
    ) -> BoxFuture<'static, Result<NodeHotKeys, RoundError>> {
        async { Err(RoundError::Call("it is gone".to_owned())) }.boxed()
    }
}

/// A node that counted five writes in the first of five seconds, and three in the fourth.
fn history(node: u64) -> History {
    let config = HistoryConfig { step_ms: STEP_MS, ..HistoryConfig::default() };
    let history = History::new(config, NodeId(node), Incarnation(1), 1_000_000).expect("valid");
    let slot = Slot {
        range: KeyRange::all(),
        bucket: Bucket::Route(RouteId::FIRST),
        group: GroupId(1),
        lead: Some(Term(node)),
    };
    let layout = Arc::new(Layout { catalog_version: 1, slots: vec![slot] });
    for (second, writes) in (1..).zip([5, 0, 0, 3, 0]) {
        let cells = vec![(0, Counts { writes, ..Counts::ZERO })];
        let segment = Segment { layout: Arc::clone(&layout), cells };
        let harvest = Harvest { segments: vec![segment], ..Harvest::default() };
        let _ = history.add(1_000_000 + second * STEP_MS, harvest);
    }
    history
}

/// Node 1, which holds a copy of node 2 that is complete to `complete_to_ms`, in a cluster of these
/// members.
fn fanout(members: &[u64], complete_to_ms: u64) -> Arc<Fanout> {
    let sampler = Sampler::new(SamplerConfig::default()).expect("the defaults are valid");
    let route = RouteSpec { id: RouteId::FIRST, range: KeyRange::all(), group: GroupId(1) };
    sampler.publish_routes(1, vec![route]).expect("one route is a table");
    let copies = Copies::new(NodeId(1), STEP_MS, 1 << 30, 7);
    copies.open(Arc::new(Memory::default())).expect("memory works");
    let second = history(2);
    let outbox = Outbox::new(&Inventory::default(), &[]);
    let columns = second.inspect(Window { from_ms: 0, to_ms: u64::MAX });
    let open = second.checkpoint();
    let parcel = outbox.next(&columns, open.id(), 0, usize::MAX).expect("there are columns");
    let push = CopyPush {
        node: NodeId(2),
        incarnation: Incarnation(1),
        step_ms: STEP_MS,
        complete_to_ms: Some(complete_to_ms),
        left_ms: None,
        forgotten_before_ms: 0,
        records: parcel.records,
        removed: parcel.removed,
    };
    copies.take(push, NOW_MS).expect("it is sound");
    let clock = Clock::of(|| NOW_MS);
    let local = LocalMatrix::new(Arc::new(sampler), Arc::new(history(1)), clock, true);
    let directory = Directory::new();
    let address = |node: u64| MemberAddress { address: format!("n{node}:1"), http: String::new() };
    directory.set_members(members.iter().map(|node| (NodeId(*node), address(*node))).collect());
    Fanout::new(FanoutParts {
        node: NodeId(1),
        local: Arc::new(local.with_copies(Arc::new(copies))),
        directory,
        catalog: AppliedCatalog::default(),
        peers: Arc::new(Silent),
        deadline: DEFAULT_DEADLINE,
    })
}

fn request() -> MatrixRequest {
    MatrixRequest {
        series: Series::Writes,
        role: None,
        from_ms: Some(1_000_000),
        to_ms: Some(1_005_000),
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

async fn ask(fanout: &Arc<Fanout>) -> (u64, Vec<u32>, Vec<Option<String>>) {
    let answer = fanout.cluster(&request()).await.expect("there is an answer");
    let matrix = &answer.matrix;
    let errors = matrix.nodes.iter().map(|status| status.error.clone()).collect();
    (matrix.total, matrix.rows[0].partial.iter().collect(), errors)
}

#[tokio::test]
async fn honest_partiality_a_silent_member_is_answered_for_and_only_what_no_copy_has_is_partial() {
    let whole = fanout(&[1, 2], 1_005_000);
    let said = "it is gone; answered by node 1, complete to 00:16:45 UTC".to_owned();
    assert_eq!(ask(&whole).await, (16, vec![], vec![None, Some(said)]));
    let behind = fanout(&[1, 2], 1_003_500);
    let said = "it is gone; answered by node 1, complete to 00:16:43 UTC".to_owned();
    assert_eq!(ask(&behind).await, (16, vec![3, 4], vec![None, Some(said)]));
    let request = HotKeysRequest {
        series: Series::Writes,
        from_ms: Some(1_000_000),
        to_ms: Some(1_005_000),
        start: Bytes::new(),
        end: None,
        limit: 0,
        points: 0,
    };
    let hot = whole.cluster_hot_keys(&request).await.expect("there is an answer");
    assert_eq!((hot.hot_keys.operations, &hot.nodes[1].answered_by[..]), (16, &[NodeId(1)][..]));
}

#[tokio::test]
async fn once_the_past_of_a_node_that_left_stays_and_nobody_answers_for_a_third() {
    let left = fanout(&[1], 1_005_000);
    assert_eq!(ask(&left).await, (16, vec![], vec![None]));
    let third = fanout(&[1, 2, 3], 1_005_000);
    let (total, partial, errors) = ask(&third).await;
    assert_eq!((total, partial.len()), (16, 5), "of node 3 there is no copy");
    assert_eq!(errors[2].as_deref(), Some("it is gone"));
    // Asked for itself, a node answers for itself.
    let alone = third.node(&request()).await.expect("there is an answer");
    assert_eq!(alone.matrix.total, 8);
}
