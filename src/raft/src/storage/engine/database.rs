//! sled, or a database that is given in its place.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use sled::IVec;

/// A database in the place of a node's own, such as one in memory that can lose what was not
/// synced. One write is atomic; writes survive a crash as a prefix of their order, and those before
/// the last completed sync survive for certain.
pub trait Database: Debug + Send + Sync + 'static {
    /// Opens a tree, or makes it.
    fn open_tree(&self, name: &str) -> io::Result<Arc<dyn DatabaseTree>>;

    /// Names of all trees.
    fn tree_names(&self) -> Vec<String>;

    /// Removes a tree; whether there was one.
    fn drop_tree(&self, name: &str) -> io::Result<bool>;

    /// Makes everything that was written durable, at once.
    fn flush(&self) -> io::Result<()>;

    /// Makes everything that was written before the call durable, in the time that this takes.
    fn sync(&self) -> BoxFuture<'static, io::Result<()>>;

    /// Bytes of everything in it.
    fn bytes(&self) -> u64;
}

/// Rows of a [`DatabaseTree`] in key order, from either end.
pub type DatabaseRows = Box<dyn DoubleEndedIterator<Item = (Bytes, Bytes)> + Send>;

/// One ordered map of a [`Database`].
pub trait DatabaseTree: Debug + Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Option<Bytes>;

    /// Puts a value, or removes the key.
    fn put(&self, key: &[u8], value: Option<Bytes>);

    /// Hands what was written to the system, so that it survives the process.
    fn flush(&self) -> io::Result<()>;

    /// Rows between two keys.
    fn range(&self, from: Bound<Bytes>, to: Bound<Bytes>) -> DatabaseRows;
}

/// The databases of a node, given.
#[derive(Clone, Debug)]
pub struct Databases {
    /// What stands for the node's folder. Nothing is there.
    pub name: PathBuf,
    /// The one of the rows.
    pub rows: Arc<dyn Database>,
    /// The one of logs, votes and node records.
    pub journal: Arc<dyn Database>,
}

/// A database.
#[derive(Clone, Debug)]
pub(super) enum Db {
    Sled(sled::Db),
    Given(Arc<dyn Database>),
}

impl Db {
    pub(super) fn open_tree(&self, name: &str) -> sled::Result<DbTree> {
        match self {
            Db::Sled(db) => db.open_tree(name).map(DbTree::Sled),
            Db::Given(db) => Ok(DbTree::Given(db.open_tree(name)?)),
        }
    }

    pub(in crate::storage) fn tree_names(&self) -> Vec<IVec> {
        match self {
            Db::Sled(db) => db.tree_names(),
            Db::Given(db) => db.tree_names().iter().map(|name| IVec::from(name.as_str())).collect(),
        }
    }

    pub(in crate::storage) fn drop_tree(&self, name: &str) -> sled::Result<bool> {
        match self {
            Db::Sled(db) => db.drop_tree(name),
            Db::Given(db) => Ok(db.drop_tree(name)?),
        }
    }

    /// What was written before the call is durable when it returns, for sled only with the
    /// `fdatasync` that the engine makes after it.
    pub(in crate::storage) fn flush(&self) -> sled::Result<usize> {
        match self {
            Db::Sled(db) => db.flush(),
            Db::Given(db) => Ok(db.flush().map(|()| 0)?),
        }
    }

    pub(super) fn size_on_disk(&self) -> sled::Result<u64> {
        match self {
            Db::Sled(db) => db.size_on_disk(),
            Db::Given(db) => Ok(db.bytes()),
        }
    }
}

/// One ordered map of a database.
#[derive(Clone, Debug)]
pub(super) enum DbTree {
    Sled(sled::Tree),
    Given(Arc<dyn DatabaseTree>),
}

impl DbTree {
    pub(in crate::storage) fn get(&self, key: &[u8]) -> sled::Result<Option<IVec>> {
        match self {
            DbTree::Sled(tree) => tree.get(key),
            DbTree::Given(tree) => Ok(tree.get(key).map(|value| IVec::from(&value[..]))),
        }
    }

    pub(in crate::storage) fn insert(
        &self,
        key: &[u8],
        value: impl Into<IVec>,
    ) -> sled::Result<Option<IVec>> {
        match self {
            DbTree::Sled(tree) => tree.insert(key, value),
            DbTree::Given(tree) => {
                tree.put(key, Some(Bytes::copy_from_slice(&value.into())));
                Ok(None)
            }
        }
    }

    pub(in crate::storage) fn remove(&self, key: &[u8]) -> sled::Result<Option<IVec>> {
        match self {
            DbTree::Sled(tree) => tree.remove(key),
            DbTree::Given(tree) => {
                tree.put(key, None);
                Ok(None)
            }
        }
    }

    pub(in crate::storage) fn flush(&self) -> sled::Result<usize> {
        match self {
            DbTree::Sled(tree) => tree.flush(),
            DbTree::Given(tree) => Ok(tree.flush().map(|()| 0)?),
        }
    }

    pub(in crate::storage) fn range<'a>(&self, range: impl RangeBounds<&'a [u8]>) -> DbIter {
        match self {
            DbTree::Sled(tree) => DbIter::Sled(tree.range(range)),
            DbTree::Given(tree) => {
                let own = |bound: Bound<&&[u8]>| bound.map(|key| Bytes::copy_from_slice(key));
                DbIter::Given(tree.range(own(range.start_bound()), own(range.end_bound())))
            }
        }
    }
}

/// Rows of a tree, from either end.
#[expect(clippy::large_enum_variant, reason = "a box would cost each scan of a node an allocation")]
pub(super) enum DbIter {
    Sled(sled::Iter),
    Given(DatabaseRows),
}

fn given(row: (Bytes, Bytes)) -> sled::Result<(IVec, IVec)> {
    Ok((IVec::from(&row.0[..]), IVec::from(&row.1[..])))
}

impl Iterator for DbIter {
    type Item = sled::Result<(IVec, IVec)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            DbIter::Sled(rows) => rows.next(),
            DbIter::Given(rows) => rows.next().map(given),
        }
    }
}

impl DoubleEndedIterator for DbIter {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            DbIter::Sled(rows) => rows.next_back(),
            DbIter::Given(rows) => rows.next_back().map(given),
        }
    }
}
