//! The credentials of a client.

use keyviz_security::{ClientTls, Credentials, SecurityError};

/// The credentials of a client. By default there are none.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// TLS; `None`: plain text.
    pub tls: Option<ClientTls>,
    /// Headers of each call.
    pub credentials: Credentials,
}

impl Access {
    /// Whether anything comes from files, which may change.
    pub(crate) fn has_files(&self) -> bool {
        self.tls.is_some() || self.credentials.token.is_some()
    }

    /// Reads the files again. A new token is used by the next call. Returns whether certificates
    /// changed, which takes new connections. Blocks on the files.
    pub(crate) fn reload(&self) -> Result<bool, SecurityError> {
        if let Some(token) = &self.credentials.token {
            token.reload()?;
        }
        self.tls.as_ref().map_or(Ok(false), ClientTls::reload)
    }
}
