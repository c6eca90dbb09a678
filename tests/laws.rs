//! The laws over the sampler and the history together, through the public API: random histories of
//! two nodes, and beside them a plain list of what happened.
//!
//! `KEYVIZ_CASES` says how many histories each law is tried on; a long run takes 10,000 in release.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use keyviz::keyviz::*;
use proptest::prelude::*;

const NODES: usize = 2;
const GROUPS: u64 = 2;
/// A column boundary and a bit, far from the start of Unix time, so that clocks can go back.
const START_MS: u64 = 450_000 * 3_600_000 + 123;
const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

#[derive(Clone, Debug)]
enum Action {
    /// Calls on a key; a write goes to the leader, a read to `node`.
    Record {
        key: Vec<u8>,
        node: usize,
        op: Op,
        ops: u64,
        bytes: u64,
    },
    /// Many calls on few keys, from which a re-plan learns.
    Burst {
        key: Vec<u8>,
        calls: u64,
    },
    /// Time passes, in eighths of a step; nodes flush and re-plan at each boundary.
    Pass {
        eighths: u64,
    },
    /// All clocks are set, back or forward.
    Jump {
        by_ms: i64,
    },
    Flush {
        node: usize,
    },
    Replan {
        node: usize,
    },
    /// `late`: a node that hears of it only at its next flush.
    Split {
        key: Vec<u8>,
        late: Option<usize>,
    },
    Merge {
        at: usize,
        late: Option<usize>,
    },
    Lead {
        group: u64,
        node: usize,
    },
    /// From here on the node records under the epoch that it has now, as a call that takes long does.
    Hold {
        node: usize,
    },
    Release {
        node: usize,
    },
    /// A stop in good order and a start.
    Restart {
        node: usize,
    },
    /// A death and a start: what was not stored is lost.
    Kill {
        node: usize,
    },
    /// Somebody asks for a matrix.
    Query,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(prop_oneof![Just(0u8), Just(255u8), b'a'..=b'e'], 0..4),
        1 => (0u8..8).prop_map(|last| [&[b'p'; 40][..], &[last]].concat()),
        1 => any::<u8>().prop_map(|byte| vec![byte; 4_096]),
    ]
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let node = || 0..NODES;
    let late = || prop::option::of(0..NODES);
    let op = prop_oneof![Just(Op::Read), Just(Op::Write)];
    let jump = prop::sample::select(vec![-HOUR_MS, -HOUR_MS / 60, HOUR_MS, YEAR_MS]);
    let action = prop_oneof![
        14 => (key(), node(), op, 1u64..20, 0u64..2_000).prop_map(
            |(key, node, op, ops, bytes)| Action::Record { key, node, op, ops, bytes }),
        1 => (key(), 50u64..400).prop_map(|(key, calls)| Action::Burst { key, calls }),
        5 => (1u64..20).prop_map(|eighths| Action::Pass { eighths }),
        1 => (24u64..120).prop_map(|eighths| Action::Pass { eighths }),
        1 => jump.prop_map(|by_ms| Action::Jump { by_ms }),
        1 => node().prop_map(|node| Action::Flush { node }),
        1 => node().prop_map(|node| Action::Replan { node }),
        3 => (key(), late()).prop_map(|(key, late)| Action::Split { key, late }),
        2 => (0usize..8, late()).prop_map(|(at, late)| Action::Merge { at, late }),
        2 => (1..=GROUPS, node()).prop_map(|(group, node)| Action::Lead { group, node }),
        1 => node().prop_map(|node| Action::Hold { node }),
        1 => node().prop_map(|node| Action::Release { node }),
        1 => node().prop_map(|node| Action::Restart { node }),
        1 => node().prop_map(|node| Action::Kill { node }),
        1 => Just(Action::Query),
    ];
    prop::collection::vec(action, 1..50)
}

/// How a world is set up.
#[derive(Clone, Debug)]
struct Setup {
    sampler: SamplerConfig,
    history: HistoryConfig,
}

