//! Authentication: TLS, the admin token and the cluster secret.
//!
//! | caller | credential | checked by |
//! |---|---|---|
//! | a client of the store | none | |
//! | an administrator | the admin token, on each call | [`SecretFile::accepts`] |
//! | another node | a certificate of the CA that is valid for servers | [`CallerCertificate`] |
//! | another node | the cluster secret | [`SecretFile::accepts`] |
//!
//! Credentials are files that are read again while the node runs ([`Security::watch`]): a new token
//! or secret takes effect with the next call, a new certificate with the next connection. An
//! unusable file stops the start of a node; later, the former content stays in force and the log
//! says why.
//!
//! No secret is ever printed: [`Secrets`] has no text form, and errors name files only.
//!
//! This crate knows TLS and HTTP headers but no service by name; the edge decides which call
//! requires which credential.

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
pub use connections::{ConnectionCounts, ConnectionHandle, Connections, Protocol, UnderWay};
pub use error::SecurityError;
pub use expiry::Validity;
pub use listener::Listener;
pub use secrets::{SecretFile, Secrets};
pub use tls::{ClientTls, Tls, TlsFiles};
pub use verdict::CallerCertificate;
pub use watch::{Security, SecurityConfig};
