//! Disks that forget: a folder that was emptied, or put back from an older copy of itself.
//!
//! The node must take part in nothing and say why. Then it is replaced, as the handbook says.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::nemesis::{Nemesis, Replaced};
use crate::support::{eventually, http_answer};

/// A copy is so old at least when it is put back, so that the other members have heard of more.
const OLD: Duration = Duration::from_secs(4);

/// How a node forgets.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Forgets {
    /// Its folder is emptied.
    All,
    /// A copy of its folder takes its place, made while the node ran.
    Since,
}

/// Empties a folder, which may be where a disk is mounted.
fn empty(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
        let path = entry.path();
        let removed = match path.is_dir() {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        removed.expect("the folder is ours");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the temporary folder takes a folder");
    // Files come and go while the node runs.
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).output();
    copied.expect("cp runs");
}

impl Nemesis<'_> {
    /// Has member `at` forget, sees that it takes part in nothing, and has it replaced.
    pub fn forget_and_replace(&mut self, at: usize, how: Forgets) {
        let node = self.members[at];
        let data = self.cluster.data(node);
        let copied = self.cluster.folder.path().join(format!("copy-{}", node + 1));
        if how == Forgets::Since {
            copy(&data, &copied);
            std::thread::sleep(OLD);
        }
        let from = self.workload.now();
        let counted = ["writes", "reads"]
            .map(|series| self.cluster.total(node, series, &["--scope", "node"]));
        self.kill(node);
        let to = self.workload.now();
        empty(&data);
        if how == Forgets::Since {
            copy(&copied, &data);
            std::fs::remove_dir_all(&copied).expect("the copy is ours");
        }
        // With its folder the node lost the addresses of the members, and those on its command line
        // may all have been replaced since.
        let others = || self.members.iter().copied().filter(|member| *member != node);
        let is_first = |node: usize| !self.cluster.joined.contains_key(&node);
        let knows_one = is_first(node) && others().any(is_first);
        if let Some(through) = others().next().filter(|_| !knows_one) {
            let through = self.cluster.grpc[through].clone();
            self.cluster.joined.insert(node, through);
        }
        let told_before = self.cluster.log(node).len();
        self.start_member(at);
        let mut ended = false;
        eventually("a node that forgot takes part in nothing and says why", || {
            ended = ended || self.cluster.exited(node).is_some();
            let answer = http_answer(&self.cluster.http[node], "/readyz").unwrap_or_default();
            let told = self.cluster.log(node).split_off(told_before);
            let says = told.contains("replace-node");
            says && (ended || answer.starts_with("HTTP/1.1 503") && answer.contains("went back"))
        });
        let told = self.cluster.log(node).split_off(told_before);
        let said = told.lines().find(|line| line.contains("replace-node")).unwrap_or_default();
        println!("{:>9}  {said}", "");
        if !ended {
            self.kill(node);
        }
        self.replaced.push(Replaced { counted, from, to });
        self.replace(at);
    }
}
