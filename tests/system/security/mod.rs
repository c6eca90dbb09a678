//! TLS, the admin token and the cluster secret, on real processes: what is let in, what is refused
//! and with which status, and that all of it can be replaced while the nodes run.

mod handbook;
mod roles;
mod secured;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::certs::{Authority, Pair, Use};
use crate::support::{self, Cluster, KEYVIZ, eventually, free_addresses, stderr, write_file};
use keyviz_proto as proto;
use keyviz_security::ClientTls;
use secured::{SECRET, Secured, TOKEN, done, http, https, peer_call, refused, runtime, text};
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Endpoint;

#[test]
fn every_wrong_client_is_refused_with_its_status() {
    let files = Secured::new();
    let cluster = files.cluster(1, &["--groups", "1", "--log", "trace"]);
    let (ca, token) = (files.path("ca.pem"), files.path("token"));
    let tls: &[&str] = &["--tls-ca", &ca];
    let run = |arguments: &[&str], access: &[&str]| cluster.run(&[arguments, access].concat());
    let with_token = [tls, &["--token-file", &token]].concat();

    // The store asks for nothing but TLS.
    done(&run(&["put", "a", "one"], tls));
    done(&run(&["get", "a"], tls));
    done(&run(&["routes", "list"], tls));
    done(&run(&["cluster", "status"], tls));

    // No token, a wrong one, the right one.
    files.write("wrong", "the-admin-token-of-another");
    let (wrong, long) = (files.path("wrong"), files.path("long"));
    files.write("long", &format!("{TOKEN}x"));
    let guarded: [&[&str]; 4] = [
        &["routes", "split", "1", "m"],
        &["heat"],
        &["heat", "--scope", "node"],
        &["cluster", "transfer-leader", "1", "1"],
    ];
    for command in guarded {
        refused(&run(command, tls), &["UNAUTHENTICATED", "needs the admin token"]);
        for wrong in [&wrong, &long] {
            let access = [tls, &["--token-file", wrong]].concat();
            refused(&run(command, &access), &["UNAUTHENTICATED", "is another one"]);
        }
    }
    done(&run(&["routes", "split", "1", "m"], &with_token));
    done(&run(&["heat"], &with_token));
    let by_variable = Command::new(KEYVIZ)
        .args(["heat", "--node", &cluster.grpc[0], "--tls-ca", &ca])
        .env("KEYVIZ_TOKEN", TOKEN)
        .output()
        .expect("the binary starts");
    done(&by_variable);

    // Certificates: a client's is taken, and none of what is expired or another's.
    let client = files.issue("client", Use::Client);
    let expired = files.issue("expired", Use::Expired);
    let other = Authority::new("another");
    let foreign = other.issue(files.folder.path(), "foreign", Use::Node);
    let get = |pair: &Pair| {
        let own = ["--tls-cert", text(&pair.cert), "--tls-key", text(&pair.key)];
        run(&["get", "a"], &[tls, &own].concat())
    };
    done(&get(&client));
    refused(&get(&expired), &["UNAUTHENTICATED", "it has expired"]);
    refused(&get(&foreign), &["UNAUTHENTICATED", "it is not of this CA"]);
    let other_ca = other.write(files.folder.path(), "other-ca.pem");
    refused(
        &run(&["get", "a"], &["--tls-ca", text(&other_ca)]),
        &["no node answered", "UnknownIssuer"],
    );

    // Plain text, from this program and from any other.
    refused(&run(&["put", "a", "two"], &[]), &["no node answered", "TLS only", "--tls-ca"]);
    let code = runtime().block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{}", cluster.grpc[0])).expect("one");
        let channel = endpoint.connect().await.expect("TCP works");
        let get = proto::GetRequest { key: "a".into(), consistency: 0 };
        proto::kv_client::KvClient::new(channel).get(get).await.expect_err("TLS only").code()
    });
    assert_eq!(code, Code::PermissionDenied);

    // Calls between nodes.
    let tls_of =
        |pair: &Pair| ClientTls::open(Path::new(&ca), Some((&pair.cert, &pair.key))).expect("TLS");
    let bare = ClientTls::open(Path::new(&ca), None).expect("TLS");
    let node = Pair { cert: files.path("node.pem").into(), key: files.path("node.key").into() };
    let peer = |tls: &ClientTls, secret| peer_call(&cluster.grpc[0], Some(tls), secret);
    assert_eq!(peer(&tls_of(&node), None), Code::Ok);
    assert_eq!(peer(&bare, Some(SECRET)), Code::Ok);
    for (tls, secret) in [
        (&bare, None),
        (&tls_of(&client), None),
        (&tls_of(&expired), None),
        (&tls_of(&expired), Some(SECRET)),
        (&bare, Some("the-cluster-secret-of-another")),
        (&tls_of(&node), Some("the-cluster-secret-of-another")),
    ] {
        assert_eq!(peer(tls, secret), Code::Unauthenticated, "{secret:?}");
    }

    // HTTP.
    let https = |path: &str, header: &str| https(&cluster.http[0], &ca, path, header).expect(path);
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    for open in ["/", "/healthz", "/readyz", "/metrics"] {
        assert_eq!(https(open, "").0, 200, "{open}");
    }
    for path in
        ["/api/v1/matrix", "/api/v1/routes", "/api/v1/cluster", "/api/v1/stream", "/api/v1/x"]
    {
        for header in ["", "Authorization: Bearer wrong\r\n"] {
            let (status, body) = https(path, header);
            assert_eq!(status, 401, "{path}");
            let body: serde_json::Value = serde_json::from_str(&body).expect("errors are JSON");
            assert_eq!(body["code"], "UNAUTHENTICATED", "{path}");
            assert!(body["message"].as_str().is_some_and(|m| m.contains("token")), "{body}");
        }
    }
    assert_eq!(https("/api/v1/matrix", &bearer).0, 200);
    assert_eq!(https("/api/v1/cluster", &bearer).0, 200);
    assert_eq!(https("/api/v1/x", &bearer).0, 404);
    let (status, events) = https("/api/v1/stream", &bearer);
    assert_eq!(status, 200);
    assert!(events.contains("event: columns") || events.contains("data:"), "{events}");
    let (status, body) = http(&cluster.http[0], "/", "").expect("an answer in plain text");
    assert_eq!(status, 403, "{body}");
    assert!(body.contains("TLS only"), "{body}");

    // Nothing of this is anywhere to be read.
    let key = std::fs::read_to_string(files.path("node.key")).expect("the key");
    let key_line = key.lines().nth(1).expect("PEM has lines").to_owned();
    let metrics = https("/metrics", "").1;
    let log = cluster.log(0);
    assert!(log.contains("refused a call") && log.contains("TRACE"), "the log has all of it");
    assert!(log.contains("TLS on both ports; changes, heatmaps and /api/ ask for the admin token"));
    for secret in [TOKEN, SECRET, &key_line, "the-admin-token", "the-cluster-secret"] {
        assert!(!log.contains(secret) && !metrics.contains(secret), "{secret} can be read");
    }
}

