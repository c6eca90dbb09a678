//! Parts of ranges that move, as messages.

use keyviz_kv::{MoveChunk, MoveRead, NotePosition};
use keyviz_proto as proto;
use keyviz_proto::move_read_request::Part;
use keyviz_types::GroupId;

pub(crate) fn read_to_wire(
    cluster_id: String,
    group: GroupId,
    read: MoveRead,
) -> proto::MoveReadRequest {
    let (move_id, part) = match read {
        MoveRead::Rows { id, after, applied } => {
            (id, Part::Rows(proto::MoveRowsPart { after, applied }))
        }
        MoveRead::Noted { id, after } => {
            let NotePosition { index, part } = after;
            (id, Part::Noted(proto::MoveNotedPart { after_index: index, after_part: part }))
        }
    };
    proto::MoveReadRequest { cluster_id, group_id: group.0, move_id, part: Some(part) }
}

/// What is asked for; `None`: nothing.
pub fn read_from_wire(request: proto::MoveReadRequest) -> Option<MoveRead> {
    let id = request.move_id;
    Some(match request.part? {
        Part::Rows(proto::MoveRowsPart { after, applied }) => MoveRead::Rows { id, after, applied },
        Part::Noted(proto::MoveNotedPart { after_index, after_part }) => {
            MoveRead::Noted { id, after: NotePosition { index: after_index, part: after_part } }
        }
    })
}

/// A part as a message.
pub fn chunk_to_wire(chunk: MoveChunk) -> proto::MoveRows {
    let rows = chunk.rows.into_iter();
    proto::MoveRows {
        rows: rows.map(|(key, value)| proto::MoveRow { key, value }).collect(),
        bytes: chunk.bytes,
        last_key: chunk.last_key,
        last_index: chunk.last_note.index,
        last_part: chunk.last_note.part,
        more: chunk.more,
        sealed: chunk.sealed,
        overflowed: chunk.overflowed,
    }
}

pub(crate) fn chunk_from_wire(rows: proto::MoveRows) -> MoveChunk {
    MoveChunk {
        rows: rows.rows.into_iter().map(|row| (row.key, row.value)).collect(),
        bytes: rows.bytes,
        last_key: rows.last_key,
        last_note: NotePosition { index: rows.last_index, part: rows.last_part },
        more: rows.more,
        sealed: rows.sealed,
        overflowed: rows.overflowed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_part_of_a_move_survives_the_wire() {
        let key = Bytes::from_static(b"k");
        let after = NotePosition { index: 7, part: 2 };
        for read in [
            MoveRead::Rows { id: 3, after: None, applied: 9 },
            MoveRead::Rows { id: 3, after: Some(key.clone()), applied: 0 },
            MoveRead::Noted { id: 3, after },
        ] {
            let wire = read_to_wire(String::new(), GroupId(1), read.clone());
            assert_eq!(read_from_wire(wire), Some(read));
        }
        assert_eq!(read_from_wire(proto::MoveReadRequest::default()), None);
        let chunk = MoveChunk {
            rows: vec![(key.clone(), Some(Bytes::new())), (key.clone(), None)],
            bytes: 5,
            last_key: Some(key),
            last_note: after,
            more: true,
            sealed: true,
            overflowed: true,
        };
        assert_eq!(chunk_from_wire(chunk_to_wire(chunk.clone())), chunk);
    }
}
