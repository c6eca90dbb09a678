//! Draws a matrix in a terminal: rows in key order from top to bottom, time from left to right,
//! colour (or the density of a character) for the count.
//!
//! ```text
//! writes · 10:00 to 11:00 · total 18,089 writes · 2 of 3 nodes   header: window, sums, nodes
//! node 3 (127.0.0.1:7403) did not answer: connection refused
//! (begin) → key/0500    │ ....::::    │   1.2k                   both ends, cells, sum of the row
//! key/0500 → key/0600  ?│ ==++**##    │  15.3k
//!                       └┬─────┬─────*                            ticks; marks of columns
//!                            ^                                    columns in which routes changed
//!                        10:00 10:30                              time
//! a cell: writes in 1m, log scale  0  .:-=+*#%@ 1,234             legend
//! ```
//!
//! Drawing is a pure function of the matrix and the size. If a matrix has more rows or columns than
//! fit, neighbours are added up, and the legend says so; the sums shown are those of all cells.
//! Text from a key or a node is escaped first.

pub(super) mod axis;
pub(super) mod grid;
pub(super) mod labels;
pub(super) mod palette;

use std::fmt::Write as _;
use std::time::Duration;

use super::terminal::output::ColorDepth;
use super::terminal::text::{self, fit, inert, thousands};
use grid::{Cell, Grid, Mark};
use keyviz_json::series_name;
use keyviz_proto as proto;
use palette::Palette;

/// Minimum width of a drawing; on a narrower terminal lines are wider than the terminal.
const LEAST_WIDTH: usize = 24;
/// Minimum number of rows, however low the terminal is.
const LEAST_ROWS: usize = 4;
/// Widest cell.
const MOST_CELL_WIDTH: usize = 6;
/// From this width on, each row ends in its sum.
const SUMS_FROM_WIDTH: usize = 56;
/// Width of the sum of a row, including the space before it.
const SUM_WIDTH: usize = 10;
/// Width between label and cells: the mark of the row and the left border.
pub(super) const GUTTER: usize = 2;

/// Clock differences from this on are mentioned.
const SKEW_WARN_MS: u64 = 1_000;

/// Maximum number of route changes that are listed.
const MOST_EVENT_LINES: usize = 3;

/// Size and colours of a drawing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drawing {
    /// Terminal columns.
    pub width: usize,
    /// Terminal lines.
    pub height: usize,
    /// Colours that may be used.
    pub color: ColorDepth,
}

impl Drawing {
    fn width(&self) -> usize {
        self.width.max(LEAST_WIDTH)
    }

    /// Maximum width of labels.
    pub(super) fn label_limit(&self) -> usize {
        (self.width() / 3).clamp(8, 40)
    }

    pub(super) fn sum_width(&self) -> usize {
        if self.width() >= SUMS_FROM_WIDTH { SUM_WIDTH } else { 0 }
    }

    /// The numbers of columns and rows that certainly fit, to query.
    pub fn budget(&self) -> (usize, usize) {
        let columns = self.width() - self.label_limit() - GUTTER - 1 - self.sum_width();
        // Header, ticks, times, legend and notes take about ten lines.
        (columns.max(1), self.height.saturating_sub(10).max(LEAST_ROWS))
    }
}

/// Draws `matrix`. The text ends in a line feed and is at most `drawing.width` wide.
pub fn render(matrix: &proto::Matrix, drawing: &Drawing) -> String {
    let mut lines = header(matrix, drawing.width());
    if matrix.total == 0 || matrix.columns.is_empty() || matrix.rows.is_empty() {
        lines.push(String::new());
        lines.extend(text::wrap(&nothing(matrix), drawing.width()));
        return joined(lines);
    }
    // The notes depend on which rows are joined, and joining depends on the lines that the notes
    // take. Notes only grow with joining, so the second pass is final.
    let mut rows = matrix.rows.len();
    for _ in 0..2 {
        let picture = Picture::new(matrix, drawing, rows);
        let notes = picture.footer().len() + usize::from(picture.prefix_note().is_some());
        let room = drawing.height.saturating_sub(lines.len() + notes);
        rows = matrix.rows.len().min(room.max(LEAST_ROWS));
    }
    let picture = Picture::new(matrix, drawing, rows);
    lines.extend(picture.prefix_note());
    lines.extend(picture.rows());
    lines.extend(picture.footer());
    joined(lines)
}

