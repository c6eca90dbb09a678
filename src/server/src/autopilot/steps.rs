//! The steps of an act. Each can be made again: its request id says that it was made.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tonic::Status;

use keyviz_catalog::{
    CatalogCommand, CatalogError, EntryId, JournalEntry, LayoutAct, MoveCommand, MoveError, MoveId,
    MovePhase,
};
use keyviz_catalog_group::CatalogChangeError;
use keyviz_core::insight::{Act, Topology};
use keyviz_types::{GroupId, KeyRange, NodeId, RouteSpec};

use super::Autopilot;

/// A change of the catalog takes so long at most.
const CHANGE_WITHIN: Duration = Duration::from_secs(5);

/// The pause before a step that could not be made is made again.
const AGAIN: Duration = Duration::from_millis(300);

/// A step that is refused for what others do is made again for so long.
const OTHERS_WITHIN: Duration = Duration::from_secs(30);

/// Acts that were planned together begin together, and one may need the split of another.
const NEIGHBOURS_WITHIN: Duration = Duration::from_secs(5);

/// How far a move has come is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why an act was not done, or not all of it.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Change(#[from] CatalogChangeError),
    #[error("{}", .0.message())]
    Transfer(Status),
    #[error("the keys are not those of whole routes any more")]
    NotWhole,
    #[error("the routes are in group {found} now, and were in group {expected}")]
    Elsewhere { found: GroupId, expected: GroupId },
    #[error("the routes are in several groups")]
    Several,
    #[error("the move was taken back: {0}")]
    TakenBack(String),
    #[error("the move was taken back, because it copies more than {0} bytes")]
    TooLarge(u64),
    #[error("nothing is known of the move any more")]
    Forgotten,
}

/// The group and the leader that an act takes load from.
pub(super) fn from(act: &Act, topology: &Topology) -> (Option<GroupId>, Option<NodeId>) {
    let of = |range: &KeyRange| {
        let inside = |route: &&RouteSpec| shares(&route.range, range);
        topology.routes.iter().find(inside).map(|route| route.group)
    };
    let group = match act {
        Act::SplitAndMove { range, .. } | Act::Move { range, .. } | Act::Merge { range } => {
            of(range)
        }
        Act::TransferLeader { group, .. } => Some(*group),
        Act::Split { .. } | Act::ReadFromFollowers { .. } => None,
    };
    (group, group.and_then(|group| topology.place(group)?.leader))
}

fn ends_before(end: &Option<Bytes>, start: &Bytes) -> bool {
    end.as_ref().is_some_and(|end| end <= start)
}

/// Whether two ranges share keys.
pub(super) fn shares(a: &KeyRange, b: &KeyRange) -> bool {
    !ends_before(&a.end, &b.start) && !ends_before(&b.end, &a.start)
}

/// The routes whose keys a range is; `None`: it is not whole routes.
pub(super) fn whole_routes(routes: &[RouteSpec], range: &KeyRange) -> Option<Vec<RouteSpec>> {
    let of: Vec<RouteSpec> =
        routes.iter().filter(|route| shares(&route.range, range)).cloned().collect();
    let (first, last) = (of.first()?, of.last()?);
    let whole = first.range.start == range.start && last.range.end == range.end;
    whole.then_some(of)
}

impl Autopilot {
    /// Makes the steps of an act; the catalog version that the last one made, 0: none.
    pub(super) async fn make(&self, entry: &JournalEntry) -> Result<u64, Failure> {
        match &entry.act {
            LayoutAct::Split { at } => self.split(entry.id, at).await,
            LayoutAct::SplitAndMove { at, range, to } => {
                self.split(entry.id, at).await?;
                self.give(entry, range, *to).await
            }
            LayoutAct::Move { range, to } => self.give(entry, range, *to).await,
            LayoutAct::Merge { range } => self.merge(entry.id, range).await,
            LayoutAct::TransferLeader { group, to } => {
                let transferred = self.parts.cluster.transfer(*group, *to).await;
                transferred.map(|_| 0).map_err(Failure::Transfer)
            }
        }
    }

    fn table(&self) -> Vec<RouteSpec> {
        self.parts.catalog.applied().hub().table().specs().to_vec()
    }

