//! A cluster made of lists, for tests: routes that split and merge, leaders that change, samplers
//! that resolve routes finer or coarser, and beside it all a plain list of what happened.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use crate::history::*;
use crate::matrix::*;
use crate::query::*;
use crate::sampler::*;
use crate::wire::*;
use crate::*;

pub(crate) const STEP_MS: u64 = 1_000;
pub(crate) const GROUPS: u64 = 3;
pub(crate) const NODES: u64 = 3;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Operations on a key, at a node for reads (the leader's, for writes).
    Operate {
        key: Vec<u8>,
        node: u64,
        write: bool,
        count: u64,
        bytes: u64,
    },
    /// Time passes; nodes flush at every boundary.
    Pass {
        ms: u64,
    },
    /// A node hands over what it has, in the middle of a column.
    Flush {
        node: u64,
    },
    Split {
        key: Vec<u8>,
    },
    Merge {
        at: usize,
    },
    Lead {
        group: u64,
        node: u64,
    },
    /// A node resolves routes anew: which it cuts at which key, which neighbours it joins.
    Resolve {
        node: u64,
        cuts: Vec<Vec<u8>>,
        join: Option<(usize, usize)>,
    },
    /// A node stops in good order and starts again.
    Restart {
        node: u64,
    },
    /// A node dies and starts again.
    Kill {
        node: u64,
    },
}

pub(crate) fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(
        prop_oneof![Just(b'a'), Just(b'b'), Just(0u8), Just(255u8), b'a'..=b'z'],
        1..4,
    )
}

pub(crate) fn actions(longest: usize) -> impl Strategy<Value = Vec<Action>> {
    let node = 0..NODES;
    let action = prop_oneof![
        12 => (key(), node.clone(), any::<bool>(), 1u64..20, 0u64..2_000).prop_map(
            |(key, node, write, count, bytes)| Action::Operate { key, node, write, count, bytes }),
        5 => (1u64..3_000).prop_map(|ms| Action::Pass { ms }),
        1 => node.clone().prop_map(|node| Action::Flush { node }),
        2 => key().prop_map(|key| Action::Split { key }),
        1 => (0usize..8).prop_map(|at| Action::Merge { at }),
        1 => (1..=GROUPS, node.clone()).prop_map(|(group, node)| Action::Lead { group, node }),
        2 => (node.clone(), prop::collection::vec(key(), 0..4),
              prop::option::of((0usize..6, 2usize..5)))
            .prop_map(|(node, cuts, join)| Action::Resolve { node, cuts, join }),
        1 => node.clone().prop_map(|node| Action::Restart { node }),
        1 => node.prop_map(|node| Action::Kill { node }),
    ];
    prop::collection::vec(action, 1..longest)
}

/// What happened, for the model.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub at_ms: u64,
    pub key: Vec<u8>,
    pub role: Role,
    pub counts: Counts,
    /// Gone with the node that counted it.
    pub lost: bool,
}

pub(crate) struct Node {
    pub history: History,
    layout: Arc<Layout>,
    pending: Vec<(Arc<Layout>, BTreeMap<u32, Counts>)>,
    cuts: Vec<Vec<u8>>,
    join: Option<(usize, usize)>,
    archive: Archive,
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Indices of events that are nowhere but in the sampler.
    unstored: Vec<usize>,
}

pub(crate) struct World {
    pub now_ms: u64,
    pub routes: Vec<RouteSpec>,
    pub version: u64,
    next_id: u64,
    /// Leader and term by group.
    leaders: BTreeMap<u64, (u64, u64)>,
    pub nodes: Vec<Node>,
    pub events: Vec<Event>,
}