fn joined(lines: Vec<String>) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(line.trim_end_matches(' '));
        text.push('\n');
    }
    text
}

/// Why there is nothing to draw. A range that was not resolved is not said to be quiet.
fn nothing(matrix: &proto::Matrix) -> String {
    let noun = noun(matrix.series());
    match matrix.straddling_total {
        0 => format!("Nothing to draw: no {noun} in this window."),
        most => format!(
            "Nothing to draw: between 0 and {} {noun} in this window, which were counted together \
             with others.",
            thousands(most)
        ),
    }
}

/// What was counted together with keys or time beyond those asked for.
fn straddling_fact(matrix: &proto::Matrix) -> Option<String> {
    let mut straddling = matrix.blocks.iter().filter(|block| block.straddling);
    let first = straddling.next()?;
    let preview = |start: &[u8], end: Option<&[u8]>| {
        let end = end.map_or_else(|| "(end)".into(), text::preview);
        let start = if start.is_empty() { "(begin)".into() } else { text::preview(start) };
        format!("{start} → {end}")
    };
    let others = straddling.count();
    let others = match others {
        0 => String::new(),
        1 => " (and 1 other)".into(),
        many => format!(" (and {} others)", thousands(many as u64)),
    };
    Some(format!(
        "{} {} more were counted for {} together{others}: at most so many of them are in what is \
         shown",
        amount(matrix.series(), matrix.straddling_total),
        noun(matrix.series()),
        preview(&first.start, first.end.as_deref()),
    ))
}

/// The total, as a range where counts straddle.
fn total_fact(matrix: &proto::Matrix) -> String {
    let (series, total) = (matrix.series(), matrix.total);
    let most = total.saturating_add(matrix.straddling_total);
    let counted = |number: u64| match is_bytes(series) {
        true => amount(series, number),
        false => thousands(number),
    };
    let range = match matrix.straddling_total {
        0 => counted(total),
        _ => format!("{} to {}", counted(total), counted(most)),
    };
    match (is_bytes(series), matrix.straddling_total) {
        (true, 0) => format!("total {range} ({} bytes)", thousands(total)),
        (true, _) => format!("total {range}"),
        (false, _) => format!("total {range} {}", noun(series)),
    }
}

/// Describes a change of routes or leaders.
pub(super) fn event_words(event: &proto::RouteEvent) -> String {
    let time = format!("{} {}", axis::EVENT, axis::time(event.time_ms));
    if let (Some(group), Some(leader)) = (event.group_id, event.leader) {
        let term = event.term.map(|term| format!(" in term {term}")).unwrap_or_default();
        return format!("{time} group {group} is led by node {leader}{term}");
    }
    if let (Some(from), Some(to)) = (event.from_group, event.group_id) {
        let route = ids(&event.retired);
        return format!("{time} move of route {route} from group {from} to group {to}");
    }
    format!(
        "{time} {} of route {} into {} at {}",
        inert(&event.kind),
        ids(&event.retired),
        ids(&event.created),
        text::preview(&event.key),
    )
}

fn ids(ids: &[u64]) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(" and ")
}

/// The unit of a series.
pub fn noun(series: proto::Series) -> &'static str {
    match series {
        proto::Series::ReadBytes => "bytes read",
        proto::Series::WriteBytes => "bytes written",
        series => series_name(series),
    }
}

fn is_bytes(series: proto::Series) -> bool {
    matches!(series, proto::Series::ReadBytes | proto::Series::WriteBytes)
}

/// A number of the series, short.
pub(super) fn amount(series: proto::Series, number: u64) -> String {
    if is_bytes(series) { text::short_bytes(number) } else { text::short_count(number) }
}

