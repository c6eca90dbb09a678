//! Why a credential cannot be used.

use std::path::PathBuf;

/// A credential that cannot be used. Names the file, and never says what is in it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecurityError {
    /// The file is not there, or may not be read.
    #[error("cannot read the {what} {}: {cause}", path.display())]
    Unreadable {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The file has nothing in it.
    #[error("the {what} {} is empty", path.display())]
    Empty {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A line that cannot be sent in a header, or too many of them.
    #[error(
        "the {what} {}, line {line}: {reason}; a line holds one secret of visible ASCII characters \
         without spaces",
        path.display()
    )]
    Line {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// No PEM of the right kind.
    #[error("the {what} {} holds no {what} in PEM: {cause}", path.display())]
    Pem {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// Certificate and key do not go together, or cannot be used.
    #[error("the certificate {} and the key {} cannot be used: {cause}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A certificate that other nodes would refuse.
    #[error("the certificate {} is refused under the CA {}: {cause}", cert.display(), ca.display())]
    Chain {
        /// The certificate's file.
        cert: PathBuf,
        /// The CA's file.
        ca: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// Half of what TLS needs.
    #[error("{given} needs {missing} beside it")]
    Incomplete {
        /// A flag that was given.
        given: &'static str,
        /// The flag that is missing.
        missing: &'static str,
    },
}
