//! Finds DuckDB's shared library for `tidemill-query`, the one program that links it.
//!
//! It is looked for in `DUCKDB_LIB_DIR`, else where `scripts/setup.sh` puts it (`.setup/duckdb/lib`). The program looks for
//! it beside itself, in `../lib` and in that folder, so that it runs without any setting.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");
    println!("cargo:rerun-if-changed=build.rs");
    // They are built into the library, which only sees changes to those that it had.
    println!("cargo:rerun-if-changed=../migrations");
    let folder = match env::var_os("DUCKDB_LIB_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../.setup/duckdb/lib")
        }
    };
    // Without the library everything but that one program still builds.
    let folder = folder.canonicalize().unwrap_or(folder);
    println!("cargo:rustc-link-search=native={}", folder.display());
    for place in ["$ORIGIN", "$ORIGIN/../lib", &folder.to_string_lossy()] {
        println!("cargo:rustc-link-arg-bin=tidemill-query=-Wl,-rpath,{place}");
    }
}
