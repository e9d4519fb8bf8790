//! The shape of a file: known keys, types, ranges. Checked against the JSON Schema that editors use, so that both agree,
//! and all at once.

use std::sync::LazyLock;

use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use super::document::{Document, Mark};
use super::error::ConfigError;
use super::key_path::{KeyPath, Segment};
use super::plan::StageKind;
use super::schema;
use super::suggest;

/// The sections of stages.
pub const SECTIONS: [(&str, StageKind); 5] = [
    ("producers", StageKind::Producer),
    ("transforms", StageKind::Transform),
    ("materializers", StageKind::Materializer),
    ("sinks", StageKind::Sink),
    ("workers", StageKind::Worker),
];

/// Checks the file, and takes out of `json` what is wrong, so that the rest can be looked at as well.
pub fn check(doc: &Document, json: &mut Value) -> Vec<ConfigError> {
    static VALIDATOR: LazyLock<Result<Validator, String>> =
        LazyLock::new(|| jsonschema::validator_for(schema::json_schema()).map_err(|e| e.to_string()));
    let validator = match &*VALIDATOR {
        Ok(validator) => validator,
        Err(error) => {
            let message = format!("the schema of pipeline files is broken: {error}");
            return vec![doc.error(&KeyPath::default(), Mark::Key, message, None)];
        }
    };
    let words = Words { schema: schema::json_schema(), value: json, elsewhere };
    let findings = words.of(validator);
    for finding in findings.iter().filter(|finding| finding.mark != Mark::Missing) {
        remove(json, &finding.path);
    }
    findings.into_iter().map(|f| doc.error(&f.path, f.mark, f.message, f.help)).collect()
}

/// Something wrong with a value, at a path in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub path: KeyPath,
    pub mark: Mark,
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// All that a schema has against a value, in words for people. `validator` is the compiled `schema`.
pub fn explain(validator: &Validator, schema: &Value, value: &Value) -> Vec<Finding> {
    Words { schema, value, elsewhere: |_, _| None }.of(validator)
}

/// Puts what jsonschema says into words.
struct Words<'a> {
    schema: &'a Value,
    value: &'a Value,
    /// Message and help for an unknown key of the table at a path, if it means something at another place.
    elsewhere: fn(&KeyPath, &str) -> Option<(String, String)>,
}

impl Words<'_> {
    fn of(&self, validator: &Validator) -> Vec<Finding> {
        validator.iter_errors(self.value).flat_map(|error| self.findings(&error)).collect()
    }

    fn findings(&self, error: &ValidationError<'_>) -> Vec<Finding> {
        let path = self.path(error.instance_path().as_str());
        // The path ends with the keyword that refused; the rest leads to the schema around it.
        let pointer = error.schema_path().as_str();
        let around = pointer.rsplit_once('/').map_or("", |(around, _)| around);
        let around = self.schema.pointer(around).unwrap_or(&Value::Null);
        match error.kind() {
            Kind::AdditionalProperties { unexpected } => {
                unexpected.iter().map(|key| self.unknown_key(&path, key, around)).collect()
            }
            // What jsonschema says where no key at all is allowed.
            Kind::FalseSchema => {
                let table = self.value.pointer(error.instance_path().as_str());
                let keys = table.and_then(Value::as_object).into_iter().flat_map(|table| table.keys());
                keys.map(|key| self.unknown_key(&path, key, around)).collect()
            }
            Kind::Required { property } => vec![missing_key(&path, property, around)],
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
                self.alternatives(path, error, context, around)
            }
            Kind::Enum { .. } => vec![no_form(path, error.instance(), std::slice::from_ref(around))],
            kind => vec![Finding {
                message: wrong_value(kind, error, around),
                help: example(around).map(|e| format!("for example {e}")),
                path,
                mark: Mark::Value,
            }],
        }
    }

    fn unknown_key(&self, path: &KeyPath, key: &str, around: &Value) -> Finding {
        let known = around.get("properties").and_then(Value::as_object);
        let known = known.iter().flat_map(|p| p.keys()).map(String::as_str);
        let (message, help) = match (self.elsewhere)(path, key) {
            Some((message, help)) => (message, Some(help)),
            None => ("unknown key".to_string(), suggest::help(key, "known keys", known)),
        };
        Finding { path: path.key(key), mark: Mark::Key, message, help }
    }

    /// The path of a JSON pointer. Only the value can tell a key that is a number from an index.
    fn path(&self, pointer: &str) -> KeyPath {
        let mut path = KeyPath::default();
        let mut value = Some(self.value);
        for segment in pointer.split('/').skip(1) {
            let key = segment.replace("~1", "/").replace("~0", "~");
            match (value, key.parse::<usize>()) {
                (Some(Value::Array(items)), Ok(index)) => {
                    path = path.index(index);
                    value = items.get(index);
                }
                (parent, _) => {
                    path = path.key(&key);
                    value = parent.and_then(|parent| parent.get(&key));
                }
            }
        }
        path
    }

    /// A value that fits none of several forms. Told about the table form where it is a table, else all are listed.
    fn alternatives(
        &self,
        path: KeyPath,
        error: &ValidationError<'_>,
        context: &[Vec<ValidationError<'static>>],
        around: &Value,
    ) -> Vec<Finding> {
        let forms = ["anyOf", "oneOf"].iter().find_map(|k| around.get(k)?.as_array());
        let forms = forms.map_or(&[][..], Vec::as_slice);
        let instance = error.instance();
        let table =
            forms.iter().zip(context).find(|(form, _)| instance.is_object() && is_type(form, "object"));
        match table {
            Some((_, errors)) => errors.iter().flat_map(|e| self.findings(e)).collect(),
            None => vec![no_form(path, instance, forms)],
        }
    }
}

