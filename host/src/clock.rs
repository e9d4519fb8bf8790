//! Time is passed in, so that a test can hold it still. Only this file reads the machine's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::ids::Micros;

/// A source of wall-clock time. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until it is set.
    pub fn fixed(now: Micros) -> Self {
        Self(Some(Arc::new(AtomicI64::new(now))))
    }

    /// Sets a fixed clock; the system clock ignores it.
    pub fn set(&self, now: Micros) {
        if let Some(fixed) = &self.0 {
            fixed.store(now, Ordering::SeqCst);
        }
    }

    /// Microseconds since the Unix epoch.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn now(&self) -> Micros {
        match &self.0 {
            Some(fixed) => fixed.load(Ordering::SeqCst),
            None => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => since.as_micros() as Micros,
                Err(before) => -(before.duration().as_micros() as Micros),
            },
        }
    }
}

/// RFC 3339 in UTC with microseconds, as in the HTTP API: `2026-11-22T08:17:00.123456Z`.
pub fn rfc3339(at: Micros) -> String {
    match jiff::Timestamp::from_microsecond(at) {
        Ok(timestamp) => format!("{timestamp:.6}"),
        Err(_) => format!("{at}us"),
    }
}

/// The same with another number of digits after the second, up to nine.
pub fn rfc3339_with(at: Micros, digits: u8) -> String {
    match jiff::Timestamp::from_microsecond(at) {
        Ok(timestamp) => format!("{timestamp:.*}", usize::from(digits.min(9))),
        Err(_) => format!("{at}us"),
    }
}

/// Reads an RFC 3339 time.
pub fn parse_rfc3339(text: &str) -> Option<Micros> {
    text.parse::<jiff::Timestamp>().ok().map(|timestamp| timestamp.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_and_read_back() {
        let at = 1_732_264_000_123_456;
        assert_eq!(rfc3339(at), "2024-11-22T08:26:40.123456Z");
        assert_eq!(parse_rfc3339(&rfc3339(at)), Some(at));
    }
}