/// The header: window, sums, and notes about nodes.
pub(super) fn header(matrix: &proto::Matrix, width: usize) -> Vec<String> {
    let series = matrix.series();
    let mut facts = vec![series_name(series).to_owned()];
    if let (Some(first), Some(last)) = (matrix.columns.first(), matrix.columns.last()) {
        facts.push(axis::window(first.start_ms, last.end_ms));
        facts.push(columns_fact(&matrix.columns));
    }
    facts.push(match matrix.rows.len() {
        1 => "1 row".into(),
        rows => format!("{} rows", thousands(rows as u64)),
    });
    facts.push(total_fact(matrix));
    facts.push(format!("{} of {} nodes", matrix.responded, matrix.expected));
    facts.push(match matrix.axis() {
        proto::Axis::Then => format!("routes of then, catalog v{}", matrix.catalog_version),
        _ => format!("catalog v{}", matrix.catalog_version),
    });
    let mut lines = text::wrap_parts(&facts, " · ", width);
    if let Some(fact) = straddling_fact(matrix) {
        lines.extend(text::wrap(&fact, width));
    }
    if matrix.unattributed > 0 {
        let count = thousands(matrix.unattributed);
        let fact =
            format!("unattributed {count}: no route was found for these; they are in no cell");
        lines.extend(text::wrap(&fact, width));
    }
    if matrix.saturated {
        lines.extend(text::wrap("a sum reached its limit: the true one is larger", width));
    }
    for node in matrix.nodes.iter().filter(|node| node.ok) {
        let skew = node.clock_skew_ms.unsigned_abs();
        if skew >= SKEW_WARN_MS {
            let side = if node.clock_skew_ms > 0 { "ahead" } else { "behind" };
            let fact = format!(
                "node {}'s clock is {} {side}; its columns are shifted by as much",
                node.id,
                text::duration(Duration::from_millis(skew)),
            );
            lines.extend(text::wrap(&fact, width));
        }
    }
    for node in matrix.nodes.iter().filter(|node| !node.ok) {
        let fact = format!(
            "node {} ({}) did not answer: {}",
            node.id,
            inert(&node.address),
            inert(&node.error)
        );
        lines.extend(text::wrap(&fact, width));
    }
    let forgets = |node: &&proto::NodeStatus| node.past_history && node.answered_by.is_empty();
    for node in matrix.nodes.iter().filter(forgets) {
        let fact = format!(
            "node {} keeps nothing before {}: what it counted earlier is missing",
            node.id,
            axis::time(node.forgotten_before_ms)
        );
        lines.extend(text::wrap(&fact, width));
    }
    for node in matrix.nodes.iter().filter(|node| node.beyond_end) {
        let fact = format!(
            "node {} has counted up to {} by a clock that is or was ahead: its counts after the \
             last column are not shown",
            node.id,
            axis::time(node.newest_ms.unwrap_or_default())
        );
        lines.extend(text::wrap(&fact, width));
    }
    for conflict in &matrix.conflicts {
        let fact = format!(
            "conflict: nodes {} claim to have led group {} in term {}; the larger count is shown",
            ids(&conflict.nodes),
            conflict.group_id,
            conflict.term
        );
        lines.extend(text::wrap(&fact, width));
    }
    lines
}

fn columns_fact(columns: &[proto::Column]) -> String {
    let length = |column: &proto::Column| column.end_ms.saturating_sub(column.start_ms);
    let shortest = columns.iter().map(length).min().unwrap_or(0);
    let longest = columns.iter().map(length).max().unwrap_or(0);
    let count = match columns.len() {
        1 => "1 column".into(),
        many => format!("{} columns", thousands(many as u64)),
    };
    let words = |ms| text::duration(Duration::from_millis(ms));
    match shortest == longest {
        true => format!("{count} of {}", words(longest)),
        false => format!("{count} of {} to {}", words(shortest), words(longest)),
    }
}

/// The layout of a matrix, before it becomes text.
struct Picture<'a> {
    matrix: &'a proto::Matrix,
    drawing: &'a Drawing,
    grid: Grid,
    labels: labels::Labels,
    cell_width: usize,
    palette: Palette,
    most: u64,
}

impl<'a> Picture<'a> {
    fn new(matrix: &'a proto::Matrix, drawing: &'a Drawing, rows: usize) -> Self {
        let width = drawing.width();
        let limit = drawing.label_limit();
        let grid = Grid::rows_of(matrix, rows);
        let labels = labels::Labels::new(&grid, limit);
        let taken = labels.width + GUTTER + 1 + drawing.sum_width();
        let room = width.saturating_sub(taken).max(1);
        let grid = grid.columns_of(matrix, room);
        let cell_width = (room / grid.columns.len()).clamp(1, MOST_CELL_WIDTH);
        let most = grid.most();
        let palette = Palette::new(drawing.color, most);
        Picture { matrix, drawing, grid, labels, cell_width, palette, most }
    }

    fn prefix_note(&self) -> Option<String> {
        let prefix = self.labels.prefix.as_deref()?;
        let note = format!("… stands for {prefix}");
        Some(text::shorten(&note, self.drawing.width()).into_owned())
    }

