//! The `keyviz` command from outside: exit codes, streams, pipes. No server is needed.

use std::process::{Command, Output, Stdio};

fn keyviz(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyviz"));
    command.args(args).env_remove("KEYVIZ_NODE").env_remove("KEYVIZ_TIMEOUT");
    command
}

fn output(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = keyviz(args).output().expect("the command starts");
    let text = |bytes| String::from_utf8(bytes).expect("output is text");
    (status.code().expect("it was not killed"), text(stdout), text(stderr))
}

/// A port on which nothing listens.
fn closed_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound").to_string()
}

#[test]
fn help_is_data_and_exits_with_0() {
    for command in
        [&["--help"][..], &["heat", "--help"], &["load", "-h"], &["routes", "list", "-h"]]
    {
        let (code, stdout, stderr) = output(command);
        assert_eq!((code, stderr.as_str()), (0, ""), "{command:?}");
        assert!(stdout.contains("Usage: keyviz"), "{command:?}");
    }
}

#[test]
fn wrong_usage_exits_with_2_and_leaves_stdout_empty() {
    for command in [
        &[][..],
        &["put", "k"],
        &["put", "", "v"],
        &["heat", "--from", "5", "--to", "4"],
        &["serve", "--id", "1", "--data", "d", "--groups", "2"],
        &["load", "--read-ratio", "2"],
    ] {
        let (code, stdout, stderr) = output(command);
        assert_eq!((code, stdout.as_str()), (2, ""), "{command:?}: {stderr}");
        assert!(!stderr.is_empty(), "{command:?}");
    }
}

#[test]
fn a_failed_operation_exits_with_1_and_gives_the_reason() {
    let node = closed_port();
    for command in [
        &["put", "k", "v"][..],
        &["get", "k", "--format", "json"],
        &["delete", "k"],
        &["scan", ""],
        &["heat"],
        &["routes", "list"],
        &["cluster", "status"],
        &["load", "--operations", "1"],
    ] {
        let (code, stdout, stderr) = output(&[command, &["--node", &node]].concat());
        assert_eq!((code, stdout.as_str()), (1, ""), "{command:?}: {stderr}");
        let reason = format!("keyviz: no node answered: {node}: Connection refused");
        assert!(stderr.starts_with(&reason), "{command:?}: {stderr}");
    }
}

#[test]
fn a_node_address_can_come_from_the_environment() {
    let node = closed_port();
    let output = keyviz(&["get", "k"]).env("KEYVIZ_NODE", &node).output().expect("it starts");
    let stderr = String::from_utf8(output.stderr).expect("output is text");
    assert!(stderr.contains(&format!("no node answered: {node}")), "{stderr}");
}

#[test]
fn a_bad_trace_exits_with_1_and_names_the_line() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let path = folder.path().join("bad.csv");
    std::fs::write(&path, "t_s,op,key,value_bytes\n0,read,a,1\n0,frob,a,1\n")
        .expect("it is writable");
    let path = path.to_str().expect("the path is text");
    let (code, stdout, stderr) = output(&["load", "--trace", path, "--node", &closed_port()]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("line 3: op \"frob\" is none of read, write, delete"), "{stderr}");
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let mut child = keyviz(&["load", "--help"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(output.stderr, b"", "{:?}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
}
