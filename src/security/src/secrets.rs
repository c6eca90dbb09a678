//! Secrets from files: the admin token and the cluster secret.
//!
//! A file has one secret per line. All of them are accepted and the first is presented, so that a
//! secret can be replaced node by node: the file is first `old, new` everywhere, then `new, old`,
//! then `new`.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ring::hmac;
use subtle::{Choice, ConstantTimeEq as _};
use tonic::codegen::http::HeaderValue;

use super::error::SecurityError;

/// Maximum number of secrets in a file: an old and a new one, with a margin.
const MAX_SECRETS: usize = 16;

/// Maximum length of a secret.
const MAX_SECRET_BYTES: usize = 1024;

/// Shorter secrets are accepted with a warning.
const SHORT_SECRET_BYTES: usize = 16;

/// The purpose of derived secrets, see [`Secrets::derived`].
const DERIVED_FOR: &[u8] = b"keyviz: a node shows that it is one";

/// Maximum size of a credential file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One or more secrets, of which the first is presented. It has no text form.
pub struct Secrets {
    /// Never empty.
    all: Vec<Box<[u8]>>,
    bearer: HeaderValue,
    bare: HeaderValue,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} of them)", self.all.len())
    }
}

impl Secrets {
    /// Parses the secrets in `text`, one per line; blank lines are ignored.
    ///
    /// # Errors
    /// If a line is not a secret, or there is none. `what` and `path` are for the message.
    pub fn parse(text: &str, what: &'static str, path: &Path) -> Result<Self, SecurityError> {
        let mut all: Vec<Box<[u8]>> = Vec::new();
        for (line, secret) in (1..).zip(text.lines().map(str::trim)) {
            let wrong =
                |reason| Err(SecurityError::Line { what, path: path.to_owned(), line, reason });
            if secret.is_empty() {
                continue;
            }
            if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
                return wrong("it has other characters");
            }
            if secret.len() > MAX_SECRET_BYTES {
                return wrong("it is longer than 1,024 bytes");
            }
            if all.len() == MAX_SECRETS {
                return wrong("there are more than 16 secrets");
            }
            all.push(secret.as_bytes().into());
        }
        let Some(first) = all.first() else {
            return Err(SecurityError::Empty { what, path: path.to_owned() });
        };
        let (bearer, bare) = (header(&[b"Bearer ", &first[..]].concat()), header(first));
        Ok(Secrets { all, bearer, bare })
    }

    /// Secrets that follow from these and do not tell them. What followed from the *last* is
    /// presented: while a file of admin tokens is replaced on one node after the other, the old
    /// token is its last line, and all nodes accept what follows from that.
    fn derived(&self) -> Self {
        let of = |secret: &[u8]| -> Box<[u8]> {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            let tag = hmac::sign(&key, DERIVED_FOR);
            let hex = tag.as_ref().iter().map(|byte| format!("{byte:02x}"));
            hex.collect::<String>().into_bytes().into()
        };
        let all: Vec<Box<[u8]>> = self.all.iter().map(|secret| of(secret)).collect();
        let last = all.last().expect("there is a secret");
        let (bearer, bare) = (header(&[b"Bearer ", &last[..]].concat()), header(last));
        Secrets { all, bearer, bare }
    }

    /// Whether `offered` is one of them, in constant time.
    pub fn accepts(&self, offered: &[u8]) -> bool {
        let none = Choice::from(0);
        self.all.iter().fold(none, |found, secret| found | secret.ct_eq(offered)).into()
    }

    /// The place of `offered` among them, from 0, in constant time for those that are of them.
    pub fn position(&self, offered: &[u8]) -> Option<usize> {
        let found = |at: usize, secret: &[u8]| (at, bool::from(secret.ct_eq(offered)));
        let all: Vec<(usize, bool)> =
            self.all.iter().enumerate().map(|(at, secret)| found(at, secret)).collect();
        all.into_iter().find_map(|(at, equal)| equal.then_some(at))
    }

    /// The first, as `Bearer ...`.
    pub fn bearer(&self) -> HeaderValue {
        self.bearer.clone()
    }

    /// The first, bare.
    pub fn bare(&self) -> HeaderValue {
        self.bare.clone()
    }

    fn shortest(&self) -> usize {
        self.all.iter().map(|secret| secret.len()).min().unwrap_or(0)
    }
}

