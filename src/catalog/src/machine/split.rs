//! Splitting a route: the key that divides its observed load into halves, why a split is refused,
//! and the change that a split makes.

use bytes::Bytes;

use super::error::{CatalogError, check_boundary};
use super::state::Catalog;
use crate::limits::{MAX_BOUNDARY_BYTES, MAX_ROUTES};
use crate::routes::route::{Delta, DeltaKind};
use keyviz_types::{KeyRange, RouteId};

/// A split key, and the load on each side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SplitChoice {
    /// First key of the right half.
    pub key: Bytes,
    /// Load observed before `key`.
    pub left: u64,
    /// Load observed from `key` on.
    pub right: u64,
}

/// Why no key halves the load.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SplitChoiceError {
    /// Nothing was observed.
    #[error("no load was observed in the route, so there is nothing to halve")]
    NoLoad,
    /// Every boundary leaves all load on one side.
    #[error(
        "all load is in one sub-range, which the sampler does not resolve further yet; try again \
         after the next column, or name a key"
    )]
    OneSubRange,
}

/// The boundary between two sub-ranges of `route` with the least load on its heavier side; of
/// several, the first. `loads` may be in any order and reach beyond the route; a sub-range that
/// starts before a key counts as left of it.
///
/// Only boundaries are candidates: the distribution within a sub-range is unknown, and a guessed
/// key could leave all of its load on one side.
///
/// # Errors
/// There is no load, or none of the boundaries divides it.
pub fn split_key_that_halves(
    route: &KeyRange,
    loads: &[(KeyRange, u64)],
) -> Result<SplitChoice, SplitChoiceError> {
    let mut loads: Vec<(&Bytes, u64)> = loads
        .iter()
        .filter(|(range, load)| *load > 0 && overlap(range, route))
        .map(|(range, load)| (&range.start, *load))
        .collect();
    loads.sort_unstable_by_key(|(start, _)| *start);
    let total: u128 = loads.iter().map(|(_, load)| u128::from(*load)).sum();
    if total == 0 {
        return Err(SplitChoiceError::NoLoad);
    }
    let mut before: u128 = 0;
    let mut best: Option<(u128, u128, &Bytes)> = None;
    for (start, load) in loads {
        let heavier = before.max(total - before);
        let inside = start > &route.start && route.contains(start);
        if inside && check_boundary(start).is_ok() && best.is_none_or(|(least, ..)| heavier < least)
        {
            best = Some((heavier, before, start));
        }
        before += u128::from(load);
    }
    match best {
        Some((heavier, left, key)) if heavier < total => {
            let number = |sum: u128| u64::try_from(sum).unwrap_or(u64::MAX);
            Ok(SplitChoice { key: key.clone(), left: number(left), right: number(total - left) })
        }
        Some(_) | None => Err(SplitChoiceError::OneSubRange),
    }
}

fn overlap(a: &KeyRange, b: &KeyRange) -> bool {
    let starts_before_end =
        |x: &KeyRange, y: &KeyRange| y.end.as_ref().is_none_or(|end| x.start < *end);
    starts_before_end(a, b) && starts_before_end(b, a) && !a.is_empty() && !b.is_empty()
}

impl Catalog {
    /// The change that splits a live route at `key`.
    pub(crate) fn split(
        &self,
        route_id: RouteId,
        key: &[u8],
        time_ms: u64,
    ) -> Result<Delta, CatalogError> {
        let parent = self.live(route_id)?;
        check_boundary(key)?;
        if parent.range.start == key {
            return Err(CatalogError::KeyAtStart { route_id });
        }
        if !parent.range.contains(key) {
            let at = self.table.locate(key).ok_or(CatalogError::NotBootstrapped)?;
            let in_route = self.table.specs()[at].id;
            return Err(CatalogError::KeyOutside { route_id, in_route });
        }
        if self.table.len() >= MAX_ROUTES {
            return Err(CatalogError::TooManyRoutes);
        }
        if self.boundary_bytes + key.len() > MAX_BOUNDARY_BYTES {
            return Err(CatalogError::TooManyBoundaryBytes);
        }
        let key = Bytes::copy_from_slice(key);
        let left = KeyRange { start: parent.range.start.clone(), end: Some(key.clone()) };
        let right = KeyRange { start: key, end: parent.range.end.clone() };
        self.replace(DeltaKind::Split, &[parent], vec![left, right], time_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &str, end: &str) -> KeyRange {
        let end = (!end.is_empty()).then(|| Bytes::copy_from_slice(end.as_bytes()));
        KeyRange { start: Bytes::copy_from_slice(start.as_bytes()), end }
    }

    fn choose(
        route: (&str, &str),
        loads: &[(&str, &str, u64)],
    ) -> Result<SplitChoice, SplitChoiceError> {
        let loads: Vec<_> =
            loads.iter().map(|(start, end, load)| (range(start, end), *load)).collect();
        split_key_that_halves(&range(route.0, route.1), &loads)
    }

    fn at(key: &str, left: u64, right: u64) -> Result<SplitChoice, SplitChoiceError> {
        Ok(SplitChoice { key: Bytes::copy_from_slice(key.as_bytes()), left, right })
    }

    #[test]
    fn the_heavier_half_is_as_light_as_any_boundary_allows() {
        let loads = [("b", "d", 5), ("d", "f", 50), ("f", "k", 30), ("k", "m", 15)];
        assert_eq!(choose(("b", "m"), &loads), at("f", 55, 45));
        let mut reversed = loads;
        reversed.reverse();
        assert_eq!(choose(("b", "m"), &reversed), at("f", 55, 45));
    }

    #[test]
    fn order_of_ties_is_decided_by_the_smaller_key() {
        let loads = [("", "b", 1), ("b", "c", 2), ("c", "", 1)];
        assert_eq!(choose(("", ""), &loads), at("b", 1, 3));
    }

    #[test]
    fn no_load_and_load_in_one_place_are_told_apart() {
        assert_eq!(choose(("", ""), &[]), Err(SplitChoiceError::NoLoad));
        assert_eq!(choose(("", ""), &[("", "b", 0), ("b", "", 0)]), Err(SplitChoiceError::NoLoad));
        let one = [("", "b", 0), ("b", "c", 9), ("c", "", 0)];
        assert_eq!(choose(("", ""), &one), Err(SplitChoiceError::OneSubRange));
        assert_eq!(choose(("", ""), &[("", "", 9)]), Err(SplitChoiceError::OneSubRange));
    }

    #[test]
    fn what_lies_outside_the_route_does_not_count() {
        let loads = [("a", "c", 1_000), ("c", "d", 4), ("d", "f", 4), ("f", "g", 1_000)];
        assert_eq!(choose(("c", "f"), &loads), at("d", 4, 4));
    }

    #[test]
    fn a_reserved_key_is_never_chosen() {
        let loads = [("", "\0a", 5), ("\0a", "b", 5), ("b", "", 1)];
        assert_eq!(choose(("", ""), &loads), at("b", 10, 1));
    }

    #[test]
    fn bounds_sums_beyond_64_bits_still_halve() {
        let loads = [("", "b", u64::MAX), ("b", "", u64::MAX)];
        assert_eq!(choose(("", ""), &loads), at("b", u64::MAX, u64::MAX));
    }
}
