//! Spans of real nodes, at a collector that takes them, and at others that do not.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::support::{Cluster, KEYVIZ, eventually, free_addresses, stderr};
use keyviz_proto as proto;
use keyviz_proto::key_viz_client::KeyVizClient;
use keyviz_proto::kv_client::KvClient;
use keyviz_proto::metadata::REQUEST_ID;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tonic::{Request, Response, Status};

const DROPPED: &str = "keyviz_otlp_spans_dropped_total";

/// What a collector does with spans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Takes,
    Refuses,
    Hangs,
}

/// A collector, with the spans that it took and the node that sent each.
#[derive(Clone)]
struct Collector {
    manner: Manner,
    taken: Arc<Mutex<Vec<(String, Span)>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        match self.manner {
            Manner::Takes => {}
            Manner::Refuses => return Err(Status::unavailable("not now")),
            Manner::Hangs => std::future::pending().await,
        }
        let mut taken = self.taken.lock().expect("no panic");
        for spans in request.into_inner().resource_spans {
            let resource = spans.resource.expect("a node says who it is");
            let text = |name| text(&resource.attributes, name).expect("a node says who it is");
            assert_eq!(text("service.name"), "keyviz");
            let node = text("service.instance.id");
            let spans = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
            taken.extend(spans.map(|span| (node.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

impl Collector {
    /// Listens until the runtime ends; its address.
    fn start(manner: Manner) -> (Self, String) {
        let collector = Collector { manner, taken: Arc::default() };
        let address = free_addresses(1).remove(0);
        let at: SocketAddr = address.parse().expect("an address");
        let service = TraceServiceServer::new(collector.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve(at));
        (collector, format!("http://{address}"))
    }

    /// The spans that a claim holds of.
    fn spans(&self, claim: impl Fn(&Span) -> bool) -> Vec<(String, Span)> {
        let taken = self.taken.lock().expect("no panic");
        taken.iter().filter(|(_, span)| claim(span)).cloned().collect()
    }

    /// The one span of a call under a request id, once it is here.
    fn span(&self, name: &str, id: &str) -> (String, Span) {
        let is = |span: &Span| {
            span.name == name && text(&span.attributes, "request.id").as_deref() == Some(id)
        };
        eventually(&format!("{name} of {id} is exported"), || !self.spans(is).is_empty());
        let mut found = self.spans(is);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    /// The nodes that have a child of a span.
    fn children(&self, name: &str, of: &Span) -> BTreeSet<String> {
        let is = |span: &Span| span.name == name && span.parent_span_id == of.span_id;
        let found = self.spans(is);
        assert!(found.iter().all(|(_, span)| span.trace_id == of.trace_id), "{found:?}");
        found.into_iter().map(|(node, _)| node).collect()
    }
}

async fn put(address: &str, key: &str, id: &str, parent: Option<&str>) -> Result<(), Status> {
    let client = KvClient::connect(format!("http://{address}")).await;
    let put = proto::PutRequest { key: key.to_owned().into(), value: "v".into() };
    let mut request = Request::new(put);
    request.metadata_mut().insert(REQUEST_ID, id.parse().expect("it is metadata"));
    if let Some(parent) = parent {
        request.metadata_mut().insert("traceparent", parent.parse().expect("it is metadata"));
    }
    client.expect("the node listens").put(request).await.map(drop)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_trace_on_all_nodes_that_serve_it() {
    let (collector, endpoint) = Collector::start(Manner::Takes);
    let flags = ["--groups", "1", "--keyviz-step", "1s", "--otlp-endpoint", &endpoint];
    let cluster = Cluster::start(3, &flags);

    // At every node, so that two of the three pass it on.
    let mut passed_on = 0;
    for node in 0..3 {
        let (id, trace) = (format!("put-at-{node}"), format!("{:032x}", 0xabc0 + node));
        let parent = format!("00-{trace}-00000000000000{node:x}1-01");
        put(&cluster.grpc[node], "key", &id, Some(&parent)).await.expect("the cluster serves");
        let (at, span) = collector.span("keyviz.v1.Kv/Put", &id);
        assert_eq!(at, (node + 1).to_string());
        assert_eq!(span.kind, SpanKind::Server as i32);
        assert_eq!(hex(&span.trace_id), trace);
        assert_eq!(format!("00-{trace}-{}-01", hex(&span.parent_span_id)), parent);
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
        std::thread::sleep(std::time::Duration::from_secs(1));
        let leaders = collector.children("passed_on", &span);
        assert!(!leaders.contains(&at), "nobody passes it on to itself");
        passed_on += leaders.len();
    }
    assert_eq!(passed_on, 2);

    // Unless its caller does not sample it.
    let unsampled = format!("00-{:032x}-0000000000000001-00", 0xabcd);
    put(&cluster.grpc[0], "key", "unsampled", Some(&unsampled)).await.expect("served");
    // A refusal is an error.
    put(&cluster.grpc[0], "", "refused", None).await.expect_err("a key is never empty");
    let (_, refused) = collector.span("keyviz.v1.Kv/Put", "refused");
    let status = refused.status.expect("it has one");
    assert_eq!(status.code, 2, "{status:?}");
    assert!(status.message.starts_with("InvalidArgument: "), "{status:?}");
    let of_unsampled =
        |span: &Span| text(&span.attributes, "request.id").as_deref() == Some("unsampled");
    assert!(collector.spans(of_unsampled).is_empty());

    let client = KeyVizClient::connect(format!("http://{}", cluster.grpc[0])).await;
    let mut request = Request::new(proto::GetMatrixRequest::default());
    request.metadata_mut().insert(REQUEST_ID, "the-matrix".parse().expect("it is metadata"));
    let matrix = client.expect("the node listens").get_matrix(request).await.expect("a matrix");
    assert_eq!(matrix.into_inner().responded, 3);
    let (at, span) = collector.span("keyviz.v1.KeyViz/GetMatrix", "the-matrix");
    assert_eq!((at.as_str(), span.parent_span_id.len()), ("1", 0));
    for round in ["keyviz.v1.KeyVizPeer/Totals", "keyviz.v1.KeyVizPeer/Columns"] {
        eventually("both others took part", || collector.children(round, &span).len() == 2);
        assert!(!collector.children(round, &span).contains("1"));
    }
    let of_the_matrix =
        |span: &Span| text(&span.attributes, "request.id").as_deref() == Some("the-matrix");
    assert_eq!(collector.spans(of_the_matrix).len(), 5, "the id goes with both rounds");
    for node in 0..3 {
        assert_eq!(cluster.metric(node, DROPPED), Some(0.0));
    }
}

/// Requests are served while collectors take nothing; what they miss is counted.
#[tokio::test(flavor = "multi_thread")]
async fn no_harm_collectors_that_hang_refuse_or_are_gone_cost_spans_alone() {
    let (_, refuses) = Collector::start(Manner::Refuses);
    let (_, hangs) = Collector::start(Manner::Hangs);
    let gone = format!("http://{}", free_addresses(1).remove(0));
    let mut cluster = Cluster::prepare(3, &["--groups", "1"]);
    for (node, endpoint) in [refuses, hangs, gone].into_iter().enumerate() {
        cluster.environment[node].push(("KEYVIZ_OTLP_ENDPOINT".into(), endpoint.into()));
        cluster.spawn(node);
    }
    cluster.wait_until_serving();
    for round in 0..100 {
        for address in &cluster.grpc {
            let id = format!("put-{round}");
            put(address, "key", &id, None).await.expect("the cluster serves");
        }
    }
    for node in 0..3 {
        eventually("what was dropped is counted", || {
            cluster.metric(node, DROPPED).is_some_and(|dropped| dropped >= 100.0)
        });
        assert!(cluster.log(node).contains("does not take spans"), "the log says so");
    }
    let arguments = ["serve", "--id", "1", "--data", "x", "--otlp-endpoint", "a:1"];
    let refused = Command::new(KEYVIZ).args(arguments).output().expect("it starts");
    assert_eq!(refused.status.code(), Some(2));
    let said = stderr(&refused);
    assert!(said.contains("--otlp-endpoint") && said.contains("http://HOST:PORT"), "{said}");
}
