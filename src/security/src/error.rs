//! Why a credential cannot be used.

use std::path::PathBuf;

/// Why a credential cannot be used. Names the file, and never includes its content.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecurityError {
    /// The file does not exist or cannot be read.
    #[error("cannot read the {what} {}: {cause}", path.display())]
    Unreadable {
        /// The expected content.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        cause: String,
    },
    /// The file is empty.
    #[error("the {what} {} is empty", path.display())]
    Empty {
        /// The expected content.
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
        /// The expected content.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The file has no PEM section of the right kind.
    #[error("the {what} {} holds no {what} in PEM: {cause}", path.display())]
    Pem {
        /// The expected content.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The certificate and the key do not match, or cannot be used.
    #[error(
        "the certificate {} and the key {} cannot be used: {cause}",
        cert.display(),
        key.display()
    )]
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
    /// TLS files are missing.
    #[error("{given} needs {missing} beside it")]
    Incomplete {
        /// A flag that was given.
        given: &'static str,
        /// The flag that is missing.
        missing: &'static str,
    },
}
