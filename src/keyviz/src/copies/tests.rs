//! Copies tell what the node told, no more, and say where they may lack counts.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::history::*;
use crate::matrix::*;
use crate::query::*;
use crate::sampler::*;
use crate::*;

pub(super) const STEP: u64 = 60_000;
pub(super) const NOW: u64 = 480_000 * 3_600_000;
pub(super) const ORIGIN: NodeId = NodeId(3);
pub(super) const ALL: Window = Window { from_ms: 0, to_ms: u64::MAX };

/// A store in memory, which may fail.
#[derive(Default)]
pub(super) struct Memory {
    pub records: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    pub fails: Mutex<bool>,
}

impl CopyStore for Memory {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.records.lock().get(key).cloned())
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        self.records.lock().iter().for_each(|(key, value)| visit(key, value));
        Ok(())
    }

    fn apply(&self, puts: Vec<CopyRecord>, deletes: Vec<Vec<u8>>, _: bool) -> io::Result<()> {
        if *self.fails.lock() {
            return Err(io::Error::other("the disk is gone"));
        }
        let mut records = self.records.lock();
        deletes.iter().for_each(|key| drop(records.remove(key)));
        records.extend(puts);
        Ok(())
    }
}

pub(super) struct Holder {
    pub copies: Copies,
    pub store: Arc<Memory>,
    pub outbox: Option<Outbox>,
}

impl Holder {
    pub fn new(node: u64, bytes: usize) -> Self {
        let copies = Copies::new(NodeId(node), STEP, bytes, node);
        let store = Arc::new(Memory::default());
        copies.open(Arc::clone(&store) as _).expect("memory works");
        Holder { copies, store, outbox: None }
    }

    pub fn restart(&mut self) -> u64 {
        self.copies.close();
        self.copies.open(Arc::clone(&self.store) as _).expect("memory works")
    }
}

/// The node that counts.
pub(super) struct Origin {
    pub history: History,
    pub now_ms: u64,
    pending: u64,
    pub flushed_ms: u64,
    archive: Archive,
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
    /// When, and how many.
    counted: Vec<(u64, u64)>,
}

pub(super) fn config() -> HistoryConfig {
    HistoryConfig { step_ms: STEP, columns: 4, ..HistoryConfig::default() }
}

/// Writes in three slots.
fn writes(count: u64) -> Harvest {
    let key = |at: u8| bytes::Bytes::from(vec![at]);
    let ends = [Some(key(b'h')), Some(key(b'p')), None];
    let starts = [key(b'a'), key(b'h'), key(b'p')];
    let slots = starts.into_iter().zip(ends).zip(0..).map(|((start, end), index)| Slot {
        range: KeyRange { start: if index == 0 { Default::default() } else { start }, end },
        bucket: Bucket::SubRange { route: RouteId::FIRST, index },
        group: GroupId(1),
        lead: Some(Term(1)),
    });
    let layout = Arc::new(Layout { catalog_version: 1, slots: slots.collect() });
    let cells = (0..3u32).map(|slot| {
        let share = count / 3 + u64::from(u64::from(slot) < count % 3);
        (slot, Counts { writes: share, write_bytes: 7 * share, ..Counts::ZERO })
    });
    let cells = cells.filter(|(_, counts)| counts.writes > 0).collect();
    let segments = vec![Segment { layout, cells }];
    Harvest { segments, unattributed: Counts::ZERO, hot_keys: None }
}

impl Origin {
    pub fn new() -> Self {
        Origin {
            history: History::new(config(), ORIGIN, Incarnation(1), NOW).expect("valid"),
            now_ms: NOW,
            pending: 0,
            flushed_ms: 0,
            archive: Archive::default(),
            stored: BTreeMap::new(),
            counted: Vec::new(),
        }
    }

    pub fn count(&mut self, count: u64) {
        self.pending += count;
        self.counted.push((self.now_ms, count));
    }

    pub fn flush(&mut self) {
        let flushed = self.history.add(self.now_ms, writes(std::mem::take(&mut self.pending)));
        self.flushed_ms = self.now_ms;
        self.keep(&flushed);
    }

    fn keep(&mut self, flushed: &Flushed) {
        let open = self.history.checkpoint();
        let columns = flushed.closed.iter().map(AsRef::as_ref).chain([&open]);
        let batch = self.archive.batch(columns, &flushed.removed);
        self.stored.extend(batch.puts);
        batch.deletes.iter().for_each(|key| drop(self.stored.remove(key)));
    }

