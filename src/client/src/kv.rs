//! The store.

use bytes::Bytes;

use super::client::{Client, Effect};
use super::consistency::Consistency;
use super::error::Error;
use super::nodes::connection::MAX_ANSWER_BYTES;
use keyviz_proto as proto;
use keyviz_proto::batch_operation::Operation;
use keyviz_proto::kv_client::KvClient;
use keyviz_proto::metadata::{DELETED_METADATA, NEXT_METADATA};
use keyviz_types::KeyRange;

/// The result of [`Client::cas`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Swap {
    /// The value was the expected one, and the write was made.
    Done,
    /// The key holds another value (`None`: it does not exist). Nothing was written.
    Found(Option<Bytes>),
}

/// Operations that are applied atomically, in order: at most 1,024, with at most 4 MiB of keys and
/// values, on keys of one Raft group.
#[derive(Clone, PartialEq, Debug, Default)]
#[must_use]
pub struct Batch {
    operations: Vec<proto::BatchOperation>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put.
    pub fn put(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let put = proto::PutRequest { key: key.into(), value: value.into() };
        self.operations.push(proto::BatchOperation { operation: Some(Operation::Put(put)) });
        self
    }

    /// Adds a delete.
    pub fn delete(mut self, key: impl Into<Bytes>) -> Self {
        let delete = proto::DeleteRequest { key: key.into() };
        self.operations.push(proto::BatchOperation { operation: Some(Operation::Delete(delete)) });
        self
    }

    /// The number of operations.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is no operation.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    fn first_key(&self) -> &[u8] {
        match self.operations.first().and_then(|first| first.operation.as_ref()) {
            Some(Operation::Put(put)) => &put.key,
            Some(Operation::Delete(delete)) => &delete.key,
            None => &[],
        }
    }
}

impl FromIterator<Operation> for Batch {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        let operation = |operation| proto::BatchOperation { operation: Some(operation) };
        Batch { operations: operations.into_iter().map(operation).collect() }
    }
}

/// A range that was deleted in part.
#[derive(Debug, thiserror::Error)]
#[error("{deleted} keys were deleted; the rest of the range was not: {source}")]
pub struct DeleteRangeError {
    /// Keys that were deleted.
    pub deleted: u64,
    /// Where the rest begins: all keys of the range before it are gone.
    pub next: Bytes,
    /// Why the rest was not deleted. If it is [`Error::Unknown`], some keys from `next` on may be
    /// gone.
    pub source: Error,
}

/// Most parts of a deleted range: with more routes in it, a part has several routes.
const MAX_PARTS: usize = 256;

