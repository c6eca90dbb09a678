//! Loads of which it is known what is in them: by seed, with noise, several kinds at once, and
//! things that must not be found.

use std::ops::Range;

use bytes::Bytes;

use crate::insight::{GroupPlace, Kind, Load, LoadRow, NamedKey, Topology};
use crate::query::{ColumnSet, ColumnSpan};
use crate::random::Random;
use crate::sampler::Series;
use keyviz_types::{GroupId, KeyRange, NodeId, RouteId, RouteSpec};

pub const COLUMNS: usize = 60;
pub const STEP_MS: u64 = 60_000;
pub const START_MS: u64 = 1_800_000_000_000;
const ZONES: usize = 4;

/// What was put in.
#[derive(Clone, Debug)]
pub struct Label {
    pub kind: Kind,
    pub rows: Range<usize>,
    pub since: usize,
    pub key: Option<Bytes>,
    pub group: Option<GroupId>,
    pub node: Option<NodeId>,
}

/// A load and what is in it.
pub struct Labelled {
    pub load: Load,
    pub before: Option<Load>,
    pub hot_keys: Vec<NamedKey>,
    pub topology: Topology,
    pub labels: Vec<Label>,
}

/// Rates of one row in one column.
#[derive(Clone, Copy, Default)]
struct Cell {
    reads: f64,
    writes: f64,
    bytes: f64,
    conflicts: f64,
}

pub fn key(row: usize) -> Bytes {
    match row {
        0 => Bytes::new(),
        row => Bytes::from(format!("key/{row:05}")),
    }
}

struct World {
    random: Random,
    /// Without what is put in: the same time before.
    base: Vec<Vec<Cell>>,
    grid: Vec<Vec<Cell>>,
    groups: Vec<GroupId>,
    total: f64,
    labels: Vec<Label>,
    hot_keys: Vec<NamedKey>,
    leaders: Vec<usize>,
    nodes: usize,
}

/// The load of a seed.
pub fn labelled(seed: u64) -> Labelled {
    let mut random = Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d) ^ 0x1234);
    let rows = random.whole(48, 129);
    let (nodes, of_groups) = (random.whole(3, 6), random.whole(6, 13));
    let zone = rows / ZONES;
    let count = random.whole(0, ZONES);
    let mut kinds: Vec<Kind> = Vec::new();
    while kinds.len() < count {
        let kind = Kind::ALL[random.whole(0, Kind::ALL.len())];
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let with_before = kinds.contains(&Kind::SuddenChange) || random.chance(0.4);
    // Two rows a route; where nothing is to be merged, each of a group by turns.
    let mut groups: Vec<GroupId> =
        (0..rows).map(|row| GroupId((row / 2 % of_groups) as u64 + 1)).collect();
    let mut alone: Option<Range<usize>> = None;
    for (at, &kind) in kinds.iter().enumerate() {
        if kind == Kind::ColdSplits {
            let from = at * zone + 2 + random.whole(0, 3);
            let cold = from..from + random.whole(3, 7);
            let group = groups[from];
            groups[cold.clone()].fill(group);
            alone = Some(cold);
        }
    }
    let row = |random: &mut Random| {
        let rate = (random.normal().clamp(-1.2, 1.2) * 0.35).exp() * 50.0;
        (rate, random.real(0.3, 0.7), random.real(100.0, 400.0))
    };
    let base: Vec<(f64, f64, f64)> = (0..rows).map(|_| row(&mut random)).collect();
    let mut before: Vec<Vec<Cell>> = base
        .iter()
        .map(|&(rate, reads, bytes)| {
            let cell =
                Cell { reads: rate * reads, writes: rate * (1.0 - reads), bytes, conflicts: 0.0 };
            vec![cell; COLUMNS]
        })
        .collect();
    for cold in alone.iter().cloned() {
        before[cold].iter_mut().flatten().for_each(|cell| {
            (cell.reads, cell.writes) = (cell.reads * 0.002, cell.writes * 0.002);
        });
    }
    let mut world = World::new(random, before, groups, nodes, of_groups);
    if let Some(rows) = alone.clone() {
        let group = Some(world.groups[rows.start]);
        world.label(Kind::ColdSplits, rows, 0).group = group;
    }
    world.finish(kinds, zone, with_before, alone)
}

impl World {
    fn new(
        random: Random,
        grid: Vec<Vec<Cell>>,
        groups: Vec<GroupId>,
        nodes: usize,
        of_groups: usize,
    ) -> Self {
        let total = grid.iter().map(|row| row[0].reads + row[0].writes).sum();
        let leaders = (0..of_groups).map(|group| group % nodes).collect();
        let (labels, hot_keys) = (Vec::new(), Vec::new());
        let base = grid.clone();
        World { random, base, grid, groups, total, labels, hot_keys, leaders, nodes }
    }

