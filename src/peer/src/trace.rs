//! The trace of a request over all nodes that serve it: the header `traceparent` of W3C Trace
//! Context, taken from callers and sent to peers.
//!
//! Where spans are not exported, no trace is known and nothing is sent. A header that is not sound
//! is ignored, as the standard says: the request begins a trace of its own.

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use tonic::codegen::http::HeaderMap;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header.
pub const TRACEPARENT: &str = "traceparent";

/// Makes a new span a child of the caller's, if the caller says which that is.
pub fn adopt(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() {
        return;
    }
    if let Some(parent) = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()) {
        adopt_text(span, parent);
    }
}

/// The same of a header's text.
pub fn adopt_text(span: &Span, parent: &str) {
    if let Some(parent) = parse(parent) {
        // Without an exporter there is no trace to take part in.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// The current span as a parent of others; `None` where spans are not exported.
pub(crate) fn current() -> Option<String> {
    let span = Span::current();
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let known = span.span_context();
    known.is_valid().then(|| {
        let flags = known.trace_flags().to_u8();
        format!("00-{}-{}-{flags:02x}", known.trace_id(), known.span_id())
    })
}

/// `00-` trace id `-` span id `-` flags; a later version may have more after them.
fn parse(text: &str) -> Option<SpanContext> {
    let lower_hex = |part: &str, length| {
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        part.len() == length && part.bytes().all(digits)
    };
    let mut parts = text.split('-');
    let [version, trace, span, flags] = [(); 4].map(|()| parts.next());
    let (version, trace, span, flags) = (version?, trace?, span?, flags?);
    let sound = lower_hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && lower_hex(trace, 32)
        && lower_hex(span, 16)
        && lower_hex(flags, 2);
    if !sound {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & 1),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_sound_header_is_taken_and_others_are_not() {
        let taken = parse(SOUND).expect("it is sound");
        assert_eq!(taken.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(taken.span_id().to_string(), "00f067aa0ba902b7");
        assert!(taken.is_sampled() && taken.is_remote());
        assert!(parse(&SOUND.replace("-01", "-00")).is_some_and(|taken| !taken.is_sampled()));
        assert!(parse(&format!("{}-more", SOUND.replacen("00", "01", 1))).is_some());
        for bad in [
            "",
            "00",
            "-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-\u{e9}bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn without_an_exporter_there_is_no_trace() {
        adopt_text(&tracing::info_span!("request"), SOUND);
        assert_eq!(current(), None);
    }
}
