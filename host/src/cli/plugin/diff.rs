//! `tidemill plugin diff`: in what two components differ, as far as a pipeline can tell without running them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::component;
use super::inspect::Report;
use crate::cli::output::{plain, print, print_json};
use crate::plugin::PluginKind;

/// Values are cut past this many characters.
const MAX_SHOWN: usize = 200;

/// Show in what two components differ: description, imports, grants, ports, tables, config
///
/// Exit code 0: in nothing. 1: in what is printed. 2: one of them is no plugin.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  tidemill plugin diff plugins/dist/watch.wasm dist/watch.wasm")]
pub struct DiffArgs {
    /// The one, such as the component that runs now
    #[arg(value_name = "A.wasm")]
    a: PathBuf,
    /// The other, such as its successor
    #[arg(value_name = "B.wasm")]
    b: PathBuf,
    /// Hold both against this kind: producer, transform, materializer, sink or worker
    #[arg(long, value_name = "KIND", value_parser = component::kind)]
    kind: Option<PluginKind>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Something that is not the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// As `tables.current_positions.columns.lat`.
    place: String,
    /// Null if only B has it.
    a: Value,
    /// Null if only A has it.
    b: Value,
}

pub async fn run(args: DiffArgs) -> anyhow::Result<ExitCode> {
    let engine = component::engine()?;
    let a = Report::of(&component::open(&engine, &args.a, args.kind).await?);
    let b = Report::of(&component::open(&engine, &args.b, args.kind).await?);
    let differences = differences(&a, &b);
    if args.json {
        print_json(&json!({ "same": differences.is_empty(), "differences": differences }))?;
    } else {
        print(&text(&differences))?;
    }
    Ok(ExitCode::from(u8::from(!differences.is_empty())))
}

pub fn differences(a: &Report, b: &Report) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), &shape(a), &shape(b), &mut found);
    found
}

/// The report with names as keys, so that what was added or taken away is told and not what moved.
fn shape(report: &Report) -> Value {
    let named = |names: Vec<&str>| names.into_iter().map(|name| (name.to_string(), json!(true))).collect();
    let imports: Map<String, Value> = named(report.imports.iter().map(String::as_str).collect());
    let grants: Map<String, Value> = named(report.grants.iter().map(|grant| grant.as_str()).collect());
    let ports: Map<String, Value> =
        report.ports.iter().map(|port| (port.name.clone(), json!(port.description))).collect();
    let tables: BTreeMap<&String, Value> = report
        .tables
        .iter()
        .map(|table| {
            let columns: Map<String, Value> =
                table.columns.iter().map(|column| (column.name.clone(), json!(column.kind))).collect();
            (&table.name, json!({ "columns": columns, "key": table.key, "newest_by": table.newest_by }))
        })
        .collect();
    json!({
        "name": report.name, "version": report.version, "description": report.description,
        "kind": report.kind, "digest": report.digest, "size": report.size, "imports": imports,
        "grants": grants, "ports": ports, "tables": tables, "config": report.config_schema,
    })
}

fn compare(place: String, a: &Value, b: &Value, found: &mut Vec<Difference>) {
    match (a, b) {
        (a, b) if a == b => {}
        (Value::Object(in_a), Value::Object(in_b)) => {
            let only_b = in_b.keys().filter(|key| !in_a.contains_key(*key));
            for key in in_a.keys().chain(only_b) {
                let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                let (a, b) = (in_a.get(key).unwrap_or(&Value::Null), in_b.get(key).unwrap_or(&Value::Null));
                compare(place, a, b, found);
            }
        }
        (a, b) => found.push(Difference { place, a: a.clone(), b: b.clone() }),
    }
}

fn text(differences: &[Difference]) -> String {
    let mut out = String::new();
    for Difference { place, a, b } in differences {
        let line = match (a, b) {
            (Value::Null, Value::Bool(true)) => format!("+ {place}"),
            (Value::Bool(true), Value::Null) => format!("- {place}"),
            (Value::Null, b) => format!("+ {place}: {}", shown(b)),
            (a, Value::Null) => format!("- {place}: {}", shown(a)),
            (Value::Number(a), Value::Number(b)) => format!("  {place}: {a} -> {b}{}", growth(a, b)),
            (a, b) => format!("  {place}: {} -> {}", shown(a), shown(b)),
        };
        out.push_str(&format!("{}\n", plain(&line)));
    }
    if out.is_empty() { "the same component\n".to_string() } else { out }
}

fn growth(a: &serde_json::Number, b: &serde_json::Number) -> String {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) if a > 0.0 => format!(" ({:+.1} %)", (b - a) / a * 100.0),
        _ => String::new(),
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_what_went_is_told_with_its_place() {
        let a =
            json!({ "ports": { "default": "", "late": "" }, "config": { "max": 1, "min": 0 }, "size": 100 });
        let b =
            json!({ "ports": { "default": "", "odd": "x" }, "config": { "max": 2, "min": 0 }, "size": 150 });
        let mut found = Vec::new();
        compare(String::new(), &a, &b, &mut found);
        let mut lines: Vec<String> = text(&found).lines().map(str::to_string).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "  config.max: 1 -> 2 (+100.0 %)",
                "  size: 100 -> 150 (+50.0 %)",
                "+ ports.odd: \"x\"",
                "- ports.late: \"\"",
            ]
        );
        assert_eq!(text(&[]), "the same component\n");
    }

    #[test]
    fn imports_are_told_by_their_names() {
        let mut found = Vec::new();
        let (a, b) = (json!({ "grants": { "http": true } }), json!({ "grants": { "state": true } }));
        compare(String::new(), &a, &b, &mut found);
        assert_eq!(text(&found), "- grants.http\n+ grants.state\n");
    }
}
