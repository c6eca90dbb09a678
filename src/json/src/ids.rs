//! Ids of nodes, which users choose: any number of 64 bits.

use serde::{Serialize, Serializer};

/// The largest number that every reader of JSON reads exactly: 2^53 - 1.
const EXACT: u64 = (1 << 53) - 1;

/// The id of a node: a number, or its digits as text where readers would round the number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeIdJson(pub u64);

impl Serialize for NodeIdJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 <= EXACT {
            serializer.serialize_u64(self.0)
        } else {
            serializer.collect_str(&self.0)
        }
    }
}

/// Ids of nodes.
#[derive(Clone, Copy, Debug)]
pub struct NodeIdsJson<'a>(pub &'a [u64]);

impl Serialize for NodeIdsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|id| NodeIdJson(*id)))
    }
}
