//! One table for people, and the same as JSON.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::findings::{Bar, Findings, Row, Unit, Wanted};
use crate::machine::Machine;

#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub scale: &'static str,
    pub rounds: u32,
    /// Seconds that all of it took.
    pub took: f64,
    #[serde(flatten)]
    pub findings: Findings,
}

impl Report {
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in self.machine.lines() {
            let _ = writeln!(text, "{line}");
        }
        let _ = writeln!(
            text,
            "{} run, {} rounds, medians and (least .. most); server, host: us of processor time a record\n",
            self.scale, self.rounds
        );
        let _ = writeln!(text, "{}", self.table());
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["case", "variant", "median", "", "least .. most", "server", "host", "WAL B", ""]);
        let mut case = "";
        for row in &self.findings.rows {
            table.add_row(line(row, if row.case == case { "" } else { row.case }));
            case = row.case;
        }
        for (place, bar) in self.findings.bars.iter().enumerate() {
            table.add_row(bar_line(bar, if place == 0 { "wanted" } else { "" }));
        }
        for column in [2, 4, 5, 6, 7] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }

    /// Writes the file whole, with the folders above it.
    pub fn save(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let json = serde_json::to_vec_pretty(self)?;
        std::fs::write(path, json).with_context(|| path.display().to_string())
    }
}

fn line(row: &Row, case: &str) -> [String; 9] {
    let unit = match row.unit {
        Unit::PerSecond => "/s",
        Unit::Milliseconds => "ms",
        Unit::BytesPerRecord => "B/record",
        Unit::Rows => "rows",
        Unit::Percent => "%",
    };
    let spread = match row.values.len() {
        0 | 1 => String::new(),
        _ => format!("{} .. {}", figure(row.value.min), figure(row.value.max)),
    };
    let small = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
    [
        case.to_owned(),
        row.variant.clone(),
        figure(row.value.median),
        unit.to_owned(),
        spread,
        small(row.server_us),
        small(row.host_us),
        row.wal_bytes.map_or_else(String::new, |bytes| format!("{bytes:.0}")),
        row.note.clone(),
    ]
}

fn bar_line(bar: &Bar, case: &str) -> [String; 9] {
    let wanted = match bar.wanted {
        Wanted::AtLeast(value) => format!("at least {}", figure(value)),
        Wanted::AtMost(value) => format!("at most {}", figure(value)),
    };
    let measured = bar.measured;
    let empty = String::new;
    [
        case.to_owned(),
        bar.name.to_owned(),
        figure(measured.median),
        empty(),
        format!("{} .. {}", figure(measured.min), figure(measured.max)),
        empty(),
        empty(),
        empty(),
        format!("{wanted}: {}", if bar.met { "met" } else { "MISSED" }),
    ]
}

/// Three digits or so, and thousands apart.
fn figure(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 100.0 {
        return format!("{value:.1}");
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
    fn figures_have_about_three_digits() {
        for (value, text) in
            [(0.456, "0.46"), (12.34, "12.3"), (123.4, "123"), (1234.0, "1,234"), (1_234_567.8, "1,234,568")]
        {
            assert_eq!(figure(value), text);
        }
    }
}