fn header(bytes: &[u8]) -> HeaderValue {
    let mut value = HeaderValue::from_bytes(bytes).expect("visible ASCII is a header");
    // Neither printed nor put into the header tables of connections.
    value.set_sensitive(true);
    value
}

impl PartialEq for Secrets {
    fn eq(&self, other: &Self) -> bool {
        // The order matters, because the first is presented.
        self.all == other.all
    }
}

/// A file of secrets that can be read again. Clones share it.
#[derive(Clone)]
pub struct SecretFile {
    inner: Arc<Inner>,
}

/// Where secrets come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Origin {
    /// The file.
    File,
    /// What follows from those of the file is shown and accepted, not they.
    Derived,
    /// No file.
    Fixed,
}

struct Inner {
    what: &'static str,
    path: PathBuf,
    origin: Origin,
    current: ArcSwap<Secrets>,
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretFile({})", self.inner.path.display())
    }
}

impl SecretFile {
    /// Reads the file `path` with the `what`.
    ///
    /// # Errors
    /// If the file is unreadable, empty or not a file of secrets.
    pub fn open(what: &'static str, path: &Path) -> Result<Self, SecurityError> {
        let secrets = Secrets::parse(&read_text(what, path)?, what, path)?;
        if secrets.shortest() < SHORT_SECRET_BYTES {
            tracing::warn!(
                "the {what} {} holds a secret of less than {SHORT_SECRET_BYTES} characters, which \
                 can be guessed",
                path.display()
            );
        }
        warn_if_readable_by_others(what, path);
        Ok(SecretFile::of(secrets, what, path, Origin::File))
    }

    /// Secrets that do not come from a file.
    ///
    /// # Errors
    /// As [`Secrets::parse`]; `origin` is named instead of the file.
    pub fn fixed(what: &'static str, text: &str, origin: &str) -> Result<Self, SecurityError> {
        let path = Path::new(origin);
        Ok(SecretFile::of(Secrets::parse(text, what, path)?, what, path, Origin::Fixed))
    }

    /// The secrets that follow from those of this file, as long as the file has them.
    pub(super) fn derive(&self, what: &'static str) -> Self {
        let secrets = self.inner.current.load().derived();
        SecretFile::of(secrets, what, &self.inner.path, Origin::Derived)
    }

    fn of(secrets: Secrets, what: &'static str, path: &Path, origin: Origin) -> Self {
        let (path, current) = (path.to_owned(), ArcSwap::from_pointee(secrets));
        SecretFile { inner: Arc::new(Inner { what, path, origin, current }) }
    }

    /// Whether `offered` is accepted now.
    pub fn accepts(&self, offered: &[u8]) -> bool {
        self.inner.current.load().accepts(offered)
    }

    /// The place of `offered` among the secrets of the file, from 0; `None`: it is none of them.
    pub fn position(&self, offered: &[u8]) -> Option<usize> {
        self.inner.current.load().position(offered)
    }

    /// The credential presented now, as `Bearer ...`.
    pub fn bearer(&self) -> HeaderValue {
        self.inner.current.load().bearer()
    }

    /// The credential presented now, without a scheme.
    pub fn bare(&self) -> HeaderValue {
        self.inner.current.load().bare()
    }

    /// Reads the file again and says whether the secrets changed. Secrets of [`SecretFile::fixed`]
    /// do not change.
    ///
    /// # Errors
    /// As [`SecretFile::open`]; the former secrets stay in force.
    pub fn reload(&self) -> Result<bool, SecurityError> {
        let Inner { what, path, origin, current } = &*self.inner;
        if *origin == Origin::Fixed {
            return Ok(false);
        }
        let secrets = Secrets::parse(&read_text(what, path)?, what, path)?;
        let secrets = if *origin == Origin::Derived { secrets.derived() } else { secrets };
        let changed = **current.load() != secrets;
        if changed {
            current.store(Arc::new(secrets));
        }
        Ok(changed)
    }

    pub(super) fn describe(&self) -> String {
        format!("{} {}", self.inner.what, self.inner.path.display())
    }
}

/// A file as text.
fn read_text(what: &'static str, path: &Path) -> Result<String, SecurityError> {
    let bytes = read(what, path)?;
    String::from_utf8(bytes).map_err(|_| SecurityError::Unreadable {
        what,
        path: path.to_owned(),
        cause: "it is no text".to_owned(),
    })
}

