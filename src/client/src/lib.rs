//! A client of a keyviz cluster.
//!
//! ```no_run
//! use keyviz_client::{Client, Error, Series, MatrixQuery};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Error> {
//!     let client = Client::new(["10.0.0.1:7401", "10.0.0.2:7401", "10.0.0.3:7401"])?;
//!     client.put("user/42", "hello").await?;
//!     let value = client.get("user/42").await?;
//!     println!("{value:?}");
//!     let matrix = client.matrix(MatrixQuery::new(Series::Writes)).await?;
//!     println!("{} writes in the last hour", matrix.total);
//!     Ok(())
//! }
//! ```
//!
//! | to | use |
//! |---|---|
//! | read and write keys | [`Client::put`], [`Client::get`], [`Client::delete`], [`Client::cas`] |
//! | apply several writes atomically | [`Client::batch`] |
//! | read or delete ranges | [`Client::scan`], [`Client::delete_range`] |
//! | read heatmaps | [`Client::matrix`], [`Client::node_matrix`], [`Client::columns`] |
//! | ask why it is hot | [`Client::findings`] |
//! | name the hottest keys | [`Client::hot_keys`], [`Client::node_hot_keys`] |
//! | rank ranges or routes | [`Client::top_ranges`] |
//! | sum load by route, group, leader, node or prefix | [`Client::loads`] |
//! | list or follow routes | [`Client::routes`], [`Client::watch_routes`] |
//! | change routes | [`Client::split_route`], [`Client::merge_routes`] |
//! | anything else | [`Client::call`] with a stub of [`proto`] |
//!
//! # Nodes
//!
//! Any node accepts any request. The client asks the leader of the key's group first, once it knows
//! the leader from earlier answers, and otherwise the nodes in the order given. A node that does
//! not answer is passed over for half a second. Connections are made when they are first needed and
//! shared by all clones of the client.
//!
//! # Deadlines and retries
//!
//! An operation ends at its deadline ([`ClientBuilder::deadline`], 10 s by default). Until then:
//!
//! - A read is repeated at the next node if a node fails or does not answer within
//!   [`ClientBuilder::timeout`] (3 s by default).
//! - A write is repeated only if it certainly did not happen: there was no connection, or the
//!   server says so. Otherwise the client returns [`Error::Unknown`]. A write never happens twice.
//! - A split or a merge carries a request id that the cluster remembers, so it is repeated like a
//!   read.
//!
//! All attempts of an operation have the same `x-request-id`, which the logs of the nodes show at
//! level debug ([`Client::with_request_id`]).
//!
//! # Credentials
//!
//! [`ClientBuilder::tls_ca`] turns TLS on, [`ClientBuilder::token_file`] presents the admin token,
//! which heatmaps and changes of routes need where the cluster has one. The files are read again
//! once a second while the client is used, so they can be replaced.

mod builder;
mod client;
mod consistency;
mod error;
mod failure;
#[cfg(test)]
mod fake;
mod findings;
mod hot_keys;
mod kv;
mod loads;
mod matrix;
mod nodes;
mod routes;
mod scan;
pub mod text;
mod watch;

pub use builder::{ClientBuilder, DEFAULT_DEADLINE, DEFAULT_TIMEOUT};
pub use client::{Client, Effect};
pub use consistency::Consistency;
pub use error::Error;
pub use failure::{Meaning, NOT_APPLIED, code_name, reason};
pub use findings::{Finding, Findings, FindingsQuery, Remedy};
pub use hot_keys::{HotKey, HotKeys, HotKeysQuery};
pub use kv::{Batch, DeleteRangeError, Swap};
pub use loads::{
    Load, LoadGrouping, Loads, LoadsQuery, LoadsSummary, Rank, TopQuery, TopRange, TopRanges,
};
pub use matrix::{
    Axis, Block, Columns, ColumnsQuery, ColumnsUpdate, Matrix, MatrixQuery, Role, Series, row_of,
};
pub use nodes::access::Access;
pub use nodes::address::{Address, AddressError, AddressFault};
pub use nodes::connection::{
    CONNECT_TIMEOUT, MAX_ANSWER_BYTES, Nodes, connect, endpoint, local_timeout,
};
pub use nodes::leaders::{GroupAt, Leaders};
pub use nodes::pool::{NodeIndex, Pool};
pub use routes::{
    Capabilities, ChangeOptions, ClusterStatus, ListRoutesResponse, Route, RouteChangeResponse,
};
pub use scan::Scan;
pub use watch::{RouteTable, RouteUpdate, RouteWatch};

pub use bytes::Bytes;
pub use keyviz_proto as proto;
pub use keyviz_types::KeyRange;
