//! The answer to plain text on a TLS port.
//!
//! Such a caller could not interpret a TLS alert. A gRPC client gets the HTTP/2 error
//! INADEQUATE_SECURITY, which gRPC maps to PERMISSION_DENIED; any other client gets an HTTP
//! response with the same meaning.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The first byte of a TLS connection: a handshake record.
const HANDSHAKE: u8 = 22;

/// Time limit for the caller to close the connection after the answer.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// The message in the response.
const REASON: &str =
    "this port speaks TLS only; give the client the CA's certificate (keyviz: --tls-ca)";

/// Whether the connection begins with anything other than TLS. Waits for the first byte.
pub(super) async fn speaks_plain(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0; 3];
    let read = stream.peek(&mut first).await?;
    Ok(read > 0 && first[0] != HANDSHAKE)
}

/// Answers and closes.
pub(super) async fn refuse(mut stream: TcpStream) {
    let mut first = [0; 3];
    let http2 = matches!(stream.peek(&mut first).await, Ok(3) if first == *b"PRI");
    let answer = if http2 { goaway() } else { forbidden() };
    if stream.write_all(&answer).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    // Unread data would make the system reset the connection before the answer is delivered.
    let mut sink = [0; 1024];
    let leave = async { while matches!(stream.read(&mut sink).await, Ok(read) if read > 0) {} };
    let _ = tokio::time::timeout(LEAVE_WITHIN, leave).await;
}

/// Empty SETTINGS, then GOAWAY with INADEQUATE_SECURITY (RFC 9113, sections 6.5 and 6.8).
fn goaway() -> Vec<u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const INADEQUATE_SECURITY: u32 = 0xc;
    let mut frames = SETTINGS.to_vec();
    let length = u32::try_from(8 + REASON.len()).expect("the reason is short");
    frames.extend_from_slice(&length.to_be_bytes()[1..]);
    frames.extend_from_slice(&[7, 0, 0, 0, 0, 0]);
    frames.extend_from_slice(&0u32.to_be_bytes());
    frames.extend_from_slice(&INADEQUATE_SECURITY.to_be_bytes());
    frames.extend_from_slice(REASON.as_bytes());
    frames
}

fn forbidden() -> Vec<u8> {
    let body = format!("{{\"code\":\"PERMISSION_DENIED\",\"message\":\"{REASON}\"}}");
    format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