#[test]
fn a_file_that_cannot_be_used_stops_the_start_and_is_named() {
    let files = Secured::new();
    let (ca, address) = (files.path("ca.pem"), free_addresses(1).remove(0));
    files.issue("expired", Use::Expired);
    files.issue("client", Use::Client);
    Authority::new("another").issue(files.folder.path(), "foreign", Use::Node);
    files.write("empty", "\n");
    let data = files.path("data");
    let member = format!("1={address}");
    let serve = |flags: &[&str]| {
        Command::new(KEYVIZ)
            .args(["serve", "--id", "1", "--listen", &address, "--data", &data])
            .args(["--bootstrap", &member])
            .args(flags)
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts")
    };
    let tls = |cert: &str, key: &str, words: &[&str]| {
        let (cert, key) = (files.path(cert), files.path(key));
        let flags = ["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &ca];
        refused(&serve(&flags), words);
    };
    tls("missing.pem", "node.key", &["cannot read the certificate", "missing.pem"]);
    tls("node.pem", "missing.key", &["cannot read the private key", "missing.key"]);
    tls("empty", "node.key", &["the certificate", "empty", "is empty"]);
    tls("token", "node.key", &["holds no certificate in PEM", "token"]);
    tls("node.pem", "token", &["holds no private key in PEM", "token"]);
    tls("node.pem", "client.key", &["the key is another certificate's"]);
    tls("expired.pem", "expired.key", &["expired.pem", "it has expired"]);
    tls("foreign.pem", "foreign.key", &["foreign.pem", "it is not of this CA"]);
    tls("client.pem", "client.key", &["client.pem", "extended key usage"]);
    for (flag, what) in
        [("--admin-token-file", "admin token"), ("--cluster-secret-file", "cluster secret")]
    {
        for (file, words) in [("missing", "cannot read"), ("empty", "is empty")] {
            let path = files.path(file);
            refused(&serve(&[flag, &path]), &[words, what, &path]);
        }
    }
    assert!(!Path::new(&data).exists(), "nothing was made");
    // Not even beyond loopback, where half of the protection is missing.
    let outside = Command::new(KEYVIZ)
        .args([
            "serve",
            "--id",
            "1",
            "--listen",
            "0.0.0.0:1",
            "--advertise",
            "a:1",
            "--data",
            &data,
        ])
        .args(["--admin-token-file", &files.path("token")])
        .output()
        .expect("the binary starts");
    assert_eq!(outside.status.code(), Some(2));
    assert!(stderr(&outside).contains("nothing is encrypted"), "{}", stderr(&outside));
}

#[test]
fn three_nodes_serve_a_load_over_tls_while_everything_is_replaced() {
    let files = Secured::new();
    let cluster = files.cluster(3, &["--groups", "2"]);
    let (ca, token) = (files.path("ca.pem"), files.path("token"));
    let all: &[&str] = &["--tls-ca", &ca, "--token-file", &token];
    let nodes = cluster.grpc.join(",");
    let load = Command::new(KEYVIZ)
        .args(["load", "--node", &nodes, "--tls-ca", &ca, "--keys", "500", "--clients", "4"])
        .args(["--rate", "200", "--duration", "12s", "--verify", "--format", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let said = |words: &str, times: usize| {
        eventually("every node takes the change over", || {
            (0..3).all(|index| cluster.log(index).matches(words).count() >= times)
        });
    };

    // The token: old and new for a while, then only new.
    files.write("old", TOKEN);
    files.write("new", "the-new-admin-token");
    let (old, new) = (files.path("old"), files.path("new"));
    let heat = |token: &str| {
        cluster.run(&["heat", "--tls-ca", &files.path("client-ca.pem"), "--token-file", token])
    };
    files.write("client-ca.pem", &files.authority.pem());
    refused(&heat(&new), &["UNAUTHENTICATED"]);
    files.write("token", &format!("{TOKEN}\nthe-new-admin-token\n"));
    said("took over the changed admin token", 1);
    done(&heat(&old));
    done(&heat(&new));
    files.write("token", "the-new-admin-token\n");
    said("took over the changed admin token", 2);
    done(&heat(&new));
    refused(&heat(&old), &["UNAUTHENTICATED"]);

    // The secret, on all nodes at once here, as the overlap lets it: accept, show, forget.
    for (step, content) in [
        format!("{SECRET}\nthe-new-cluster-secret\n"),
        format!("the-new-cluster-secret\n{SECRET}\n"),
        "the-new-cluster-secret\n".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        files.write("secret", content);
        said("took over the changed cluster secret", step + 1);
    }

    // The CA and the certificates. A half-written pair changes nothing.
    let next = Authority::new("keyviz test, next");
    files.write("ca.pem", &format!("{}{}", files.authority.pem(), next.pem()));
    said("took over the changed certificate", 1);
    let (cert, key) = next.sign(Use::Node);
    files.write("node.pem", &cert);
    said("the key is another certificate's", 1);
    files.write("node.key", &key);
    said("took over the changed certificate", 2);
    files.write("ca.pem", &next.pem());
    said("took over the changed certificate", 3);
    refused(&heat(&new), &["no node answered", "UnknownIssuer"]);
    files.write("client-ca.pem", &next.pem());
    done(&heat(&new));

    // SIGHUP means the same and ends nothing.
    files.write("token", "the-newest-admin-token\n");
    cluster.signal(0, "HUP");
    said("took over the changed admin token", 3);
    files.write("token", "the-new-admin-token\n");
    said("took over the changed admin token", 4);

    // New connections between the nodes are made with the new certificates and secret.
    let mut cluster = cluster;
    assert_eq!(cluster.stop(2), Some(0));
    cluster.spawn(2);
    let ready = |index: usize| {
        https(&cluster.http[index], &ca, "/readyz", "").is_ok_and(|answer| answer.0 == 200)
    };
    eventually("the restarted node serves", || ready(2));

    // A further node is taken in for its certificate, without token or secret, and not without.
    let address = free_addresses(1).remove(0);
    let join = |more: &[&str]| {
        let mut command = Command::new(KEYVIZ);
        command
            .args(["serve", "--id", "4", "--listen", &address, "--join", &cluster.grpc[0]])
            .args(["--data", &files.path("fourth"), "--keyviz-step", "1s"])
            .args(more)
            .stdin(Stdio::null());
        command
    };
    let plain = join(&[]).output().expect("the binary starts");
    refused(&plain, &["node 4 could not join", "TLS only"]);
    let (cert, key) = (files.path("node.pem"), files.path("node.key"));
    let log = std::fs::File::create(files.path("fourth.log")).expect("a file");
    let tls = ["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &ca];
    let _fourth = Ends(join(&tls).stderr(log).spawn().expect("the binary starts"));
    eventually("the fourth node is a member", || {
        let status = [&["cluster", "status", "--format", "json"], all].concat();
        let output = cluster.run_on(0, &status);
        let status =
            serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_default();
        let members = status["members"].as_array().cloned().unwrap_or_default();
        members.iter().any(|member| member["id"] == 4 && member["ok"] == true)
    });

    let load = load.wait_with_output().expect("the load ends");
    let report: serde_json::Value = serde_json::from_slice(&load.stdout).expect("JSON");
    assert!(report["writes_acked"].as_u64().is_some_and(|acked| acked > 300), "{report}");
    assert_eq!((&report["missing"], load.status.code()), (&0.into(), Some(0)), "{report}");
    let total = |index: usize| {
        let heat =
            [&["heat", "--last", "1h", "--series", "writes", "--format", "json"], all].concat();
        let output = cluster.run_on(index, &heat);
        done(&output);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")
    };
    eventually("every node has the same picture of all", || {
        let totals: Vec<_> = (0..3).map(total).collect();
        totals.iter().all(|heat| heat["responded"] == 4 && heat["total"] == totals[0]["total"])
            && totals[0]["total"].as_u64() >= report["writes_acked"].as_u64()
    });
}

/// Ends the process when the test does.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_node_with_another_clusters_secret_is_refused_until_it_has_ours() {
    let folder = TempDir::new().expect("a temporary folder");
    let write = |name: &str, content: &str| write_file(folder.path(), name, content);
    let ours = write("ours", SECRET);
    // A first start needs the others, so it has ours at first.
    let third = write("third", SECRET);
    let mut cluster = Cluster::prepare(3, &["--groups", "1"]);
    for (index, secret) in [(0, &ours), (1, &ours), (2, &third)] {
        cluster.flags.truncate(2);
        cluster.flags.extend(["--cluster-secret-file".into(), text(secret).into()]);
        cluster.spawn(index);
    }
    cluster.wait_until_serving();
    assert_eq!(cluster.stop(2), Some(0));
    write("third", "the-cluster-secret-of-another");
    cluster.spawn(2);
    let status = || cluster.json_on(0, &["cluster", "status"]);
    eventually("two of three serve", || cluster.run_on(0, &["put", "a", "1"]).status.success());
    eventually("the third runs", || support::http_answer(&cluster.http[2], "/healthz").is_ok());
    let third_member = || {
        let status = status();
        let members = status["members"].as_array().expect("members").clone();
        members.into_iter().find(|member| member["id"] == 3).expect("the third")
    };
    assert_eq!(third_member()["ok"], false);
    assert!(third_member()["error"].as_str().is_some_and(|e| e.contains("secret")), "{}", status());
    eventually("both sides say why", || {
        let (here, there) = (cluster.log(0) + &cluster.log(1), cluster.log(2));
        let why = "another cluster secret than this node";
        here.contains(&format!("refused a node from 127.0.0.1: the caller has {why}"))
            && there.contains(why)
    });
    assert_eq!(peer_call(&cluster.grpc[0], None, None), Code::Unauthenticated);
    assert_eq!(peer_call(&cluster.grpc[0], None, Some("x")), Code::Unauthenticated);
    assert_eq!(peer_call(&cluster.grpc[0], None, Some(SECRET)), Code::Ok);

    // A further node is taken in with the secret only.
    let address = free_addresses(1).remove(0);
    let join = |secret: &Path| {
        let mut command = Command::new(KEYVIZ);
        command
            .args(["serve", "--id", "4", "--listen", &address, "--join", &cluster.grpc[0]])
            .arg("--data")
            .arg(folder.path().join("fourth"))
            .arg("--cluster-secret-file")
            .arg(secret)
            .stdin(Stdio::null());
        command
    };
    let fourth = || {
        let members = status()["members"].as_array().expect("members").clone();
        members.iter().any(|member| member["id"] == 4 && member["ok"] == true)
    };
    let log = std::fs::File::create(folder.path().join("fourth.log")).expect("a file");
    let _runs = Ends(join(&ours).stderr(log).spawn().expect("the binary starts"));
    eventually("the fourth node is a member", fourth);

    // The right secret is taken over without a restart.
    write("third", SECRET);
    eventually("the third node is one of ours", || third_member()["ok"] == true);
    let log = cluster.log(2);
    assert!(log.contains("took over the changed cluster secret") && !log.contains(SECRET), "{log}");
}

#[test]
fn a_token_alone_keeps_strangers_from_passing_for_nodes() {
    let folder = TempDir::new().expect("a temporary folder");
    let write = |content: &str| write_file(folder.path(), "token", content);
    let token = write(TOKEN);
    let flags = ["--groups", "1", "--admin-token-file", text(&token)];
    let cluster = Cluster::start(3, &flags);
    assert!(cluster.log(0).contains("nodes show what follows from the admin token"));
    let strangers = |shown: &[Option<&str>]| {
        for secret in shown {
            let code = peer_call(&cluster.grpc[0], None, *secret);
            assert_eq!(code, Code::Unauthenticated, "{secret:?}");
        }
    };
    // Not even the token itself, which clients send.
    strangers(&[None, Some("x"), Some(TOKEN)]);
    done(&cluster.run(&["put", "a", "1"]));
    // The token is replaced, and nodes go on knowing each other.
    let both = format!("the-new-admin-token\n{TOKEN}\n");
    for (steps, content) in (1..).zip([&*both, "the-new-admin-token\n"]) {
        write(content);
        eventually("all take it over", || {
            let taken =
                |node| cluster.log(node).matches("took over the changed node secret").count();
            (0..3).all(|node| taken(node) == steps)
        });
        done(&cluster.run(&["put", "a", "2"]));
    }
    strangers(&[None, Some("the-new-admin-token")]);
    let status = cluster.json(&["cluster", "status"]);
    let members = status["members"].as_array().expect("members");
    assert!(members.iter().all(|member| member["ok"] == true), "{status}");
}
