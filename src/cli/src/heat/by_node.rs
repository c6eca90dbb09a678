//! `heat --by-node`: what each node contributed to a matrix.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};

use super::csv::{ROW_HEADER, row_head};
use crate::heatmap::{header, noun};
use crate::terminal::output::{self, Format};
use crate::terminal::text::{self, thousands};
use keyviz_proto as proto;

/// A table of the nodes, or CSV with one line per row and a number per node.
pub(super) fn print(
    out: &mut impl Write,
    matrix: &proto::Matrix,
    format: Format,
) -> io::Result<()> {
    if format == Format::Csv {
        return csv_rows(out, matrix);
    }
    for line in header(matrix, output::size().0) {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "\n{}", table(matrix).trim_fmt())
}

/// One row per member, including those that did not answer.
fn table(matrix: &proto::Matrix) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let total = noun(matrix.series()).to_uppercase();
    let fixed = ["LEADER WRITE", "LEADER READ", "FOLLOWER READ", "COLUMNS", "SKEW", "LATENCY"];
    table.set_header(["NODE", "ADDRESS", "STATE", &total].into_iter().chain(fixed));
    for node in &matrix.nodes {
        let share = matrix.by_node.iter().find(|share| share.id == node.id);
        let roles = share.and_then(|share| share.roles).unwrap_or_default();
        let counted = |number: u64| match share {
            Some(_) => thousands(number),
            None => "-".to_owned(),
        };
        table.add_row([
            node.id.to_string(),
            text::inert(&node.address).into_owned(),
            state(node),
            counted(share.map_or(0, |share| share.total)),
            counted(roles.leader_write),
            counted(roles.leader_read),
            counted(roles.follower_read),
            if node.ok { thousands(node.columns) } else { "-".into() },
            format!("{:+} ms", node.clock_skew_ms),
            format!("{} ms", thousands(node.latency_ms)),
        ]);
    }
    for column in [0, 3, 4, 5, 6, 7, 8, 9] {
        let column = table.column_mut(column).expect("the table has ten columns");
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn state(node: &proto::NodeStatus) -> String {
    if !node.ok {
        return format!("no answer: {}", text::inert(&node.error));
    }
    match (node.past_history, node.beyond_end) {
        (true, _) => "ok, past its history".into(),
        (false, true) => "ok, its clock is or was ahead".into(),
        (false, false) => "ok".into(),
    }
}

/// One line per row; nodes by id.
fn csv_rows(out: &mut impl Write, matrix: &proto::Matrix) -> io::Result<()> {
    let mut csv = csv::WriterBuilder::new().from_writer(out);
    let nodes = matrix.by_node.iter().map(|share| format!("node_{}", share.id));
    csv.write_record(ROW_HEADER.map(str::to_owned).into_iter().chain(nodes))?;
    for (index, row) in matrix.rows.iter().enumerate() {
        // A peer of the right version has one number per row.
        let part = |share: &proto::NodeShare| share.rows.get(index).copied().unwrap_or_default();
        let parts = matrix.by_node.iter().map(|share| part(share).to_string());
        csv.write_record(row_head(row).into_iter().chain(parts))?;
    }
    csv.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> proto::Matrix {
        let node = |id, error: &str| proto::NodeStatus {
            id,
            address: format!("n{id}:1"),
            ok: error.is_empty(),
            error: error.into(),
            clock_skew_ms: -7,
            columns: 9,
            past_history: id == 2,
            ..Default::default()
        };
        let share = |id, leader_write, follower_read, rows: &[u64]| proto::NodeShare {
            id,
            total: leader_write + follower_read,
            roles: Some(proto::RoleTotals { leader_write, leader_read: 0, follower_read }),
            rows: rows.to_vec(),
            unattributed: 0,
            ..proto::NodeShare::default()
        };
        let row = |id: u64, values: &[u64]| proto::Row {
            bucket_id: format!("route:{id}"),
            route_count: 1,
            values: values.to_vec(),
            ..Default::default()
        };
        proto::Matrix {
            rows: vec![row(1, &[5, 1_200]), row(2, &[7, 0])],
            total: 1_212,
            nodes: vec![node(1, ""), node(2, ""), node(3, "\u{1b}[2J")],
            by_node: vec![share(1, 1_200, 5, &[1_205, 0]), share(2, 7, 0, &[0, 7])],
            responded: 2,
            expected: 3,
            conflicts: vec![proto::Conflict { group_id: 4, term: 5, nodes: vec![1, 2] }],
            ..Default::default()
        }
    }

    #[test]
    fn every_member_is_listed_with_what_it_brought() {
        insta::assert_snapshot!(table(&matrix()).trim_fmt());
    }

    #[test]
    fn csv_has_a_number_a_node() {
        let mut out = Vec::new();
        csv_rows(&mut out, &matrix()).expect("a vector takes everything");
        let expected = "bucket_id,start,end,group_id,route_count,total,node_1,node_2\n\
            route:1,,,,1,1205,1205,0\nroute:2,,,,1,7,0,7\n";
        assert_eq!(String::from_utf8(out).expect("output is text"), expected);
    }
}
