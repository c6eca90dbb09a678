//! Between openraft's types and the messages of `raft.proto`. No bytes from a peer or a disk can
//! cause a panic here.

use std::collections::{BTreeMap, BTreeSet};

use openraft::raft::{AppendEntriesRequest, VoteRequest, VoteResponse};

use super::types::{
    Command, Entry, LogId, LogPosition, Member, Membership, Payload, RaftNodeId, StoredMembership,
    Types, Vote,
};
use keyviz_proto as proto;

/// A message that does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is invalid: {0}")]
pub(crate) struct Invalid(pub(crate) &'static str);

impl From<Invalid> for tonic::Status {
    fn from(invalid: Invalid) -> Self {
        tonic::Status::invalid_argument(invalid.to_string())
    }
}

pub(crate) fn vote_to_proto(vote: &Vote) -> proto::RaftVote {
    proto::RaftVote {
        term: vote.leader_id.term,
        node: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_proto(vote: proto::RaftVote) -> Vote {
    Vote { committed: vote.committed, ..Vote::new(vote.term, vote.node) }
}

pub(crate) fn required_vote(vote: Option<proto::RaftVote>) -> Result<Vote, Invalid> {
    vote.map(vote_from_proto).ok_or(Invalid("it has no vote"))
}

pub(crate) fn log_id_to_proto(id: LogId) -> proto::RaftLogId {
    proto::RaftLogId { term: id.leader_id.term, index: id.index }
}

pub(crate) fn log_id_from_proto(id: proto::RaftLogId) -> LogId {
    LogPosition { term: id.term, index: id.index }.into()
}

pub(crate) fn membership_to_proto(membership: &Membership) -> proto::RaftMembership {
    proto::RaftMembership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| proto::RaftVoters { nodes: voters.iter().copied().collect() })
            .collect(),
        members: membership
            .nodes()
            .map(|(node, member)| proto::RaftMember {
                node: *node,
                addr: member.addr.clone(),
                http: member.http.clone(),
            })
            .collect(),
    }
}

pub(crate) fn membership_from_proto(
    membership: proto::RaftMembership,
) -> Result<Membership, Invalid> {
    let configs: Vec<BTreeSet<RaftNodeId>> =
        membership.configs.into_iter().map(|voters| voters.nodes.into_iter().collect()).collect();
    let members: BTreeMap<RaftNodeId, Member> = membership
        .members
        .into_iter()
        .map(|member| (member.node, Member { addr: member.addr, http: member.http }))
        .collect();
    if configs.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, members).map_err(|_| Invalid("its membership is contradictory"))
}

pub(crate) fn stored_membership(
    at: Option<proto::RaftLogId>,
    membership: Option<proto::RaftMembership>,
) -> Result<StoredMembership, Invalid> {
    let membership = membership_from_proto(membership.unwrap_or_default())?;
    Ok(StoredMembership::new(at.map(log_id_from_proto), membership))
}

fn entry_to_proto(entry: Entry) -> proto::RaftEntry {
    use proto::raft_entry::Payload as Wire;
    proto::RaftEntry {
        term: entry.log_id.leader_id.term,
        index: entry.log_id.index,
        payload: match entry.payload {
            Payload::Blank => None,
            Payload::Normal(command) => Some(Wire::Command(command.0)),
            Payload::Membership(membership) => {
                Some(Wire::Membership(membership_to_proto(&membership)))
            }
        },
    }
}

fn entry_from_proto(entry: proto::RaftEntry) -> Result<Entry, Invalid> {
    use proto::raft_entry::Payload as Wire;
    let payload = match entry.payload {
        None => Payload::Blank,
        Some(Wire::Command(command)) => Payload::Normal(Command(command)),
        Some(Wire::Membership(membership)) => {
            Payload::Membership(membership_from_proto(membership)?)
        }
    };
    let log_id = LogPosition { term: entry.term, index: entry.index }.into();
    Ok(Entry { log_id, payload })
}

pub(crate) fn append_to_proto(
    seq: u64,
    group: u64,
    append: AppendEntriesRequest<Types>,
) -> proto::RaftAppend {
    proto::RaftAppend {
        seq,
        group,
        vote: Some(vote_to_proto(&append.vote)),
        previous: append.prev_log_id.map(log_id_to_proto),
        entries: append.entries.into_iter().map(entry_to_proto).collect(),
        committed: append.leader_commit.map(log_id_to_proto),
        quorum_age_ms: None,
    }
}

