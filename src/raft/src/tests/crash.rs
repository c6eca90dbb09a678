//! A process that is killed while it writes: what it acknowledged must be there.
//!
//! The test runs this same test binary again as the child, on the ignored test below, and kills
//! it after a while.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;

use crate::testing::{Map, quick};
use crate::*;
use keyviz_types::GroupId;

const DIR: &str = "KEYVIZ_CRASH_TEST_DIR";
const GROUPS: u64 = 3;
const WRITERS: u64 = 8;

async fn open(dir: &str) -> Vec<std::sync::Arc<Group>> {
    let storage = Storage::open(dir, StorageOptions::default()).unwrap();
    let groups = Groups::new(storage, Peers::anonymous(1, "", PeersOptions::default()), quick());
    let mut opened = Vec::new();
    for id in 1..=GROUPS {
        let group = groups.create(GroupId(id), Map).await.unwrap();
        group.initialize(BTreeMap::from([(1, Member::grpc("127.0.0.1:1"))])).await.unwrap();
        let mut leadership = group.leadership();
        leadership.wait_for(|now| now.leading.is_some()).await.unwrap();
        // What the last life left in the log may be applied only now.
        let index = group.read_index().await.unwrap();
        group.wait_applied(index, Duration::from_secs(10)).await.unwrap();
        opened.push(group);
    }
    opened
}

#[test]
#[ignore = "the child of the test below"]
fn child_that_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let groups = open(&dir).await;
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let group = groups[(writer % GROUPS) as usize].clone();
            writers.push(tokio::spawn(async move {
                let old = group.keyspace().get(format!("w{writer}").as_bytes()).unwrap();
                let mut count = old.map_or(0, |old| old.len());
                loop {
                    // Appends one byte: the length counts how often it was applied.
                    let command = Bytes::from(format!("w{writer}+x"));
                    let reply = group.propose(command).await.unwrap().reply;
                    count += 1;
                    assert_eq!(reply.len(), count);
                    println!("acknowledged {writer} {count}");
                }
            }));
        }
        // Writers write until the process is killed, so the first that ends has failed.
        futures::future::select_all(writers).await.0.unwrap();
    });
}

#[test]
fn no_lost_write_and_none_applied_twice_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = [0usize; WRITERS as usize];
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture"])
            .arg("tests::crash::child_that_writes_until_it_is_killed")
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.filter(|line| line.starts_with("acknowledged")).collect::<Vec<_>>()
        });
        std::thread::sleep(Duration::from_millis(1_500 + 137 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let before = acknowledged;
        for line in reader.join().unwrap() {
            let mut words = line.split(' ').skip(1).map(|word| word.parse::<usize>());
            // The last line may be cut by the kill.
            if let (Some(Ok(writer)), Some(Ok(count))) = (words.next(), words.next()) {
                acknowledged[writer] = acknowledged[writer].max(count);
            }
        }
        assert_ne!(before, acknowledged, "the child did nothing in round {round}");
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let groups = open(dir.path().to_str().unwrap()).await;
        for (writer, acknowledged) in (0..).zip(acknowledged) {
            let group = &groups[(writer % GROUPS) as usize];
            let found =
                group.keyspace().get(format!("w{writer}").as_bytes()).unwrap().unwrap().len();
            // The next life counts on from what the last one left, so at most one more may have
            // taken effect without an acknowledgement that was read.
            assert!(
                (acknowledged..=acknowledged + 1).contains(&found),
                "writer {writer}: {found} found, {acknowledged} acknowledged"
            );
        }
    });
}
