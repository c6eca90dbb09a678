//! The autopilot as a control loop in simulated time: generated loads on a modelled cluster, where
//! acts take time, fail, and meet those of an operator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use bytes::Bytes;

use super::journal::Past;
use super::layout::Layout;
use super::{By, Cold, Decision, Health, Input, Policy, Present, RangeCost, State, decide};
use crate::insight::{Act, GroupPlace, Load, LoadRow, Topology, overlap, within};
use crate::query::{ColumnSet, ColumnSpan};
use crate::random::Random;
use keyviz_types::{GroupId, KeyRange, NodeId, RouteId, RouteSpec};

const STEP_MS: u64 = 2_000;
const START_MS: u64 = 1_800_000_000_000;
/// Columns that are asked for.
const COLUMNS: usize = 8;
/// Keys of the model. Each is counted by itself; rows have several.
const KEYS: usize = 2_000;
/// Rows, at most; the sampler follows the load with a delay of two columns.
const ROWS: usize = 160;

static NAMES: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let name = |at| match at {
        0 => Bytes::new(),
        at => Bytes::from(format!("key/{at:05}")),
    };
    (0..KEYS).map(name).collect()
});

fn key(at: usize) -> Bytes {
    NAMES[at].clone()
}

fn number(key: &Bytes) -> usize {
    let text = std::str::from_utf8(key).unwrap_or_default();
    text.strip_prefix("key/").and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn span(from: usize, to: usize) -> KeyRange {
    KeyRange { start: key(from), end: (to < KEYS).then(|| key(to)) }
}

/// What has begun.
struct Running {
    id: u64,
    done_ms: u64,
    fails: bool,
}

/// A cluster and its load.
pub struct World {
    pub(super) random: Random,
    pub now_ms: u64,
    pub topology: Topology,
    /// Operations a second of each key.
    pub rates: Vec<f64>,
    pub policy: Policy,
    pub journal: Vec<Past>,
    pub health: Health,
    cold: Cold,
    next_route: u64,
    running: Vec<Running>,
    /// The rates of the last columns, oldest first.
    past: Vec<Vec<f64>>,
    /// Loads by which rows are planned.
    planned: Vec<f64>,
    /// When keys were moved: time, keys, from node and to node.
    pub moved: Vec<(u64, KeyRange, NodeId, NodeId)>,
    pub last: Decision,
    /// Part of the acts that fail.
    pub failures: f64,
}

impl World {
    /// Default splits: the keys of a load lie in one route, or in some.
    pub fn new(seed: u64) -> World {
        let mut random = Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d) ^ 0x77);
        let nodes = random.whole(3, 8);
        let groups = nodes + random.whole(0, 9);
        let replicas = 3.min(nodes);
        let place = |group: usize| {
            let of = (0..replicas).map(|at| NodeId(((group + at) % nodes) as u64 + 1));
            let replicas: Vec<NodeId> = of.collect();
            GroupPlace { group: GroupId(group as u64 + 1), leader: Some(replicas[0]), replicas }
        };
        let topology = Topology {
            nodes: (1..=nodes as u64).map(NodeId).collect(),
            groups: (0..groups).map(place).collect(),
            routes: Vec::new(),
        };
        let mut world = World {
            random,
            now_ms: START_MS,
            topology,
            rates: vec![0.0; KEYS],
            policy: Policy::default(),
            journal: Vec::new(),
            health: Health::default(),
            cold: Cold::default(),
            next_route: 1,
            running: Vec::new(),
            past: Vec::new(),
            planned: vec![0.0; KEYS],
            moved: Vec::new(),
            last: Decision::default(),
            failures: 0.05,
        };
        // One route a group, of unequal width; sometimes one has nearly all keys.
        let mut cuts = BTreeSet::new();
        let narrow = world.random.chance(0.4);
        while cuts.len() + 1 < groups {
            let most = if narrow { 60 } else { KEYS };
            cuts.insert(world.random.whole(1, most));
        }
        let mut from = 0;
        for (at, to) in cuts.into_iter().chain([KEYS]).enumerate() {
            let group = GroupId((at % groups) as u64 + 1);
            world.add_route(span(from, to), group);
            from = to;
        }
        world
    }

    fn add_route(&mut self, range: KeyRange, group: GroupId) {
        let id = RouteId::new(self.next_route).expect("not 0");
        self.next_route += 1;
        self.topology.routes.push(RouteSpec { id, range, group });
        self.topology.routes.sort_by(|a, b| a.range.start.cmp(&b.range.start));
    }

    /// The load of each node, without noise.
    pub fn nodes(&self) -> BTreeMap<NodeId, f64> {
        let row = |route: &RouteSpec| {
            let to = route.range.end.as_ref().map_or(KEYS, number);
            let led = self.rates[number(&route.range.start)..to].iter().sum();
            RangeCost { range: route.range.clone(), led, followed: 0.0, operations: led }
        };
        let ranges = self.topology.routes.iter().map(row).collect();
        let present = Present { ranges, columns: 4, partial: false };
        Layout::new(&self.topology, &present).nodes()
    }

    pub fn imbalance(&self) -> f64 {
        super::imbalance(&self.nodes())
    }

    /// Rows that follow the planned load, never across routes.
    fn rows(&self) -> Vec<KeyRange> {
        let total: f64 = self.planned.iter().sum();
        let (most, mut sum, mut count) = (total / ROWS as f64, 0.0, 0);
        let routes = self.topology.routes.iter();
        let begin: BTreeSet<usize> = routes.map(|route| number(&route.range.start)).collect();
        let mut starts = vec![0];
        for at in 1..KEYS {
            sum += self.planned[at - 1];
            count += 1;
            let begins = begin.contains(&at);
            let full = sum + self.planned[at] > most || count >= KEYS / 24;
            if begins || full {
                starts.push(at);
                (sum, count) = (0.0, 0);
            }
        }
        let ends = starts[1..].iter().copied().chain([KEYS]);
        starts.iter().zip(ends).map(|(&from, to)| span(from, to)).collect()
    }

    fn load(&mut self) -> Load {
        let rows = self.rows();
        let first_ms = self.now_ms - STEP_MS * self.past.len() as u64;
        let column = |at: usize| {
            let start_ms = first_ms + STEP_MS * at as u64;
            ColumnSpan { start_ms, end_ms: start_ms + STEP_MS, open: false }
        };
        let columns = (0..self.past.len()).map(column).collect();
        let mut of_rows = Vec::new();
        for range in rows {
            let from = number(&range.start);
            let to = range.end.as_ref().map_or(KEYS, number);
            let mut row = LoadRow::new(range);
            for rates in &self.past {
                let sum = rates[from..to].iter().sum::<f64>() * STEP_MS as f64 / 1e3;
                // Counts vary by chance, and a little more.
                let noise = self.random.real(-1.0, 1.0) * (sum.sqrt() * 1.7 + sum * 0.04);
                row.writes.push((sum + noise).max(0.0) as u64);
            }
            of_rows.push(row);
        }
        Load { columns, partial: ColumnSet::new(), rows: of_rows }
    }

    /// A column passes; the autopilot looks once.
    pub fn tick(&mut self) {
        self.now_ms += STEP_MS;
        self.past.push(self.rates.clone());
        if self.past.len() > COLUMNS {
            self.past.remove(0);
        }
        self.finish();
        let load = self.load();
        // The next plan of rows knows what was counted until now.
        let before = self.past.len().saturating_sub(2);
        self.planned = self.past[before].clone();
        let present = super::present(&load, self.now_ms);
        self.cold.observe(&present, &self.topology, self.now_ms);
        let decision = decide(&Input {
            load: &load,
            topology: &self.topology,
            health: &self.health,
            journal: &self.journal,
            cold: &self.cold,
            policy: &self.policy,
            now_ms: self.now_ms,
        });
        for planned in decision.acts.clone() {
            self.begin(By::Autopilot, planned.act);
        }
        self.last = decision;
    }

    /// Begins an act, which takes up to six seconds.
    pub fn begin(&mut self, by: By, act: Act) {
        let id = self.journal.len() as u64 + 1;
        let (from_group, from_node) = self.from(&act);
        self.journal.push(Past {
            id,
            by,
            act,
            from_group,
            from_node,
            state: State::UnderWay,
            started_ms: self.now_ms,
            ended_ms: None,
            worse: false,
            undone: false,
        });
        let done_ms = self.now_ms + self.random.whole(300, 6_000) as u64;
        let fails = self.random.chance(self.failures);
        self.running.push(Running { id, done_ms, fails });
    }

    fn from(&self, act: &Act) -> (Option<GroupId>, Option<NodeId>) {
        let group = match act {
            Act::SplitAndMove { range, .. } | Act::Move { range, .. } => {
                let inside = |route: &&RouteSpec| overlap(&route.range, range);
                self.topology.routes.iter().find(inside).map(|route| route.group)
            }
            Act::TransferLeader { group, .. } => Some(*group),
            _ => None,
        };
        let leader = group.and_then(|group| self.topology.place(group)?.leader);
        (group, leader)
    }

    fn finish(&mut self) {
        let (done, running) = std::mem::take(&mut self.running)
            .into_iter()
            .partition::<Vec<_>, _>(|running| running.done_ms <= self.now_ms);
        self.running = running;
        for Running { id, done_ms, fails } in done {
            let at = id as usize - 1;
            let (act, from) = (self.journal[at].act.clone(), self.journal[at].from_node);
            let made = !fails && self.make(&act);
            let past = &mut self.journal[at];
            past.state = if made { State::Done } else { State::Failed };
            past.ended_ms = Some(done_ms);
            if made {
                self.note(done_ms, &act, from);
            }
        }
    }

    fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.topology.place(group)?.leader
    }

    fn note(&mut self, at_ms: u64, act: &Act, from: Option<NodeId>) {
        let Some(from) = from else { return };
        let to = match act {
            Act::SplitAndMove { to, .. } | Act::Move { to, .. } => self.leader(*to),
            Act::TransferLeader { to, .. } => Some(*to),
            _ => None,
        };
        let Some(to) = to else { return };
        match act {
            Act::SplitAndMove { range, .. } | Act::Move { range, .. } => {
                self.moved.push((at_ms, range.clone(), from, to));
            }
            Act::TransferLeader { group, .. } => {
                for route in self.topology.routes.iter().filter(|route| route.group == *group) {
                    self.moved.push((at_ms, route.range.clone(), from, to));
                }
            }
            _ => {}
        }
    }

    /// Makes a change as the catalog would; `false`: it refuses.
    fn make(&mut self, act: &Act) -> bool {
        match act {
            Act::Split { at } => self.split(at),
            Act::SplitAndMove { at, range, to } => self.split(at) && self.give(range, *to),
            Act::Move { range, to } => self.give(range, *to),
            Act::TransferLeader { group, to } => {
                let of = |place: &&mut GroupPlace| place.group == *group;
                let Some(place) = self.topology.groups.iter_mut().find(of) else { return false };
                let holds = place.replicas.contains(to);
                place.leader = if holds { Some(*to) } else { place.leader };
                holds
            }
            Act::Merge { range } => {
                let inside = |route: &&RouteSpec| within(&route.range, range);
                let routes: Vec<RouteSpec> =
                    self.topology.routes.iter().filter(inside).cloned().collect();
                let group = routes.first().map(|route| route.group);
                let same = routes.iter().all(|route| Some(route.group) == group);
                let (Some(group), true) = (group, same && routes.len() > 1) else { return false };
                self.topology.routes.retain(|route| !within(&route.range, range));
                self.add_route(range.clone(), group);
                true
            }
            Act::ReadFromFollowers { .. } => false,
        }
    }

    fn split(&mut self, at: &Bytes) -> bool {
        let inside = |route: &RouteSpec| route.range.start < *at && route.range.contains(at);
        let Some(found) = self.topology.routes.iter().position(inside) else { return false };
        let RouteSpec { range, group, .. } = self.topology.routes.remove(found);
        self.add_route(KeyRange { start: range.start, end: Some(at.clone()) }, group);
        self.add_route(KeyRange { start: at.clone(), end: range.end }, group);
        true
    }

    fn give(&mut self, range: &KeyRange, to: GroupId) -> bool {
        let mut given = false;
        let inside = self.topology.routes.iter_mut().filter(|route| within(&route.range, range));
        for route in inside {
            (route.group, given) = (to, true);
        }
        given
    }

    /// Of all keys that moved, those that moved again within the cool-down.
    pub fn moved_twice(&self) -> Vec<String> {
        let cool_ms = self.policy.cool_down_ms();
        let mut twice = Vec::new();
        for (at, first) in self.moved.iter().enumerate() {
            for again in &self.moved[at + 1..] {
                let soon = again.0.abs_diff(first.0) < cool_ms;
                if soon && overlap(&first.1, &again.1) {
                    twice.push(format!("{first:?} and {again:?}"));
                }
            }
        }
        twice
    }

    /// The most acts of the autopilot that began within a minute.
    pub fn busiest_minute(&self) -> usize {
        let begun: Vec<u64> = self
            .journal
            .iter()
            .filter(|past| past.by == By::Autopilot)
            .map(|past| past.started_ms)
            .collect();
        let within =
            |from: &u64| begun.iter().filter(|at| (*from..*from + 60_000).contains(*at)).count();
        begun.iter().map(within).max().unwrap_or(0)
    }

    pub fn moves_under_way(&self) -> usize {
        let moving = |past: &&Past| past.state == State::UnderWay && super::input::moves(&past.act);
        self.journal.iter().filter(moving).count()
    }
}

