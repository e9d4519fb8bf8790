//! A parsed TOML file that still knows where each key and value stands, and in which order.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::{ConfigError, Place};
use super::key_path::{KeyPath, Segment};

/// Syntax errors past the first few are mostly consequences of those.
const MAX_SYNTAX_ERRORS: usize = 3;

pub struct Document {
    pub file: PathBuf,
    text: String,
    root: Node,
}

pub struct Node {
    span: Range<usize>,
    pub kind: NodeKind,
}

pub enum NodeKind {
    /// In file order.
    Table(Vec<Entry>),
    Array(Vec<Node>),
    /// A string, number, or boolean; a date is its text.
    Leaf(Value),
}

pub struct Entry {
    pub key: String,
    key_span: Range<usize>,
    pub node: Node,
}

/// What of a place an error points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Key,
    Value,
    /// A table that lacks something.
    Missing,
}

impl Document {
    pub fn parse(file: &Path, text: &str) -> Result<Self, Vec<ConfigError>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let mut errors: Vec<ConfigError> =
                errors.iter().map(|e| syntax_error(file, text, e.span(), e.message())).collect();
            // The second error of a line is mostly a consequence of the first.
            errors.dedup_by_key(|e| e.place.as_ref().map(|p| p.line));
            errors.truncate(MAX_SYNTAX_ERRORS);
            return Err(errors);
        }
        let mut errors = Vec::new();
        let span = root.span();
        let root = Node { span, kind: table(root.get_ref(), &mut errors) };
        if !errors.is_empty() {
            return Err(errors
                .into_iter()
                .map(|(span, message)| syntax_error(file, text, Some(span), &message))
                .collect());
        }
        Ok(Self { file: file.to_path_buf(), text: text.to_string(), root })
    }

    pub fn json(&self) -> Value {
        self.root.json()
    }

    pub fn get(&self, path: &KeyPath) -> Option<&Node> {
        path.segments().iter().try_fold(&self.root, |node, segment| Some(node.step(segment)?.1))
    }

    /// The keys of a table in file order; none if it is not there.
    pub fn keys(&self, path: &KeyPath) -> Vec<&str> {
        match self.get(path).map(|node| &node.kind) {
            Some(NodeKind::Table(entries)) => entries.iter().map(|e| e.key.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// An error at a place, or at the nearest table around it if the file does not have it.
    pub fn error(
        &self,
        path: &KeyPath,
        mark: Mark,
        message: impl Into<String>,
        help: Option<String>,
    ) -> ConfigError {
        ConfigError {
            file: self.file.clone(),
            place: Some(Place::locate(&self.text, &self.span(path, mark))),
            key: path.to_string(),
            message: message.into(),
            help,
        }
    }

    fn span(&self, path: &KeyPath, mark: Mark) -> Range<usize> {
        let mut node = &self.root;
        let mut span = 0..0;
        let mut found = true;
        for segment in path.segments() {
            let Some((key_span, next)) = node.step(segment) else {
                found = false;
                break;
            };
            span = key_span;
            node = next;
        }
        let points_at_value = mark == Mark::Value && found && !path.segments().is_empty();
        match node.kind {
            NodeKind::Leaf(_) | NodeKind::Array(_) if points_at_value => node.span.clone(),
            _ => span,
        }
    }
}

impl Node {
    pub fn json(&self) -> Value {
        match &self.kind {
            NodeKind::Leaf(value) => value.clone(),
            NodeKind::Array(items) => Value::Array(items.iter().map(Self::json).collect()),
            NodeKind::Table(entries) => {
                Value::Object(entries.iter().map(|e| (e.key.clone(), e.node.json())).collect::<Map<_, _>>())
            }
        }
    }

    /// The child and where its name stands: the key, or for an item of an array the item.
    fn step(&self, segment: &Segment) -> Option<(Range<usize>, &Self)> {
        match (&self.kind, segment) {
            (NodeKind::Table(entries), Segment::Key(key)) => {
                entries.iter().find(|e| e.key == *key).map(|e| (e.key_span.clone(), &e.node))
            }
            (NodeKind::Array(items), Segment::Index(index)) => {
                items.get(*index).map(|item| (item.span.clone(), item))
            }
            _ => None,
        }
    }
}

fn syntax_error(file: &Path, text: &str, span: Option<Range<usize>>, message: &str) -> ConfigError {
    ConfigError {
        file: file.to_path_buf(),
        place: Some(Place::locate(text, &span.unwrap_or(0..0))),
        key: String::new(),
        message: format!("not TOML: {message}"),
        help: None,
    }
}

type Errors = Vec<(Range<usize>, String)>;

fn table(table: &DeTable<'_>, errors: &mut Errors) -> NodeKind {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_span: key.span(),
            node: node(value, errors),
        })
        .collect();
    entries.sort_by_key(|e| e.key_span.start);
    NodeKind::Table(entries)
}

