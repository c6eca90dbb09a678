//! The `keyviz` command from outside: exit codes, streams, pipes. No server is needed.

use std::io::{BufRead as _, BufReader};
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
fn an_unreachable_cluster_exits_with_4_and_gives_the_reason() {
    let node = closed_port();
    for command in [
        &["put", "k", "v"][..],
        &["get", "k", "--format", "json"],
        &["delete", "k"],
        &["scan", ""],
        &["cas", "k", "new", "--expect-absent"],
        &["delete-range", "a", "b"],
        &["heat"],
        &["routes", "list"],
        &["cluster", "status"],
        &["load", "--operations", "1"],
    ] {
        let (code, stdout, stderr) = output(&[command, &["--node", &node]].concat());
        assert_eq!((code, stdout.as_str()), (4, ""), "{command:?}: {stderr}");
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

#[test]
fn usage_lines_name_only_what_is_required() {
    let usage = |args: &[&str]| {
        let (code, _, stderr) = output(args);
        assert_eq!(code, 2, "{stderr}");
        let line = stderr.lines().find(|line| line.starts_with("Usage: "));
        line.unwrap_or_else(|| panic!("no usage: {stderr}")).to_owned()
    };
    assert_eq!(usage(&["serve", "--frob"]), "Usage: keyviz serve [OPTIONS] --id <ID> --data <DIR>");
    assert_eq!(usage(&["get", "k", "--frob"]), "Usage: keyviz get [OPTIONS] <KEY>");
    let routes = usage(&["--color", "never", "routes", "split", "1", "k", "--frob"]);
    assert_eq!(routes, "Usage: keyviz routes split [OPTIONS] <ID> [KEY]");
}

#[test]
fn empty_variables_are_not_set_and_a_yes_is_a_yes() {
    let serve = |name: &str, value: &str| {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let output = keyviz(&["serve", "--id", "1", "--listen", "0.0.0.0:17999"])
            .args(["--advertise", "127.0.0.1:17999", "--data"])
            .arg(folder.path())
            .env(name, value)
            .output()
            .expect("the command starts");
        (output.status.code(), String::from_utf8(output.stderr).expect("output is text"))
    };
    for yes in ["1", "yes", "true", "on", "TRUE"] {
        let (code, said) = serve("KEYVIZ_INSECURE", yes);
        assert!(code == Some(1) && said.contains("holds no node"), "{yes}: {said}");
    }
    for no in ["", "0", "no", "false"] {
        let (code, said) = serve("KEYVIZ_INSECURE", no);
        assert!(code == Some(2) && said.contains("--insecure says that"), "{no}: {said}");
    }
    let (code, said) = serve("KEYVIZ_INSECURE", "perhaps");
    assert!(code == Some(2) && said.contains("must be true or false"), "{said}");
    for empty in
        ["KEYVIZ_HTTP", "KEYVIZ_JOIN", "KEYVIZ_BOOTSTRAP", "KEYVIZ_TLS_CERT", "KEYVIZ_STEP"]
    {
        let (code, said) = serve(empty, "");
        assert!(code == Some(2) && said.contains("--insecure says that"), "{empty}: {said}");
    }
}

#[test]
fn a_step_is_a_step_under_either_name() {
    for name in ["--step", "--keyviz-step"] {
        let (code, _, stderr) = output(&["serve", "--id", "1", "--data", "d", name, "99ms"]);
        assert!(code == 2 && stderr.contains("must be from 1s to 1h"), "{stderr}");
    }
}

#[test]
fn durations_sizes_and_times_are_refused_in_words() {
    for (args, words) in [
        (&["heat", "--last", "0s"][..], "must be longer than 0, such as 500ms"),
        (&["load", "--value-bytes", "2MiB"], "must be from 0 B to 1.0 MiB"),
        (&["heat", "--from", "60000", "--to", "0"], "1970-01-01T00:00:00Z is not after 1970"),
        (&["heat", "--from", "99999999999999"], "the window would begin in the future"),
        (&["get", "C:\\dir"], "\\d is no escape; write a backslash as \\\\"),
    ] {
        let (code, _, stderr) = output(args);
        assert!(code == 2 && stderr.contains(words), "{args:?}: {stderr}");
    }
}

#[test]
fn the_version_names_commit_and_formats() {
    let (code, stdout, _) = output(&["--version"]);
    assert_eq!(code, 0);
    for part in
        ["\ncommit: ", "\ndata format: 2 ", "\nwire format: keyviz.v1", "\nbackup format: 1"]
    {
        assert!(stdout.contains(part), "{stdout}");
    }
    let (_, short, _) = output(&["-V"]);
    let commit = stdout.lines().find_map(|line| line.strip_prefix("commit: ")).expect("a line");
    assert_eq!(short, format!("keyviz {} ({commit})\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn shells_complete_and_every_command_has_a_manual_page() {
    for (shell, sign) in [
        ("bash", "complete -F _keyviz"),
        ("zsh", "#compdef keyviz"),
        ("fish", "complete -c keyviz"),
    ] {
        let (code, stdout, stderr) = output(&["completion", shell]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{shell}");
        assert!(stdout.contains(sign) && stdout.contains("transfer-leader"), "{shell}");
    }
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let out = folder.path().join("man");
    let (code, stdout, stderr) = output(&["man", "--out", out.to_str().expect("it is text")]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));
    for page in ["keyviz.1", "keyviz-put.1", "keyviz-routes-split.1"] {
        let page = std::fs::read_to_string(out.join(page)).expect("the page is there");
        assert!(page.contains(".SH SYNOPSIS") || page.contains(".SH OPTIONS"), "{page}");
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("it is writable");
    let (code, _, stderr) = output(&["man", "--out", file.to_str().expect("it is text")]);
    assert!(code == 1 && stderr.contains("cannot write the manual pages to"), "{stderr}");
}

#[test]
fn a_batch_file_that_is_malformed_is_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let path = folder.path().join("batch");
    std::fs::write(&path, "put a b\nset c d\n").expect("it is writable");
    let path = path.to_str().expect("the path is text");
    let (code, _, stderr) = output(&["batch", path, "--node", &closed_port()]);
    assert!(code == 1 && stderr.contains("line 2: \"set\" is no operation"), "{stderr}");
}

#[test]
fn a_compare_and_swap_says_what_it_expects_and_what_it_writes() {
    for args in [
        &["cas", "k", "new"][..],
        &["cas", "k", "--expect", "old"],
        &["cas", "k", "new", "--expect", "old", "--expect-absent"],
        &["cas", "k", "new", "--delete", "--expect", "old"],
        &["cas", "k", "--delete", "--expect-absent"],
        &["delete-range", "a"],
        &["delete-range", "b", "a"],
        &["delete-range", "a", "b", "--to-end"],
        &["put", "k", "v", "--value-file", "f"],
    ] {
        let (code, stdout, stderr) = output(args);
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
    }
}

#[test]
fn a_start_with_nothing_to_start_makes_nothing() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let data = folder.path().join("data");
    let (code, _, stderr) = output(&[
        "serve",
        "--id",
        "1",
        "--listen",
        "127.0.0.1:17998",
        "--data",
        data.to_str().expect("it is text"),
    ]);
    assert!(code == 1 && stderr.contains("holds no node"), "{stderr}");
    assert!(!data.exists());
}

#[test]
fn a_join_to_nobody_says_whom_it_asks_and_ends_quietly() {
    let (nobody, own) = (closed_port(), closed_port());
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let mut child = keyviz(&["serve", "--id", "4", "--listen", &own, "--join", &nobody, "--data"])
        .arg(folder.path().join("data"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut said = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let mut next = || said.next().expect("there is a line").expect("it is text");
    let first = next();
    assert!(first.contains(&format!("node 4 asks {nobody} to add it")), "{first}");
    let second = next();
    assert!(second.contains("Connection refused") && second.contains(&nobody), "{second}");
    let sent = Command::new("kill").arg(child.id().to_string()).status().expect("kill is there");
    assert!(sent.success());
    assert_eq!(child.wait().expect("the process is ours").code(), Some(0));
    let rest: Vec<String> = said.map(|line| line.expect("it is text")).collect();
    assert!(
        rest.iter().all(|line| !line.contains("ERROR") && !line.contains("cancelled")),
        "{rest:?}"
    );
}
