//! Is a descriptor usable, and does a `config` fit it?

use std::collections::HashSet;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::log::printable;
use super::{ColumnType, DEFAULT_PORT, Descriptor, PluginKind, Port, Table};

const MAX_PORTS: usize = 64;
const MAX_TABLES: usize = 64;
const MAX_COLUMNS: usize = 500;
/// Names and versions, in characters.
const MAX_NAME: usize = 63;
const MAX_DESCRIPTION: usize = 10_000;
const MAX_SCHEMA_BYTES: usize = 256 << 10;
/// Problems reported at once.
const MAX_PROBLEMS: usize = 20;
/// One problem of a config is cut past this many characters; schemas quote values.
const MAX_PROBLEM: usize = 500;

/// Every problem of `descriptor`, in words for the plugin's author.
pub(super) fn check_descriptor(descriptor: &Descriptor, kind: PluginKind) -> Result<(), Vec<String>> {
    let mut problems = Problems::default();
    check_texts(descriptor, &mut problems);
    check_ports(&descriptor.ports, kind, &mut problems);
    check_tables(&descriptor.tables, kind, &mut problems);
    if let Err(problem) = config_validator(descriptor) {
        problems.add(problem);
    }
    problems.into_result()
}

/// Checks a stage's `config` against the plugin's JSON Schema. Each problem begins with its place, as
/// `config.rate: -1 is less than the minimum of 0`.
///
/// A plugin without a schema takes no config: null and `{}` are fine.
///
/// # Errors
///
/// The problems found, at most twenty.
pub fn check_config(descriptor: &Descriptor, config: &Value) -> Result<(), Vec<String>> {
    let empty = Value::Object(serde_json::Map::new());
    let config = if config.is_null() { &empty } else { config };
    if !config.is_object() {
        return Err(vec!["config: must be a table of keys and values".to_owned()]);
    }
    let Some(validator) = config_validator(descriptor).map_err(|problem| vec![problem])? else {
        return if *config == empty {
            Ok(())
        } else {
            Err(vec![format!("config: {} takes no config", descriptor.name)])
        };
    };
    let mut problems = Problems::default();
    for error in validator.iter_errors(config).take(MAX_PROBLEMS) {
        let mut place = "config".to_owned();
        for part in error.instance_path().as_str().split('/').skip(1) {
            place.push('.');
            place.push_str(&part.replace("~1", "/").replace("~0", "~"));
        }
        problems.add(printable(&format!("{place}: {error}"), MAX_PROBLEM));
    }
    problems.into_result()
}

/// The compiled JSON Schema of a plugin's `config`; None if the plugin takes no config. Schemas come with plugins, so
/// references to the outside are not followed and patterns run in linear time.
///
/// # Errors
///
/// In words, if the schema is not one.
pub fn config_validator(descriptor: &Descriptor) -> Result<Option<Validator>, String> {
    let text = descriptor.config_schema.as_str();
    if text.trim().is_empty() {
        return Ok(None);
    }
    if text.len() > MAX_SCHEMA_BYTES {
        return Err(format!("config-schema: larger than {MAX_SCHEMA_BYTES} bytes"));
    }
    let schema: Value =
        serde_json::from_str(text).map_err(|error| format!("config-schema: not a JSON document: {error}"))?;
    jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .offline()
        .build(&schema)
        .map(Some)
        .map_err(|error| {
            let problem = format!("config-schema: not a JSON Schema: {error}");
            printable(&problem, MAX_PROBLEM)
        })
}

#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, problem: String) {
        if self.0.len() < MAX_PROBLEMS {
            self.0.push(problem);
        }
    }

    fn into_result(self) -> Result<(), Vec<String>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

fn check_texts(descriptor: &Descriptor, problems: &mut Problems) {
    for (what, text) in [("name", &descriptor.name), ("version", &descriptor.version)] {
        if text.trim().is_empty() {
            problems.add(format!("{what}: is empty"));
        }
        if text.chars().count() > MAX_NAME || text.chars().any(char::is_control) {
            problems
                .add(format!("{what}: must have at most {MAX_NAME} characters and no control characters"));
        }
    }
    let ports = descriptor.ports.iter().map(|port| &port.description);
    for text in ports.chain([&descriptor.description]) {
        if text.len() > MAX_DESCRIPTION || text.contains('\0') {
            problems
                .add(format!("description: must have at most {MAX_DESCRIPTION} bytes and no NUL character"));
        }
    }
}