impl World {
    pub fn new(config: HistoryConfig) -> Self {
        let now_ms = 1_000_000 * STEP_MS + 17;
        let routes =
            vec![RouteSpec { id: RouteId::FIRST, range: KeyRange::all(), group: GroupId(1) }];
        let leaders = (1..=GROUPS).map(|group| (group, (group % NODES, 1))).collect();
        let node = |node: u64| Node {
            history: History::new(config, NodeId(node), Incarnation(1), now_ms).expect("valid"),
            layout: Arc::new(Layout { catalog_version: 0, slots: vec![] }),
            pending: vec![],
            cuts: vec![],
            join: None,
            archive: Archive::default(),
            stored: BTreeMap::new(),
            unstored: vec![],
        };
        let nodes = (0..NODES).map(node).collect();
        let mut world =
            World { now_ms, routes, version: 1, next_id: 2, leaders, nodes, events: vec![] };
        world.publish_all();
        (0..NODES).for_each(|node| world.flush(node));
        world
    }

    pub fn run(&mut self, actions: &[Action]) {
        actions.iter().for_each(|action| self.act(action));
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Operate { key, node, write, count, bytes } => {
                self.operate(key, *node, *write, *count, *bytes)
            }
            Action::Pass { ms } => self.pass(*ms),
            Action::Flush { node } => self.flush(*node),
            Action::Split { key } => self.split(key),
            Action::Merge { at } => self.merge(*at),
            Action::Lead { group, node } => {
                let leader = self.leaders.get_mut(group).expect("a group of the world");
                *leader = (*node, leader.1 + 1);
                self.publish_all();
            }
            Action::Resolve { node, cuts, join } => {
                let at = &mut self.nodes[*node as usize];
                (at.cuts, at.join) = (cuts.clone(), *join);
                self.publish(*node);
            }
            Action::Restart { node } => {
                self.nodes[*node as usize].stop(self.now_ms);
                self.nodes[*node as usize].start(self.now_ms);
            }
            Action::Kill { node } => self.kill(*node),
        }
    }

    fn operate(&mut self, key: &[u8], node: u64, write: bool, count: u64, bytes: u64) {
        let group =
            self.routes.iter().find(|route| route.range.contains(key)).expect("covered").group;
        let (leader, _) = self.leaders[&group.0];
        let node = if write { leader } else { node };
        let counts = match write {
            true => Counts { writes: count, write_bytes: bytes, ..Counts::ZERO },
            false => Counts { reads: count, read_bytes: bytes, ..Counts::ZERO },
        };
        let role = match (write, node == leader) {
            (true, _) => Role::LeaderWrite,
            (false, true) => Role::LeaderRead,
            (false, false) => Role::FollowerRead,
        };
        self.nodes[node as usize].unstored.push(self.events.len());
        self.events.push(Event {
            at_ms: self.now_ms,
            key: key.to_vec(),
            role,
            counts,
            lost: false,
        });
        let node = &mut self.nodes[node as usize];
        let layout = &node.layout;
        let slot = layout
            .slots
            .iter()
            .position(|slot| slot.range.contains(key) && slot.group == group)
            .expect("every key has a slot of its group") as u32;
        match node.pending.iter_mut().find(|(pending, _)| Arc::ptr_eq(pending, layout)) {
            Some((_, cells)) => cells.entry(slot).or_default().add(&counts),
            None => node.pending.push((Arc::clone(layout), BTreeMap::from([(slot, counts)]))),
        }
    }

    fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms / STEP_MS < until / STEP_MS {
            self.now_ms = (self.now_ms / STEP_MS + 1) * STEP_MS;
            (0..NODES).for_each(|node| self.flush(node));
        }
        self.now_ms = until;
    }

    fn flush(&mut self, node: u64) {
        self.nodes[node as usize].flush(self.now_ms);
    }

    fn kill(&mut self, node: u64) {
        let node = &mut self.nodes[node as usize];
        node.pending.clear();
        for event in std::mem::take(&mut node.unstored) {
            self.events[event].lost = true;
        }
        node.start(self.now_ms);
    }

    fn split(&mut self, key: &[u8]) {
        let at = self.routes.iter().position(|route| route.range.contains(key)).expect("covered");
        let RouteSpec { range, group, .. } = self.routes[at].clone();
        if range.start == key {
            return;
        }
        let middle = Bytes::copy_from_slice(key);
        let left = KeyRange { start: range.start, end: Some(middle.clone()) };
        let right = KeyRange { start: middle, end: range.end };
        // The right half goes to another group, as routes do over a cluster's life.
        let other = GroupId(group.0 % GROUPS + 1);
        let (left, right) = (self.route(left, group), self.route(right, other));
        self.routes.splice(at..=at, [left, right]);
        self.publish_all();
    }

    fn merge(&mut self, at: usize) {
        if self.routes.len() < 2 {
            return;
        }
        let at = at % (self.routes.len() - 1);
        let range = KeyRange {
            start: self.routes[at].range.start.clone(),
            end: self.routes[at + 1].range.end.clone(),
        };
        let merged = self.route(range, self.routes[at].group);
        self.routes.splice(at..=at + 1, [merged]);
        self.publish_all();
    }

    fn route(&mut self, range: KeyRange, group: GroupId) -> RouteSpec {
        let id = RouteId::new(self.next_id).expect("starts above 0");
        self.next_id += 1;
        RouteSpec { id, range, group }
    }

    fn publish_all(&mut self) {
        self.version += 1;
        (0..NODES).for_each(|node| self.publish(node));
    }

    fn publish(&mut self, node: u64) {
        let slots = self.slots(node);
        let catalog_version = self.version;
        self.nodes[node as usize].layout = Arc::new(Layout { catalog_version, slots });
    }

    fn slots(&self, node: u64) -> Vec<Slot> {
        let at = &self.nodes[node as usize];
        let lead = |group: GroupId| {
            let (leader, term) = self.leaders[&group.0];
            (leader == node).then_some(Term(term))
        };
        let joined = match at.join {
            Some((from, count)) if from + 1 < self.routes.len() => {
                from..(from + count).min(self.routes.len())
            }
            _ => 0..0,
        };
        let mut slots = Vec::new();
        for (index, route) in self.routes.iter().enumerate() {
            if joined.contains(&index) {
                if index == joined.start {
                    slots.extend(aggregate(&self.routes[joined.clone()], lead));
                }
                continue;
            }
            let mut cuts: Vec<&Vec<u8>> = at
                .cuts
                .iter()
                .filter(|cut| route.range.contains(cut) && route.range.start != **cut)
                .collect();
            cuts.sort();
            cuts.dedup();
            let mut start = route.range.start.clone();
            let count = cuts.len();
            let ends = cuts.into_iter().map(|cut| Some(Bytes::copy_from_slice(cut)));
            for (index, end) in (0..).zip(ends.chain([route.range.end.clone()])) {
                let bucket = match count {
                    0 => Bucket::Route(route.id),
                    _ => Bucket::SubRange { route: route.id, index },
                };
                let range = KeyRange { start, end: end.clone() };
                slots.push(Slot { range, bucket, group: route.group, lead: lead(route.group) });
                start = end.unwrap_or_default();
            }
        }
        slots
    }

    /// The matrix as the cluster would answer it, what is pending being peeked at.
    pub fn matrix(&self, query: &Query, max_rows: usize, max_columns: usize) -> Matrix {
        let (rows, columns) = self.plan(query, max_rows, max_columns);
        let contributions = self.contributions(query, &rows, &columns);
        merge(rows, columns, query, contributions, self.statuses())
    }

    pub fn plan(
        &self,
        query: &Query,
        max_rows: usize,
        max_columns: usize,
    ) -> (RowPlan, ColumnPlan) {
        let totals: Vec<NodeTotals> =
            self.nodes.iter().map(|node| node.history.totals(query, node.peek())).collect();
        for totals in &totals {
            totals.check(&query.range).expect("a node's own totals are in order");
        }
        let request = PlanRequest {
            routes: &self.routes,
            catalog_version: self.version,
            range: &query.range,
            max_rows,
            max_route_ids: 3,
            boundaries: None,
        };
        let rows = plan(&request, &totals).expect("the world's routes cover the key space");
        let columns =
            plan_columns(query.window, STEP_MS, max_columns, self.now_ms).expect("within bounds");
        (rows, columns)
    }

    pub fn contributions(
        &self,
        query: &Query,
        rows: &RowPlan,
        columns: &ColumnPlan,
    ) -> Vec<NodeColumns> {
        let contribution =
            |node: &Node| node.history.columns(query, &rows.axis(), columns, node.peek());
        self.nodes.iter().map(contribution).collect()
    }

    pub fn statuses(&self) -> Vec<NodeStatus> {
        let status = |node: &Node| NodeStatus {
            node: Some(node.history.node()),
            ok: true,
            ..NodeStatus::default()
        };
        self.nodes.iter().map(status).collect()
    }

    /// All route ids are below this one.
    pub fn next_route(&self) -> u64 {
        self.next_id
    }

    /// Everything that happened, all of it in the window.
    pub fn everything(&self, series: Series) -> Query {
        let window = Window { from_ms: 999_000 * STEP_MS, to_ms: self.now_ms + STEP_MS };
        Query { window, range: KeyRange::all(), series, role: None }
    }
}

