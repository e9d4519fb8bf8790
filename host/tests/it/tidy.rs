//! The layering of `style`: arrows between modules point down, files stay small, no `mod.rs`.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules from the top down. A module may use those after it, and those of its own line.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["app"],
    &["api"],
    &["pipeline"],
    &["registry", "state", "letters", "queue"],
    &["plugin", "tables", "query"],
    &["replay"],
    &["archive"],
    &["log"],
    &["segments"],
    &["pg"],
    &["config"],
    &["ids", "record", "clock", "crash"],
];

/// Arrows that point up, each with its reason.
const EXCEPTIONS: &[(&str, &str, &str)] =
    &[("log", "replay", "offsets take a Position, which is a value type of replay")];

/// Longer files have become two things.
const MAX_LINES: usize = 600;

fn sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the source folder can be read") {
            let path = entry.expect("a folder entry can be read").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 30, "only {} source files were found", found.len());
    found
}

fn module_of(path: &Path) -> String {
    let relative =
        path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("a path below src");
    let first = relative.components().next().expect("a file name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_string()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The top-level modules that a line of code names.
fn named(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices("crate::")
        .map(|(at, _)| code[at + 7..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect())
        .collect()
}

#[test]
fn arrows_between_modules_point_down() {
    let mut wrong = Vec::new();
    for path in sources() {
        let module = module_of(&path);
        if module == "lib" {
            continue;
        }
        let from =
            layer(&module).unwrap_or_else(|| panic!("module {module} is in no layer: add it to LAYERS"));
        let text = fs::read_to_string(&path).expect("a source file can be read");
        // Tests may reach anywhere.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests" || stem == "testing")
            || path.components().any(|part| part.as_os_str() == "tests");
        for (number, line) in code.lines().enumerate().filter(|_| !is_test) {
            for used in named(line) {
                let excused = EXCEPTIONS.iter().any(|(a, b, _)| *a == module && *b == used);
                if layer(&used).is_some_and(|to| to < from) && !excused {
                    wrong.push(format!("{}:{}: {module} uses {used}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point up:\n{}", wrong.join("\n"));
}

#[test]
fn the_plugin_host_knows_no_sql() {
    for path in sources().into_iter().filter(|path| module_of(path) == "plugin") {
        let text = fs::read_to_string(&path).expect("a source file can be read");
        assert!(!text.contains("sqlx"), "{} names sqlx", path.display());
    }
}

#[test]
fn files_are_small_and_none_is_called_mod() {
    let mut long = Vec::new();
    for path in sources() {
        assert!(!path.ends_with("mod.rs"), "{} should be named after its module", path.display());
        let lines = fs::read_to_string(&path).expect("a source file can be read").lines().count();
        if lines > MAX_LINES {
            long.push(format!("{} ({lines} lines)", path.display()));
        }
    }
    assert!(long.is_empty(), "files over {MAX_LINES} lines have become two things:\n{}", long.join("\n"));
}
