//! The statuses of what is not answered to peers.

use tonic::Status;

use keyviz_core::copies::CopyError;
use keyviz_fanout::{CopyAnswerError, WorkError};

use crate::grpc::keyviz::matrix_status;

pub(super) fn work_status(error: WorkError) -> Status {
    matrix_status(error.into())
}

pub(super) fn copy_status(error: &CopyError) -> Status {
    let message = error.to_string();
    match error {
        CopyError::Closed { .. } => Status::unavailable(message),
        CopyError::Own(_) | CopyError::Step { .. } | CopyError::Stale { .. } => {
            Status::failed_precondition(message)
        }
        CopyError::Unborn { .. } | CopyError::Future { .. } | CopyError::Interval { .. } => {
            Status::invalid_argument(message)
        }
        CopyError::Damaged { .. } => Status::data_loss(message),
        CopyError::TooLarge { .. } | CopyError::TooManyNodes { .. } => {
            Status::resource_exhausted(message)
        }
        CopyError::Store(_) => Status::internal(message),
    }
}

/// The status of an answer in another's name that there is not.
pub(super) fn answer_status(error: CopyAnswerError) -> Status {
    match error {
        CopyAnswerError::NoCopy(_) => Status::not_found(error.to_string()),
        CopyAnswerError::Copies(error) => copy_status(&error),
        CopyAnswerError::Work(error) => work_status(error),
        CopyAnswerError::HotKeysOff => Status::unavailable(error.to_string()),
    }
}
