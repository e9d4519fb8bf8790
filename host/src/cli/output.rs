//! What the client verbs print: tables for people, JSON for programs, and a quiet end when nobody reads on.

use std::io::{self, Write};
use std::process::ExitCode;

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::Invalid;

/// Says why the verb failed, and gives the exit code: 2 for wrong input, 1 for anything else.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(io::stderr(), "error: {error:#}");
    ExitCode::from(if error.is::<Invalid>() { 2 } else { 1 })
}

/// A table under these headings. Columns whose heading starts with `>` are aligned to the right.
pub fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(
        headings
            .iter()
            .map(|heading| Cell::new(heading.trim_start_matches('>')).add_attribute(Attribute::Bold)),
    );
    for (index, heading) in headings.iter().enumerate() {
        if let (true, Some(column)) = (heading.starts_with('>'), table.column_mut(index)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Text that came from outside, without the control characters that could steer a terminal.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `sha256:0123456789ab`: enough to tell builds apart.
pub fn short_digest(digest: &str) -> String {
    let (scheme, hex) = digest.split_once(':').unwrap_or(("sha256", digest));
    let start: String = hex.chars().take(12).collect();
    plain(&format!("{scheme}:{start}"))
}

/// Writes to standard output. False: nobody reads any more, and the verb ends quietly.
pub fn print(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    alive(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Prints a table, or `empty` when it has no rows.
pub fn print_table(table: &Table, empty: &str) -> io::Result<bool> {
    if table.is_empty() {
        return print(&format!("{empty}\n"));
    }
    print(&format!("{}\n", table.trim_fmt()))
}

/// Prints a value as JSON, indented.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<bool> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(print(&format!("{text}\n"))?)
}

/// Turns a broken pipe into false: the reader (`head`, say) has had enough.
pub fn alive(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// `1234567` as `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A rate a second: whole when large, with one decimal when small.
pub fn rate(per_second: f64) -> String {
    if per_second >= 100.0 {
        format!("{}/s", count(per_second.round() as u64))
    } else {
        format!("{per_second:.1}/s")
    }
}

/// Bytes as `1.2 MiB`.
pub fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}

/// Seconds as `8.1 s`, `2 m 5 s`, `3 h 2 m`.
pub fn seconds(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} m {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} m", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_separators() {
        let shown: Vec<String> = [0, 12, 999, 1_000, 123_456, 1_234_567].map(count).into_iter().collect();
        assert_eq!(shown, ["0", "12", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn rates_and_times_are_short() {
        assert_eq!(rate(0.25), "0.2/s");
        assert_eq!(rate(123_456.4), "123,456/s");
        assert_eq!(seconds(8.12), "8.1 s");
        assert_eq!(seconds(125.0), "2 m 5 s");
        assert_eq!(seconds(90_000.0), "1 d 1 h");
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a [2Jb ");
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let broken = Err(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(!alive(broken).unwrap());
        assert!(alive(Err(io::Error::from(io::ErrorKind::StorageFull))).is_err());
    }
}
