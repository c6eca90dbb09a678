//! Names of metadata.

/// Metadata of a refused write: `true` if it certainly did not happen, so that a client may send it
/// again.
pub const NOT_APPLIED_METADATA: &str = "keyviz-not-applied";

/// Metadata of an answer: the gRPC address of the leader of the key's group, if another node
/// answers. A client that sends its next request there saves a forwarding.
pub const LEADER_METADATA: &str = "keyviz-leader";

/// Metadata of a range delete that failed on its way: how many keys it deleted, as a decimal
/// number.
pub const DELETED_METADATA: &str = "keyviz-deleted";

/// Metadata of a range delete that failed on its way: the key to go on from. Everything before it
/// is deleted.
pub const NEXT_METADATA: &str = "keyviz-next-bin";

/// Metadata of a write that was refused because a disk is full.
pub const DISK_FULL_METADATA: &str = "keyviz-disk-full";

/// Metadata and HTTP header that carry the id of a request.
pub const REQUEST_ID: &str = "x-request-id";

/// Metadata of a status that was made because a message did not decode.
pub const MALFORMED_METADATA: &str = "keyviz-malformed";
