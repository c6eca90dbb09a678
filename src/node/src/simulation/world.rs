//! A thread that is in a [`Scope`] is simulated: everything on it runs on this one thread, with
//! random numbers of a seed. [`Bug`]s are switched on for such a thread alone, so that a test can
//! show that the simulation finds them.

use std::cell::{Cell, RefCell};

use keyviz_raft::Reproducible;

/// A fault of the program, put in to see it caught.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    /// The log writer reports a batch before the sync that covers it.
    AcknowledgeBeforeSync,
    /// A vote is kept in memory and never written.
    VoteNotPersisted,
    /// A leader takes its lease for valid however long ago a quorum confirmed it.
    StaleLease,
    /// A lease is taken to last until a follower may vote again by the leader's clock, whatever
    /// theirs.
    NoDriftMargin,
    /// At open the last block of a log is taken for torn and dropped, though it was synced.
    LostTail,
    /// The applied position is written with every eighth batch only, so a restart applies twice.
    DoubleApply,
    /// A node that comes with another disk is taken for the member of its id.
    IdentityNotChecked,
    /// A node whose disk shows less than it showed before is taken for a later start of it.
    PositionNotCompared,
    /// A node that is not at the member's address is taken for the member.
    AddressNotChecked,
    /// A first start forms its cluster without asking anybody.
    FirstStartAsksNobody,
    /// A follower lets a leader overwrite what it has committed.
    CommittedOverwritten,
    /// The target of a move takes over before the source seals.
    AdoptBeforeSeal,
    /// The keys that changed last before a move sealed are not copied.
    LostTailOfMove,
    /// A chunk of a move that was sent before is taken again.
    ChunkTakenTwice,
    /// A group that a range has left answers reads of it.
    StaleOwnerAnswers,
    /// The group that a range has left keeps its rows.
    RowsLeftBehind,
}

impl Bug {
    /// All of them.
    pub(crate) const ALL: [Bug; 16] = [
        Bug::AcknowledgeBeforeSync,
        Bug::VoteNotPersisted,
        Bug::StaleLease,
        Bug::NoDriftMargin,
        Bug::LostTail,
        Bug::DoubleApply,
        Bug::IdentityNotChecked,
        Bug::PositionNotCompared,
        Bug::AddressNotChecked,
        Bug::FirstStartAsksNobody,
        Bug::CommittedOverwritten,
        Bug::AdoptBeforeSeal,
        Bug::LostTailOfMove,
        Bug::ChunkTakenTwice,
        Bug::StaleOwnerAnswers,
        Bug::RowsLeftBehind,
    ];
}

#[derive(Clone, Copy)]
struct Simulated {
    bug: Option<Bug>,
    random: u64,
}

thread_local! {
    static SIMULATED: Cell<Option<Simulated>> = const { Cell::new(None) };
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// This thread is simulated while the value lives.
pub(crate) struct Scope {
    _reproducible: Reproducible,
}

impl Scope {
    /// Begins.
    pub(crate) fn enter(bug: Option<Bug>) -> Self {
        catch_panics();
        PANICS.take();
        SIMULATED.set(Some(Simulated { bug, random: 0 }));
        Scope { _reproducible: Reproducible::enter(draw) }
    }

    /// What panicked on this thread since it was entered; tasks that panic say so to nobody else.
    pub(crate) fn panics(&self) -> Vec<String> {
        PANICS.take()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        SIMULATED.set(None);
        if std::thread::panicking() {
            PANICS.take().iter().for_each(|panic| eprintln!("{panic}"));
        }
    }
}

fn catch_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if is_simulated() {
                PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}

/// Whether this thread is simulated.
fn is_simulated() -> bool {
    SIMULATED.get().is_some()
}

/// The fault that is put in on this thread.
pub(crate) fn bug() -> Option<Bug> {
    SIMULATED.get()?.bug
}

/// Gives the runtime on this thread another source of random numbers and returns the one it had: a
/// node has its own, so that what one draws does not depend on the others.
pub(crate) fn swap_random(random: u64) -> u64 {
    let mut before = 0;
    SIMULATED.set(SIMULATED.get().map(|simulated| {
        before = simulated.random;
        Simulated { random, ..simulated }
    }));
    before
}

/// The next random number of this thread.
fn draw() -> u64 {
    let simulated = SIMULATED.get().expect("a scope lasts as long as what is drawn in it");
    let random = simulated.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
    SIMULATED.set(Some(Simulated { random, ..simulated }));
    mix(random)
}

/// Sixteen random bytes of this thread, which is simulated.
pub(crate) fn random_id() -> [u8; 16] {
    let part = || draw().to_be_bytes();
    let (first, second) = (part(), part());
    std::array::from_fn(|at| if at < 8 { first[at] } else { second[at - 8] })
}

/// SplitMix64's finalizer: a bijection whose every output bit depends on every input bit.
pub(crate) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
