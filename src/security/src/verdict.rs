//! Verification of callers' certificates.
//!
//! An invalid certificate is refused after the handshake rather than in it, so that the caller gets
//! a status and a reason instead of a broken connection. The handshake proves that the caller has
//! the key; [`Judge::judge`] verifies the chain, and every call on a connection whose certificate
//! is [`CallerCertificate::Refused`] is answered `UNAUTHENTICATED`.
//!
//! A certificate of the CA identifies a node only if it is valid for servers too, because nodes
//! serve with it. Client certificates, with only the extended key usage `clientAuth`, do not permit
//! calls between nodes.

use std::sync::Arc;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore};

/// The verdict on the certificate of a connection's caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallerCertificate {
    /// There is none.
    Absent,
    /// A valid certificate for clients only.
    Client,
    /// A valid certificate for a node.
    Node,
    /// An invalid certificate, with the reason.
    Refused(Arc<str>),
}

/// Verifies the certificates of callers.
#[derive(Debug)]
pub(super) struct Judge {
    roots: RootCertStore,
    clients: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Judge {
    pub(super) fn new(
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let clients =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let algorithms = provider.signature_verification_algorithms;
        Ok(Judge { roots: (**roots).clone(), clients, algorithms })
    }

    /// The verdict on a chain, whose first certificate is the caller's.
    pub(super) fn judge(&self, chain: Option<&[CertificateDer<'_>]>) -> CallerCertificate {
        let Some((own, intermediates)) = chain.and_then(<[_]>::split_first) else {
            return CallerCertificate::Absent;
        };
        let now = UnixTime::now();
        match self.clients.verify_client_cert(own, intermediates, now) {
            Err(error) => CallerCertificate::Refused(reason(&error).into()),
            Ok(_) if self.serves(own, intermediates, now).is_ok() => CallerCertificate::Node,
            Ok(_) => CallerCertificate::Client,
        }
    }

    /// Whether the certificate is valid for a server.
    pub(super) fn serves(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(own)?,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )
    }
}

/// Requests a certificate from clients, accepts the handshake of any client that has the key to its
/// certificate, and leaves the verification of the chain to [`Judge::judge`].
#[derive(Debug)]
pub(super) struct AskForCertificate(pub(super) Arc<Judge>);

impl ClientCertVerifier for AskForCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.clients.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.clients.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.clients.supported_verify_schemes()
    }
}

/// Describes what is wrong with a certificate.
pub(super) fn reason(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(cause) = error else { return error.to_string() };
    match cause {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".to_owned()
        }
        CertificateError::UnknownIssuer => "it is not of this CA".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not meant for this use (extended key usage)".to_owned()
        }
        other => other.to_string(),
    }
}