    /// A mark of a whole column is shown once, below it, rather than in every cell.
    fn rows(&self) -> Vec<String> {
        let shared = self.grid.shared_marks();
        let rows = self.grid.rows.iter().zip(&self.labels.texts);
        rows.map(|(row, label)| self.row(row, label, &shared)).collect()
    }

    fn row(&self, row: &grid::Row, label: &str, shared: &[Mark]) -> String {
        let own = |(cell, shared): (&Cell, &Mark)| match cell.mark == *shared {
            true => Cell { mark: Mark::None, ..*cell },
            false => *cell,
        };
        let cells: Vec<Cell> = row.cells.iter().zip(shared).map(own).collect();
        let mark = cells.iter().map(|cell| cell.mark).max().unwrap_or_default();
        let mut line = fit(label, self.labels.width);
        line.push(mark.glyph());
        line.push('│');
        self.palette.paint(&mut line, &cells, self.cell_width);
        line.push('│');
        if self.drawing.sum_width() > 0 {
            let sum = amount(self.matrix.series(), row.sum);
            write!(line, "{sum:>width$}", width = SUM_WIDTH)
                .expect("writing to a string does not fail");
        }
        line
    }

    fn footer(&self) -> Vec<String> {
        let width = self.drawing.width();
        let indent = self.labels.width + 1;
        let mut lines = axis::lines(&self.grid, indent, self.cell_width, width).to_vec();
        let times: Vec<u64> = self.matrix.events.iter().map(|event| event.time_ms).collect();
        if let Some(marks) = axis::event_line(&self.grid, indent, self.cell_width, &times) {
            lines.insert(1, marks);
            lines.extend(self.event_lines(width));
        }
        lines.extend(self.legend(width));
        let notes = self.notes();
        if !notes.is_empty() {
            lines.extend(text::wrap_parts(&notes, " · ", width));
        }
        lines
    }

    /// Describes the newest route changes.
    fn event_lines(&self, width: usize) -> Vec<String> {
        let events = &self.matrix.events;
        let first = events.len().saturating_sub(MOST_EVENT_LINES);
        let line = |event| text::shorten(&event_words(event), width).into_owned();
        let mut lines: Vec<String> = events[first..].iter().map(line).collect();
        if first > 0 || self.matrix.events_truncated {
            let more = if self.matrix.events_truncated { "at least " } else { "" };
            let first = thousands(first as u64);
            let words = format!("{} {more}{first} more route changes before these", axis::EVENT);
            lines.insert(0, text::shorten(&words, width).into_owned());
        }
        lines
    }

    fn legend(&self, width: usize) -> Vec<String> {
        let series = self.matrix.series();
        let step = self.grid.columns.iter().map(|column| column.end_ms - column.start_ms).max();
        let step = text::duration(Duration::from_millis(step.unwrap_or(0)));
        let scale = format!("0 {} {}", self.palette.ramp(), amount(series, self.most));
        let scale_width = 2 + palette::RAMP_CELLS + 1 + amount(series, self.most).len();
        let words = format!("a cell: {} in {step}, log scale", noun(series));
        if text::width(&words) + 2 + scale_width <= width {
            return vec![format!("{words}  {scale}")];
        }
        let mut lines = text::wrap(&words, width);
        lines.push(scale);
        lines
    }

    /// The legend of the marks that occur.
    fn notes(&self) -> Vec<String> {
        let marks = self.grid.marks();
        let mut notes = Vec::new();
        if self.grid.columns.iter().any(|column| column.open) {
            notes.push("* still counting".into());
        }
        for (mark, words) in [
            (Mark::Conflict, "! two nodes claim one term, the larger count is shown"),
            (Mark::Partial, "? a node's count is missing"),
            (Mark::Block, "≡ counted together with its neighbours, the mean is shown"),
            (Mark::Apportioned, "~ spread from a coarser range"),
        ] {
            if marks.contains(&mark) {
                notes.push(words.into());
            }
        }
        if self.grid.rows.iter().any(|row| row.more_routes > 0) {
            notes.push("+N: N more routes share the row".into());
        }
        if self.grid.rows_joined > 1 {
            notes.push(format!("a row joins up to {} neighbours", self.grid.rows_joined));
        }
        if self.grid.columns_joined > 1 {
            notes.push(format!("a column joins up to {}", self.grid.columns_joined));
        }
        notes
    }
}

#[cfg(test)]
mod tests;