    fn finish(
        mut self,
        kinds: Vec<Kind>,
        zone: usize,
        with_before: bool,
        alone: Option<Range<usize>>,
    ) -> Labelled {
        for (at, kind) in kinds.into_iter().enumerate() {
            self.put(kind, at * zone..(at + 1) * zone - 2, with_before);
        }
        self.decoys(zone);
        let named = self.hot_keys.clone();
        let load = self.count(&self.grid.clone());
        let scale = self.random.real(0.9, 1.1);
        let mut then = self.base.clone();
        then.iter_mut().flatten().for_each(|cell| {
            (cell.reads, cell.writes) = (cell.reads * scale, cell.writes * scale);
        });
        let then = self.count(&then);
        let load = self.holes(load);
        let topology = self.topology(alone);
        Labelled {
            load,
            before: with_before.then_some(then),
            hot_keys: named,
            topology,
            labels: self.labels,
        }
    }

    fn label(&mut self, kind: Kind, rows: Range<usize>, since: usize) -> &mut Label {
        self.labels.push(Label { kind, rows, since, key: None, group: None, node: None });
        self.labels.last_mut().expect("just pushed")
    }

    /// From a column on, or from the beginning.
    fn start(&mut self) -> usize {
        if self.random.chance(0.3) { 0 } else { self.random.whole(8, COLUMNS - 6) }
    }

    fn some_rows(&mut self, zone: &Range<usize>, from: usize, to: usize) -> Range<usize> {
        let width = self.random.whole(from, to + 1).min(zone.len());
        let start = self.random.whole(zone.start, zone.end - width + 1);
        start..start + width
    }

    fn add(&mut self, row: usize, column: usize, rate: f64, reads: f64) {
        let cell = &mut self.grid[row][column];
        cell.reads += rate * reads;
        cell.writes += rate * (1.0 - reads);
    }

    /// How much of a column is after a beginning in its middle.
    fn ramp(&mut self, since: usize, column: usize, first: f64) -> f64 {
        if column == since && since > 0 { first } else { 1.0 }
    }

    fn put(&mut self, kind: Kind, zone: Range<usize>, with_before: bool) {
        let hot = self.total * self.random.real(0.2, 0.5);
        let (mix, first) = (self.random.real(0.2, 0.8), self.random.real(0.3, 1.0));
        match kind {
            Kind::OneKey | Kind::HotRange => {
                let since = self.start();
                let most = if kind == Kind::OneKey { 1 } else { 6 };
                let rows = self.some_rows(&zone, most.min(2), most);
                // Five times what it was, or more.
                let cells = rows.clone().map(|row| self.grid[row][0]);
                let usual: f64 = cells.map(|cell| cell.reads + cell.writes).sum();
                let hot = hot.max(4.5 * usual);
                for column in since..COLUMNS {
                    let rate = hot * self.ramp(since, column, first) / rows.len() as f64;
                    let rate = rate * (self.random.normal() * 0.1).exp();
                    rows.clone().for_each(|row| self.add(row, column, rate, mix));
                }
                if kind == Kind::OneKey {
                    self.name(rows.start, since, hot, first, mix);
                }
                let key = (kind == Kind::OneKey).then(|| hot_key(rows.start));
                self.label(kind, rows, since).key = key;
            }
            Kind::SequentialAppend | Kind::Scan => self.front(kind, zone, hot),
            Kind::MovingSpot => self.moving(zone, hot, mix),
            Kind::PeriodicBurst => {
                let period = self.random.whole(6, 15);
                let length = self.random.whole(1, 3).min(period / 4).max(1);
                let rows = self.some_rows(&zone, 2, 5);
                let bursts = self.random.whole(3, COLUMNS / period + 1).max(3);
                let phase = self.random.whole(0, period - length);
                let since = COLUMNS - phase - length - (bursts - 1) * period;
                for burst in 0..bursts {
                    for column in (0..length).map(|at| since + burst * period + at) {
                        let rate = hot / rows.len() as f64;
                        rows.clone().for_each(|row| self.add(row, column, rate, mix));
                    }
                }
                self.label(kind, rows, since);
            }
            Kind::UnevenLeaders => {
                let node = self.random.whole(0, self.nodes);
                let groups = self.leaders.len();
                let most = (groups as f64 * self.random.real(0.6, 0.8)).ceil() as usize;
                let mut count = self.leaders.iter().filter(|&&leader| leader == node).count();
                while count < most {
                    let group = self.random.whole(0, groups);
                    if self.leaders[group] != node {
                        self.leaders[group] = node;
                        count += 1;
                    }
                }
                let rows = self.grid.len();
                self.label(kind, 0..rows, 0).node = Some(NodeId(node as u64 + 1));
            }
            Kind::UnevenGroups | Kind::ReadHeavy => {
                let group = GroupId(self.random.whole(1, self.leaders.len() + 1) as u64);
                // What was so at the same time before is no change.
                let since = match kind == Kind::UnevenGroups && with_before {
                    true => 0,
                    false => self.start(),
                };
                let (times, reads) = (self.random.real(2.4, 3.6), self.random.real(0.96, 0.99));
                for row in (0..self.grid.len()).filter(|&row| self.groups[row] == group) {
                    for (cell, base) in
                        self.grid[row].iter_mut().zip(&mut self.base[row]).skip(since)
                    {
                        if kind == Kind::ReadHeavy {
                            let all = cell.reads + cell.writes;
                            (cell.reads, cell.writes) = (all * reads, all * (1.0 - reads));
                            continue;
                        }
                        // Of what else was put in there is not more.
                        cell.reads += base.reads * (times - 1.0);
                        cell.writes += base.writes * (times - 1.0);
                        if with_before {
                            (base.reads, base.writes) = (base.reads * times, base.writes * times);
                        }
                    }
                }
                let rows = self.grid.len();
                self.label(kind, 0..rows, since).group = Some(group);
            }
            Kind::LargeValues | Kind::Conflicts => {
                let since = self.start();
                let rows = self.some_rows(&zone, 2, 5);
                let (times, part) = (self.random.real(40.0, 150.0), self.random.real(0.3, 0.7));
                for cell in self.grid[rows.clone()].iter_mut().flat_map(|row| &mut row[since..]) {
                    match kind {
                        Kind::LargeValues => cell.bytes *= times,
                        _ => cell.conflicts = part,
                    }
                }
                self.label(kind, rows, since);
            }
            Kind::SuddenChange => {
                let since = self.start().max(8);
                let up = self.random.chance(0.5);
                let times =
                    if up { self.random.real(2.6, 3.4) } else { self.random.real(0.03, 0.2) };
                for cell in self.grid[zone.clone()].iter_mut().flat_map(|row| &mut row[since..]) {
                    (cell.reads, cell.writes) = (cell.reads * times, cell.writes * times);
                }
                self.label(kind, zone, since);
            }
            Kind::ColdSplits => {}
        }
    }

