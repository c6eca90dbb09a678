//! Replies of the catalog's state machine as bytes.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};
use bytes::Bytes;

/// A reply names at most three routes, whose keys have at most 4 KiB each.
const MAX_REPLY_BYTES: usize = 64 << 10;

/// Bytes that are no reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplyError {
    /// They end early, or encode no known reply.
    #[error("a reply of the catalog cannot be decoded: {0}")]
    Undecodable(#[from] bincode::error::DecodeError),
    /// There are more of them.
    #[error("{bytes} bytes after a reply of the catalog")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

fn config() -> Configuration<LittleEndian, Varint, Limit<MAX_REPLY_BYTES>> {
    bincode::config::standard().with_limit()
}

/// The bytes of a reply.
pub(super) fn encode<T: Encode>(reply: &T) -> Bytes {
    let bytes = bincode::encode_to_vec(reply, config());
    Bytes::from(bytes.expect("a reply is small and encodes into memory"))
}

/// The reply of these bytes.
pub(super) fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, ReplyError> {
    let (reply, used) = bincode::decode_from_slice(bytes, config())?;
    match bytes.len() - used {
        0 => Ok(reply),
        bytes => Err(ReplyError::Trailing { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use keyviz_catalog::DiskError;

    use super::*;

    #[test]
    fn a_reply_comes_back_and_more_or_fewer_bytes_are_refused() {
        let reply: Result<u64, DiskError> = Ok(300);
        let mut bytes = encode(&reply).to_vec();
        let decoded: Result<u64, DiskError> = decode(&bytes).expect("it was encoded");
        assert_eq!(decoded, reply);
        bytes.push(0);
        let decoded = decode::<Result<u64, DiskError>>(&bytes);
        assert!(matches!(decoded, Err(ReplyError::Trailing { bytes: 1 })));
        let decoded = decode::<Result<u64, DiskError>>(&bytes[..1]);
        assert!(matches!(decoded, Err(ReplyError::Undecodable(_))));
    }
}
