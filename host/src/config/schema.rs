//! The JSON Schema of a pipeline file: what editors complete from, and what the loader checks the shape of a file with.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value};

use super::file::{PipelineFile, Stage};
use super::plan::StageKind;

/// Without references: the path of a validation error then leads straight to the part of the schema that refused.
pub fn json_schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        SchemaSettings::draft2020_12()
            .with(|settings| settings.inline_subschemas = true)
            .with_transform(RecursiveTransform(without_null))
            .into_generator()
            .into_root_schema_for::<PipelineFile>()
            .to_value()
    });
    &SCHEMA
}

/// TOML has no null: an optional key is left out.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|t| t != "null");
        if let [single] = types.as_slice() {
            let single = single.clone();
            object.insert("type".to_string(), single);
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|v| !v.is_null());
    }
    if let Some(Value::Array(options)) = object.get_mut("anyOf") {
        options.retain(|o| o.get("type").is_none_or(|t| t != "null"));
        if let [Value::Object(only)] = options.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
    if object.get("default").is_some_and(Value::is_null) {
        object.remove("default");
    }
}

/// The keys of a stage that only some kinds have, and those that a kind cannot do without.
pub fn required(kind: StageKind) -> &'static [&'static str] {
    match kind {
        StageKind::Producer => &["plugin", "to"],
        StageKind::Transform => &["plugin", "from", "to"],
        StageKind::Materializer => &["plugin", "from", "tables"],
        StageKind::Sink => &["plugin", "from"],
        StageKind::Worker => &["plugin", "queue"],
    }
}

fn absent(kind: StageKind) -> &'static [&'static str] {
    match kind {
        StageKind::Producer => &[
            "from",
            "group",
            "start",
            "tables",
            "on_error",
            "max_attempts",
            "breaker",
            "queue",
            "concurrency",
        ],
        StageKind::Transform => &["tables", "queue", "concurrency"],
        StageKind::Materializer => &["to", "queue", "concurrency"],
        StageKind::Sink => &["to", "tables", "queue", "concurrency"],
        StageKind::Worker => {
            &["from", "group", "start", "tables", "on_error", "max_attempts", "breaker", "probation"]
        }
    }
}

/// A worker is given jobs, all others are given messages.
fn batch_keys(kind: StageKind) -> &'static [&'static str] {
    match kind {
        StageKind::Worker => &["jobs"],
        _ => &["records", "bytes", "linger"],
    }
}

fn stages(generator: &mut SchemaGenerator, kind: StageKind) -> Schema {
    let mut stage = generator.subschema_for::<Stage>();
    if let Some(Value::Object(properties)) = stage.get_mut("properties") {
        properties.retain(|key, _| !absent(kind).contains(&key.as_str()));
        let batch = properties.get_mut("batch").and_then(|batch| batch.get_mut("properties"));
        if let Some(batch) = batch.and_then(Value::as_object_mut) {
            batch.retain(|key, _| batch_keys(kind).contains(&key.as_str()));
        }
    }
    stage.insert("required".to_string(), required(kind).into());
    let mut map = Map::new();
    map.insert("type".to_string(), "object".into());
    map.insert("additionalProperties".to_string(), stage.to_value());
    Schema::from(map)
}

pub fn producers(generator: &mut SchemaGenerator) -> Schema {
    stages(generator, StageKind::Producer)
}

pub fn transforms(generator: &mut SchemaGenerator) -> Schema {
    stages(generator, StageKind::Transform)
}

pub fn materializers(generator: &mut SchemaGenerator) -> Schema {
    stages(generator, StageKind::Materializer)
}

pub fn sinks(generator: &mut SchemaGenerator) -> Schema {
    stages(generator, StageKind::Sink)
}

pub fn workers(generator: &mut SchemaGenerator) -> Schema {
    stages(generator, StageKind::Worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_a_valid_json_schema_without_references_or_nulls() {
        let schema = json_schema();
        assert!(jsonschema::meta::is_valid(schema));
        let text = schema.to_string();
        assert!(!text.contains("$ref"), "{text}");
        assert!(!text.contains("null"), "{text}");
    }

    #[test]
    fn a_producer_reads_nothing_and_a_sink_writes_nothing() {
        let properties = |section: &str| {
            let pointer = format!("/properties/{section}/additionalProperties/properties");
            json_schema().pointer(&pointer).cloned().unwrap_or_default()
        };
        assert!(properties("producers").get("from").is_none());
        assert!(properties("producers").get("to").is_some());
        assert!(properties("sinks").get("to").is_none());
        assert!(properties("materializers").get("tables").is_some());
        assert!(properties("workers").get("from").is_none());
        assert!(properties("workers").pointer("/batch/properties/jobs").is_some());
        assert!(properties("workers").pointer("/batch/properties/records").is_none());
        assert!(properties("transforms").pointer("/batch/properties/jobs").is_none());
    }
}
