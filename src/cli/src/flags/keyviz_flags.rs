//! The visualizer's flags, shared by `serve` and `demo`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use keyviz_core::copies::{DEFAULT_COPIES, DEFAULT_COPIES_BYTES, MAX_COPIES, MIN_COPIES_BYTES};
use keyviz_core::history::{
    DEFAULT_HISTORY_BYTES, DEFAULT_HISTORY_COLUMNS, DEFAULT_STEP_MS, MAX_HISTORY_COLUMNS,
    MAX_STEP_MS, MIN_HISTORY_BYTES, MIN_STEP_MS,
};
use keyviz_core::sampler::{
    DEFAULT_ENABLED, DEFAULT_MAX_MEMBER_ROUTES_PER_SLOT, DEFAULT_MAX_TRACKED_ROUTES,
    DEFAULT_RESOLUTION_SLOTS, MAX_MEMBER_ROUTES_BOUNDS, MAX_TRACKED_ROUTES_BOUNDS,
    RESOLUTION_SLOTS_BOUNDS,
};

use super::values::{self, ValueError};
use crate::terminal::text;

/// Shortest column.
pub const MIN_STEP: Duration = Duration::from_millis(MIN_STEP_MS);
/// Longest column.
pub const MAX_STEP: Duration = Duration::from_millis(MAX_STEP_MS);

/// How hot keys are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum HotKeys {
    /// By their names.
    #[default]
    On,
    /// By salted hashes.
    Hashed,
    /// Not at all.
    Off,
}

/// Limits of the sampler and its history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyvizOptions {
    /// If false, the sampler is one branch, and queries answer UNAVAILABLE.
    pub enabled: bool,
    /// Length of a column; whole milliseconds.
    pub step: Duration,
    /// Most columns kept.
    pub history_columns: u64,
    /// Most bytes of history.
    pub history_bytes: u64,
    /// Members that have the columns of a node, itself among them.
    pub history_copies: u64,
    /// Most bytes of other nodes' columns.
    pub history_copies_bytes: u64,
    /// Most routes with a slot of their own.
    pub max_tracked_routes: u64,
    /// Most route ids that an aggregate names.
    pub max_member_routes_per_slot: u64,
    /// Slots of the sampler on a node.
    pub resolution_slots: u64,
    /// How hot keys are shown.
    pub hot_keys: HotKeys,
}

impl KeyvizOptions {
    /// The defaults of `serve`.
    pub const DEFAULT: KeyvizOptions = KeyvizOptions {
        enabled: DEFAULT_ENABLED,
        step: Duration::from_millis(DEFAULT_STEP_MS),
        history_columns: DEFAULT_HISTORY_COLUMNS as u64,
        history_bytes: DEFAULT_HISTORY_BYTES as u64,
        history_copies: DEFAULT_COPIES as u64,
        history_copies_bytes: DEFAULT_COPIES_BYTES as u64,
        max_tracked_routes: DEFAULT_MAX_TRACKED_ROUTES as u64,
        max_member_routes_per_slot: DEFAULT_MAX_MEMBER_ROUTES_PER_SLOT as u64,
        resolution_slots: DEFAULT_RESOLUTION_SLOTS as u64,
        hot_keys: HotKeys::On,
    };
}