fn setup() -> impl Strategy<Value = Setup> {
    let step_ms = prop::sample::select(vec![1_000, 7_000, 60_000, 300_000, 3_600_000]);
    let columns = prop_oneof![Just(1_440), 1usize..20];
    (1usize..40, 1usize..10, 1usize..5, step_ms, columns).prop_map(
        |(resolution_slots, max_tracked_routes, max_member_routes_per_slot, step_ms, columns)| {
            // A step as long as the coarsest tier leaves nothing to fold into: the oldest goes.
            let columns = if step_ms < LAST_TIER_MS { columns } else { 1_440 };
            Setup {
                sampler: SamplerConfig {
                    enabled: true,
                    max_tracked_routes,
                    max_member_routes_per_slot,
                    resolution_slots,
                    shards: 2,
                },
                history: HistoryConfig { step_ms, columns, bytes: MIN_HISTORY_BYTES },
            }
        },
    )
}

/// What happened, for the model.
#[derive(Clone, Debug)]
struct Event {
    /// Start of the column that was open at the node.
    column_ms: u64,
    key: Vec<u8>,
    role: Role,
    counts: Counts,
    /// Gone with the node that counted it.
    lost: bool,
}

struct Node {
    sampler: Sampler,
    history: History,
    archive: Archive,
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
    held: Option<Arc<Epoch>>,
    /// Indices of events that are nowhere but in the sampler.
    unstored: Vec<usize>,
}

struct World {
    setup: Setup,
    now_ms: u64,
    /// The latest that the clocks ever showed.
    latest_ms: u64,
    routes: Vec<RouteSpec>,
    version: u64,
    /// All routes that there ever were.
    ever: BTreeMap<RouteId, RouteSpec>,
    /// The routes of each version.
    tables: BTreeMap<u64, Vec<RouteId>>,
    leaders: BTreeMap<GroupId, (usize, Term)>,
    nodes: Vec<Node>,
    events: Vec<Event>,
    deaths: usize,
}

