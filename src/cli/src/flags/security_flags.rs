//! Credentials of a node: TLS, tokens of roles and the cluster secret.

use std::path::PathBuf;

use clap::Args;

use super::values;
use keyviz_security::{SecurityConfig, TlsFiles};

/// The flags.
#[derive(Args, Clone, Debug)]
pub struct SecurityArgs {
    /// Use TLS with the certificate in this PEM file, on both ports and to other nodes; needs
    /// --tls-key and --tls-ca. Changes of this file and of those below take effect while the node
    /// runs
    #[arg(
        long,
        env = "KEYVIZ_TLS_CERT",
        value_name = "FILE",
        requires_all = ["tls_key", "tls_ca"],
        help_heading = "Security"
    )]
    tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert, PEM
    #[arg(
        long,
        env = "KEYVIZ_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert",
        help_heading = "Security"
    )]
    tls_key: Option<PathBuf>,
    /// CA that signs all nodes, and clients that present a certificate, PEM
    #[arg(
        long,
        env = "KEYVIZ_TLS_CA",
        value_name = "FILE",
        requires = "tls_cert",
        help_heading = "Security"
    )]
    tls_ca: Option<PathBuf>,
    /// Require the token in this file to change routes or members, for heatmaps and for /api/; each
    /// line is an accepted token. An admin may do everything
    #[arg(long, env = "KEYVIZ_ADMIN_TOKEN_FILE", value_name = "FILE", help_heading = "Security")]
    admin_token_file: Option<PathBuf>,
    /// Tokens of operators, who may change routes and leaders, and all that viewers may; one a line
    #[arg(
        long,
        env = "KEYVIZ_OPERATOR_TOKEN_FILE",
        value_name = "FILE",
        requires = "admin_token_file",
        help_heading = "Security"
    )]
    operator_token_file: Option<PathBuf>,
    /// Tokens of viewers, who may read heatmaps, findings, routes and status; one a line
    #[arg(
        long,
        env = "KEYVIZ_VIEWER_TOKEN_FILE",
        value_name = "FILE",
        requires = "admin_token_file",
        help_heading = "Security"
    )]
    viewer_token_file: Option<PathBuf>,
    /// Require a token in this file, or the admin token, to read and write keys, and any token for
    /// routes and status; one a line
    #[arg(
        long,
        env = "KEYVIZ_STORE_TOKEN_FILE",
        value_name = "FILE",
        requires = "admin_token_file",
        help_heading = "Security"
    )]
    store_token_file: Option<PathBuf>,
    /// Accept calls from nodes that present the secret in this file, and present its first line to
    /// them; each line is an accepted secret
    #[arg(
        long,
        env = "KEYVIZ_CLUSTER_SECRET_FILE",
        value_name = "FILE",
        help_heading = "Security"
    )]
    cluster_secret_file: Option<PathBuf>,
    /// Allow listening beyond loopback without TLS or admin token
    #[arg(
        long,
        env = "KEYVIZ_INSECURE",
        value_parser = values::yes_or_no,
        help_heading = "Security"
    )]
    pub(crate) insecure: bool,
}

impl SecurityArgs {
    /// The files that they name.
    pub(crate) fn config(&self) -> SecurityConfig {
        let tls = match (&self.tls_cert, &self.tls_key, &self.tls_ca) {
            (Some(cert), Some(key), Some(ca)) => {
                Some(TlsFiles { cert: cert.clone(), key: key.clone(), ca: ca.clone() })
            }
            // The parser has seen to it that none is given alone.
            _ => None,
        };
        SecurityConfig {
            tls,
            admin_token: self.admin_token_file.clone(),
            operator_token: self.operator_token_file.clone(),
            viewer_token: self.viewer_token_file.clone(),
            store_token: self.store_token_file.clone(),
            cluster_secret: self.cluster_secret_file.clone(),
        }
    }
}
