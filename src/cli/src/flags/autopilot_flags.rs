//! The autopilot's flags, shared by `serve` and `demo`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::keyviz_flags::{self, SizeError};
use super::values::{self, ValueError};
use crate::UsageError;
use keyviz_core::autopilot::{Merge, Mode, Policy, PolicyError};
use keyviz_node::AutopilotConfig;

/// What the autopilot does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Piloting {
    /// Nothing.
    Off,
    /// It says what it would do.
    Advise,
    /// It splits, moves and merges routes, and transfers leaders.
    Act,
}

impl From<Piloting> for Mode {
    fn from(piloting: Piloting) -> Mode {
        match piloting {
            Piloting::Off => Mode::Off,
            Piloting::Advise => Mode::Advise,
            Piloting::Act => Mode::Act,
        }
    }
}

/// Which routes it merges.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Merging {
    /// None.
    None,
    /// Those that it split.
    Own,
    /// All.
    All,
}

impl From<Merging> for Merge {
    fn from(merging: Merging) -> Merge {
        match merging {
            Merging::None => Merge::None,
            Merging::Own => Merge::Own,
            Merging::All => Merge::All,
        }
    }
}

/// The limits of the autopilot.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Autopilot")]
pub struct AutopilotArgs {
    /// Maximum number of acts that begin in a minute, 1 to 600
    #[arg(
        long,
        env = "KEYVIZ_AUTOPILOT_ACTS",
        value_name = "ACTS",
        default_value_t = Policy::DEFAULT.acts_per_minute,
        value_parser = |text: &str| small(text, 600)
    )]
    autopilot_acts: u32,
    /// Maximum number of moves under way at a time, 1 to 8
    #[arg(
        long,
        env = "KEYVIZ_AUTOPILOT_MOVES",
        value_name = "MOVES",
        default_value_t = Policy::DEFAULT.moves,
        value_parser = |text: &str| small(text, 8)
    )]
    autopilot_moves: u32,
    /// Maximum bytes that one move copies; a move that turns out to be larger is taken back; in
    /// bytes or as KiB, MiB or GiB; at least 1MiB
    #[arg(
        long,
        env = "KEYVIZ_AUTOPILOT_MOVE_BYTES",
        value_name = "SIZE",
        default_value = "4GiB",
        value_parser = move_bytes
    )]
    autopilot_move_bytes: u64,
    /// Leave keys alone for this time after they were acted on, whoever acted; 10s to 24h
    #[arg(
        long,
        env = "KEYVIZ_AUTOPILOT_COOL_DOWN",
        value_name = "DURATION",
        default_value = "3m",
        value_parser = cool_down
    )]
    autopilot_cool_down: Duration,
    /// Act where the hottest node has more than this many times the mean load
    #[arg(
        long,
        env = "KEYVIZ_AUTOPILOT_ABOVE",
        value_name = "TIMES",
        default_value_t = Policy::DEFAULT.act_above
    )]
    autopilot_above: f64,
    /// Once begun, go on until the hottest node has this many times the mean load
    #[arg(
        long,
        env = "KEYVIZ_AUTOPILOT_UNTIL",
        value_name = "TIMES",
        default_value_t = Policy::DEFAULT.until
    )]
    autopilot_until: f64,
    /// Balance nothing below this load of the whole cluster, in operations per second; 4 KiB count
    /// as one more
    #[arg(
        long,
        env = "KEYVIZ_AUTOPILOT_LEAST_LOAD",
        value_name = "LOAD",
        default_value_t = Policy::DEFAULT.least_load
    )]
    autopilot_least_load: f64,
    /// Which neighbouring routes are merged after --autopilot-merge-after: those that the autopilot
    /// split, all or none
    #[arg(long, env = "KEYVIZ_AUTOPILOT_MERGE", value_name = "WHICH", default_value = "own")]
    autopilot_merge: Merging,
    /// Merge routes that have been without load for this time; 10s to 30d
    #[arg(
        long,
        env = "KEYVIZ_AUTOPILOT_MERGE_AFTER",
        value_name = "DURATION",
        default_value = "15m",
        value_parser = merge_after
    )]
    autopilot_merge_after: Duration,
    /// Split no routes where there are this many, 1 to 100,000
    #[arg(
        long,
        env = "KEYVIZ_AUTOPILOT_MAX_ROUTES",
        value_name = "ROUTES",
        default_value_t = Policy::DEFAULT.max_routes,
        value_parser = |text: &str| values::number_in(text, 1, 100_000)
    )]
    autopilot_max_routes: u64,
}

fn small(text: &str, most: u64) -> Result<u32, ValueError> {
    values::number_in(text, 1, most).map(|number| number as u32)
}

fn move_bytes(text: &str) -> Result<u64, SizeError> {
    keyviz_flags::size_in(text, 1 << 20, 1 << 50)
}

fn cool_down(text: &str) -> Result<Duration, ValueError> {
    values::duration_in(text, Duration::from_secs(10), Duration::from_secs(86_400))
}

fn merge_after(text: &str) -> Result<Duration, ValueError> {
    values::duration_in(text, Duration::from_secs(10), Duration::from_secs(30 * 86_400))
}

impl AutopilotArgs {
    /// Mode and limits.
    ///
    /// # Errors
    /// Limits that contradict each other.
    pub fn config(&self, piloting: Piloting) -> Result<AutopilotConfig, UsageError> {
        let policy = Policy {
            acts_per_minute: self.autopilot_acts,
            moves: self.autopilot_moves,
            move_bytes: self.autopilot_move_bytes,
            cool_down: self.autopilot_cool_down,
            act_above: self.autopilot_above,
            until: self.autopilot_until,
            least_load: self.autopilot_least_load,
            merge: self.autopilot_merge.into(),
            merge_after: self.autopilot_merge_after,
            max_routes: self.autopilot_max_routes,
        };
        policy.validate().map_err(|error| {
            let (flag, value) = match &error {
                PolicyError::ActAbove(value) => ("--autopilot-above <TIMES>", *value),
                PolicyError::Until { until, .. } => ("--autopilot-until <TIMES>", *until),
                PolicyError::LeastLoad(value) => ("--autopilot-least-load <LOAD>", *value),
            };
            UsageError::value(flag, value, error.to_string())
        })?;
        Ok(AutopilotConfig { mode: piloting.into(), policy })
    }
}