    /// An append or a scan that passes over the zone, or a part of it.
    fn front(&mut self, kind: Kind, zone: Range<usize>, rate: f64) {
        let scan = kind == Kind::Scan;
        let columns = match scan {
            true => self.random.whole(6, 20),
            false => self.random.whole(12, COLUMNS + 1),
        };
        let since = COLUMNS - columns;
        let up = self.random.chance(0.5);
        let length = zone.len() as f64;
        for column in since..COLUMNS {
            // The keys passed in a column, in tenths of it.
            for tenth in 0..10 {
                let done = ((column - since) as f64 + tenth as f64 / 10.0) / columns as f64;
                let place = (done * length) as usize;
                let row = if up { zone.start + place } else { zone.end - 1 - place };
                self.add(row, column, rate / 10.0, if scan { 1.0 } else { 0.0 });
            }
        }
        self.label(kind, zone, since);
    }

    fn moving(&mut self, zone: Range<usize>, rate: f64, mix: f64) {
        let stay = self.random.whole(2, 7);
        let places = self.random.whole(4, (COLUMNS / stay).clamp(5, 10));
        let since = COLUMNS - stay * places;
        let width = self.random.whole(1, 3);
        let (mut last, mut before) = (usize::MAX, usize::MAX);
        for place in 0..places {
            let mut tries = 0;
            let row = loop {
                let row = self.random.whole(zone.start, zone.end - width);
                // In a small zone there may be no place far from both.
                tries += 1;
                if row.abs_diff(last) >= 3 && (row.abs_diff(before) >= 2 || tries > 100) {
                    break row;
                }
            };
            (before, last) = (last, row);
            for column in (0..stay).map(|at| since + place * stay + at) {
                (row..row + width).for_each(|row| self.add(row, column, rate / width as f64, mix));
            }
        }
        self.label(Kind::MovingSpot, zone, since);
    }

    fn name(&mut self, row: usize, since: usize, rate: f64, first: f64, mix: f64) {
        for (series, part) in [(Series::Reads, mix), (Series::Writes, 1.0 - mix)] {
            let mut values = vec![0; COLUMNS];
            for (column, value) in values.iter_mut().enumerate().skip(since) {
                let known = self.random.real(0.9, 1.0) * self.ramp(since, column, first);
                *value = (rate * part * known * STEP_MS as f64 / 1e3) as u64;
            }
            let lower = values.iter().sum();
            let upper = lower + lower / 5;
            self.hot_keys.push(NamedKey { key: hot_key(row), series, lower, upper, values });
        }
    }

