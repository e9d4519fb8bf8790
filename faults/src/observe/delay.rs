//! How long after its acknowledgement a record reached a follower.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::follow::Seen;
use crate::history::{Append, Outcome};

/// For each record that was acknowledged and seen: when it was acknowledged, and how much later it came. What came before
/// its acknowledgement came after no time.
pub fn delays(appends: &[Append], seen: &[Seen]) -> Vec<(Instant, Duration)> {
    let acknowledged: HashMap<u64, Instant> = appends
        .iter()
        .filter(|append| matches!(append.outcome, Outcome::Ok(_)))
        .flat_map(|append| append.items.iter().map(|item| (item.id, append.at)))
        .collect();
    seen.iter()
        .filter_map(|(read, came)| {
            let at = *acknowledged.get(&read.item.id)?;
            Some((at, came.saturating_duration_since(at)))
        })
        .collect()
}

/// The least value that `part` of them do not exceed; none without any.
pub fn quantile(mut values: Vec<Duration>, part: f64) -> Option<Duration> {
    values.sort_unstable();
    let place = (values.len() as f64 * part).ceil() as usize;
    values.get(place.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(quantile(values.clone(), 0.99), Some(Duration::from_millis(198)));
        assert_eq!(quantile(values.clone(), 0.5), Some(Duration::from_millis(100)));
        assert_eq!(quantile(values, 1.0), Some(Duration::from_millis(200)));
        assert_eq!(quantile(Vec::new(), 0.5), None);
    }
}
