//! TLS settings from files, for serving and for outgoing calls.
//!
//! The settings are replaced as a whole when a file changes. A connection keeps the settings that
//! it was made with.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::error::SecurityError;
use super::expiry;
use super::secrets::{read, warn_if_readable_by_others};
use super::verdict::{AskForCertificate, Judge, reason};

const CERTIFICATE: &str = "certificate";
const KEY: &str = "private key";
const CA: &str = "CA certificate";

/// The files of a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// PEM: the own certificate, with its intermediates.
    pub cert: PathBuf,
    /// PEM: the private key.
    pub key: PathBuf,
    /// PEM: the CA certificates that sign nodes and clients.
    pub ca: PathBuf,
}

/// The TLS of a node. Clones share it.
#[derive(Clone)]
pub struct Tls {
    inner: Arc<Inner>,
}

struct Inner {
    files: TlsFiles,
    current: ArcSwap<Settings>,
    client: ClientTls,
}

/// The settings of one version of the files.
pub(super) struct Settings {
    contents: [Vec<u8>; 3],
    pub(super) grpc: Arc<ServerConfig>,
    pub(super) http: Arc<ServerConfig>,
    pub(super) judge: Arc<Judge>,
    /// Seconds since 1970.
    ends_at: Option<u64>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.inner.files).finish()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// If a file cannot be used, or other nodes would refuse the certificate.
    pub fn open(files: &TlsFiles) -> Result<Self, SecurityError> {
        let (settings, client) = load(files)?;
        warn_if_readable_by_others(KEY, &files.key);
        let inner = Inner {
            files: files.clone(),
            current: ArcSwap::from_pointee(settings),
            client: ClientTls::of(client),
        };
        Ok(Tls { inner: Arc::new(inner) })
    }

    /// The settings for calls to other nodes; they follow the files.
    pub fn client(&self) -> ClientTls {
        self.inner.client.clone()
    }

    /// Reads the files again and returns whether anything changed.
    ///
    /// # Errors
    /// As [`Tls::open`]; the former settings stay in force.
    pub fn reload(&self) -> Result<bool, SecurityError> {
        let contents = contents(&self.inner.files)?;
        if self.inner.current.load().contents == contents {
            return Ok(false);
        }
        let (settings, client) = load(&self.inner.files)?;
        self.inner.current.store(Arc::new(settings));
        self.inner.client.0.current.store(client);
        Ok(true)
    }

    /// When the certificate, or one that links it to the CA, ends; seconds since 1970.
    pub fn ends_at(&self) -> Option<u64> {
        self.inner.current.load().ends_at
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.inner.current.load_full()
    }

    pub(super) fn describe(&self) -> String {
        format!("certificate {}", self.inner.files.cert.display())
    }
}

/// TLS settings for outgoing connections. Clones share them.
#[derive(Clone)]
pub struct ClientTls(Arc<ClientInner>);

struct ClientInner {
    current: ArcSwap<ClientConfig>,
    /// The files of a client. A node's own [`Tls`] reloads its client settings instead.
    files: Option<ClientFiles>,
}

/// The files of a client, and their contents when they were last read.
struct ClientFiles {
    ca: PathBuf,
    own: Option<(PathBuf, PathBuf)>,
    contents: ArcSwap<ClientContents>,
}

#[derive(PartialEq)]
struct ClientContents {
    ca: Vec<u8>,
    own: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

impl ClientTls {
    fn of(config: Arc<ClientConfig>) -> Self {
        ClientTls(Arc::new(ClientInner { current: ArcSwap::new(config), files: None }))
    }

    /// Trusts the servers that the CA in the file `ca` signed. With `own`, the files of a
    /// certificate and its key, also presents that certificate.
    ///
    /// # Errors
    /// Where a file cannot be used.
    pub fn open(ca: &Path, own: Option<(&Path, &Path)>) -> Result<Self, SecurityError> {
        let own = own.map(|(cert, key)| (cert.to_owned(), key.to_owned()));
        let ca = ca.to_owned();
        let contents = client_contents(&ca, own.as_ref())?;
        let current = ArcSwap::new(client_settings(&ca, own.as_ref(), &contents)?);
        let files = ClientFiles { ca, own, contents: ArcSwap::from_pointee(contents) };
        Ok(ClientTls(Arc::new(ClientInner { current, files: Some(files) })))
    }

