//! Roles: every call with the token of every role, and the lines that changes leave in the log.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tempfile::TempDir;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::secured::{http, text};
use crate::support::{Cluster, eventually, stderr, write_file};
use keyviz_proto as proto;

/// The tokens, from the least role to the highest.
const TOKENS: [(&str, &str); 4] = [
    ("store", "the-store-token-of-this-test"),
    ("viewer", "the-viewer-token-of-this-test"),
    ("operator", "the-operator-token-of-this-test"),
    ("admin", "the-admin-token-of-this-test"),
];

/// Who may make a call.
const STORE: &[&str] = &["store", "admin"];
const ALL: &[&str] = &["store", "viewer", "operator", "admin"];
const VIEWERS: &[&str] = &["viewer", "operator", "admin"];
const OPERATORS: &[&str] = &["operator", "admin"];
const ADMINS: &[&str] = &["admin"];
const NODES: &[&str] = &[];

/// The roles of each call. A call that is not here fails the test.
fn expected(service: &str, method: &str) -> &'static [&'static str] {
    match (service, method) {
        ("Kv", _) => STORE,
        ("Routes", "ListRoutes" | "StreamRoutes" | "WatchRoutes" | "RouteHistory") => ALL,
        ("Routes", "SplitRoute" | "MergeRoutes" | "MoveRoute" | "CancelMove") => OPERATORS,
        ("Cluster", "GetStatus" | "GetCapabilities") => ALL,
        ("Cluster", "TransferLeader" | "Verify") => OPERATORS,
        ("Cluster", "AddNode" | "RemoveNode") => ADMINS,
        ("Backup", _) => ADMINS,
        (
            "KeyViz",
            "GetMatrix" | "GetNodeMatrix" | "StreamMatrix" | "StreamNodeMatrix" | "StreamColumns"
            | "GetHotKeys" | "GetNodeHotKeys" | "GetFindings" | "StreamFindings" | "TopRanges"
            | "GetLoads" | "GetNodeLoads",
        ) => VIEWERS,
        ("Cluster", "GetAutopilot" | "AutopilotLog" | "PreviewAct") => VIEWERS,
        ("Cluster", "SetAutopilot" | "DoAct") => OPERATORS,
        ("RaftTransport" | "KvPeer" | "KeyVizPeer" | "ClusterPeer", _) => NODES,
        _ => panic!("nobody placed {service}/{method}"),
    }
}

fn cluster(folder: &TempDir) -> Cluster {
    let mut flags = vec!["--keyviz-step".to_owned(), "1s".to_owned()];
    for (role, token) in TOKENS {
        // A newline at the end of a file is no part of the token.
        let path = write_file(folder.path(), role, &format!("{token}\n"));
        flags.extend([format!("--{role}-token-file"), text(&path).to_owned()]);
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut cluster = Cluster::prepare(1, &[&["--groups", "1"][..], &flags].concat());
    cluster.spawn(0);
    let http_at = cluster.http[0].clone();
    eventually("the node is ready", || http(&http_at, "/readyz", "").is_ok_and(|a| a.0 == 200));
    cluster
}

/// What the gate says to an empty request; `None`: it lets it in.
async fn refusal(address: &str, path: &str, token: Option<&str>) -> Option<Code> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
    let channel = endpoint.expect("an address").connect().await.expect("a connection");
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("connected");
    let mut request = Request::new(());
    if let Some(token) = token {
        let bearer = format!("Bearer {token}").parse().expect("a header");
        request.metadata_mut().insert("authorization", bearer);
    }
    let path: PathAndQuery = path.parse().expect("a path");
    let codec = ProstCodec::<(), ()>::default();
    let asked = client.server_streaming(request, path, codec);
    let code = match tokio::time::timeout(Duration::from_secs(5), asked).await {
        Ok(Err(status)) => status.code(),
        // What has begun was let in.
        Ok(Ok(_)) | Err(_) => Code::Ok,
    };
    matches!(code, Code::Unauthenticated | Code::PermissionDenied).then_some(code)
}

#[test]
fn every_call_is_open_to_its_roles_and_to_no_other() {
    let folder = TempDir::new().expect("a folder");
    let cluster = cluster(&folder);
    let files = FileDescriptorSet::decode(proto::DESCRIPTOR_SET).expect("made by the build");
    let mut calls = BTreeMap::new();
    for service in files.file.iter().flat_map(|file| &file.service) {
        for method in &service.method {
            let path = format!("/keyviz.v1.{}/{}", service.name(), method.name());
            calls.insert(path, expected(service.name(), method.name()));
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        for (path, may) in &calls {
            let none = refusal(&cluster.grpc[0], path, None).await;
            assert_eq!(none, Some(Code::Unauthenticated), "{path} without a token");
            for (role, token) in TOKENS {
                let refused = refusal(&cluster.grpc[0], path, Some(token)).await;
                let expected = match (may.contains(&role), may.is_empty()) {
                    (true, _) => None,
                    (false, true) => Some(Code::Unauthenticated),
                    (false, false) => Some(Code::PermissionDenied),
                };
                assert_eq!(refused, expected, "{path} as {role}");
            }
        }
    });
}

#[test]
fn a_viewer_who_changes_something_is_told_so_and_changes_leave_a_line_in_the_log() {
    let folder = TempDir::new().expect("a folder");
    let cluster = cluster(&folder);
    let run = |role: &str, command: &[&str]| {
        let file = text(&folder.path().join(role)).to_owned();
        cluster.run(&[command, &["--token-file", &file]].concat())
    };
    assert!(run("viewer", &["heat"]).status.success());
    assert!(run("store", &["put", "a", "1"]).status.success());
    let refused = run("viewer", &["routes", "split", "1", "m"]);
    assert_eq!(refused.status.code(), Some(5));
    let words = "this needs the operator or admin token, and the token given is that of the role \
                 viewer";
    assert!(stderr(&refused).contains(words), "{}", stderr(&refused));
    let refused = run("viewer", &["get", "a"]);
    assert!(stderr(&refused).contains("PERMISSION_DENIED"), "{}", stderr(&refused));
    assert!(run("operator", &["routes", "split", "1", "m"]).status.success());
    let split = |token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        http(&cluster.http[0], "/api/v1/routes/split", &header).expect("an answer").0
    };
    // A GET there is no call at all, which only an admin may find out.
    assert_eq!(split(TOKENS[1].1), 403);
    let log = cluster.log(0);
    let line = log.lines().find(|line| line.contains("keyviz::audit")).expect("an audit line");
    for part in [
        "operator (token 1)",
        "127.0.0.1",
        "/keyviz.v1.Routes/SplitRoute",
        "split: 1 became 2, 3 at version 2",
        "done",
    ] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    assert_eq!(log.matches("keyviz::audit").count(), 1, "{log}");
    assert!(TOKENS.iter().all(|(_, token)| !log.contains(token)), "{log}");
}
