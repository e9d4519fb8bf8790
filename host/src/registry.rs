//! Which component each stage runs: the bytes by digest, the active version of each stage, and what ran before.
//!
//! Guarantee: `tidemill.stage_plugins` is the one truth, and every host follows it; a version is judged under the epoch
//! that it was made active with, so of several hosts one decides, once.
//! Bound: a hundred changes of each stage are remembered, and the bytes of what ran lately.
//! [`shadows`] are candidates that run beside a stage.
//! Failure: nothing here is needed while a stage runs; without Postgres the version that runs goes on.

pub mod shadows;

use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::clock::rfc3339;
use crate::ids::{Micros, PipelineName, StageName};
use crate::log::LogError;
use crate::pg::pool::Pool;
use crate::plugin::{Descriptor, Plugin};

#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is no such plugin or stage.
    #[error("{0}")]
    Unknown(String),
    /// It is not a digest, or stands for several.
    #[error("{0}")]
    Invalid(String),
    /// It cannot be done as things stand.
    #[error("{0}")]
    Impossible(String),
    #[error(transparent)]
    Postgres(LogError),
}

impl From<sqlx::Error> for RegistryError {
    fn from(error: sqlx::Error) -> Self {
        let Some(said) = error.as_database_error() else { return Self::Postgres(error.into()) };
        let words = said.message().to_string();
        match said.code().as_deref() {
            Some("TM001") => Self::Unknown(words),
            Some("TM005") => Self::Invalid(words),
            Some("TM006") => Self::Impossible(words),
            _ => Self::Postgres(error.into()),
        }
    }
}

/// Where a version came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The file that the pipeline names.
    File,
    /// `tidemill plugin push`, or the same over HTTP.
    Push,
    /// It ran before, and what came after it failed or was taken back.
    Rollback,
    /// It ran as a shadow.
    Promote,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Push => "push",
            Self::Rollback => "rollback",
            Self::Promote => "promote",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "push" => Self::Push,
            "rollback" => Self::Rollback,
            "promote" => Self::Promote,
            _ => Self::File,
        }
    }
}

/// How the active version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It has yet to show that it works; the previous version stands by.
    Probation,
    Stable,
    /// It stands in for a version that was rolled back.
    RolledBack,
}

impl Standing {
    fn parse(text: &str) -> Self {
        match text {
            "probation" => Self::Probation,
            "rolled-back" => Self::RolledBack,
            _ => Self::Stable,
        }
    }
}

/// What a stage runs by decision of all hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Active {
    /// `pipeline/stage`.
    pub stage: String,
    pub digest: String,
    pub previous: Option<String>,
    pub epoch: i64,
    pub source: Source,
    pub state: Standing,
    /// Why it was rolled back.
    pub reason: Option<String>,
    #[serde(serialize_with = "as_text")]
    pub changed_at: Micros,
    pub changed_by: String,
    /// What the stage's file held when it was looked at last.
    pub file_digest: Option<String>,
    /// What was rolled back here, newest last.
    pub refused: Vec<String>,
}

/// A stored component.
#[derive(Clone, Debug, Serialize)]
pub struct Stored {
    pub digest: String,
    pub kind: String,
    pub name: String,
    pub version: String,
    pub size: u64,
    /// Whether its bytes are still there, so that it can run again.
    pub kept: bool,
    #[serde(serialize_with = "as_text")]
    pub pushed_at: Micros,
    pub pushed_by: String,
    /// The stages that run it.
    pub stages: Vec<String>,
}

/// A version that ran, or runs.
#[derive(Clone, Debug, Serialize)]
pub struct Past {
    pub epoch: i64,
    pub digest: String,
    pub source: Source,
    #[serde(serialize_with = "as_text")]
    pub started_at: Micros,
    pub started_by: String,
    /// Whether it has passed its probation, or needed none.
    pub proven: bool,
    /// `replaced` or `rolled-back`; None while it runs.
    pub outcome: Option<String>,
    pub reason: Option<String>,
}

fn as_text<S: serde::Serializer>(at: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

/// Components and who runs them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    pool: Pool,
}

const ACTIVE: &str =
    "SELECT pipeline || '/' || stage AS label, *, tidemill.micros(changed_at) AS changed FROM ";

