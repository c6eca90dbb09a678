//! Law 9 against disks that forgot: an emptied folder, an older copy of a folder, a copy that runs
//! beside the original, and folders of other clusters. On real processes, as an operator would do
//! it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{
    self, Cluster, PATIENCE, clock_apart, eventually, faketime, http_answer, is_ready, stderr,
};

const ONE_GROUP: &[&str] = &["--groups", "1"];
const KEYS: usize = 10;

/// Long enough for a node to exchange marks with its peers after a write.
const MARKS: Duration = Duration::from_millis(2_500);

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success());
}

/// Copies the folder of a running node at one instant, as a snapshot of its disk does.
fn copy_running(cluster: &Cluster, index: usize, to: &Path) {
    cluster.signal(index, "STOP");
    copy(&cluster.data(index), to);
    cluster.signal(index, "CONT");
}

/// Puts a copy of a folder back in its place.
fn put_back(copied: &Path, folder: &Path) {
    std::fs::remove_dir_all(folder).expect("the folder is ours");
    copy(copied, folder);
}

fn put_keys(cluster: &Cluster, index: usize, name: &str) {
    for n in 0..KEYS {
        let key = format!("{name}/{n}");
        let deadline = Instant::now() + PATIENCE;
        // An election may be under way.
        while !cluster.run_on(index, &["put", &key, "value"]).status.success() {
            assert!(Instant::now() < deadline, "{key} was never acknowledged");
        }
    }
}

/// Every key is there for linearizable reads at this node.
fn has_keys(cluster: &Cluster, index: usize, name: &str) {
    for n in 0..KEYS {
        let key = format!("{name}/{n}");
        eventually("a linearizable read finds the acknowledged key", || {
            let read = cluster.run_on(index, &["get", &key]);
            read.status.success() && read.stdout.starts_with(b"value")
        });
    }
}

/// The node ends by itself within seconds, and says why.
fn ends_with(cluster: &mut Cluster, index: usize, words: &[&str]) {
    let started = Instant::now();
    eventually("the node ends by itself", || cluster.exited(index).is_some());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let log = cluster.log(index);
    for word in words {
        assert!(log.contains(word), "{word:?} is not in the log:\n{log}");
    }
}

/// The node runs, is not ready, and says why; so does the status at another node.
fn refuses_itself(cluster: &Cluster, index: usize, at: usize, words: &str) {
    eventually("the node says in /readyz that it takes part in nothing", || {
        let answer = http_answer(&cluster.http[index], "/readyz").unwrap_or_default();
        answer.starts_with("HTTP/1.1 503") && answer.contains(words)
    });
    assert!(cluster.log(index).contains("takes part in nothing"), "{}", cluster.log(index));
    eventually("the status of another node names it", || {
        let status = cluster.json_on(at, &["cluster", "status"]);
        let members = status["members"].as_array().expect("members").clone();
        let member = members.iter().find(|member| member["id"] == index as u64 + 1);
        let member = member.expect("it is a member still");
        let error = member["error"].as_str().unwrap_or_default();
        member["ok"] == false && error.contains(words) && error.contains("replace-node")
    });
}

/// The followers, and the leader of the one data group.
fn roles(cluster: &Cluster) -> (usize, usize, usize) {
    let mut leader = 0;
    eventually("the group has a leader", || {
        let status = cluster.json(&["cluster", "status"]);
        let groups = status["groups"].as_array().expect("groups").clone();
        let group = groups.iter().find(|group| group["group_id"] == 1).expect("the group");
        leader = group["leader"].as_u64().unwrap_or(0);
        leader > 0
    });
    let leader = leader as usize - 1;
    let followers: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    (followers[0], followers[1], leader)
}

