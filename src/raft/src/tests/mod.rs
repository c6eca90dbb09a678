//! Tests of the layer as a whole: groups on several nodes, crashes, floods, full disks.

mod cluster;
mod crash;
mod durable;
mod flood;
mod format;
mod full_disk;
mod install;
mod suite;
