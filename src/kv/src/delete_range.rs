//! Range deletes: in steps that are small enough for other writes to proceed in between.
//!
//! A step reads a page of the range, confirmed with a quorum, and proposes to delete from the first
//! key of what is left up to the key after that page, or to the end of the route where the page
//! reaches it. So an entry deletes at most a page of keys, and what was put into the page's range
//! meanwhile. Replicas of any version apply such an entry alike: its bounds are in it.
//!
//! Each step is a write of its own: proposed, counted, and certain by itself. A failure after the
//! first step says how far it came.

use bytes::Bytes;
use keyviz_types::MAX_KEY_BYTES;
use tokio::time::Instant;

use super::command::KvCommand;
use super::consistency::Consistency;
use super::coordinator::Coordinator;
use super::error::KvError;
use super::limits::check_range;
use super::machine::decode_count;
use super::page::{SCAN_PAGE_BYTES, SCAN_PAGE_ROWS, ScanRange};
use super::peer::{PeerRead, PeerReadReply};

/// Most keys that one step of a range delete finds.
pub const DELETE_STEP_KEYS: u32 = SCAN_PAGE_ROWS;
/// A step ends with the row that reaches this many bytes of keys and values.
pub const DELETE_STEP_BYTES: u32 = SCAN_PAGE_BYTES;

/// How far a range delete came.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RangeDeleted {
    /// Keys that were removed.
    pub deleted: u64,
    /// Where to go on; `None`: the range is done.
    pub next: Option<Bytes>,
}

/// The next range to delete, within one route.
struct Step {
    from: Bytes,
    /// First key after the step.
    to: Option<Bytes>,
    /// First key after the route; `None`: the last one.
    route_end: Option<Bytes>,
}

impl Coordinator {
    /// Removes the keys of `[start, end)` in steps, each atomic and counted as one write, at least
    /// one a route. Goes no further once it has removed `max_keys`; 0: goes on to the end. An empty
    /// step counts as one key.
    ///
    /// # Errors
    /// As a write where the first step fails; after it [`KvError::RangeCut`], which says how far it
    /// came.
    pub async fn delete_range(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        max_keys: u64,
    ) -> Result<RangeDeleted, KvError> {
        check_range(start, end)?;
        let mut deleted = 0u64;
        let mut left = if max_keys == 0 { u64::MAX } else { max_keys };
        let mut next = Some(Bytes::copy_from_slice(start));
        while let Some(from) = next.take() {
            if end.is_some_and(|end| from.as_ref() >= end) {
                break;
            }
            if left == 0 {
                return Ok(RangeDeleted { deleted, next: Some(resumable(from)) });
            }
            let (step_deleted, after) = match self.delete_step(&from, end, left).await {
                Ok(done) => done,
                // Before the first step nothing was done.
                Err(error) if from.as_ref() == start => return Err(error),
                Err(cause) => {
                    let (next, cause) = (resumable(from), Box::new(cause));
                    return Err(KvError::RangeCut { deleted, next, cause });
                }
            };
            deleted = deleted.saturating_add(step_deleted);
            left = left.saturating_sub(step_deleted.max(1));
            next = after;
        }
        Ok(RangeDeleted { deleted, next: None })
    }

    /// Deletes the first keys from `from` on; their number, and where to continue.
    async fn delete_step(
        &self,
        from: &Bytes,
        end: Option<&[u8]>,
        most: u64,
    ) -> Result<(u64, Option<Bytes>), KvError> {
        let deadline = self.deadline();
        loop {
            match self.delete_step_of_route(from, end, most).await {
                // The routes changed meanwhile, so it is another step.
                Err(KvError::Moving { .. }) if Instant::now() < deadline => {}
                done => return done,
            }
        }
    }

    async fn delete_step_of_route(
        &self,
        from: &Bytes,
        end: Option<&[u8]>,
        most: u64,
    ) -> Result<(u64, Option<Bytes>), KvError> {
        let step = self.next_step(from, end, most).await?;
        let Step { from, to, route_end } = &step;
        let command = KvCommand::DeleteRange { start: from, end: to.as_deref() }.encode();
        let locate = || self.group_of_range(from, to.as_deref());
        let deleted = decode_count(&self.write(locate, command).await?)?;
        let at_route_end = match (to, route_end) {
            (Some(to), Some(route_end)) => to >= route_end,
            (None, _) => true,
            (Some(_), None) => false,
        };
        Ok((deleted, if at_route_end { route_end.clone() } else { to.clone() }))
    }

    async fn next_step(
        &self,
        from: &Bytes,
        end: Option<&[u8]>,
        most: u64,
    ) -> Result<Step, KvError> {
        let route_end = {
            let epoch = self.parts.sampler.epoch();
            let route = epoch.route(epoch.locate(from).ok_or(KvError::NotReady)?);
            route.range.end.clone()
        };
        let part_end = match (&route_end, end) {
            (Some(route_end), Some(end)) if end < route_end => Some(Bytes::copy_from_slice(end)),
            (Some(route_end), _) => Some(route_end.clone()),
            (None, end) => end.map(Bytes::copy_from_slice),
        };
        let page = ScanRange {
            start: from.clone(),
            end: part_end.clone(),
            max_rows: u32::try_from(most).unwrap_or(u32::MAX).min(DELETE_STEP_KEYS),
            max_bytes: DELETE_STEP_BYTES,
            keys_only: true,
            continued: true,
            uncounted: true,
        };
        let locate = || self.group_of_range(from, part_end.as_deref());
        let read = self.read(locate, Consistency::Linearizable, PeerRead::Page(page)).await;
        let page = match read {
            Ok(PeerReadReply::Page(page)) => page,
            Ok(PeerReadReply::Value(_)) => {
                let reason = "a value in answer to a page".to_owned();
                return Err(KvError::Undecodable { reason });
            }
            Err(KvError::ReadUnavailable { group, .. }) => return Err(KvError::NoLeader { group }),
            Err(error) => return Err(error),
        };
        Ok(Step { from: from.clone(), to: page.next.or(part_end), route_end })
    }
}

/// A key from which a request may continue: the key after the longest there can be is too long for
/// one, and the longest itself, which is deleted, does as well.
fn resumable(mut next: Bytes) -> Bytes {
    next.truncate(MAX_KEY_BYTES);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_delete_can_go_on_after_the_longest_key() {
        let longest = vec![7; MAX_KEY_BYTES];
        let after = Bytes::from([&longest[..], &[0]].concat());
        assert_eq!(resumable(after), longest);
        assert_eq!(resumable(Bytes::from_static(b"a\x00")), "a\x00");
    }
}
