//! Which stages have a shadow, and of which component.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

use super::{Active, Registry, RegistryError, active, as_text};
use crate::ids::{GroupName, Micros, PipelineName, StageName, TopicName};

/// A candidate version that runs beside a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shadow {
    /// `pipeline/stage`.
    pub stage: String,
    pub digest: String,
    pub group: String,
    /// Live topic -> topic of the shadow.
    pub topics: BTreeMap<String, String>,
    /// Live table -> table of the shadow.
    pub tables: BTreeMap<String, String>,
    /// What shows the differences: `SELECT * FROM` it.
    pub view: String,
    /// It has ended, and what it left is being cleared.
    pub ending: bool,
    #[serde(serialize_with = "as_text")]
    pub started_at: Micros,
    pub started_by: String,
}

/// What a shadow is started with.
#[derive(Debug)]
pub struct NewShadow<'a> {
    pub pipeline: &'a PipelineName,
    pub stage: &'a StageName,
    pub digest: &'a str,
    pub live_group: &'a GroupName,
    pub group: &'a GroupName,
    pub topic: &'a TopicName,
    pub topics: BTreeMap<String, String>,
    pub tables: BTreeMap<String, String>,
}

impl Registry {
    /// Every shadow, those that are being cleared included.
    pub async fn shadows(&self) -> Result<Vec<Shadow>, RegistryError> {
        let rows = sqlx::query(
            "SELECT pipeline || '/' || stage AS label, *, tidemill.micros(started_at) AS started
               FROM tidemill.shadows ORDER BY label",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok(shadow(row)?)).collect()
    }

    /// Starts a shadow where its stage stands. Its component is stored, its topics and tables are there.
    pub async fn start_shadow(&self, new: NewShadow<'_>, by: &str) -> Result<(), RegistryError> {
        let mut transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        sqlx::query("SELECT tidemill.start_shadow($1, $2, $3, $4, $5, $6, $7, $8, $9)")
            .bind(new.pipeline.as_str())
            .bind(new.stage.as_str())
            .bind(new.digest)
            .bind(new.live_group.as_str())
            .bind(new.group.as_str())
            .bind(new.topic.as_str())
            .bind(Json(new.topics))
            .bind(Json(new.tables))
            .bind(by)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Ends the shadow of a stage (`pipeline/stage`).
    pub async fn end_shadow(&self, stage: &str) -> Result<(), RegistryError> {
        sqlx::query("SELECT tidemill.end_shadow($1)").bind(stage).execute(&self.pool).await?;
        Ok(())
    }

    /// Makes the shadow of a stage its version. What is active afterwards comes back.
    pub async fn promote(&self, stage: &str, by: &str) -> Result<Active, RegistryError> {
        let row = sqlx::query(
            "SELECT pipeline || '/' || stage AS label, *, tidemill.micros(changed_at) AS changed
               FROM tidemill.promote($1, $2)",
        )
        .bind(stage)
        .bind(by)
        .fetch_one(&self.pool)
        .await?;
        Ok(active(&row)?)
    }

    /// Takes away what a shadow that has ended left behind.
    pub async fn clear_shadow(&self, pipeline: &str, stage: &str) -> Result<bool, RegistryError> {
        let cleared = sqlx::query_scalar("SELECT tidemill.clear_shadow($1, $2)")
            .bind(pipeline)
            .bind(stage)
            .fetch_one(&self.pool)
            .await?;
        Ok(cleared)
    }
}

fn shadow(row: &PgRow) -> Result<Shadow, sqlx::Error> {
    let names =
        |column: &str| row.try_get::<Json<BTreeMap<String, String>>, _>(column).map(|Json(names)| names);
    Ok(Shadow {
        stage: row.try_get("label")?,
        digest: row.try_get("digest")?,
        group: row.try_get("group_name")?,
        topics: names("topics")?,
        tables: names("tables")?,
        view: format!("shadow.{}", row.try_get::<String, _>("view_name")?),
        ending: row.try_get::<String, _>("state")? == "ending",
        started_at: row.try_get("started")?,
        started_by: row.try_get("started_by")?,
    })
}
