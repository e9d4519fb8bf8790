//! Pipeline files: TOML in, a validated [`plan::Plan`] out, and the difference of two plans.
//!
//! | module | one responsibility |
//! | --- | --- |
//! | [`load`] | files and folders -> plan |
//! | [`document`], [`key_path`] | TOML that knows where each key stands |
//! | [`file`], [`schema`], [`shape`] | keys and types, as Rust types and as a JSON Schema; the check against it |
//! | [`validate`], [`links`] | values of one file; what ties sections and files together |
//! | [`cron`] | schedules: five fields, in UTC |
//! | [`grants`] | what a plugin may import, and which origins it may ask |
//! | [`plugins`] | where components are looked for |
//! | [`error`], [`suggest`], [`units`], [`secret`] | the words of errors, near names, "64MiB" and "30s", secrets |
//! | [`plan`], [`diff`] | what comes out, and what changes from one to the next |

pub mod cron;
pub mod diff;
pub mod document;
pub mod error;
pub mod file;
pub mod grants;
pub mod key_path;
pub mod links;
pub mod load;
pub mod plan;
pub mod plugins;
pub mod schema;
pub mod secret;
pub mod shape;
pub mod suggest;
pub mod units;
pub mod validate;

pub use diff::{Change, Diff, StageKey, diff};
pub use error::{ConfigError, ConfigErrors};
pub use load::{load, load_with};
pub use schema::json_schema;

#[cfg(test)]
pub(crate) mod cases;
