//! What made a batch, interned: a row of the log names its pipeline, stage, plugin and digest with four bytes.

use super::{Log, LogError};

impl Log {
    /// The number of an origin, made on first use. "Which offsets did digest X write" is then a query over the log.
    pub async fn origin(
        &self,
        pipeline: &str,
        stage: &str,
        plugin: &str,
        digest: &str,
    ) -> Result<i32, LogError> {
        // The update that changes nothing makes the row come back also when it was there.
        let id = sqlx::query_scalar(
            "INSERT INTO tidemill.origins AS o (pipeline, stage, plugin, digest) VALUES ($1, $2, $3, $4)
             ON CONFLICT ON CONSTRAINT origins_unique DO UPDATE SET pipeline = o.pipeline
             RETURNING origin_id",
        )
        .bind(pipeline)
        .bind(stage)
        .bind(plugin)
        .bind(digest)
        .fetch_one(self.pool())
        .await?;
        Ok(id)
    }
}
