//! The expiry of a node's certificate, and its log messages.
//!
//! Nothing else would: connections that are open stay open, and those that are made after the end
//! fail at the others, one after the other.

use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::verdict::Judge;

/// From here on the end is soon.
const SOON_S: u64 = 30 * 86_400;

/// An expiry that is near or past is logged again this often.
const TELL_EVERY_S: u64 = 86_400;

/// The last second of the year 9999, after which no certificate is valid.
const END_OF_TIME_S: u64 = 253_402_300_799;

/// Certificates of one chain.
const LONGEST_CHAIN: usize = 16;

/// The first time at which the chain does not hold any more, because it or a link to the CA has
/// ended; seconds since 1970. `None`: its form has no such time.
pub(super) fn ends_at(
    judge: &Judge,
    own: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Option<u64> {
    // An expired certificate is reported with its end, and so are those that end before it.
    let mut end = None;
    let mut at = END_OF_TIME_S;
    for _ in 0..LONGEST_CHAIN {
        let then = UnixTime::since_unix_epoch(Duration::from_secs(at));
        match judge.serves(own, intermediates, then) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after,
                ..
            })) if end.is_none_or(|end| not_after.as_secs() < end) => {
                end = Some(not_after.as_secs());
                at = not_after.as_secs();
            }
            _ => break,
        }
    }
    end
}

/// How a certificate stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    /// It holds for long.
    Valid,
    /// It ends within thirty days.
    EndsSoon {
        /// Whole days that are left.
        days: u64,
    },
    /// It has ended.
    Ended {
        /// Whole days since then.
        days: u64,
    },
}

impl Validity {
    /// At a time, of one that ends at another, both in seconds since 1970.
    pub fn at(now_s: u64, end_s: u64) -> Self {
        match end_s.checked_sub(now_s) {
            Some(left) if left > SOON_S => Validity::Valid,
            Some(left) => Validity::EndsSoon { days: left / 86_400 },
            None => Validity::Ended { days: (now_s - end_s) / 86_400 },
        }
    }

    /// A warning for the operator; `None`: nothing.
    pub fn warning(self) -> Option<String> {
        let days = |days| match days {
            0 => "less than a day".to_owned(),
            1 => "1 day".to_owned(),
            days => format!("{days} days"),
        };
        match self {
            Validity::Valid => None,
            Validity::EndsSoon { days: left } => {
                Some(format!("the certificate of this node expires in {}", days(left)))
            }
            Validity::Ended { days: since } => Some(format!(
                "the certificate of this node expired {} ago: whoever connects refuses it",
                days(since)
            )),
        }
    }
}

/// When it is said.
#[derive(Debug, Default)]
pub(super) struct Reminder {
    told: Option<(u64, u64, bool)>,
}

impl Reminder {
    /// The message to log now, if any.
    pub(super) fn due(&mut self, now_s: u64, end_s: u64) -> Option<String> {
        let validity = Validity::at(now_s, end_s);
        let warning = validity.warning()?;
        let ended = matches!(validity, Validity::Ended { .. });
        let said = self.told.is_some_and(|(at, of, as_ended)| {
            of == end_s && as_ended == ended && now_s.saturating_sub(at) < TELL_EVERY_S
        });
        if said {
            return None;
        }
        self.told = Some((now_s, end_s, ended));
        Some(warning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn an_end_that_is_soon_is_said_at_once_then_daily_and_again_when_it_has_come() {
        let end = 1_000 * DAY;
        let mut reminder = Reminder::default();
        assert_eq!(reminder.due(end - 31 * DAY, end), None);
        let said = reminder.due(end - 29 * DAY, end).expect("soon");
        assert!(said.contains("expires in 29 days"), "{said}");
        assert_eq!(reminder.due(end - 29 * DAY + 1, end), None);
        assert!(reminder.due(end - 28 * DAY, end).is_some(), "a day later");
        let said = reminder.due(end - 1, end).expect("a day later");
        assert!(said.contains("less than a day"), "{said}");
        let said = reminder.due(end + 1, end).expect("it has come");
        assert!(said.contains("expired less than a day ago"), "{said}");
        assert_eq!(reminder.due(end + DAY, end), None);
        assert!(reminder.due(end + DAY + 1, end).is_some());
        assert_eq!(reminder.due(end + DAY + 2, end + 90 * DAY), None, "there is a new one");
    }
}
