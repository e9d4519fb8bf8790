//! Places at which a test makes the process end as `kill -9` would: `TIDEMILL_CRASH_AT=archive.put` at the first time it
//! comes there, `archive.put:3` at the third. For tests only; unset, a place costs one comparison.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

struct Crash {
    place: String,
    /// Times to pass it by.
    left: AtomicU32,
}

/// Ends the process here if a test has asked for it.
pub fn point(place: &'static str) {
    static CRASH: OnceLock<Option<Crash>> = OnceLock::new();
    let crash = CRASH.get_or_init(|| {
        let asked = std::env::var("TIDEMILL_CRASH_AT").ok()?;
        let (place, times) = asked.split_once(':').unwrap_or((&asked, "1"));
        let left = times.parse::<u32>().unwrap_or(1).saturating_sub(1);
        Some(Crash { place: place.to_owned(), left: left.into() })
    });
    let Some(crash) = crash.as_ref().filter(|crash| crash.place == place) else {
        return;
    };
    let passed = crash.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    if passed.is_err() {
        // Neither destructors nor exit handlers run, and no buffer is flushed.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}