fn array(array: &DeArray<'_>, errors: &mut Errors) -> NodeKind {
    NodeKind::Array(array.iter().map(|item| node(item, errors)).collect())
}

fn node(value: &Spanned<DeValue<'_>>, errors: &mut Errors) -> Node {
    let kind = match value.get_ref() {
        DeValue::Table(inner) => table(inner, errors),
        DeValue::Array(inner) => array(inner, errors),
        DeValue::String(text) => NodeKind::Leaf(Value::String(text.to_string())),
        DeValue::Boolean(flag) => NodeKind::Leaf(Value::Bool(*flag)),
        DeValue::Datetime(time) => NodeKind::Leaf(Value::String(time.to_string())),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            leaf(parsed.ok().map(Number::from), value.span(), errors)
        }
        DeValue::Float(number) => {
            let parsed = number.as_str().parse::<f64>().ok();
            leaf(parsed.and_then(Number::from_f64), value.span(), errors)
        }
    };
    Node { span: value.span(), kind }
}

fn leaf(number: Option<Number>, span: Range<usize>, errors: &mut Errors) -> NodeKind {
    if number.is_none() {
        let message = "a number must be finite and fit in 64 bits".to_string();
        errors.push((span, message));
    }
    NodeKind::Leaf(number.map_or(Value::Null, Value::Number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Document {
        Document::parse(Path::new("a.toml"), text).unwrap_or_else(|e| panic!("{e:?}"))
    }

    #[test]
    fn tables_keep_the_order_of_the_file() {
        let doc = parse("[t]\nz = 1\na = { y = 2, b = 3 }\nm = 0\n");
        assert_eq!(doc.keys(&KeyPath::of(["t"])), ["z", "a", "m"]);
        assert_eq!(doc.keys(&KeyPath::of(["t", "a"])), ["y", "b"]);
    }

    #[test]
    fn an_error_points_at_the_key_the_value_or_the_table_that_lacks_it() {
        let doc = parse("[t.u]\nz = 12\n\n[[list]]\nx = 1\n[[list]]\nx = 2\n");
        let at = |path: KeyPath, mark| {
            let place = doc.error(&path, mark, "", None).place;
            place.map(|p| (p.line, p.column))
        };
        let z = KeyPath::of(["t", "u", "z"]);
        assert_eq!(at(z.clone(), Mark::Key), Some((2, 1)));
        assert_eq!(at(z, Mark::Value), Some((2, 5)));
        assert_eq!(at(KeyPath::of(["t", "u", "gone"]), Mark::Value), Some((1, 4)));
        let second = KeyPath::of(["list"]).index(1);
        assert_eq!(at(second.key("x"), Mark::Value), Some((7, 5)));
        assert_eq!(at(second.key("y"), Mark::Key), Some((6, 1)));
    }

    #[test]
    fn what_json_cannot_hold_is_refused() {
        for bad in ["a = nan", "a = inf", "a = 99999999999999999999"] {
            assert!(Document::parse(Path::new("a.toml"), bad).is_err(), "{bad}");
        }
        assert_eq!(parse("a = 0xff\nb = 1_000").json(), serde_json::json!({"a": 255, "b": 1000}));
    }
}
