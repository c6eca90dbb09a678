//! What callers meet at the two ports of a node: names, compressed and malformed calls,
//! connections, metrics; and what others find in its folder.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{self, Cluster, KEYVIZ, eventually, free_addresses, is_ready, stderr};
use keyviz_proto as proto;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

/// The status and the rest of an answer to a request as given.
fn ask(address: &str, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("the node listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    stream.write_all(request.as_bytes()).expect("the node reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the node answers");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), answer)
}

fn get(address: &str, path: &str, host: &str, headers: &str) -> (u16, String) {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n");
    ask(address, &request)
}

fn split(address: &str, host: &str, headers: &str) -> (u16, String) {
    let body = r#"{"route_id": 1, "key": "m"}"#;
    let length = body.len();
    let request = format!(
        "POST /api/v1/routes/split HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Type: \
         application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    ask(address, &request)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn channel(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("the node listens")
}

#[test]
fn a_foreign_page_neither_reads_nor_changes_a_node_on_loopback() {
    let cluster = Cluster::start(1, &["--groups", "1", "--http-host", "proxy.example"]);
    let http = &cluster.http[0];
    let port = http.rsplit_once(':').expect("host:port").1;
    // A rebound name: of one origin with itself, as browsers see it.
    let same_site = "Sec-Fetch-Site: same-origin\r\n";
    for path in ["/", "/api/v1/cluster", "/api/v1/matrix", "/api/v1/routes", "/metrics"] {
        let (status, answer) = get(http, path, &format!("evil.example:{port}"), same_site);
        assert_eq!(status, 421, "{path}: {answer}");
        assert!(answer.contains("is not called") && answer.contains("--http-host"), "{answer}");
    }
    let origin = format!("{same_site}Origin: http://evil.example:{port}\r\n");
    let (status, answer) = split(http, &format!("evil.example:{port}"), &origin);
    assert_eq!(status, 421, "{answer}");
    // A page of another site that sends what it likes to this one.
    let (status, answer) = split(http, http, "Origin: http://evil.example\r\n");
    assert_eq!(status, 403, "{answer}");
    let (status, _) = split(http, http, "Origin: null\r\n");
    assert_eq!(status, 403);
    let routes = cluster.run_on(0, &["routes", "list", "--format", "csv"]);
    assert_eq!(String::from_utf8_lossy(&routes.stdout).lines().count(), 2, "nothing was split");
    // The node's own names.
    for host in [http.clone(), format!("localhost:{port}"), "proxy.example".to_owned()] {
        assert_eq!(get(http, "/api/v1/cluster", &host, "").0, 200, "{host}");
    }
    let (status, answer) =
        split(http, &format!("localhost:{port}"), &format!("Origin: http://localhost:{port}\r\n"));
    assert_eq!(status, 200, "{answer}");
    // Probes have whatever name they like.
    assert_eq!(get(http, "/readyz", "10.1.2.3:7501", "").0, 200);
}

#[test]
fn calls_may_be_compressed_and_one_that_is_no_message_is_the_callers_fault() {
    let cluster = Cluster::start(1, &["--groups", "1"]);
    runtime().block_on(async {
        let channel = channel(&cluster.grpc[0]).await;
        let large = bytes::Bytes::from(vec![b'v'; 100_000]);
        for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
            let mut kv = proto::kv_client::KvClient::new(channel.clone())
                .send_compressed(encoding)
                .accept_compressed(encoding);
            let put = proto::PutRequest { key: "k".into(), value: large.clone() };
            kv.put(put).await.expect("compressed calls are taken");
            let get = proto::GetRequest { key: "k".into(), consistency: 0 };
            let got = kv.get(get).await.expect("compressed answers come");
            let encoded = got.metadata().get("grpc-encoding").cloned();
            assert!(encoded.is_some(), "the answer is compressed where that is taken");
            assert_eq!(got.into_inner().value.as_deref(), Some(&large[..]));
            let mut routes = proto::routes_client::RoutesClient::new(channel.clone())
                .send_compressed(encoding)
                .accept_compressed(encoding);
            routes.list_routes(proto::ListRoutesRequest::default()).await.expect("routes too");
            let mut cluster = proto::cluster_client::ClusterClient::new(channel.clone())
                .send_compressed(encoding)
                .accept_compressed(encoding);
            cluster.get_status(proto::GetStatusRequest {}).await.expect("the status too");
        }
        // Field 1 of these calls is bytes or text, and a number comes.
        for path in ["/keyviz.v1.Kv/Put", "/keyviz.v1.Kv/Get", "/keyviz.v1.Kv/Delete"] {
            let mut grpc = tonic::client::Grpc::new(channel.clone());
            grpc.ready().await.expect("the node listens");
            let codec =
                tonic_prost::ProstCodec::<proto::RemoveNodeRequest, proto::PutResponse>::default();
            let wrong = tonic::Request::new(proto::RemoveNodeRequest { id: 7 });
            let answered = grpc.unary(wrong, PathAndQuery::from_static(path), codec).await;
            let status = answered.expect_err("it is no message of this call");
            assert_eq!(status.code(), Code::InvalidArgument, "{path}: {status}");
        }
    });
}

#[test]
fn silent_connections_shut_nobody_out_under_a_small_limit_of_open_files() {
    let mut cluster = Cluster::start(1, &["--groups", "1"]);
    assert_eq!(cluster.stop(0), Some(0));
    let data = cluster.data(0);
    let mut child = Command::new("prlimit")
        .arg("--nofile=128:128")
        .args([KEYVIZ, "serve", "--id", "1", "--listen", &cluster.grpc[0]])
        .args(["--http", &cluster.http[0], "--data"])
        .arg(&data)
        .stderr(Stdio::null())
        .spawn()
        .expect("prlimit is part of util-linux");
    eventually("the node serves", || is_ready(&cluster.http[0]));
    let mut silent = Vec::new();
    for _ in 0..200 {
        // Some of them are closed again at once.
        silent.extend(TcpStream::connect(&cluster.grpc[0]));
        silent.extend(TcpStream::connect(&cluster.http[0]));
    }
    for n in 0..5 {
        let put = cluster.run_on(0, &["put", &format!("key/{n}"), "value"]);
        assert!(put.status.success(), "{}", stderr(&put));
        assert!(is_ready(&cluster.http[0]));
    }
    let closed = cluster.metric(0, "keyviz_connections_closed_idle_total");
    assert!(closed.is_some_and(|closed| closed > 100.0), "{closed:?}");
    drop(silent);
    support::signal(&child, "TERM");
    assert!(child.wait().expect("the process is ours").success());
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// Everything in a folder, and the folder.
fn all_in(path: &Path, found: &mut Vec<std::path::PathBuf>) {
    found.push(path.to_path_buf());
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("it is ours").flatten() {
            all_in(&entry.path(), found);
        }
    }
}

fn is_private(folder: &Path) {
    let mut found = Vec::new();
    all_in(folder, &mut found);
    assert!(found.len() > 5, "{found:?}");
    for path in found {
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), wanted, "{}", path.display());
    }
}

