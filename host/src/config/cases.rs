//! Pipeline files as test cases. To add one, put a file or a folder of files into `tests/pipelines/valid` or
//! `tests/pipelines/invalid` and run the tests with `TIDEMILL_UPDATE=1`, which writes what comes out beside it: the plan
//! (`.plan`) or the errors (`.err`). Read it before committing it. `tests/pipelines/unfit` is the same for files that are
//! valid, but do not go with their components; `pipeline::check` runs it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::document::Document;
use super::plan::Plan;
use super::secret::Vault;
use super::{ConfigErrors, diff, json_schema, load_with};

pub(crate) fn load(path: &Path) -> Result<Plan, ConfigErrors> {
    let known = |name: &str| matches!(name, "API_KEY" | "HOOK_TOKEN");
    let vault = Vault { env: &|name| known(name).then(|| "hunter2".to_string()) };
    load_with(&[path], &vault)
}

/// Files and folders of a kind of case; paths are relative to the package, so that messages are the same everywhere.
pub(crate) fn cases(kind: &str) -> Result<Vec<PathBuf>> {
    let folder = Path::new("tests/pipelines").join(kind);
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() || path.extension().is_some_and(|e| e == "toml") {
            cases.push(path);
        }
    }
    cases.sort();
    Ok(cases)
}

/// Compares with the file beside the case, or writes it.
pub(crate) fn expect(case: &Path, extension: &str, actual: &str) -> Result<()> {
    let file = case.with_extension(extension);
    let actual = format!("{}\n", actual.trim_end());
    if std::env::var_os("TIDEMILL_UPDATE").is_some() {
        return Ok(std::fs::write(&file, actual)?);
    }
    let expected = std::fs::read_to_string(&file)
        .with_context(|| format!("{}: run again with TIDEMILL_UPDATE=1", file.display()))?;
    ensure!(
        expected == actual,
        "{} changed; TIDEMILL_UPDATE=1 rewrites it. Expected\n{expected}\nbut got\n{actual}",
        file.display()
    );
    Ok(())
}

fn json(file: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(file)?;
    let doc = Document::parse(file, &text).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    Ok(doc.json())
}

#[test]
fn valid_files_give_the_plan_beside_them() -> Result<()> {
    for case in cases("valid")? {
        let plan = load(&case).with_context(|| format!("{} is valid", case.display()))?;
        expect(&case, "plan", &format!("{plan:#?}"))?;
    }
    Ok(())
}

#[test]
fn invalid_files_give_the_errors_beside_them() -> Result<()> {
    let cases = cases("invalid")?;
    ensure!(cases.len() >= 20, "only {} cases were found", cases.len());
    for case in cases {
        let Err(errors) = load(&case) else {
            bail!("{} was taken", case.display());
        };
        for error in errors.iter() {
            let whole = error.place.is_none();
            ensure!(whole || !error.file.as_os_str().is_empty(), "{error}");
        }
        expect(&case, "err", &errors.to_string())?;
    }
    Ok(())
}

#[test]
fn valid_files_fit_the_schema_that_editors_use() -> Result<()> {
    let validator = jsonschema::validator_for(json_schema())?;
    let ready = std::fs::read_dir("../pipelines")?.map(|entry| Ok(entry?.path()));
    let ready = ready.collect::<Result<Vec<_>>>()?;
    let files = cases("valid")?.into_iter().chain(ready);
    for file in files.filter(|f| f.extension().is_some_and(|e| e == "toml")) {
        let wrong: Vec<String> =
            validator.iter_errors(&json(&file)?).map(|e| format!("{} {e}", e.instance_path())).collect();
        ensure!(wrong.is_empty(), "{}: {wrong:?}", file.display());
    }
    Ok(())
}

#[test]
fn the_ready_pipelines_load_together() -> Result<()> {
    let plan = load(Path::new("../pipelines"))?;
    let aircraft = plan.pipelines.get("aircraft").context("aircraft")?;
    assert_eq!((aircraft.topics.len(), aircraft.queues.len(), aircraft.stages.len()), (5, 1, 5));
    let fields = aircraft.topics.get("positions").and_then(|t| t.schema.as_ref());
    let first = fields.and_then(|f| f.pointer("/0/name")).and_then(Value::as_str);
    assert_eq!(first, Some("id"), "fields are in file order");
    assert!(diff(&plan, &plan).is_empty());
    assert_eq!(diff(&Plan::default(), &plan).stages.len(), 5);
    Ok(())
}

/// The keys of a schema with their path, without the names that users choose.
fn keys(schema: &Value, path: &str, found: &mut Vec<(String, String)>) {
    for (key, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        found.push((path.to_string(), key.clone()));
        keys(inner, key, found);
    }
    for inner in ["additionalProperties", "items"].iter().filter_map(|k| schema.get(k)) {
        keys(inner, path, found);
    }
    for form in ["anyOf", "oneOf"].iter().filter_map(|k| schema.get(k)?.as_array()).flatten() {
        keys(form, path, found);
    }
}

#[test]
fn the_reference_names_every_key() -> Result<()> {
    let reference = std::fs::read_to_string("../docs/pipelines.md")?;
    let mut found = Vec::new();
    keys(json_schema(), "", &mut found);
    ensure!(found.len() > 40, "only {} keys were found", found.len());
    for (parent, key) in found {
        let written = [
            format!("`{key}`"),
            format!("`{parent}.{key}`"),
            format!("`{parent}.NAME.{key}`"),
            format!("`{key}."),
            format!("`[{key}]`"),
            format!("`[{key}."),
            format!("`[[{key}]]`"),
            format!("{{ {key} = "),
        ];
        ensure!(
            written.iter().any(|form| reference.contains(form)),
            "docs/pipelines.md does not tell of `{parent}.{key}`"
        );
    }
    Ok(())
}

/// The TOML of a page.
fn examples(page: &str) -> Vec<&str> {
    let blocks = page.split("```toml\n").skip(1);
    blocks.filter_map(|rest| rest.split("```").next()).map(str::trim_end).collect()
}

#[test]
fn the_examples_of_the_page_on_grants_are_valid() -> Result<()> {
    let page = std::fs::read_to_string("../docs/grants.md")?;
    let examples = examples(&page);
    ensure!(examples.len() == 2, "{} examples were found", examples.len());
    let topics = "[topics.events]\n[topics.counts]\n[topics.late]\n[topics.alerts]\n";
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("p.toml");
    std::fs::write(&file, format!("[pipeline]\nname = \"p\"\n{topics}{}", examples.join("\n")))?;
    let plan = load(&file)?;
    ensure!(plan.pipelines.values().all(|pipeline| pipeline.stages.len() == 2));
    Ok(())
}

/// The examples of the reference, in a file with what they need around them.
#[test]
fn the_examples_of_the_reference_are_valid() -> Result<()> {
    let reference = std::fs::read_to_string("../docs/pipelines.md")?;
    let examples = examples(&reference);
    ensure!(examples.len() == 5, "{} examples were found", examples.len());
    let text = format!(
        "[pipeline]\nname = \"p\"\n[topics.approaches]\n[topics.alerts]\n[topics.incident_reports]\n[sinks.s]\nplugin = \"x\"\nfrom = \"alerts\"\n{}\n{}\n{}\n{}\n{}\n",
        examples[3], examples[0], examples[1], examples[2], examples[4]
    );
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("p.toml");
    std::fs::write(&file, text)?;
    load(&file)?;
    Ok(())
}
