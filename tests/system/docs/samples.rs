//! The samples of `docs/api.md`: the page shows the files, and the files run against a cluster.

use std::path::Path;
use std::process::{Command, Output};

use super::{read, root};
use crate::support::{Cluster, eventually, http_get, stderr};

#[test]
fn the_page_shows_the_samples_as_they_are() {
    let page = read(root("docs/api.md"));
    let mut shown = 0;
    for block in page.split("\n```").skip(1) {
        let Some((head, code)) = block.split_once('\n') else { continue };
        let Some((_, file)) = head.split_once(' ') else { continue };
        assert_eq!(
            code.trim_end(),
            read(root(file)).trim_end(),
            "docs/api.md does not show {file}"
        );
        shown += 1;
    }
    assert_eq!(shown, 4, "samples of docs/api.md");
}

fn has(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A node that has counted three writes.
fn node() -> (Cluster, String) {
    let cluster = Cluster::start(1, &["--keyviz-step", "1s"]);
    for key in ["user/1", "user/2", "user/3"] {
        assert!(cluster.run(&["put", key, "v"]).status.success());
    }
    let http = cluster.http[0].clone();
    eventually("the writes are in the matrix", || {
        http_get(&http, "/api/v1/matrix").contains("\"total\":3")
    });
    let url = format!("http://{http}");
    (cluster, url)
}

#[test]
fn the_python_sample_over_http_prints_the_hottest_rows() {
    if !has("python3", &["--version"]) {
        println!("skipped: python3 is not installed");
        return;
    }
    let (_cluster, url) = node();
    let sample = root("docs/samples/heatmap.py");
    let output = Command::new("python3").arg(sample).arg(url).output().expect("it starts");
    assert!(succeeded(&output).starts_with("3 writes, 1 of 1 nodes\n"), "{output:?}");
}

#[test]
fn the_python_sample_over_grpc_reads_what_it_wrote() {
    if !has("python3", &["-c", "import grpc, grpc_tools"]) {
        println!("skipped: python3 with grpcio and grpcio-tools is not installed");
        return;
    }
    let cluster = Cluster::start(1, &[]);
    let folder = tempfile::TempDir::new().expect("a folder");
    let out = folder.path().display();
    let stubs = Command::new("python3")
        .args(["-m", "grpc_tools.protoc", "-I", "proto"])
        .arg(format!("--python_out={out}"))
        .arg(format!("--grpc_python_out={out}"))
        .arg("proto/keyviz/v1/kv.proto")
        .current_dir(root(""))
        .output()
        .expect("it starts");
    succeeded(&stubs);
    let output = Command::new("python3")
        .arg(root("docs/samples/store.py"))
        .arg(&cluster.grpc[0])
        .env("PYTHONPATH", folder.path())
        .output()
        .expect("it starts");
    assert_eq!(succeeded(&output), "b'1'\nb'py/a' b'1'\n");
}

#[test]
fn the_go_sample_over_http_prints_the_hottest_rows() {
    if !has("go", &["version"]) {
        println!("skipped: there is no Go toolchain");
        return;
    }
    let (_cluster, url) = node();
    let folder = tempfile::TempDir::new().expect("a folder");
    let environment = |name: &str| folder.path().join(name);
    let output = Command::new("go")
        .arg("run")
        .arg(Path::new("docs/samples/go/heatmap.go"))
        .arg(url)
        .current_dir(root(""))
        .env("GOCACHE", environment("cache"))
        .env("GOFLAGS", "-mod=mod")
        .output()
        .expect("it starts");
    assert!(succeeded(&output).starts_with("3 writes, 1 of 1 nodes\n"), "{output:?}");
}