#[test]
fn no_lost_write_after_a_voters_folder_was_emptied() {
    let mut cluster = Cluster::start(3, ONE_GROUP);
    let (stopped, wiped, leader) = roles(&cluster);
    cluster.stop(stopped);
    put_keys(&cluster, leader, "acknowledged");
    cluster.kill(leader);
    cluster.kill(wiped);
    std::fs::remove_dir_all(cluster.data(wiped)).expect("the folder is ours");
    cluster.spawn(stopped);
    cluster.spawn(wiped);
    ends_with(&mut cluster, wiped, &["its cluster exists", "replace-node"]);
    let read = cluster.run_on(stopped, &["get", "acknowledged/0"]);
    assert!(!read.status.success(), "one of three has no quorum");
    // It stays refused, also once the cluster is whole but for it.
    cluster.spawn(leader);
    has_keys(&cluster, stopped, "acknowledged");
    cluster.spawn(wiped);
    ends_with(&mut cluster, wiped, &["its cluster exists"]);
    // And it is refused with --join.
    std::fs::remove_dir_all(cluster.data(wiped)).expect("the folder is ours");
    let mut join = cluster.serve_command(wiped);
    let log = std::fs::File::options().append(true).open(cluster.log_path(wiped)).expect("a log");
    let arguments: Vec<_> = join.get_args().map(|argument| argument.to_owned()).collect();
    let at = arguments.iter().position(|argument| argument == "--bootstrap").expect("a flag");
    let mut command = Command::new(support::KEYVIZ);
    command.args(&arguments[..at]).args(["--join", &cluster.grpc[leader]]);
    join = command;
    let started = Instant::now();
    let ended = join.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).status();
    assert_eq!(ended.expect("the binary starts").code(), Some(1));
    assert!(started.elapsed() < Duration::from_secs(20));
    let log = cluster.log(wiped);
    assert!(log.contains("with another disk"), "{log}");
    has_keys(&cluster, leader, "acknowledged");
}

#[test]
fn no_lost_write_after_a_voters_folder_went_back() {
    let mut cluster = Cluster::start(3, ONE_GROUP);
    let (rolled, behind, leader) = roles(&cluster);
    let copied = cluster.folder.path().join("copy");
    assert_eq!(cluster.stop(rolled), Some(0));
    copy(&cluster.data(rolled), &copied);
    cluster.spawn(rolled);
    cluster.wait_until_serving();
    cluster.stop(behind);
    put_keys(&cluster, leader, "acknowledged");
    cluster.kill(leader);
    cluster.kill(rolled);
    put_back(&copied, &cluster.data(rolled));
    cluster.spawn(rolled);
    cluster.spawn(behind);
    refuses_itself(&cluster, rolled, behind, "went back");
    let read = cluster.run_on(behind, &["get", "acknowledged/0"]);
    assert!(!read.status.success(), "one of three has no quorum");
    cluster.spawn(leader);
    has_keys(&cluster, behind, "acknowledged");
    // A stale read at it would show what it has forgotten.
    let stale = cluster.run_on(rolled, &["get", "acknowledged/0", "--consistency", "stale"]);
    assert!(!stale.status.success());
    assert!(stderr(&stale).contains("went back"), "{}", stderr(&stale));
    // It stays so after another start.
    cluster.kill(rolled);
    cluster.spawn(rolled);
    refuses_itself(&cluster, rolled, behind, "went back");
}

/// The others learn what was forgotten from a member that comes later: the leader is refused while
/// it leads, and its connections are open.
#[test]
fn no_harm_a_leader_that_is_found_out_leads_no_longer() {
    let mut cluster = Cluster::start(3, ONE_GROUP);
    let (rolled, behind, leader) = roles(&cluster);
    cluster.stop(behind);
    // The catalog is as it stays: the disks of the members are recorded.
    std::thread::sleep(MARKS);
    let copied = cluster.folder.path().join("copy");
    copy_running(&cluster, rolled, &copied);
    put_keys(&cluster, leader, "acknowledged");
    std::thread::sleep(MARKS);
    cluster.kill(leader);
    cluster.kill(rolled);
    put_back(&copied, &cluster.data(rolled));
    cluster.spawn(behind);
    cluster.spawn(rolled);
    let id = (rolled + 1).to_string();
    eventually("the member that went back leads the catalog", || {
        let moved = cluster.run_on(behind, &["cluster", "transfer-leader", "0", &id]);
        moved.status.success() || leader_of_the_catalog(&cluster, behind) == rolled as u64 + 1
    });
    cluster.spawn(leader);
    refuses_itself(&cluster, rolled, leader, "went back");
    eventually("another member leads the catalog", || {
        let now = leader_of_the_catalog(&cluster, behind);
        now != 0 && now != rolled as u64 + 1
    });
    assert!(cluster.ended().is_empty(), "the refused one still runs");
}

