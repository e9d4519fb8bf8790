//! Writes the files of other languages that come from this workspace: `cargo run -p generate`.
//!
//! They are kept with the sources, so that a plugin in C needs no generator to be built. A test compares, so that
//! they never fall behind the interface in `wit/` and the table of airports.

mod airports;
mod c;

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

type Failure = Box<dyn Error>;

/// A file, by its path below `plugins/`, and what it holds.
struct Generated {
    path: String,
    contents: String,
}

fn main() -> Result<(), Failure> {
    for file in files()? {
        let path = plugins().join(&file.path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, file.contents)?;
    }
    Ok(())
}

fn files() -> Result<Vec<Generated>, Failure> {
    let mut files = c::bindings()?;
    files.extend(airports::tables());
    Ok(files)
}

fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_generated_file_is_up_to_date() {
        let files = files().unwrap_or_default();
        assert!(files.len() > 8, "only {} files", files.len());
        for file in files {
            let kept = fs::read_to_string(plugins().join(&file.path)).unwrap_or_default();
            assert!(kept == file.contents, "plugins/{} is not up to date: cargo run -p generate", file.path);
        }
    }
}
