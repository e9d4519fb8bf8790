//! `[[tests]]`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Reader;
use crate::config::document::Mark;
use crate::config::file::{Emission, Payload, Test};
use crate::config::key_path::KeyPath;
use crate::config::plan::{Expectation, ExpectedEmission, ExpectedPayload, StageKind, StagePlan, StageTest};
use crate::config::shape::SECTIONS;
use crate::config::suggest;
use crate::ids::StageName;

pub fn read(
    reader: &mut Reader<'_>,
    json: &Value,
    stages: &BTreeMap<StageName, StagePlan>,
) -> Vec<StageTest> {
    let tests = json.get("tests").and_then(Value::as_array);
    let tests = tests.map_or(&[][..], Vec::as_slice);
    let read = tests.iter().enumerate().map(|(i, value)| {
        let path = KeyPath::of(["tests"]).index(i);
        let written = reader.section(&path, value)?;
        test(reader, &path, i, written, stages)
    });
    read.flatten().collect()
}

fn test(
    reader: &mut Reader<'_>,
    path: &KeyPath,
    index: usize,
    test: Test,
    stages: &BTreeMap<StageName, StagePlan>,
) -> Option<StageTest> {
    let Some(stage) = stages.get(test.stage.as_str()) else {
        unknown_stage(reader, path, &test.stage);
        return None;
    };
    if stage.kind == StageKind::Producer && !test.input.is_empty() {
        let help = "leave `input` out: a producer is asked once, at time 0, without a position".to_string();
        reader.fail(&path.key("input"), Mark::Key, "a producer reads nothing", Some(help));
    }
    let path = path.key("expect");
    let emissions = test.expect.emissions.map(|list| {
        let read = |(i, written)| emission(reader, &path.key("emissions").index(i), written);
        list.into_iter().enumerate().map(read).collect()
    });
    let expect = Expectation { emissions, rejects: test.expect.rejects, rows: test.expect.rows.map(rows) };
    if expect == Expectation::default() {
        let help = "add `emissions`, `rejects` or `rows`".to_string();
        reader.fail(&path, Mark::Key, "the test expects nothing", Some(help));
    }
    ports(reader, &path, stage, &expect);
    tables(reader, &path, stage, &expect);
    Some(StageTest {
        name: test.name.unwrap_or_else(|| format!("{} {}", stage.name, index + 1)),
        stage: stage.name.clone(),
        input: test.input.into_iter().map(text).collect(),
        expect,
    })
}

fn unknown_stage(reader: &mut Reader<'_>, path: &KeyPath, stage: &str) {
    let written = |section| reader.doc.keys(&KeyPath::of([section]));
    let names: Vec<&str> = SECTIONS.iter().flat_map(|(section, _)| written(section)).collect();
    // A stage that stands there but has mistakes was told about already.
    if !names.contains(&stage) {
        let help = suggest::help(stage, "stages", names.iter().copied());
        let message = format!("there is no stage `{stage}`");
        reader.fail(&path.key("stage"), Mark::Value, message, help);
    }
}

fn ports(reader: &mut Reader<'_>, path: &KeyPath, stage: &StagePlan, expect: &Expectation) {
    let Some(emissions) = &expect.emissions else {
        return;
    };
    let path = path.key("emissions");
    if stage.outputs.is_empty() {
        let message = format!("a {} puts out no records", stage.kind);
        return reader.fail(&path, Mark::Key, message, Some("expect `rejects` or `rows`".to_string()));
    }
    for (i, emission) in emissions.iter().enumerate() {
        let known = |port: &String| stage.outputs.contains_key(port);
        if let Some(port) = emission.port.as_ref().filter(|port| !known(port)) {
            let ports = stage.outputs.keys().map(String::as_str);
            let message = format!("`to` of the stage `{}` has no port `{port}`", stage.name);
            let help = suggest::help(port, "ports", ports);
            reader.fail(&path.index(i).key("port"), Mark::Value, message, help);
        }
    }
}

fn tables(reader: &mut Reader<'_>, path: &KeyPath, stage: &StagePlan, expect: &Expectation) {
    let path = path.key("rows");
    for table in expect.rows.iter().flat_map(|rows| rows.keys()) {
        if stage.kind != StageKind::Materializer {
            let message = format!("a {} keeps no tables", stage.kind);
            return reader.fail(&path, Mark::Key, message, None);
        }
        if !stage.tables.contains_key(table) {
            let help = suggest::help(table, "tables", stage.tables.keys().map(String::as_str));
            let message = format!("`tables` of the stage `{}` has no `{table}`", stage.name);
            reader.fail(&path.key(table), Mark::Key, message, help);
        }
    }
}

/// What a payload in a file is in bytes.
pub(super) fn text(payload: Payload) -> String {
    match payload {
        Payload::Text(text) => text,
        Payload::Object(map) => Value::Object(map).to_string(),
    }
}

fn emission(reader: &mut Reader<'_>, path: &KeyPath, emission: Emission) -> ExpectedEmission {
    let on = match emission {
        Emission::Text(payload) => {
            return ExpectedEmission { port: None, payload: ExpectedPayload::Exactly(payload) };
        }
        Emission::On(on) => on,
    };
    let payload = match (on.payload, on.fields) {
        (Some(_), Some(_)) => {
            let message = "`payload` is the whole payload and `fields` a part of it: write one of them";
            reader.fail(&path.key("fields"), Mark::Key, message, None);
            ExpectedPayload::Any
        }
        (Some(payload), None) => ExpectedPayload::Exactly(text(payload)),
        (None, Some(fields)) => ExpectedPayload::Fields(fields),
        (None, None) => ExpectedPayload::Any,
    };
    ExpectedEmission { port: on.port, payload }
}

fn rows(rows: BTreeMap<String, Vec<Map<String, Value>>>) -> BTreeMap<String, Vec<Value>> {
    let objects = |rows: Vec<Map<_, _>>| rows.into_iter().map(Value::Object).collect();
    rows.into_iter().map(|(table, rows)| (table, objects(rows))).collect()
}
