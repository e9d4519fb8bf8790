//! Where the program of the child process is.

use std::path::{Path, PathBuf};

const NAME: &str = "tidemill-query";

/// The program beside the running one. The executables of tests lie one folder deeper than programs.
pub fn find() -> std::io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folders = own.ancestors().skip(1).take(2).map(Path::to_path_buf);
    let mut candidates: Vec<PathBuf> = folders.map(|folder| folder.join(NAME)).collect();
    match candidates.iter().position(|path| path.is_file()) {
        Some(found) => Ok(candidates.swap_remove(found)),
        None => Ok(candidates.swap_remove(0)),
    }
}
