//! The key of an operation, by pattern.
//!
//! Every operation uses a random generator of its own, seeded with the seed and its number: the
//! same seed gives the same operations, whichever client performs them and in whatever order they
//! finish. (`moving` also depends on the clock.)

use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Zipf};

use super::content::mix;

/// Skew of `zipf`, as in YCSB.
pub const ZIPF_EXPONENT: f64 = 0.99;
/// Share of operations in the hot spot.
pub const HOT_OPERATIONS: f64 = 0.9;
/// One in this many keys is in the hot spot.
pub const HOT_KEYS_ONE_IN: u64 = 100;
/// Start of the hot spot of `hotspot`, in percent of the key space.
pub const HOT_SPOT_AT_PERCENT: u64 = 60;
/// Time in which the hot spot of `moving` crosses the key space once.
pub const MOVING_PERIOD: Duration = Duration::from_secs(60);
/// Keys in one range scan of `scan`.
pub const SCAN_KEYS: u64 = 100;
/// Minimum number of digits in a key.
const KEY_DIGITS: usize = 8;

/// The distribution of operations over the keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Pattern {
    /// All keys are equally likely
    #[default]
    Uniform,
    /// Zipf with exponent 0.99: a few keys, scattered over the key space, receive most operations
    Zipf,
    /// 90% of the operations go to 1% of the keys: the neighbours that begin at 60% of the key
    /// space; the rest is uniform
    Hotspot,
    /// Keys one after the other in key order, repeatedly
    Sequential,
    /// As hotspot, but the hot spot slides through the key space once in 60 s
    Moving,
    /// Reads are range scans of 100 neighbouring keys from a uniformly drawn one; writes are
    /// uniform
    Scan,
}

/// One operation to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Draw {
    /// Number of the key, below the number of keys.
    pub key: u64,
    /// Whether it is a read.
    pub read: bool,
}

/// Draws operations.
#[derive(Clone, Debug)]
pub struct Picker {
    pattern: Pattern,
    keys: u64,
    read_ratio: f64,
    seed: u64,
    zipf: Zipf<f64>,
    stride: u64,
}

impl Picker {
    /// Over `keys` keys, at least 1; reads with probability `read_ratio`.
    pub fn new(pattern: Pattern, keys: u64, read_ratio: f64, seed: u64) -> Self {
        assert!(keys > 0, "a workload has at least one key");
        let zipf = Zipf::new(keys as f64, ZIPF_EXPONENT)
            .expect("there is a key, and the exponent is not negative");
        Picker { pattern, keys, read_ratio, seed, zipf, stride: stride(keys) }
    }

    /// Operation `number`, begun `at` this long after the start.
    pub fn draw(&self, number: u64, at: Duration) -> Draw {
        let mut rng = SmallRng::seed_from_u64(mix(self.seed, number));
        let read = rng.random_bool(self.read_ratio);
        let key = match self.pattern {
            Pattern::Uniform | Pattern::Scan => rng.random_range(0..self.keys),
            Pattern::Sequential => number % self.keys,
            Pattern::Zipf => {
                let rank = (self.zipf.sample(&mut rng) as u64).clamp(1, self.keys) - 1;
                scatter(rank, self.stride, self.keys)
            }
            Pattern::Hotspot => self.hot(&mut rng, hot_spot(self.keys)),
            Pattern::Moving => {
                let turn = at.as_secs_f64() / MOVING_PERIOD.as_secs_f64();
                let begin = (turn.fract() * self.keys as f64) as u64;
                self.hot(&mut rng, begin.min(self.keys - 1))
            }
        };
        Draw { key, read }
    }

    fn hot(&self, rng: &mut SmallRng, begin: u64) -> u64 {
        if !rng.random_bool(HOT_OPERATIONS) {
            return rng.random_range(0..self.keys);
        }
        let hot = (self.keys / HOT_KEYS_ONE_IN).max(1);
        // At the end of the key space the hot spot leaves in part and enters at the beginning.
        let key = u128::from(begin) + u128::from(rng.random_range(0..hot));
        (key % u128::from(self.keys)) as u64
    }
}

/// First key of the hot spot of `hotspot`.
fn hot_spot(keys: u64) -> u64 {
    (u128::from(keys) * u128::from(HOT_SPOT_AT_PERCENT) / 100) as u64
}

/// A step that visits every key once per cycle: coprime to `keys`, near the golden section, so that
/// neighbouring ranks are far apart.
fn stride(keys: u64) -> u64 {
    let golden = (keys as f64 * 0.618_033_988_749) as u64;
    (golden.max(1)..).find(|stride| gcd(*stride, keys) == 1).unwrap_or(1)
}