impl World {
    fn of(setup: &Setup, actions: &[Action]) -> World {
        let whole = RouteSpec { id: RouteId::FIRST, range: KeyRange::all(), group: GroupId(1) };
        let node = |node: usize| Node {
            sampler: Sampler::new(setup.sampler.clone()).expect("inside the bounds"),
            history: History::new(setup.history, id(node), Incarnation(1), START_MS)
                .expect("inside the bounds"),
            archive: Archive::default(),
            stored: BTreeMap::new(),
            held: None,
            unstored: Vec::new(),
        };
        let mut world = World {
            setup: setup.clone(),
            now_ms: START_MS,
            latest_ms: START_MS,
            routes: vec![whole.clone()],
            version: 1,
            tables: BTreeMap::from([(1, vec![whole.id])]),
            ever: BTreeMap::from([(whole.id, whole)]),
            leaders: (1..=GROUPS).map(|group| (GroupId(group), (0, Term(1)))).collect(),
            nodes: (0..NODES).map(node).collect(),
            events: Vec::new(),
            deaths: 0,
        };
        for node in 0..NODES {
            world.publish(node);
            world.lead(node);
            world.flush(node);
        }
        actions.iter().for_each(|action| world.act(action));
        world
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Record { key, node, op, ops, bytes } => {
                self.record(key, *node, *op, *ops, *bytes)
            }
            Action::Burst { key, calls } => {
                for call in 0..*calls {
                    let key = [key, &[b'0' + (call % 5) as u8][..]].concat();
                    self.record(&key, 0, Op::Write, 1, 10);
                }
            }
            Action::Pass { eighths } => self.pass(eighths * self.setup.history.step_ms / 8),
            Action::Jump { by_ms } => {
                self.now_ms = self.now_ms.saturating_add_signed(*by_ms);
                self.latest_ms = self.latest_ms.max(self.now_ms);
                (0..NODES).for_each(|node| self.flush(node));
            }
            Action::Flush { node } => self.flush(*node),
            Action::Replan { node } => {
                self.nodes[*node].sampler.replan();
            }
            Action::Split { key, late } => self.split(key, *late),
            Action::Merge { at, late } => self.merge(*at, *late),
            Action::Lead { group, node } => {
                let leader = self.leaders.get_mut(&GroupId(*group)).expect("a group of the world");
                *leader = (*node, Term(leader.1.0 + 1));
                (0..NODES).for_each(|node| self.lead(node));
            }
            Action::Hold { node } => {
                self.nodes[*node].held = Some(self.nodes[*node].sampler.epoch_full());
            }
            Action::Release { node } => self.nodes[*node].held = None,
            Action::Restart { node } => {
                self.store_all(*node);
                self.start(*node);
            }
            Action::Kill { node } => self.kill(*node),
            Action::Query => {
                let matrix = self.matrix(&self.everything(Series::Writes), 5, 5);
                assert_eq!(matrix.total, self.sum(Series::Writes, |_| true), "conservation");
            }
        }
    }

    /// As a store does: one load of the epoch, one search, then the count.
    fn record(&mut self, key: &[u8], node: usize, op: Op, ops: u64, bytes: u64) {
        let group =
            self.routes.iter().find(|route| route.range.contains(key)).expect("covered").group;
        let node = if op == Op::Write { self.leaders[&group].0 } else { node };
        let at = &mut self.nodes[node];
        let epoch = at.held.clone().unwrap_or_else(|| at.sampler.epoch_full());
        let located = epoch.locate(key).expect("published at the start");
        let route = epoch.route(located);
        assert_eq!(self.ever.get(&route.id), Some(route), "durable identity");
        assert!(route.range.contains(key));
        let lead = epoch.lead(route.group);
        let (term, leader) = (self.leaders[&route.group].1, self.leaders[&route.group].0 == node);
        let (role, counts) = match op {
            Op::Write => {
                (Role::LeaderWrite, Counts { writes: ops, write_bytes: bytes, ..Counts::ZERO })
            }
            Op::Read => {
                let role = if lead.is_some() { Role::LeaderRead } else { Role::FollowerRead };
                (role, Counts { reads: ops, read_bytes: bytes, ..Counts::ZERO })
            }
        };
        if op == Op::Write && leader && lead != Some(term) {
            at.sampler.record_late(op, &epoch, located, key, Some(term), ops, bytes);
        } else if at.held.is_some() {
            at.sampler.record(op, &epoch, located, key, ops, bytes);
        } else {
            at.sampler.epoch().record(op, located, key, ops, bytes);
        }
        at.unstored.push(self.events.len());
        let step_ms = self.setup.history.step_ms;
        let column_ms = self.now_ms - self.now_ms % step_ms;
        self.events.push(Event { column_ms, key: key.to_vec(), role, counts, lost: false });
    }

    fn pass(&mut self, ms: u64) {
        let step_ms = self.setup.history.step_ms;
        let until = self.now_ms + ms;
        while self.now_ms / step_ms < until / step_ms {
            self.now_ms = (self.now_ms / step_ms + 1) * step_ms;
            for node in 0..NODES {
                self.flush(node);
                self.nodes[node].sampler.replan();
            }
        }
        self.now_ms = until;
        self.latest_ms = self.latest_ms.max(until);
    }

    fn flush(&mut self, node: usize) {
        let harvest = self.nodes[node].sampler.harvest();
        self.assert_identities(&harvest);
        let at = &mut self.nodes[node];
        let flushed = at.history.add(self.now_ms, harvest);
        let checkpoint = at.history.checkpoint();
        at.store(&flushed, Some(&checkpoint));
        self.publish(node);
    }

    /// Every cell has routes that the catalog gave out, and keys that are theirs.
    fn assert_identities(&self, harvest: &Harvest) {
        for segment in &harvest.segments {
            let live = &self.tables[&segment.layout.catalog_version];
            for (slot, _) in &segment.cells {
                let slot = &segment.layout.slots[*slot as usize];
                let (first, within) = match &slot.bucket {
                    Bucket::Route(route) => (route, false),
                    Bucket::SubRange { route, .. } => (route, true),
                    Bucket::Aggregate(members) => {
                        let cap = self.setup.sampler.max_member_routes_per_slot as u64;
                        assert_eq!(members.first.len() as u64, members.count.min(cap));
                        // One slot a group over the same range, each with all members.
                        for id in &members.first {
                            assert!(slot.range.contains(&self.ever[id].range.start));
                        }
                        continue;
                    }
                };
                assert!(live.contains(first), "{first} is no route of the layout's version");
                let route = &self.ever[first];
                assert_eq!(route.group, slot.group);
                match within {
                    false => assert_eq!(route.range, slot.range),
                    true => assert!(route.range.contains(&slot.range.start)),
                }
            }
        }
    }

    fn store_all(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        let flushed = at.history.close(self.now_ms, at.sampler.harvest());
        at.store(&flushed, None);
    }

    fn kill(&mut self, node: usize) {
        self.deaths += 1;
        for event in std::mem::take(&mut self.nodes[node].unstored) {
            self.events[event].lost = true;
        }
        self.start(node);
    }

    /// A new life of a node, from what it stored.
    fn start(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        let incarnation = Incarnation(at.history.incarnation().0 + 1);
        at.held = None;
        at.sampler = Sampler::new(self.setup.sampler.clone()).expect("inside the bounds");
        at.history = History::new(self.setup.history, id(node), incarnation, self.now_ms)
            .expect("inside the bounds");
        let opened = Archive::open(&at.stored);
        assert!(opened.damaged.is_empty() && opened.garbage == Batch::default());
        at.archive = opened.archive;
        let flushed = at.history.restore(opened.columns);
        let checkpoint = at.history.checkpoint();
        at.store(&flushed, Some(&checkpoint));
        self.publish(node);
        self.lead(node);
    }

    fn publish(&self, node: usize) {
        let published = self.nodes[node].sampler.publish_routes(self.version, self.routes.clone());
        published.expect("the world's routes cover the key space");
    }

    fn publish_but(&mut self, late: Option<usize>) {
        self.version += 1;
        self.tables.insert(self.version, self.routes.iter().map(|route| route.id).collect());
        (0..NODES).filter(|node| Some(*node) != late).for_each(|node| self.publish(node));
    }

    fn lead(&self, node: usize) {
        let lead = |(&group, &(leader, term))| (group, (leader == node).then_some(term));
        let leads: Vec<_> = self.leaders.iter().map(lead).collect();
        self.nodes[node].sampler.set_leads(&leads);
    }

    fn split(&mut self, key: &[u8], late: Option<usize>) {
        let at = self.routes.iter().position(|route| route.range.contains(key)).expect("covered");
        let RouteSpec { range, group, .. } = self.routes[at].clone();
        if range.start == key {
            return;
        }
        let middle = Bytes::copy_from_slice(key);
        let left = KeyRange { start: range.start, end: Some(middle.clone()) };
        let left = self.route(left, group);
        let right = KeyRange { start: middle, end: range.end };
        let right = self.route(right, GroupId(group.0 % GROUPS + 1));
        self.routes.splice(at..=at, [left, right]);
        self.publish_but(late);
    }

    fn merge(&mut self, at: usize, late: Option<usize>) {
        if self.routes.len() < 2 {
            return;
        }
        let at = at % (self.routes.len() - 1);
        let start = self.routes[at].range.start.clone();
        let range = KeyRange { start, end: self.routes[at + 1].range.end.clone() };
        let merged = self.route(range, self.routes[at].group);
        self.routes.splice(at..=at + 1, [merged]);
        self.publish_but(late);
    }

    fn route(&mut self, range: KeyRange, group: GroupId) -> RouteSpec {
        let id = RouteId::new(self.ever.len() as u64 + 1).expect("from 1");
        let route = RouteSpec { id, range, group };
        self.ever.insert(id, route.clone());
        route
    }

    fn everything(&self, series: Series) -> Query {
        let to_ms = self.latest_ms + self.setup.history.step_ms;
        let window = Window { from_ms: 0, to_ms };
        Query { window, range: KeyRange::all(), series, role: None }
    }

    /// What the nodes `asked` answer, merged.
    fn answer(&self, query: &Query, rows: usize, columns: usize, asked: &[usize]) -> Matrix {
        let views: Vec<_> = (0..NODES)
            .map(|node| {
                let at = &self.nodes[node];
                at.history.view(query.window, at.sampler.peek())
            })
            .collect();
        let totals: Vec<_> = views.iter().map(|view| view.totals(query)).collect();
        let request = PlanRequest {
            routes: &self.routes,
            catalog_version: self.version,
            range: &query.range,
            max_rows: rows,
            max_route_ids: 3,
        };
        let rows = plan(&request, &totals).expect("the world's routes cover the key space");
        let step_ms = self.setup.history.step_ms;
        let columns = plan_columns(query.window, step_ms, columns, self.latest_ms).expect("few");
        let contribution = |node: &usize| views[*node].columns(query, &rows.axis(), &columns);
        let contributions = asked.iter().map(contribution).collect();
        let status = |node| NodeStatus {
            node: Some(id(node)),
            ok: asked.contains(&node),
            ..NodeStatus::default()
        };
        let statuses = (0..NODES).map(status).collect();
        merge(rows, columns, query, contributions, statuses)
    }

    fn matrix(&self, query: &Query, rows: usize, columns: usize) -> Matrix {
        self.answer(query, rows, columns, &[0, 1])
    }

    fn sum(&self, series: Series, wanted: impl Fn(&Event) -> bool) -> u64 {
        let events = self.events.iter().filter(|event| !event.lost && wanted(event));
        events.map(|event| event.counts.get(series)).sum()
    }

    /// Whether no column was folded into a coarser one.
    fn unfolded(&self) -> bool {
        self.setup.history.columns == 1_440
    }
}

