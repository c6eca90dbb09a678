//! Copies of other nodes' histories: what this node keeps, and who is asked in whose name.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keyviz_core::copies::{Copies, CopyError, CopyView, HeldCopy};
use keyviz_core::hotkeys::HotKeysQuery;
use keyviz_core::matrix::NodeStatus;
use keyviz_core::query::{ColumnPlan, NodeTotals, RowAxis};
use keyviz_core::wire::NodeColumns;
use keyviz_core::{NodeId, Query, Window};

use super::copy_stats::CopyStats;
use super::local::{HotKeysMode, LocalMatrix};
use super::peers::NodeHotKeys;
use super::work::{Asker, WorkError};

/// Why a holder does not answer in the name of a node.
#[derive(Debug, thiserror::Error)]
pub enum CopyAnswerError {
    /// It has no copy.
    #[error("it keeps no copy of the history of node {0}")]
    NoCopy(NodeId),
    /// The copies cannot be read.
    #[error(transparent)]
    Copies(#[from] CopyError),
    /// It has too much to do.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// Hot keys are off.
    #[error("hot keys are off on it")]
    HotKeysOff,
}

impl LocalMatrix {
    /// The copies that this node keeps.
    pub fn copies(&self) -> Option<&Arc<Copies>> {
        self.copies.as_ref()
    }

    /// What came of sending this node's columns to others.
    pub fn copy_stats(&self) -> &CopyStats {
        &self.copy_stats
    }

    /// What this node holds in the names of others.
    pub fn held_copies(&self) -> Vec<HeldCopy> {
        self.copies().map(|copies| copies.held()).unwrap_or_default()
    }

    /// Round one in the name of another node, within the bounds for `asker`.
    ///
    /// # Errors
    /// There is no copy, or it cannot be read.
    pub async fn copy_totals(
        self: &Arc<Self>,
        asker: Asker,
        of: NodeId,
        query: Arc<Query>,
    ) -> Result<NodeTotals, CopyAnswerError> {
        let local = Arc::clone(self);
        self.work()
            .compute(asker, move |wanted| {
                let view = match local.copy_view(of, query.window) {
                    Ok(view) => view,
                    Err(error) => return Some(Err(error)),
                };
                Some(Ok(view.totals(&query, wanted)?))
            })
            .await?
    }

    /// Round two in the name of another node, within the bounds for `asker`.
    ///
    /// # Errors
    /// There is no copy, or it cannot be read.
    pub async fn copy_columns(
        self: &Arc<Self>,
        asker: Asker,
        of: NodeId,
        query: Arc<Query>,
        rows: Arc<RowAxis>,
        columns: Arc<ColumnPlan>,
    ) -> Result<NodeColumns, CopyAnswerError> {
        let local = Arc::clone(self);
        self.work()
            .compute(asker, move |wanted| {
                let nothing = Window { from_ms: 0, to_ms: 0 };
                let view = match local.copy_view(of, columns.window().unwrap_or(nothing)) {
                    Ok(view) => view,
                    Err(error) => return Some(Err(error)),
                };
                Some(Ok(view.columns(&query, &rows, &columns, wanted)?))
            })
            .await?
    }

    /// The hot keys of another node, within the bounds for `asker`.
    ///
    /// # Errors
    /// There is no copy, or it cannot be read.
    pub async fn copy_hot_keys(
        self: &Arc<Self>,
        asker: Asker,
        of: NodeId,
        query: Arc<HotKeysQuery>,
        salt: &str,
    ) -> Result<NodeHotKeys, CopyAnswerError> {
        let hashed = match self.hot_keys_mode() {
            HotKeysMode::Off => return Err(CopyAnswerError::HotKeysOff),
            mode => mode == HotKeysMode::Hashed,
        };
        let (local, salt) = (Arc::clone(self), salt.to_owned());
        self.work()
            .compute(asker, move |wanted| {
                let view = match local.copy_view(of, query.window) {
                    Ok(view) => view,
                    Err(error) => return Some(Err(error)),
                };
                let part = view.hot_keys(&query, wanted)?;
                let parts = vec![if hashed { part.hashed(&salt) } else { part }];
                let (now_ms, forgotten_before_ms) = (local.clock().now_ms(), 0);
                let copies = Vec::new();
                Some(Ok(NodeHotKeys { parts, hashed, now_ms, forgotten_before_ms, copies }))
            })
            .await?
    }

