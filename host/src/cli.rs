//! Arguments, output, exit codes.

pub mod client;
pub mod consume;
pub mod group;
pub mod output;
pub mod produce;
pub mod status;
pub mod topic;
pub mod views;
