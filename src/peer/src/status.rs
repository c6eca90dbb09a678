//! Maps errors of the layers below to gRPC statuses, and statuses of peers back to errors.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use keyviz_kv::{InvalidRequest, KvError};
use keyviz_proto::metadata::{
    DELETED_METADATA, DISK_FULL_METADATA, NEXT_METADATA, NOT_APPLIED_METADATA,
};
use keyviz_types::GroupId;

/// The status that a client sees.
pub fn kv_status(error: KvError) -> Status {
    let mut status = Status::new(kv_code(&error), error.to_string());
    if error.not_applied() {
        status.metadata_mut().insert(NOT_APPLIED_METADATA, MetadataValue::from_static("true"));
    }
    match error {
        KvError::DiskFull { .. } => {
            status.metadata_mut().insert(DISK_FULL_METADATA, MetadataValue::from_static("true"));
        }
        KvError::RangeCut { deleted, next, .. } => {
            status.metadata_mut().insert(DELETED_METADATA, deleted.into());
            status.metadata_mut().insert_bin(NEXT_METADATA, MetadataValue::from_bytes(&next));
        }
        _ => {}
    }
    status
}

fn kv_code(error: &KvError) -> Code {
    match error {
        KvError::Invalid(_) => Code::InvalidArgument,
        KvError::CrossGroup { .. } => Code::FailedPrecondition,
        KvError::NotReady
        | KvError::Removed { .. }
        | KvError::Refused { .. }
        | KvError::NoLeader { .. }
        | KvError::ReadUnavailable { .. }
        | KvError::Moving { .. } => Code::Unavailable,
        KvError::Overloaded { .. } | KvError::Busy { .. } | KvError::DiskFull { .. } => {
            Code::ResourceExhausted
        }
        KvError::UnknownOutcome { .. } => Code::Unknown,
        KvError::Storage { .. } => Code::Internal,
        KvError::Undecodable { .. } => Code::Internal,
        KvError::RangeCut { cause, .. } => kv_code(cause),
    }
}

/// Why a request is invalid.
pub fn invalid(error: InvalidRequest) -> Status {
    kv_status(KvError::Invalid(error))
}

/// Whether the status says that the write certainly did not happen.
pub fn is_not_applied(status: &Status) -> bool {
    status.metadata().get(NOT_APPLIED_METADATA).is_some_and(|value| value == "true")
}

/// Whether the status says that a disk is full.
pub fn is_disk_full(status: &Status) -> bool {
    status.metadata().contains_key(DISK_FULL_METADATA)
}

/// The meaning of a peer's refusal of a write to `group`.
pub(crate) fn peer_refusal(group: GroupId, status: &Status) -> KvError {
    let reason = status.message().to_owned();
    if is_not_applied(status) && is_disk_full(status) {
        let reason = reason.trim_start_matches("the write was refused: ").to_owned();
        return KvError::DiskFull { reason };
    }
    match status.code() {
        Code::ResourceExhausted if is_not_applied(status) => KvError::Overloaded { group },
        Code::Internal => KvError::Storage { reason },
        _ if is_not_applied(status) => KvError::NoLeader { group },
        _ => KvError::UnknownOutcome { group, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(3);

    #[test]
    fn an_unknown_outcome_never_says_that_nothing_happened() {
        let error = KvError::UnknownOutcome { group: GROUP, reason: "cut".to_owned() };
        let status = kv_status(error);
        assert_eq!(status.code(), Code::Unknown);
        assert!(!is_not_applied(&status));
        assert!(matches!(peer_refusal(GROUP, &status), KvError::UnknownOutcome { .. }));
    }

    #[test]
    fn a_range_delete_that_was_cut_says_how_far_it_came_and_never_that_nothing_happened() {
        let cut = |cause| KvError::RangeCut {
            deleted: 7,
            next: bytes::Bytes::from_static(b"m\x00"),
            cause: Box::new(cause),
        };
        let full = KvError::DiskFull { reason: "the disk of /data is full".to_owned() };
        let unknown = KvError::UnknownOutcome { group: GROUP, reason: "cut".to_owned() };
        for (cause, code) in [
            (KvError::NoLeader { group: GROUP }, Code::Unavailable),
            (KvError::Overloaded { group: GROUP }, Code::ResourceExhausted),
            (full, Code::ResourceExhausted),
            (KvError::NotReady, Code::Unavailable),
            (unknown, Code::Unknown),
        ] {
            let status = kv_status(cut(cause));
            assert_eq!(status.code(), code);
            assert!(!is_not_applied(&status) && !status.message().contains("nothing was changed"));
            assert!(status.message().contains("7 keys were deleted, all before \"m\\x00\""));
            let metadata = status.metadata();
            assert_eq!(metadata.get(DELETED_METADATA).expect("it says how many"), "7");
            let next = metadata.get_bin(NEXT_METADATA).expect("it says where to go on");
            assert_eq!(next.to_bytes().expect("it is encoded").as_ref(), b"m\x00");
        }
    }

    #[test]
    fn a_definite_refusal_survives_the_way_through_a_peer() {
        let overloaded = kv_status(KvError::Overloaded { group: GROUP });
        assert!(is_not_applied(&overloaded));
        assert_eq!(peer_refusal(GROUP, &overloaded), KvError::Overloaded { group: GROUP });
        let full = KvError::DiskFull { reason: "the disk of /data is full".to_owned() };
        assert_eq!(kv_status(full.clone()).code(), Code::ResourceExhausted);
        assert_eq!(peer_refusal(GROUP, &kv_status(full.clone())), full);
        let removed = kv_status(KvError::Removed { node: keyviz_types::NodeId(4) });
        assert_eq!(removed.code(), Code::Unavailable, "another node will serve it");
        assert!(is_not_applied(&removed));
        let not_ready = kv_status(KvError::NotReady);
        assert_eq!(not_ready.code(), Code::Unavailable);
        assert_eq!(peer_refusal(GROUP, &not_ready), KvError::NoLeader { group: GROUP });
    }

    #[test]
    fn a_status_without_a_word_about_the_write_is_an_unknown_outcome() {
        let status = Status::new(Code::Unavailable, "the stream broke");
        assert!(matches!(peer_refusal(GROUP, &status), KvError::UnknownOutcome { .. }));
    }
}
