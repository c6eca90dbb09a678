//! Hosts whose disks forget.

use keyviz_raft::{Heard, heard_of};

use super::cluster::{Cluster, FORMING_MS, HOSTS, Later};
use super::disk::Copied;
use super::faults::Forgets;
use super::host::Host;
use super::world::{Bug, Scope};

/// Two of three hosts lose their disks and come up while the third is down. They must not form a
/// new cluster, then or when the third is back.
pub(super) fn lose_two(seed: u64, bug: Option<Bug>) -> Result<(), String> {
    let _scope = Scope::enter(bug);
    let mut cluster = Cluster::new(seed, false);
    cluster.hosts.iter_mut().for_each(Host::start);
    cluster.until(FORMING_MS, "the cluster forms", Cluster::is_formed)?;
    for host in 1..=HOSTS {
        cluster.kill(host, 1_000, 60_000);
    }
    cluster.due.clear();
    for host in 2..=HOSTS {
        cluster.host(host).disk.journal.put_back(&Copied::default());
        cluster.host(host).disk.rows.put_back(&Copied::default());
        cluster.start(host);
    }
    for passed in 0..8_000 {
        if passed == 5_000 {
            cluster.start(1);
        }
        cluster.tick()?;
        let formed = cluster.hosts[1..]
            .iter()
            .filter_map(Host::parts)
            .find(|parts| parts.changes.applied().cluster().is_some());
        if formed.is_some() {
            return Err(format!("a new cluster formed after {passed} ms"));
        }
    }
    Ok(())
}

impl Cluster {
    /// All hosts die, one loses its disk, and comes up again with the one that was down then.
    pub(super) fn forget(&mut self, host: u64, behind: u64, how: Forgets, alone_ms: u64) {
        (1..=HOSTS).for_each(|host| {
            if self.host(host).is_up() {
                self.kill(host, 1_000, 60_000);
            }
        });
        self.due.retain(|_, later| !matches!(later, Later::Start(_)));
        for other in 1..=HOSTS {
            let first = other == host || other == behind;
            self.later(if first { 20 } else { 20 + alone_ms }, Later::Start(other));
        }
        let index = host as usize - 1;
        match how {
            Forgets::All => {
                self.host(host).disk.journal.put_back(&Copied::default());
                self.host(host).disk.rows.put_back(&Copied::default());
                self.out = Some(host);
            }
            Forgets::Since { ago_ms }
            | Forgets::JournalSince { ago_ms }
            | Forgets::RowsSince { ago_ms } => {
                let then = self.net.now_ms().saturating_sub(ago_ms);
                let copied = self.copies.iter().rev().find(|(at, _)| *at <= then);
                let Some((journal, rows)) = copied.map(|(_, copies)| copies[index].clone()) else {
                    return;
                };
                if matches!(how, Forgets::RowsSince { .. }) {
                    // The rows are rebuilt from the log. If it does not reach back far enough, the
                    // node must report it.
                    self.host(host).disk.rows.put_back(&rows);
                    self.rows_went_back = Some(host);
                    return;
                }
                // Without a host that has later marks, the loss cannot be detected.
                if !self.others_know_more(host, &journal) {
                    return;
                }
                self.host(host).disk.journal.put_back(&journal);
                if matches!(how, Forgets::Since { .. }) {
                    self.host(host).disk.rows.put_back(&rows);
                }
                self.out = Some(host);
            }
        }
    }

    /// Whether every other host has durably recorded a later start or mark than a copied journal
    /// has.
    fn others_know_more(&self, host: u64, copied: &Copied) -> bool {
        let number = copied.node_record("incarnation").and_then(|record| record.first_chunk());
        let number = number.map_or(0, |number| u64::from_be_bytes(*number));
        let mark = heard(copied).mark;
        self.hosts.iter().filter(|other| other.id != host).all(|other| {
            let known = heard(&other.disk.journal.copied()).peers;
            known.get(&host).is_some_and(|known| known.number > number || known.mark > mark)
        })
    }
}

/// The marks and starts in a copied journal.
fn heard(journal: &Copied) -> Heard {
    let record = journal.node_record("handshake");
    record.map_or_else(Heard::default, |record| heard_of(record).expect("what was written"))
}
