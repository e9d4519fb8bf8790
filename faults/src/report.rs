//! The table that a run ends in, and what each figure is held to.

use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    Exactly(f64),
    AtMost(f64),
    AtLeast(f64),
    /// Nothing: it is shown. What depends on the machine's speed is judged at full size only.
    Shown,
}

/// One thing that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// With its unit, where it is not a count.
    pub name: String,
    pub wanted: Wanted,
    pub measured: f64,
    /// The first few violations, in words.
    pub examples: Vec<String>,
}

/// What came of a case.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// How much of what was done, e.g. 60 "kills of hosts".
    pub injected: Vec<(u64, String)>,
    pub figures: Vec<Figure>,
    /// Why it was not run, where something that it needs is not to be had.
    pub skipped: Option<String>,
}

/// One row of the table.
#[derive(Debug, Serialize)]
pub struct Row {
    pub id: &'static str,
    pub title: &'static str,
    pub seed: u64,
    /// Seconds.
    pub took: f64,
    /// Or why the case did not come to its end.
    pub verdict: Result<Verdict, String>,
}

/// Violations that are printed of each figure.
const EXAMPLES: usize = 5;

impl Wanted {
    fn is_met(self, measured: f64) -> bool {
        match self {
            Self::Exactly(wanted) => measured == wanted,
            Self::AtMost(wanted) => measured <= wanted,
            Self::AtLeast(wanted) => measured >= wanted,
            Self::Shown => true,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(wanted) => write!(f, "{}", number(*wanted)),
            Self::AtMost(wanted) => write!(f, "<= {}", number(*wanted)),
            Self::AtLeast(wanted) => write!(f, ">= {}", number(*wanted)),
            Self::Shown => Ok(()),
        }
    }
}

impl Figure {
    pub fn is_met(&self) -> bool {
        self.wanted.is_met(self.measured)
    }

    /// Of several runs the worst counts; violations add up.
    fn add(&mut self, other: Self) {
        self.measured = match self.wanted {
            Wanted::Exactly(_) => self.measured + other.measured,
            Wanted::AtMost(_) | Wanted::Shown => self.measured.max(other.measured),
            Wanted::AtLeast(_) => self.measured.min(other.measured),
        };
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
    }
}

impl Verdict {
    /// Notes how much was done. What was never done proves nothing, so it must be at least this much.
    pub fn injected(&mut self, what: &str, wanted: u64, count: u64) {
        self.counted(what, count);
        if count < wanted {
            self.figure(what, Wanted::AtLeast(wanted as f64), count as f64);
        }
    }

    /// Notes how much of something there was, without a figure for it.
    pub fn counted(&mut self, what: &str, count: u64) {
        self.injected.push((count, what.to_owned()));
    }

    pub fn figure(&mut self, name: &str, wanted: Wanted, measured: f64) {
        self.figures.push(Figure { name: name.to_owned(), wanted, measured, examples: Vec::new() });
    }

    /// None of these may be there.
    pub fn none(&mut self, name: &str, violations: Vec<String>) {
        let measured = violations.len() as f64;
        let examples = violations.into_iter().take(EXAMPLES).collect();
        self.figures.push(Figure { name: name.to_owned(), wanted: Wanted::Exactly(0.0), measured, examples });
    }

    /// The case cannot be run here, and says so in the table.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self { skipped: Some(why.into()), ..Self::default() }
    }

    /// Takes in another run of the same case.
    pub fn add(&mut self, other: Self) {
        for (count, what) in other.injected {
            match self.injected.iter_mut().find(|(_, known)| *known == what) {
                Some((sum, _)) => *sum += count,
                None => self.injected.push((count, what)),
            }
        }
        for figure in other.figures {
            match self.figures.iter_mut().find(|known| known.name == figure.name) {
                Some(known) => known.add(figure),
                None => self.figures.push(figure),
            }
        }
    }

    /// Names of what was missed.
    pub fn missed(&self) -> Vec<&str> {
        self.figures.iter().filter(|figure| !figure.is_met()).map(|figure| figure.name.as_str()).collect()
    }

    pub fn is_met(&self) -> bool {
        if self.skipped.is_some() {
            return true;
        }
        !self.figures.is_empty() && self.figures.iter().all(Figure::is_met)
    }
}

impl Row {
    pub fn is_met(&self) -> bool {
        self.verdict.as_ref().is_ok_and(Verdict::is_met)
    }

    /// What is wrong, line by line.
    pub fn complaints(&self) -> Vec<String> {
        match &self.verdict {
            Err(error) => vec![error.clone()],
            Ok(verdict) => verdict
                .figures
                .iter()
                .filter(|figure| !figure.is_met())
                .flat_map(|figure| {
                    let line =
                        format!("{}: {}, wanted {}", figure.name, number(figure.measured), figure.wanted);
                    std::iter::once(line).chain(figure.examples.iter().map(|example| format!("  {example}")))
                })
                .collect(),
        }
    }
}

