//! Finds the position of a key among sorted start keys.
//!
//! A binary search over 10,000 routes compares some fourteen byte strings, each behind a pointer to
//! a cold cache line. This index reads a key in windows of eight bytes, as one big-endian number
//! each, so most comparisons are of numbers that lie side by side:
//!
//! ```text
//!   node: all entries that share a prefix
//!     skip       what they share beyond the parent; compared once, not per entry
//!     buckets    window's top bits -> positions in `windows`; two to four buckets per window
//!     windows    the next eight bytes of the entries, each distinct value once, ascending
//!     firsts     per window: its first entry
//!     ties       per window, touched only when the key has the same window:
//!       lengths  entries that end within the window, by length
//!       child    the node of the entries that go on after it
//! ```
//!
//! A window that the key does not fill is padded with zeros. Entries with equal padded windows
//! differ in length, which orders them as byte strings are ordered.
//!
//! Size: less than two nodes and a bucket table of at most eight words per entry. Depth: each level
//! consumes at least eight bytes or the whole shared prefix, so it is bounded by the key length. It
//! is one for keys that differ within eight bytes after their common prefix.

use std::hint::select_unpredictable;

use bytes::Bytes;

/// An immutable index over sorted, distinct start keys, the first of which is empty.
pub(crate) struct Locator {
    entries: usize,
    nodes: Box<[Node]>,
    buckets: Box<[u32]>,
    windows: Box<[u64]>,
    /// Parallel to `windows`, with one more per node: the end of its entries.
    firsts: Box<[u32]>,
    ties: Box<[Tie]>,
}

struct Node {
    skip: Bytes,
    /// Its first entry, and one past its last.
    entries: (u32, u32),
    /// The lowest window, and the shift that maps the distance of a window from it to a bucket.
    low: u64,
    shift: u32,
    /// Bucket `n` holds `windows[windows_at..]` from `buckets[buckets_at + n]` up to the next.
    last_bucket: u64,
    /// The greatest power of two that is at most the number of windows in the fullest bucket.
    first_step: u32,
    buckets_at: u32,
    windows_at: u32,
    firsts_at: u32,
}

#[derive(Clone, Copy)]
struct Tie {
    /// Bit n: an entry ends n bytes into the window.
    lengths: u16,
    /// The node of the entries that go on after the window, or `NO_NODE`.
    child: u32,
}

const WINDOW: usize = size_of::<u64>();
const NO_NODE: u32 = u32::MAX;

/// The eight bytes from `from` on, padded with zeros. `from` is at most the key's length.
#[inline]
fn window(key: &[u8], from: usize) -> u64 {
    if let Some(bytes) = key.get(from..).and_then(<[u8]>::first_chunk) {
        return u64::from_be_bytes(*bytes);
    }
    let rest = key.len() - from;
    if rest == 0 {
        return 0;
    }
    let missing_bits = 8 * (WINDOW - rest);
    match key.last_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes) << missing_bits,
        None => {
            let rest = key[from..].iter().fold(0, |rest, &byte| (rest << 8) | u64::from(byte));
            rest << missing_bits
        }
    }
}

impl Locator {
    pub(crate) fn new(starts: &[Bytes]) -> Self {
        assert!(starts.first().is_none_or(Bytes::is_empty), "the first start key is empty");
        assert!(starts.len() < NO_NODE as usize, "entries are numbered with 32 bits");
        Builder::default().build(starts)
    }

    /// Index of the last start key that is at most `key`; `None` only in an empty index.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<usize> {
        // The first entry is the empty key, below all others, and is not part of any node.
        match self.nodes.first() {
            Some(root) => Some(self.find_in(root, key) as usize),
            None => self.entries.checked_sub(1),
        }
    }

    #[inline]
    fn find_in(&self, root: &Node, key: &[u8]) -> u32 {
        let mut node = root;
        let mut at = 0;
        loop {
            let (first, end) = node.entries;
            if !node.skip.is_empty() {
                let rest = &key[at..];
                if !rest.starts_with(&node.skip) {
                    // A key that ends within the shared prefix sorts before all entries.
                    return if rest < &*node.skip { first - 1 } else { end - 1 };
                }
                at += node.skip.len();
            }
            let wanted = window(key, at);
            if wanted < node.low {
                return first - 1;
            }
            let position = self.last_window(node, wanted);
            let first_at = node.firsts_at as usize + position;
            let window_at = node.windows_at as usize + position;
            if self.windows[window_at] != wanted {
                return self.firsts[first_at + 1] - 1;
            }
            let tie = self.ties[window_at];
            let rest = key.len() - at;
            if rest > WINDOW && tie.child != NO_NODE {
                node = &self.nodes[tie.child as usize];
                at += WINDOW;
                continue;
            }
            let not_longer = tie.lengths & ((2 << rest.min(WINDOW)) - 1);
            return self.firsts[first_at] + not_longer.count_ones() - 1;
        }
    }

    /// Position in the node of the last window that is at most `wanted`. `wanted` must not be below
    /// the first window.
    ///
    /// The number of steps is the same for all keys, and no branch depends on the windows: a branch
    /// that random keys mispredict costs more than the whole search.
    #[inline]
    fn last_window(&self, node: &Node, wanted: u64) -> usize {
        let bucket = ((wanted - node.low) >> node.shift).min(node.last_bucket) as usize;
        let at = node.buckets_at as usize + bucket;
        let (mut position, end) = (self.buckets[at] as usize, self.buckets[at + 1] as usize);
        let windows = &self.windows[node.windows_at as usize..];
        // All windows before `position` are at most `wanted`; fewer than `2 * step` of those from
        // it on may be. The first bucket has a window, so `next` is not 0.
        let mut step = node.first_step as usize;
        while step > 0 {
            let next = (position + step).min(end);
            position = select_unpredictable(windows[next - 1] <= wanted, next, position);
            step /= 2;
        }
        position - 1
    }
}

