//! `tidemill plugin inspect`: what a component is, what it needs, and how a pipeline file names it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::component::{self, Opened};
use crate::cli::output::{plain, print, print_json, size};
use crate::plugin::{Column, ColumnType, DEFAULT_PORT, Grant, PluginKind, Port, Table};

/// Show what a component is: kind, imports, grants it needs, ports, tables and config
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  tidemill plugin inspect dist/low-flyers.wasm\n  \
                        tidemill plugin inspect dist/low-flyers.wasm --json | jq .grants")]
pub struct InspectArgs {
    /// The component
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Hold it against this kind: producer, transform, materializer, sink or worker
    #[arg(long, value_name = "KIND", value_parser = component::kind)]
    kind: Option<PluginKind>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What there is to say about a component.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub file: PathBuf,
    pub name: String,
    pub version: String,
    pub description: String,
    pub kind: &'static str,
    pub world: &'static str,
    pub digest: String,
    /// Bytes.
    pub size: u64,
    pub imports: Vec<String>,
    /// What a stage must grant it.
    pub grants: Vec<Grant>,
    /// Of a producer, transform or worker; the default port is always there.
    pub ports: Vec<PortReport>,
    pub tables: Vec<TableReport>,
    /// JSON Schema; null if it takes no config.
    pub config_schema: Value,
    /// The stage as a pipeline file may have it.
    pub stage: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PortReport {
    pub name: String,
    pub description: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableReport {
    pub name: String,
    pub columns: Vec<ColumnReport>,
    pub key: Vec<String>,
    pub newest_by: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnReport {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
}

pub async fn run(args: InspectArgs) -> anyhow::Result<ExitCode> {
    let opened = component::open(&component::engine()?, &args.file, args.kind).await?;
    let report = Report::of(&opened);
    if args.json {
        print_json(&report)?;
    } else {
        print(&report.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Report {
    pub fn of(opened: &Opened) -> Self {
        let (plugin, descriptor) = (&opened.plugin, &opened.descriptor);
        let kind = plugin.kind();
        // A schema that does not parse was refused before.
        let config_schema = serde_json::from_str(&descriptor.config_schema).unwrap_or(Value::Null);
        let mut report = Self {
            file: opened.path.clone(),
            name: descriptor.name.clone(),
            version: descriptor.version.clone(),
            description: descriptor.description.clone(),
            kind: kind.as_str(),
            world: kind.world(),
            digest: plugin.digest().to_string(),
            size: plugin.size(),
            imports: plugin.imports().to_vec(),
            grants: plugin.needs().iter().copied().collect(),
            ports: ports(kind, &descriptor.ports),
            tables: descriptor.tables.iter().map(table).collect(),
            config_schema,
            stage: String::new(),
        };
        report.stage = report.stage();
        report
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out =
            format!("{} {}, a {} ({})\n", plain(&self.name), plain(&self.version), self.kind, self.world);
        if !self.description.trim().is_empty() {
            out.push_str(&format!("{}\n", plain(self.description.trim())));
        }
        out.push('\n');
        let mut line = |name: &str, text: String| {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{name:<9}{text}");
        };
        line("file", plain(&self.file.display().to_string()));
        line("digest", self.digest.clone());
        line("size", size(self.size));
        line("imports", imports(&self.imports));
        line("grants", list(self.grants.iter().map(ToString::to_string)));
        for port in &self.ports {
            line("port", format!("{}  {}", port.name, plain(&port.description)));
        }
        for table in &self.tables {
            line("table", table.text());
        }
        for option in options(&self.config_schema) {
            line("config", option);
        }
        out.push_str("\nIn a pipeline file:\n\n");
        out.extend(self.stage.lines().map(|line| format!("    {line}\n")));
        out
    }

    /// The stage with places to fill in.
    fn stage(&self) -> String {
        let name = stage_name(&self.name);
        let file = plugin_name(&self.file);
        let mut out = format!("[{}s.{name}]\nplugin = {file:?}\n", self.kind);
        if self.kind == PluginKind::Worker.as_str() {
            out.push_str("queue = \"QUEUE\"\n");
        } else if self.kind != PluginKind::Producer.as_str() {
            out.push_str("from = \"TOPIC\"\n");
        }
        match self.ports.as_slice() {
            [] => {}
            [_] => out.push_str("to = \"TOPIC\"\n"),
            ports => {
                out.push_str(&format!("to = {}\n", places(ports.iter().map(|port| &port.name), "TOPIC")))
            }
        }
        if !self.tables.is_empty() {
            out.push_str(&format!(
                "tables = {}\n",
                places(self.tables.iter().map(|table| &table.name), "TABLE")
            ));
        }
        if !self.grants.is_empty() {
            let names: Vec<String> = self.grants.iter().map(|grant| format!("\"{grant}\"")).collect();
            out.push_str(&format!("grants = [{}]\n", names.join(", ")));
        }
        if self.grants.contains(&Grant::Http) {
            out.push_str("http = { allow = [\"https://ORIGIN\"] }\n");
        }
        let required = required(&self.config_schema);
        if !required.is_empty() {
            let keys = required.iter().map(|key| format!("{} = …", key_of(key)));
            out.push_str(&format!("config = {{ {} }}\n", keys.collect::<Vec<_>>().join(", ")));
        }
        out
    }
}

impl TableReport {
    fn text(&self) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|column| format!("{} {}", column.name, column.kind)).collect();
        let newest = self.newest_by.as_ref().map(|by| format!(", newest by {by}")).unwrap_or_default();
        format!("{} ({}), key {}{newest}", self.name, columns.join(", "), self.key.join(", "))
    }
}

fn ports(kind: PluginKind, declared: &[Port]) -> Vec<PortReport> {
    if !kind.emits() {
        return Vec::new();
    }
    let always = PortReport { name: DEFAULT_PORT.to_string(), description: String::new() };
    let report = |port: &Port| PortReport { name: port.name.clone(), description: port.description.clone() };
    std::iter::once(always).chain(declared.iter().map(report)).collect()
}

fn table(table: &Table) -> TableReport {
    let column = |column: &Column| ColumnReport { name: column.name.clone(), kind: type_name(column.type_) };
    TableReport {
        name: table.name.clone(),
        columns: table.columns.iter().map(column).collect(),
        key: table.key.clone(),
        newest_by: table.newest_by.clone(),
    }
}

fn type_name(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Boolean => "boolean",
        ColumnType::Integer => "integer",
        ColumnType::Float => "float",
        ColumnType::Text => "text",
        ColumnType::Bytes => "bytes",
        ColumnType::Timestamp => "timestamp",
        ColumnType::Json => "json",
    }
}

/// Those of WASI lead nowhere, and come with every standard library: their number will do.
fn imports(names: &[String]) -> String {
    let (wasi, others): (Vec<&String>, Vec<&String>) =
        names.iter().partition(|name| name.starts_with("wasi:"));
    let wasi = (!wasi.is_empty()).then(|| format!("{} of WASI, with nothing behind them", wasi.len()));
    list(others.into_iter().map(|name| plain(name)).chain(wasi))
}

fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    if names.is_empty() { "none".to_string() } else { names.join(", ") }
}

/// A line for each property of an object's schema.
fn options(schema: &Value) -> Vec<String> {
    let required = required(schema);
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return if schema.is_null() { vec!["none".to_string()] } else { vec![plain(&schema.to_string())] };
    };
    let option = |(name, property): (&String, &Value)| {
        let kind = match (property.get("type"), property.get("enum")) {
            (Some(Value::String(kind)), _) => kind.clone(),
            (_, Some(values)) => format!("one of {values}"),
            (kind, _) => kind.map(ToString::to_string).unwrap_or_default(),
        };
        let mut line = format!("{name}  {kind}");
        if required.contains(&name.as_str()) {
            line.push_str(", required");
        }
        if let Some(default) = property.get("default") {
            line.push_str(&format!(", default {default}"));
        }
        if let Some(words) = property.get("description").and_then(Value::as_str) {
            line.push_str(&format!(": {words}"));
        }
        plain(&line)
    };
    properties.iter().map(option).collect()
}

fn required(schema: &Value) -> Vec<&str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// `{ a = "WHAT", b = "WHAT" }`
fn places<'a>(names: impl Iterator<Item = &'a String>, what: &str) -> String {
    let pairs: Vec<String> = names.map(|name| format!("{name} = \"{what}\"")).collect();
    format!("{{ {} }}", pairs.join(", "))
}