fn check_ports(ports: &[Port], kind: PluginKind, problems: &mut Problems) {
    if !ports.is_empty() && !kind.emits() {
        problems.add(format!("ports: a {kind} has none"));
    }
    if ports.len() > MAX_PORTS {
        problems.add(format!("ports: {} are more than {MAX_PORTS}", ports.len()));
    }
    let mut seen = HashSet::new();
    for port in ports.iter().take(MAX_PORTS) {
        let name = shown(&port.name);
        if port.name == DEFAULT_PORT {
            problems.add(format!("port `{name}`: is always there, leave it out"));
        } else if !is_name(&port.name, "_-") {
            problems.add(format!(
                "port `{name}`: a name starts with a lower-case letter and goes on with lower-case letters, digits, \
                 `_` and `-`, at most {MAX_NAME} in all"
            ));
        }
        if !seen.insert(&port.name) {
            problems.add(format!("port `{name}`: named twice"));
        }
    }
}

fn check_tables(tables: &[Table], kind: PluginKind, problems: &mut Problems) {
    match kind {
        PluginKind::Materializer if tables.is_empty() => {
            problems.add("tables: a materializer needs at least one".to_owned());
        }
        PluginKind::Materializer => {}
        _ if !tables.is_empty() => problems.add(format!("tables: a {kind} has none")),
        _ => {}
    }
    if tables.len() > MAX_TABLES {
        problems.add(format!("tables: {} are more than {MAX_TABLES}", tables.len()));
    }
    let mut seen = HashSet::new();
    for table in tables.iter().take(MAX_TABLES) {
        check_identifier("table", &table.name, problems);
        if !seen.insert(&table.name) {
            problems.add(format!("table `{}`: named twice", shown(&table.name)));
        }
        check_columns(table, problems);
        check_key(table, problems);
    }
}

fn check_columns(table: &Table, problems: &mut Problems) {
    let name = shown(&table.name);
    if table.columns.is_empty() {
        problems.add(format!("table `{name}`: has no columns"));
    }
    if table.columns.len() > MAX_COLUMNS {
        problems.add(format!("table `{name}`: more than {MAX_COLUMNS} columns"));
    }
    let mut seen = HashSet::new();
    for column in table.columns.iter().take(MAX_COLUMNS) {
        check_identifier(&format!("table `{name}`, column"), &column.name, problems);
        if !seen.insert(&column.name) {
            problems.add(format!("table `{name}`: column `{}` named twice", shown(&column.name)));
        }
    }
}

fn check_key(table: &Table, problems: &mut Problems) {
    let name = shown(&table.name);
    if table.key.is_empty() {
        problems.add(format!("table `{name}`: its key names no column"));
    }
    let mut seen = HashSet::new();
    for key in table.key.iter().take(MAX_COLUMNS) {
        match column_type(table, key) {
            None => {
                problems.add(format!("table `{name}`: key column `{}` is not one of its columns", shown(key)))
            }
            Some(ColumnType::Json) => problems.add(format!(
                "table `{name}`: key column `{}` is json, which has no one way to be equal",
                shown(key)
            )),
            Some(_) => {}
        }
        if !seen.insert(key) {
            problems.add(format!("table `{name}`: key column `{}` named twice", shown(key)));
        }
    }
    let Some(newest_by) = &table.newest_by else {
        return;
    };
    match column_type(table, newest_by) {
        None => problems.add(format!(
            "table `{name}`: newest-by column `{}` is not one of its columns",
            shown(newest_by)
        )),
        Some(ColumnType::Json | ColumnType::Boolean) => problems.add(format!(
            "table `{name}`: newest-by column `{}` has a type without an order",
            shown(newest_by)
        )),
        Some(_) => {}
    }
}

fn column_type(table: &Table, name: &str) -> Option<ColumnType> {
    let column = table.columns.iter().find(|column| column.name == name);
    column.map(|column| column.type_)
}

fn check_identifier(what: &str, name: &str, problems: &mut Problems) {
    if !is_name(name, "_") {
        problems.add(format!(
            "{what} `{}`: a name starts with a lower-case letter and goes on with lower-case letters, digits and \
             `_`, at most {MAX_NAME} in all",
            shown(name)
        ));
    }
}

fn is_name(name: &str, also: &str) -> bool {
    let mut letters = name.chars();
    name.len() <= MAX_NAME
        && letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && letters.all(|next| next.is_ascii_lowercase() || next.is_ascii_digit() || also.contains(next))
}

