//! Sampled keys, which show where inside a slot the load lies.
//!
//! Counters say how hot a slot is, not which of its keys are hot. Every n-th recorded call
//! therefore puts its key into the shard's reservoir, and a re-plan takes all samples. The
//! reservoir has a fixed size. When it is full, every second sample is dropped and n doubles, so
//! the samples are always spread evenly over the calls since they were last taken, and each stands
//! for n calls.
//!
//! A recorder accesses the reservoir only every n-th call. It only tries the lock, which a re-plan
//! may hold, and never allocates. A column takes at most a few thousand samples whatever the rate,
//! so the cost per call vanishes as the rate grows.

use bytes::Bytes;

/// The maximum number of samples of a shard between two re-plans.
const CAPACITY: usize = 4_096;
/// The maximum size of their keys: 64 bytes each at the full number. With longer keys there are
/// fewer samples.
const BYTES: usize = 256 * 1_024;
/// The maximum number of calls between two accesses to the reservoir, so that a thread soon notices
/// that the samples were taken and that it may sample more densely again.
const LONGEST_GAP: u64 = 4_096;

/// The number of samples of earlier columns that a re-plan uses: a range that stays hot is resolved
/// finer, column by column, than the samples of one column could justify.
const REMEMBERED: usize = 16_384;

/// The samples of the latest columns, oldest first.
#[derive(Default)]
pub(crate) struct Memory(Vec<Sample>);

impl Memory {
    /// Adds the samples of a column and drops the oldest ones above the limit.
    pub(crate) fn add(&mut self, samples: Vec<Sample>) {
        self.0.extend(samples);
        let over = self.0.len().saturating_sub(REMEMBERED);
        self.0.drain(..over);
    }

    /// All samples, sorted by key.
    pub(crate) fn sorted(&self) -> Vec<Sample> {
        let mut samples = self.0.clone();
        samples.sort_unstable();
        samples
    }
}

/// A key that stands for `weight` calls.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Sample {
    pub(crate) key: Bytes,
    pub(crate) weight: u64,
}

/// A fixed-size sample of a shard's keys. Aligned to two cache lines, because reservoirs of
/// different shards are adjacent and each is written by its own thread.
#[repr(align(128))]
pub(crate) struct Reservoir {
    /// The concatenated keys.
    bytes: Box<[u8]>,
    /// The end of each key in `bytes`.
    ends: Vec<u32>,
    /// The number of calls that a sample stands for: a power of two.
    gap: u64,
    /// Offers to skip before the next key is kept. Above 0 only if `gap` exceeds the maximum.
    pass: u64,
    /// The state of the jitter, without which a periodic workload would always hit the same keys.
    jitter: u64,
}

impl Reservoir {
    pub(crate) fn new(shard: u32) -> Self {
        Reservoir {
            bytes: vec![0; BYTES].into(),
            ends: Vec::with_capacity(CAPACITY),
            gap: 1,
            pass: 0,
            jitter: 0x9e37_79b9_7f4a_7c15 ^ u64::from(shard),
        }
    }

    /// Offers a key. Returns after how many calls the next one is wanted; at least 1.
    pub(crate) fn offer(&mut self, key: &[u8]) -> u32 {
        if self.pass > 0 {
            self.pass -= 1;
        } else {
            self.keep(key);
            self.pass = (self.gap / LONGEST_GAP).saturating_sub(1);
        }
        // Uniform in 1..2*gap, so `gap` on average. XorShift64 (Marsaglia, Xorshift RNGs, 2003).
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let gap = self.gap.min(LONGEST_GAP);
        (1 + self.jitter % (2 * gap - 1)) as u32
    }

    fn keep(&mut self, key: &[u8]) {
        if key.len() > self.bytes.len() {
            return;
        }
        while self.ends.len() == CAPACITY || self.used() + key.len() > self.bytes.len() {
            self.thin();
        }
        let from = self.used();
        self.bytes[from..from + key.len()].copy_from_slice(key);
        self.ends.push((from + key.len()) as u32);
    }

    fn used(&self) -> usize {
        self.ends.last().map_or(0, |&end| end as usize)
    }

    /// Drops every second sample, beginning with the first, so that an odd number loses one more.
    fn thin(&mut self) {
        let mut used = 0;
        for kept in 0..self.ends.len() / 2 {
            let (from, to) = (self.ends[2 * kept] as usize, self.ends[2 * kept + 1] as usize);
            self.bytes.copy_within(from..to, used);
            used += to - from;
            self.ends[kept] = used as u32;
        }
        self.ends.truncate(self.ends.len() / 2);
        self.gap = self.gap.saturating_mul(2);
    }

    /// Returns the samples in order of arrival, and starts over.
    pub(crate) fn take(&mut self) -> Vec<Sample> {
        let bytes = Bytes::copy_from_slice(&self.bytes[..self.used()]);
        let weight = self.gap;
        let mut from = 0;
        let samples = self
            .ends
            .drain(..)
            .map(|end| {
                let key = bytes.slice(from..end as usize);
                from = end as usize;
                Sample { key, weight }
            })
            .collect();
        self.gap = 1;
        self.pass = 0;
        samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers `calls` numbered keys as a recorder would.
    fn fill(reservoir: &mut Reservoir, calls: u32, key: impl Fn(u32) -> Vec<u8>) {
        let mut next = 0;
        while next < calls {
            next += reservoir.offer(&key(next));
        }
    }

    #[test]
    fn a_reservoir_that_is_not_full_has_every_key() {
        let mut reservoir = Reservoir::new(0);
        fill(&mut reservoir, 1_000, |n| n.to_be_bytes().to_vec());
        let taken = reservoir.take();
        assert_eq!(taken.len(), 1_000);
        assert!(taken.iter().all(|sample| sample.weight == 1));
        assert_eq!(taken[7].key.as_ref(), 7u32.to_be_bytes());
        assert!(reservoir.take().is_empty());
    }

    #[test]
    fn bounds_a_full_reservoir_stays_an_even_picture_of_all_calls() {
        for calls in [10_000, 300_000, 50_000_000] {
            let mut reservoir = Reservoir::new(3);
            fill(&mut reservoir, calls, |n| n.to_be_bytes().to_vec());
            let taken = reservoir.take();
            assert!((CAPACITY / 2 - 64..=CAPACITY).contains(&taken.len()), "{}", taken.len());
            let stands_for: u64 = taken.iter().map(|sample| sample.weight).sum();
            let calls = u64::from(calls);
            assert!(stands_for.abs_diff(calls) < calls / 5, "{stands_for} for {calls}");
            let first_half = taken
                .iter()
                .filter(|sample| {
                    let number: [u8; 4] = sample.key.as_ref().try_into().expect("four bytes");
                    u64::from(u32::from_be_bytes(number)) < calls / 2
                })
                .count();
            assert!(first_half.abs_diff(taken.len() / 2) < taken.len() / 8);
        }
    }

    #[test]
    fn bounds_long_keys_mean_fewer_samples_and_too_long_ones_none() {
        let mut reservoir = Reservoir::new(0);
        fill(&mut reservoir, 20_000, |n| vec![n as u8; 4_096]);
        let taken = reservoir.take();
        assert!((16..=64).contains(&taken.len()));
        assert!(taken.iter().all(|sample| sample.key.iter().all(|&byte| byte == sample.key[0])));
        reservoir.offer(&vec![1; BYTES + 1]);
        assert!(reservoir.take().is_empty());
    }
}