fn key_of(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { name.to_string() } else { format!("{name:?}") }
}

/// A stage's name made of the plugin's.
fn stage_name(name: &str) -> String {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let usable = name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(fits);
    if usable { name.to_string() } else { "NAME".to_string() }
}

/// How a pipeline file names the component: the file's name without its ending, if that is how it is looked up.
fn plugin_name(path: &Path) -> String {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    match (stem, path.extension().is_some_and(|ending| ending == "wasm")) {
        (Some(stem), true) => stem.to_string(),
        _ => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Report {
        Report {
            file: PathBuf::from("dist/watch.wasm"),
            name: "watch".to_string(),
            version: "0.1.0".to_string(),
            description: "Watches\u{1b}[2J".to_string(),
            kind: "transform",
            world: "tidemill:plugin/transform@0.1.0",
            digest: "sha256:00".to_string(),
            size: 2_048,
            imports: ["tidemill:plugin/state@0.1.0", "wasi:io/poll@0.2.6", "wasi:cli/exit@0.2.6"]
                .map(str::to_string)
                .to_vec(),
            grants: vec![Grant::Http, Grant::State],
            ports: vec![
                PortReport { name: "default".to_string(), description: String::new() },
                PortReport { name: "late".to_string(), description: "too late".to_string() },
            ],
            tables: Vec::new(),
            config_schema: json!({
                "required": ["field"],
                "properties": {
                    "field": { "type": "string", "description": "what is counted" },
                    "size_s": { "type": "integer", "default": 60 }
                }
            }),
            stage: String::new(),
        }
    }

    #[test]
    fn the_stage_names_all_that_must_be_decided() {
        assert_eq!(
            report().stage(),
            "[transforms.watch]\nplugin = \"watch\"\nfrom = \"TOPIC\"\n\
             to = { default = \"TOPIC\", late = \"TOPIC\" }\ngrants = [\"http\", \"state\"]\n\
             http = { allow = [\"https://ORIGIN\"] }\nconfig = { field = … }\n"
        );
    }

    #[test]
    fn the_text_has_each_option_and_steers_no_terminal() {
        let text = report().text();
        for part in [
            "watch 0.1.0, a transform",
            "config   field  string, required: what is counted\n",
            "config   size_s  integer, default 60\n",
            "imports  tidemill:plugin/state@0.1.0, 2 of WASI, with nothing behind them\n",
            "grants   http, state\n",
            "port     late  too late\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains('\u{1b}'));
    }
}