/// openraft asserts on a request whose entries do not follow each other, so that is checked here.
pub(crate) fn append_from_proto(
    append: proto::RaftAppend,
) -> Result<AppendEntriesRequest<Types>, Invalid> {
    let vote = required_vote(append.vote)?;
    if !vote.committed {
        return Err(Invalid("only a leader appends, and its vote is not committed"));
    }
    let prev_log_id = append.previous.map(log_id_from_proto);
    let mut next = prev_log_id.map_or(Some(0), |id: LogId| id.index.checked_add(1));
    let mut entries = Vec::with_capacity(append.entries.len());
    for entry in append.entries {
        let entry = entry_from_proto(entry)?;
        if Some(entry.log_id.index) != next {
            return Err(Invalid("its entries do not follow each other"));
        }
        next = entry.log_id.index.checked_add(1);
        entries.push(entry);
    }
    let leader_commit = append.committed.map(log_id_from_proto);
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

pub(crate) fn vote_request_to_proto(
    hello: proto::RaftHello,
    group: u64,
    request: &VoteRequest<Types>,
) -> proto::RaftVoteRequest {
    proto::RaftVoteRequest {
        hello: Some(hello),
        group,
        vote: Some(vote_to_proto(&request.vote)),
        last: request.last_log_id.map(log_id_to_proto),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from_proto(
    request: proto::RaftVoteRequest,
) -> Result<VoteRequest<Types>, Invalid> {
    let vote = required_vote(request.vote)?;
    if vote.committed {
        return Err(Invalid("a candidate's vote cannot be committed yet"));
    }
    let mut decoded = VoteRequest::new(vote, request.last.map(log_id_from_proto));
    decoded.leadership_transfer = request.leadership_transfer;
    Ok(decoded)
}

pub(crate) fn vote_response_to_proto(response: VoteResponse<Types>) -> proto::RaftVoteResponse {
    proto::RaftVoteResponse {
        vote: Some(vote_to_proto(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.map(log_id_to_proto),
    }
}

pub(crate) fn vote_response_from_proto(
    response: proto::RaftVoteResponse,
) -> Result<VoteResponse<Types>, Invalid> {
    let vote = required_vote(response.vote)?;
    let last = response.last.map(log_id_from_proto);
    Ok(VoteResponse::new(vote, last, response.granted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(previous: u64, indexes: &[u64]) -> proto::RaftAppend {
        proto::RaftAppend {
            vote: Some(proto::RaftVote { term: 2, node: 1, committed: true }),
            previous: Some(proto::RaftLogId { term: 1, index: previous }),
            entries: indexes
                .iter()
                .map(|index| proto::RaftEntry { term: 2, index: *index, payload: None })
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn an_append_with_a_gap_is_refused() {
        assert!(append_from_proto(append(4, &[5, 6])).is_ok());
        assert!(append_from_proto(append(4, &[])).is_ok());
        assert!(append_from_proto(append(4, &[6])).is_err());
        assert!(append_from_proto(append(4, &[5, 7])).is_err());
        assert!(append_from_proto(append(u64::MAX, &[0])).is_err());
    }

    #[test]
    fn an_append_or_a_candidacy_with_the_wrong_kind_of_vote_is_refused() {
        let mut no_vote = append(4, &[5]);
        no_vote.vote = None;
        assert!(append_from_proto(no_vote).is_err());
        let mut uncommitted = append(4, &[5]);
        uncommitted.vote = Some(proto::RaftVote { term: 2, node: 1, committed: false });
        assert!(append_from_proto(uncommitted).is_err());
        let committed = proto::RaftVoteRequest {
            vote: Some(proto::RaftVote { term: 2, node: 1, committed: true }),
            ..Default::default()
        };
        assert!(vote_request_from_proto(committed).is_err());
    }

    #[test]
    fn a_membership_survives_the_wire() {
        let nodes = [(1, Member::grpc("a:1")), (2, Member::grpc("b:1")), (3, Member::grpc("c:1"))];
        let configs = vec![BTreeSet::from([1, 2]), BTreeSet::from([2])];
        let membership = Membership::new(configs, BTreeMap::from(nodes)).unwrap();
        let again = membership_from_proto(membership_to_proto(&membership)).unwrap();
        assert_eq!(again, membership);
        let empty = membership_from_proto(membership_to_proto(&Membership::default())).unwrap();
        assert_eq!(empty, Membership::default());
    }

    #[test]
    fn a_membership_with_an_unknown_voter_is_refused() {
        let contradictory = proto::RaftMembership {
            configs: vec![proto::RaftVoters { nodes: vec![9] }],
            members: vec![],
        };
        assert!(membership_from_proto(contradictory).is_err());
    }
}
