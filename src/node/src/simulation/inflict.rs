//! What each fault does to the hosts.

use std::sync::atomic::Ordering;

use super::cluster::{Cluster, HOSTS, Later};
use super::faults::{Fault, Whom};
use super::host::Host;
use super::net::Link;

impl Cluster {
    pub(super) fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::Kill { host, keep, down_ms } => self.kill(host, keep, down_ms),
            Fault::KillAll { keep, down_ms } => {
                (1..=HOSTS).for_each(|host| self.kill(host, keep, down_ms + host * 13));
            }
            Fault::Pause { host, stopped_ms } => {
                let host = self.whom(host);
                if self.host(host).is_up() && !self.host(host).paused {
                    self.host(host).paused = true;
                    let now_ms = self.net.now_ms();
                    self.pauses.push((host, now_ms, now_ms + stopped_ms));
                    self.later(stopped_ms, Later::Resume(host));
                }
            }
            Fault::Partition { host, inward, outward, cut_ms } => {
                let host = self.whom(host);
                self.cut(host, inward, outward);
                self.later(cut_ms, Later::NetHeals);
            }
            Fault::KillCutLeader { cut_ms, keep } => {
                let host = self.whom(Whom::Leader);
                self.cut(host, true, true);
                self.later(cut_ms, Later::KillCut { host, keep });
            }
            Fault::OneWay { from, to, cut_ms } => {
                self.net.set_link(from, to, Link { cut: true, ..Link::default() });
                self.later(cut_ms, Later::NetHeals);
            }
            Fault::Weather { link, lasting_ms } => {
                for from in 0..=HOSTS {
                    (0..=HOSTS).for_each(|to| self.net.set_link(from, to, link.link()));
                }
                self.later(lasting_ms, Later::NetHeals);
            }
            Fault::SlowDisk { host, sync_ms, lasting_ms } => {
                self.host(host).sync_ms.store(sync_ms, Ordering::Relaxed);
                self.later(lasting_ms, Later::DiskHeals(host));
            }
            // One that starts would only say that it cannot.
            Fault::DiskFails { host, .. } if self.host(host).parts().is_none() => {}
            Fault::DiskFails { host, keep, down_ms } => {
                self.host(host).disk.fail_syncs();
                self.later(50, Later::KillCut { host, keep });
                self.later(50 + down_ms, Later::Start(host));
            }
            Fault::Clock { host, offset_ms } => {
                self.host(host).clock_offset_ms.store(offset_ms, Ordering::Relaxed);
            }
            Fault::Forget { .. } | Fault::CopyFolder { .. } if self.forgets => {}
            Fault::CopyFolder { host, copy } => {
                self.forgets = true;
                self.copy_folder(host, copy);
            }
            Fault::Forget { host, behind, how, apart_ms, alone_ms } => {
                self.forgets = true;
                self.kill(behind, 1_000, apart_ms + 100);
                self.later(apart_ms, Later::Forget { host, behind, how, alone_ms });
            }
        }
    }

    fn cut(&mut self, host: u64, inward: bool, outward: bool) {
        let cut = Link { cut: true, ..Link::default() };
        for other in (1..=HOSTS).filter(|other| *other != host) {
            if inward {
                self.net.set_link(other, host, cut);
            }
            if outward {
                self.net.set_link(host, other, cut);
            }
        }
    }

    /// The host that leads the most groups, as far as each knows of itself.
    fn whom(&self, whom: Whom) -> u64 {
        let leads = |host: &&Host| {
            let groups = host.parts().map(|parts| parts.groups.list()).unwrap_or_default();
            (groups.iter().filter(|group| group.is_leader()).count(), host.id)
        };
        match whom {
            Whom::Host(host) => host,
            Whom::Leader => self.hosts.iter().max_by_key(leads).map_or(1, |host| host.id),
        }
    }
}