/// Keys that mean something, but not at this place or not yet.
fn elsewhere(path: &KeyPath, key: &str) -> Option<(String, String)> {
    match (path.segments().len(), path.key_at(0)?, path.key_at(2), key) {
        (2, "topics", _, "compression") => Some((
            "choosing the compression comes with a later version".to_string(),
            "remove the key: lz4 is used where the server has it, else pglz".to_string(),
        )),
        (2, section, _, key) => {
            let kind = SECTIONS.iter().find(|(name, _)| *name == section)?.1;
            let owners: Vec<&str> =
                SECTIONS.iter().filter(|(other, _)| has_key(other, key)).map(|(other, _)| *other).collect();
            (!owners.is_empty()).then(|| {
                let help = format!("only {} have it: remove the key", suggest::list(owners));
                (format!("a {kind} has no `{key}`"), help)
            })
        }
        _ => None,
    }
}

fn has_key(section: &str, key: &str) -> bool {
    let properties = format!("/properties/{section}/additionalProperties/properties");
    let properties = schema::json_schema().pointer(&properties);
    properties.is_some_and(|p| p.get(key).is_some())
}

fn missing_key(path: &KeyPath, property: &Value, around: &Value) -> Finding {
    let key = property.as_str().unwrap_or_default();
    let about = around.pointer(&format!("/properties/{key}"));
    let description = about.and_then(|p| p.get("description")?.as_str());
    let example = about.and_then(example).map(|e| format!("Write `{key} = {e}`."));
    let help: Vec<&str> = description.into_iter().chain(example.as_deref()).collect();
    Finding {
        path: path.clone(),
        mark: Mark::Missing,
        message: format!("the key `{key}` is missing"),
        help: (!help.is_empty()).then(|| help.join(" ").replace('\n', " ")),
    }
}

fn no_form(path: KeyPath, instance: &Value, forms: &[Value]) -> Finding {
    let names: Vec<String> = forms.iter().flat_map(form_names).collect();
    let words = || forms.iter().flat_map(words);
    let message = if words().next().is_some() {
        format!("{} is none of {}", shown(instance), names.join(", "))
    } else {
        let found = type_name(type_of(instance));
        format!("expected {}, found {found}", names.join(" or "))
    };
    let near = instance.as_str().and_then(|text| suggest::nearest(text, words()));
    Finding { path, mark: Mark::Value, message, help: near.map(|near| format!("did you mean {near:?}?")) }
}

fn is_type(form: &Value, name: &str) -> bool {
    form.get("type").is_some_and(|t| t == name)
}

/// The words that a form of a value allows.
fn words(form: &Value) -> Vec<&str> {
    let list = form.get("enum").and_then(Value::as_array);
    let list = list.map_or(&[][..], Vec::as_slice);
    form.get("const").into_iter().chain(list).filter_map(Value::as_str).collect()
}

/// How a form of a value is named in a list of forms.
fn form_names(form: &Value) -> Vec<String> {
    let words = words(form);
    if !words.is_empty() {
        return words.iter().map(|word| format!("{word:?}")).collect();
    }
    let required = form.get("required").and_then(Value::as_array);
    let first = required.and_then(|keys| keys.first()?.as_str());
    match (form.get("type").and_then(Value::as_str), first) {
        (Some("object"), Some(key)) => vec![format!("{{ {key} = … }}")],
        (Some(name), _) => vec![type_name(name).to_string()],
        (None, _) => Vec::new(),
    }
}

fn wrong_value(kind: &Kind, error: &ValidationError<'_>, around: &Value) -> String {
    let instance = error.instance();
    match kind {
        Kind::Type { .. } => {
            let expected = around.get("type").and_then(Value::as_str);
            let expected = expected.map_or("another type", type_name);
            format!("expected {expected}, found {}", type_name(type_of(instance)))
        }
        Kind::Minimum { .. } | Kind::Maximum { .. } => match (around.get("minimum"), around.get("maximum")) {
            (Some(min), Some(max)) => format!("{instance} is out of range: {min} to {max}"),
            (Some(min), None) => format!("{instance} is too small: at least {min}"),
            (_, max) => format!("{instance} is too large: at most {}", max.unwrap_or(&Value::Null)),
        },
        _ => error.to_string(),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "float",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The type as TOML calls it.
fn type_name(json: &str) -> &str {
    match json {
        "boolean" => "true or false",
        "number" => "a number",
        "float" => "a number with a point",
        "integer" => "a whole number",
        "string" => "a string",
        "array" => "an array",
        "object" => "a table",
        other => other,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => type_name(type_of(value)).to_string(),
        value => value.to_string(),
    }
}

/// The first example that is not a table.
fn example(around: &Value) -> Option<String> {
    let example = around.get("examples")?.as_array()?.first()?;
    (!example.is_object()).then(|| example.to_string())
}

/// Takes a place out of the JSON: a key goes, an item of an array becomes null so that its neighbours keep their index.
fn remove(json: &mut Value, path: &KeyPath) {
    let Some((last, parents)) = path.segments().split_last() else {
        return;
    };
    let parent = parents.iter().try_fold(json, |value, segment| match segment {
        Segment::Key(key) => value.get_mut(key),
        Segment::Index(index) => value.get_mut(index),
    });
    match (parent, last) {
        (Some(Value::Object(map)), Segment::Key(key)) => {
            map.remove(key);
        }
        (Some(Value::Array(items)), Segment::Index(index)) => {
            if let Some(item) = items.get_mut(*index) {
                *item = Value::Null;
            }
        }
        _ => {}
    }
}
