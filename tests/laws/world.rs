//! Two nodes with their samplers, histories and stores, and beside them a list of what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use keyviz_core::{history::*, matrix::*, query::*, sampler::*, *};

use crate::actions::{Action, GROUPS, NODES, Setup};

/// A column boundary and a bit, far from the start of Unix time, so that clocks can go back.
const START_MS: u64 = 450_000 * 3_600_000 + 123;

/// What happened, for the model.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Start of the column that was open at the node.
    pub(crate) column_ms: u64,
    pub(crate) key: Vec<u8>,
    pub(crate) role: Role,
    pub(crate) counts: Counts,
    /// Gone with the node that counted it.
    pub(crate) lost: bool,
}

pub(crate) struct Node {
    pub(crate) sampler: Sampler,
    pub(crate) history: History,
    pub(crate) archive: Archive,
    pub(crate) stored: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) held: Option<Arc<Epoch>>,
    /// Indices of events that are nowhere but in the sampler.
    pub(crate) unstored: Vec<usize>,
}

pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) now_ms: u64,
    /// The latest that the clocks ever showed.
    pub(crate) latest_ms: u64,
    pub(crate) routes: Vec<RouteSpec>,
    pub(crate) version: u64,
    /// All routes that there ever were.
    pub(crate) ever: BTreeMap<RouteId, RouteSpec>,
    /// The routes of each version.
    pub(crate) tables: BTreeMap<u64, Vec<RouteId>>,
    pub(crate) leaders: BTreeMap<GroupId, (usize, Term)>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) events: Vec<Event>,
    pub(crate) deaths: usize,
    /// Nodes that have handed over.
    pub(crate) handed: BTreeSet<usize>,
}

impl World {
    pub(crate) fn of(setup: &Setup, actions: &[Action]) -> World {
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
            handed: BTreeSet::new(),
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
            Action::HandOver { from, to } => self.hand_over(*from, *to),
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

    /// A node hands over all that it has counted and stops in good order; then it starts again.
    fn hand_over(&mut self, from: usize, to: usize) {
        self.store_all(from);
        self.handed.insert(from);
        let at = &self.nodes[from];
        for handoff in at.history.handoffs(at.sampler.peek()) {
            self.nodes[to].history.take_handoff(handoff);
        }
        self.start(from);
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
        self.nodes[node].sampler.set_leader_terms(&leads);
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

    pub(crate) fn everything(&self, series: Series) -> Query {
        let to_ms = self.latest_ms + self.setup.history.step_ms;
        let window = Window { from_ms: 0, to_ms };
        Query { window, range: KeyRange::all(), series, role: None }
    }

    /// What the nodes `asked` answer, merged.
    pub(crate) fn answer(
        &self,
        query: &Query,
        rows: usize,
        columns: usize,
        asked: &[usize],
    ) -> Matrix {
        self.on_axis(query, rows, columns, asked, &[])
    }

    /// The same between `boundaries`; none: planned.
    pub(crate) fn on_axis(
        &self,
        query: &Query,
        rows: usize,
        columns: usize,
        asked: &[usize],
        boundaries: &[Bytes],
    ) -> Matrix {
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
            boundaries: (!boundaries.is_empty()).then_some(boundaries),
        };
        let rows = plan(&request, &totals).expect("the world's routes cover the key space");
        let step_ms = self.setup.history.step_ms;
        let columns = plan_columns(query.window, step_ms, columns, self.latest_ms).expect("few");
        let axis = rows.axis();
        let contribution = |node: &usize| {
            let own = views[*node].columns(query, &axis, &columns);
            std::iter::once(own).chain(views[*node].handed_over(query, &axis, &columns))
        };
        let contributions = asked.iter().flat_map(contribution).collect();
        let status = |node| NodeStatus {
            node: Some(id(node)),
            ok: asked.contains(&node),
            ..NodeStatus::default()
        };
        let statuses = (0..NODES).map(status).collect();
        merge(rows, columns, query, contributions, statuses)
    }

    pub(crate) fn matrix(&self, query: &Query, rows: usize, columns: usize) -> Matrix {
        self.answer(query, rows, columns, &[0, 1, 2])
    }

    pub(crate) fn sum(&self, series: Series, wanted: impl Fn(&Event) -> bool) -> u64 {
        let events = self.events.iter().filter(|event| !event.lost && wanted(event));
        events.map(|event| event.counts.get(series)).sum()
    }

    pub(crate) fn step_ms(&self) -> u64 {
        self.setup.history.step_ms
    }

    /// Whether no column was folded into a coarser one.
    pub(crate) fn unfolded(&self) -> bool {
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

pub(crate) fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

pub(crate) fn within(event: &Event, span: &ColumnSpan) -> bool {
    (span.start_ms..span.end_ms).contains(&event.column_ms)
}
