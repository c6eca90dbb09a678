//! The most that somebody without credentials can make a node hold: each attack on a real process,
//! and the highest memory that it had, against the bound that `docs/operations.md` states.

use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::support::{Cluster, eventually};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use keyviz_proto as proto;
use keyviz_proto::batch_operation::Operation;
use keyviz_proto::kv_client::KvClient;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::codegen::http::Request;
use tonic::transport::{Channel, Endpoint};
use tower::Service as _;

const MIB: u64 = 1 << 20;

fn node() -> Cluster {
    Cluster::start(1, &["--replication", "1", "--groups", "1"])
}

/// A number of `/proc/PID/status`, in bytes.
fn memory(cluster: &Cluster, name: &str) -> u64 {
    let path = format!("/proc/{}/status", cluster.pid(0));
    let status = std::fs::read_to_string(path).expect("the node runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
    let number = line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB");
    number.parse::<u64>().expect("a number") * 1_024
}

/// Runs an attack; by how much the highest memory grew.
fn grown(cluster: &Cluster, what: &str, attack: impl Future<Output = ()>) -> u64 {
    let before = memory(cluster, "VmRSS");
    Runtime::new().expect("a runtime starts").block_on(attack);
    let grown = memory(cluster, "VmHWM").saturating_sub(before);
    println!("{what}: {} MiB before, {} MiB more at most", before / MIB, grown / MIB);
    grown
}

/// What the attack left to do may take a while on a busy machine.
fn serves(cluster: &Cluster) {
    eventually("the node serves others", || {
        cluster.run(&["put", "still", "here"]).status.success()
    });
}

async fn channel(cluster: &Cluster) -> Channel {
    let url = format!("http://{}", cluster.grpc[0]);
    Endpoint::from_shared(url).expect("an address").connect().await.expect("the node listens")
}

/// A message of a length that it says, of which it gives some bytes, and no more.
struct Unfinished {
    prefix: Option<Bytes>,
    left: usize,
    content: Bytes,
}

impl Unfinished {
    fn new(length: usize, given: usize, pattern: &[u8]) -> Self {
        let length = u32::try_from(length).expect("it fits");
        let prefix = [&[0][..], &length.to_be_bytes()].concat();
        let content = pattern.repeat((64 << 10) / pattern.len()).into();
        Unfinished { prefix: Some(prefix.into()), left: given, content }
    }
}

impl HttpBody for Unfinished {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        if let Some(prefix) = self.prefix.take() {
            return Poll::Ready(Some(Ok(Frame::data(prefix))));
        }
        if self.left == 0 {
            return Poll::Pending;
        }
        let piece = self.content.slice(..self.content.len().min(self.left));
        self.left -= piece.len();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// Makes a call with this body and does not wait for more than its answer's head.
async fn send(mut channel: Channel, path: &str, body: Unfinished) {
    let request = Request::post(format!("http://node{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(body))
        .expect("a request");
    std::future::poll_fn(|context| channel.poll_ready(context)).await.expect("it is connected");
    // Answered, refused or open still: whatever the node made of it.
    let _ = tokio::time::timeout(Duration::from_secs(5), channel.call(request)).await;
}

#[test]
fn bounds_messages_that_are_never_whole() {
    let cluster = node();
    for (what, length) in [("puts of 16 MiB", 16 << 20), ("puts of 1 MiB", 1 << 20)] {
        let attack = async {
            let mut calls = Vec::new();
            for _ in 0..4 {
                let channel = channel(&cluster).await;
                for _ in 0..220 {
                    let body = Unfinished::new(length, length - 1, b"x");
                    calls.push(send(channel.clone(), "/keyviz.v1.Kv/Put", body));
                }
            }
            futures::future::join_all(calls).await;
        };
        let grown = grown(&cluster, what, attack);
        assert!(grown < 320 * MIB, "{what}: {} MiB", grown / MIB);
        serves(&cluster);
    }
}

#[test]
fn bounds_batches_of_millions_of_empty_operations() {
    let cluster = node();
    for (what, length) in [("16 MiB", 16 << 20), ("4 MiB", 4 << 20)] {
        let attack = async {
            let channel = channel(&cluster).await;
            let calls = (0..16).map(|_| {
                let body = Unfinished::new(length, length, &[0x0a, 0x00]);
                send(channel.clone(), "/keyviz.v1.Kv/Batch", body)
            });
            futures::future::join_all(calls).await;
        };
        let grown = grown(&cluster, &format!("batches of {what} of nothing"), attack);
        assert!(grown < 256 * MIB, "{what}: {} MiB", grown / MIB);
        serves(&cluster);
    }
}

#[test]
fn bounds_scans_and_values_that_nobody_reads() {
    let cluster = node();
    Runtime::new().expect("a runtime starts").block_on(async {
        let mut client = KvClient::new(channel(&cluster).await);
        for at in 0..40 {
            let put = |row: usize| proto::PutRequest {
                key: format!("k/{at:03}/{row:03}").into(),
                value: vec![b'v'; 8 << 10].into(),
            };
            let put = |row| proto::BatchOperation { operation: Some(Operation::Put(put(row))) };
            let batch = proto::BatchRequest { operations: (0..100).map(put).collect() };
            client.batch(batch).await.expect("it serves");
        }
        let large = proto::PutRequest { key: "large".into(), value: vec![b'v'; 1 << 20].into() };
        client.put(large).await.expect("it serves");
    });
    let attack = async {
        let mut unread = Vec::new();
        for _ in 0..2 {
            let channel = channel(&cluster).await;
            for _ in 0..200 {
                let mut client = KvClient::new(channel.clone());
                let scan = proto::ScanRequest { start: "k".into(), ..Default::default() };
                unread.extend(client.scan(scan).await.ok());
            }
        }
        assert!(unread.len() <= 256, "{} scans are taken on", unread.len());
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    let scans = grown(&cluster, "scans that nobody reads", attack);
    assert!(scans < 900 * MIB, "{} MiB", scans / MIB);
    serves(&cluster);
    let attack = async {
        let mut unread = Vec::new();
        for _ in 0..3 {
            // A window that the other side never opens.
            let url = format!("http://{}", cluster.grpc[0]);
            let endpoint = Endpoint::from_shared(url).expect("an address");
            let endpoint = endpoint.initial_stream_window_size(1).connect_lazy();
            for _ in 0..200 {
                let mut client = KvClient::new(endpoint.clone());
                unread.push(tokio::spawn(async move {
                    let get = proto::GetRequest { key: "large".into(), consistency: 0 };
                    let _ = client.get(get).await;
                }));
            }
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        unread.iter().for_each(tokio::task::JoinHandle::abort);
    };
    let values = grown(&cluster, "values that nobody reads", attack);
    assert!(values < 900 * MIB, "{} MiB", values / MIB);
    serves(&cluster);
}

#[test]
fn bounds_connections_that_say_nothing_keep_nobody_out() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("it may rise");
    let cluster = node();
    let mut silent = Vec::new();
    let before = memory(&cluster, "VmRSS");
    for _ in 0..2_500 {
        silent.extend(TcpStream::connect(&cluster.grpc[0]));
    }
    serves(&cluster);
    let half = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00";
    for stream in &mut silent {
        // Those that gave way to others are closed.
        let _ = std::io::Write::write_all(stream, half);
    }
    serves(&cluster);
    let grown = memory(&cluster, "VmHWM").saturating_sub(before);
    println!("{} silent connections: {} MiB more at most", silent.len(), grown / MIB);
    assert!(grown < 200 * MIB, "{} MiB", grown / MIB);
}
