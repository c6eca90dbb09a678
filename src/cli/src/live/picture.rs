//! The picture of a live heatmap in the cells of a terminal.
//!
//! ```text
//! writes · 10:00:00 to 10:03:20 UTC · 100 columns of 2s · ...      header, as of `heat`
//! live                                                             how it is kept up to date
//! 1 hot-range: key/0500 → key/0600, 450/s, 45%, since 10:01:12Z    what stands out
//! (begin)    │ ....::::    │   1.2k                                label, cells, sum of the row
//! key/0500  ?│ ==++**##    │  15.3k
//!            └┬─────┬─────*                                        time axis
//!             10:00 10:01
//! key/0500 → key/0600 · route 7 · group 2, leader node 3           the cell under the cursor
//! 10:00:42 for 2s: 1,204 writes, 61 % of the column
//! the row: 15,301 writes, 40 % of the total  ▁▁▂▅█▇▇
//! 0  .:-=+*#%@ 1,234 writes in 2s, log scale                       legend
//! ```

use std::collections::HashMap;
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph, Widget};

use super::view::View;
use crate::heatmap::grid::{Cell, Grid, Mark};
use crate::heatmap::labels::Labels;
use crate::heatmap::palette::{Palette, RAMP_CELLS};
use crate::heatmap::{self, Drawing, GUTTER, axis, noun};
use crate::terminal::notation;
use crate::terminal::output::ColorDepth;
use crate::terminal::text::{self, inert, thousands};
use keyviz_proto as proto;

/// Lines of the cell under the cursor.
const DETAILS: usize = 3;
/// Status, findings, axis (two lines and the marks of changes), legend.
const FIXED: usize = 6;
/// The lines that only this picture has: of the cell, and of the findings.
const OWN: usize = DETAILS + 1;
/// Fewest rows that are drawn.
const LEAST_ROWS: usize = 3;
/// Widest cell.
const MOST_CELL_WIDTH: usize = 6;

const HELP: &[(&str, &str)] = &[
    ("arrows, PgUp, PgDn", "move the cursor; its cell is told below"),
    ("Shift + arrows", "pan in time and keys"),
    ("+ and -", "zoom at the cursor, in time and keys"),
    ("] and [", "zoom in time only"),
    ("} and {", "zoom in keys only"),
    ("Backspace, Home", "the view before; the first view"),
    ("1 2 3 4", "writes, reads, write bytes, read bytes"),
    ("l", "linear or logarithmic"),
    ("m", "rows planned now: more detail"),
    ("Space, p", "pause and go on"),
    ("Esc", "no cursor"),
    ("q, Ctrl-C", "the end"),
];

/// All that is drawn.
pub(super) struct Picture<'a> {
    pub(super) matrix: &'a proto::Matrix,
    pub(super) view: &'a View,
    /// How the drawing is updated.
    pub(super) status: &'a str,
    /// What stands out, in words; empty: not known.
    pub(super) found: &'a str,
    /// Leader of each group, where one is known.
    pub(super) leaders: &'a HashMap<u64, u64>,
    /// Hot keys of the cell under the cursor, in words; empty: not known.
    pub(super) hot: &'a str,
    pub(super) color: ColorDepth,
}

/// What to ask for so that it fits: the size of a drawing without the lines that only this one has.
pub(super) fn drawing(width: usize, height: usize, color: ColorDepth) -> Drawing {
    Drawing { width, height: height.saturating_sub(OWN), color }
}

/// Where everything goes.
pub(super) struct Layout {
    header: Vec<String>,
    pub(super) grid: Grid,
    labels: Labels,
    cell_width: usize,
    sums: bool,
}

impl Layout {
    pub(super) fn new(matrix: &proto::Matrix, width: usize, height: usize) -> Self {
        let drawing = Drawing { width, height, color: ColorDepth::None };
        let header = heatmap::header(matrix, width.max(1));
        let room = height.saturating_sub(header.len() + FIXED + DETAILS).max(LEAST_ROWS);
        let grid = Grid::rows_of(matrix, room);
        let labels = Labels::new(&grid, drawing.label_limit());
        let taken = labels.width + GUTTER + 1 + drawing.sum_width();
        let room = width.saturating_sub(taken).max(1);
        let grid = grid.columns_of(matrix, room);
        let cell_width = (room / grid.columns.len().max(1)).clamp(1, MOST_CELL_WIDTH);
        Layout { header, grid, labels, cell_width, sums: drawing.sum_width() > 0 }
    }
}