    /// Reads the files of [`ClientTls::open`] again and says whether they changed. New connections
    /// use the new settings.
    ///
    /// # Errors
    /// Where a file cannot be used; the former settings stay in force.
    pub fn reload(&self) -> Result<bool, SecurityError> {
        let Some(ClientFiles { ca, own, contents: known }) = &self.0.files else {
            return Ok(false);
        };
        let contents = client_contents(ca, own.as_ref())?;
        if **known.load() == contents {
            return Ok(false);
        }
        self.0.current.store(client_settings(ca, own.as_ref(), &contents)?);
        known.store(Arc::new(contents));
        Ok(true)
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        self.0.current.load_full()
    }
}

fn client_contents(
    ca: &Path,
    own: Option<&(PathBuf, PathBuf)>,
) -> Result<ClientContents, SecurityError> {
    let own = own.map(|(cert, key)| Ok((read(CERTIFICATE, cert)?, read(KEY, key)?)));
    Ok(ClientContents { ca: read(CA, ca)?, own: own.transpose()? })
}

fn client_settings(
    ca: &Path,
    own: Option<&(PathBuf, PathBuf)>,
    contents: &ClientContents,
) -> Result<Arc<ClientConfig>, SecurityError> {
    let roots = Arc::new(roots(&contents.ca, ca)?);
    let own = own.zip(contents.own.as_ref());
    let own = own.map(|((cert, key), (cert_pem, key_pem))| pair(cert_pem, key_pem, cert, key));
    Ok(client_config(&roots, own.transpose()?))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn contents(files: &TlsFiles) -> Result<[Vec<u8>; 3], SecurityError> {
    Ok([read(CERTIFICATE, &files.cert)?, read(KEY, &files.key)?, read(CA, &files.ca)?])
}

fn load(files: &TlsFiles) -> Result<(Settings, Arc<ClientConfig>), SecurityError> {
    let contents = contents(files)?;
    let [cert, key, ca] = &contents;
    let roots = Arc::new(roots(ca, &files.ca)?);
    let own = pair(cert, key, &files.cert, &files.key)?;
    let judge = Judge::new(&roots, &provider()).map_err(|error| SecurityError::Pem {
        what: CA,
        path: files.ca.clone(),
        cause: error.to_string(),
    })?;
    let judge = Arc::new(judge);
    let (first, intermediates) = own.cert.split_first().expect("a pair has a certificate");
    judge.serves(first, intermediates, UnixTime::now()).map_err(|error| SecurityError::Chain {
        cert: files.cert.clone(),
        ca: files.ca.clone(),
        cause: reason(&error),
    })?;
    let ends_at = expiry::ends_at(&judge, first, intermediates);
    let client = client_config(&roots, Some(own.clone()));
    let ask = Arc::new(AskForCertificate(Arc::clone(&judge)));
    let grpc = server_config(own.clone(), Some(ask), b"h2");
    // If asked for a certificate, browsers would prompt their users to choose one.
    let http = server_config(own, None, b"http/1.1");
    Ok((Settings { contents, grpc, http, judge, ends_at }, client))
}

fn roots(pem: &[u8], path: &Path) -> Result<RootCertStore, SecurityError> {
    let failed = |cause: String| SecurityError::Pem { what: CA, path: path.to_owned(), cause };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, CA, path)? {
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    Ok(roots)
}

fn certificates(
    pem: &[u8],
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let failed = |cause: String| SecurityError::Pem { what, path: path.to_owned(), cause };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| failed(error.to_string()))?;
    if all.is_empty() { Err(failed("no CERTIFICATE section".to_owned())) } else { Ok(all) }
}

/// A certificate and its key, which must match.
fn pair(
    cert_pem: &[u8],
    key_pem: &[u8],
    cert: &Path,
    key: &Path,
) -> Result<Arc<CertifiedKey>, SecurityError> {
    let chain = certificates(cert_pem, CERTIFICATE, cert)?;
    let private = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| SecurityError::Pem {
        what: KEY,
        path: key.to_owned(),
        // The parser's message could quote the file.
        cause: "no PRIVATE KEY section that can be read".to_owned(),
    })?;
    let certified = CertifiedKey::from_der(chain, private, &provider());
    certified.map(Arc::new).map_err(|error| SecurityError::Pair {
        cert: cert.to_owned(),
        key: key.to_owned(),
        cause: match error {
            rustls::Error::InconsistentKeys(_) => "the key is another certificate's".to_owned(),
            other => other.to_string(),
        },
    })
}

fn server_config(
    own: Arc<CertifiedKey>,
    ask: Option<Arc<AskForCertificate>>,
    protocol: &[u8],
) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has suites for both versions of TLS");
    let builder = match ask {
        Some(ask) => builder.with_client_cert_verifier(ask),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

fn client_config(roots: &Arc<RootCertStore>, own: Option<Arc<CertifiedKey>>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has suites for both versions of TLS")
        .with_root_certificates(Arc::clone(roots));
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}
