//! `tidemill query`: one SELECT over topics and the archive, answered by a running host.

use std::fmt::Write as _;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Invalid;
use super::client::{Client, ClientArgs};
use super::output::{alive, count, plain, print, size, table};

/// Beyond the query's own time: it may have to wait for its turn, and for the answer to arrive.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longer texts are cut in a table.
const CELL_CHARS: usize = 80;

/// Query the whole history with SQL: each topic is a table, hot and archived records together
///
/// The statement is one SELECT in DuckDB's SQL. `read_parquet('archive/**/*.parquet')` reads the archive alone.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemill query \"SELECT kind, count(*) FROM positions GROUP BY kind\"
  tidemill query \"SELECT * FROM positions WHERE id = 'a1b2c3'\" --format parquet --output a1b2c3.parquet
  tidemill query --file report.sql --format csv > report.csv")]
pub struct QueryArgs {
    /// The statement; `-` reads it from standard input
    #[arg(value_name = "SQL", required_unless_present = "file")]
    sql: Option<String>,
    /// Read the statement from a file
    #[arg(long, value_name = "FILE", conflicts_with = "sql")]
    file: Option<PathBuf>,
    /// How to show the answer
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write the answer to a file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Rows at most; the host has a limit of its own
    #[arg(long, value_name = "N")]
    max_rows: Option<u64>,
    /// Seconds after which the query is given up, such as 5; the host has a limit of its own
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns side by side
    Table,
    /// A document with columns, rows and what was read
    Json,
    Csv,
    Parquet,
}

pub async fn run(args: QueryArgs) -> anyhow::Result<ExitCode> {
    if args.format == Format::Parquet && args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(Invalid("a Parquet file is nothing for a terminal: add --output FILE".to_string()).into());
    }
    let sql = statement(&args)?;
    let client = args.client.connect()?;
    let format = match args.format {
        Format::Table | Format::Json => "json",
        Format::Csv => "csv",
        Format::Parquet => "parquet",
    };
    let body = json!({
        "sql": sql, "format": format, "max_rows": args.max_rows, "timeout_seconds": args.timeout,
    });
    let request = client.request(Method::POST, &["v1", "query"]).json(&body).timeout(PATIENCE);
    let response = client.send(request).await?;
    match args.format {
        Format::Table => show(&client, response, args.output.as_deref()).await?,
        Format::Json | Format::Csv | Format::Parquet => {
            save(&client, response, args.output.as_deref()).await?
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn statement(args: &QueryArgs) -> anyhow::Result<String> {
    match (&args.file, args.sql.as_deref()) {
        (Some(file), _) => std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the statement in {}", file.display())),
        (None, Some("-")) => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read the statement from standard input")?;
            Ok(text)
        }
        (None, sql) => Ok(sql.unwrap_or_default().to_string()),
    }
}

/// The answer in JSON.
#[derive(Debug, Deserialize)]
struct Rows {
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
    row_count: u64,
    truncated: bool,
    elapsed_ms: f64,
    rows_read: u64,
    bytes_read: u64,
    files_read: u64,
}

#[derive(Debug, Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

async fn show(client: &Client, response: Response, output: Option<&Path>) -> anyhow::Result<()> {
    let bytes = response.bytes().await.map_err(|error| client.lost(&error))?;
    let answer: Rows = serde_json::from_slice(&bytes).context("the host's answer cannot be read")?;
    let text = format!("{}\n", drawn(&answer));
    match output {
        Some(path) => {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?
        }
        None if !print(&text)? => return Ok(()),
        None => {}
    }
    note(&summary(&answer));
    Ok(())
}

fn drawn(answer: &Rows) -> String {
    let heading = |column: &Column| {
        let numeric =
            ["INT", "DECIMAL", "DOUBLE", "FLOAT", "BIGNUM"].iter().any(|sign| column.kind.contains(sign));
        let right = if numeric && !column.kind.contains("INTERVAL") { ">" } else { "" };
        format!("{right}{}", plain(&column.name))
    };
    let headings: Vec<String> = answer.columns.iter().map(heading).collect();
    let mut drawn = table(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    for row in &answer.rows {
        drawn.add_row(row.iter().map(cell));
    }
    drawn.trim_fmt()
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "NULL".to_string(),
        Value::String(text) => plain(text),
        other => plain(&other.to_string()),
    };
    match text.char_indices().nth(CELL_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn summary(answer: &Rows) -> String {
    let mut text = format!("{} row{}", count(answer.row_count), if answer.row_count == 1 { "" } else { "s" });
    if answer.truncated {
        text += " (there are more: raise --max-rows, or write a file with --format csv or parquet)";
    }
    let _ = write!(
        text,
        " in {:.0} ms; read {} rows, {} in {} files",
        answer.elapsed_ms,
        count(answer.rows_read),
        size(answer.bytes_read),
        count(answer.files_read)
    );
    text
}

/// Copies the answer as it comes.
async fn save(client: &Client, mut response: Response, output: Option<&Path>) -> anyhow::Result<()> {
    let told =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_string);
    let (rows, truncated) = (told("tidemill-row-count"), told("tidemill-truncated"));
    let mut target: Box<dyn Write> = match output {
        Some(path) => {
            let file =
                std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Box::new(std::io::BufWriter::new(file))
        }
        None => Box::new(std::io::stdout()),
    };
    while let Some(piece) = response.chunk().await.map_err(|error| client.lost(&error))? {
        if !alive(target.write_all(&piece))? {
            return Ok(());
        }
    }
    target.flush()?;
    if let Some(rows) = rows {
        let more = if truncated.as_deref() == Some("true") {
            "; there are more, which the limits cut off"
        } else {
            ""
        };
        note(&format!("{rows} rows{more}"));
    }
    Ok(())
}

/// Beside the answer, so that a pipe gets only rows.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_table_with_numbers_to_the_right() {
        let answer: Rows = serde_json::from_value(json!({
            "columns": [{"name": "kind", "type": "VARCHAR"}, {"name": "msgs", "type": "BIGINT"}],
            "rows": [["cargo", 7], [null, 12_345]],
            "row_count": 2, "truncated": true, "elapsed_ms": 12.4, "rows_read": 12_352, "bytes_read": 2048,
            "files_read": 3
        }))
        .unwrap();
        let lines: Vec<String> = drawn(&answer).lines().map(|line| line.trim_end().to_string()).collect();
        assert!(lines[1].ends_with("     7") && lines[2].starts_with(" NULL"), "{lines:?}");
        assert!(summary(&answer).starts_with("2 rows (there are more"), "{}", summary(&answer));
    }
}
