//! How a client shows who it is.

use keyviz_security::{ClientTls, Credentials};

/// How a client shows who it is. By default it does not.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// TLS; `None`: plain text.
    pub tls: Option<ClientTls>,
    /// What each call shows.
    pub credentials: Credentials,
}
