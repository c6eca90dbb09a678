//! Input at and beyond its edges, through sampler and history together: odd keys, odd clocks, odd
//! settings and odd questions. Nothing is lost by any of them and nothing panics.

use bytes::Bytes;
use keyviz_core::{history::*, matrix::*, query::*, sampler::*, *};

const NOW_MS: u64 = 1_800_000_000_000;
const HOUR_MS: u64 = 3_600_000;
const YEAR_MS: u64 = 365 * 24 * HOUR_MS;

struct Local {
    sampler: Sampler,
    history: History,
    recorded: u64,
}

impl Local {
    fn new(sampler: SamplerConfig, history: HistoryConfig, starts: &[&[u8]]) -> Local {
        let mut starts: Vec<Bytes> = starts.iter().copied().map(Bytes::copy_from_slice).collect();
        starts.insert(0, Bytes::new());
        starts.sort();
        starts.dedup();
        let route = |n: usize| RouteSpec {
            id: RouteId::new(n as u64 + 1).expect("from 1"),
            range: KeyRange { start: starts[n].clone(), end: starts.get(n + 1).cloned() },
            group: GroupId(1),
        };
        let routes: Vec<_> = (0..starts.len()).map(route).collect();
        let sampler = Sampler::new(sampler).expect("inside the bounds");
        sampler.publish_routes(1, routes).expect("a table");
        sampler.set_leader_terms(&[(GroupId(1), Some(Term(1)))]);
        let history = History::new(history, NodeId(1), Incarnation(1), NOW_MS).expect("in bounds");
        Local { sampler, history, recorded: 0 }
    }

    fn minutes(starts: &[&[u8]]) -> Local {
        Local::new(SamplerConfig::default(), HistoryConfig::default(), starts)
    }

    fn write(&mut self, key: &[u8]) {
        let epoch = self.sampler.epoch();
        let located = epoch.locate(key).expect("published");
        assert!(epoch.route(located).range.contains(key));
        epoch.record_write(located, key, 1, key.len() as u64);
        self.recorded += 1;
    }

    fn tick(&self, now_ms: u64) {
        let _ = self.history.add(now_ms, self.sampler.harvest());
        self.sampler.replan();
    }

    fn matrix(&self, window: Window, range: KeyRange, now_ms: u64) -> Matrix {
        let query = Query { window, range, series: Series::Writes, role: None };
        let epoch = self.sampler.epoch_full();
        let request = PlanRequest {
            routes: epoch.routes(),
            catalog_version: epoch.catalog_version(),
            range: &query.range,
            max_rows: 0,
            max_route_ids: 8,
            boundaries: None,
        };
        let view = self.history.view(window, self.sampler.peek());
        let rows = plan(&request, &[view.totals(&query)]).expect("the routes cover the keys");
        let step_ms = self.history.config().step_ms;
        let columns = plan_columns(window, step_ms, 0, now_ms).expect("few");
        let mine = view.columns(&query, &rows.axis(), &columns);
        let me = NodeStatus { node: Some(NodeId(1)), ok: true, ..NodeStatus::default() };
        merge(rows, columns, &query, vec![mine], vec![me])
    }

    fn assert_all_shown(&self, now_ms: u64) -> Matrix {
        let window = Window { from_ms: 0, to_ms: now_ms + HOUR_MS };
        let matrix = self.matrix(window, KeyRange::all(), now_ms);
        assert_eq!((matrix.total, matrix.unattributed), (self.recorded, 0), "conservation");
        matrix
    }
}

/// Empty, one byte, the longest, binary, not UTF-8, control characters, and all equal but the end.
fn odd_keys() -> Vec<Vec<u8>> {
    let mut keys = vec![
        vec![],
        vec![0],
        vec![255],
        vec![0; 4_096],
        vec![255; 4_096],
        (0..=255).collect(),
        b"\xc3\x28\xf0\x28\x8c\x28".to_vec(),
        b"\x1b[31mred\x07\r\n".to_vec(),
        "schl\u{fc}ssel/\u{202e}".as_bytes().to_vec(),
    ];
    keys.extend((0..4).map(|last| [&[b'p'; 4_095][..], &[last]].concat()));
    keys
}

