//! The parameters of a bootstrap, which all first members share.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use keyviz_types::NodeId;

/// The same on every first member.
#[derive(Clone, PartialEq, Eq, Debug, bincode::Encode, bincode::Decode)]
pub struct BootstrapSpec {
    members: BTreeMap<u64, String>,
    groups: u64,
    replication: u64,
    split_at: Vec<Vec<u8>>,
}

/// Bootstrap flags that make no cluster.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BootstrapSpecError {
    /// Nobody.
    #[error("--bootstrap names no member; write 1=host:port,2=host:port,...")]
    NoMembers,
    /// Node 0.
    #[error("--bootstrap names node 0; node ids start at 1")]
    ZeroId,
    /// One address twice.
    #[error("--bootstrap gives nodes {first} and {second} the same address {address}")]
    SharedAddress {
        /// A node.
        first: u64,
        /// Another.
        second: u64,
        /// Their address.
        address: String,
    },
    /// This node is not in the list.
    #[error("--bootstrap does not name this node ({id}); it must list every first member")]
    NotAMember {
        /// This node.
        id: NodeId,
    },
    /// Advertised elsewhere than listed.
    #[error(
        "--bootstrap says that node {id} is at {listed}, but it is advertised at {advertised}; \
         make them the same"
    )]
    OtherAddress {
        /// This node.
        id: NodeId,
        /// In the list.
        listed: String,
        /// By its own flags.
        advertised: String,
    },
}

impl BootstrapSpec {
    /// Checks the members; the rest is checked when groups are placed.
    pub fn new(
        members: BTreeMap<NodeId, String>,
        groups: u64,
        replication: u64,
        split_at: Vec<Bytes>,
    ) -> Result<Self, BootstrapSpecError> {
        if members.is_empty() {
            return Err(BootstrapSpecError::NoMembers);
        }
        if members.contains_key(&NodeId(0)) {
            return Err(BootstrapSpecError::ZeroId);
        }
        let mut by_address: BTreeMap<&String, NodeId> = BTreeMap::new();
        for (id, address) in &members {
            if let Some(first) = by_address.insert(address, *id) {
                return Err(BootstrapSpecError::SharedAddress {
                    first: first.0,
                    second: id.0,
                    address: address.clone(),
                });
            }
        }
        let mut split_at: Vec<Vec<u8>> = split_at.into_iter().map(Vec::from).collect();
        split_at.sort();
        Ok(BootstrapSpec {
            members: members.into_iter().map(|(id, address)| (id.0, address)).collect(),
            groups,
            replication,
            split_at,
        })
    }

    /// The first members and their gRPC addresses.
    pub fn members(&self) -> BTreeMap<NodeId, String> {
        self.members.iter().map(|(id, address)| (NodeId(*id), address.clone())).collect()
    }

    /// Number of data groups.
    pub fn groups(&self) -> u64 {
        self.groups
    }

    /// Replicas of each data group.
    pub fn replication(&self) -> u64 {
        self.replication
    }

    /// Boundaries between the first routes, ascending.
    pub fn split_at(&self) -> &[Vec<u8>] {
        &self.split_at
    }

    /// Checks that the list has `id` with its advertised address.
    pub fn check_member(&self, id: NodeId, advertised: &str) -> Result<(), BootstrapSpecError> {
        match self.members.get(&id.0) {
            None => Err(BootstrapSpecError::NotAMember { id }),
            Some(listed) if listed != advertised => Err(BootstrapSpecError::OtherAddress {
                id,
                listed: listed.clone(),
                advertised: advertised.to_owned(),
            }),
            Some(_) => Ok(()),
        }
    }
}

impl fmt::Display for BootstrapSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<String> =
            self.members.iter().map(|(id, address)| format!("{id}={address}")).collect();
        write!(
            f,
            "members {}, {} groups, replication {}, {} split keys",
            members.join(","),
            self.groups,
            self.replication,
            self.split_at.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(list: &[(u64, &str)]) -> BTreeMap<NodeId, String> {
        list.iter().map(|(id, address)| (NodeId(*id), (*address).to_owned())).collect()
    }

    #[test]
    fn bad_member_lists_are_refused_with_the_reason() {
        let spec = |list: &[(u64, &str)]| BootstrapSpec::new(members(list), 1, 3, vec![]);
        assert_eq!(spec(&[]), Err(BootstrapSpecError::NoMembers));
        assert_eq!(spec(&[(0, "a:1")]), Err(BootstrapSpecError::ZeroId));
        assert_eq!(
            spec(&[(1, "a:1"), (2, "a:1")]),
            Err(BootstrapSpecError::SharedAddress {
                first: 1,
                second: 2,
                address: "a:1".to_owned()
            })
        );
        let good = spec(&[(1, "a:1"), (2, "a:2")]).expect("two members");
        assert_eq!(good.check_member(NodeId(2), "a:2"), Ok(()));
        assert!(good.check_member(NodeId(3), "a:3").is_err());
        assert!(good.check_member(NodeId(2), "a:3").is_err());
    }

    #[test]
    fn the_order_of_split_keys_does_not_matter() {
        let spec = |keys: &[&'static str]| {
            let keys = keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
            BootstrapSpec::new(members(&[(1, "a:1")]), 2, 1, keys)
        };
        assert_eq!(spec(&["b", "a"]), spec(&["a", "b"]));
    }
}