#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    buckets: Vec<u32>,
    windows: Vec<u64>,
    firsts: Vec<u32>,
    ties: Vec<Tie>,
}

/// A node to build: entries `from..to`, equal up to byte `at`, the child of tie `parent`.
struct Pending {
    from: usize,
    to: usize,
    at: usize,
    parent: Option<usize>,
}

impl Builder {
    fn build(mut self, starts: &[Bytes]) -> Locator {
        let mut pending = Vec::new();
        if starts.len() > 1 {
            pending.push(Pending { from: 1, to: starts.len(), at: 0, parent: None });
        }
        while let Some(next) = pending.pop() {
            if let Some(parent) = next.parent {
                self.ties[parent].child = self.nodes.len() as u32;
            }
            self.node(starts, &next, &mut pending);
        }
        Locator {
            entries: starts.len(),
            nodes: self.nodes.into(),
            buckets: self.buckets.into(),
            windows: self.windows.into(),
            firsts: self.firsts.into(),
            ties: self.ties.into(),
        }
    }

    fn node(&mut self, starts: &[Bytes], node: &Pending, pending: &mut Vec<Pending>) {
        let (first, last) = (&starts[node.from], &starts[node.to - 1]);
        // Entries are sorted, so the common prefix of the first and the last is that of all.
        let shared = first[node.at..].iter().zip(&last[node.at..]).take_while(|(a, b)| a == b);
        let skip = first.slice(node.at..node.at + shared.count());
        let at = node.at + skip.len();
        let windows_at = self.windows.len();
        let firsts_at = self.firsts.len();
        let mut entry = node.from;
        let mut value = window(first, at);
        while entry < node.to {
            let mut next_value = value;
            let group_end = (entry + 1..node.to)
                .find(|&next| {
                    next_value = window(&starts[next], at);
                    next_value != value
                })
                .unwrap_or(node.to);
            let ends_here = |start: &Bytes| start.len() - at <= WINDOW;
            let ending = starts[entry..group_end].partition_point(ends_here);
            let lengths = starts[entry..entry + ending]
                .iter()
                .fold(0, |lengths, start| lengths | 1 << (start.len() - at));
            if entry + ending < group_end {
                pending.push(Pending {
                    from: entry + ending,
                    to: group_end,
                    at: at + WINDOW,
                    parent: Some(self.ties.len()),
                });
            }
            self.windows.push(value);
            self.firsts.push(entry as u32);
            self.ties.push(Tie { lengths, child: NO_NODE });
            entry = group_end;
            value = next_value;
        }
        self.firsts.push(node.to as u32);
        let buckets_at = self.buckets.len() as u32;
        let (low, shift, last_bucket) = self.bucket(windows_at);
        let buckets = &self.buckets[buckets_at as usize..];
        let fullest = buckets.windows(2).map(|pair| pair[1] - pair[0]).max();
        let first_step = 1 << fullest.expect("a node has a bucket").ilog2();
        self.nodes.push(Node {
            skip,
            entries: (node.from as u32, node.to as u32),
            low,
            shift,
            last_bucket,
            first_step,
            buckets_at,
            windows_at: windows_at as u32,
            firsts_at: firsts_at as u32,
        });
    }

    /// Adds the bucket table of the windows from `windows_at` on, with two to four buckets per
    /// window if there are more than four windows.
    fn bucket(&mut self, windows_at: usize) -> (u64, u32, u64) {
        let windows = &self.windows[windows_at..];
        let low = windows[0];
        let spread = windows[windows.len() - 1] - low;
        let bits = match windows.len() {
            0..=4 => 0,
            count => count.next_power_of_two().ilog2() + 1,
        };
        let shift = (u64::BITS - spread.leading_zeros()).saturating_sub(bits);
        // A shift by all 64 bits puts every window into one bucket.
        let bucket_of = |window: u64| (window - low).checked_shr(shift).unwrap_or(0);
        let last_bucket = bucket_of(low + spread);
        let buckets_at = self.buckets.len();
        for (position, &window) in windows.iter().enumerate() {
            // The buckets after that of the previous window, up to that of this one, begin here.
            let begun = buckets_at + bucket_of(window) as usize + 1;
            self.buckets.resize(begun.max(self.buckets.len()), position as u32);
        }
        self.buckets.push(windows.len() as u32);
        (low, shift.min(u64::BITS - 1), last_bucket)
    }
}

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
