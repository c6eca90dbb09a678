//! The Python client, on a cluster of its own: its tests, and the conformance test of the watch.

use std::process::Command;

use crate::support::KEYVIZ;

#[test]
fn the_python_client_reads_everything_within_the_default_limits_and_follows_the_routes() {
    let python = std::env::var("KEYVIZ_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", "import grpc, grpc_tools"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!("skipped: python3 with grpcio and grpcio-tools is not installed");
        return;
    }
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/tests");
    let output = Command::new(&python)
        .args(["-m", "unittest", "discover", "-s", tests])
        .env("KEYVIZ", KEYVIZ)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stdout));
    assert!(!said.contains("skipped"), "{said}");
}