/// 0: none.
fn leader_of_the_catalog(cluster: &Cluster, index: usize) -> u64 {
    let status = cluster.run_on(index, &["cluster", "status", "--format", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
    let groups = status["groups"].as_array().cloned().unwrap_or_default();
    let catalog = groups.iter().find(|group| group["group_id"] == 0);
    catalog.and_then(|group| group["leader"].as_u64()).unwrap_or(0)
}

#[test]
fn no_lost_write_after_a_running_voters_folder_was_copied_and_put_back() {
    let mut cluster = Cluster::start(3, ONE_GROUP);
    let (rolled, behind, leader) = roles(&cluster);
    put_keys(&cluster, leader, "before");
    // As a snapshot of its virtual machine: no start is between the copy and the writes.
    let copied = cluster.folder.path().join("copy");
    copy_running(&cluster, rolled, &copied);
    put_keys(&cluster, leader, "after");
    std::thread::sleep(MARKS);
    cluster.stop(behind);
    put_keys(&cluster, leader, "acknowledged");
    cluster.kill(leader);
    cluster.kill(rolled);
    put_back(&copied, &cluster.data(rolled));
    // Nothing about it is judged by the time of day, which goes back with it where that is
    // possible.
    match faketime() {
        Some(library) => cluster.environment[rolled] = clock_apart(&library, -3_600.0),
        None => println!("the clock is not set back: libfaketime is not installed"),
    }
    cluster.spawn(rolled);
    cluster.spawn(behind);
    refuses_itself(&cluster, rolled, behind, "went back");
    cluster.spawn(leader);
    has_keys(&cluster, behind, "acknowledged");
}

#[test]
fn no_lost_write_where_two_of_three_first_members_lost_their_folders() {
    let mut cluster = Cluster::start(3, ONE_GROUP);
    put_keys(&cluster, 0, "acknowledged");
    for index in 0..3 {
        cluster.kill(index);
    }
    for index in 1..3 {
        std::fs::remove_dir_all(cluster.data(index)).expect("the folder is ours");
        cluster.spawn(index);
    }
    eventually("a node says whom it waits for", || {
        let log = cluster.log(1);
        log.contains("waiting for node 1 at") && log.contains("--bootstrap")
    });
    std::thread::sleep(Duration::from_secs(5));
    for index in 1..3 {
        assert!(!is_ready(&cluster.http[index]), "an empty cluster in the place of the old one");
        assert!(cluster.exited(index).is_none(), "it waits");
    }
    cluster.spawn(0);
    for index in 1..3 {
        ends_with(&mut cluster, index, &["its cluster exists", "replace-node"]);
    }
}

#[test]
fn a_copy_that_runs_beside_the_original_takes_part_in_nothing() {
    let mut cluster = Cluster::start(3, ONE_GROUP);
    let (copied, other, leader) = roles(&cluster);
    let copy_of = cluster.folder.path().join("copy");
    // Of the running node, so that the copy's start is a later one than the node's.
    copy_running(&cluster, copied, &copy_of);
    let addresses = support::free_addresses(2);
    let log = cluster.folder.path().join("copy.log");
    let mut child = Command::new(support::KEYVIZ)
        .args(["serve", "--id", &(copied + 1).to_string(), "--listen", &addresses[0]])
        .args(["--http", &addresses[1], "--data"])
        .arg(&copy_of)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("the temporary folder takes a file"))
        .spawn()
        .expect("the binary starts");
    eventually("the copy says that it takes part in nothing", || {
        let answer = http_answer(&addresses[1], "/readyz").unwrap_or_default();
        // Where the original has made a mark since, the copy lacks it, and that is said first.
        let says = answer.contains("another process answers") || answer.contains("went back");
        answer.starts_with("HTTP/1.1 503") && says
    });
    put_keys(&cluster, leader, "acknowledged");
    assert!(is_ready(&cluster.http[copied]), "the original goes on");
    has_keys(&cluster, copied, "acknowledged");
    child.kill().expect("the process is ours");
    child.wait().expect("the process is ours");
    // The original starts again without a word against it.
    cluster.stop(copied);
    cluster.spawn(copied);
    cluster.wait_until_serving();
    has_keys(&cluster, other, "acknowledged");
}

#[test]
fn ids_of_members_and_of_removed_members_are_refused_in_words() {
    let mut cluster = Cluster::start(3, ONE_GROUP);
    let join = |cluster: &Cluster, id: usize, name: &str| {
        let addresses = support::free_addresses(1);
        let started = Instant::now();
        let output = Command::new(support::KEYVIZ)
            .args(["serve", "--id", &id.to_string(), "--listen", &addresses[0], "--data"])
            .arg(cluster.folder.path().join(name))
            .args(["--join", &cluster.grpc[0]])
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts");
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(started.elapsed() < Duration::from_secs(20));
        stderr(&output)
    };
    let said = join(&cluster, 2, "live");
    assert!(said.contains("node 2 is a member of this cluster with another disk"), "{said}");
    let fourth = cluster.join(0);
    let removed = cluster.run(&["cluster", "remove-node", "4"]);
    assert!(removed.status.success(), "{}", stderr(&removed));
    cluster.kill(fourth);
    eventually("the member that is asked knows of the removal", || {
        join(&cluster, 4, "removed").contains("its id is never used again")
    });
}

#[test]
fn a_member_that_lost_its_disk_is_replaced_in_one_command() {
    let mut cluster = Cluster::start(3, ONE_GROUP);
    put_keys(&cluster, 0, "acknowledged");
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.data(2)).expect("the folder is ours");
    let refused = cluster.run_on(0, &["cluster", "replace-node", "2", "--with", "4"]);
    assert!(!refused.status.success(), "node 2 is up");
    assert!(stderr(&refused).contains("node 2 answers"), "{}", stderr(&refused));
    let fresh = cluster.join(0);
    let replaced = cluster.run_on(0, &["cluster", "replace-node", "3", "--with", "4"]);
    assert!(replaced.status.success(), "{}", stderr(&replaced));
    let status = cluster.json_on(0, &["cluster", "status"]);
    let members = status["members"].as_array().expect("members").clone();
    let ids: Vec<u64> = members.iter().map(|member| member["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 4]);
    has_keys(&cluster, fresh, "acknowledged");
}

#[test]
fn folders_that_do_not_fit_are_refused_or_harmless() {
    let mut cluster = Cluster::start(3, ONE_GROUP);
    let (one, _, leader) = roles(&cluster);
    let data = cluster.data(one);
    // A missing SYNCED, of either database.
    for file in ["SYNCED", "log/SYNCED"] {
        cluster.stop(one);
        let content = std::fs::read(data.join(file)).expect("it is there");
        std::fs::remove_file(data.join(file)).expect("it is ours");
        for _ in 0..2 {
            cluster.spawn(one);
            ends_with(&mut cluster, one, &["SYNCED", "is missing", "Keep the folder"]);
        }
        std::fs::write(data.join(file), content).expect("the folder takes a file");
        cluster.spawn(one);
        cluster.wait_until_serving();
    }
    // Either database alone from an older copy.
    let copied = cluster.folder.path().join("older");
    cluster.stop(one);
    copy(&data, &copied);
    cluster.spawn(one);
    cluster.wait_until_serving();
    put_keys(&cluster, leader, "later");
    cluster.kill(one);
    let current = cluster.folder.path().join("current");
    copy(&data, &current);
    std::fs::remove_dir_all(data.join("log")).expect("it is ours");
    copy(&copied.join("log"), &data.join("log"));
    cluster.spawn(one);
    ends_with(&mut cluster, one, &["log/db went back"]);
    put_back(&current, &data);
    for file in ["db", "conf", "SYNCED"] {
        std::fs::copy(copied.join(file), data.join(file)).expect("the folder takes a file");
    }
    // Rows that are behind are made again from the log.
    cluster.spawn(one);
    cluster.wait_until_serving();
    has_keys(&cluster, one, "later");
    // The file alone, without the number of its last sync.
    cluster.kill(one);
    // Anew: what was copied before has not seen the last start, and would be refused for it.
    let current = cluster.folder.path().join("current-again");
    copy(&data, &current);
    std::fs::copy(copied.join("db"), data.join("db")).expect("the folder takes a file");
    cluster.spawn(one);
    ends_with(&mut cluster, one, &["has lost what was durable"]);
    put_back(&current, &data);
    // Of another node, and of another cluster.
    let other = Cluster::start(3, ONE_GROUP);
    let foreign = cluster.folder.path().join("foreign");
    copy(&other.data(one), &foreign);
    put_back(&foreign, &data);
    cluster.spawn(one);
    ends_with(&mut cluster, one, &["second bootstrap"]);
    cluster.restarts_only = true;
    cluster.flags.clear();
    cluster.spawn(one);
    eventually("the status names the folder of another cluster", || {
        let status = cluster.json_on(leader, &["cluster", "status"]);
        let members = status["members"].as_array().expect("members").clone();
        let member = members.iter().find(|member| member["id"] == one as u64 + 1);
        let error =
            member.expect("it is a member")["error"].as_str().unwrap_or_default().to_owned();
        error.contains("belongs to cluster")
    });
    assert!(!is_ready(&cluster.http[one]));
    // It knows other nodes by the ids of these; what it says of them is of its own cluster.
    for _ in 0..3 {
        std::thread::sleep(MARKS);
        for node in (0..3).filter(|node| *node != one) {
            let answer = http_answer(&cluster.http[node], "/readyz").unwrap_or_default();
            assert!(answer.starts_with("HTTP/1.1 200"), "node {}: {answer}", node + 1);
        }
    }
    put_keys(&cluster, leader, "beside a foreign folder");
    cluster.kill(one);
    put_back(&current, &data);
    cluster.spawn(one);
    cluster.wait_until_serving();
    has_keys(&cluster, one, "later");
}
