//! The table of `top`, and its page on a screen.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};

use super::view::View;
use crate::terminal::text;
use keyviz_json::{key_text, rank_name};
use keyviz_proto as proto;

/// Longest key in a table.
const KEY_CELLS: usize = 40;
/// Cells of the bar of a whole share.
const BAR: usize = 12;

/// The screen: what is shown, the table, and the keys.
pub(super) fn page(
    top: &proto::TopRanges,
    view: View,
    failure: Option<&str>,
    (width, height): (usize, usize),
) -> String {
    let mut lines = words(top);
    if view.paused {
        lines.push("paused".to_owned());
    }
    if let Some(failure) = failure {
        lines.push(format!("not up to date: {}", text::inert(failure)));
    }
    lines.push(String::new());
    lines.extend(table(top).trim_fmt().lines().map(str::to_owned));
    let keys = "rank by: c cost, r reads, w writes, R read bytes, W write bytes; o: whole routes; \
                space: pause; q: quit";
    lines.truncate(height.saturating_sub(1));
    lines.push(keys.to_owned());
    let fitted = lines.iter().map(|line| text::shorten(line, width).into_owned());
    fitted.collect::<Vec<_>>().join("\n")
}

/// A number of operations or units a second.
fn a_second(rate: f64) -> String {
    match rate {
        rate if rate >= 10_000.0 => text::short_count(rate as u64),
        rate if rate >= 10.0 => format!("{rate:.0}"),
        rate if rate > 0.0 => format!("{rate:.1}"),
        _ => "-".to_owned(),
    }
}

fn bytes_a_second(rate: f64) -> String {
    if rate > 0.0 { text::short_bytes(rate as u64) } else { "-".to_owned() }
}

fn trend(trend: Option<f64>) -> String {
    match trend {
        None => "new".to_owned(),
        Some(trend) if trend >= 10.0 => format!("x{trend:.0}"),
        Some(trend) if (0.95..1.05).contains(&trend) => "=".to_owned(),
        Some(trend) => format!("x{trend:.1}"),
    }
}

fn keys(range: &proto::TopRange) -> String {
    let shown = |key: &[u8]| text::shorten(&text::preview(key), KEY_CELLS / 2).into_owned();
    let end = range.end.as_deref().map_or_else(|| "the end".to_owned(), shown);
    let start = match &range.start[..] {
        [] => "the start".to_owned(),
        start => shown(start),
    };
    format!("{start} .. {end}")
}

fn routes(range: &proto::TopRange) -> String {
    match (&range.route_ids[..], range.route_count) {
        ([], _) => String::new(),
        ([one], 1) => one.to_string(),
        ([first, ..], count) => format!("{first} +{}", count.saturating_sub(1)),
    }
}

