//! How a node becomes a member: bootstrap, first start, founding, join.

pub(crate) mod bootstrap;
pub(crate) mod first_start;
pub(crate) mod founding;
pub(crate) mod join;
pub(crate) mod opening;
pub(crate) mod services;