    /// Flushed at each boundary, as nodes do.
    pub fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms / STEP < until / STEP {
            self.now_ms = (self.now_ms / STEP + 1) * STEP;
            self.flush();
        }
        self.now_ms = until;
    }

    /// Killed, and started again; without what it stored if that is gone.
    pub fn restart(&mut self, forgets: bool) {
        let life = Incarnation(self.history.incarnation().0 + 1);
        self.pending = 0;
        self.history = History::new(config(), ORIGIN, life, self.now_ms).expect("valid");
        if forgets {
            self.stored.clear();
            self.archive = Archive::default();
            self.history.forget_before(self.now_ms);
            return;
        }
        let opened = Archive::open(&self.stored);
        assert!(opened.damaged.is_empty());
        self.archive = opened.archive;
        let flushed = self.history.restore(opened.columns);
        self.keep(&flushed);
    }

    /// Sends to a holder what it lacks, at most so many pushes.
    pub fn send(&self, holder: &mut Holder, most: usize) {
        let Holder { copies, outbox, .. } = holder;
        let closed = self.history.inspect(ALL);
        let open = self.history.checkpoint();
        let mut out = outbox.take().unwrap_or_else(|| {
            Outbox::new(&copies.inventory(ORIGIN).expect("it is open"), &closed)
        });
        for _ in 0..most {
            let forgotten = self.history.holdings().forgotten_before_ms;
            let next = out.next(&closed, open.id(), forgotten, 200);
            let whole = next.is_none();
            let parcel = next.unwrap_or_else(|| out.open(&open));
            let push = self.push(&parcel, whole.then_some(self.flushed_ms));
            match copies.take(push, self.now_ms).expect("it is sound") {
                Taken::Stored { generation } if generation == out.generation() => {
                    out.stored(parcel);
                }
                Taken::Stored { .. } => return,
                Taken::MissingChunks => out.forget_chunks(),
            }
            if whole {
                break;
            }
        }
        *outbox = Some(out);
    }

    pub fn push(&self, parcel: &Parcel, complete_to_ms: Option<u64>) -> CopyPush {
        CopyPush {
            node: ORIGIN,
            incarnation: self.history.incarnation(),
            step_ms: STEP,
            complete_to_ms,
            left_ms: None,
            forgotten_before_ms: self.history.holdings().forgotten_before_ms,
            records: parcel.records.clone(),
            removed: parcel.removed.clone(),
        }
    }
}

/// The matrix of a window from the node itself and from holders.
pub(super) fn ask(origin: Option<&Origin>, holders: &[&Holder], window: Window) -> Matrix {
    let query = Query { window, range: KeyRange::all(), series: Series::Writes, role: None };
    let always = || true;
    let views: Vec<CopyView> = holders
        .iter()
        .filter_map(|holder| holder.copies.view(ORIGIN, window).expect("memory works"))
        .collect();
    let mut totals: Vec<NodeTotals> =
        views.iter().map(|view| view.totals(&query, &always).expect("wanted")).collect();
    totals.extend(origin.map(|origin| origin.history.totals(&query, Harvest::default())));
    let routes = [RouteSpec { id: RouteId::FIRST, range: KeyRange::all(), group: GroupId(1) }];
    let request = PlanRequest {
        routes: &routes,
        catalog_version: 1,
        range: &query.range,
        max_rows: 0,
        max_route_ids: 1,
        boundaries: None,
    };
    let rows = plan(&request, &totals).expect("one route");
    let columns = plan_columns(window, STEP, 2048, window.to_ms).expect("within bounds");
    let mut parts: Vec<_> = views
        .iter()
        .map(|view| view.columns(&query, &rows.axis(), &columns, &always).expect("wanted"))
        .collect();
    parts.extend(
        origin.map(|origin| {
            origin.history.columns(&query, &rows.axis(), &columns, Harvest::default())
        }),
    );
    let ok = origin.is_some();
    let status = NodeStatus { node: Some(ORIGIN), ok, ..NodeStatus::default() };
    merge(rows, columns, &query, parts, vec![status])
}

/// Of each column: the sum of its cells and of the blocks that begin there, and whether it may lack
/// counts.
fn shown(matrix: &Matrix) -> Vec<(u64, u64, bool)> {
    let blocks = |at: usize| {
        let inside = matrix.blocks.iter().filter(move |block| block.column as usize == at);
        inside.map(|block| block.value).sum::<u64>()
    };
    let of = |(at, column): (usize, &ColumnSpan)| {
        let cells: u64 = matrix.rows.iter().map(|row| row.values[at]).sum();
        let partial = matrix.rows.iter().any(|row| row.partial.contains(at as u32));
        (column.start_ms, cells + blocks(at), partial)
    };
    matrix.columns.iter().enumerate().map(of).collect()
}

fn window_to(now_ms: u64) -> Window {
    Window { from_ms: NOW, to_ms: (now_ms / STEP + 1) * STEP }
}

