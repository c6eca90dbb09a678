//! JSON responses, and refusals of parameters.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Code, Status};

use keyviz_json::{MatrixJson, PackedJson, parse_key};
use keyviz_proto as proto;

pub(crate) fn number<T: std::str::FromStr>(
    name: &str,
    text: &Option<String>,
) -> Result<Option<T>, Status> {
    text.as_deref()
        .map(|text| text.parse().map_err(|_| bad(name, text, "a whole number, 0 or more")))
        .transpose()
}

/// Most bytes of parameters in a body: 1,024 boundaries of the longest keys in hexadecimal.
const MAX_BODY: usize = 9 << 20;

/// The parameters of a call: those of its address, or of a POST the form in its body.
pub(crate) async fn parameters<T: DeserializeOwned>(request: Request) -> Result<T, Status> {
    let (parts, body) = request.into_parts();
    let form = match parts.method {
        Method::POST => to_bytes(body, MAX_BODY)
            .await
            .map_err(|error| Status::invalid_argument(format!("the form is refused: {error}")))?,
        _ => Bytes::copy_from_slice(parts.uri.query().unwrap_or_default().as_bytes()),
    };
    serde_urlencoded::from_bytes(&form).map_err(|error| {
        Status::invalid_argument(format!("Failed to deserialize query string: {error}"))
    })
}

pub(crate) fn flag(name: &str, text: &Option<String>) -> Result<bool, Status> {
    match text.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(bad(name, other, "true or false")),
    }
}

/// A key, as text or in hex.
pub(crate) fn key(name: &str, text: &Option<String>) -> Result<Option<Bytes>, Status> {
    let parse = |text| parse_key(text).map_err(|error| bad(name, text, &error.to_string()));
    text.as_deref().map(parse).transpose()
}

/// Keys with commas between them; a key that has one is written in hex.
pub(crate) fn keys(name: &str, text: &Option<String>) -> Result<Vec<Bytes>, Status> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let key = |text: &str| parse_key(text).map_err(|error| bad(name, text, &error.to_string()));
    text.split(',').map(key).collect()
}

pub(crate) fn bad(name: &str, found: &str, wanted: &str) -> Status {
    Status::invalid_argument(format!("{name}={found}: {wanted}"))
}

/// How a matrix is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Encoding {
    /// One number a cell.
    #[default]
    Plain,
    /// See [`PackedJson`].
    Packed,
}

impl Encoding {
    pub(crate) fn of(name: &Option<String>) -> Result<Self, Status> {
        match name.as_deref() {
            None | Some("plain") => Ok(Encoding::Plain),
            Some("packed") => Ok(Encoding::Packed),
            Some(other) => Err(bad("encoding", other, "one of plain, packed")),
        }
    }

    pub(crate) fn answer(self, matrix: &proto::Matrix, gzip: bool) -> Response {
        match (self, gzip) {
            (Encoding::Plain, false) => json(&MatrixJson::from(matrix)),
            (Encoding::Plain, true) => gzipped(&MatrixJson::from(matrix)),
            (Encoding::Packed, false) => json(&PackedJson::from(matrix)),
            (Encoding::Packed, true) => gzipped(&PackedJson::from(matrix)),
        }
    }
}

/// A JSON answer, compressed off the threads that serve requests.
fn gzipped(value: &impl Serialize) -> Response {
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let written = serde_json::to_writer(std::io::BufWriter::new(&mut gzip), value);
    match written.map_err(std::io::Error::other).and_then(|()| gzip.finish()) {
        Ok(body) => {
            let headers = [
                (header::CONTENT_TYPE, "application/json"),
                (header::CONTENT_ENCODING, "gzip"),
                (header::VARY, "accept-encoding"),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (headers, body).into_response()
        }
        Err(error) => problem(&Status::internal(format!("the answer cannot be written: {error}"))),
    }
}

pub(crate) fn json<T: Serialize>(value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            (headers, body).into_response()
        }
        Err(error) => problem(&Status::internal(error.to_string())),
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    code: &'a str,
    message: &'a str,
}

pub(crate) fn problem(status: &Status) -> Response {
    let (code, http) = match status.code() {
        Code::InvalidArgument => ("INVALID_ARGUMENT", StatusCode::BAD_REQUEST),
        Code::NotFound => ("NOT_FOUND", StatusCode::NOT_FOUND),
        Code::FailedPrecondition => ("FAILED_PRECONDITION", StatusCode::CONFLICT),
        Code::PermissionDenied => ("PERMISSION_DENIED", StatusCode::FORBIDDEN),
        Code::Aborted => ("ABORTED", StatusCode::CONFLICT),
        Code::OutOfRange => ("OUT_OF_RANGE", StatusCode::BAD_REQUEST),
        Code::ResourceExhausted => ("RESOURCE_EXHAUSTED", StatusCode::TOO_MANY_REQUESTS),
        Code::Unauthenticated => ("UNAUTHENTICATED", StatusCode::UNAUTHORIZED),
        Code::Unavailable => ("UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE),
        Code::DeadlineExceeded => ("DEADLINE_EXCEEDED", StatusCode::GATEWAY_TIMEOUT),
        Code::Unknown => ("UNKNOWN", StatusCode::INTERNAL_SERVER_ERROR),
        _ => ("INTERNAL", StatusCode::INTERNAL_SERVER_ERROR),
    };
    let body = Problem { code, message: status.message() };
    let mut response = json(&body);
    *response.status_mut() = http;
    // For the audit log.
    response.extensions_mut().insert(status.code());
    response
}