/// Puts a load on the keys of a world, of which no key has more than a splittable part.
pub fn splittable(world: &mut World) -> &'static str {
    let total = world.random.real(2_000.0, 60_000.0);
    let mut shape = vec![0.0; KEYS];
    let kind = world.random.whole(0, 6);
    let spot = |random: &mut Random, shape: &mut Vec<f64>, part: f64, widest: usize| {
        let width = random.whole(60, widest);
        let from = random.whole(0, KEYS - width);
        for cell in &mut shape[from..from + width] {
            *cell += part / width as f64;
        }
    };
    let name = match kind {
        0 => {
            spot(&mut world.random, &mut shape, 0.9, 300);
            "one hot spot"
        }
        1 => {
            spot(&mut world.random, &mut shape, 0.5, 300);
            spot(&mut world.random, &mut shape, 0.35, 600);
            "two hot spots"
        }
        2 => {
            // Scattered, the hottest key far below a fair share.
            for rank in 1..=KEYS {
                let at = world.random.whole(0, KEYS);
                shape[at] += 0.9 / (rank as f64 + 60.0) / 3.5;
            }
            "zipf"
        }
        3 => {
            let from = world.random.whole(0, KEYS / 2);
            shape[from..from + KEYS / 2].fill(1.8 / KEYS as f64);
            "half of the keys"
        }
        4 => {
            let slope = world.random.real(1.0, 4.0);
            for (at, cell) in shape.iter_mut().enumerate() {
                *cell = (at as f64 / KEYS as f64).powf(slope) / KEYS as f64;
            }
            "a slope"
        }
        _ => "uniform",
    };
    let sum: f64 = shape.iter().sum();
    let rest = if kind == 5 { 1.0 } else { 0.1 };
    for (rate, part) in world.rates.iter_mut().zip(&shape) {
        let part = if sum > 0.0 { part / sum * (1.0 - rest) } else { 0.0 };
        *rate = total * (part + rest / KEYS as f64);
    }
    name
}

/// One hot spot of some keys, beside a small even load.
pub fn spot(world: &mut World, from: usize, width: usize, total: f64) {
    world.rates.fill(total * 0.1 / KEYS as f64);
    for rate in &mut world.rates[from..from + width] {
        *rate += total * 0.9 / width as f64;
    }
}

pub const ALL_KEYS: usize = KEYS;
pub const COLUMN_MS: u64 = STEP_MS;