impl Registry {
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Keeps a component's bytes under their digest.
    pub async fn store(
        &self,
        plugin: &Plugin,
        descriptor: &Descriptor,
        bytes: &[u8],
        by: &str,
    ) -> Result<(), RegistryError> {
        let digest = plugin.digest().as_str();
        // Its time is renewed: bytes are only forgotten some time after they were stored.
        let kept = sqlx::query(
            "UPDATE tidemill.plugins SET pushed_at = now(), pushed_by = $2 WHERE digest = $1 AND bytes IS NOT NULL",
        )
        .bind(digest)
        .bind(by)
        .execute(&self.pool)
        .await?;
        if kept.rows_affected() > 0 {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO tidemill.plugins (digest, kind, name, version, bytes, size, pushed_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT ON CONSTRAINT plugins_pk DO UPDATE
                SET bytes = excluded.bytes, pushed_at = now(), pushed_by = excluded.pushed_by",
        )
        .bind(digest)
        .bind(plugin.kind().as_str())
        .bind(&descriptor.name)
        .bind(&descriptor.version)
        .bind(bytes)
        .bind(bytes.len() as i64)
        .bind(by)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The bytes of a component, unless they were forgotten or never stored.
    pub async fn bytes(&self, digest: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        let bytes: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT bytes FROM tidemill.plugins WHERE digest = $1")
                .bind(digest)
                .fetch_optional(&self.pool)
                .await?;
        Ok(bytes.flatten())
    }

    /// Every stored component, newest first.
    pub async fn list(&self) -> Result<Vec<Stored>, RegistryError> {
        let rows = sqlx::query(
            "SELECT digest, kind, name, version, size, bytes IS NOT NULL AS kept, tidemill.micros(pushed_at) AS pushed,
                    pushed_by,
                    ARRAY (SELECT s.pipeline || '/' || s.stage FROM tidemill.stage_plugins s
                            WHERE s.digest = p.digest ORDER BY 1) AS stages
               FROM tidemill.plugins p ORDER BY p.pushed_at DESC, digest",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok(stored(row)?)).collect()
    }

    /// What every stage runs, by `pipeline/stage`.
    pub async fn all(&self) -> Result<Vec<Active>, RegistryError> {
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(format!("{ACTIVE} tidemill.stage_plugins ORDER BY label")))
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(|row| Ok(active(row)?)).collect()
    }

    /// What a stage runs; None if it never ran.
    pub async fn of(
        &self,
        pipeline: &PipelineName,
        stage: &StageName,
    ) -> Result<Option<Active>, RegistryError> {
        let sql = format!("{ACTIVE} tidemill.stage_plugins WHERE pipeline = $1 AND stage = $2");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(pipeline.as_str())
            .bind(stage.as_str())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.as_ref().map(active).transpose()?)
    }

    /// What a stage ran, newest first.
    pub async fn history(
        &self,
        pipeline: &PipelineName,
        stage: &StageName,
    ) -> Result<Vec<Past>, RegistryError> {
        let rows = sqlx::query(
            "SELECT *, tidemill.micros(started_at) AS started FROM tidemill.stage_plugin_history
              WHERE pipeline = $1 AND stage = $2 ORDER BY epoch DESC",
        )
        .bind(pipeline.as_str())
        .bind(stage.as_str())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok(past(row)?)).collect()
    }

    /// Makes a stored component the one that a stage (`pipeline/stage`) runs, with or without a probation. What is active
    /// afterwards comes back: for a file that was rolled back here before, that is what was active.
    pub async fn activate(
        &self,
        stage: &str,
        digest: &str,
        source: Source,
        by: &str,
        probation: bool,
    ) -> Result<Active, RegistryError> {
        let sql = format!("{ACTIVE} tidemill.activate_plugin($1, $2, $3, $4, $5)");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(stage)
            .bind(digest)
            .bind(source.as_str())
            .bind(by)
            .bind(probation)
            .fetch_one(&self.pool)
            .await?;
        Ok(active(&row)?)
    }

    /// Ends a probation well. False: the stage has moved on since `epoch`.
    pub async fn prove(&self, stage: &str, epoch: i64) -> Result<bool, RegistryError> {
        let proven = sqlx::query_scalar("SELECT tidemill.prove_plugin($1, $2)")
            .bind(stage)
            .bind(epoch)
            .fetch_one(&self.pool)
            .await?;
        Ok(proven)
    }

    /// Ends a probation badly: what is active afterwards. None: the stage has moved on since `epoch`.
    pub async fn fail(
        &self,
        stage: &str,
        epoch: i64,
        reason: &str,
        by: &str,
    ) -> Result<Option<Active>, RegistryError> {
        let sql = format!("{ACTIVE} tidemill.fail_plugin($1, $2, $3, $4)");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(stage)
            .bind(epoch)
            .bind(reason)
            .bind(by)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.as_ref().map(active).transpose()?)
    }

    /// Goes back by hand, to the version before or to the one that `to` begins the digest of.
    pub async fn roll_back(&self, stage: &str, to: Option<&str>, by: &str) -> Result<Active, RegistryError> {
        let sql = format!("{ACTIVE} tidemill.rollback_plugin($1, $2, $3)");
        let row =
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(stage).bind(to).bind(by).fetch_one(&self.pool).await?;
        Ok(active(&row)?)
    }
}

fn active(row: &PgRow) -> Result<Active, sqlx::Error> {
    Ok(Active {
        stage: row.try_get("label")?,
        digest: row.try_get("digest")?,
        previous: row.try_get("previous")?,
        epoch: row.try_get("epoch")?,
        source: Source::parse(row.try_get("source")?),
        state: Standing::parse(row.try_get("state")?),
        reason: row.try_get("reason")?,
        changed_at: row.try_get("changed")?,
        changed_by: row.try_get("changed_by")?,
        file_digest: row.try_get("file_digest")?,
        refused: row.try_get("refused")?,
    })
}

fn stored(row: &PgRow) -> Result<Stored, sqlx::Error> {
    Ok(Stored {
        digest: row.try_get("digest")?,
        kind: row.try_get("kind")?,
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        size: row.try_get::<i64, _>("size")? as u64,
        kept: row.try_get("kept")?,
        pushed_at: row.try_get("pushed")?,
        pushed_by: row.try_get("pushed_by")?,
        stages: row.try_get("stages")?,
    })
}

fn past(row: &PgRow) -> Result<Past, sqlx::Error> {
    Ok(Past {
        epoch: row.try_get("epoch")?,
        digest: row.try_get("digest")?,
        source: Source::parse(row.try_get("source")?),
        started_at: row.try_get("started")?,
        started_by: row.try_get("started_by")?,
        proven: row.try_get("proven")?,
        outcome: row.try_get("outcome")?,
        reason: row.try_get("reason")?,
    })
}

#[cfg(test)]
mod tests;