    fn copy_view(&self, of: NodeId, window: Window) -> Result<CopyView, CopyAnswerError> {
        let copies = self.copies().ok_or(CopyAnswerError::NoCopy(of))?;
        copies.view(of, window)?.ok_or(CopyAnswerError::NoCopy(of))
    }
}

/// A member and what it says that it holds in the name of a node.
pub(super) type Offer = (NodeId, HeldCopy);

/// Who is asked in the name of one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Proxy {
    /// The node that counted.
    pub of: NodeId,
    /// Who is asked: one that has everything that the others have, or all.
    pub asked: Vec<Offer>,
    /// Who is asked if none of these answers.
    pub spare: Vec<Offer>,
}

/// The nodes that do not answer, and up to when their columns are missing: of a member that lost or
/// dropped its past that time, of one that is silent `u64::MAX`.
pub(super) type Absent = BTreeMap<NodeId, u64>;

/// Who is asked in the names of the nodes in `absent`, and of nodes that are no members.
pub(super) fn proxies(
    offers: &[(NodeId, Vec<HeldCopy>)],
    members: &BTreeSet<NodeId>,
    absent: &Absent,
    window: Window,
) -> Vec<Proxy> {
    let mut by_node: BTreeMap<NodeId, Vec<Offer>> = BTreeMap::new();
    for (holder, held) in offers {
        for held in held {
            let missing_to_ms = match absent.get(&held.node) {
                Some(missing_to_ms) => (*missing_to_ms).min(window.to_ms),
                None if members.contains(&held.node) => continue,
                None => window.to_ms,
            };
            let reached_ms = held.newest_ms.max(held.complete_to_ms);
            let inside = held.oldest_ms < missing_to_ms && reached_ms > window.from_ms;
            if inside && held.node != *holder {
                by_node.entry(held.node).or_default().push((*holder, *held));
            }
        }
    }
    let proxy = |(of, mut offers): (NodeId, Vec<Offer>)| {
        let from_ms = |held: &HeldCopy| held.oldest_ms.max(window.from_ms);
        offers.sort_by_key(|(holder, held)| {
            let has = Reverse((held.complete_to_ms, held.newest_ms));
            (has, held.lost, from_ms(held), Reverse(held.columns), *holder)
        });
        let best = offers[0].1;
        let has_all_of = |(_, other): &Offer| {
            best.newest_ms >= other.newest_ms && from_ms(&best) <= from_ms(other)
        };
        let one = best.lost == 0 && offers.iter().all(has_all_of);
        let spare = if one { offers.split_off(1) } else { Vec::new() };
        Proxy { of, asked: offers, spare }
    };
    by_node.into_iter().map(proxy).collect()
}