impl Client {
    /// Stores a value.
    ///
    /// # Errors
    /// [`Error::Unknown`] where the write may have happened; with any other error it did not.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<(), Error> {
        let request = &proto::PutRequest { key: key.into(), value: value.into() };
        let put = |channel| async move { KvClient::new(channel).put(request.clone()).await };
        self.keyed(Effect::Write, &request.key, put).await.map(|_| ())
    }

    /// Reads the newest acknowledged value of a key; `None` if the key does not exist.
    ///
    /// # Errors
    /// Where no node serves the read, or one refuses it.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>, Error> {
        self.get_with(key, Consistency::Linearizable).await
    }

    /// As [`Client::get`], with another promise.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_with(
        &self,
        key: impl Into<Bytes>,
        consistency: Consistency,
    ) -> Result<Option<Bytes>, Error> {
        let consistency = proto::Consistency::from(consistency).into();
        let request = &proto::GetRequest { key: key.into(), consistency };
        let get = |channel| async move {
            let mut stub = KvClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            stub.get(request.clone()).await
        };
        Ok(self.keyed(Effect::Read, &request.key, get).await?.value)
    }

    /// Deletes a key; says whether it existed.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<bool, Error> {
        let request = &proto::DeleteRequest { key: key.into() };
        let delete = |channel| async move { KvClient::new(channel).delete(request.clone()).await };
        Ok(self.keyed(Effect::Write, &request.key, delete).await?.existed)
    }

    /// Compare and swap: writes `value` (`None`: deletes the key) if the key holds `expected`
    /// (`None`: does not exist).
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn cas(
        &self,
        key: impl Into<Bytes>,
        expected: Option<Bytes>,
        value: Option<Bytes>,
    ) -> Result<Swap, Error> {
        let request = &proto::CompareAndSwapRequest { key: key.into(), expected, value };
        let swap = |channel| async move {
            let mut stub = KvClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            stub.compare_and_swap(request.clone()).await
        };
        let answer = self.keyed(Effect::Write, &request.key, swap).await?;
        Ok(if answer.swapped { Swap::Done } else { Swap::Found(answer.actual) })
    }

    /// Applies a batch: all of its operations or none.
    ///
    /// # Errors
    /// As [`Client::put`]. Keys of different Raft groups are refused with `FAILED_PRECONDITION`.
    pub async fn batch(&self, batch: Batch) -> Result<(), Error> {
        let key = Bytes::copy_from_slice(batch.first_key());
        let request = &proto::BatchRequest { operations: batch.operations };
        let apply = |channel| async move { KvClient::new(channel).batch(request.clone()).await };
        self.keyed(Effect::Write, &key, apply).await.map(|_| ())
    }

    /// Deletes all keys of a range and returns their number. Goes in steps of at most 1,024 keys or
    /// 1 MiB; each step is atomic, the whole is not.
    ///
    /// # Errors
    /// The error says how far it came. Deleting the range again removes the rest.
    pub async fn delete_range(&self, range: impl Into<KeyRange>) -> Result<u64, DeleteRangeError> {
        let range = range.into();
        let failed = |deleted, next: &Bytes, source| {
            Err(DeleteRangeError { deleted, next: next.clone(), source })
        };
        let routes = match self.routes().await {
            Ok(routes) => routes,
            Err(source) => return failed(0, &range.start, source),
        };
        let bounds: Vec<Bytes> = routes.routes.into_iter().map(|route| route.start).collect();
        let mut deleted = 0;
        for part in parts(&range, &bounds) {
            let mut next = Some(part.start);
            while let Some(start) = next.take() {
                let rest = KeyRange { start, end: part.end.clone() };
                match self.delete_part(&rest).await {
                    Ok(Deleted { keys, next: after, cut: None }) => {
                        deleted += keys;
                        next = after;
                    }
                    Ok(Deleted { keys, next, cut: Some(source) }) => {
                        return failed(deleted + keys, &next.unwrap_or(rest.start), source);
                    }
                    Err(source) => return failed(deleted, &rest.start, source),
                }
            }
        }
        Ok(deleted)
    }

    /// Deletes the first keys of a range that ends where a route does. A node of an earlier version
    /// deletes all of them, and says nothing of what it did before it failed.
    async fn delete_part(&self, part: &KeyRange) -> Result<Deleted, Error> {
        let (start, end) = (part.start.clone(), part.end.clone());
        let request = &proto::DeleteRangeRequest { start, end, max_keys: KEYS_A_CALL };
        let delete = |channel| async move {
            match KvClient::new(channel).delete_range(request.clone()).await {
                // Part of it is done, whatever the status means otherwise.
                Err(status) if progress(&status).is_some() => Ok(Err(status)),
                answer => answer.map(|answer| Ok(answer.into_inner())),
            }
        };
        let (address, answer) = self.call_where(Effect::Write, delete).await?;
        Ok(match answer {
            Ok(proto::DeleteRangeResponse { deleted, next }) => {
                Deleted { keys: deleted, next, cut: None }
            }
            Err(status) => {
                let (keys, next) = progress(&status).unwrap_or_default();
                let address = address.clone();
                let cut = Error::Refused { address, status: Box::new(status) };
                Deleted { keys, next: Some(next), cut: Some(cut) }
            }
        })
    }
}

/// Keys that one call deletes: a second's work of a busy node.
const KEYS_A_CALL: u64 = 16 * 1_024;

/// What one call did.
struct Deleted {
    keys: u64,
    /// Where to continue.
    next: Option<Bytes>,
    /// Why it went no further, where it failed on its way.
    cut: Option<Error>,
}

/// How far a range delete came that failed on its way.
fn progress(status: &tonic::Status) -> Option<(u64, Bytes)> {
    let metadata = status.metadata();
    let deleted = metadata.get(DELETED_METADATA)?.to_str().ok()?.parse().ok()?;
    Some((deleted, metadata.get_bin(NEXT_METADATA)?.to_bytes().ok()?))
}

/// A range in parts that end where routes end.
fn parts(range: &KeyRange, bounds: &[Bytes]) -> Vec<KeyRange> {
    let inside = |bound: &&Bytes| **bound > range.start && range.contains(bound);
    let inside: Vec<&Bytes> = bounds.iter().filter(inside).collect();
    let step = (inside.len() + 1).div_ceil(MAX_PARTS);
    let starts = inside.into_iter().skip(step - 1).step_by(step);
    let starts: Vec<Bytes> = std::iter::once(&range.start).chain(starts).cloned().collect();
    let ends = starts[1..].iter().cloned().map(Some).chain([range.end.clone()]);
    starts.iter().cloned().zip(ends).map(|(start, end)| KeyRange { start, end }).collect()
}

#[cfg(test)]
#[path = "kv_tests.rs"]
mod tests;
