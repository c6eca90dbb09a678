//! The view of a live heatmap and how keys change it. Pure: the clock and the routes are passed in.

use std::time::Duration;

use bytes::Bytes;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::slide::{wider_end, wider_start};
use crate::heat::Query;
use crate::heatmap::grid::Grid;
use keyviz_proto as proto;

/// Earlier views, for going back.
const MOST_BACK: usize = 100;
/// What one press zooms by.
const ZOOM: f64 = 0.5;
/// Shortest window.
const LEAST_MS: f64 = 1_000.0;

/// The effect of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    /// Nothing changed.
    Nothing,
    /// The picture changed.
    Draw,
    /// The question changed.
    Ask,
    /// Plan the rows anew.
    Plan,
    /// The end.
    Quit,
}

/// A cell, identified by its key and time, so that it stays in place when columns come and go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// A key of its row.
    pub(super) key: Bytes,
    /// A time of its column.
    pub(super) ms: u64,
}

/// What is shown.
#[derive(Debug)]
pub(super) struct View {
    pub(super) query: Query,
    pub(super) linear: bool,
    pub(super) paused: bool,
    pub(super) help: bool,
    pub(super) cursor: Option<Place>,
    first: Query,
    back: Vec<Query>,
}

/// The parts of the drawing that keys depend on.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) grid: &'a Grid,
    /// First keys of all routes, in order.
    pub(super) bounds: &'a [Bytes],
    /// The newest instant that there is: the end of the column in progress.
    pub(super) now_ms: u64,
}

impl View {
    pub(super) fn new(query: Query) -> Self {
        View {
            first: query.clone(),
            query,
            linear: false,
            paused: false,
            help: false,
            cursor: None,
            back: Vec::new(),
        }
    }

    /// Whether the window ends with the column in progress.
    pub(super) fn is_live(&self) -> bool {
        self.query.to_ms.is_none()
    }

    /// Sets the window of a question that named none, without a step to go back over.
    pub(super) fn settle(&mut self, last: Duration) {
        if self.query.last.is_none() && self.query.from_ms.is_none() {
            self.query.last = Some(last);
        }
        if self.first.last.is_none() && self.first.from_ms.is_none() {
            self.first.last = Some(last);
        }
    }

    /// The position of the cursor in the drawing.
    pub(super) fn cell(&self, grid: &Grid) -> Option<(usize, usize)> {
        let place = self.cursor.as_ref()?;
        let row = grid.rows.partition_point(|row| row.start <= place.key).saturating_sub(1);
        let column = grid.columns.partition_point(|column| column.end_ms <= place.ms);
        (!grid.rows.is_empty() && !grid.columns.is_empty())
            .then(|| (row, column.min(grid.columns.len() - 1)))
    }

