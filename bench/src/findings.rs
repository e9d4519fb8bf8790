//! What a case has found: a row for each variant, and the bars it is held to.

use serde::Serialize;

use crate::meter::Sample;
use crate::rounds::Spread;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    #[serde(rename = "records/s")]
    PerSecond,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "B/record")]
    BytesPerRecord,
    #[serde(rename = "rows")]
    Rows,
    #[serde(rename = "%")]
    Percent,
}

/// The figures of one variant.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub case: &'static str,
    pub variant: String,
    pub unit: Unit,
    pub value: Spread,
    /// Microseconds of processor time for each record: of all of Postgres, and of this process. Medians.
    pub server_us: Option<f64>,
    pub host_us: Option<f64>,
    /// Bytes of WAL for each record. Median.
    pub wal_bytes: Option<f64>,
    /// The measurements, in the order of the rounds.
    pub values: Vec<f64>,
    pub note: String,
}

/// A figure that is wanted.
#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    pub name: &'static str,
    #[serde(flatten)]
    pub wanted: Wanted,
    /// A ratio of two variants is taken in each round; its median counts.
    pub measured: Spread,
    pub met: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    pub rows: Vec<Row>,
    pub bars: Vec<Bar>,
}

impl Row {
    /// Records a second, and what each took.
    pub fn rate(case: &'static str, variant: impl Into<String>, samples: &[Sample]) -> Self {
        let each = |of: fn(&Sample) -> Option<f64>, scale: f64| {
            let values: Option<Vec<f64>> = samples
                .iter()
                .map(|sample| Some(of(sample)? * scale / sample.records.max(1) as f64))
                .collect();
            values.filter(|values| !values.is_empty()).map(|values| Spread::of(values).median)
        };
        Self {
            server_us: each(|sample| sample.server_cpu, 1e6),
            host_us: each(|sample| sample.host_cpu, 1e6),
            wal_bytes: each(|sample| sample.wal_bytes, 1.0),
            ..Self::plain(case, variant, Unit::PerSecond, samples.iter().map(Sample::rate).collect())
        }
    }

    pub fn plain(case: &'static str, variant: impl Into<String>, unit: Unit, values: Vec<f64>) -> Self {
        Self {
            case,
            variant: variant.into(),
            unit,
            value: Spread::of(values.iter().copied()),
            server_us: None,
            host_us: None,
            wal_bytes: None,
            values,
            note: String::new(),
        }
    }

    pub fn noted(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }
}

impl Bar {
    /// The ratio of one variant's values to another's, round by round.
    pub fn ratio(name: &'static str, wanted: Wanted, of: &[f64], to: &[f64]) -> Self {
        Self::new(name, wanted, of.iter().zip(to).map(|(of, to)| of / to))
    }

    pub fn new(name: &'static str, wanted: Wanted, values: impl IntoIterator<Item = f64>) -> Self {
        let measured = Spread::of(values);
        let met = match wanted {
            Wanted::AtLeast(bar) => measured.median >= bar,
            Wanted::AtMost(bar) => measured.median <= bar,
        };
        Self { name, wanted, measured, met }
    }
}

impl Findings {
    pub fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.bars.extend(other.bars);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_in_each_round() {
        // The machine was twice as fast in the second round.
        let bar = Bar::ratio("a to b", Wanted::AtLeast(2.0), &[20.0, 44.0, 19.0], &[10.0, 20.0, 10.0]);
        assert_eq!(bar.measured, Spread { median: 2.0, min: 1.9, max: 2.2 });
        assert!(bar.met);
        assert!(!Bar::new("time", Wanted::AtMost(1.3), [1.4]).met);
    }

    #[test]
    fn what_each_record_took_is_left_out_where_nobody_asked() {
        let asked = Sample { records: 10, seconds: 2.0, server_cpu: Some(1e-5), ..Sample::default() };
        let row = Row::rate("case", "variant", &[asked, asked]);
        assert_eq!((row.value.median, row.server_us, row.wal_bytes), (5.0, Some(1.0), None));
    }
}
