//! Queries from outside: a real host, its child processes, statements that mean harm.

mod answers;
mod edge;
mod escapes;
mod exhaustion;

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Host, client, scratch};

/// A host without pipelines, and a topic of two partitions with some records.
pub struct Asked {
    pub host: Host,
    pub folder: tempfile::TempDir,
}

impl Asked {
    pub async fn start(records: u64) -> Self {
        let folder = scratch();
        let host = Host::start(&folder.path().join("data"), &[]);
        let pool = host.pool().await;
        let schema = json!([
            {"name": "id", "type": "string"},
            {"name": "kind", "type": "string"},
            {"name": "n", "type": "int"},
            {"name": "lat", "type": {"decimal": 5}},
        ]);
        sqlx::query("SELECT tidemill.create_topic('positions', partitions => 2, segment_span => '1 second', schema => $1)")
            .bind(schema)
            .execute(&pool)
            .await
            .expect("the topic can be made");
        pool.close().await;
        let asked = Self { host, folder };
        asked.produce(0, records).await;
        asked
    }

    /// Appends the records `first..next`.
    pub async fn produce(&self, first: u64, next: u64) {
        let lines: Vec<String> = (first..next).map(line).collect();
        for piece in lines.chunks(5_000) {
            let answer = client()
                .post(format!("{}/v1/topics/positions/records?key_field=id", self.host.url))
                .header("Content-Type", "application/x-ndjson")
                .body(piece.join("\n"))
                .send()
                .await
                .expect("the host answers");
            assert!(answer.status().is_success(), "{:?}", answer.text().await);
        }
    }

    pub async fn ask(&self, body: Value) -> (StatusCode, Value) {
        ask(&self.host.url, body).await
    }

    /// The rows of an answer.
    pub async fn rows(&self, sql: &str) -> Value {
        let (status, answer) = self.ask(json!({ "sql": sql })).await;
        assert_eq!(status, StatusCode::OK, "{sql}: {answer}");
        answer["rows"].clone()
    }
}

/// One record: sixteen names, three kinds.
pub fn line(n: u64) -> String {
    let kind = ["airliner", "cargo", "private"][(n % 3) as usize];
    format!(r#"{{"id":"a{:02}","kind":"{kind}","n":{n},"lat":{}.5}}"#, n % 16, n % 90)
}

pub async fn ask(url: &str, body: Value) -> (StatusCode, Value) {
    let answer = client()
        .post(format!("{url}/v1/query"))
        .json(&body)
        .timeout(Duration::from_secs(120))
        .send()
        .await
        .expect("the host answers");
    (answer.status(), answer.json().await.expect("the answer is JSON"))
}
