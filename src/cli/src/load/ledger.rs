//! The values that each key may hold at the end, derived from acknowledged writes and writes of
//! unknown outcome.
//!
//! Time is a counter that ticks when a write begins and when it is acknowledged. Of two
//! acknowledged writes to one key, the earlier one can be the last to take effect only if it did
//! not end before the later one began: a value whose write ended before an acknowledged write began
//! is overwritten and dropped. A write of unknown outcome may take effect at any time, so its value
//! remains possible. A key therefore keeps as many values as writes to it overlapped, usually one,
//! and every unknown one.

use std::collections::HashMap;

use bytes::Bytes;

/// When a write began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Begun(u64);

/// Later than every tick: the end of writes of unknown outcome.
const NEVER: u64 = u64::MAX;

/// A value that the key may hold.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Its digest; `None`: the key was deleted.
    digest: Option<u64>,
    /// When the write was acknowledged.
    ended: u64,
}

/// The verdict of a read at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// An acknowledged value is there.
    Right,
    /// The key is absent although a value was acknowledged.
    Missing,
    /// Another value is there: an older one, one that was never written, or one that was deleted.
    Wrong,
}

impl Verdict {
    /// The verdict in a word.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Right => "right",
            Verdict::Missing => "missing",
            Verdict::Wrong => "wrong value",
        }
    }
}

/// The writes of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    clock: u64,
    keys: HashMap<Bytes, Vec<Candidate>>,
}

impl Ledger {
    /// A write begins.
    pub fn begin(&mut self) -> Begun {
        self.clock += 1;
        Begun(self.clock)
    }

    /// A write was acknowledged.
    pub fn acknowledged(&mut self, key: &Bytes, digest: Option<u64>, begun: Begun) {
        self.clock += 1;
        let candidates = self.keys.entry(key.clone()).or_insert_with(|| Vec::with_capacity(1));
        candidates.retain(|candidate| candidate.ended > begun.0);
        candidates.push(Candidate { digest, ended: self.clock });
    }

    /// A write may have happened, or may still happen.
    pub fn unknown(&mut self, key: &Bytes, digest: Option<u64>) {
        let candidates = self.keys.entry(key.clone()).or_default();
        candidates.push(Candidate { digest, ended: NEVER });
    }

    /// The keys with an acknowledged write, whose value must be found.
    pub fn owed(&self) -> Vec<Bytes> {
        let owed = |candidates: &[Candidate]| candidates.iter().any(|one| one.ended != NEVER);
        self.keys.iter().filter(|(_, all)| owed(all)).map(|(key, _)| key.clone()).collect()
    }

    /// Judges the result of a read: the digest of the value, or nothing.
    pub fn judge(&self, key: &Bytes, found: Option<u64>) -> Verdict {
        let candidates = self.keys.get(key).map_or(&[][..], Vec::as_slice);
        match found {
            found if candidates.iter().any(|one| one.digest == found) => Verdict::Right,
            None => Verdict::Missing,
            Some(_) => Verdict::Wrong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Bytes {
        Bytes::from_static(b"k")
    }

    fn write(ledger: &mut Ledger, digest: Option<u64>) {
        let begun = ledger.begin();
        ledger.acknowledged(&key(), digest, begun);
    }

    #[test]
    fn no_lost_write_the_last_acknowledged_value_is_owed() {
        let mut ledger = Ledger::default();
        write(&mut ledger, Some(1));
        write(&mut ledger, Some(2));
        assert_eq!(ledger.owed(), [key()]);
        assert_eq!(ledger.judge(&key(), Some(2)), Verdict::Right);
        assert_eq!(ledger.judge(&key(), Some(1)), Verdict::Wrong);
        assert_eq!(ledger.judge(&key(), None), Verdict::Missing);
        write(&mut ledger, None);
        assert_eq!(ledger.judge(&key(), None), Verdict::Right);
        assert_eq!(ledger.judge(&key(), Some(2)), Verdict::Wrong);
    }

    #[test]
    fn writes_that_overlapped_may_end_either_way() {
        let mut ledger = Ledger::default();
        write(&mut ledger, Some(1));
        let (second, third) = (ledger.begin(), ledger.begin());
        ledger.acknowledged(&key(), Some(3), third);
        ledger.acknowledged(&key(), Some(2), second);
        assert_eq!(ledger.judge(&key(), Some(1)), Verdict::Wrong);
        assert_eq!(ledger.judge(&key(), Some(2)), Verdict::Right);
        assert_eq!(ledger.judge(&key(), Some(3)), Verdict::Right);
        write(&mut ledger, Some(4));
        assert_eq!(ledger.judge(&key(), Some(3)), Verdict::Wrong);
        assert_eq!(ledger.judge(&key(), Some(4)), Verdict::Right);
    }

    #[test]
    fn a_write_of_unknown_outcome_may_show_at_any_time() {
        let mut ledger = Ledger::default();
        ledger.unknown(&key(), Some(9));
        assert!(ledger.owed().is_empty());
        write(&mut ledger, Some(1));
        write(&mut ledger, Some(2));
        assert_eq!(ledger.judge(&key(), Some(9)), Verdict::Right);
        assert_eq!(ledger.judge(&key(), Some(2)), Verdict::Right);
        assert_eq!(ledger.judge(&key(), Some(1)), Verdict::Wrong);
        ledger.unknown(&key(), None);
        assert_eq!(ledger.judge(&key(), None), Verdict::Right);
    }
}
