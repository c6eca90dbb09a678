//! A certificate authority and its certificates, made anew for each test.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// What a certificate is good for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A node: server and client.
    Node,
    /// A client alone.
    Client,
    /// A node whose certificate ended long ago.
    Expired,
    /// A node whose certificate ends in ten days.
    EndsSoon,
}

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Files of a certificate and its key.
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes the CA's certificate.
    pub fn write(&self, folder: &Path, name: &str) -> PathBuf {
        super::write_file(folder, name, &self.pem())
    }

    /// Certificate and key in PEM.
    pub fn sign(&self, what: Use) -> (String, String) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = match what {
            Use::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            _ => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        if what == Use::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 1);
        }
        if what == Use::EndsSoon {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("later");
            let end = now + Duration::from_secs(10 * 86_400 + 43_200);
            params.not_after = date_time_ymd(1970, 1, 1) + end;
        }
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        (cert.pem(), key.serialize_pem())
    }

    /// Writes `name.pem` and `name.key`.
    pub fn issue(&self, folder: &Path, name: &str, what: Use) -> Pair {
        let (cert, key) = self.sign(what);
        Pair {
            cert: super::write_file(folder, &format!("{name}.pem"), &cert),
            key: super::write_file(folder, &format!("{name}.key"), &key),
        }
    }
}
