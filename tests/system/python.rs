//! The Python client on clusters of its own: its tests, and the conformance test of the watch.
//!
//! By default three thousand routes, and with `KEYVIZ_TEST_ROUTES=100000` their full number, which
//! takes minutes in debug.

use std::process::Command;

use crate::support::KEYVIZ;

/// Runs the tests of one file, and returns what it said; `None` where Python lacks gRPC.
fn run(tests: &str) -> Option<String> {
    let python = std::env::var("KEYVIZ_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", "import grpc, grpc_tools, numpy"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!("skipped: python3 with grpcio, grpcio-tools and numpy is not installed");
        return None;
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/tests");
    let output = Command::new(&python)
        .args(["-m", "unittest", "discover", "-s", folder, "-p", tests])
        .env("KEYVIZ", KEYVIZ)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("skipped"), "{said}");
    println!("{said}");
    Some(said.into_owned())
}

#[test]
fn bounds_the_python_client_reads_everything_within_the_default_limits() {
    run("test_client.py");
}

#[test]
fn a_router_in_python_follows_200_changes_and_a_restore() {
    if let Some(said) = run("test_router.py") {
        assert!(said.contains("at most 1 of a group in a row"), "{said}");
    }
}
