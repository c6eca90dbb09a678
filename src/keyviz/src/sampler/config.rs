//! The sampler's settings, their defaults and their bounds.

use std::ops::RangeInclusive;

/// Whether a sampler records unless told otherwise.
pub const DEFAULT_ENABLED: bool = true;
/// Routes that get a row of their own unless configured otherwise.
pub const DEFAULT_MAX_TRACKED_ROUTES: usize = 10_000;
/// Member ids that an aggregate names unless configured otherwise.
pub const DEFAULT_MAX_MEMBER_ROUTES_PER_SLOT: usize = 256;
/// Slots of one node unless configured otherwise.
pub const DEFAULT_RESOLUTION_SLOTS: usize = 16_384;
/// Threads that record without sharing a counter unless configured otherwise.
pub const DEFAULT_SHARDS: usize = 32;

/// Accepted values of [`SamplerConfig::max_tracked_routes`].
pub const MAX_TRACKED_ROUTES_BOUNDS: RangeInclusive<usize> = 1..=1_000_000;
/// Accepted values of [`SamplerConfig::max_member_routes_per_slot`].
pub const MAX_MEMBER_ROUTES_BOUNDS: RangeInclusive<usize> = 1..=65_536;
/// Accepted values of [`SamplerConfig::resolution_slots`].
pub const RESOLUTION_SLOTS_BOUNDS: RangeInclusive<usize> = 1..=1_048_576;
/// Accepted values of [`SamplerConfig::shards`].
pub const SHARDS_BOUNDS: RangeInclusive<usize> = 1..=1_024;

/// How a sampler counts.
///
/// Memory: an epoch has one counter block of 32 bytes a slot for every shard in use, and one for
/// the overflow shard; with the defaults 512 KiB each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SamplerConfig {
    /// Record at all. A sampler that is off costs one branch and still locates routes.
    pub enabled: bool,
    /// Rows that whole routes may take; with more routes than this, the adjacent coldest share
    /// aggregates.
    pub max_tracked_routes: usize,
    /// Member ids that an aggregate names; it always knows their exact number.
    pub max_member_routes_per_slot: usize,
    /// Slots of one epoch, whatever the number of routes. The only exception: an aggregate has
    /// a slot for each Raft group in it, so there is always at least one slot a group.
    pub resolution_slots: usize,
    /// Threads that record without sharing a counter; further threads share one overflow shard.
    pub shards: usize,
    /// Look at the keys of operations too, so that cells have names: see [`crate::hotkeys`]. Takes
    /// about 2 MiB a shard in use.
    pub hot_keys: bool,
    /// Seed of the hash by which keys share counters. A store whose clients choose keys takes it at
    /// random.
    pub hot_keys_seed: u64,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        SamplerConfig {
            enabled: DEFAULT_ENABLED,
            max_tracked_routes: DEFAULT_MAX_TRACKED_ROUTES,
            max_member_routes_per_slot: DEFAULT_MAX_MEMBER_ROUTES_PER_SLOT,
            resolution_slots: DEFAULT_RESOLUTION_SLOTS,
            shards: DEFAULT_SHARDS,
            hot_keys: true,
            hot_keys_seed: 0,
        }
    }
}

/// A setting outside its bounds.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{setting} is {value}, and must be between {min} and {max}")]
pub struct SamplerConfigError {
    /// Name of the field of [`SamplerConfig`].
    pub setting: &'static str,
    /// What it was.
    pub value: usize,
    /// Smallest accepted value.
    pub min: usize,
    /// Largest accepted value.
    pub max: usize,
}

impl SamplerConfig {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first setting outside its bounds.
    pub fn validate(&self) -> Result<(), SamplerConfigError> {
        let settings = [
            ("max_tracked_routes", self.max_tracked_routes, MAX_TRACKED_ROUTES_BOUNDS),
            (
                "max_member_routes_per_slot",
                self.max_member_routes_per_slot,
                MAX_MEMBER_ROUTES_BOUNDS,
            ),
            ("resolution_slots", self.resolution_slots, RESOLUTION_SLOTS_BOUNDS),
            ("shards", self.shards, SHARDS_BOUNDS),
        ];
        for (setting, value, bounds) in settings {
            if !bounds.contains(&value) {
                let (min, max) = bounds.into_inner();
                return Err(SamplerConfigError { setting, value, min, max });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_inside_their_bounds() {
        assert_eq!(SamplerConfig::default().validate(), Ok(()));
    }

    #[test]
    fn each_setting_outside_its_bounds_is_named() {
        let base = SamplerConfig::default();
        let cases = [
            (SamplerConfig { max_tracked_routes: 0, ..base.clone() }, "max_tracked_routes"),
            (
                SamplerConfig { max_member_routes_per_slot: 65_537, ..base.clone() },
                "max_member_routes_per_slot",
            ),
            (SamplerConfig { resolution_slots: 0, ..base.clone() }, "resolution_slots"),
            (SamplerConfig { shards: 1_025, ..base }, "shards"),
        ];
        for (config, setting) in cases {
            let error = config.validate().expect_err(setting);
            assert_eq!(error.setting, setting);
            assert!(error.to_string().contains(setting));
        }
    }
}