/// Writes down who answered in the name of a member, and up to when it has everything.
pub(super) fn tell(status: &mut NodeStatus, holders: &[Offer]) {
    let Some(complete_to_ms) = holders.iter().map(|(_, held)| held.complete_to_ms).max() else {
        return;
    };
    status.answered_by = holders.iter().map(|(holder, _)| *holder).collect();
    status.complete_to_ms = Some(complete_to_ms);
    if let Some(error) = &mut status.error {
        let nodes: Vec<String> =
            status.answered_by.iter().map(|node| format!("node {node}")).collect();
        let second = complete_to_ms / 1_000 % 86_400;
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let nodes = nodes.join(" and ");
        let told =
            format!("; answered by {nodes}, complete to {hour:02}:{minute:02}:{second:02} UTC");
        error.push_str(&told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyviz_core::Incarnation;

    fn held(node: u64, oldest_ms: u64, complete_to_ms: u64) -> HeldCopy {
        HeldCopy {
            node: NodeId(node),
            incarnation: Incarnation(1),
            oldest_ms,
            newest_ms: complete_to_ms + 10,
            complete_to_ms,
            left_ms: None,
            forgotten_before_ms: 0,
            columns: 7,
            lost: 0,
        }
    }

    fn asked(offers: &[(u64, Vec<HeldCopy>)], absent: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let offers: Vec<_> =
            offers.iter().map(|(holder, held)| (NodeId(*holder), held.clone())).collect();
        let members = [1, 2, 3].map(NodeId).into_iter().collect();
        let absent = absent.iter().map(|(node, to_ms)| (NodeId(*node), *to_ms)).collect();
        let window = Window { from_ms: 100, to_ms: 200 };
        let proxies = proxies(&offers, &members, &absent, window).into_iter();
        let pairs = |proxy: Proxy| {
            let of = proxy.of.0;
            proxy.asked.into_iter().map(move |(holder, _)| (of, holder.0)).collect::<Vec<_>>()
        };
        let mut asked: Vec<_> = proxies.flat_map(pairs).collect();
        asked.sort_unstable();
        asked
    }

    const SILENT: u64 = u64::MAX;

    #[test]
    fn once_of_holders_with_the_same_columns_one_is_asked() {
        let offers = [(1, vec![held(3, 0, 150)]), (2, vec![held(3, 50, 150), held(1, 0, 150)])];
        assert_eq!(asked(&offers, &[(3, SILENT)]), [(3, 1)]);
        assert_eq!(asked(&offers, &[]), [], "members that answer speak for themselves");
        // Of a node that is no member.
        let left = [(1, vec![held(9, 0, 140)]), (2, vec![held(9, 0, 150)])];
        assert_eq!(asked(&left, &[]), [(9, 2)]);
    }

    #[test]
    fn honest_partiality_holders_that_complement_each_other_are_all_asked() {
        let offers = [(1, vec![held(3, 0, 150)]), (2, vec![held(3, 120, 190)])];
        assert_eq!(asked(&offers, &[(3, SILENT)]), [(3, 1), (3, 2)]);
        let lossy = HeldCopy { lost: 1, ..held(3, 0, 190) };
        let offers = [(1, vec![lossy]), (2, vec![held(3, 0, 150)])];
        assert_eq!(asked(&offers, &[(3, SILENT)]), [(3, 1), (3, 2)]);
        // One that has nothing of the window is not asked.
        assert_eq!(asked(&[(1, vec![held(3, 0, 50)])], &[(3, SILENT)]), []);
        assert_eq!(asked(&[(1, vec![held(3, 300, 350)])], &[(3, SILENT)]), []);
    }

    #[test]
    fn honest_partiality_a_member_that_lost_its_past_is_answered_for_up_to_then() {
        let offers = [(1, vec![held(3, 0, 150)])];
        assert_eq!(asked(&offers, &[(3, 120)]), [(3, 1)]);
        let later = [(1, vec![held(3, 130, 150)])];
        assert_eq!(asked(&later, &[(3, 120)]), [], "it has nothing of what is missing");
    }

    #[test]
    fn honest_partiality_a_status_tells_who_answered_and_up_to_when() {
        let error = Some("it did not answer".to_owned());
        let mut status = NodeStatus { node: Some(NodeId(3)), error, ..NodeStatus::default() };
        let noon_ms = 1_800_000_000_000 / 86_400_000 * 86_400_000;
        tell(&mut status, &[(NodeId(2), held(3, 0, noon_ms + 50_587_000))]);
        assert_eq!(
            status.error.as_deref(),
            Some("it did not answer; answered by node 2, complete to 14:03:07 UTC")
        );
        assert_eq!(status.answered_by, [NodeId(2)]);
        assert!(!status.ok);
    }
}