#[test]
fn conservation_of_keys_of_any_bytes_and_length() {
    let keys = odd_keys();
    let starts: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    for cuts in [&starts[..], &starts[..1], &starts[9..]] {
        let mut local = Local::minutes(cuts);
        for minute in 1..4 {
            for key in &keys {
                (0..100).for_each(|_| local.write(key));
            }
            local.tick(NOW_MS + minute * 60_000);
        }
        let matrix = local.assert_all_shown(NOW_MS + 180_000);
        for (at, row) in (0..).zip(&matrix.rows) {
            assert!(!row.label.chars().any(char::is_control), "{:?}", row.label);
            let exact = keys.iter().filter(|key| row.range.contains(key)).count() as u64 * 300;
            let own = row.values.iter().sum::<u64>();
            let covers =
                |block: &&Block| (block.first_row..block.first_row + block.row_count).contains(&at);
            let blocks = matrix.blocks.iter().filter(covers).map(|block| block.value);
            assert!((own..=own + blocks.sum::<u64>()).contains(&exact), "{:?}", row.range);
        }
    }
}

#[test]
fn bounds_one_key_that_is_all_the_load_stays_one_row_of_it() {
    let mut local = Local::minutes(&[]);
    let key = [b'k'; 4_096];
    for minute in 1..6 {
        (0..5_000).for_each(|_| local.write(&key));
        local.tick(NOW_MS + minute * 60_000);
    }
    let matrix = local.assert_all_shown(NOW_MS + 300_000);
    let hot = matrix.rows.iter().find(|row| row.range.contains(&key)).expect("covered");
    assert!(hot.values.iter().sum::<u64>() > 0);
    assert!(matrix.rows.len() <= 256);
}

#[test]
fn order_of_routes_without_an_upper_bound() {
    let greatest = vec![255; 4_096];
    let mut local = Local::minutes(&[b"m"]);
    local.write(&greatest);
    local.write(b"a");
    let matrix = local.assert_all_shown(NOW_MS);
    assert_eq!(matrix.rows.last().expect("rows").range.end, None);
    let window = Window { from_ms: NOW_MS - HOUR_MS, to_ms: NOW_MS + HOUR_MS };
    let above = KeyRange { start: Bytes::from(greatest), end: None };
    // The tail of the last route was not resolved: it has between nothing and all that the route
    // counted, and says so.
    let tail = local.matrix(window, above.clone(), NOW_MS);
    let rest = KeyRange { start: Bytes::new(), end: Some(above.start.clone()) };
    let rest = local.matrix(window, rest, NOW_MS);
    assert_eq!((tail.total, tail.straddling_total), (0, 1));
    assert_eq!(tail.total + rest.total + rest.straddling_total, local.recorded);
    let [block] = &tail.blocks[..] else { panic!("{:?}", tail.blocks) };
    assert!(block.straddling && block.range == KeyRange::from(&b"m"[..]..), "{block:?}");
}

#[test]
fn aligned_time_of_a_clock_that_jumps_back_an_hour_and_forward_a_year() {
    for step_ms in [1_000, 60_000, HOUR_MS] {
        let config = HistoryConfig { step_ms, ..HistoryConfig::default() };
        let mut local = Local::new(SamplerConfig::default(), config, &[b"m"]);
        let times = [
            NOW_MS + 5_000,
            NOW_MS - HOUR_MS,
            NOW_MS - HOUR_MS + 10_000,
            NOW_MS + YEAR_MS,
            NOW_MS + YEAR_MS + 7_000,
            NOW_MS,
            NOW_MS + 5_000,
            0,
            u64::MAX,
            NOW_MS + 2 * YEAR_MS,
        ];
        for now_ms in times {
            (0..7).for_each(|_| local.write(b"k"));
            local.tick(now_ms);
        }
        local.write(b"z");
        // The column of a time that cannot be is not asked for.
        let window = Window { from_ms: 0, to_ms: u64::MAX };
        let matrix = local.matrix(window, KeyRange::all(), u64::MAX);
        assert_eq!(matrix.total, local.recorded, "conservation at steps of {step_ms} ms");
        let columns = local.history.inspect(window);
        assert!(columns.iter().all(|column| column.start_ms() % step_ms == 0));
        assert!(columns.windows(2).all(|pair| pair[0].end_ms() <= pair[1].start_ms()));
        // A jump of a year leaves no year of empty columns.
        assert!(columns.len() < 200, "{} columns", columns.len());
    }
}

