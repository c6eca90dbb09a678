//! A client of a keyviz cluster: calls through whichever of the given nodes answers, with the meaning
//! of each failure, and with what a client learns of leaders.

mod access;
mod address;
mod calls;
mod failure;
#[cfg(test)]
mod fake;
mod leaders;
pub mod text;

pub use access::Access;
pub use address::{Address, AddressError, AddressFault};
pub use calls::{
    CONNECT_TIMEOUT, CallError, Client, Effect, MAX_ANSWER_BYTES, Nodes, connect, endpoint,
    local_timeout,
};
pub use failure::{Meaning, NOT_APPLIED, code_name, reason};
pub use leaders::{GroupAt, Leaders};