pub(super) fn table(top: &proto::TopRanges) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "KEYS",
        "SHARE",
        "",
        "COST/S",
        "READS/S",
        "WRITES/S",
        "READ B/S",
        "WRITE B/S",
        "TREND",
        "SINCE",
        "ROUTE",
        "GROUP",
        "LEADER",
    ]);
    for range in &top.ranges {
        let rates = range.rates.unwrap_or_default();
        let since = text::time_utc(range.since_ms);
        // The same day goes without saying.
        let since = since.split_once([' ', 'T']).map_or(&*since, |(_, time)| time);
        let full = (range.share * BAR as f64).round() as usize;
        let known = |id: Option<u64>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let together = if range.together { " (together)" } else { "" };
        table.add_row([
            format!("{}{together}", keys(range)),
            format!("{:.1}%", range.share * 100.0),
            "█".repeat(full.min(BAR)),
            a_second(rates.cost),
            a_second(rates.reads),
            a_second(rates.writes),
            bytes_a_second(rates.read_bytes),
            bytes_a_second(rates.write_bytes),
            trend(range.trend),
            format!("{}{since}", if range.since_earlier { "before " } else { "" }),
            routes(range),
            known(range.group_id),
            known(range.leader),
        ]);
    }
    for column in [1, 3, 4, 5, 6, 7, 8] {
        let column = table.column_mut(column).expect("the table has thirteen columns");
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// What is said beside the table.
pub(super) fn words(top: &proto::TopRanges) -> Vec<String> {
    let total = top.total.unwrap_or_default();
    let rank = rank_name(top.rank());
    let (from, to) = (text::time_utc(top.from_ms), text::time_utc(top.to_ms));
    let mut lines = vec![format!(
        "by {rank}, {from} to {to}: {} reads/s, {} writes/s, cost {}/s",
        a_second(total.reads),
        a_second(total.writes),
        a_second(total.cost),
    )];
    if top.ranges.is_empty() {
        lines.push("no load".to_owned());
    }
    if top.omitted > 0 {
        lines.push(format!("{} more ranges with load", text::thousands(top.omitted)));
    }
    if top.partial {
        lines.push("partial: counts are missing, so rates may be higher".to_owned());
    }
    for node in top.nodes.iter().filter(|node| !node.ok) {
        lines.push(format!("node {} did not answer: {}", node.id, text::inert(&node.error)));
    }
    lines
}

/// One line per range.
pub(super) fn csv_rows(out: &mut impl Write, top: &proto::TopRanges) -> io::Result<()> {
    let mut csv = csv::WriterBuilder::new().from_writer(out);
    csv.write_record([
        "start",
        "end",
        "share",
        "cost_per_s",
        "reads_per_s",
        "writes_per_s",
        "read_bytes_per_s",
        "write_bytes_per_s",
        "trend",
        "since_ms",
        "route_id",
        "route_count",
        "group_id",
        "leader",
        "together",
    ])?;
    for range in &top.ranges {
        let rates = range.rates.unwrap_or_default();
        let known = |id: Option<u64>| id.map_or_else(String::new, |id| id.to_string());
        csv.write_record([
            key_text(&range.start).into_owned(),
            range.end.as_deref().map_or_else(String::new, |end| key_text(end).into_owned()),
            range.share.to_string(),
            rates.cost.to_string(),
            rates.reads.to_string(),
            rates.writes.to_string(),
            rates.read_bytes.to_string(),
            rates.write_bytes.to_string(),
            range.trend.map_or_else(String::new, |trend| trend.to_string()),
            range.since_ms.to_string(),
            known(range.route_ids.first().copied()),
            range.route_count.to_string(),
            known(range.group_id),
            known(range.leader),
            range.together.to_string(),
        ])?;
    }
    csv.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top() -> proto::TopRanges {
        let rates = |reads, writes| {
            Some(proto::Rates { reads, writes, cost: writes, ..Default::default() })
        };
        let range = proto::TopRange {
            start: (&b"user/1"[..]).into(),
            end: Some((&b"\x1b[2J"[..]).into()),
            route_ids: vec![7],
            route_count: 1,
            group_id: Some(2),
            leader: Some(3),
            rates: rates(0.0, 1_234.0),
            share: 0.5,
            trend: None,
            since_ms: 1_800_000_000_000,
            ..Default::default()
        };
        let node = proto::NodeStatus { id: 9, error: "\x1b[2J".into(), ..Default::default() };
        proto::TopRanges {
            rank: proto::Rank::Writes.into(),
            ranges: vec![range],
            total: rates(5.0, 2_468.0),
            omitted: 3,
            partial: true,
            nodes: vec![node],
            ..Default::default()
        }
    }

    #[test]
    fn the_page_has_the_table_words_and_keys_and_no_escape_of_a_key() {
        let view = View { rank: proto::Rank::Writes, routes: false, paused: true };
        let page = page(&top(), view, Some("\x1b[2J"), (400, 40));
        assert!(!page.contains('\x1b'), "{page}");
        for part in
            ["user/1 .. ", "50.0%", "█████", "1234", "new", "paused", "q: quit", "by writes"]
        {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(page.contains("node 9 did not answer") && page.contains("partial"), "{page}");
        let short = super::page(&top(), view, None, (20, 3));
        assert_eq!(short.lines().count(), 3);
        assert!(short.lines().all(|line| text::width(line) <= 20), "{short}");
    }

    #[test]
    fn csv_has_a_line_a_range() {
        let mut out = Vec::new();
        csv_rows(&mut out, &top()).expect("a vector takes everything");
        let out = String::from_utf8(out).expect("text");
        let line = out.lines().nth(1).expect("a range");
        assert_eq!(line, "user/1,hex:1b5b324a,0.5,1234,0,1234,0,0,,1800000000000,7,1,2,3,false");
    }
}