/// Writes lines from the top down, cut to the area.
struct Pen<'a> {
    area: Rect,
    buffer: &'a mut Buffer,
    line: u16,
}

impl Pen<'_> {
    fn put(&mut self, column: usize, text: &str, style: Style) {
        let column = u16::try_from(column).unwrap_or(u16::MAX);
        if self.line >= self.area.height || column >= self.area.width {
            return;
        }
        let room = usize::from(self.area.width - column);
        self.buffer.set_stringn(self.area.x + column, self.area.y + self.line, text, room, style);
    }

    fn line(&mut self, text: &str, style: Style) {
        self.put(0, text, style);
        self.line = self.line.saturating_add(1);
    }
}

impl Picture<'_> {
    pub(super) fn draw(&self, layout: &Layout, area: Rect, buffer: &mut Buffer) {
        let mut pen = Pen { area, buffer, line: 0 };
        for line in &layout.header {
            pen.line(line, Style::new().add_modifier(Modifier::BOLD));
        }
        pen.line(&inert(self.status), Style::new().add_modifier(Modifier::DIM));
        let width = usize::from(area.width);
        pen.line(&text::shorten(&inert(self.found), width), Style::new());
        if layout.grid.columns.is_empty() || layout.grid.rows.is_empty() {
            pen.line("Nothing to draw: no column has been closed yet.", Style::new());
        } else {
            self.draw_cells(layout, &mut pen);
            self.draw_axis(layout, &mut pen);
            self.draw_details(layout, &mut pen);
            self.draw_legend(layout, &mut pen);
        }
        if self.view.help {
            draw_help(area, buffer);
        }
    }

    fn palette(&self, grid: &Grid) -> Palette {
        let palette = Palette::new(self.color, grid.most());
        if self.view.linear { palette.linear() } else { palette }
    }

    fn draw_cells(&self, layout: &Layout, pen: &mut Pen<'_>) {
        let grid = &layout.grid;
        let palette = self.palette(grid);
        let cursor = self.view.cell(grid);
        let left = layout.labels.width + GUTTER;
        let shared = grid.shared_marks();
        for (at, (row, label)) in grid.rows.iter().zip(&layout.labels.texts).enumerate() {
            let on = cursor.is_some_and(|(row, _)| row == at);
            let style =
                if on { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
            pen.put(0, &text::fit(label, layout.labels.width), style);
            let own = |cell: &Cell, shared: &Mark| {
                if cell.mark == *shared { Mark::None } else { cell.mark }
            };
            let marks: Vec<Mark> =
                row.cells.iter().zip(&shared).map(|(cell, shared)| own(cell, shared)).collect();
            let mark = marks.iter().copied().max().unwrap_or_default();
            pen.put(layout.labels.width, &format!("{}│", mark.glyph()), Style::new());
            for (column, (cell, mark)) in row.cells.iter().zip(&marks).enumerate() {
                let (fill, style) = palette.look(cell.value);
                let mut text: String = std::iter::repeat_n(fill, layout.cell_width).collect();
                let here = on && cursor.is_some_and(|(_, at)| at == column);
                if here {
                    text.pop();
                    text.insert(0, '▐');
                } else if *mark != Mark::None {
                    text.pop();
                    text.push(mark.glyph());
                }
                let style = if here { style.add_modifier(Modifier::REVERSED) } else { style };
                pen.put(left + column * layout.cell_width, &text, style);
            }
            let end = left + row.cells.len() * layout.cell_width;
            pen.put(end, "│", Style::new());
            if layout.sums {
                let sum = heatmap::amount(self.matrix.series(), row.sum);
                pen.put(end + 1, &format!("{sum:>10}"), Style::new());
            }
            pen.line = pen.line.saturating_add(1);
        }
    }

    fn draw_axis(&self, layout: &Layout, pen: &mut Pen<'_>) {
        let indent = layout.labels.width + 1;
        let grid = &layout.grid;
        let width = usize::from(pen.area.width);
        let [ticks, times] = axis::lines(grid, indent, layout.cell_width, width);
        pen.line(&ticks, Style::new());
        let changes: Vec<u64> = self.matrix.events.iter().map(|event| event.time_ms).collect();
        let marks = axis::event_line(grid, indent, layout.cell_width, &changes);
        pen.line(&marks.unwrap_or_default(), Style::new());
        pen.line(&times, Style::new());
    }

    /// The cell under the cursor; without one, the newest change of the routes.
    fn draw_details(&self, layout: &Layout, pen: &mut Pen<'_>) {
        let width = usize::from(pen.area.width);
        let mut lines = match self.view.cell(&layout.grid) {
            Some(cell) => self.details(layout, cell, width),
            None => self.matrix.events.last().map(heatmap::event_words).into_iter().collect(),
        };
        lines.resize(DETAILS, String::new());
        for line in &lines {
            pen.line(&text::shorten(line, width), Style::new());
        }
    }

    fn details(&self, layout: &Layout, (row, column): (usize, usize), width: usize) -> Vec<String> {
        let grid = &layout.grid;
        let series = self.matrix.series();
        let (cells, time) = (&grid.rows[row], &grid.columns[column]);
        let cell = cells.cells[column];
        let members = self.matrix.rows.chunks(grid.rows_joined).nth(row).unwrap_or_default();
        let first = members.first().cloned().unwrap_or_default();
        let end = members.last().and_then(|row| row.end.as_deref());
        let length = Duration::from_millis(time.end_ms - time.start_ms);
        let in_column = grid.rows.iter().fold(0u64, |sum, row| {
            sum.saturating_add(row.cells.get(column).map_or(0, |cell| cell.value))
        });
        let note = match cell.mark {
            Mark::None => "",
            Mark::Apportioned => " · ~ spread from a coarser range",
            Mark::Block => " · ≡ counted together with its neighbours, the mean is shown",
            Mark::Partial => " · ? a node's count is missing",
            Mark::Conflict => " · ! two nodes claim one term, the larger count is shown",
        };
        let open = if time.open { ", still counting" } else { "" };
        let what = noun(series);
        let hot = if self.hot.is_empty() { String::new() } else { format!(" · {}", self.hot) };
        let place = format!(
            "{} · {} · {}{hot}",
            range(&first.start, end),
            routes(members),
            self.group(members),
        );
        let value = format!(
            "{} for {}{open}: {} {what}, {}, {} of the column, {} of the total{note}",
            axis::time(time.start_ms),
            text::duration(length),
            thousands(cell.value),
            rate(series, cell.value, length),
            percent(cell.value, in_column),
            percent(cell.value, self.matrix.total),
        );
        let (first, last) = (grid.columns.first(), grid.columns.last());
        let window_ms = first.zip(last).map_or(0, |(first, last)| last.end_ms - first.start_ms);
        let row = format!(
            "the row: {} {what}, {}, {} of the total{}  ",
            thousands(cells.sum),
            rate(series, cells.sum, Duration::from_millis(window_ms)),
            percent(cells.sum, self.matrix.total),
            roles(members),
        );
        let room = width.saturating_sub(text::width(&row));
        let values: Vec<u64> = cells.cells.iter().map(|cell| cell.value).collect();
        vec![place, value, row + &sparkline(&values, room)]
    }

    fn group(&self, members: &[proto::Row]) -> String {
        let group = members.first().and_then(|row| row.group_id);
        match group.filter(|group| members.iter().all(|row| row.group_id == Some(*group))) {
            None => "several groups".into(),
            Some(group) => match self.leaders.get(&group) {
                Some(node) => format!("group {group}, leader node {node}"),
                None => format!("group {group}"),
            },
        }
    }

    fn draw_legend(&self, layout: &Layout, pen: &mut Pen<'_>) {
        let series = self.matrix.series();
        let (palette, most) = (self.palette(&layout.grid), layout.grid.most());
        pen.put(0, "0 ", Style::new());
        for step in 0..RAMP_CELLS {
            let (fill, style) = palette.step(step);
            pen.put(2 + step, &fill.to_string(), style);
        }
        let grid = &layout.grid;
        let length = grid.columns.iter().map(|column| column.end_ms - column.start_ms).max();
        let scale = if self.view.linear { "linear" } else { "log" };
        let mut words = format!(
            " {} {} in {} ({}), {scale} scale · ? for help",
            heatmap::amount(series, most),
            noun(series),
            text::duration(Duration::from_millis(length.unwrap_or(0))),
            rate(series, most, Duration::from_millis(length.unwrap_or(0))),
        );
        if grid.rows_joined > 1 {
            words.push_str(&format!(" · a row joins up to {} neighbours", grid.rows_joined));
        }
        if grid.columns_joined > 1 {
            words.push_str(&format!(" · a column joins up to {}", grid.columns_joined));
        }
        pen.put(2 + RAMP_CELLS, &words, Style::new());
        pen.line = pen.line.saturating_add(1);
    }
}

