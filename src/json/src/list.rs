//! Lists of messages, converted while they are written.

use serde::{Serialize, Serializer};

/// A message that has a form as JSON.
pub(crate) trait HasJson {
    /// The form, which borrows from the message.
    type Json<'a>: Serialize
    where
        Self: 'a;

    fn json(&self) -> Self::Json<'_>;
}

/// A list that is converted item by item during serialization.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List<'a, T>(pub &'a [T]);

impl<T: HasJson> Serialize for List<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(HasJson::json))
    }
}