#[test]
fn aligned_time_of_steps_from_a_second_to_an_hour() {
    for step_ms in [MIN_STEP_MS, 1_001, 59_999, 300_000, MAX_STEP_MS] {
        let config = HistoryConfig { step_ms, ..HistoryConfig::default() };
        let mut local = Local::new(SamplerConfig::default(), config, &[b"m"]);
        for step in 1..10 {
            (0..step).for_each(|_| local.write(b"k"));
            local.tick(NOW_MS + step * step_ms);
        }
        let now_ms = NOW_MS + 9 * step_ms;
        let window = Window { from_ms: NOW_MS, to_ms: now_ms };
        let matrix = local.matrix(window, KeyRange::all(), now_ms);
        assert_eq!(matrix.total, local.recorded);
        assert!(
            matrix.columns.iter().all(|c| (c.start_ms % step_ms, c.end_ms % step_ms) == (0, 0))
        );
        let sums: Vec<u64> = (0..9).map(|column| matrix.column_total(column)).collect();
        assert_eq!(sums, (1..10).collect::<Vec<u64>>(), "steps of {step_ms} ms");
    }
    for step_ms in [0, MIN_STEP_MS - 1, MAX_STEP_MS + 1, u64::MAX] {
        let config = HistoryConfig { step_ms, ..HistoryConfig::default() };
        assert_eq!(config.validate(), Err(HistoryConfigError::Step { step_ms }));
    }
}

#[test]
fn conservation_with_more_threads_than_shards() {
    const THREADS: u64 = 12;
    const CALLS: u64 = 5_000;
    let config = SamplerConfig { shards: 2, ..SamplerConfig::default() };
    let mut local = Local::new(config, HistoryConfig::default(), &[b"m"]);
    let barrier = std::sync::Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (sampler, barrier) = (&local.sampler, &barrier);
            scope.spawn(move || {
                let key = [b'a' + thread as u8 * 2];
                let lease = sampler.epoch();
                barrier.wait();
                drop(lease);
                for _ in 0..CALLS {
                    let epoch = sampler.epoch();
                    let located = epoch.locate(&key).expect("published");
                    epoch.record_write(located, &key, 1, 1);
                }
                barrier.wait();
            });
        }
    });
    local.recorded = THREADS * CALLS;
    local.tick(NOW_MS);
    let stats = local.sampler.stats();
    assert!(stats.overflow_records >= (THREADS - 2) * CALLS, "{stats:?}");
    local.assert_all_shown(NOW_MS);
}

#[test]
fn bounds_of_zero_columns_are_a_typed_error_or_an_empty_success() {
    let config = HistoryConfig { columns: 0, ..HistoryConfig::default() };
    assert_eq!(config.validate(), Err(HistoryConfigError::Columns { columns: 0 }));
    let mut local = Local::minutes(&[b"m"]);
    local.write(b"a");
    for window in [(0, 0), (NOW_MS, NOW_MS), (NOW_MS, NOW_MS - 1), (u64::MAX, 0)] {
        let window = Window { from_ms: window.0, to_ms: window.1 };
        let matrix = local.matrix(window, KeyRange::all(), NOW_MS);
        assert_eq!((matrix.columns.len(), matrix.total), (0, 0), "{window:?}");
        assert!(matrix.rows.iter().all(|row| row.values.is_empty()));
    }
}

#[test]
fn honest_partiality_a_matrix_of_the_future_is_an_empty_success() {
    let mut local = Local::minutes(&[b"m"]);
    local.write(b"a");
    for from_ms in [NOW_MS + 120_000, NOW_MS + YEAR_MS, u64::MAX - 1] {
        let window = Window { from_ms, to_ms: from_ms.saturating_add(HOUR_MS) };
        let matrix = local.matrix(window, KeyRange::all(), NOW_MS);
        assert_eq!((matrix.columns.len(), matrix.total), (0, 0));
        assert_eq!((matrix.responded, matrix.expected), (1, 1));
    }
    // A window that reaches into the future ends with the column in progress.
    let window = Window { from_ms: NOW_MS - HOUR_MS, to_ms: NOW_MS + YEAR_MS };
    let matrix = local.matrix(window, KeyRange::all(), NOW_MS);
    assert_eq!(matrix.total, 1);
    assert!(matrix.columns.last().expect("an hour").open);
    assert!(matrix.columns.last().expect("an hour").end_ms <= NOW_MS + 60_000);
}