fn range(start: &[u8], end: Option<&[u8]>) -> String {
    let between = if notation::is_one_key(start, end) { " " } else { " → " };
    format!("{}{between}{}", notation::start(start), notation::end(start, end))
}

fn routes(rows: &[proto::Row]) -> String {
    const NAMED: usize = 6;
    let mut ids: Vec<u64> = rows.iter().flat_map(|row| &row.route_ids).copied().collect();
    ids.dedup();
    let count = rows.iter().fold(0u64, |sum, row| sum.saturating_add(row.route_count));
    let names: Vec<String> = ids.iter().take(NAMED).map(u64::to_string).collect();
    match (ids.len(), count) {
        (1, _) => format!("route {}", names.join("")),
        (_, count) if names.len() as u64 >= count => format!("routes {}", names.join(", ")),
        (_, count) => format!("{} routes: {}, …", thousands(count), names.join(", ")),
    }
}

/// Who counted, where the last whole answer told.
fn roles(rows: &[proto::Row]) -> String {
    let Some(roles) = rows.iter().map(|row| row.roles).collect::<Option<Vec<_>>>() else {
        return String::new();
    };
    let sum = |of: fn(&proto::RoleTotals) -> u64| roles.iter().map(of).fold(0, u64::saturating_add);
    let parts = [
        (sum(|role| role.leader_write), "leaders writing"),
        (sum(|role| role.leader_read), "leaders reading"),
        (sum(|role| role.follower_read), "followers reading"),
    ];
    let all = parts.iter().map(|(count, _)| *count).fold(0, u64::saturating_add);
    let some = parts.iter().filter(|(count, _)| *count > 0);
    some.map(|(count, name)| format!(", {name} {}", percent(*count, all))).collect()
}