fn scatter(rank: u64, stride: u64, keys: u64) -> u64 {
    (u128::from(rank) * u128::from(stride) % u128::from(keys)) as u64
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The names of numbered keys: a prefix and a number of fixed width, so that key order is number
/// order.
#[derive(Clone, Debug)]
pub struct KeyNames {
    prefix: String,
    digits: usize,
}

impl KeyNames {
    /// Names for `keys` keys.
    pub fn new(prefix: &str, keys: u64) -> Self {
        let last = keys.saturating_sub(1).to_string();
        KeyNames { prefix: prefix.to_owned(), digits: last.len().max(KEY_DIGITS) }
    }

    /// The name of key `number`.
    pub fn name(&self, number: u64) -> Bytes {
        Bytes::from(format!("{}{number:0digits$}", self.prefix, digits = self.digits))
    }
}

/// Keys that split the key space of a workload into `parts` equal parts, for `--split-at`.
pub fn split_keys(prefix: &str, keys: u64, parts: u64) -> Vec<Bytes> {
    let names = KeyNames::new(prefix, keys);
    let parts = parts.min(keys).max(1);
    (1..parts)
        .map(|part| names.name((u128::from(keys) * u128::from(part) / u128::from(parts)) as u64))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const KEYS: u64 = 10_000;

    fn keys(pattern: Pattern, at: Duration) -> Vec<u64> {
        let picker = Picker::new(pattern, KEYS, 0.25, 7);
        (0..20_000).map(|number| picker.draw(number, at).key).collect()
    }

    fn share(keys: &[u64], within: impl Fn(u64) -> bool) -> f64 {
        keys.iter().filter(|key| within(**key)).count() as f64 / keys.len() as f64
    }

    #[test]
    fn the_same_seed_gives_the_same_operations() {
        for pattern in Pattern::value_variants() {
            let draw = |seed| {
                let picker = Picker::new(*pattern, KEYS, 0.5, seed);
                (0..500).map(|n| picker.draw(n, Duration::ZERO)).collect::<Vec<_>>()
            };
            assert_eq!(draw(1), draw(1), "{pattern:?}");
            assert_ne!(draw(1), draw(2), "{pattern:?}");
            assert!(draw(3).iter().all(|draw| draw.key < KEYS), "{pattern:?}");
        }
    }

    #[test]
    fn the_read_ratio_is_kept() {
        let reads = |ratio| {
            let picker = Picker::new(Pattern::Uniform, KEYS, ratio, 1);
            (0..10_000).filter(|n| picker.draw(*n, Duration::ZERO).read).count()
        };
        assert_eq!((reads(0.0), reads(1.0)), (0, 10_000));
        assert!((2_300..2_700).contains(&reads(0.25)));
    }

    #[test]
    fn a_hot_spot_gets_ninety_percent_where_it_is_said_to_be() {
        let hot =
            share(&keys(Pattern::Hotspot, Duration::ZERO), |key| (6_000..6_100).contains(&key));
        assert!((0.89..0.92).contains(&hot), "{hot}");
        let halfway = keys(Pattern::Moving, MOVING_PERIOD / 2);
        let hot = share(&halfway, |key| (5_000..5_100).contains(&key));
        assert!((0.89..0.92).contains(&hot), "{hot}");
    }

    #[test]
    fn a_moving_hot_spot_wraps_around() {
        let end = keys(Pattern::Moving, MOVING_PERIOD.mul_f64(0.995));
        let hot = share(&end, |key| !(50..9_950).contains(&key));
        assert!((0.89..0.92).contains(&hot), "{hot}");
    }

    #[test]
    fn zipf_scatters_a_few_hot_keys() {
        let mut counts = std::collections::HashMap::new();
        for key in keys(Pattern::Zipf, Duration::ZERO) {
            *counts.entry(key).or_insert(0u32) += 1;
        }
        let mut hottest: Vec<_> = counts.into_iter().map(|(key, count)| (count, key)).collect();
        hottest.sort_unstable_by(|a, b| b.cmp(a));
        assert!(hottest[0].0 > 1_500, "{:?}", hottest[0]);
        assert!(hottest[0].1.abs_diff(hottest[1].1) > KEYS / 4);
    }

    #[test]
    fn scattering_hits_every_key_once() {
        for keys in [1, 2, 3, 97, 100, 1 << 10] {
            let hit: HashSet<_> = (0..keys).map(|rank| scatter(rank, stride(keys), keys)).collect();
            assert_eq!(hit.len() as u64, keys);
        }
    }

    #[test]
    fn sequential_visits_keys_in_order() {
        let picker = Picker::new(Pattern::Sequential, 3, 0.0, 1);
        let keys: Vec<_> = (0..5).map(|n| picker.draw(n, Duration::ZERO).key).collect();
        assert_eq!(keys, [0, 1, 2, 0, 1]);
    }

    #[test]
    fn one_key_is_enough_for_every_pattern() {
        for pattern in Pattern::value_variants() {
            let picker = Picker::new(*pattern, 1, 0.5, 1);
            assert!((0..100).all(|n| picker.draw(n, Duration::from_secs(n)).key == 0));
        }
    }

    #[test]
    fn key_order_is_number_order() {
        let names = KeyNames::new("k-", 1_000_000_000_000);
        assert_eq!(names.name(5), "k-000000000005");
        assert!(names.name(9) < names.name(10));
        assert_eq!(KeyNames::new("", 10).name(3), "00000003");
        assert_eq!(split_keys("k-", 100, 4), ["k-00000025", "k-00000050", "k-00000075"]);
        assert_eq!(split_keys("k-", 2, 8), ["k-00000001"]);
        assert!(split_keys("k-", 100, 1).is_empty());
    }
}