impl Node {
    fn store(&mut self, flushed: &Flushed, checkpoint: Option<&Column>) {
        let columns = flushed.closed.iter().map(|column| &**column).chain(checkpoint);
        let batch = self.archive.batch(columns, &flushed.removed);
        self.stored.extend(batch.puts);
        batch.deletes.iter().for_each(|key| assert!(self.stored.remove(key).is_some()));
        self.unstored.clear();
    }
}

fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

fn within(event: &Event, span: &ColumnSpan) -> bool {
    (span.start_ms..span.end_ms).contains(&event.column_ms)
}

fn series() -> impl Strategy<Value = Series> {
    prop::sample::select(Series::ALL.to_vec())
}

fn role() -> impl Strategy<Value = Option<Role>> {
    prop::option::weighted(0.3, prop::sample::select(Role::ALL.to_vec()))
}

fn config() -> ProptestConfig {
    let cases = std::env::var("KEYVIZ_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(64),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn law_1_conservation_of_every_count_in_any_answer(
        setup in setup(), actions in actions(), series in series(), role in role(),
        rows in 1usize..12, columns in 1usize..20,
    ) {
        let world = World::of(&setup, &actions);
        let query = Query { role, ..world.everything(series) };
        let matrix = world.matrix(&query, rows, columns);
        let of_role = |event: &Event| role.is_none_or(|role| role == event.role);
        let all = world.sum(series, of_role);
        prop_assert_eq!(matrix.total, all);
        prop_assert_eq!(matrix.rows.iter().flat_map(|row| &row.values).sum::<u64>(), all);
        prop_assert_eq!((matrix.unattributed, matrix.saturated), (0, false));
        prop_assert!(matrix.conflicts.is_empty(), "{:?}", matrix.conflicts);
        for role in Role::ALL {
            let shown: u64 = matrix.rows.iter().map(|row| match role {
                Role::LeaderWrite => row.roles.leader_write,
                Role::LeaderRead => row.roles.leader_read,
                Role::FollowerRead => row.roles.follower_read,
            }).sum();
            let served = world.sum(series, |event| of_role(event) && event.role == role);
            prop_assert_eq!(shown, served, "{:?}", role);
        }
        // Zoomed to two halves of the keys, nothing is lost or doubled at the cut.
        let cut = Bytes::from_static(b"b\x00");
        let below = KeyRange { start: Bytes::new(), end: Some(cut.clone()) };
        let above = KeyRange { start: cut, end: None };
        let half = |range| world.matrix(&Query { range, ..query.clone() }, rows, columns).total;
        prop_assert_eq!(half(below) + half(above), all);
    }

    #[test]
    fn law_3_durable_identity_of_every_cell_and_row(
        setup in setup(), actions in actions(), series in series(), rows in 1usize..12,
    ) {
        // What is flushed is checked on the way, see `World::assert_identities`.
        let world = World::of(&setup, &actions);
        let query = world.everything(series);
        for column in world.nodes.iter().flat_map(|node| node.history.inspect(query.window)) {
            for cell in column.cells() {
                let route = world.ever.get(&cell.route);
                let known = |route: &RouteSpec| cell.aggregate || route.group == cell.group;
                prop_assert!(route.is_some_and(known), "{:?}", cell);
            }
            prop_assert_eq!(column.unattributed(), Counts::ZERO);
        }
        let matrix = world.matrix(&query, rows, 9);
        let named = matrix.rows.iter().flat_map(|row| &row.route_ids);
        for id in named {
            prop_assert!(world.routes.iter().any(|route| route.id == *id));
        }
        let mut ids: Vec<_> = matrix.rows.iter().map(|row| &row.bucket_id).collect();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), matrix.rows.len(), "no id twice");
    }

    #[test]
    fn law_4_aligned_time_of_every_column_on_every_node(
        setup in setup(), actions in actions(), series in series(), columns in 1usize..20,
    ) {
        let world = World::of(&setup, &actions);
        let query = world.everything(series);
        let step_ms = setup.history.step_ms;
        for node in &world.nodes {
            let mut kept: BTreeMap<u64, u64> = BTreeMap::new();
            for column in node.history.inspect(query.window) {
                prop_assert_eq!((column.start_ms() % step_ms, column.end_ms() % step_ms), (0, 0));
                let length_ms = column.end_ms() - column.start_ms();
                prop_assert!(!world.unfolded() || length_ms == step_ms);
                kept.insert(column.start_ms(), column.end_ms());
            }
        }
        let matrix = world.matrix(&query, 6, columns);
        for pair in matrix.columns.windows(2) {
            prop_assert_eq!(pair[0].end_ms, pair[1].start_ms);
        }
        for (index, span) in matrix.columns.iter().enumerate() {
            prop_assert_eq!((span.start_ms % step_ms, span.end_ms % step_ms), (0, 0));
            prop_assert_eq!(span.open, index + 1 == matrix.columns.len());
            if world.unfolded() {
                let all = world.sum(series, |event| within(event, span));
                prop_assert_eq!(matrix.column_total(index), all, "{:?}", span);
            }
        }
    }

    #[test]
    fn law_5_order_of_rows_without_gap_or_overlap_and_the_same_each_time(
        setup in setup(), actions in actions(), series in series(), rows in 1usize..12,
        start in key(), end in prop::option::of(key()),
    ) {
        let start = Bytes::from(start);
        let end = end.map(Bytes::from).filter(|end| *end > start);
        let world = World::of(&setup, &actions);
        let query = Query { range: KeyRange { start, end }, ..world.everything(series) };
        let matrix = world.matrix(&query, rows, 5);
        prop_assert_eq!(&matrix.rows[0].range.start, &query.range.start);
        prop_assert_eq!(&matrix.rows[matrix.rows.len() - 1].range.end, &query.range.end);
        for pair in matrix.rows.windows(2) {
            prop_assert_eq!(pair[0].range.end.as_ref(), Some(&pair[1].range.start));
        }
        prop_assert!(matrix.rows.iter().all(|row| !row.range.is_empty()));
        prop_assert_eq!(world.matrix(&query, rows, 5), matrix.clone(), "the same again");
        let reversed = world.answer(&query, rows, 5, &[1, 0]);
        prop_assert_eq!(reversed, matrix, "whoever answers first");
    }

    #[test]
    fn law_6_bounds_of_slots_rows_columns_and_bytes(
        setup in setup(), actions in actions(), rows in 1usize..12, columns in 1usize..20,
    ) {
        let world = World::of(&setup, &actions);
        let matrix = world.matrix(&world.everything(Series::Reads), rows, columns);
        prop_assert!(matrix.rows.len() <= rows && matrix.columns.len() <= columns);
        prop_assert!(matrix.rows.iter().all(|row| row.route_ids.len() <= 3));
        for node in &world.nodes {
            node.sampler.harvest();
            let stats = node.sampler.stats();
            let slots = setup.sampler.resolution_slots.max(GROUPS as usize);
            prop_assert!(stats.slots <= slots, "{} slots of {}", stats.slots, slots);
            // One that is held, one that this thread loaded last.
            prop_assert!(stats.draining <= 2, "{:?}", stats);
            // A block a shard and the overflow, each of 32 bytes a slot in whole pages of 128.
            let blocks = (stats.draining + 1) * (setup.sampler.shards + 1);
            prop_assert!(stats.counter_bytes <= blocks * (32 * slots + 128), "{:?}", stats);
            prop_assert!(node.history.holdings().bytes <= setup.history.bytes);
            let everything = world.everything(Series::Reads).window;
            let raw = node.history.inspect(everything).iter()
                .filter(|column| column.end_ms() - column.start_ms() == setup.history.step_ms)
                .count();
            let tiered = setup.history.step_ms < LAST_TIER_MS;
            prop_assert!(!tiered || raw <= setup.history.columns + 2, "{} raw columns", raw);
        }
    }

    #[test]
    fn law_7_honest_partiality_of_what_died_was_estimated_or_did_not_answer(
        setup in setup(), actions in actions(), series in series(), rows in 1usize..12,
        columns in 1usize..20, silent in 0..NODES,
    ) {
        let world = World::of(&setup, &actions);
        let query = world.everything(series);
        let matrix = world.matrix(&query, rows, columns);
        for (index, span) in (0u32..).zip(&matrix.columns) {
            let lost = world.events.iter().any(|event| event.lost && within(event, span));
            for row in &matrix.rows {
                prop_assert!(!lost || row.partial.contains(index), "a loss that is not shown");
                // What is not said to be estimated is exact.
                if !row.apportioned.contains(index) {
                    let exact = world.sum(series, |event| {
                        within(event, span) && row.range.contains(&event.key)
                    });
                    prop_assert_eq!(row.values[index as usize], exact, "{} {:?}", row.bucket_id, span);
                }
            }
        }
        let whole = matrix.rows.iter().all(|row| row.partial.is_empty());
        prop_assert!(world.deaths > 0 || whole, "partial, and nobody died");
        prop_assert_eq!((matrix.responded, matrix.expected), (2, 2));
        let asked = 1 - silent;
        let torn = world.answer(&query, rows, columns, &[asked]);
        prop_assert_eq!((torn.responded, torn.expected), (1, 2));
        prop_assert!(torn.rows.iter().all(|row| row.partial.len() == torn.columns.len()));
    }
}
