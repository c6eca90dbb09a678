//! Who may call, and how that is shown: TLS, the admin token, the cluster secret.
//!
//! | caller | shows | is checked by |
//! |---|---|---|
//! | a client of the store | nothing | nobody |
//! | an administrator | the admin token, on each call | [`SecretFile::accepts`] |
//! | another node | a certificate of the CA that is good for a server too, or the cluster secret | [`CallerCertificate`], [`SecretFile::accepts`] |
//!
//! Everything comes from files and is read anew while the node runs ([`Security::watch`]): a new
//! token or secret holds from the next call on, a new certificate from the next connection on. What
//! does not work any more is refused at the start; later the former one stays and the log says why.
//!
//! Nothing here prints a secret: [`Secrets`] has no text form, errors name files.
//!
//! This layer knows TLS and HTTP headers, but no service by name: which call needs what is the
//! edge's to say.

mod channel;
mod connection;
mod connections;
mod error;
mod expiry;
mod listener;
mod plain;
mod secrets;
mod tls;
mod verdict;
mod watch;

pub use channel::{AuthChannel, Credentials, SECRET_HEADER, connect, connect_lazy};
pub use connection::{Caller, Connection};
pub use connections::{ConnectionCounts, ConnectionHandle, Connections, UnderWay};
pub use error::SecurityError;
pub use expiry::Validity;
pub use listener::{Edge, Listener};
pub use secrets::{SecretFile, Secrets};
pub use tls::{ClientTls, Tls, TlsFiles};
pub use verdict::CallerCertificate;
pub use watch::{Security, SecurityConfig};
