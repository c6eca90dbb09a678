//! The hot keys of a day, asked of three nodes.

use std::time::{Duration, Instant};

use keyviz_core::Series;
use keyviz_fanout::HotKeysRequest;

use super::nodes::{self, Node, Numbers};
use super::{START_MS, STEP_MS, Size, counting, figure, median};

const WRITES: u64 = 5_000;

/// One of a million keys, the n-th with a chance of about 1/n.
fn zipf(numbers: &mut Numbers) -> u64 {
    let part = numbers.below(1 << 40) as f64 / (1u64 << 40) as f64;
    1e6f64.powf(part) as u64
}

pub fn run(size: Size) {
    let routes = nodes::routes(1_000, 3);
    let three: Vec<Node> = (1..=3).map(|node| Node::new(node, &routes, size.columns)).collect();
    for node in &three {
        let (sampler, mut numbers) = (node.local.sampler(), Numbers(node.id));
        for column in 1..=size.columns {
            for _ in 0..WRITES {
                let key = format!("user/{:08}", zipf(&mut numbers));
                sampler.with_epoch(|epoch| {
                    let located = epoch.locate(key.as_bytes()).expect("published");
                    epoch.record_write(located, key.as_bytes(), 1, 100);
                });
            }
            let _ = node.local.history().add(START_MS + column * STEP_MS, sampler.harvest());
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("the system has threads").block_on(async {
        let mut addresses = Vec::new();
        for node in &three {
            addresses.push((node.id, counting::serve(node, Default::default()).await));
        }
        let cluster = nodes::fanout(&three[0], &addresses, Duration::from_secs(2));
        for (points, what) in [(0, ""), (40, ", with 40 points a key")] {
            let request = HotKeysRequest {
                series: Series::Writes,
                from_ms: Some(START_MS),
                to_ms: Some(START_MS + size.columns * STEP_MS),
                start: Default::default(),
                end: None,
                limit: 20,
                points,
            };
            let mut times = Vec::new();
            for run in 0..=size.runs {
                let began = Instant::now();
                let answer = cluster.cluster_hot_keys(&request).await.expect("it answers");
                let hot = &answer.hot_keys;
                assert_eq!((hot.keys.len(), hot.partial), (20, false), "{:?}", answer.nodes);
                assert_eq!(hot.operations, 3 * size.columns * WRITES);
                if run > 0 || size.runs == 1 {
                    times.push(began.elapsed());
                }
            }
            let what = format!("hot keys of 3 nodes, {} columns{what}: median", size.columns);
            figure(&what, format!("{:.1} ms", median(times)), "50 ms");
        }
        for node in &three {
            let held = node.local.history().holdings();
            let bytes = held.hot_key_bytes as f64 / f64::from(1 << 20);
            figure("  bytes of the hot keys of a node", format!("{bytes:.1} MiB"), "32 MiB");
        }
    });
}
