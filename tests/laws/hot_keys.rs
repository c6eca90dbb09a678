//! Hot keys of three nodes beside the list of what happened: bounds, what is not listed, and cells.

use std::collections::HashMap;

use bytes::Bytes;
use keyviz_core::{hotkeys::*, sampler::*, *};
use proptest::prelude::*;

use crate::actions::{actions, key, setup};
use crate::config;
use crate::world::{Event, World};

impl World {
    /// The hot keys of all nodes, with what they keep for others.
    fn hot_keys(&self, query: &HotKeysQuery, limit: usize) -> HotKeys {
        let parts = self.nodes.iter().flat_map(|node| {
            let view = node.history.view(query.window, node.sampler.peek());
            view.hot_keys(query, &|| true).expect("it is wanted")
        });
        merge(parts.collect(), limit)
    }

    /// Operations of each key in a window of whole columns.
    fn by_key(&self, query: &HotKeysQuery) -> HashMap<&[u8], u64> {
        let Window { from_ms, to_ms } = query.window;
        let inside = |event: &&Event| {
            let time = (from_ms..to_ms).contains(&event.column_ms);
            !event.lost && time && query.range.contains(&event.key)
        };
        let mut sums: HashMap<&[u8], u64> = HashMap::new();
        for event in self.events.iter().filter(inside) {
            *sums.entry(&event.key).or_default() += event.counts.get(query.series);
        }
        sums
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn law_6_bounds_of_hot_keys_hold_and_nothing_above_the_threshold_is_left_out(
        setup in setup(), actions in actions(),
        series in prop::sample::select(vec![Series::Reads, Series::Writes]),
        start in key(), end in prop::option::of(key()),
        columns in prop::option::of((0u64..40, 1u64..20)),
        limit in prop_oneof![Just(1_000), 1usize..4],
    ) {
        let world = World::of(&setup, &actions);
        let end = end.map(Bytes::from).filter(|end| *end > start);
        let range = KeyRange { start: start.into(), end };
        let all = world.everything(series).window;
        let step_ms = world.step_ms();
        let window = columns.map_or(all.widened(step_ms), |(back, length)| {
            let to_ms = (all.to_ms / step_ms).saturating_sub(back) * step_ms;
            Window { from_ms: to_ms.saturating_sub(length * step_ms), to_ms }
        });
        let query = HotKeysQuery { window, range, series, points: 3 };
        let hot = world.hot_keys(&query, limit);
        let exact = world.by_key(&query);
        prop_assert!(hot.keys.len() <= limit);
        for HotKey { bounds, .. } in &hot.keys {
            let ops = exact.get(&*bounds.key).copied().unwrap_or(0);
            prop_assert!(bounds.lower <= ops && ops <= bounds.upper, "{:?} had {}", bounds, ops);
            prop_assert!(bounds.points.iter().sum::<u64>() <= ops);
        }
        for (key, ops) in &exact {
            let listed = hot.keys.iter().any(|hot| hot.bounds.key == *key);
            prop_assert!(listed || *ops <= hot.threshold, "{} > {}", ops, hot.threshold);
        }
        let lower: u64 = hot.keys.iter().map(|key| key.bounds.lower).sum();
        let total: u64 = exact.values().sum();
        prop_assert!(lower <= total && total <= hot.operations, "{} {} {:?}", lower, total, hot);
    }
}