impl Node {
    fn harvest(pending: &mut Vec<(Arc<Layout>, BTreeMap<u32, Counts>)>) -> Harvest {
        let segment = |(layout, cells): (_, BTreeMap<u32, Counts>)| Segment {
            layout,
            cells: cells.into_iter().collect(),
        };
        Harvest {
            segments: std::mem::take(pending).into_iter().map(segment).collect(),
            unattributed: Counts::ZERO,
            hot_keys: None,
        }
    }

    fn flush(&mut self, now_ms: u64) {
        let flushed = self.history.add(now_ms, Node::harvest(&mut self.pending));
        let checkpoint = self.history.checkpoint();
        self.store(&flushed, Some(&checkpoint));
    }

    fn stop(&mut self, now_ms: u64) {
        let flushed = self.history.close(now_ms, Node::harvest(&mut self.pending));
        self.store(&flushed, None);
    }

    fn store(&mut self, flushed: &Flushed, checkpoint: Option<&Column>) {
        let columns = flushed.closed.iter().map(|column| &**column).chain(checkpoint);
        let batch = self.archive.batch(columns, &flushed.removed);
        self.stored.extend(batch.puts);
        batch.deletes.iter().for_each(|key| assert!(self.stored.remove(key).is_some()));
        self.unstored.clear();
    }

