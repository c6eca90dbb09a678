//! A cluster with everything switched on, and who calls on it.

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use keyviz_proto as proto;
use keyviz_security::{AuthChannel, ClientTls, Credentials, SecretFile, connect};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::support::certs::{Authority, Pair, Use};
use crate::support::{Cluster, eventually, stderr, write_file};

pub(crate) const TOKEN: &str = "the-admin-token-of-this-test";
pub(crate) const SECRET: &str = "the-cluster-secret-of-this-test";

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder has a plain name")
}

/// Files of a cluster with everything switched on.
pub(crate) struct Secured {
    pub(crate) folder: TempDir,
    pub(crate) authority: Authority,
}

impl Secured {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let authority = Authority::new("keyviz test");
        authority.write(folder.path(), "ca.pem");
        authority.issue(folder.path(), "node", Use::Node);
        write_file(folder.path(), "token", TOKEN);
        write_file(folder.path(), "secret", SECRET);
        Secured { folder, authority }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        text(&self.folder.path().join(name)).to_owned()
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        write_file(self.folder.path(), name, content);
    }

    pub(crate) fn issue(&self, name: &str, what: Use) -> Pair {
        self.authority.issue(self.folder.path(), name, what)
    }

    pub(crate) fn cluster(&self, count: usize, more: &[&str]) -> Cluster {
        let (cert, key, ca) = (self.path("node.pem"), self.path("node.key"), self.path("ca.pem"));
        let (token, secret) = (self.path("token"), self.path("secret"));
        let own = [
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
            "--tls-ca",
            &ca,
            "--admin-token-file",
            &token,
            "--cluster-secret-file",
            &secret,
            "--keyviz-step",
            "1s",
        ];
        let mut cluster = Cluster::prepare(count, &[&own, more].concat());
        for index in 0..count {
            cluster.spawn(index);
        }
        for http in &cluster.http {
            eventually("every node says that it is ready", || {
                https(http, &self.path("ca.pem"), "/readyz", "").is_ok_and(|answer| answer.0 == 200)
            });
        }
        cluster
    }
}

/// The status and the body (or what of it has come by `until`) of a request over TLS.
pub(crate) fn https(
    address: &str,
    ca: &str,
    path: &str,
    header: &str,
) -> std::io::Result<(u16, String)> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(std::io::Error::other)? {
        roots.add(certificate.map_err(std::io::Error::other)?).map_err(std::io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let tls =
        rustls::ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    ask(rustls::StreamOwned::new(tls, stream), address, path, header)
}

pub(crate) fn http(address: &str, path: &str, header: &str) -> std::io::Result<(u16, String)> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    ask(stream, address, path, header)
}

/// Reads to the end, or to the first event of a stream.
fn ask(
    mut stream: impl Read + std::io::Write,
    address: &str,
    path: &str,
    header: &str,
) -> std::io::Result<(u16, String)> {
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n{header}\r\n")?;
    stream.flush()?;
    let mut answer = Vec::new();
    let mut some = [0; 4096];
    loop {
        match stream.read(&mut some) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&some[..read]),
            // A server that closes without TLS's own farewell.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
        let so_far = String::from_utf8_lossy(&answer);
        if so_far.contains("\ndata:") && so_far.ends_with("\n\n") {
            break;
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}

/// That a command failed with these words, and the exit code of the first.
#[track_caller]
pub(crate) fn refused(output: &Output, words: &[&str]) {
    let said = stderr(output);
    let code = match words.first() {
        Some(&"UNAUTHENTICATED") => 5,
        Some(&"no node answered") => 4,
        _ => 1,
    };
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    assert!(!said.contains(TOKEN) && !said.contains(SECRET), "{said}");
}

#[track_caller]
pub(crate) fn done(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The status of a call between nodes, made with these credentials.
pub(crate) fn peer_call(address: &str, tls: Option<&ClientTls>, secret: Option<&str>) -> Code {
    runtime().block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = connect(endpoint, tls).await.expect("a connection");
        let secret = secret.map(|text| SecretFile::fixed("secret", text, "test").expect("one"));
        let channel = AuthChannel::new(channel, Credentials { secret, token: None });
        let mut client = proto::cluster_peer_client::ClusterPeerClient::new(channel);
        match client.node_status(proto::PeerStatusRequest::default()).await {
            Ok(_) => Code::Ok,
            Err(status) => status.code(),
        }
    })
}
