//! The limits of what is done without being asked.

use std::time::Duration;

/// What the autopilot does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Mode {
    /// Nothing.
    Off,
    /// It says what it would do.
    #[default]
    Advise,
    /// It acts.
    Act,
}

impl Mode {
    /// All modes.
    pub const ALL: [Mode; 3] = [Mode::Off, Mode::Advise, Mode::Act];

    /// The name in programs.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Advise => "advise",
            Mode::Act => "act",
        }
    }

    /// The mode of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Mode::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// Which routes are merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Merge {
    /// None.
    None,
    /// Those that the autopilot split.
    #[default]
    Own,
    /// All that are cold.
    All,
}

impl Merge {
    /// All values.
    pub const ALL: [Merge; 3] = [Merge::None, Merge::Own, Merge::All];

    /// The name in programs.
    pub const fn name(self) -> &'static str {
        match self {
            Merge::None => "none",
            Merge::Own => "own",
            Merge::All => "all",
        }
    }

    /// The value of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Merge::ALL.into_iter().find(|merge| merge.name() == name)
    }
}

/// The limits of what is done.
#[derive(Clone, PartialEq, Debug)]
pub struct Policy {
    /// Acts that begin in a minute.
    pub acts_per_minute: u32,
    /// Moves under way at a time.
    pub moves: u32,
    /// Bytes that one move copies; what is larger is taken back.
    pub move_bytes: u64,
    /// Keys that were acted on are left alone for so long.
    pub cool_down: Duration,
    /// The hottest node over the mean from which on something is done.
    pub act_above: f64,
    /// The same down to which it is gone on with, once begun. Smaller than `act_above`, so that an
    /// imbalance that sways about one level does not begin again and again.
    pub until: f64,
    /// Cost a second of the whole cluster below which nothing is done.
    pub least_load: f64,
    /// Routes without load for so long are merged.
    pub merge_after: Duration,
    /// Which ones.
    pub merge: Merge,
    /// The most routes up to which it splits.
    pub max_routes: u64,
}

impl Policy {
    /// The defaults.
    pub const DEFAULT: Policy = Policy {
        acts_per_minute: 12,
        moves: 2,
        move_bytes: 4 << 30,
        cool_down: Duration::from_secs(180),
        act_above: 1.25,
        until: 1.15,
        least_load: 100.0,
        merge_after: Duration::from_secs(900),
        merge: Merge::Own,
        max_routes: 10_000,
    };
}

impl Default for Policy {
    fn default() -> Self {
        Policy::DEFAULT
    }
}

/// A policy that contradicts itself.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not a number above 1.
    #[error("the autopilot acts above {0} times the mean; it must be more than 1 and at most 100")]
    ActAbove(f64),
    /// Not between 1 and the other.
    #[error(
        "the autopilot goes on until {until} times the mean; it must be at least 1 and less than \
         the {act_above} above which it acts"
    )]
    Until {
        /// Goes on until.
        until: f64,
        /// Acts above.
        act_above: f64,
    },
    /// Not a load.
    #[error("the least load of the autopilot is {0}; it must be 0 or more")]
    LeastLoad(f64),
}

impl Policy {
    /// Whether the limits fit each other.
    ///
    /// # Errors
    /// The first that does not.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let (act_above, until) = (self.act_above, self.until);
        if !(act_above > 1.0 && act_above <= 100.0) {
            return Err(PolicyError::ActAbove(act_above));
        }
        if !(until >= 1.0 && until < act_above) {
            return Err(PolicyError::Until { until, act_above });
        }
        if !(self.least_load >= 0.0 && self.least_load.is_finite()) {
            return Err(PolicyError::LeastLoad(self.least_load));
        }
        Ok(())
    }

    pub(super) fn cool_down_ms(&self) -> u64 {
        millis(self.cool_down)
    }

    pub(super) fn merge_after_ms(&self) -> u64 {
        millis(self.merge_after)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_a_policy_out_of_range_is_refused_with_the_reason() {
        assert_eq!(Policy::DEFAULT.validate(), Ok(()));
        for act_above in [1.0, 0.0, -3.0, f64::NAN, f64::INFINITY] {
            let policy = Policy { act_above, ..Policy::DEFAULT };
            assert!(matches!(policy.validate(), Err(PolicyError::ActAbove(_))), "{act_above}");
        }
        for until in [0.9, 1.25, 2.0, f64::NAN] {
            let policy = Policy { until, ..Policy::DEFAULT };
            assert!(matches!(policy.validate(), Err(PolicyError::Until { .. })), "{until}");
        }
        let policy = Policy { least_load: f64::NAN, ..Policy::DEFAULT };
        assert!(matches!(policy.validate(), Err(PolicyError::LeastLoad(_))));
    }

    #[test]
    fn names_of_modes_come_back() {
        for mode in Mode::ALL {
            assert_eq!(Mode::from_name(mode.name()), Some(mode));
        }
        for merge in Merge::ALL {
            assert_eq!(Merge::from_name(merge.name()), Some(merge));
        }
        assert_eq!((Mode::from_name("on"), Merge::from_name("")), (None, None));
    }
}
