//! Sizes and durations as people write them: "64MiB", "30s", "forever".

use std::time::Duration;

/// "500ms", "30s", "5m", "1h 30m", "30d".
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| {
        format!("{text:?} is not a duration: write a number and a unit, such as \"500ms\", \"30s\", \"5m\", \"24h\" or \"30d\"")
    })
}

/// A duration, or None for "forever".
pub fn duration_or_forever(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "forever" => Ok(None),
        _ => duration(text)
            .map(Some)
            .map_err(|_| format!("{text:?} is neither a duration, such as \"24h\", nor \"forever\"")),
    }
}

/// "64MiB", "1GiB", "500kB", "4096".
pub fn size(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>().map(|s| s.as_u64()).map_err(|_| {
        format!(
            "{text:?} is not a size: write a number and a unit, such as \"512KiB\", \"64MiB\" or \"1GiB\""
        )
    })
}

/// In the largest unit that fits exactly, so that a limit reads as it would be written.
pub fn show_duration(duration: Duration) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let millis = duration.as_millis();
    match units.iter().find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None => humantime::format_duration(duration).to_string(),
    }
}

/// In the largest unit that fits exactly.
pub fn show_size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_as_people_write_them() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration_or_forever("forever"), Ok(None));
        assert_eq!(duration_or_forever("30d"), Ok(Some(Duration::from_secs(30 * 86_400))));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("500kB"), Ok(500_000));
        assert_eq!(size("4096"), Ok(4096));
    }

    #[test]
    fn a_measure_is_shown_as_it_would_be_written() {
        for text in ["31d", "36h", "90s", "500ms", "0s"] {
            assert_eq!(duration(text).map(show_duration), Ok(text.to_string()));
        }
        for text in ["64MiB", "1GiB", "1536KiB", "1000B"] {
            assert_eq!(size(text).map(show_size), Ok(text.to_string()));
        }
    }

    #[test]
    fn what_is_no_measure_is_refused_with_examples() {
        for bad in ["", "30", "-1s", "5 parsecs", "99999999999999999999s", "1e9s"] {
            assert!(duration(bad).is_err_and(|e| e.contains("such as")), "{bad}");
        }
        for bad in ["", "-1", "64 bananas", "MiB", "64MiB64"] {
            assert!(size(bad).is_err_and(|e| e.contains("such as")), "{bad}");
        }
    }
}
