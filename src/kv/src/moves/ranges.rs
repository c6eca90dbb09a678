//! A set of keys as disjoint ranges.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use keyviz_types::KeyRange;

/// Disjoint ranges that do not touch, by their start.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct RangeSet(BTreeMap<Bytes, Option<Bytes>>);

impl RangeSet {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = KeyRange> + '_ {
        self.0.iter().map(|(start, end)| KeyRange { start: start.clone(), end: end.clone() })
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        let before = (Bound::Unbounded, Bound::Included(key));
        let last = self.0.range::<[u8], _>(before).next_back();
        last.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < end.as_ref()))
    }

    /// Whether a key of `start..end` is in the set.
    pub(super) fn touches(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        if end.is_some_and(|end| end <= start) {
            return false;
        }
        let before = (Bound::Unbounded, end.map_or(Bound::Unbounded, Bound::Excluded));
        let last = self.0.range::<[u8], _>(before).next_back();
        last.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| end.as_ref() > start))
    }

    pub(super) fn add(&mut self, range: &KeyRange) {
        if range.is_empty() {
            return;
        }
        let KeyRange { mut start, mut end } = range.clone();
        loop {
            let upto = end.as_deref().map_or(Bound::Unbounded, Bound::Included);
            let last = self.0.range::<[u8], _>((Bound::Unbounded, upto)).next_back();
            let Some((known, known_end)) = last else { break };
            if known_end.as_ref().is_some_and(|known_end| *known_end < start) {
                break;
            }
            let known = known.clone();
            let known_end = self.0.remove(&known).expect("it was just found");
            start = start.min(known);
            end = match (end, known_end) {
                (Some(end), Some(known_end)) => Some(end.max(known_end)),
                _ => None,
            };
        }
        self.0.insert(start, end);
    }

    pub(super) fn remove(&mut self, range: &KeyRange) {
        if range.is_empty() {
            return;
        }
        loop {
            let upto = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let last = self.0.range::<[u8], _>((Bound::Unbounded, upto)).next_back();
            let Some((start, end)) = last else { return };
            if end.as_ref().is_some_and(|end| *end <= range.start) {
                return;
            }
            let start = start.clone();
            let end = self.0.remove(&start).expect("it was just found");
            if let Some(cut) = &range.end
                && end.as_ref().is_none_or(|end| end > cut)
            {
                self.0.insert(cut.clone(), end);
            }
            if start < range.start {
                self.0.insert(start, Some(range.start.clone()));
                return;
            }
        }
    }
}

impl FromIterator<KeyRange> for RangeSet {
    fn from_iter<T: IntoIterator<Item = KeyRange>>(ranges: T) -> Self {
        let mut set = RangeSet::default();
        ranges.into_iter().for_each(|range| set.add(&range));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u8, end: Option<u8>) -> KeyRange {
        let key = |at: u8| if at == 0 { Bytes::new() } else { Bytes::from(vec![at]) };
        KeyRange { start: key(start), end: end.map(key) }
    }

    proptest! {
        #[test]
        fn a_set_of_ranges_has_the_keys_that_a_plain_list_has(
            changes in proptest::collection::vec((any::<bool>(), 0u8..12, 0u8..13), 0..30),
        ) {
            let mut set = RangeSet::default();
            let mut model = [false; 13];
            for (adds, start, end) in changes {
                let end = (end < 12).then_some(end);
                let changed = range(start, end);
                if adds { set.add(&changed) } else { set.remove(&changed) }
                for at in start..end.unwrap_or(13) {
                    model[at as usize] = adds;
                }
                for at in 0..13u8 {
                    let key = range(at, None).start;
                    prop_assert_eq!(set.contains(&key), model[at as usize]);
                    for to in at..14 {
                        let until = (to < 13).then(|| range(to, None).start);
                        let last = usize::from(to.min(13));
                        let any = model[at as usize..last].iter().any(|has| *has);
                        prop_assert_eq!(set.touches(&key, until.as_deref()), any);
                    }
                }
                let all: Vec<KeyRange> = set.iter().collect();
                let apart = |pair: &[KeyRange]| pair[0].end.as_ref() < Some(&pair[1].start);
                prop_assert!(all.windows(2).all(apart), "{:?}", all);
            }
        }
    }
}
