//! Random numbers, by the grant `random`: the same whenever the same batch is run again. Not for secrets.
//!
//! In a native build they are those of one fixed seed.

#[cfg(target_family = "wasm")]
pub use crate::bindings::imports::tidemill::plugin::random::{bytes, number};

#[cfg(not(target_family = "wasm"))]
pub use stand_in::{bytes, number};

#[cfg(not(target_family = "wasm"))]
mod stand_in {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }

    /// A number between 0 and `u64::MAX`. Here it is SplitMix64 (Steele, Lea, Flood 2014).
    #[must_use]
    pub fn number() -> u64 {
        let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        STATE.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// So many bytes, at most 65,536.
    #[must_use]
    pub fn bytes(count: u32) -> Vec<u8> {
        let numbers = (0..count.div_ceil(8)).flat_map(|_| number().to_le_bytes());
        numbers.take(count as usize).collect()
    }
}
