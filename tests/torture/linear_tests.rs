//! The checker, on histories that are known to be good or bad.

use super::linear::{Event, Op, Outcome, Refusal, check};

fn event(op: Op, outcome: Outcome, start: u64, end: u64) -> Event {
    Event { client: 0, op, outcome, start, end }
}

fn put(value: u64, start: u64, end: u64) -> Event {
    event(Op::Put(value), Outcome::Done, start, end)
}

fn get(found: Option<u64>, start: u64, end: u64) -> Event {
    event(Op::Get, Outcome::Found(found), start, end)
}

fn delete(existed: bool, start: u64, end: u64) -> Event {
    event(Op::Delete, Outcome::Deleted { existed }, start, end)
}

fn swap(expected: Option<u64>, new: Option<u64>, outcome: Outcome, start: u64, end: u64) -> Event {
    event(Op::Cas { expected, new }, outcome, start, end)
}

fn unknown(op: Op, start: u64) -> Event {
    event(op, Outcome::Unknown, start, start + 1)
}

fn assert_good(name: &str, history: &[Event]) {
    assert_eq!(check(history), Ok(()), "{name}");
}

fn assert_bad(name: &str, history: &[Event]) {
    assert!(matches!(check(history), Err(Refusal::NotLinearizable { .. })), "{name}");
}

#[test]
fn the_checker_takes_what_an_order_explains() {
    assert_good("nothing", &[]);
    assert_good("one after another", &[put(1, 0, 1), get(Some(1), 2, 3), delete(true, 4, 5)]);
    assert_good("a read beside a write may see either", &[put(1, 0, 9), get(None, 1, 2)]);
    assert_good("and the new value", &[put(1, 0, 9), get(Some(1), 1, 2), get(Some(1), 3, 4)]);
    assert_good(
        "two writes at once end either way",
        &[put(1, 0, 9), put(2, 1, 8), get(Some(1), 10, 11)],
    );
    assert_good(
        "a swap between two writes",
        &[put(1, 0, 1), swap(Some(1), Some(2), Outcome::Swapped, 2, 3), get(Some(2), 4, 5)],
    );
    assert_good(
        "a swap that found another value",
        &[put(1, 0, 1), swap(Some(9), Some(2), Outcome::Found(Some(1)), 2, 3)],
    );
    assert_good("an unknown write happened", &[unknown(Op::Put(1), 0), get(Some(1), 5, 6)]);
    assert_good("or did not", &[unknown(Op::Put(1), 0), get(None, 5, 6)]);
    assert_good(
        "or happens late",
        &[unknown(Op::Put(1), 0), put(2, 2, 3), get(Some(2), 4, 5), get(Some(1), 6, 7)],
    );
    assert_good(
        "an unknown swap explains a value",
        &[
            put(1, 0, 1),
            unknown(Op::Cas { expected: Some(1), new: Some(2) }, 2),
            get(Some(2), 9, 10),
        ],
    );
    assert_good(
        "an unknown delete explains an absence",
        &[put(1, 0, 1), unknown(Op::Delete, 2), get(Some(1), 3, 4), get(None, 5, 6)],
    );
}

#[test]
fn the_checker_refuses_what_no_order_explains() {
    assert_bad("a value of nobody", &[get(Some(1), 0, 1)]);
    assert_bad("a lost write", &[put(1, 0, 1), get(None, 2, 3)]);
    assert_bad("a stale read", &[put(1, 0, 1), put(2, 2, 3), get(Some(1), 4, 5)]);
    assert_bad(
        "a value that goes and comes back",
        &[put(1, 0, 1), put(2, 2, 9), get(Some(2), 3, 4), get(Some(1), 5, 6)],
    );
    assert_bad(
        "two readers that see two writes in different orders",
        &[put(1, 0, 20), put(2, 0, 20), get(Some(1), 1, 2), get(Some(2), 3, 4), get(Some(1), 5, 6)],
    );
    assert_bad(
        "a write that happens twice",
        &[put(1, 0, 1), put(2, 2, 3), get(Some(2), 4, 5), get(Some(1), 6, 7)],
    );
    assert_bad(
        "an unknown write that happens twice",
        &[
            unknown(Op::Put(1), 0),
            get(Some(1), 2, 3),
            put(2, 4, 5),
            get(Some(2), 6, 7),
            delete(true, 8, 9),
            get(Some(1), 10, 11),
        ],
    );
    assert_bad("an unknown write before it began", &[get(Some(1), 0, 1), unknown(Op::Put(1), 2)]);
    assert_bad(
        "a swap of a value that was gone",
        &[put(1, 0, 1), put(2, 2, 3), swap(Some(1), Some(3), Outcome::Swapped, 4, 5)],
    );
    assert_bad(
        "a swap that failed on the value it expected",
        &[put(1, 0, 1), swap(Some(1), Some(2), Outcome::Found(Some(1)), 2, 3)],
    );
    assert_bad(
        "two swaps of one value",
        &[
            put(1, 0, 1),
            swap(Some(1), Some(2), Outcome::Swapped, 2, 9),
            swap(Some(1), Some(3), Outcome::Swapped, 2, 9),
        ],
    );
    assert_bad("a delete that found nothing", &[put(1, 0, 1), delete(false, 2, 3)]);
}

#[test]
fn the_checker_names_what_it_is_stuck_at() {
    let stale = get(Some(1), 4, 5);
    let history = [put(1, 0, 1), put(2, 2, 3), stale];
    let stuck = Refusal::NotLinearizable { explained: 2, stuck: vec![stale] };
    assert_eq!(check(&history), Err(stuck));
}

/// Histories made from an order, so that they are good by construction, and broken in one place.
#[test]
fn the_checker_decides_long_histories_with_many_at_once_and_many_unknown() {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
    for seed in 0..10 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut state = None;
        let mut history = Vec::new();
        for at in 0..400u64 {
            // Takes effect at 10 * at; began up to 6 operations earlier, ended as much later.
            let start = (10 * at).saturating_sub(rng.random_range(0..60));
            let end = 10 * at + rng.random_range(1..60);
            let happened = match rng.random_range(0..4) {
                0 => event(Op::Get, Outcome::Found(state), start, end),
                1 => event(Op::Put(at), Outcome::Done, start, end),
                2 => event(Op::Delete, Outcome::Deleted { existed: state.is_some() }, start, end),
                _ => swap(state, Some(at), Outcome::Swapped, start, end),
            };
            state = match happened.op {
                Op::Get => state,
                Op::Put(value) => Some(value),
                Op::Delete => None,
                Op::Cas { new, .. } => new,
            };
            let lost = happened.op != Op::Get && rng.random_ratio(1, 100);
            history.push(Event {
                outcome: if lost { Outcome::Unknown } else { happened.outcome },
                ..happened
            });
        }
        assert_good(&format!("seed {seed}"), &history);
        let found = history.iter().position(|event| matches!(event.outcome, Outcome::Found(_)));
        history[found.expect("there are reads")].outcome = Outcome::Found(Some(1_000_000));
        assert!(check(&history).is_err(), "seed {seed}: a value of nobody");
    }
}

#[test]
fn what_nobody_saw_does_not_make_a_history_undecided() {
    // The search tries the other order of the two puts first, and would then try each set of the
    // unknown ones to explain what was found.
    let mut history: Vec<Event> = (0..24).map(|at| unknown(Op::Put(100 + at), at)).collect();
    history.extend([put(1, 50, 54), put(2, 50, 55), get(Some(1), 60, 61)]);
    assert_good("twenty-four unknown writes that nobody saw", &history);
}
