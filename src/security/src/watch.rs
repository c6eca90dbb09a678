//! All credentials of a node, and their rotation.

use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use tokio_util::sync::CancellationToken;

use super::channel::Credentials;
use super::connections::Connections;
use super::error::SecurityError;
use super::expiry::{Reminder, Validity};
use super::secrets::SecretFile;
use super::tls::{ClientTls, Tls, TlsFiles};

/// Interval at which the files are read. Reading a few small cached files takes some ten
/// microseconds, and unlike modification times the contents are reliable.
const READ_EVERY: Duration = Duration::from_secs(1);

/// The credential files of a node. By default there are none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SecurityConfig {
    /// TLS on both ports and between nodes.
    pub tls: Option<TlsFiles>,
    /// The admin token, one accepted token per line.
    pub admin_token: Option<PathBuf>,
    /// The same for operators.
    pub operator_token: Option<PathBuf>,
    /// The same for viewers.
    pub viewer_token: Option<PathBuf>,
    /// The same for those who read and write keys.
    pub store_token: Option<PathBuf>,
    /// The cluster secret, one accepted secret per line.
    pub cluster_secret: Option<PathBuf>,
}

/// A node's credentials. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// TLS; `None`: plain text.
    pub tls: Option<Tls>,
    /// The admin token; `None`: none is required.
    pub admin_token: Option<SecretFile>,
    /// The token of operators; `None`: nobody has this role.
    pub operator_token: Option<SecretFile>,
    /// The token of viewers; `None`: nobody has this role.
    pub viewer_token: Option<SecretFile>,
    /// The token for keys and values; `None`: none is required.
    pub store_token: Option<SecretFile>,
    /// The cluster secret; `None`: none is required. With an admin token and neither a secret nor
    /// TLS, what follows from the token.
    pub cluster_secret: Option<SecretFile>,
    /// The connections of callers.
    pub connections: Connections,
}

impl Security {
    /// Reads the files. Blocking.
    ///
    /// # Errors
    /// If a file cannot be used.
    pub fn open(config: &SecurityConfig) -> Result<Self, SecurityError> {
        let secret = |what, path: &Option<PathBuf>| {
            path.as_deref().map(|path| SecretFile::open(what, path)).transpose()
        };
        let tls = config.tls.as_ref().map(Tls::open).transpose()?;
        let admin_token = secret("admin token", &config.admin_token)?;
        let operator_token = secret("operator token", &config.operator_token)?;
        let viewer_token = secret("viewer token", &config.viewer_token)?;
        let store_token = secret("store token", &config.store_token)?;
        let mut cluster_secret = secret("cluster secret", &config.cluster_secret)?;
        if tls.is_none() && cluster_secret.is_none() {
            // A caller that may not change members without the token may not impersonate one
            // either.
            let token = admin_token.as_ref();
            cluster_secret = token.map(|token| token.derive("node secret of the admin token"));
        }
        let connections = Connections::default();
        Ok(Security {
            tls,
            admin_token,
            operator_token,
            viewer_token,
            store_token,
            cluster_secret,
            connections,
        })
    }

    /// The files of tokens.
    pub fn tokens(&self) -> impl Iterator<Item = &Option<SecretFile>> {
        [&self.admin_token, &self.operator_token, &self.viewer_token, &self.store_token].into_iter()
    }

    /// Whether there is nothing to read again.
    pub fn is_open(&self) -> bool {
        self.tls.is_none() && self.cluster_secret.is_none() && self.tokens().all(Option::is_none)
    }

    /// The credentials that this node presents to others.
    pub fn as_node(&self) -> Credentials {
        Credentials { secret: self.cluster_secret.clone(), token: None }
    }

    /// The credentials that this node presents when it joins.
    pub fn as_joiner(&self) -> Credentials {
        Credentials { secret: self.cluster_secret.clone(), token: self.admin_token.clone() }
    }

    /// The TLS settings for calls to other nodes.
    pub fn client_tls(&self) -> Option<ClientTls> {
        self.tls.as_ref().map(Tls::client)
    }

    /// Reads the files again, and applies those that are usable. Blocking.
    ///
    /// # Errors
    /// One for each file that cannot be used; its former content stays in force.
    pub fn reload(&self) -> Result<(), Vec<SecurityError>> {
        let secrets = self.tokens().chain([&self.cluster_secret]).flatten();
        let secrets = secrets.map(|file| (file.describe(), file.reload()));
        let tls = self.tls.iter().map(|tls| (tls.describe(), tls.reload()));
        let mut errors = Vec::new();
        for (what, reloaded) in secrets.chain(tls) {
            match reloaded {
                Ok(true) => tracing::info!("took over the changed {what}"),
                Ok(false) => {}
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Follows the files until stopped.
    pub async fn watch(self, stop: CancellationToken) {
        if self.is_open() {
            return;
        }
        let mut told = Vec::new();
        let mut reminder = Reminder::default();
        self.remind(&mut reminder);
        while tokio::time::timeout(READ_EVERY, stop.cancelled()).await.is_err() {
            let security = self.clone();
            let reloaded = tokio::task::spawn_blocking(move || security.reload()).await;
            let errors = match reloaded {
                Ok(Err(errors)) => errors,
                Ok(Ok(())) => Vec::new(),
                // The runtime is shutting down.
                Err(_) => return,
            };
            for error in errors.iter().filter(|error| !told.contains(*error)) {
                tracing::error!("{error}; the previous credentials stay in force");
            }
            told = errors;
            self.remind(&mut reminder);
        }
    }

    /// A warning about the certificate; `None`: nothing.
    pub fn warning(&self) -> Option<String> {
        Validity::at(UnixTime::now().as_secs(), self.tls.as_ref()?.ends_at()?).warning()
    }

    fn remind(&self, reminder: &mut Reminder) {
        let Some(tls) = &self.tls else { return };
        let Some(end) = tls.ends_at() else { return };
        if let Some(said) = reminder.due(UnixTime::now().as_secs(), end) {
            tracing::warn!("{said} ({})", tls.describe());
        }
    }
}
