//! Interleaving: each variant once a round, in an order that moves on with each round, so that what the machine does
//! meanwhile (a disk that gets slower, a neighbour) meets all of them alike.

use anyhow::Result;

use crate::meter::Sample;

/// Runs each variant once a round; the samples of each, in the order of the rounds.
pub async fn interleaved<A>(
    arms: &[A],
    rounds: u32,
    mut run: impl AsyncFnMut(&A) -> Result<Sample>,
) -> Result<Vec<Vec<Sample>>> {
    let mut samples: Vec<Vec<Sample>> = arms.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds as usize {
        for turn in 0..arms.len() {
            let arm = (turn + round) % arms.len();
            samples[arm].push(run(&arms[arm]).await?);
        }
    }
    Ok(samples)
}

/// The middle, and the least and the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (values.first(), values.last()) else { return Self::default() };
        let half = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[half],
            _ => f64::midpoint(values[half - 1], values[half]),
        };
        Self { median, min: *min, max: *max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Spread::of([]), Spread::default());
    }

    #[tokio::test]
    async fn each_round_runs_each_variant_in_another_order() {
        let mut order = Vec::new();
        let samples = interleaved(&["a", "b", "c"], 2, async |arm| {
            order.push(*arm);
            Ok(Sample { records: order.len() as u64, ..Sample::default() })
        })
        .await
        .unwrap();
        assert_eq!(order, ["a", "b", "c", "b", "c", "a"]);
        let records: Vec<Vec<u64>> =
            samples.iter().map(|of| of.iter().map(|s| s.records).collect()).collect();
        assert_eq!(records, [[1, 6], [2, 4], [3, 5]]);
    }
}
