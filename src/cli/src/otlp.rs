//! Spans for a collector, over OTLP/gRPC.
//!
//! A span is put into a bounded queue as it ends, which takes no lock that anybody holds for long
//! and never waits; one that finds the queue full is dropped and counted. A task sends what is in
//! the queue, one batch at a time, each within [`SEND_WITHIN`]; a batch that the collector does not
//! take is dropped and counted. So a collector that hangs, refuses or is gone costs spans and
//! nothing else. The processor of the SDK does the same but tells nobody how many it drops.
//!
//! Requests keep the names that they have in the log: here, off their way, their spans get those
//! that OpenTelemetry knows.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::trace::{SpanKind, Status, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor,
};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::{Layer, Registry};

use super::flags::values::Address;
use keyviz_client::AddressError;

/// Spans that wait.
const QUEUE: usize = 8_192;
/// Spans in one call.
const BATCH: usize = 512;
/// The pause after a call that took all that waited.
const EVERY: Duration = Duration::from_millis(200);
/// Time of a call.
const SEND_WITHIN: Duration = Duration::from_secs(5);
/// Where a request's outcome is told, which becomes its span's status.
const OUTCOMES: &str = "keyviz::request";

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Spans that were dropped since the process began.
pub(crate) fn dropped_spans() -> u64 {
    // Relaxed: nothing else depends on it.
    DROPPED.load(Ordering::Relaxed)
}

/// A layer that takes the spans of requests.
pub(crate) type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Where a collector takes spans.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint(Address);

/// Why a collector's address is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EndpointError {
    /// Another scheme, or none.
    #[error("the address of a collector is http://HOST:PORT (4317 for OTLP over gRPC)")]
    Scheme,
    /// More than an address.
    #[error("OTLP over gRPC has no path: leave out what follows the port")]
    Path,
    /// No address.
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let address = text.strip_prefix("http://").ok_or(EndpointError::Scheme)?;
        let address = address.strip_suffix('/').unwrap_or(address);
        match address.contains(['/', '?', '#']) {
            true => Err(EndpointError::Path),
            false => Ok(Endpoint(address.parse()?)),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

/// Sends the spans of node `node` to a collector from now on, from a task of this runtime.
///
/// # Errors
/// If the exporter refuses its settings. That the collector does not answer is none.
pub(crate) fn layer(to: &Endpoint, node: u64) -> Result<SpanLayer, ExporterBuildError> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(to.to_string());
    let mut exporter = exporter.with_timeout(SEND_WITHIN).build()?;
    let resource = Resource::builder_empty().with_service_name("keyviz").with_attributes([
        KeyValue::new("service.instance.id", node.to_string()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ]);
    exporter.set_resource(&resource.build());
    let (queue, spans) = channel(QUEUE);
    tokio::spawn(send_all(exporter, spans, to.clone()));
    let provider = SdkTracerProvider::builder().with_span_processor(Queue(queue)).build();
    // Requests and what they are passed on as; of events the outcomes alone.
    let taken = |metadata: &Metadata<'_>| {
        let target = metadata.target();
        target.starts_with("keyviz") && (metadata.is_span() || target == OUTCOMES)
    };
    let layer = tracing_opentelemetry::layer()
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_target(false)
        .with_tracer(provider.tracer("keyviz"));
    let filter = filter_fn(taken).with_max_level_hint(LevelFilter::DEBUG);
    Ok(Box::new(layer.with_filter(filter)))
}

/// Takes spans as they end.
#[derive(Debug)]
struct Queue(Sender<SpanData>);

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.0.try_send(span).is_err() {
            drop_spans(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn drop_spans(count: usize) {
    DROPPED.fetch_add(count as u64, Ordering::Relaxed);
}

/// Sends spans until nobody makes any.
async fn send_all(exporter: SpanExporter, mut spans: Receiver<SpanData>, to: Endpoint) {
    let (mut batch, mut takes) = (Vec::with_capacity(BATCH), true);
    loop {
        let count = spans.recv_many(&mut batch, BATCH).await;
        if count == 0 {
            return;
        }
        let sent = exporter.export(batch.drain(..).map(told).collect());
        let failure = match tokio::time::timeout(SEND_WITHIN, sent).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", SEND_WITHIN.as_secs())),
        };
        match &failure {
            Some(reason) if takes => {
                tracing::warn!("the collector at {to} does not take spans: {reason}");
            }
            None if !takes => tracing::info!("the collector at {to} takes spans again"),
            _ => {}
        }
        takes = failure.is_none();
        if !takes {
            drop_spans(count);
        }
        if count < BATCH {
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// A span under the names of OpenTelemetry: a request by its path, with its outcome.
fn told(mut span: SpanData) -> SpanData {
    for attribute in &mut span.attributes {
        if attribute.key.as_str() == "id" {
            attribute.key = "request.id".into();
        }
    }
    if span.name != "request" {
        return span;
    }
    span.span_kind = SpanKind::Server;
    let path = span.attributes.iter().find(|attribute| attribute.key.as_str() == "path");
    if let Some(path) = path.map(|path| path.value.to_string()) {
        // A call of gRPC is a service with its package, and a method.
        let call = path
            .strip_prefix('/')
            .filter(|call| call.split_once('/').is_some_and(|(service, _)| service.contains('.')));
        span.name = call.unwrap_or(&path).to_owned().into();
    }
    for event in span.events.iter() {
        let code = event.attributes.iter().find(|attribute| attribute.key.as_str() == "code");
        let code = code.map(|code| code.value.to_string()).filter(|code| code != "Ok");
        if let Some(code) = code {
            span.status = Status::error(format!("{code}: {}", event.name));
        }
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_an_address_over_http() {
        let endpoint = |text: &str| text.parse::<Endpoint>();
        assert_eq!(
            endpoint("http://127.0.0.1:4317/").map(|at| at.to_string()).as_deref(),
            Ok("http://127.0.0.1:4317")
        );
        assert!(endpoint("http://collector.example:4317").is_ok());
        for none in ["127.0.0.1:4317", "https://a:4317", "grpc://a:4317", ""] {
            assert_eq!(endpoint(none), Err(EndpointError::Scheme), "{none}");
        }
        assert_eq!(endpoint("http://a:4317/v1/traces"), Err(EndpointError::Path));
        for none in ["http://", "http://a", "http://:4317", "http://a:x"] {
            assert!(matches!(endpoint(none), Err(EndpointError::Address(_))), "{none}");
        }
    }
}