#[test]
fn the_folder_of_a_node_and_a_backup_are_nobody_elses_to_read() {
    let mut cluster = Cluster::start(1, &["--groups", "1"]);
    let put = cluster.run_on(0, &["put", "key", "value"]);
    assert!(put.status.success(), "{}", stderr(&put));
    is_private(&cluster.data(0));
    let backup = cluster.folder.path().join("a.backup");
    let made = cluster.run(&["backup", "--out", backup.to_str().expect("text")]);
    assert!(made.status.success(), "{}", stderr(&made));
    assert_eq!(mode(&backup), 0o600);
    let restored = cluster.folder.path().join("restored");
    let address = free_addresses(1).remove(0);
    let restore = Command::new(KEYVIZ)
        .args(["restore", "--id", "1", "--bootstrap", &format!("1={address}"), "--from"])
        .arg(&backup)
        .arg("--data")
        .arg(&restored)
        .output()
        .expect("the binary starts");
    assert!(restore.status.success(), "{}", stderr(&restore));
    is_private(&restored);
    // A folder that an earlier version made is closed at the next start.
    assert_eq!(cluster.stop(0), Some(0));
    let mut found = Vec::new();
    all_in(&cluster.data(0), &mut found);
    for path in found {
        let open = if path.is_dir() { 0o755 } else { 0o644 };
        let open = std::fs::Permissions::from_mode(open);
        std::fs::set_permissions(&path, open).expect("the folder is ours");
    }
    cluster.spawn(0);
    cluster.wait_until_serving();
    is_private(&cluster.data(0));
}

