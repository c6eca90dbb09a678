//! Settings of a client.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::client::{Client, Settings};
use super::error::Error;
use super::nodes::access::Access;
use super::nodes::address::Address;
use keyviz_security::{ClientTls, Credentials, SecretFile};

/// Longest time of an operation, unless [`ClientBuilder::deadline`] says otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for one node's answer to a read, unless [`ClientBuilder::timeout`] says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// Settings of a [`Client`]. Files are read by [`ClientBuilder::build`], and again once a second
/// while the client is used, so that certificates and tokens can be replaced under it.
///
/// ```no_run
/// # fn example() -> Result<(), keyviz_client::Error> {
/// use keyviz_client::Client;
///
/// let client = Client::builder()
///     .nodes(["node1.example.net:7401", "node2.example.net:7401"])
///     .tls_ca("/etc/keyviz/ca.pem")
///     .token_file("/etc/keyviz/admin-token")
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    nodes: Vec<String>,
    tls_ca: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
    token: Option<Token>,
    access: Option<Access>,
    settings: Settings,
}

#[derive(Clone)]
enum Token {
    File(PathBuf),
    Text(String),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::File(path) => write!(f, "File({})", path.display()),
            Token::Text(_) => f.write_str("Text(..)"),
        }
    }
}

impl Default for ClientBuilder {
    fn default() -> Self {
        ClientBuilder {
            nodes: Vec::new(),
            tls_ca: None,
            certificate: None,
            token: None,
            access: None,
            settings: Settings {
                timeout: DEFAULT_TIMEOUT,
                deadline: Some(DEFAULT_DEADLINE),
                leader_hints: true,
            },
        }
    }
}

impl Client {
    /// Settings of a new client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A client with default settings for the nodes at `addresses`, such as
    /// `["10.0.0.1:7401", "10.0.0.2:7401"]`. No connection is made yet.
    ///
    /// # Errors
    /// Where an address is not `HOST:PORT`, or there is none.
    pub fn new<A: AsRef<str>>(addresses: impl IntoIterator<Item = A>) -> Result<Self, Error> {
        Self::builder().nodes(addresses).build()
    }
}

impl ClientBuilder {
    /// gRPC addresses of nodes, `HOST:PORT` each. An IPv6 address needs brackets. A client needs
    /// one; with several it goes on while some of them are down. May be called repeatedly.
    pub fn nodes<A: AsRef<str>>(mut self, addresses: impl IntoIterator<Item = A>) -> Self {
        self.nodes.extend(addresses.into_iter().map(|address| address.as_ref().to_owned()));
        self
    }

    /// Uses TLS and trusts nodes whose certificates the CA in this PEM file signed.
    pub fn tls_ca(mut self, ca: impl Into<PathBuf>) -> Self {
        self.tls_ca = Some(ca.into());
        self
    }

    /// Presents the certificate in this PEM file, with its private key. Needs
    /// [`ClientBuilder::tls_ca`].
    pub fn certificate(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.certificate = Some((cert.into(), key.into()));
        self
    }

    /// Presents the admin token in the first line of this file.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = Some(Token::File(path.into()));
        self
    }

    /// Presents this admin token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Token::Text(token.into()));
        self
    }

    /// Uses these credentials rather than those of the methods above.
    pub fn access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    /// Longest wait for one node's answer to a read, after which another node is asked. 3 s by
    /// default. A write waits until the deadline.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Longest time of an operation with all its attempts. 10 s by default. For a stream (a scan,
    /// columns, a watch) it is the time to open it, or to open it again.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = Some(deadline);
        self
    }

    /// Asks each node at most once per operation, in the order given, without leader hints. Each
    /// may take the whole [`ClientBuilder::timeout`]. For commands that should fail early.
    pub fn single_pass(mut self) -> Self {
        self.settings.deadline = None;
        self.settings.leader_hints = false;
        self
    }

    /// Makes the client. No connection is made yet.
    ///
    /// # Errors
    /// Where an address is not `HOST:PORT`, there is none, or a file cannot be used.
    pub fn build(self) -> Result<Client, Error> {
        let address = |text: &String| {
            text.parse::<Address>()
                .map_err(|source| Error::Address { address: text.clone(), source })
        };
        let addresses = self.nodes.iter().map(address).collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            return Err(Error::NoAddress);
        }
        let access = match &self.access {
            Some(access) => access.clone(),
            None => self.open()?,
        };
        Ok(Client::of(addresses, access, self.settings))
    }

    fn open(&self) -> Result<Access, Error> {
        let own = self.certificate.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
        let open = |ca: &Path| ClientTls::open(ca, own);
        let tls = self.tls_ca.as_deref().map(open).transpose()?;
        let token = self.token.as_ref().map(|token| match token {
            Token::File(path) => SecretFile::open("token", path),
            Token::Text(text) => SecretFile::fixed("token", text, "of this client"),
        });
        Ok(Access { tls, credentials: Credentials { secret: None, token: token.transpose()? } })
    }
}
