use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::{Either, select};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{BootstrapSpec, KeyvizConfig, Node, NodeConfig, Origin};
use keyviz_core::{HistoryConfig, SamplerConfig};
use keyviz_raft::{GroupOptions, StorageOptions};
use keyviz_security::SecurityConfig;
use keyviz_types::NodeId;

/// Every loop, by name.
const ALL: [ControlLoop; 20] = [
    ControlLoop::Credentials,
    ControlLoop::DiskSpace,
    ControlLoop::Members,
    ControlLoop::Disks,
    ControlLoop::Handshakes,
    ControlLoop::Placement,
    ControlLoop::Leadership,
    ControlLoop::Membership,
    ControlLoop::Balancer,
    ControlLoop::Verifier,
    ControlLoop::Mover,
    ControlLoop::Autopilot,
    ControlLoop::Flusher,
    ControlLoop::Copier,
    ControlLoop::Addresses,
    ControlLoop::Connections,
    ControlLoop::LeaderLog,
    ControlLoop::Alerts,
    ControlLoop::Grpc,
    ControlLoop::Http,
];

/// How a loop is made to end.
#[derive(Clone, Copy, Debug)]
enum End {
    Panic,
    Return,
}

/// Ends a loop once, when it is told to.
#[derive(Clone)]
struct Killer {
    which: ControlLoop,
    how: End,
    now: CancellationToken,
    done: Arc<AtomicBool>,
}

impl Killer {
    fn wrap(&self) -> LoopWrap {
        let killer = self.clone();
        Arc::new(move |name, running| match name == killer.which.name() {
            false => running,
            true => killer.clone().watch(running).boxed(),
        })
    }

    async fn watch(self, running: BoxFuture<'static, ()>) {
        let killed = Box::pin(self.now.clone().cancelled_owned());
        match select(running, killed).await {
            Either::Left(((), _)) => {}
            // A restarted loop is left alone.
            Either::Right(((), running)) if self.done.swap(true, Ordering::SeqCst) => {
                running.await;
            }
            Either::Right(_) => match self.how {
                End::Panic => panic!("put in by a test"),
                End::Return => {}
            },
        }
    }
}

/// A cluster of one node with every loop.
async fn start(folder: &TempDir, supervisor: Supervisor) -> Node {
    let token = folder.path().join("token");
    std::fs::write(&token, "a-token-of-a-test\n").expect("a file");
    let free = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let listen = free.local_addr().expect("a bound socket has an address");
    drop(free);
    let members = BTreeMap::from([(NodeId(1), listen.to_string())]);
    let config = NodeConfig {
        id: NodeId(1),
        data: folder.path().join("data"),
        listen,
        advertise: Some(listen.to_string()),
        http: Some("127.0.0.1:0".parse().expect("it is an address")),
        http_hosts: Vec::new(),
        origin: Origin::Bootstrap(BootstrapSpec::new(members, 1, 1, Vec::new()).expect("a plan")),
        keyviz: KeyvizConfig {
            hash_keys: false,
            copies: 3,
            copies_bytes: 64 << 20,
            sampler: SamplerConfig::default(),
            history: HistoryConfig::default(),
        },
        move_bytes_per_s: GroupOptions::default().move_bytes_per_s,
        verify_every: Duration::from_secs(86_400),
        verify_bytes_per_s: 1 << 20,
        replace_after: Duration::ZERO,
        autopilot: keyviz_server::AutopilotConfig::default(),
        storage: StorageOptions { cache_bytes: 1 << 20, ..StorageOptions::default() },
        queue_bytes: GroupOptions::QUEUE_BYTES,
        request_timeout: Duration::from_secs(5),
        security: SecurityConfig { admin_token: Some(token), ..SecurityConfig::default() },
        lost_log_lines: || 0,
        dropped_spans: || 0,
        alerts: Default::default(),
    };
    let started =
        Node::start_supervised(config, Box::pin(std::future::pending()), supervisor).await;
    started.expect("it starts").expect("nothing stops it")
}

/// The answer of the node to a GET, head and body.
async fn get(node: &Node, path: &str) -> String {
    let address = node.http_address().expect("it serves HTTP");
    let asked = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    asked.await.unwrap_or_default()
}