#[derive(Clone, Debug)]
enum Action {
    Count(u64),
    Pass(u64),
    Flush,
    Send { holder: usize, most: usize },
    Interrupt { holder: usize },
    RestartHolder { holder: usize },
    EmptyHolder { holder: usize },
    Restart,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let holder = 0..2usize;
    prop::collection::vec(
        prop_oneof![
            8 => (1..100u64).prop_map(Action::Count),
            6 => (1..200_000u64).prop_map(Action::Pass),
            4 => Just(Action::Flush),
            8 => (holder.clone(), prop_oneof![3 => Just(1_000usize), 1 => 1..4usize])
                .prop_map(|(holder, most)| Action::Send { holder, most }),
            1 => holder.clone().prop_map(|holder| Action::Interrupt { holder }),
            1 => holder.clone().prop_map(|holder| Action::RestartHolder { holder }),
            1 => holder.prop_map(|holder| Action::EmptyHolder { holder }),
            1 => Just(Action::Restart),
        ],
        1..60,
    )
}

fn run(actions: &[Action]) -> (Origin, [Holder; 2]) {
    let mut origin = Origin::new();
    let mut holders = [Holder::new(1, 1 << 30), Holder::new(2, 1 << 30)];
    for action in actions {
        match *action {
            Action::Count(count) => origin.count(count),
            Action::Pass(ms) => origin.pass(ms),
            Action::Flush => origin.flush(),
            Action::Send { holder, most } => origin.send(&mut holders[holder], most),
            Action::Interrupt { holder } => holders[holder].outbox = None,
            Action::RestartHolder { holder } => {
                assert_eq!(holders[holder].restart(), 0, "nothing is damaged");
                holders[holder].outbox = None;
            }
            Action::EmptyHolder { holder } => {
                holders[holder].store.records.lock().clear();
                holders[holder].restart();
                holders[holder].outbox = None;
            }
            Action::Restart => {
                origin.restart(false);
                holders.iter_mut().for_each(|holder| holder.outbox = None);
            }
        }
    }
    (origin, holders)
}

/// The sum over the time before `to_ms`, of which nothing may be missing; `None`: some may, or it
/// was counted together with what came later.
fn whole(matrix: &Matrix, to_ms: u64) -> Option<u64> {
    let ends_ms = |block: &Block| matrix.columns[(block.column + block.column_count - 1) as usize];
    let crosses = |block: &Block| {
        matrix.columns[block.column as usize].start_ms < to_ms && ends_ms(block).end_ms > to_ms
    };
    if matrix.blocks.iter().any(crosses) {
        return None;
    }
    let shown = shown(matrix);
    let before = shown.iter().filter(|(start_ms, _, _)| *start_ms < to_ms);
    let mut sum = 0;
    for (_, count, partial) in before {
        if *partial {
            return None;
        }
        sum += count;
    }
    Some(sum)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whoever answers, and however many: never more than was counted, and exactly what the node
    /// itself would tell wherever nothing is marked.
    #[test]
    fn once_and_honest_partiality_of_any_holders(actions in actions()) {
        let (origin, [one, two]) = run(&actions);
        let window = window_to(origin.now_ms);
        let own = ask(Some(&origin), &[], window);
        let truth: u64 = origin.counted.iter().map(|(_, count)| count).sum();
        for holders in [&[&one][..], &[&two], &[&one, &two]] {
            let alone = ask(None, holders, window);
            let total: u64 = shown(&alone).iter().map(|(_, count, _)| count).sum();
            prop_assert!(total <= truth, "{total} of {truth}");
            for to_ms in (NOW..=window.to_ms).step_by(STEP as usize) {
                if let (Some(theirs), Some(ours)) = (whole(&alone, to_ms), whole(&own, to_ms)) {
                    prop_assert_eq!(theirs, ours, "before {}", (to_ms - NOW) / STEP);
                }
            }
            let both = shown(&ask(Some(&origin), holders, window));
            let sum = |shown: &[(u64, u64, bool)]| shown.iter().map(|it| it.1).sum::<u64>();
            prop_assert_eq!(sum(&both), sum(&shown(&own)), "with the node itself");
        }
    }

    /// After one undisturbed exchange a holder has everything up to the last flush.
    #[test]
    fn conservation_a_holder_that_caught_up_has_everything(actions in actions()) {
        let (mut origin, [mut one, _]) = run(&actions);
        origin.flush();
        let (flushed_ms, window) = (origin.flushed_ms, window_to(origin.now_ms));
        // What differs is found by comparing.
        one.outbox = None;
        origin.send(&mut one, 10_000);
        origin.send(&mut one, 10_000);
        let held = one.copies.held();
        prop_assert_eq!(held[0].complete_to_ms, flushed_ms);
        let own = shown(&ask(Some(&origin), &[], window));
        let theirs = shown(&ask(None, &[&one], window));
        let counts = |shown: &[(u64, u64, bool)]| -> Vec<_> {
            shown.iter().map(|(start_ms, count, _)| (*start_ms, *count)).collect()
        };
        prop_assert_eq!(counts(&own), counts(&theirs));
        for ((start_ms, _, own), (_, _, theirs)) in own.iter().zip(&theirs) {
            let ended = start_ms + STEP <= flushed_ms;
            prop_assert_eq!(*theirs, *own || !ended, "column {}", (start_ms - NOW) / STEP);
        }
    }
}