/// The content of a credential file.
pub(super) fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, SecurityError> {
    let failed = |cause: String| SecurityError::Unreadable { what, path: path.to_owned(), cause };
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(failed("it is larger than 1 MiB".to_owned()));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(SecurityError::Empty { what, path: path.to_owned() });
    }
    Ok(bytes)
}

/// Warns if everybody on the machine can read the file.
pub(super) fn warn_if_readable_by_others(what: &'static str, path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o004 != 0 {
        let path = path.display();
        tracing::warn!(
            "the {what} {path} is readable by others (mode {mode:03o}): chmod o-r {path}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Secrets, SecurityError> {
        Secrets::parse(text, "admin token", Path::new("token"))
    }

    #[test]
    fn every_line_is_accepted_and_the_first_is_presented() {
        let secrets = parse("old-secret\n\n  new-secret \n").expect("two secrets");
        assert!(secrets.accepts(b"old-secret") && secrets.accepts(b"new-secret"));
        for wrong in
            [&b""[..], b"old", b"old-secret\n", b"old-secrets", b"new-secre", b"OLD-SECRET"]
        {
            assert!(!secrets.accepts(wrong), "{wrong:?}");
        }
        assert_eq!(secrets.bearer().as_bytes(), b"Bearer old-secret");
        assert_eq!(secrets.bare().as_bytes(), b"old-secret");
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_told() {
        let empty = SecurityError::Empty { what: "admin token", path: "token".into() };
        assert_eq!(parse(" \n\n").unwrap_err(), empty);
        for text in ["good\nbad one", "tab\tinside", "\u{fc}ber"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with("the admin token token, line "), "{error}");
            assert!(!error.contains("inside") && !error.contains("bad"), "{error}");
        }
        assert!(parse(&"x\n".repeat(16)).is_ok());
        assert!(parse(&"x\n".repeat(17)).is_err());
        assert!(parse(&"x".repeat(1025)).is_err());
    }

    #[test]
    fn no_text_form_shows_a_secret() {
        let secrets = parse("hidden-secret").expect("a secret");
        let file = SecretFile::fixed("admin token", "hidden-secret", "KEYVIZ_TOKEN").expect("one");
        let shown = format!("{secrets:?} {file:?} {:?} {:?}", secrets.bearer(), secrets.bare());
        assert!(!shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn a_file_that_became_useless_leaves_the_former_secret_in_force() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("token");
        let missing = SecretFile::open("admin token", &path).unwrap_err();
        assert!(matches!(missing, SecurityError::Unreadable { .. }), "{missing}");
        std::fs::write(&path, "one\n").expect("a file");
        let file = SecretFile::open("admin token", &path).expect("a secret");
        assert_eq!(file.reload(), Ok(false));
        std::fs::write(&path, "two\none\n").expect("a file");
        assert_eq!(file.reload(), Ok(true));
        assert!(file.accepts(b"one") && file.accepts(b"two"));
        std::fs::write(&path, "\n").expect("a file");
        assert!(matches!(file.reload(), Err(SecurityError::Empty { .. })));
        assert!(file.accepts(b"two"));
        std::fs::write(&path, "two\n").expect("a file");
        assert_eq!(file.reload(), Ok(true));
        assert!(!file.accepts(b"one"));
    }

    #[test]
    fn what_follows_from_tokens_tells_nothing_of_them_and_outlasts_their_rotation() {
        let of = |text| Secrets::parse(text, "token", Path::new("token")).expect("secrets");
        let derived = |text| of(text).derived();
        let (old, both, new) =
            (derived("old-token"), derived("new-token\nold-token"), derived("new-token"));
        assert!(!old.accepts(b"old-token") && old.bare() != of("old-token").bare());
        // Each pair of steps that two nodes may be at accepts the other.
        for (one, other) in [(&old, &both), (&both, &new), (&old, &old), (&new, &new)] {
            assert!(one.accepts(other.bare().as_bytes()) || other.accepts(one.bare().as_bytes()));
        }
        assert!(old.accepts(both.bare().as_bytes()) && both.accepts(old.bare().as_bytes()));
        assert!(both.accepts(new.bare().as_bytes()));
        assert!(!old.accepts(new.bare().as_bytes()));
    }
}
