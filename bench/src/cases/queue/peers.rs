//! What is compared with, as `scripts/setup.sh queue-peers` installs it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sqlx::AssertSqlSafe;

use super::Graphile;
use crate::server::Server;

/// The peers that are installed, ready to be used on the server.
pub struct Peers {
    /// Its SQL is loaded, into the schema pgmq.
    pub pgmq: bool,
    pub graphile: Option<Graphile>,
}

impl Peers {
    pub async fn look(server: &Server) -> Result<Self> {
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.setup");
        let pgmq = install_pgmq(server, &setup.join("pip-pgmq/pgmq/sql/pgmq.sql")).await?;
        let graphile = match node(&setup.join("npm/graphile-worker")) {
            Some((node, packages)) => Some(Graphile::install(server, node, packages).await?),
            None => None,
        };
        Ok(Self { pgmq, graphile })
    }

    /// What is not there, for the table.
    pub fn missing(&self) -> String {
        let missing = match (self.pgmq, self.graphile.is_some()) {
            (true, true) => return String::new(),
            (false, true) => "no pgmq",
            (true, false) => "no graphile-worker",
            (false, false) => "neither pgmq nor graphile-worker",
        };
        format!("{missing} to compare with: scripts/setup.sh queue-peers")
    }
}

async fn install_pgmq(server: &Server, file: &Path) -> Result<bool> {
    if !file.exists() {
        return Ok(false);
    }
    let sql = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let there: bool =
        sqlx::query_scalar("SELECT to_regnamespace('pgmq') IS NOT NULL").fetch_one(&server.pool).await?;
    if !there {
        server.execute("CREATE SCHEMA pgmq").await?;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&server.pool).await.context("pgmq.sql")?;
    }
    Ok(true)
}

/// The Node.js that graphile-worker asks for, from npm beside it, and the folder with its packages.
fn node(folder: &Path) -> Option<(PathBuf, PathBuf)> {
    let modules = folder.join("node_modules");
    if !modules.join("graphile-worker/package.json").exists() {
        return None;
    }
    let entries = std::fs::read_dir(&modules).ok()?;
    let node = entries.flatten().map(|entry| entry.path().join("bin/node")).find(|program| {
        program
            .parent()
            .and_then(Path::parent)
            .and_then(Path::file_name)
            .is_some_and(|name| name.to_string_lossy().starts_with("node-"))
            && program.exists()
    })?;
    Some((node, folder.to_owned()))
}