/// A count as a rate: `1.2k/s`.
fn rate(series: proto::Series, count: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let rate = if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    match rate {
        rate if rate > 0.0 && rate < 10.0 => format!("{rate:.1}/s"),
        rate => format!("{}/s", heatmap::amount(series, rate.round() as u64)),
    }
}

fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "0 %".into(),
        _ => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}

/// The values as bars in at most `room` cells, neighbours joined by the larger.
fn sparkline(values: &[u64], room: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    if room == 0 || values.is_empty() {
        return String::new();
    }
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    let bar = |values: &[u64]| match values.iter().copied().max().unwrap_or(0) {
        0 => ' ',
        value => BARS[((value as f64 / most as f64 * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    values.chunks(values.len().div_ceil(room)).map(bar).collect()
}

fn draw_help(area: Rect, buffer: &mut Buffer) {
    let lines: Vec<Line<'_>> =
        HELP.iter().map(|(keys, words)| Line::from(format!(" {keys:<20} {words} "))).collect();
    let width = (lines.iter().map(Line::width).max().unwrap_or(0) + 2) as u16;
    let height = lines.len() as u16 + 2;
    let [width, height] = [width.min(area.width), height.min(area.height)];
    let box_ = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(box_, buffer);
    Paragraph::new(lines).block(Block::bordered().title(" keys ")).render(box_, buffer);
}