/// All rows, for people.
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["id", "what", "injected", "figure", "wanted", "measured", "verdict"]);
    for row in rows {
        let title = format!("{} ({:.0} s)", row.title, row.took);
        let (injected, lines) = match &row.verdict {
            Err(_) => (Vec::new(), vec![[String::new(), String::new(), String::new(), "BROKEN".to_owned()]]),
            Ok(Verdict { skipped: Some(why), .. }) => {
                (Vec::new(), vec![[why.clone(), String::new(), String::new(), "SKIPPED".to_owned()]])
            }
            Ok(verdict) => (verdict.injected.clone(), verdict.figures.iter().map(line).collect()),
        };
        for place in 0..lines.len().max(injected.len()) {
            let first = place == 0;
            let [figure, wanted, measured, met] = lines.get(place).cloned().unwrap_or_default();
            table.add_row([
                if first { row.id.to_owned() } else { String::new() },
                if first { title.clone() } else { String::new() },
                injected
                    .get(place)
                    .map(|(count, what)| format!("{} {what}", number(*count as f64)))
                    .unwrap_or_default(),
                figure,
                wanted,
                measured,
                met,
            ]);
        }
    }
    for column in [4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn line(figure: &Figure) -> [String; 4] {
    let met = match figure.wanted {
        Wanted::Shown => "shown",
        _ if figure.is_met() => "met",
        _ => "MISSED",
    };
    [figure.name.clone(), figure.wanted.to_string(), number(figure.measured), met.to_owned()]
}

/// Whole numbers with their thousands apart, others with two digits.
fn number(value: f64) -> String {
    if value.fract() != 0.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_makes_a_case_miss_and_is_told() {
        let mut verdict = Verdict::default();
        assert!(!verdict.is_met(), "what measured nothing has shown nothing");
        verdict.none("lost", Vec::new());
        verdict.figure("takeover (s)", Wanted::AtMost(10.0), 8.25);
        assert!(verdict.is_met());
        verdict.none("duplicated", vec!["record 7 is at 0:1 and at 0:2".to_owned()]);
        assert!(!verdict.is_met());
        let row = Row { id: "R1", title: "kills", seed: 1, took: 1.0, verdict: Ok(verdict) };
        assert_eq!(row.complaints(), ["duplicated: 1, wanted 0", "  record 7 is at 0:1 and at 0:2"]);
        let table = table(&[row]).to_string();
        assert!(table.contains("MISSED") && table.contains("8.25"), "{table}");
    }

    #[test]
    fn what_is_only_shown_or_skipped_is_no_miss_and_is_told_apart() {
        let mut verdict = Verdict::default();
        verdict.figure("append, p99 (ms)", Wanted::Shown, 812.5);
        let shown = Row { id: "R11", title: "DDL", seed: 1, took: 1.0, verdict: Ok(verdict) };
        let verdict = Verdict::skipped("there is no libfaketime");
        let skipped = Row { id: "R9", title: "clocks", seed: 1, took: 0.0, verdict: Ok(verdict) };
        assert!(shown.is_met() && skipped.is_met());
        let table = table(&[shown, skipped]).to_string();
        for word in ["shown", "812.5", "SKIPPED", "libfaketime"] {
            assert!(table.contains(word), "{word}: {table}");
        }
        assert!(!table.contains("met"), "{table}");
    }

    #[test]
    fn too_few_injections_are_a_miss() {
        let mut verdict = Verdict::default();
        verdict.none("lost", Vec::new());
        verdict.injected("kills", 60, 60);
        assert!(verdict.is_met());
        verdict.injected("cuts", 2_000, 1_999);
        assert!(!verdict.is_met());
        let row = Row { id: "R3", title: "cuts", seed: 1, took: 1.0, verdict: Ok(verdict) };
        assert!(table(&[row]).to_string().contains("1,999 cuts"));
    }

    #[test]
    fn of_several_runs_the_worst_counts() {
        let run = |lost: usize, slowest| {
            let mut verdict = Verdict::default();
            verdict.counted("kills", 3);
            verdict.none("lost", vec!["record 7".to_owned(); lost]);
            verdict.figure("slowest (s)", Wanted::AtMost(5.0), slowest);
            verdict
        };
        let mut sum = run(0, 2.0);
        sum.add(run(0, 1.0));
        assert!(sum.is_met());
        assert_eq!((&sum.injected[0], sum.figures[1].measured), (&(6, "kills".to_owned()), 2.0));
        sum.add(run(2, 9.0));
        assert_eq!(sum.missed(), ["lost", "slowest (s)"]);
    }
}