#[test]
fn metrics_are_what_a_scraper_asks_for_and_promtool_finds_nothing() {
    let cluster = Cluster::start(1, &["--groups", "1"]);
    for n in 0..20 {
        let put = cluster.run_on(0, &["put", &format!("key/{n}"), "value"]);
        assert!(put.status.success(), "{}", stderr(&put));
    }
    let http = &cluster.http[0];
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let (_, open) = get(http, "/metrics", http, accept);
    assert!(open.to_lowercase().contains("content-type: application/openmetrics-text"), "{open}");
    assert!(open.contains("# EOF\n") && open.contains("# TYPE keyviz_writes_proposed counter\n"));
    let (_, plain) = get(http, "/metrics", http, "");
    assert!(plain.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{plain}");
    assert!(!plain.contains("# EOF"));
    assert!(plain.contains("# TYPE keyviz_writes_proposed_total counter\n"));
    for page in [&open, &plain] {
        assert!(!page.contains("e308"), "the last bucket is +Inf");
        let histograms = page.lines().filter(|line| line.ends_with(" histogram"));
        for line in histograms {
            let name = line.split(' ').nth(2).expect("a name");
            let infinite = page.lines().any(|line| {
                line.starts_with(&format!("{name}_bucket")) && line.contains("le=\"+Inf\"")
            });
            assert!(infinite, "{name} has a last bucket");
        }
    }
    for name in [
        "raft_quorum{group=\"1\"} 1",
        "raft_leading{group=\"1\"} 1",
        "raft_leader_changes_total{group=\"1\"} 0",
        "group_proposals_total{group=\"1\"} ",
        "group_proposed_bytes_total{group=\"1\"} ",
        "group_reads_total{group=\"1\"} ",
        "connections{port=\"grpc\"} ",
        "connections{port=\"http\"} ",
        "connections_taken_total ",
        "log_lines_lost_total 0",
        "build_info{version=\"0.1.0\",data_format=\"2\"} 1",
        "start_time_seconds ",
    ] {
        assert!(plain.contains(&format!("\nkeyviz_{name}")), "{name} is not in:\n{plain}");
    }
    // Whoever has promtool checks it with the field's own tool.
    let body = plain.split_once("\r\n\r\n").expect("an answer has a head").1;
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        println!("promtool is not installed");
        return;
    };
    let page: String = body.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let page: String = page
        .lines()
        .filter(|line| line.starts_with("# ") || line.starts_with("keyviz_"))
        .map(|line| format!("{line}\n"))
        .collect();
    promtool.stdin.take().expect("piped").write_all(page.as_bytes()).expect("it reads");
    let checked = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
}

#[test]
fn a_command_that_is_given_the_http_port_says_so() {
    let cluster = Cluster::start(1, &["--groups", "1"]);
    let http = cluster.http[0].clone();
    for command in [&["get", "a"][..], &["put", "a", "b"], &["routes", "list"]] {
        let ran = Command::new(KEYVIZ)
            .args(command)
            .args(["--node", http.as_str()])
            .output()
            .expect("the binary starts");
        let said = stderr(&ran);
        assert!(!ran.status.success(), "{command:?}");
        assert!(said.contains("it does not speak gRPC"), "{command:?}: {said}");
        assert!(said.contains("not of --http") && !said.contains("may or may not"), "{said}");
    }
}
