//! The message of a batch, decoded by hand: eight million empty operations fit into 16 MiB on the
//! wire and would take over a gigabyte in memory, before anybody could refuse them. Elements beyond
//! the limit of a batch are skipped, so that they use no memory.

use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, message, skip_field};
use prost::{DecodeError, Message};

use super::BatchOperation;

/// Operations that are kept: one more than a batch may have, so that it is known to have too many.
pub const BATCH_OPERATIONS_KEPT: usize = 1_025;

/// Operations that are applied together; see `kv.proto`.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct BatchRequest {
    /// The operations; of a message that was decoded at most [`BATCH_OPERATIONS_KEPT`].
    pub operations: Vec<BatchOperation>,
}

const OPERATIONS: u32 = 1;

impl Message for BatchRequest {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        message::encode_repeated(OPERATIONS, &self.operations, buffer);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != OPERATIONS {
            return skip_field(wire_type, tag, buffer, context);
        }
        if self.operations.len() == BATCH_OPERATIONS_KEPT {
            // It is refused for what is there. The rest is not worth reading.
            buffer.advance(buffer.remaining());
            return Ok(());
        }
        let read = message::merge_repeated(wire_type, &mut self.operations, buffer, context);
        read.map_err(|mut error| {
            error.push("BatchRequest", "operations");
            error
        })
    }

    fn encoded_len(&self) -> usize {
        message::encoded_len_repeated(OPERATIONS, &self.operations)
    }

    fn clear(&mut self) {
        self.operations.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch_operation::Operation;
    use crate::{DeleteRequest, PutRequest};

    #[test]
    fn a_batch_reads_as_it_was_written() {
        let put = PutRequest { key: "k".into(), value: "v".into() };
        let delete = DeleteRequest { key: "d".into() };
        let operations = [Operation::Put(put), Operation::Delete(delete)]
            .map(|operation| BatchOperation { operation: Some(operation) });
        let batch = BatchRequest { operations: operations.to_vec() };
        let bytes = batch.encode_to_vec();
        assert_eq!(bytes.len(), batch.encoded_len());
        assert_eq!(BatchRequest::decode(bytes.as_slice()), Ok(batch));
        // A field of a later version is passed over; what is cut short is an error.
        let later = [&bytes[..], &[0x10, 7]].concat();
        assert!(BatchRequest::decode(later.as_slice()).is_ok());
        assert!(BatchRequest::decode(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn bounds_more_operations_than_a_batch_may_have_take_no_memory() {
        let empty = [0x0a, 0x00].repeat(4 << 20);
        let batch = BatchRequest::decode(empty.as_slice()).expect("it is a message");
        assert_eq!(batch.operations.len(), BATCH_OPERATIONS_KEPT);
        assert!(batch.operations.capacity() <= 2 * BATCH_OPERATIONS_KEPT);
    }
}
