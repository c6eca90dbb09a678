//! A request that does not decode is answered as the caller's fault.

use tonic::Code;
use tonic::codegen::http::{HeaderValue, Response};

use keyviz_proto::metadata::MALFORMED_METADATA;

/// Makes `INVALID_ARGUMENT` of the status that the codec marked (`proto/codec.rs`).
pub(crate) fn as_invalid<B>(mut response: Response<B>) -> Response<B> {
    let headers = response.headers_mut();
    if headers.remove(MALFORMED_METADATA).is_some() {
        let invalid = HeaderValue::from(Code::InvalidArgument as i32);
        headers.insert("grpc-status", invalid);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_codec_marked_is_the_callers_fault() {
        let internal = || {
            let mut response = Response::new(());
            response.headers_mut().insert("grpc-status", HeaderValue::from(13));
            response
        };
        let mut marked = internal();
        marked.headers_mut().insert(MALFORMED_METADATA, HeaderValue::from_static("true"));
        let answered = as_invalid(marked);
        assert_eq!(answered.headers()["grpc-status"], "3");
        assert!(!answered.headers().contains_key(MALFORMED_METADATA));
        assert_eq!(as_invalid(internal()).headers()["grpc-status"], "13");
    }
}
