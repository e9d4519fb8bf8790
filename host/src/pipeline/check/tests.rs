//! Plans against the real sample components in `plugins/dist`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::*;
use crate::config::cases::{cases, expect, load};
use crate::plugin::EngineOptions;

async fn check_file(file: &Path) -> Result<Vec<PipelineReport>> {
    let built = PathBuf::from("../plugins/dist");
    ensure!(
        built.join("flight-watch.wasm").is_file(),
        "the sample plugins are not built: run plugins/build.sh"
    );
    let plan = load(file).with_context(|| file.display().to_string())?;
    let engine = PluginEngine::new(EngineOptions::default())?;
    Ok(check(&engine, &PluginFolders::new(vec![built]), &plan).await)
}

/// Errors and differences, without what changes from build to build.
fn told(reports: &[PipelineReport]) -> String {
    let errors = reports.iter().flat_map(|r| &r.stages).flat_map(|s| &s.errors).map(ToString::to_string);
    let tests =
        reports.iter().flat_map(|r| &r.tests).filter(|t| t.result != TestResult::Passed).map(|test| {
            format!(
                "{:?} test of {}: {}\n{}",
                test.result,
                test.stage,
                test.test,
                test.differences.join("\n")
            )
        });
    errors.chain(tests).collect::<Vec<_>>().join("\n\n")
}

async fn told_of(text: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("p.toml");
    std::fs::write(&file, text)?;
    Ok(told(&check_file(&file).await?))
}

#[tokio::test]
async fn the_ready_pipelines_pass_their_check() -> Result<()> {
    let reports = check_file(Path::new("../pipelines")).await?;
    assert_eq!(told(&reports), "");
    let tests = reports.iter().flat_map(|report| &report.tests);
    assert!(tests.count() >= 4);
    Ok(())
}

#[tokio::test]
async fn files_that_do_not_fit_their_components_give_the_errors_beside_them() -> Result<()> {
    for case in cases("unfit")? {
        let told = told(&check_file(&case).await?);
        ensure!(!told.is_empty(), "{} was taken", case.display());
        expect(&case, "err", &told)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_missing_plugin_is_told_with_where_it_was_looked_for() -> Result<()> {
    let told = told_of(
        "[pipeline]\nname = \"p\"\n[topics.a]\n[sinks.s]\nplugin = \"log-sync\"\nfrom = \"a\"\n\
         [sinks.t]\nplugin = \"./build/none.wasm\"\nfrom = \"a\"\n",
    )
    .await?;
    for expected in [
        "p.toml:5:10: sinks.s.plugin: there is no plugin \"log-sync\"; looked at ../plugins/dist/log-sync.wasm",
        "= did you mean \"log-sink\"?",
        "p.toml:8:10: sinks.t.plugin: there is no plugin \"./build/none.wasm\"; looked at ",
    ] {
        ensure!(told.contains(expected), "{told} should have {expected}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_component_is_told_at_the_key_that_names_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("core.wasm"), wat::parse_str("(module)")?)?;
    std::fs::write(folder.path().join("text.wasm"), "hello")?;
    let file = folder.path().join("p.toml");
    let text = "[pipeline]\nname = \"p\"\n[topics.a]\n[sinks.s]\nplugin = \"./core.wasm\"\nfrom = \"a\"\n\
                [sinks.t]\nplugin = \"./text.wasm\"\nfrom = \"a\"\n";
    std::fs::write(&file, text)?;
    let told = told(&check_file(&file).await?);
    for expected in
        ["5:10: sinks.s.plugin: ", "is a core WebAssembly module", "8:10: sinks.t.plugin: ", "a text file"]
    {
        ensure!(told.contains(expected), "{told} should have {expected}");
    }
    Ok(())
}

#[tokio::test]
async fn a_component_with_other_bytes_than_those_pinned_is_refused() -> Result<()> {
    let pin = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let text = format!(
        "[pipeline]\nname = \"p\"\n[topics.a]\n[sinks.s]\nplugin = \"log-sink\"\nsha256 = \"{pin}\"\nfrom = \"a\"\n"
    );
    let told = told_of(&text).await?;
    ensure!(told.contains("6:10: sinks.s.sha256: ../plugins/dist/log-sink.wasm has SHA-256 "), "{told}");
    ensure!(told.contains(&format!("pins {pin}")), "{told}");
    Ok(())
}

#[tokio::test]
async fn an_error_of_a_config_does_not_quote_its_secrets() -> Result<()> {
    let text = "[pipeline]\nname = \"p\"\n[topics.a]\n[producers.s]\nplugin = \"aircraft-generator\"\nto = \"a\"\n\
                config = { rate = { env = \"API_KEY\" }, aircraft = 1 }\n";
    let told = told_of(text).await?;
    ensure!(told.contains("producers.s.config.rate"), "{told}");
    ensure!(!told.contains("hunter2"), "{told}");
    Ok(())
}

#[tokio::test]
async fn a_plugin_that_traps_fails_its_test_and_not_the_check() -> Result<()> {
    let text = "[pipeline]\nname = \"p\"\n[topics.a]\n[topics.b]\n[transforms.t]\nplugin = \"test-misbehave\"\n\
                from = \"a\"\nto = \"b\"\nconfig = { fault = \"trap\" }\n[[tests]]\nstage = \"t\"\ninput = [\"trap\"]\nexpect = { rejects = 0 }\n";
    let told = told_of(text).await?;
    let Some(rest) = told.strip_prefix("Failed test of t: t 1\n") else {
        bail!("{told}");
    };
    ensure!(rest.contains("trap"), "{told}");
    Ok(())
}
