//! Waits until nodes and replicas are in place, and shows the progress.
//!
//! The cluster moves replicas in the background; this module shows its status.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::super::CliError;
use super::super::client::Client;
use super::current::status;
use crate::terminal::talk::say;
use crate::terminal::text::{self, thousands};
use keyviz_proto as proto;

/// Interval of the status requests.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// The wait ends after this time without an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// The node is a member and votes if there is a free vote, and replicas and leaders are spread.
    Settled(u64),
    /// The node is no longer a member.
    Gone(u64),
}

/// How it went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Waited {
    /// Changes of replicas that were seen.
    pub(super) moves: u64,
    /// The node votes in the catalog group.
    pub(super) voter: bool,
    /// Changes of replicas that wait for members that do not answer.
    pub(super) waiting: u64,
}

impl Until {
    /// Whether it has come.
    fn has_come(self, status: &proto::ClusterStatus) -> bool {
        match self {
            Until::Gone(id) => status.members.iter().all(|member| member.id != id),
            Until::Settled(id) => {
                status.moves_left == Some(0) && !status.leaders_due && is_in(status, id)
            }
        }
    }

    /// Whether all remaining moves wait for members that do not answer, and how many those are.
    fn stuck(self, status: &proto::ClusterStatus) -> Option<u64> {
        let Until::Settled(id) = self else { return None };
        let waiting = status.moves_left.filter(|left| *left > 0 && *left == status.moves_waiting);
        waiting.filter(|_| !status.leaders_due && is_in(status, id))
    }
}

/// Whether the node is a member, and votes if there is a free vote.
fn is_in(status: &proto::ClusterStatus, id: u64) -> bool {
    let member = status.members.iter().find(|member| member.id == id);
    let voters = status.members.iter().filter(|member| member.voter).count();
    member.is_some_and(|member| member.voter || voters >= MOST_VOTERS)
}

/// The catalog group has the maximum number of voters.
const MOST_VOTERS: usize = 5;

/// Waits until the goal is reached. Ends early if no node answers, or if all remaining moves have
/// waited for [`PATIENCE`] for members that do not answer.
///
/// # Errors
/// The last error, after [`PATIENCE`] without an answer.
pub(super) async fn wait(client: &Client, until: Until) -> Result<Waited, CliError> {
    let bar = bar();
    let mut waited = Waited::default();
    let mut shown = String::new();
    let mut left_before = None;
    let mut answered = Instant::now();
    let mut stuck_since = None;
    loop {
        match status(client).await {
            Ok(status) => {
                answered = Instant::now();
                if let Some(left) = status.moves_left {
                    waited.moves +=
                        left_before.map_or(0, |before| u64::saturating_sub(before, left));
                    left_before = Some(left);
                    bar.set_length(waited.moves + left);
                    bar.set_position(waited.moves);
                }
                let stuck = until.stuck(&status);
                let since = stuck.map(|_| *stuck_since.get_or_insert(answered));
                stuck_since = since;
                waited.waiting = stuck.unwrap_or(0);
                let gives_up = since.is_some_and(|since| since.elapsed() > PATIENCE);
                let words = words(&status, until);
                bar.set_message(words.clone());
                if bar.is_hidden() && words != shown {
                    say!("{words}");
                }
                shown = words;
                if gives_up || until.has_come(&status) {
                    bar.finish_and_clear();
                    if let Until::Settled(id) = until {
                        let member = status.members.iter().find(|member| member.id == id);
                        waited.voter = member.is_some_and(|member| member.voter);
                    }
                    return Ok(waited);
                }
            }
            Err(error) if answered.elapsed() > PATIENCE => {
                bar.abandon();
                say!("the cluster goes on by itself; look again with: keyviz cluster status");
                return Err(error);
            }
            Err(_) => {}
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} moves, {elapsed}: {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(ASK_EVERY);
    bar
}

/// What happens now.
fn words(status: &proto::ClusterStatus, until: Until) -> String {
    if let Some(now) = status.moves.first() {
        return move_words(now);
    }
    match until {
        _ if until.stuck(status).is_some() => {
            format!("{} moves wait for members that do not answer", status.moves_waiting)
        }
        _ if status.moves_left > Some(0) => {
            format!("{} moves to do", status.moves_left.unwrap_or_default())
        }
        Until::Gone(id) => format!("node {id} is leaving"),
        Until::Settled(_) if status.leaders_due => "leaders are spread".to_owned(),
        Until::Settled(id) => format!("node {id} joins"),
    }
}

/// One move in words.
pub(super) fn move_words(now: &proto::Move) -> String {
    let list = |nodes: &[u64]| nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let copied = match (now.copied_index, now.last_index) {
        (Some(copied), Some(last)) if copied < last && now.received_bytes > 0 => {
            format!(", {} received", text::short_bytes(now.received_bytes))
        }
        (Some(copied), Some(last)) if copied < last => {
            format!(", {} of {} entries", thousands(copied), thousands(last))
        }
        _ => String::new(),
    };
    let (from, to) = (list(&now.from), list(&now.to));
    format!("group {} moves from nodes {from} to {to}{copied}", now.group_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, voter: bool) -> proto::Member {
        proto::Member { id, voter, ..Default::default() }
    }

    #[test]
    fn it_has_come_when_the_node_votes_and_nothing_moves_or_when_it_is_gone() {
        let mut status =
            proto::ClusterStatus { members: vec![member(1, true)], ..Default::default() };
        assert!(!Until::Settled(4).has_come(&status), "not a member yet");
        status.members.push(member(4, false));
        assert!(!Until::Settled(4).has_come(&status), "it does not vote yet");
        status.members[1].voter = true;
        assert!(!Until::Settled(4).has_come(&status), "it is not known what is left");
        status.moves_left = Some(0);
        assert!(Until::Settled(4).has_come(&status));
        status.leaders_due = true;
        assert!(!Until::Settled(4).has_come(&status));
        status.leaders_due = false;
        (status.moves_left, status.moves_waiting) = (Some(2), 1);
        assert!(!Until::Settled(4).has_come(&status) && Until::Settled(4).stuck(&status).is_none());
        status.moves_waiting = 2;
        assert!(!Until::Settled(4).has_come(&status));
        assert_eq!(Until::Settled(4).stuck(&status), Some(2));
        assert!(!Until::Settled(4).has_come(&status) && !Until::Gone(4).has_come(&status));
        status.members.pop();
        assert!(Until::Gone(4).has_come(&status));
        status = proto::ClusterStatus { moves_left: Some(0), ..Default::default() };
        status.members = (1..=5).map(|id| member(id, true)).chain([member(6, false)]).collect();
        assert!(Until::Settled(6).has_come(&status), "there is no room among the voters");
    }

    #[test]
    fn a_move_says_from_where_to_where_and_how_far_it_is() {
        let mut now = proto::Move {
            group_id: 3,
            from: vec![1, 2, 3],
            to: vec![1, 2, 4],
            copied_index: Some(812),
            last_index: Some(1_204),
            received_bytes: 0,
        };
        assert_eq!(
            move_words(&now),
            "group 3 moves from nodes 1,2,3 to 1,2,4, 812 of 1,204 entries"
        );
        now.received_bytes = 3 << 20;
        assert!(move_words(&now).ends_with("received"), "{}", move_words(&now));
        now.copied_index = now.last_index;
        assert_eq!(move_words(&now), "group 3 moves from nodes 1,2,3 to 1,2,4");
    }
}
