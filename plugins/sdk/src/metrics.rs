//! Numbers in the host's `/metrics`, by the grant `metrics`: `tidemill_plugin_counter_total` and `tidemill_plugin_gauge` with
//! the labels `stage` and `name`. The host takes 32 names of a stage, of lower-case letters, digits and `_`.
//!
//! In a native build they go nowhere.

#[cfg(target_family = "wasm")]
use crate::bindings::imports::tidemill::plugin::metrics;

/// Raises a counter.
pub fn add(name: &str, amount: u64) {
    #[cfg(target_family = "wasm")]
    metrics::add(name, amount);
    #[cfg(not(target_family = "wasm"))]
    let _ = (name, amount);
}

/// Sets a gauge.
pub fn set(name: &str, value: f64) {
    #[cfg(target_family = "wasm")]
    metrics::set(name, value);
    #[cfg(not(target_family = "wasm"))]
    let _ = (name, value);
}