    /// What must not be found: a lone peak, a hot range that has ended, keys with a little load.
    fn decoys(&mut self, zone: usize) {
        let free = (ZONES - 1) * zone..self.grid.len();
        if self.random.chance(0.25) {
            let (rows, column) = (self.some_rows(&free, 1, 3), self.random.whole(0, COLUMNS - 4));
            let rate = self.total * self.random.real(0.1, 0.3) / rows.len() as f64;
            rows.for_each(|row| self.add(row, column, rate, 0.5));
        }
        if self.random.chance(0.2) {
            let (rows, from) = (self.some_rows(&free, 2, 5), self.random.whole(5, 30));
            let rate = self.total * self.random.real(0.2, 0.4) / rows.len() as f64;
            for column in from..from + self.random.whole(5, 15) {
                rows.clone().for_each(|row| self.add(row, column, rate, 0.5));
            }
        }
        for _ in 0..self.random.whole(0, 5) {
            let row = self.random.whole(0, self.grid.len());
            let lower = (self.total * 0.02 * COLUMNS as f64 * 60.0) as u64;
            let (series, values) = (Series::Reads, Vec::new());
            let name = Bytes::from(format!("key/{row:05}/cool"));
            self.hot_keys.push(NamedKey { key: name, series, lower, upper: lower * 2, values });
        }
    }

    /// What is counted: with noise of each cell, and the day's ups and downs.
    fn count(&mut self, grid: &[Vec<Cell>]) -> Load {
        let column = |at: u64| ColumnSpan {
            start_ms: START_MS + at * STEP_MS,
            end_ms: START_MS + (at + 1) * STEP_MS,
            open: false,
        };
        let phase = self.random.real(0.0, std::f64::consts::TAU);
        let mut rows = Vec::new();
        for (at, cells) in grid.iter().enumerate() {
            let end = (at + 1 < grid.len()).then(|| key(at + 1));
            let range = KeyRange { start: key(at), end };
            let mut row = LoadRow::new(range);
            row.group = Some(self.groups[at]);
            for (column, cell) in cells.iter().enumerate() {
                let day = 1.0 + 0.15 * (phase + column as f64 / 12.0).sin();
                let mut counted = |rate: f64| {
                    let mean = rate * day * 60.0 * (self.random.normal() * 0.12).exp();
                    (mean + self.random.normal() * mean.sqrt()).max(0.0)
                };
                let (reads, writes) = (counted(cell.reads), counted(cell.writes));
                let noise = self.random.real(0.0, 0.02);
                row.reads.push(reads as u64);
                row.writes.push(writes as u64);
                row.read_bytes.push((reads * cell.bytes) as u64);
                row.write_bytes.push((writes * cell.bytes) as u64);
                row.conflicts.push((writes * (cell.conflicts + noise)) as u64);
            }
            rows.push(row);
        }
        Load { columns: (0..COLUMNS as u64).map(column).collect(), partial: ColumnSet::new(), rows }
    }

    /// Columns that miss counts.
    fn holes(&mut self, mut load: Load) -> Load {
        if !self.random.chance(0.3) {
            return load;
        }
        for _ in 0..self.random.whole(1, 4) {
            let (column, kept) = (self.random.whole(0, COLUMNS), self.random.real(0.0, 0.7));
            load.partial.insert(column as u32..column as u32 + 1);
            for row in &mut load.rows {
                for value in row.lists_mut().into_iter().filter_map(|list| list.get_mut(column)) {
                    *value = (*value as f64 * kept) as u64;
                }
            }
        }
        load
    }

    fn topology(&self, alone: Option<Range<usize>>) -> Topology {
        let node = |at: usize| NodeId((at % self.nodes) as u64 + 1);
        let place = |(at, &leader): (usize, &usize)| GroupPlace {
            group: GroupId(at as u64 + 1),
            leader: Some(node(leader)),
            replicas: vec![node(leader), node(leader + 1), node(leader + 2)],
        };
        let rows = self.grid.len();
        let single = |row: usize| alone.as_ref().is_some_and(|alone| alone.contains(&row));
        let begins = |row: &usize| {
            *row == 0
                || single(*row)
                || single(*row - 1)
                || self.groups[*row] != self.groups[*row - 1]
        };
        let starts: Vec<usize> = (0..rows).filter(begins).collect();
        let route = |(at, &start): (usize, &usize)| RouteSpec {
            id: RouteId::new(at as u64 + 1).expect("not 0"),
            range: KeyRange { start: key(start), end: starts.get(at + 1).map(|&end| key(end)) },
            group: self.groups[start],
        };
        Topology {
            nodes: (0..self.nodes).map(node).collect(),
            groups: self.leaders.iter().enumerate().map(place).collect(),
            routes: starts.iter().enumerate().map(route).collect(),
        }
    }
}

fn hot_key(row: usize) -> Bytes {
    Bytes::from(format!("key/{row:05}/hot"))
}
