//! Pipeline files: TOML in, a validated [`plan::Plan`] out, and the difference of two plans.

pub mod plan;
