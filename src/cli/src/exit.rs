//! Exit codes.

use std::process::ExitCode;

use tonic::Code;

use super::load::LoadError;
use super::{ApplyError, CallError, CliError, ExportError, ReplaceError, VerifyFindings};

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// It failed.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// The key, route, group or node does not exist.
    NotFound = 3,
    /// No node answered in time, or the cluster has no quorum.
    Unreachable = 4,
    /// A precondition does not hold, or the caller has no permission.
    Refused = 5,
    /// Part of it was done.
    Partial = 6,
    /// The reader of stdout went away: 128 plus the number of SIGPIPE, as a shell reports for a
    /// program that this signal ended.
    BrokenPipe = 141,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// The exit codes in the help.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  failed; the reason is on stderr
  2  wrong usage
  3  not found: a key (get, delete --expect-present), a route, a group or a node
  4  no node answered in time, or no quorum; a write may have happened where the message says so
  5  refused: a precondition does not hold (cas, --expected-version) or permission is missing
  6  done in part; stderr says how far";

impl CliError {
    /// The exit code of this failure.
    pub fn exit(&self) -> Exit {
        match self {
            CliError::Usage(_) => Exit::Usage,
            CliError::Call(error) | CliError::Load(LoadError::NoNode(error)) => of_call(error),
            CliError::NoSuchKey(_)
            | CliError::NoSuchRoute { .. }
            | CliError::NoSuchGroup(_)
            | CliError::Apply(ApplyError::NoSuchFinding(_)) => Exit::NotFound,
            CliError::NoLeader(_) => Exit::Unreachable,
            CliError::Replace(ReplaceError::NotAMember(_)) => Exit::NotFound,
            CliError::NotSwapped { .. }
            | CliError::MoveAbandoned { .. }
            | CliError::Apply(ApplyError::NoSuchRemedy { .. })
            | CliError::Replace(_)
            | CliError::NotConfirmed(_) => Exit::Refused,
            CliError::Verify(VerifyFindings::Incomplete { .. }) => Exit::Partial,
            CliError::InPart(_) | CliError::ScanCut { .. } | CliError::DeleteRangeCut { .. } => {
                Exit::Partial
            }
            CliError::Export(ExportError::OlderNode) => Exit::Refused,
            CliError::Output(error) | CliError::Export(ExportError::Output(error))
                if error.kind() == std::io::ErrorKind::BrokenPipe =>
            {
                Exit::BrokenPipe
            }
            _ => Exit::Failed,
        }
    }
}

fn of_call(error: &CallError) -> Exit {
    match error {
        CallError::NoNode(_) | CallError::Unknown { .. } => Exit::Unreachable,
        CallError::Refused { status, .. } => match status.code() {
            Code::NotFound => Exit::NotFound,
            Code::Unavailable | Code::DeadlineExceeded => Exit::Unreachable,
            Code::FailedPrecondition
            | Code::Aborted
            | Code::AlreadyExists
            | Code::OutOfRange
            | Code::PermissionDenied
            | Code::Unauthenticated => Exit::Refused,
            _ => Exit::Failed,
        },
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    #[test]
    fn each_kind_of_failure_has_its_code() {
        let refused = |code| {
            let address = "127.0.0.1:1".parse().expect("it is an address");
            let status = Box::new(Status::new(code, "no"));
            CliError::Call(CallError::Refused { address, status }).exit()
        };
        for (code, exit) in [
            (Code::NotFound, Exit::NotFound),
            (Code::Unavailable, Exit::Unreachable),
            (Code::FailedPrecondition, Exit::Refused),
            (Code::Aborted, Exit::Refused),
            (Code::Unauthenticated, Exit::Refused),
            (Code::PermissionDenied, Exit::Refused),
            (Code::InvalidArgument, Exit::Failed),
            (Code::ResourceExhausted, Exit::Failed),
            (Code::Internal, Exit::Failed),
        ] {
            assert_eq!(refused(code), exit, "{code:?}");
        }
        let nobody = || CallError::NoNode(Vec::new());
        assert_eq!(CliError::Call(nobody()).exit(), Exit::Unreachable);
        assert_eq!(CliError::Load(LoadError::NoNode(nobody())).exit(), Exit::Unreachable);
        assert_eq!(CliError::NoSuchKey("k".into()).exit(), Exit::NotFound);
        assert_eq!(CliError::InPart("half".into()).exit(), Exit::Partial);
        let full = CliError::Output(std::io::ErrorKind::StorageFull.into());
        assert_eq!(full.exit(), Exit::Failed);
        let closed = CliError::Output(std::io::ErrorKind::BrokenPipe.into());
        assert_eq!((closed.exit(), Exit::BrokenPipe as u8), (Exit::BrokenPipe, 141));
    }
}
