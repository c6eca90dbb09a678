//! What a matrix of many nodes costs, over real gRPC on loopback, each figure beside its bound.
//!
//! Three nodes: 10,000 routes, 1,440 columns of a minute with 65,536 operations each, half reads
//! and half writes, spread at random; a route's writes are counted by the node that leads it, its
//! reads by any of the three. The yardstick is one node that counted all of it, asked in turn with
//! the three, in the same run.
//!
//! Hundred nodes: 100,000 routes in groups in turn, each node leads 1,000 of them and serves reads
//! of 3,000 (the replicas of three groups), all of them in every column: the most cells that there
//! can be, since every node has counts in every row and column of the answer. The asker is a
//! process of its own, which leads nothing, so that its memory and its time on a core are its own;
//! the nodes share the cores with it.
//!
//! Hot keys: three nodes and a day of columns with 5,000 writes each, zipf over a million keys.
//!
//! `cargo bench --bench fanout`; a part: `-- three`, `-- hot`, `-- hundred`, `-- curves DIR`
//! (also draws the two curves into DIR). Without `--bench`, as in `cargo test --bench fanout`, all
//! of it small and once.

mod asker;
mod counting;
mod curves;
mod hot;
mod nodes;
mod plot;

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyviz_core::Series;
use keyviz_fanout::{Fanout, MatrixRequest};

use nodes::{Node, Numbers};

const STEP_MS: u64 = 60_000;
const START_MS: u64 = 28_000_000 * STEP_MS;

/// How much of it.
#[derive(Clone, Copy)]
struct Size {
    columns: u64,
    nodes: u64,
    runs: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "ask") {
        return asker::main();
    }
    let full = arguments.iter().any(|argument| argument == "--bench");
    let size = match full {
        true => Size { columns: 1_440, nodes: 100, runs: 9 },
        false => Size { columns: 48, nodes: 10, runs: 1 },
    };
    let wanted = |part: &str| {
        let parts = ["three", "hot", "hundred", "curves"];
        let named = |argument: &String| parts.contains(&argument.as_str());
        !arguments.iter().any(named) || arguments.iter().any(|argument| argument == part)
    };
    if wanted("three") {
        three_nodes(size);
    }
    if wanted("hot") {
        hot::run(size);
    }
    if wanted("hundred") || wanted("curves") {
        let folder = arguments.iter().skip_while(|argument| *argument != "curves").nth(1);
        hundred_nodes(size, wanted("hundred"), wanted("curves"), folder.map(String::as_str));
    }
}

fn figure(what: &str, figure: impl std::fmt::Display, bound: &str) {
    println!("{what:<72} {figure:>14}   bound {bound}");
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn request(columns: u64, series: Series) -> MatrixRequest {
    let to_ms = START_MS + columns * STEP_MS;
    MatrixRequest {
        series,
        role: None,
        from_ms: Some(START_MS),
        to_ms: Some(to_ms),
        start: Default::default(),
        end: None,
        max_rows: 256,
        max_columns: 480,
        axis: Default::default(),
        spread: false,
        boundaries: Default::default(),
        by_route: false,
        sources: false,
    }
}

fn three_nodes(size: Size) {
    const ROUTES: u64 = 10_000;
    let routes = nodes::routes(ROUTES, 3);
    let mut numbers = Numbers(1);
    let alone = Node::new(1, &routes, size.columns);
    let three: Vec<Node> = (1..=3).map(|node| Node::new(node, &routes, size.columns)).collect();
    let whole = nodes::layout(&routes, |_| true, |_| true);
    let parts: Vec<_> = (1..=3)
        .map(|node| nodes::layout(&routes, |_| true, |route| route.group.0 == node))
        .collect();
    for _ in 0..size.columns {
        let all = nodes::spread(&routes, 65_536, &mut numbers);
        alone.add_all(&whole, &all.iter().map(|at| at.total()).collect::<Vec<_>>());
        for (node, (local, layout)) in three.iter().zip(&parts).enumerate() {
            let mine: Vec<_> = all.iter().map(|at| at.at_node(node)).collect();
            local.add_all(layout, &mine);
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("the system has threads");
    runtime.block_on(async {
        let mut addresses = Vec::new();
        for node in &three {
            addresses.push((node.id, counting::serve(node, Arc::default()).await));
        }
        let cluster = nodes::fanout(&three[0], &addresses, Duration::from_secs(2));
        let single = nodes::fanout(&alone, &[], Duration::from_secs(2));
        for series in [Series::Writes, Series::Reads] {
            let request = request(size.columns, series);
            let (mut ours, mut yardstick) = (Vec::new(), Vec::new());
            for run in 0..=size.runs {
                let (took, total) = timed(&cluster, &request, 3).await;
                let (took_alone, total_alone) = timed(&single, &request, 1).await;
                assert_eq!(total, total_alone, "the three counted what the one did");
                // The first of each warms up.
                if run > 0 || size.runs == 1 {
                    ours.push(took);
                    yardstick.push(took_alone);
                }
            }
            let (ours, yardstick) = (median(ours), median(yardstick));
            let what = format!("3 nodes, {ROUTES} routes, {} columns, {series:?}", size.columns);
            figure(&format!("{what}: median"), format!("{ours:.1} ms"), "150 ms");
            let ratio = format!("{:.2}", ours / yardstick);
            figure(&format!("  by one node's {yardstick:.1} ms for the same"), ratio, "2");
        }
    });
}

async fn timed(fanout: &Arc<Fanout>, request: &MatrixRequest, nodes: u32) -> (Duration, u64) {
    let began = Instant::now();
    let answer = fanout.cluster(request).await.expect("there is an answer");
    let took = began.elapsed();
    assert_eq!(answer.matrix.responded, nodes, "{:?}", answer.matrix.nodes);
    (took, answer.matrix.total)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    millis(times[times.len() / 2])
}

fn hundred_nodes(size: Size, hundred: bool, curves: bool, folder: Option<&str>) {
    let (nodes, columns) = (size.nodes, size.columns);
    let crowd = nodes::Crowd::new(nodes, 1_000, columns);
    if hundred {
        for series in [Series::Writes, Series::Reads] {
            let asked = crowd.ask(nodes, series, size.runs.min(5));
            let what = format!("{nodes} nodes, {} routes, {columns} columns", nodes * 1_000);
            figure(
                &format!("{what}, {series:?}: median"),
                format!("{:.0} ms", asked.wall_ms),
                "3000 ms",
            );
            figure("  of it the asker, on a core", format!("{:.0} ms", asked.core_ms), "500 ms");
            figure("  most memory of the asker", format!("{:.0} MiB", asked.peak_mib), "256 MiB");
            let each = format!("{:.2} B", asked.bytes_a_cell());
            let what = format!("  on the wire a (cell, node), of {}", asked.cells);
            figure(&what, each, "4 B");
        }
    }
    if curves {
        curves::run(&crowd, size, folder);
    }
}
