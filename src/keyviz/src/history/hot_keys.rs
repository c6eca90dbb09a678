//! The hot keys of all closed columns: keys that columns share, and the byte budget.
//!
//! Each key is in memory once, however many columns list it. Over the budget the oldest columns
//! list half of what they did, the coldest keys going first, until they list none.

use std::collections::HashMap;
use std::sync::Arc;

use super::column::Column;
use crate::hotkeys::column::ColumnHotKeys;

/// The part of the history's bytes that hot keys may have on top of it.
pub(crate) const SHARE_OF_HISTORY: usize = 8;

/// Memory of a shared key beside its bytes: its counts of references and its place in the map.
const KEY_OVERHEAD: usize = 48;

/// Keys of a series that the oldest column lists at least, before it lists none.
const FEW_KEYS: usize = 16;

/// Keys by what refers to them, and the bytes of everything.
#[derive(Default, Debug)]
pub(crate) struct SharedKeys {
    uses: HashMap<Arc<[u8]>, usize>,
    bytes: usize,
}

impl SharedKeys {
    /// Bytes of all hot keys that are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes a column refer to the keys that others have.
    pub fn share(&self, column: &mut Column) {
        for key in column.hot_keys_mut().flat_map(ColumnHotKeys::keys_mut) {
            if let Some((shared, _)) = self.uses.get_key_value(key) {
                *key = Arc::clone(shared);
            }
        }
    }

    pub fn hold(&mut self, column: &Column) {
        self.bytes += column.hot_key_bytes();
        for key in column.hot_keys().flat_map(ColumnHotKeys::keys) {
            match self.uses.get_mut(key) {
                Some(uses) => *uses += 1,
                None => {
                    self.uses.insert(Arc::clone(key), 1);
                    self.bytes += key.len() + KEY_OVERHEAD;
                }
            }
        }
    }

    pub fn release(&mut self, column: &Column) {
        self.bytes -= column.hot_key_bytes();
        for key in column.hot_keys().flat_map(ColumnHotKeys::keys) {
            let uses = self.uses.get_mut(key).expect("held when its column was inserted");
            *uses -= 1;
            if *uses == 0 {
                self.uses.remove(key);
                self.bytes -= key.len() + KEY_OVERHEAD;
            }
        }
    }
}

/// Lets a column list half of the keys that it does, or none if they are few.
pub(crate) fn list_fewer(column: &mut Column) {
    let listed = column.hot_keys().map(ColumnHotKeys::len).max().unwrap_or(0);
    let most = if listed > FEW_KEYS { listed / 2 } else { 0 };
    column.hot_keys_mut().for_each(|keys| keys.prune(most));
}
