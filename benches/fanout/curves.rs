//! How the cost grows with nodes, and how with what they hold.

use keyviz_core::Series;

use super::Size;
use super::nodes::{Asked, Crowd};
use super::plot::{Curve, Plot};

/// Nodes that hold more and more, for the second curve.
const HOLDERS: u64 = 10;

pub fn run(crowd: &Crowd, size: Size, folder: Option<&str>) {
    let runs = size.runs.min(3);
    let nodes: Vec<u64> = match size.nodes {
        100 => vec![10, 25, 50, 75, 100],
        few => vec![few / 2, few],
    };
    let by_nodes: Vec<(u64, Asked)> =
        nodes.into_iter().map(|nodes| (nodes, crowd.ask(nodes, Series::Writes, runs))).collect();
    println!("\nnodes      total ms  asker ms on a core  asker MiB  MiB on the wire");
    by_nodes.iter().for_each(|(nodes, asked)| row(*nodes, asked));

    let led: &[u64] = if size.nodes == 100 { &[100, 250, 500, 1_000, 2_000] } else { &[50, 100] };
    let by_held: Vec<(u64, Asked)> = led
        .iter()
        .map(|&led| {
            let crowd = Crowd::new(HOLDERS, led, size.columns);
            let asked = crowd.ask(HOLDERS, Series::Reads, runs);
            (3 * led * size.columns / 1_000, asked)
        })
        .collect();
    println!("\n1,000 cells held by each of {HOLDERS} nodes (routes x columns)");
    by_held.iter().for_each(|(held, asked)| row(*held, asked));

    let Some(folder) = folder else { return };
    let times = |points: &[(u64, Asked)]| {
        let curve = |name, of: fn(&Asked) -> f64| Curve {
            name,
            points: points.iter().map(|(at, asked)| (*at as f64, of(asked))).collect(),
        };
        vec![
            curve("in all, nodes and asker on two cores", |asked| asked.wall_ms),
            curve("the asker's own, on a core", |asked| asked.core_ms),
        ]
    };
    let plots = [
        ("scale-nodes", "nodes, each with counts in every cell of 256 x 480", times(&by_nodes)),
        (
            "scale-history",
            "1,000 cells held by each of 10 nodes (routes x columns)",
            times(&by_held),
        ),
    ];
    for (name, x, curves) in plots {
        let path = format!("{folder}/{name}.svg");
        let drawing = Plot { x, y: "milliseconds", curves }.svg();
        std::fs::write(&path, drawing).expect("the folder takes a file");
        println!("drawn: {path}");
    }
}

fn row(at: u64, asked: &Asked) {
    let sent = asked.bytes as f64 / f64::from(1 << 20);
    println!(
        "{at:>6} {:>11.1} {:>19.1} {:>10.0} {sent:>16.2}",
        asked.wall_ms, asked.core_ms, asked.peak_mib
    );
}