    fn start(&mut self, now_ms: u64) {
        let incarnation = Incarnation(self.history.incarnation().0 + 1);
        let (config, id) = (*self.history.config(), self.history.node());
        self.history = History::new(config, id, incarnation, now_ms).expect("valid");
        let opened = Archive::open(&self.stored);
        assert!(opened.damaged.is_empty() && opened.garbage == Batch::default());
        self.archive = opened.archive;
        let flushed = self.history.restore(opened.columns);
        let checkpoint = self.history.checkpoint();
        self.store(&flushed, Some(&checkpoint));
    }

    pub fn peek(&self) -> Harvest {
        Node::harvest(&mut self.pending.clone())
    }
}

/// One slot a group over the range of all routes.
fn aggregate(routes: &[RouteSpec], lead: impl Fn(GroupId) -> Option<Term>) -> Vec<Slot> {
    let range = KeyRange {
        start: routes[0].range.start.clone(),
        end: routes[routes.len() - 1].range.end.clone(),
    };
    let mut groups: BTreeMap<GroupId, Vec<RouteId>> = BTreeMap::new();
    routes.iter().for_each(|route| groups.entry(route.group).or_default().push(route.id));
    let slot = |(group, first): (GroupId, Vec<RouteId>)| Slot {
        range: range.clone(),
        bucket: Bucket::Aggregate(Arc::new(Members {
            count: first.len() as u64,
            first,
            digest: 0,
        })),
        group,
        lead: lead(group),
    };
    groups.into_iter().map(slot).collect()
}