    /// Makes a change of the routes as they are then, again where others changed them meanwhile.
    async fn change_routes(
        &self,
        command: impl Fn(&[RouteSpec]) -> Result<Option<CatalogCommand>, Failure>,
    ) -> Result<u64, Failure> {
        let deadline = Instant::now() + OTHERS_WITHIN;
        loop {
            let Some(command) = command(&self.table())? else { return Ok(0) };
            match self.parts.catalog.change(&command, CHANGE_WITHIN).await {
                Ok(delta) => return Ok(delta.version),
                Err(error) if passes(&error) && Instant::now() < deadline => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn split(&self, id: EntryId, at: &[u8]) -> Result<u64, Failure> {
        self.change_routes(|routes| {
            let route = routes.iter().find(|route| route.range.contains(at));
            let route = route.ok_or(Failure::NotWhole)?;
            // It was split here already: by this act, or by somebody else.
            Ok((route.range.start != at).then(|| CatalogCommand::Split {
                route_id: route.id,
                key: at.to_vec(),
                expected_version: 0,
                request_id: JournalEntry::step_request_id(id, "split"),
                time_ms: 0,
            }))
        })
        .await
    }

    async fn merge(&self, id: EntryId, range: &KeyRange) -> Result<u64, Failure> {
        let mut version = 0;
        loop {
            let made = self.change_routes(|routes| {
                let routes = whole_routes(routes, range).ok_or(Failure::NotWhole)?;
                let [left, right, ..] = &routes[..] else { return Ok(None) };
                if routes.iter().any(|route| route.group != left.group) {
                    return Err(Failure::Several);
                }
                let step = format!("merge-{}-{}", left.id, right.id);
                Ok(Some(CatalogCommand::Merge {
                    left_id: left.id,
                    right_id: right.id,
                    expected_version: 0,
                    request_id: JournalEntry::step_request_id(id, &step),
                    time_ms: 0,
                }))
            });
            match made.await? {
                0 => return Ok(version),
                made => version = made,
            }
        }
    }

    /// Moves the routes of a range to a group, one after the other.
    async fn give(
        &self,
        entry: &JournalEntry,
        range: &KeyRange,
        to: GroupId,
    ) -> Result<u64, Failure> {
        let mut version = 0;
        let deadline = Instant::now() + NEIGHBOURS_WITHIN;
        loop {
            let Some(routes) = whole_routes(&self.table(), range) else {
                if Instant::now() >= deadline {
                    return Err(Failure::NotWhole);
                }
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            let Some(route) = routes.into_iter().find(|route| route.group != to) else {
                return Ok(version);
            };
            if let Some(expected) = entry.from_group.filter(|from| *from != route.group) {
                return Err(Failure::Elsewhere { found: route.group, expected });
            }
            let id = self.start_move(entry.id, &route, to).await?;
            version = self.moved(id).await?;
        }
    }

    async fn start_move(
        &self,
        id: EntryId,
        route: &RouteSpec,
        to: GroupId,
    ) -> Result<MoveId, Failure> {
        let start = MoveCommand::Start {
            route_id: route.id,
            to,
            expected_version: 0,
            request_id: JournalEntry::step_request_id(id, &format!("move-{}", route.id)),
            time_ms: 0,
        };
        let deadline = Instant::now() + OTHERS_WITHIN;
        loop {
            match self.parts.catalog.change_move(&start, CHANGE_WITHIN).await {
                Ok(id) => return Ok(id),
                Err(error) if passes(&error) && Instant::now() < deadline => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Waits until a move has made its change of the routes; the version of that.
    async fn moved(&self, id: MoveId) -> Result<u64, Failure> {
        let most = self.parts.config.policy.move_bytes;
        let mut too_large = false;
        loop {
            let moves = self.parts.catalog.applied().moves();
            if let Some(moving) = moves.get(id) {
                match &moving.phase {
                    MovePhase::Cleaning => return Ok(moving.version),
                    MovePhase::Copying if !too_large && self.copied(id) > most => {
                        let cancel = MoveCommand::Cancel { route_id: moving.route_id };
                        // Where it is too late for that, the move is completed.
                        let taken = self.parts.catalog.change_move(&cancel, CHANGE_WITHIN).await;
                        too_large = taken.is_ok();
                    }
                    _ => {}
                }
            } else {
                let ended = moves.ended().find(|ended| ended.id == id);
                let ended = ended.ok_or(Failure::Forgotten)?;
                return match ended.version {
                    0 if too_large => Err(Failure::TooLarge(most)),
                    0 => Err(Failure::TakenBack(ended.reason.clone())),
                    version => Ok(version),
                };
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn copied(&self, id: MoveId) -> u64 {
        self.parts
            .coordinator
            .move_counters()
            .of_moves
            .lock()
            .get(&id)
            .map_or(0, |copied| copied.bytes)
    }
}

/// Whether a refusal may be over soon.
fn passes(error: &CatalogChangeError) -> bool {
    match error {
        CatalogChangeError::Refused(refusal) => matches!(
            refusal,
            CatalogError::Moving { .. }
                | CatalogError::RetiredRoute { .. }
                | CatalogError::UnknownRoute { .. }
        ),
        CatalogChangeError::MoveRefused(refusal) => {
            matches!(refusal, MoveError::Moving { .. } | MoveError::TooMany)
        }
        CatalogChangeError::NoLeader
        | CatalogChangeError::Overloaded
        | CatalogChangeError::Unknown { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyviz_types::RouteId;

    #[test]
    fn acts_bounded_and_proven_only_whole_routes_move() {
        let route = |id, start: &'static str, end: Option<&'static str>| RouteSpec {
            id: RouteId::new(id).expect("not 0"),
            range: KeyRange { start: Bytes::from(start), end: end.map(Bytes::from) },
            group: GroupId(id),
        };
        let routes = [route(1, "", Some("g")), route(2, "g", Some("m")), route(3, "m", None)];
        let of = |start: &'static str, end: Option<&'static str>| {
            let range = KeyRange { start: Bytes::from(start), end: end.map(Bytes::from) };
            let whole = whole_routes(&routes, &range)?;
            Some(whole.iter().map(|route| route.id.get()).collect::<Vec<u64>>())
        };
        assert_eq!(of("g", Some("m")), Some(vec![2]));
        assert_eq!(of("", Some("m")), Some(vec![1, 2]));
        assert_eq!(of("g", None), Some(vec![2, 3]));
        assert_eq!(of("h", Some("m")), None);
        assert_eq!(of("g", Some("l")), None);
        assert_eq!(whole_routes(&[], &KeyRange::all()), None);
    }
}