/// Waits for an answer.
async fn eventually(node: &Node, path: &str, wanted: impl Fn(&str) -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let answer = get(node, path).await;
        if wanted(&answer) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{path} answers {answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends a loop of a running node, and looks at what the node does.
async fn kill(which: ControlLoop, how: End) {
    let folder = TempDir::new().expect("a folder");
    let now = CancellationToken::new();
    let killer = Killer { which, how, now: now.clone(), done: Arc::default() };
    let node = start(&folder, Supervisor::wrapping(killer.wrap())).await;
    eventually(&node, "/readyz", |answer| answer.ends_with("ready\n")).await;
    now.cancel();
    match which.policy() {
        Policy::StopNode => {
            let failed = tokio::time::timeout(Duration::from_secs(60), node.failed()).await;
            let reason = failed.unwrap_or_else(|_| panic!("{which:?}: the node goes on"));
            let what = match how {
                End::Panic => "panicked: put in by a test",
                End::Return => "ended",
            };
            assert_eq!(reason, format!("the control loop \"{}\" {what}", which.name()));
            if which != ControlLoop::Http {
                let says = |answer: &str| {
                    answer.starts_with("HTTP/1.1 503") && answer.contains(which.name())
                };
                eventually(&node, "/readyz", says).await;
            }
        }
        Policy::Restart => {
            let name = which.name();
            let counted = format!("keyviz_loop_restarts_total{{loop=\"{name}\"}} 1");
            eventually(&node, "/metrics", |answer| answer.contains(&counted)).await;
            eventually(&node, "/readyz", |answer| answer.ends_with("ready\n")).await;
            assert!(node.failure.borrow().is_none(), "{which:?}");
        }
    }
    node.shutdown().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_control_loop_that_panics_stops_the_node_or_is_restarted() {
    for which in ALL {
        kill(which, End::Panic).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_control_loop_that_ends_stops_the_node_or_is_restarted() {
    // The loop of a group ends with its group.
    for which in ALL.into_iter().filter(|which| !which.may_end()) {
        kill(which, End::Return).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_runs_every_control_loop() {
    let folder = TempDir::new().expect("a folder");
    let supervisor = Supervisor::default();
    let health = supervisor.health();
    let node = start(&folder, supervisor).await;
    eventually(&node, "/readyz", |answer| answer.ends_with("ready\n")).await;
    let running: Vec<&str> = health.restarts().into_keys().collect();
    let mut all = ALL.map(ControlLoop::name);
    all.sort_unstable();
    assert_eq!(running, all);
    node.shutdown().await.expect("it stops");
}

#[tokio::test]
async fn a_loop_of_raft_that_panics_stops_the_node() {
    let supervisor = Supervisor::default();
    let (failed, receiver) = watch::channel(None);
    supervisor.follow(receiver);
    let reason = "the loop \"log writer\" panicked: put in by a test".to_owned();
    failed.send_replace(Some(reason.clone()));
    let mut failure = supervisor.failure();
    assert_eq!(*failure.wait_for(Option::is_some).await.expect("it is kept"), Some(reason.clone()));
    assert_eq!(supervisor.health().failure(), Some(reason.as_str()), "for /readyz");
}

/// The handbook names each loop and what happens after it ended.
#[test]
fn the_handbook_describes_every_control_loop() {
    let handbook = include_str!("../../../../docs/operations.md");
    for which in ALL {
        let then = match which.policy() {
            Policy::StopNode => "stops",
            Policy::Restart => "is restarted",
        };
        let (starts, ends) = (format!("| {} |", which.name()), format!("| {then} |"));
        let described =
            handbook.lines().any(|line| line.starts_with(&starts) && line.ends_with(&ends));
        assert!(described, "docs/operations.md has no row for {which:?} that ends with {ends:?}");
    }
    for which in keyviz_raft::RaftLoop::ALL {
        let starts = format!("| {} |", which.name());
        let described =
            handbook.lines().any(|line| line.starts_with(&starts) && line.ends_with("| stops |"));
        assert!(described, "docs/operations.md has no row for {which:?} that ends with \"stops\"");
    }
}
