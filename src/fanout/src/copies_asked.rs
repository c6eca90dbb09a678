//! Questions to the holders of copies, in the names of other nodes.

use std::sync::Arc;

use futures::future::join_all;
use tokio::time::{Instant, timeout_at};

use keyviz_core::hotkeys::HotKeysQuery;
use keyviz_core::query::NodeTotals;
use keyviz_core::wire::{CheckedColumns, PackedColumns};
use keyviz_core::{NodeId, Query};

use super::cluster::Fanout;
use super::copies::{Offer, Proxy};
use super::member::Planned;
use super::peers::{NodeHotKeys, RoundError};
use super::work::Asker;

impl Fanout {
    /// Round one in the names of nodes: for each what one holder has.
    pub(super) async fn proxy_totals(
        &self,
        proxies: &[Proxy],
        query: &Arc<Query>,
        until: Instant,
    ) -> Vec<NodeTotals> {
        let ask = |proxy: &Proxy| {
            let (of, query) = (proxy.of, Arc::clone(query));
            let holder = proxy.asked.first().map(|(holder, _)| *holder);
            async move {
                let asked = self.ask_copy_totals(holder?, of, query);
                let totals = timeout_at(until, asked).await.ok()?;
                // Without it the rows are planned from what the others counted.
                totals.inspect_err(|error| tracing::debug!(%of, %error, "no totals")).ok()
            }
        };
        join_all(proxies.iter().map(ask)).await.into_iter().flatten().collect()
    }

    async fn ask_copy_totals(
        &self,
        holder: NodeId,
        of: NodeId,
        query: Arc<Query>,
    ) -> Result<NodeTotals, RoundError> {
        let (parts, range) = (self.parts(), query.range.clone());
        let totals = if holder == parts.node {
            let answer = parts.local.copy_totals(Asker::Own, of, query).await;
            answer.map_err(|error| RoundError::Call(error.to_string()))?
        } else {
            parts.peers.copy_totals(holder, of, query).await?
        };
        if totals.node != of {
            return Err(RoundError::OtherCopy(totals.node));
        }
        totals.check(&range)?;
        Ok(totals)
    }

    /// Round two in the name of a node: who answered, and what.
    pub(super) async fn proxy_columns(
        &self,
        proxy: Proxy,
        planned: &Planned,
        deadline: Instant,
    ) -> (NodeId, Vec<(Offer, Vec<CheckedColumns>)>) {
        let Proxy { of, asked, spare } = proxy;
        let ask = |offer: Offer| async move {
            let asked = self.ask_copy_columns(offer.0, of, planned);
            let answer = timeout_at(deadline, asked).await;
            let answer = answer.unwrap_or(Err(RoundError::Deadline(self.parts().deadline)));
            let holder = offer.0;
            let failed = |error: &RoundError| {
                tracing::debug!(%of, %holder, %error, "a copy was not answered from");
            };
            answer.inspect_err(failed).ok().map(|parts| (offer, parts))
        };
        let mut answers: Vec<_> =
            join_all(asked.into_iter().map(&ask)).await.into_iter().flatten().collect();
        let mut spare = spare.into_iter();
        while answers.is_empty()
            && let Some(next) = spare.next()
        {
            answers.extend(ask(next).await);
        }
        (of, answers)
    }

    async fn ask_copy_columns(
        &self,
        holder: NodeId,
        of: NodeId,
        planned: &Planned,
    ) -> Result<Vec<CheckedColumns>, RoundError> {
        let parts = self.parts();
        let Planned { query, rows, columns, .. } = planned.clone();
        let answer = if holder == parts.node {
            let answer = parts.local.copy_columns(Asker::Own, of, query, rows, columns).await;
            vec![answer.map_err(|error| RoundError::Call(error.to_string()))?.into()]
        } else {
            parts.peers.copy_columns(holder, of, query, rows, columns).await?
        };
        for part in &answer {
            if part.held_by != holder {
                return Err(RoundError::OtherNode(part.held_by));
            }
            if part.node != of {
                return Err(RoundError::OtherCopy(part.node));
            }
        }
        let checked = |part: PackedColumns| part.checked(&planned.rows, &planned.columns);
        answer.into_iter().map(|part| checked(part).map_err(RoundError::from)).collect()
    }

    /// The hot keys in the name of a node: who answered, and what.
    pub(super) async fn proxy_hot_keys(
        &self,
        proxy: Proxy,
        query: &Arc<HotKeysQuery>,
        deadline: Instant,
    ) -> (NodeId, Vec<(Offer, NodeHotKeys)>) {
        let Proxy { of, asked, spare } = proxy;
        let ask = |offer: Offer| async move {
            let asked = self.ask_copy_hot_keys(offer.0, of, Arc::clone(query));
            timeout_at(deadline, asked).await.ok()?.ok().map(|answer| (offer, answer))
        };
        let mut answers: Vec<_> =
            join_all(asked.into_iter().map(&ask)).await.into_iter().flatten().collect();
        let mut spare = spare.into_iter();
        while answers.is_empty()
            && let Some(next) = spare.next()
        {
            answers.extend(ask(next).await);
        }
        (of, answers)
    }

    async fn ask_copy_hot_keys(
        &self,
        holder: NodeId,
        of: NodeId,
        query: Arc<HotKeysQuery>,
    ) -> Result<NodeHotKeys, RoundError> {
        let (parts, points) = (self.parts(), query.points);
        let answer = if holder == parts.node {
            let salt = parts.directory.cluster_id();
            let answer = parts.local.copy_hot_keys(Asker::Own, of, query, salt.as_str()).await;
            answer.map_err(|error| RoundError::Call(error.to_string()))?
        } else {
            parts.peers.copy_hot_keys(holder, of, query).await?
        };
        for part in &answer.parts {
            if part.held_by != holder {
                return Err(RoundError::OtherNode(part.held_by));
            }
            if part.node != of {
                return Err(RoundError::OtherCopy(part.node));
            }
            part.check(points)?;
        }
        Ok(answer)
    }
}
