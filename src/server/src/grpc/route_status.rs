//! The statuses of changes of the catalog that were not made.

use tonic::Status;
use tonic::metadata::MetadataValue;

use keyviz_catalog::{CatalogError, JournalError, MoveError};
use keyviz_catalog_group::CatalogChangeError;
use keyviz_proto::metadata::{DISK_FULL_METADATA, NOT_APPLIED_METADATA};

pub(crate) fn change_status(error: CatalogChangeError) -> Status {
    let message = error.to_string();
    let full = matches!(error, CatalogChangeError::DiskFull { .. });
    let mut status = match error {
        CatalogChangeError::Refused(refusal) => return refusal_status(&refusal),
        CatalogChangeError::MoveRefused(refusal) => return move_refusal_status(&refusal),
        CatalogChangeError::JournalRefused(refusal) => return journal_refusal_status(&refusal),
        CatalogChangeError::TooLarge { .. } => Status::invalid_argument(message),
        CatalogChangeError::NoLeader => Status::unavailable(message),
        CatalogChangeError::Overloaded | CatalogChangeError::DiskFull { .. } => {
            Status::resource_exhausted(message)
        }
        CatalogChangeError::Unknown { .. } => return Status::unknown(message),
        CatalogChangeError::Storage { .. } | CatalogChangeError::Undecodable { .. } => {
            return Status::internal(message);
        }
    };
    status.metadata_mut().insert(NOT_APPLIED_METADATA, MetadataValue::from_static("true"));
    if full {
        status.metadata_mut().insert(DISK_FULL_METADATA, MetadataValue::from_static("true"));
    }
    status
}

fn refusal_status(refusal: &CatalogError) -> Status {
    let message = refusal.to_string();
    let mut status = match refusal {
        CatalogError::WrongVersion { current, .. } => {
            let mut status = Status::aborted(message);
            status.metadata_mut().insert("keyviz-catalog-version", (*current).into());
            status
        }
        CatalogError::UnknownRoute { .. } | CatalogError::RetiredRoute { .. } => {
            Status::not_found(message)
        }
        CatalogError::NotNeighbours { .. }
        | CatalogError::AcrossGroups { .. }
        | CatalogError::Moving { .. }
        | CatalogError::AlreadyBootstrapped { .. } => Status::failed_precondition(message),
        CatalogError::NotBootstrapped => Status::unavailable(message),
        CatalogError::TooManyRoutes | CatalogError::TooManyBoundaryBytes => {
            Status::resource_exhausted(message)
        }
        CatalogError::Exhausted => Status::out_of_range(message),
        _ => Status::invalid_argument(message),
    };
    status.metadata_mut().insert(NOT_APPLIED_METADATA, MetadataValue::from_static("true"));
    status
}

fn move_refusal_status(refusal: &MoveError) -> Status {
    let message = refusal.to_string();
    let mut status = match refusal {
        MoveError::Route(refusal) => return refusal_status(refusal),
        MoveError::UnknownGroup { .. } => Status::not_found(message),
        MoveError::SameGroup { .. } | MoveError::RequestIdReused { .. } => {
            Status::invalid_argument(message)
        }
        MoveError::TooMany => Status::resource_exhausted(message),
        MoveError::Moving { .. }
        | MoveError::NotMoving { .. }
        | MoveError::NotUnderWay { .. }
        | MoveError::TooLate { .. }
        | MoveError::OutOfOrder { .. } => Status::failed_precondition(message),
    };
    status.metadata_mut().insert(NOT_APPLIED_METADATA, MetadataValue::from_static("true"));
    status
}

fn journal_refusal_status(refusal: &JournalError) -> Status {
    let message = refusal.to_string();
    let mut status = match refusal {
        JournalError::Catalog(refusal) => return refusal_status(refusal),
        JournalError::WrongRevision { .. } => Status::aborted(message),
        JournalError::UnknownEntry { .. } => Status::not_found(message),
        JournalError::RequestIdReused { .. } => Status::invalid_argument(message),
        JournalError::NotActing | JournalError::Ended { .. } | JournalError::UnderWay { .. } => {
            Status::failed_precondition(message)
        }
    };
    status.metadata_mut().insert(NOT_APPLIED_METADATA, MetadataValue::from_static("true"));
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyviz_types::{GroupId, RouteId};
    use tonic::Code;

    #[test]
    fn refusals_have_the_statuses_of_the_interface() {
        let id = RouteId::FIRST;
        let code = |refusal| refusal_status(&refusal).code();
        assert_eq!(code(CatalogError::UnknownRoute { route_id: id }), Code::NotFound);
        assert_eq!(code(CatalogError::KeyAtStart { route_id: id }), Code::InvalidArgument);
        let neighbours = CatalogError::NotNeighbours { left_id: id, right_id: id };
        assert_eq!(code(neighbours), Code::FailedPrecondition);
        assert_eq!(code(CatalogError::TooManyRoutes), Code::ResourceExhausted);
        assert_eq!(code(CatalogError::TooManyBoundaryBytes), Code::ResourceExhausted);
        let wrong = refusal_status(&CatalogError::WrongVersion { expected: 3, current: 7 });
        assert_eq!(wrong.code(), Code::Aborted);
        assert_eq!(wrong.metadata().get("keyviz-catalog-version").expect("set"), "7");
    }

    #[test]
    fn refused_moves_have_the_statuses_of_the_interface() {
        let (id, group) = (RouteId::FIRST, GroupId(9));
        let code = |refusal| move_refusal_status(&refusal).code();
        assert_eq!(code(MoveError::UnknownGroup { group }), Code::NotFound);
        assert_eq!(code(MoveError::SameGroup { route_id: id, group }), Code::InvalidArgument);
        assert_eq!(code(MoveError::TooMany), Code::ResourceExhausted);
        assert_eq!(code(MoveError::NotMoving { route_id: id }), Code::FailedPrecondition);
        let unknown = CatalogError::UnknownRoute { route_id: id };
        assert_eq!(code(MoveError::Route(unknown)), Code::NotFound);
    }
}
