//! The time axis: a line with ticks and the marks of columns, and a line with times (UTC).

use super::grid::{Grid, Mark};
use crate::terminal::text;

/// The mark of a column in which routes changed.
pub const EVENT: char = '^';

const HOUR_MS: u64 = 3_600_000;

/// The window as text, in UTC.
pub fn window(from_ms: u64, to_ms: u64) -> String {
    let (from, to) = (words(from_ms), words(to_ms));
    match (from.split_once(' '), to.split_once(' ')) {
        (Some((day, _)), Some((same_day, time))) if day == same_day => {
            format!("{from} to {time} UTC")
        }
        _ => format!("{from} to {to} UTC"),
    }
}

/// The time of day in UTC, to the second.
pub fn time(ms: u64) -> String {
    words(ms).get(11..19).unwrap_or("-").to_owned()
}

fn words(ms: u64) -> String {
    text::time_utc(ms).replace('T', " ").trim_end_matches('Z').to_owned()
}

/// Ticks and times below the cells, which start `indent` terminal cells from the left.
pub fn lines(grid: &Grid, indent: usize, cell_width: usize, width: usize) -> [String; 2] {
    let form = Form::of(grid);
    let every = (form.width() + 2).div_ceil(cell_width);
    let mut ticks = " ".repeat(indent);
    let mut times = " ".repeat(indent + 1);
    ticks.push('└');
    for (at, (column, mark)) in grid.columns.iter().zip(grid.column_marks()).enumerate() {
        let at_cell = indent + 1 + at * cell_width;
        let time = form.text(column.start_ms);
        let labelled = at % every == 0 && at_cell + text::width(&time) <= width;
        if labelled {
            times.push_str(&" ".repeat(at_cell - text::width(&times)));
            times.push_str(&time);
        }
        let mut signs = Vec::new();
        if mark > Mark::Apportioned {
            signs.push(mark.glyph());
        }
        if column.open {
            signs.push('*');
        }
        if mark == Mark::Apportioned {
            signs.push(mark.glyph());
        }
        if labelled && signs.len() < cell_width {
            signs.insert(0, '┬');
        }
        signs.resize(cell_width, '─');
        ticks.extend(signs);
    }
    ticks.push('┘');
    [ticks, times]
}

/// A line with a mark under each column in which routes changed; empty if none did.
pub fn event_line(
    grid: &Grid,
    indent: usize,
    cell_width: usize,
    times_ms: &[u64],
) -> Option<String> {
    let mut marks = vec![' '; grid.columns.len() * cell_width];
    let mut any = false;
    for &ms in times_ms {
        let at =
            grid.columns.iter().position(|column| (column.start_ms..column.end_ms).contains(&ms));
        if let Some(at) = at {
            marks[at * cell_width] = EVENT;
            any = true;
        }
    }
    any.then(|| " ".repeat(indent + 1) + &marks.into_iter().collect::<String>())
}

/// The format of times: as fine as the columns need, with the day if there are several.
enum Form {
    DayMinute,
    Second,
    Minute,
}

impl Form {
    fn of(grid: &Grid) -> Self {
        let first = grid.columns[0].start_ms;
        let last = grid.columns[grid.columns.len() - 1].end_ms;
        if last.saturating_sub(first) > 24 * HOUR_MS {
            Form::DayMinute
        } else if grid.columns.iter().any(|column| column.start_ms % 60_000 != 0) {
            Form::Second
        } else {
            Form::Minute
        }
    }

    fn width(&self) -> usize {
        match self {
            Form::DayMinute => "01-31 12:00".len(),
            Form::Second => "12:00:00".len(),
            Form::Minute => "12:00".len(),
        }
    }

    fn text(&self, ms: u64) -> String {
        let words = words(ms);
        let part = match self {
            Form::DayMinute => words.get(5..16),
            Form::Second => words.get(11..19),
            Form::Minute => words.get(11..16),
        };
        part.unwrap_or("-").to_owned()
    }
}
