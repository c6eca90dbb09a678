//! A host's folder is copied to a second machine, and both run.

use super::cluster::{Cluster, HOSTS, Later};
use super::faults::Copy;
use super::host::Host;
use keyviz_raft::{Participation, heard_of};

/// Where a copy is: no member is known at this address.
const ELSEWHERE: u64 = HOSTS + 1;

/// A second process on a copy of a host's folder.
pub(super) struct FolderCopy {
    pub(super) host: Host,
    /// Messages to the member reach the copy instead.
    takes_address: bool,
}

/// A copy that was switched off.
#[derive(Clone, Copy)]
pub(super) struct EndedCopy {
    host: u64,
    takes_address: bool,
    /// Of its start.
    nonce: Option<u64>,
}

impl Cluster {
    /// A host dies, its folder is copied, and two processes start, each on one of the two folders.
    pub(super) fn copy_folder(&mut self, host: u64, copy: Copy) {
        self.kill(host, 1_000, if copy.first { copy.apart_ms } else { 1 });
        let original = self.host(host);
        let second = original.elsewhere(ELSEWHERE);
        second.disk.journal.put_back(&original.disk.journal.copied());
        second.disk.rows.put_back(&original.disk.rows.copied());
        self.copy = Some(FolderCopy { host: second, takes_address: copy.takes_address });
        self.later(if copy.first { 1 } else { copy.apart_ms }, Later::CopyStarts);
        self.later(copy.apart_ms + copy.lasting_ms, Later::CopyEnds);
    }

    pub(super) fn start_copy(&mut self) {
        if let Some(copy) = self.copy.as_mut().filter(|copy| !copy.host.is_up()) {
            copy.host.start();
        }
    }

    /// The copy is switched off, and the original starts again: a refusal that names another
    /// process at its address stands until then.
    pub(super) fn end_copy(&mut self) {
        let Some(FolderCopy { mut host, takes_address }) = self.copy.take() else { return };
        let nonce = host.parts().map(|parts| parts.roster.own().nonce);
        let id = host.id;
        host.kill(1_000);
        self.copies_ended.push(EndedCopy { host: id, takes_address, nonce });
        self.kill(id, 1_000, 1);
    }

    /// A host is out if another one stored a start of the copy, which then took its place: it lacks
    /// what the copy acknowledged. One that heard of it and died before it had stored it may have
    /// refused the host as well.
    pub(super) fn judge_copies(&mut self) {
        for copy in self.copies_ended.clone() {
            let parts = self.hosts[copy.host as usize - 1].parts();
            let is_refused = parts.is_some_and(|parts| {
                matches!(parts.roster.participation(), Participation::Refused(_))
            });
            let is_known = copy.nonce.is_some_and(|nonce| self.is_known(copy.host, nonce));
            if copy.takes_address && (is_known || is_refused) {
                self.out = Some(copy.host);
            }
        }
    }

    /// Whether the address of a host led to a copy of it, so that what the copy counted is lost.
    pub(super) fn address_was_taken(&self) -> bool {
        self.copies_ended.iter().any(|copy| copy.takes_address)
    }

    /// Whether another host stored this start of a host.
    fn is_known(&self, host: u64, nonce: u64) -> bool {
        self.hosts.iter().filter(|other| other.id != host).any(|other| {
            let copied = other.disk.journal.copied();
            let record = copied.node_record("handshake").and_then(|record| heard_of(record).ok());
            record
                .and_then(|heard| heard.peers.get(&host).copied())
                .is_some_and(|start| start.nonce == nonce)
        })
    }

    /// The process that messages to a host reach.
    pub(super) fn at_address(&mut self, to: u64) -> &mut Host {
        match &mut self.copy {
            Some(copy) if copy.takes_address && copy.host.id == to => &mut copy.host,
            _ => &mut self.hosts[to as usize - 1],
        }
    }

    /// The machine in a place of the network, if it is there.
    pub(super) fn in_slot(&self, slot: u64) -> Option<&Host> {
        match slot {
            ELSEWHERE => self.copy.as_ref().map(|copy| &copy.host),
            _ => self.hosts.get(slot as usize - 1),
        }
    }

    pub(super) fn tick_copy(&mut self) {
        if let Some(copy) = &mut self.copy {
            copy.host.tick();
        }
    }

    /// A copy at an address that the cluster does not know leads nothing.
    pub(super) fn check_copy(&self) -> Result<(), String> {
        let Some(copy) = self.copy.as_ref().filter(|copy| !copy.takes_address) else {
            return Ok(());
        };
        let groups = copy.host.parts().map(|parts| parts.groups.list()).unwrap_or_default();
        match groups.iter().find(|group| group.is_leader()) {
            Some(group) => {
                let (id, group) = (copy.host.id, group.id());
                Err(format!("a copy of host {id} at another address leads group {group}"))
            }
            None => Ok(()),
        }
    }
}
