//! Damage to the files of a node that is down, and what the node must make of it.
//!
//! A damaged node has to say so and not to start, or to go on with the very same data where the
//! damage hit nothing that counts, or to close the group whose record it hit. Then it is replaced
//! the way the handbook says: a new node joins, the old one is removed.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::nemesis::{Nemesis, Replaced};
use crate::support::{PATIENCE, eventually, is_ready, stderr};

/// What is done to the file of one of the two databases.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Damage {
    /// It ends after this many thousandths of the bytes that are not 0, at most half.
    Cut { at: u64 },
    /// One bit of the byte after so many is another.
    Flip { at: u64 },
}

impl Damage {
    /// The file in a node's folder: the rows or the logs and votes.
    fn file(self) -> &'static str {
        let (Damage::Cut { at } | Damage::Flip { at }) = self;
        if at.is_multiple_of(2) { "db" } else { "log/db" }
    }

    /// Damages a file; where.
    fn inflict(self, file: &Path) -> u64 {
        let bytes = std::fs::read(file).expect("the database has a file");
        // Much of the file is allocated and empty.
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let place = |at: u64| used[used.len() * at as usize / 1_000] as u64;
        let opened = std::fs::File::options().write(true).open(file).expect("it can be written");
        match self {
            Damage::Cut { at } => {
                opened.set_len(place(at)).expect("a file can be cut");
                place(at)
            }
            Damage::Flip { at } => {
                let place = place(at);
                let flipped = bytes[place as usize] ^ 0x10;
                opened.write_all_at(&[flipped], place).expect("it can be written");
                place
            }
        }
    }
}

/// How long a node that took damage for sound serves before it is replaced all the same.
const SERVES: Duration = Duration::from_secs(2);

impl Nemesis<'_> {
    /// Kills member `at`, damages its database, starts it, and has it replaced.
    pub fn damage_and_replace(&mut self, at: usize, damage: Damage) {
        let node = self.members[at];
        // What it alone counted goes with it. Asked first: what is acknowledged since is at risk.
        let from = self.workload.now();
        let counted = ["writes", "reads"]
            .map(|series| self.cluster.total(node, series, &["--scope", "node"]));
        self.kill(node);
        let to = self.workload.now();
        let file = damage.file();
        let place = damage.inflict(&self.cluster.data(node).join(file));
        let told_before = self.cluster.log(node).len();
        self.start_member(at);
        let refused = self.refuses_to_start(node);
        let told = self.cluster.log(node).split_off(told_before);
        if refused {
            let folder = self.cluster.data(node).display().to_string();
            assert!(told.contains(&folder) && told.contains("corrupt"), "{damage:?}: {told}");
            let said = told.lines().last().unwrap_or_default();
            println!("{:>9}  {file} at byte {place}: {said}", "");
        } else {
            // A flip may hit what counts no more, and so may a cut: rows that were not synced since
            // are in the log. What it serves is judged with everything else that was read.
            std::thread::sleep(SERVES);
            self.kill(node);
            println!("{:>9}  {file} at byte {place}: it serves", "");
        }
        let to = if refused { to } else { self.workload.now() };
        self.replaced.push(Replaced { counted, from, to });
        self.replace(at);
    }

    /// Waits until a node has ended by itself (true) or serves.
    fn refuses_to_start(&mut self, node: usize) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.cluster.exited(node) {
                assert!(status.code().is_some_and(|code| code != 0), "it ended with {status}");
                return true;
            }
            if is_ready(&self.cluster.http[node]) {
                return false;
            }
            assert!(Instant::now() < deadline, "a damaged node neither serves nor ends");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A new node takes the place of member `at`, which is down for ever.
    pub fn replace(&mut self, at: usize) {
        let dead = self.members[at];
        let through = self.members[(at + 1) % self.members.len()];
        let node = self.cluster.enlist(through);
        let address = self.runtime.block_on(self.net.stand_before(node, &self.cluster.grpc[node]));
        self.cluster.advertised[node] = address;
        self.members[at] = node;
        self.prepare_disk(node);
        self.start_member(at);
        eventually("the new node serves", || is_ready(&self.cluster.http[node]));
        self.workload.set_node(at, &self.cluster.grpc[node]);
        let id = (dead + 1).to_string();
        // The command could not wait itself: it would ask the members where nodes reach each other.
        eventually("the damaged node may leave", || {
            let asked = self.cluster.run_on(through, &["cluster", "remove-node", &id, "--no-wait"]);
            asked.status.success() || stderr(&asked).contains("is not a member")
        });
        eventually("the damaged node has left", || {
            let asked = self.cluster.run_on(through, &["cluster", "status", "--format", "json"]);
            let status = serde_json::from_slice::<serde_json::Value>(&asked.stdout);
            let members = status.ok().and_then(|status| status["members"].as_array().cloned());
            let is_dead = |member: &serde_json::Value| member["id"] == dead as u64 + 1;
            members.is_some_and(|members| !members.iter().any(is_dead))
        });
    }
}
