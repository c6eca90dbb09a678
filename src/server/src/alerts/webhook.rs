//! One POST to the receiver. It is not followed elsewhere, and has a deadline.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;
use tonic::codegen::http::{Request, Uri, header};

/// A receiver that has not answered by then has failed.
const DEADLINE: Duration = Duration::from_secs(5);

/// Where alerts are sent: `http://host[:port]/path`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Webhook {
    uri: Uri,
    host: String,
    port: u16,
}

/// Why alerts are not sent.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The address is not one.
    #[error(
        "{0} is not http://HOST[:PORT]/PATH; for HTTPS, send to an Alertmanager or a proxy here"
    )]
    Address(String),
    /// No connection.
    #[error("no connection to {at}: {source}")]
    Connect {
        /// Where.
        at: String,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection to the receiver broke: {0}")]
    Broke(#[from] hyper::Error),
    /// It does not take it.
    #[error("the receiver answered {0}")]
    Status(u16),
    /// It hangs.
    #[error("the receiver did not answer within {} s", DEADLINE.as_secs())]
    Late,
    /// The body could not be written.
    #[error("the alert could not be written: {0}")]
    Body(#[from] serde_json::Error),
}

impl FromStr for Webhook {
    type Err = WebhookError;

    fn from_str(text: &str) -> Result<Self, WebhookError> {
        let bad = || WebhookError::Address(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let plain = uri.scheme_str() == Some("http");
        let authority = uri.authority().filter(|_| plain).ok_or_else(bad)?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(bad());
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(80);
        Ok(Webhook { uri, host, port })
    }
}

impl Webhook {
    /// Sends one body.
    ///
    /// # Errors
    /// Anything but a status of 200 to 299 within the deadline.
    pub(super) async fn post(&self, body: &impl Serialize) -> Result<(), WebhookError> {
        let body = Bytes::from(serde_json::to_vec(body)?);
        match tokio::time::timeout(DEADLINE, self.send(body)).await {
            Ok(sent) => sent,
            Err(_) => Err(WebhookError::Late),
        }
    }

    async fn send(&self, body: Bytes) -> Result<(), WebhookError> {
        let stream = TcpStream::connect((&*self.host, self.port)).await;
        let stream = stream.map_err(|source| WebhookError::Connect {
            at: format!("{}:{}", self.host, self.port),
            source,
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::post(path)
            .header(header::HOST, authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("keyviz/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .expect("path and host are those of an address");
        // The connection moves while its answer is waited for, and ends with this future.
        let answer = tokio::select! {
            answer = sender.send_request(request) => answer?,
            Err(broke) = connection => return Err(broke.into()),
        };
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            // Redirects too: alerts go where the operator said.
            status => Err(WebhookError::Status(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_plain_http_with_a_host() {
        let parsed = |text: &str| text.parse::<Webhook>().map(|at| (at.host, at.port)).ok();
        assert_eq!(parsed("http://a.example:9093/x?y"), Some(("a.example".to_owned(), 9_093)));
        assert_eq!(parsed("http://[::1]/"), Some(("::1".to_owned(), 80)));
        for bad in ["https://a/", "a:80", "ftp://a/", "http://u:p@a/", "", "http:///x"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