    pub(super) fn key(&mut self, key: KeyEvent, around: Around<'_>) -> Act {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Act::Quit } else { Act::Nothing };
        }
        if self.help {
            self.help = false;
            return if key.code == KeyCode::Char('q') { Act::Quit } else { Act::Draw };
        }
        let far = key.modifiers.contains(KeyModifiers::SHIFT);
        match key.code {
            KeyCode::Char('q') => Act::Quit,
            KeyCode::Char('?') => self.draw(|view| view.help = true),
            KeyCode::Char(' ' | 'p') => self.pause(),
            KeyCode::Char('m') => Act::Plan,
            KeyCode::Char('l') => self.draw(|view| view.linear = !view.linear),
            KeyCode::Char('1') => self.series(proto::Series::Writes),
            KeyCode::Char('2') => self.series(proto::Series::Reads),
            KeyCode::Char('3') => self.series(proto::Series::WriteBytes),
            KeyCode::Char('4') => self.series(proto::Series::ReadBytes),
            KeyCode::Left if far => self.pan_time(-1, around),
            KeyCode::Right if far => self.pan_time(1, around),
            KeyCode::Up if far => self.pan_keys(false, around),
            KeyCode::Down if far => self.pan_keys(true, around),
            KeyCode::Left => self.step(0, -1, around.grid),
            KeyCode::Right => self.step(0, 1, around.grid),
            KeyCode::Up => self.step(-1, 0, around.grid),
            KeyCode::Down => self.step(1, 0, around.grid),
            KeyCode::PageUp => self.step(-10, 0, around.grid),
            KeyCode::PageDown => self.step(10, 0, around.grid),
            KeyCode::Char('+' | '=') => self.zoom(ZOOM, true, true, around),
            KeyCode::Char('-') => self.zoom(1.0 / ZOOM, true, true, around),
            KeyCode::Char(']') => self.zoom(ZOOM, true, false, around),
            KeyCode::Char('[') => self.zoom(1.0 / ZOOM, true, false, around),
            KeyCode::Char('}') => self.zoom(ZOOM, false, true, around),
            KeyCode::Char('{') => self.zoom(1.0 / ZOOM, false, true, around),
            KeyCode::Backspace => self.go_back(),
            KeyCode::Home => {
                let first = self.first.clone();
                self.go(first)
            }
            KeyCode::Esc => self.draw(|view| view.cursor = None),
            _ => Act::Nothing,
        }
    }

    fn draw(&mut self, change: impl FnOnce(&mut Self)) -> Act {
        change(self);
        Act::Draw
    }

    /// Columns missed in between are requested.
    fn pause(&mut self) -> Act {
        self.paused = !self.paused;
        if self.paused { Act::Draw } else { Act::Ask }
    }

    fn series(&mut self, series: proto::Series) -> Act {
        if self.query.series == series {
            return Act::Nothing;
        }
        self.query.series = series;
        self.first.series = series;
        Act::Ask
    }

    fn go(&mut self, next: Query) -> Act {
        if next == self.query {
            return Act::Nothing;
        }
        if self.back.len() == MOST_BACK {
            self.back.remove(0);
        }
        let series = self.query.series;
        self.back.push(std::mem::replace(&mut self.query, Query { series, ..next }));
        Act::Ask
    }

    fn go_back(&mut self) -> Act {
        let Some(query) = self.back.pop() else { return Act::Nothing };
        self.query = Query { series: self.query.series, ..query };
        Act::Ask
    }

    fn step(&mut self, rows: isize, columns: isize, grid: &Grid) -> Act {
        if grid.rows.is_empty() || grid.columns.is_empty() {
            return Act::Nothing;
        }
        // The first press shows the cursor at the newest column of the hottest row.
        let (row, column) = match self.cell(grid) {
            Some((row, column)) => {
                let at = |at: usize, by, most: usize| at.saturating_add_signed(by).min(most - 1);
                (at(row, rows, grid.rows.len()), at(column, columns, grid.columns.len()))
            }
            None => {
                let sum = |at: &usize| grid.rows[*at].sum;
                let hottest = (0..grid.rows.len()).rev().max_by_key(sum).unwrap_or(0);
                (hottest, grid.columns.len() - 1)
            }
        };
        self.cursor =
            Some(Place { key: grid.rows[row].start.clone(), ms: grid.columns[column].start_ms });
        Act::Draw
    }

    /// The question for the instants from `from_ms` on for `wide_ms`. What would reach past now
    /// ends with the column in progress.
    fn window(&self, from_ms: f64, wide_ms: f64, around: Around<'_>) -> Query {
        let wide_ms = wide_ms.max(LEAST_MS);
        let to_ms = (from_ms + wide_ms).round() as u64;
        if to_ms >= around.now_ms {
            let last = Some(Duration::from_millis(wide_ms.round() as u64));
            return Query { last, from_ms: None, to_ms: None, ..self.query.clone() };
        }
        let from_ms = Some(from_ms.max(0.0).round() as u64);
        Query { last: None, from_ms, to_ms: Some(to_ms), ..self.query.clone() }
    }

    fn pan_time(&mut self, direction: i8, around: Around<'_>) -> Act {
        let Some((from, to)) = span(around.grid) else { return Act::Nothing };
        let wide = to - from;
        let next = self.window(from + f64::from(direction) * wide / 4.0, wide, around);
        self.go(next)
    }

    fn pan_keys(&mut self, down: bool, around: Around<'_>) -> Act {
        let (rows, query) = (&around.grid.rows, &self.query);
        let by = (rows.len() / 4).max(1);
        let routes = (routes_shown(query, around.bounds) * by).div_ceil(rows.len().max(1));
        let at_edge = if down { query.end.is_none() } else { query.start.is_empty() };
        if at_edge || rows.len() < 2 {
            return Act::Nothing;
        }
        let next = match down {
            true => Query {
                start: rows[by.min(rows.len() - 1)].start.clone(),
                end: wider_end(&query.end, routes, around.bounds),
                ..query.clone()
            },
            false => Query {
                start: wider_start(&query.start, routes, around.bounds),
                end: Some(rows[rows.len() - by.min(rows.len() - 1)].start.clone()),
                ..query.clone()
            },
        };
        self.go(next)
    }

    /// Zooms around the cursor; without one, the newest and the middle do.
    fn zoom(&mut self, factor: f64, time: bool, keys: bool, around: Around<'_>) -> Act {
        let grid = around.grid;
        let Some((from, to)) = span(grid) else { return Act::Nothing };
        let cell = self.cell(grid);
        let mut next = self.query.clone();
        if time {
            // At the newest column the newest instant stays, so that a live window stays live.
            let newest = grid.columns.len() - 1;
            let at = cell.filter(|(_, column)| *column < newest).map_or(to, |(_, column)| {
                let column = &grid.columns[column];
                (column.start_ms as f64 + column.end_ms as f64) / 2.0
            });
            next = self.window(at - (at - from) * factor, (to - from) * factor, around);
        }
        if keys {
            let row = cell.map_or(grid.rows.len() / 2, |(row, _)| row);
            (next.start, next.end) = self.zoomed_keys(factor, row, around);
        }
        self.go(next)
    }

    fn zoomed_keys(&self, factor: f64, row: usize, around: Around<'_>) -> (Bytes, Option<Bytes>) {
        let rows = &around.grid.rows;
        if factor < 1.0 {
            let kept = ((rows.len() as f64 * factor).round() as usize).max(1);
            let first = ((row as f64 * (1.0 - factor)) as usize).min(rows.len() - kept);
            let end = rows.get(first + kept).map(|row| row.start.clone());
            return (rows[first].start.clone(), end.or_else(|| self.query.end.clone()));
        }
        let more = routes_shown(&self.query, around.bounds) as f64 * (factor - 1.0);
        let each = ((more / 2.0).round() as usize).max(1);
        let start = wider_start(&self.query.start, each, around.bounds);
        (start, wider_end(&self.query.end, each, around.bounds))
    }
}

/// First and last instant of the picture.
fn span(grid: &Grid) -> Option<(f64, f64)> {
    Some((grid.columns.first()?.start_ms as f64, grid.columns.last()?.end_ms as f64))
}

/// Routes of the asked range, at least one.
fn routes_shown(query: &Query, bounds: &[Bytes]) -> usize {
    let first = bounds.partition_point(|bound| *bound <= query.start).saturating_sub(1);
    let last = match &query.end {
        Some(end) => bounds.partition_point(|bound| bound < end),
        None => bounds.len(),
    };
    last.saturating_sub(first).max(1)
}
