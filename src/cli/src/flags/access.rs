//! Credentials of client commands: TLS and the token of a role.

use std::path::PathBuf;

use clap::Args;

use keyviz_client::Access;
use keyviz_security::{ClientTls, Credentials, SecretFile, SecurityError};

/// The environment variable with the token itself. There is no such flag, because every user
/// of a machine can read command lines.
const TOKEN_VARIABLE: &str = "KEYVIZ_TOKEN";

/// The credential flags of client commands.
#[derive(Args, Clone, Debug, Default)]
pub struct AccessArgs {
    /// Use TLS and trust nodes signed by the CA in this PEM file; absent: plain text
    #[arg(long, env = "KEYVIZ_TLS_CA", value_name = "FILE", help_heading = "Connection")]
    tls_ca: Option<PathBuf>,
    /// Present the certificate in this PEM file; needs --tls-key and --tls-ca
    #[arg(
        long,
        env = "KEYVIZ_TLS_CERT",
        value_name = "FILE",
        requires_all = ["tls_key", "tls_ca"],
        help_heading = "Connection"
    )]
    tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert, PEM
    #[arg(
        long,
        env = "KEYVIZ_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert",
        help_heading = "Connection"
    )]
    tls_key: Option<PathBuf>,
    /// Present the token in the first line of this file, of the role that the command needs;
    /// absent: the token in the variable KEYVIZ_TOKEN, if any
    #[arg(long, env = "KEYVIZ_TOKEN_FILE", value_name = "FILE", help_heading = "Connection")]
    token_file: Option<PathBuf>,
}

impl AccessArgs {
    /// Reads the files.
    ///
    /// # Errors
    /// If a file cannot be used.
    pub fn open(&self) -> Result<Access, SecurityError> {
        let own = self.tls_cert.as_deref().zip(self.tls_key.as_deref());
        let tls = self.tls_ca.as_deref().map(|ca| ClientTls::open(ca, own)).transpose()?;
        let token = match (&self.token_file, std::env::var(TOKEN_VARIABLE)) {
            (Some(path), _) => Some(SecretFile::open("token", path)?),
            (None, Ok(token)) if !token.is_empty() => {
                Some(SecretFile::fixed("token", &token, TOKEN_VARIABLE)?)
            }
            (None, _) => None,
        };
        Ok(Access { tls, credentials: Credentials { secret: None, token } })
    }
}
