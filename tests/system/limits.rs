//! A node under limits of the system: refused in words, and never taken for damage.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{self, Cluster, KEYVIZ, PATIENCE, eventually, signal, stderr};

/// Words that only damage deserves.
const OF_DAMAGE: [&str; 4] = ["corrupt", "damaged", "remove", "replace-node"];

/// A user that nobody else is, so that its threads are those of the test. `None`: this test may not
/// become another user, and the limit counts all threads of its own.
fn other_user() -> Option<u32> {
    rustix::process::geteuid().is_root().then(|| 40_000 + std::process::id() % 20_000)
}

/// Runs a command under limits as `prlimit` takes them, as that user.
fn limited(limits: &[String], arguments: &[&str], user: Option<u32>) -> Command {
    let mut command = Command::new("prlimit");
    command.args(limits).arg(KEYVIZ).args(arguments).stdin(Stdio::null());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command
}

/// The output of a command that ends by itself within the patience of a test.
fn output_of(mut command: Command) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("prlimit is part of util-linux");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("the process is ours").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("the process is ours");
            panic!("it hangs: {}", stderr(&child.wait_with_output().expect("its output")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.wait_with_output().expect("its output")
}

fn give_to(folder: &Path, user: u32) {
    let owner = format!("{user}:{user}");
    let given = Command::new("chown").arg("-R").arg(owner).arg(folder).status();
    assert!(given.expect("chown runs").success());
}

/// The folder of a node that holds some keys and is stopped.
fn sound_folder(cluster: &mut Cluster) -> String {
    for n in 0..50 {
        let put = cluster.run_on(0, &["put", &format!("key/{n}"), "value"]);
        assert!(put.status.success(), "{}", stderr(&put));
    }
    assert_eq!(cluster.stop(0), Some(0));
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(cluster.folder.path(), open).expect("the folder is ours");
    cluster.data(0).to_str().expect("a temporary folder has a plain name").to_owned()
}

fn serve_arguments<'a>(cluster: &'a Cluster, data: &'a str) -> Vec<&'a str> {
    let (listen, http) = (&cluster.grpc[0], &cluster.http[0]);
    vec!["serve", "--id", "1", "--listen", listen, "--http", http, "--data", data]
}

fn is_sound(data: &str) {
    let check = Command::new(KEYVIZ).args(["check", "--data", data]).output().expect("it runs");
    assert!(check.status.success(), "{}", stderr(&check));
}

#[test]
fn too_few_threads_are_refused_in_words_that_say_how_many_and_are_no_damage() {
    let mut cluster = Cluster::start(1, &["--groups", "1"]);
    let data = sound_folder(&mut cluster);
    let user = other_user();
    if let Some(user) = user {
        give_to(Path::new(&data), user);
    }
    for most in [1, 2, 3, 5, 8, 10, 13, 16] {
        let limits = [format!("--nproc={most}:{most}")];
        let ran = output_of(limited(&limits, &serve_arguments(&cluster, &data), user));
        let said = stderr(&ran);
        assert_eq!(ran.status.code(), Some(1), "{most}: {said}");
        assert!(said.contains("threads") && said.contains("ulimit -u"), "{most}: {said}");
        assert!(OF_DAMAGE.iter().all(|word| !said.contains(word)), "{most}: {said}");
        let check = output_of(limited(&limits, &["check", "--data", &data], user));
        let said = stderr(&check) + &String::from_utf8_lossy(&check.stdout);
        assert!(OF_DAMAGE.iter().all(|word| !said.contains(word)), "check under {most}: {said}");
        if !check.status.success() {
            assert!(said.contains("ulimit -u"), "check under {most}: {said}");
        }
    }
    is_sound(&data);
    cluster.restarts_only = true;
    cluster.flags.clear();
    cluster.spawn(0);
    cluster.wait_until_serving();
    let read = cluster.run_on(0, &["get", "key/7"]);
    assert!(read.status.success(), "{}", stderr(&read));
}

#[test]
fn too_little_memory_and_too_few_files_are_no_damage() {
    let mut cluster = Cluster::start(1, &["--groups", "1"]);
    let data = sound_folder(&mut cluster);
    let memory = [16, 32, 48, 64, 96, 128, 192, 256, 512].map(|mib| format!("--as={}", mib << 20));
    let files = [3, 5, 8, 10, 12, 14, 16, 20, 24].map(|files| format!("--nofile={files}:{files}"));
    for limit in memory.into_iter().chain(files) {
        for arguments in [serve_arguments(&cluster, &data), vec!["check", "--data", &data]] {
            let mut child = limited(&[limit.clone()], &arguments, None)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("prlimit is part of util-linux");
            // Where the limit is large enough, the node serves, and ends when it is told to.
            let deadline = Instant::now() + Duration::from_secs(5);
            let mut ended = None;
            while ended.is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
                ended = child.try_wait().expect("the process is ours");
            }
            if ended.is_none() {
                signal(&child, "TERM");
            }
            let ran = child.wait_with_output().expect("its output");
            let said = stderr(&ran) + &String::from_utf8_lossy(&ran.stdout);
            assert!(
                OF_DAMAGE.iter().all(|word| !said.contains(word)),
                "{arguments:?} under {limit}: {:?} {said}",
                ran.status
            );
            // Rust ends a process that gets no memory with SIGABRT, the loader one that gets no
            // stack with SIGSEGV or SIGKILL; and of a signal a command ends at once.
            if let Some(signal) = ran.status.signal() {
                let told = arguments[0] == "check" && signal == 15;
                assert!(told || matches!(signal, 6 | 9 | 11), "{limit}: {:?} {said}", ran.status);
            }
        }
    }
    is_sound(&data);
}

#[test]
fn sigterm_ends_a_start_that_hangs() {
    let cluster = Cluster::prepare(1, &["--groups", "1"]);
    let data = cluster.data(0);
    std::fs::create_dir(&data).expect("the temporary folder takes a folder");
    // Reading it waits for somebody who writes.
    let made = Command::new("mkfifo").arg(data.join("FORMAT")).status().expect("mkfifo runs");
    assert!(made.success());
    let mut child = cluster.serve_command(0).stderr(Stdio::piped()).spawn().expect("it starts");
    eventually("the start hangs in the folder", || data.join("LOCK").exists());
    signal(&child, "TERM");
    let mut status = None;
    eventually("the process ends", || {
        status = child.try_wait().expect("the process is ours");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(0));
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let mut cluster = Cluster::start(1, &["--groups", "1"]);
    let data = sound_folder(&mut cluster);
    let limits = ["--nofile=64:4096".to_owned()];
    let mut child = limited(&limits, &serve_arguments(&cluster, &data), None)
        .stderr(Stdio::null())
        .spawn()
        .expect("prlimit is part of util-linux");
    eventually("the node serves", || support::is_ready(&cluster.http[0]));
    assert_eq!(cluster.metric(0, "keyviz_process_max_fds"), Some(4096.0));
    signal(&child, "TERM");
    assert!(child.wait().expect("the process is ours").success());
}