/// The flags except for the step, whose default differs between `serve` and `demo`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Visualizer")]
pub struct KeyvizArgs {
    /// Count operations; if false, heatmap queries answer UNAVAILABLE
    #[arg(
        long,
        env = "KEYVIZ_ENABLED",
        value_name = "BOOL",
        default_value_t = KeyvizOptions::DEFAULT.enabled,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = values::yes_or_no,
        action = clap::ArgAction::Set
    )]
    keyviz_enabled: bool,
    /// Maximum number of columns of history on a node, 1 to 1,048,576
    #[arg(
        long,
        env = "KEYVIZ_HISTORY_COLUMNS",
        value_name = "COLUMNS",
        default_value_t = KeyvizOptions::DEFAULT.history_columns,
        value_parser = |text: &str| values::number_in(text, 1, MAX_HISTORY_COLUMNS as u64)
    )]
    keyviz_history_columns: u64,
    /// Maximum memory of history on a node, in bytes or as KiB, MiB or GiB; at least 4MiB
    #[arg(
        long,
        env = "KEYVIZ_HISTORY_BYTES",
        value_name = "SIZE",
        default_value = "256MiB",
        value_parser = history_bytes
    )]
    keyviz_history_bytes: u64,
    /// Members that have the history of this node, itself among them, 1 to 16; if it does not
    /// answer, one of the others answers in its name. 1: no copies
    #[arg(
        long,
        env = "KEYVIZ_HISTORY_COPIES",
        value_name = "MEMBERS",
        default_value_t = KeyvizOptions::DEFAULT.history_copies,
        value_parser = |text: &str| values::number_in(text, 1, MAX_COPIES as u64)
    )]
    keyviz_history_copies: u64,
    /// Maximum disk space of copies of other nodes' history, in bytes or as KiB, MiB or GiB; at
    /// least 4MiB; above it the oldest columns of the largest copy are dropped
    #[arg(
        long,
        env = "KEYVIZ_HISTORY_COPIES_BYTES",
        value_name = "SIZE",
        default_value = "1GiB",
        value_parser = copies_bytes
    )]
    keyviz_history_copies_bytes: u64,
    /// Maximum number of routes with a slot of their own, 1 to 1,000,000; above it colder
    /// neighbours share a slot
    #[arg(
        long,
        env = "KEYVIZ_MAX_TRACKED_ROUTES",
        value_name = "ROUTES",
        default_value_t = KeyvizOptions::DEFAULT.max_tracked_routes,
        value_parser = |text: &str| bounded(text, &MAX_TRACKED_ROUTES_BOUNDS)
    )]
    keyviz_max_tracked_routes: u64,
    /// Maximum number of route ids named by a shared row, 1 to 65,536; their count is always exact
    #[arg(
        long,
        env = "KEYVIZ_MAX_MEMBER_ROUTES_PER_SLOT",
        value_name = "ROUTES",
        default_value_t = KeyvizOptions::DEFAULT.max_member_routes_per_slot,
        value_parser = |text: &str| bounded(text, &MAX_MEMBER_ROUTES_BOUNDS)
    )]
    keyviz_max_member_routes_per_slot: u64,
    /// Slots (counters) of a node, 1 to 1,048,576: one for each route, the rest for sub-ranges of
    /// hot routes
    #[arg(
        long,
        env = "KEYVIZ_RESOLUTION_SLOTS",
        value_name = "SLOTS",
        default_value_t = KeyvizOptions::DEFAULT.resolution_slots,
        value_parser = |text: &str| bounded(text, &RESOLUTION_SLOTS_BOUNDS)
    )]
    keyviz_resolution_slots: u64,
    /// Names of hot keys: on; hashed, salted hashes instead of keys, the same on all nodes of the
    /// cluster; off, keys are not looked at, and queries for hot keys answer UNAVAILABLE
    #[arg(
        long,
        env = "KEYVIZ_HOT_KEYS",
        value_name = "MODE",
        value_enum,
        default_value = "on",
        hide_possible_values = true
    )]
    keyviz_hot_keys: HotKeys,
}

/// A whole number within the library's bounds.
fn bounded(text: &str, bounds: &std::ops::RangeInclusive<usize>) -> Result<u64, ValueError> {
    values::number_in(text, *bounds.start() as u64, *bounds.end() as u64)
}

impl KeyvizArgs {
    /// With the step.
    pub fn options(&self, step: Duration) -> KeyvizOptions {
        KeyvizOptions {
            enabled: self.keyviz_enabled,
            step,
            history_columns: self.keyviz_history_columns,
            history_bytes: self.keyviz_history_bytes,
            history_copies: self.keyviz_history_copies,
            history_copies_bytes: self.keyviz_history_copies_bytes,
            max_tracked_routes: self.keyviz_max_tracked_routes,
            max_member_routes_per_slot: self.keyviz_max_member_routes_per_slot,
            resolution_slots: self.keyviz_resolution_slots,
            hot_keys: self.keyviz_hot_keys,
        }
    }
}

/// Why a size is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SizeError {
    /// No size.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// Too small or too large.
    #[error("must be from {} to {}", text::short_bytes(*.0), text::short_bytes(*.1))]
    Range(u64, u64),
}

/// A size within bounds.
pub fn size_in(text: &str, least: u64, most: u64) -> Result<u64, SizeError> {
    let size = values::size(text)?;
    if size < least || size > most {
        return Err(SizeError::Range(least, most));
    }
    Ok(size)
}

fn history_bytes(text: &str) -> Result<u64, SizeError> {
    size_in(text, MIN_HISTORY_BYTES as u64, 1 << 40)
}

fn copies_bytes(text: &str) -> Result<u64, SizeError> {
    size_in(text, MIN_COPIES_BYTES as u64, 1 << 40)
}

/// The length of a column: whole milliseconds, from [`MIN_STEP`] to [`MAX_STEP`].
///
/// # Errors
/// If it is not a duration, or out of bounds.
pub fn step(text: &str) -> Result<Duration, ValueError> {
    let step = values::duration_in(text, MIN_STEP, MAX_STEP)?;
    if step.subsec_nanos() % 1_000_000 != 0 {
        return Err(ValueError::Duration("a column is a whole number of milliseconds".into()));
    }
    Ok(step)
}