/// A node with a quarter of an hour of counts, and a holder that has all of them.
pub(super) fn copied() -> (Origin, Holder) {
    let (mut origin, mut holder) = (Origin::new(), Holder::new(1, 1 << 30));
    for minute in 0..15 {
        origin.count(minute + 1);
        origin.pass(STEP);
        origin.send(&mut holder, 1_000);
    }
    (origin, holder)
}

#[test]
fn honest_partiality_a_node_that_lost_its_history_takes_nothing_from_its_copies() {
    let (mut origin, mut holder) = copied();
    let before = shown(&ask(Some(&origin), &[], window_to(origin.now_ms - STEP)));
    origin.restart(true);
    holder.outbox = None;
    for _ in 0..12 {
        origin.count(1);
        origin.pass(STEP);
        origin.send(&mut holder, 1_000);
    }
    let window = window_to(NOW + 14 * STEP);
    let now = ask(Some(&origin), &[&holder], window);
    assert_eq!(shown(&now).iter().map(|it| it.1).sum::<u64>(), 120);
    assert_eq!(before.iter().map(|it| it.1).sum::<u64>(), 120);
    assert!(now.rows.iter().all(|row| row.partial.is_empty()), "nothing is missing: {now:?}");
    let whole = shown(&ask(Some(&origin), &[&holder], window_to(origin.now_ms)));
    assert_eq!(whole.iter().map(|it| it.1).sum::<u64>(), 132);
}

#[test]
fn honest_partiality_after_a_node_left_its_last_seconds_alone_may_be_missing() {
    let (origin, holder) = copied();
    let members = [NodeId(1), NodeId(2)].into_iter().collect();
    holder.copies.know_members(&members, origin.now_ms + 3 * STEP).expect("memory works");
    let window = Window { from_ms: NOW, to_ms: NOW + 25 * STEP };
    let partial: Vec<u64> = shown(&ask(None, &[&holder], window))
        .into_iter()
        .filter(|(_, _, partial)| *partial)
        .map(|(start_ms, _, _)| (start_ms - NOW) / STEP)
        .collect();
    assert_eq!(partial, [15, 16, 17]);
    // It is known after a restart too.
    let mut holder = holder;
    holder.restart();
    assert_eq!(holder.copies.held()[0].left_ms, Some(origin.now_ms + 3 * STEP));
}

#[test]
fn honest_partiality_damaged_records_are_skipped_counted_and_fetched_again() {
    let (mut origin, mut holder) = copied();
    let total = |holder: &Holder| {
        let shown = shown(&ask(None, &[holder], window_to(NOW + 14 * STEP)));
        let partial = shown.iter().filter(|it| it.2).count();
        (shown.iter().map(|it| it.1).sum::<u64>(), partial > 0)
    };
    assert_eq!(total(&holder), (120, false));
    let columns = |(key, _): &(&Vec<u8>, &mut Vec<u8>)| key.get(9) == Some(&b'c');
    holder.store.records.lock().iter_mut().filter(columns).for_each(|(_, value)| {
        *value.last_mut().expect("a record has bytes") ^= 1;
    });
    let damaged = holder.restart();
    assert!(damaged > 0);
    assert_eq!(holder.copies.damaged(), damaged);
    let (left, partial) = total(&holder);
    assert!(left < 120 && partial, "{left}");
    holder.outbox = None;
    origin.flush();
    origin.send(&mut holder, 1_000);
    assert_eq!(total(&holder), (120, false));
    assert_eq!(holder.restart(), 0, "they were written again");

    // Found while it runs: the next comparison brings it back.
    holder.outbox = None;
    origin.send(&mut holder, 1_000);
    holder.copies.cache.clear();
    let key = {
        let mut records = holder.store.records.lock();
        let (key, value) = records.iter_mut().find(columns).expect("there are columns");
        *value = b"KVc".to_vec();
        key.clone()
    };
    assert!(total(&holder).1, "what is gone is told");
    origin.send(&mut holder, 1_000);
    assert!(holder.outbox.is_none(), "it is told that the copy changed");
    origin.send(&mut holder, 1_000);
    assert_eq!(total(&holder), (120, false));
    assert_ne!(holder.store.records.lock()[&key], b"KVc".to_vec());
}