fn shown(name: &str) -> String {
    printable(name, MAX_NAME)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::Column;

    fn column(name: &str, type_: ColumnType) -> Column {
        Column { name: name.to_owned(), type_ }
    }

    fn table() -> Table {
        Table {
            name: "positions".to_owned(),
            columns: vec![
                column("icao", ColumnType::Text),
                column("seen", ColumnType::Timestamp),
                column("extra", ColumnType::Json),
            ],
            key: vec!["icao".to_owned()],
            newest_by: Some("seen".to_owned()),
        }
    }

    fn descriptor() -> Descriptor {
        Descriptor {
            name: "sample".to_owned(),
            version: "1.0.0".to_owned(),
            description: String::new(),
            config_schema: String::new(),
            ports: Vec::new(),
            tables: Vec::new(),
        }
    }

    fn problems_of(kind: PluginKind, change: impl FnOnce(&mut Descriptor)) -> String {
        let mut descriptor = descriptor();
        if kind == PluginKind::Materializer {
            descriptor.tables.push(table());
        }
        change(&mut descriptor);
        match check_descriptor(&descriptor, kind) {
            Ok(()) => String::new(),
            Err(problems) => problems.join("; "),
        }
    }

    #[test]
    fn usable_descriptors_pass() {
        for kind in PluginKind::ALL {
            assert_eq!(problems_of(kind, |_| {}), "", "{kind}");
        }
    }

    #[test]
    fn each_problem_is_named() {
        use PluginKind::{Materializer, Sink, Transform};
        let port = |name: &str| Port { name: name.to_owned(), description: String::new() };
        type Change = Box<dyn FnOnce(&mut Descriptor)>;
        let cases: Vec<(PluginKind, &str, Change)> = vec![
            (Sink, "name: is empty", Box::new(|d| d.name.clear())),
            (Sink, "version: must have", Box::new(|d| d.version = "1\n".to_owned())),
            (Sink, "ports: a sink has none", Box::new(move |d| d.ports.push(port("x")))),
            (Transform, "tables: a transform has none", Box::new(|d| d.tables.push(table()))),
            (Transform, "`default`: is always there", Box::new(move |d| d.ports.push(port("default")))),
            (Transform, "port `A B`", Box::new(move |d| d.ports.push(port("A B")))),
            (Transform, "named twice", Box::new(move |d| d.ports = vec![port("x"), port("x")])),
            (Materializer, "needs at least one", Box::new(|d| d.tables.clear())),
            (Materializer, "has no columns", Box::new(|d| d.tables[0].columns.clear())),
            (Materializer, "key names no column", Box::new(|d| d.tables[0].key.clear())),
            (Materializer, "`nope` is not one", Box::new(|d| d.tables[0].key = vec!["nope".to_owned()])),
            (Materializer, "is json", Box::new(|d| d.tables[0].key = vec!["extra".to_owned()])),
            (
                Materializer,
                "without an order",
                Box::new(|d| d.tables[0].newest_by = Some("extra".to_owned())),
            ),
            (Materializer, "table `a\"b`", Box::new(|d| d.tables[0].name = "a\"b".to_owned())),
            (Sink, "not a JSON document", Box::new(|d| d.config_schema = "{".to_owned())),
            (Sink, "not a JSON Schema", Box::new(|d| d.config_schema = r#"{"type": 7}"#.to_owned())),
            (
                Sink,
                "config-schema",
                Box::new(|d| d.config_schema = r#"{"$ref": "file:///etc/passwd"}"#.to_owned()),
            ),
        ];
        for (kind, expected, change) in cases {
            let found = problems_of(kind, change);
            assert!(found.contains(expected), "`{found}` should have `{expected}`");
        }
    }

    #[test]
    fn a_config_is_checked_against_the_schema_with_the_place_of_each_problem() {
        let mut descriptor = descriptor();
        descriptor.config_schema = json!({
            "type": "object",
            "properties": {
                "rate": {"type": "integer", "minimum": 0},
                "area": {"type": "object", "properties": {"lat": {"type": "number"}}}
            },
            "required": ["rate"],
            "additionalProperties": false
        })
        .to_string();
        assert_eq!(check_config(&descriptor, &json!({"rate": 5})), Ok(()));
        let config = json!({"rate": -1, "area": {"lat": "north"}, "raet": 1});
        let problems = check_config(&descriptor, &config).unwrap_err().join("\n");
        for expected in ["config.rate: -1", "config.area.lat: ", "raet"] {
            assert!(problems.contains(expected), "{problems}");
        }
        let missing = check_config(&descriptor, &Value::Null).unwrap_err();
        assert!(missing[0].contains("\"rate\" is a required property"), "{missing:?}");
    }

    #[test]
    fn without_a_schema_no_config_is_taken() {
        assert_eq!(check_config(&descriptor(), &Value::Null), Ok(()));
        assert_eq!(check_config(&descriptor(), &json!({})), Ok(()));
        assert!(check_config(&descriptor(), &json!({"a": 1})).is_err());
        assert!(check_config(&descriptor(), &json!([])).is_err());
    }
}
