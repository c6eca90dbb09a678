//! Hot keys: names for the keys that carry most of a cell, with bounds that always hold.
//!
//! ```text
//! recorder   a thread's own summary of the keys that it records, read by the flusher
//! summary    keys with bounds: what a harvest, a column, a fold and a node have; merges
//! harvest    all recorders of a sampler, fitted to the cells of the same harvest
//! column     the summaries of reads and writes of one column
//! codec      a column's summaries as bytes
//! answer     the keys of a window and a range, from a history, and from several nodes
//! ```
//!
//! # What is promised
//!
//! For every key, window and series: `lower <= true <= upper`, where `true` is what the cells of
//! the window counted for this key. Every key with more than `threshold` operations is listed. The
//! sum of the lower bounds of a cell's keys never exceeds the cell.
//!
//! # The algorithm
//!
//! Frequent items with deterministic bounds (Misra and Gries 1982; Metwally, Agrawal, El Abbadi
//! 2005; Anderson, Bevan, Lang, Liberty, Rhodes, Thaler, IMC 2017), merged as by Agarwal et al.
//! (2012): bounds add. Anderson et al. keep one hash table and, when it is full, go through all of
//! it to subtract a median. That is O(1) on average, but some request pays for a walk over
//! thousands of counters, and nobody can read the table meanwhile. Here the table is divided by the
//! hash into sets of sixteen counters, and a new key takes the place of the least counter of its
//! set: O(1) each time, and a reader needs only one set at a time to be at rest. The price is that
//! the size of the error depends on the hash, which is seeded: it is about
//! `operations / 4096` for keys that no one chose by the seed. The bounds hold for any keys.

pub mod answer;
pub(crate) mod codec;
pub(crate) mod column;
pub(crate) mod harvest;
mod key_words;
pub(crate) mod recorder;
mod set;
pub(crate) mod summary;
mod table;

pub use answer::{
    DEFAULT_HOT_KEYS, HotKey, HotKeys, HotKeysPart, HotKeysQuery, KeyBounds, MAX_HOT_KEYS,
    MAX_POINTS, NodeBounds, PART_KEYS, PartError, hashed_name, merge,
};
pub use column::ColumnHotKeys;
pub use summary::{NamedKey, Summary};

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod loom_tests;
