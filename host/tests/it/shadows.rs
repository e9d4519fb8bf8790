//! A candidate beside a running stage: what it makes differently is a query, and taking it is one statement.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;
use tidemill::plugin::PluginDigest;

use crate::marked::{marked, rename_into, renamed};
use crate::support::{Host, eventually, root, scratch, stderr, stdout};

const PATIENCE: Duration = Duration::from_secs(60);

fn pipeline(folder: &Path, fleet: bool) -> String {
    let fleet = if fleet {
        "[producers.fleet]\nplugin = \"aircraft-generator\"\nto = \"a\"\nconfig = { aircraft = 50, rate = 500 }\n"
    } else {
        ""
    };
    let text = format!(
        "[pipeline]\nname = \"beside\"\n\n[topics.a]\npartitions = 2\n\n[topics.b]\npartitions = 2\n\n{fleet}\n\
         [transforms.turn-it]\nplugin = \"./marked.wasm\"\nfrom = \"a\"\nto = \"b\"\n\n\
         [materializers.latest]\nplugin = \"latest-position\"\nfrom = \"a\"\n\
         tables = {{ current_positions = \"current_positions\" }}\n\n\
         [sinks.out]\nplugin = \"log-sink\"\nfrom = \"b\"\n"
    );
    let file = folder.join("beside.toml");
    rename_into(&file, text.as_bytes());
    file.display().to_string()
}

async fn start(folder: &Path) -> (Host, PgPool) {
    rename_into(&folder.join("marked.wasm"), &marked('n', "live"));
    let host = Host::start(&folder.join("data"), &[&pipeline(folder, true)]);
    let pool = host.pool().await;
    eventually("records come out", PATIENCE, || async {
        number(&pool, "SELECT count(*) FROM log.b").await > 0
    })
    .await;
    (host, pool)
}

async fn number(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn shadow(host: &Host, folder: &Path, component: &[u8], stage: &str) -> std::process::Output {
    let file = folder.join("candidate.wasm");
    std::fs::write(&file, component).expect("written");
    host.cli(&["plugin", "shadow", &file.display().to_string(), "--stage", stage])
}

async fn stages(host: &Host) -> Vec<Value> {
    host.get("/v1/pipelines").await["pipelines"][0]["stages"].as_array().cloned().unwrap_or_default()
}

async fn gone(host: &Host) {
    eventually("the shadow is cleared", PATIENCE, || async {
        let shadows = host.get("/v1/shadows").await["shadows"].as_array().is_some_and(Vec::is_empty);
        shadows && stages(host).await.len() == 4
    })
    .await;
}

#[tokio::test]
async fn a_shadow_of_a_transform_is_compared_by_input_and_promoted_in_one_statement() {
    let folder = scratch();
    let (host, pool) = start(folder.path()).await;
    let started = shadow(&host, folder.path(), &renamed(marked('n', "live")), "beside/turn-it");
    assert!(started.status.success(), "{}", stderr(&started));
    assert!(stdout(&started).contains("SELECT * FROM shadow.beside_turn_it"), "{}", stdout(&started));
    let both = "SELECT coalesce(sum(high - low), 0)::bigint FROM tidemill.shadow_spans";
    eventually("both have processed the same messages", PATIENCE, || async {
        number(&pool, both).await > 2000
    })
    .await;
    assert_eq!(number(&pool, "SELECT count(*) FROM shadow.beside_turn_it").await, 0, "they make the same");
    assert!(stages(&host).await.iter().any(|stage| stage["name"] == "turn-it-shadow"), "it is shown");

    let again = shadow(&host, folder.path(), &marked('n', "other"), "beside/turn-it");
    assert_eq!(again.status.code(), Some(1), "one at a time");
    assert!(stderr(&again).contains("has a shadow already"), "{}", stderr(&again));
    assert!(host.cli(&["plugin", "unshadow", "beside/turn-it"]).status.success());
    gone(&host).await;

    let other = marked('n', "other");
    let started = shadow(&host, folder.path(), &other, "beside/turn-it");
    assert!(started.status.success(), "{}", stderr(&started));
    eventually("both have processed the same messages", PATIENCE, || async {
        number(&pool, both).await > 500
    })
    .await;
    let (sides, inputs, marks): (i64, i64, Vec<String>) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE side = 'shadow'), count(DISTINCT (input_partition, input_offset)),
                array_agg(DISTINCT side || ' ' || (headers->0->>1)) FROM shadow.beside_turn_it",
    )
    .fetch_one(&pool)
    .await
    .expect("the differences");
    assert!(sides > 0 && sides == inputs, "{sides} and {inputs}");
    assert_eq!(marks, [format!("live {:0>16}", "live"), format!("shadow {:0>16}", "other")]);

    sqlx::query("SELECT tidemill.promote('beside/turn-it')").execute(&pool).await.expect("promoted");
    let digest = PluginDigest::of(&other).to_string();
    eventually("the stage runs it", PATIENCE, || async {
        stages(&host).await.iter().any(|stage| stage["name"] == "turn-it" && stage["digest"] == json!(digest))
    })
    .await;
    gone(&host).await;
    assert_eq!(number(&pool, "SELECT count(*) FROM tidemill.topics WHERE name = 'b_shadow'").await, 0);
    assert_eq!(
        number(&pool, "SELECT count(*) FROM tidemill.consumer_offsets WHERE group_name LIKE '%shadow%'")
            .await,
        0
    );
}

#[tokio::test]
async fn a_shadow_of_a_materializer_starts_from_the_table_and_what_acts_outside_has_none() {
    let folder = scratch();
    let (host, pool) = start(folder.path()).await;
    let latest =
        std::fs::read(root().join("plugins/dist/latest-position.wasm")).expect("the sample is built");
    let refused = shadow(&host, folder.path(), &latest, "beside/out");
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("a second time"), "{}", stderr(&refused));

    eventually("the table is full", PATIENCE, || async {
        number(&pool, "SELECT count(*) FROM current_positions").await == 50
    })
    .await;
    let started = shadow(&host, folder.path(), &renamed(latest), "beside/latest");
    assert!(started.status.success(), "{}", stderr(&started));
    assert_eq!(number(&pool, "SELECT count(*) FROM current_positions_shadow").await, 50, "a copy");
    let both = "SELECT coalesce(sum(high - low), 0)::bigint FROM tidemill.shadow_spans";
    eventually("both have processed the same messages", PATIENCE, || async {
        number(&pool, both).await > 1000
    })
    .await;
    assert_eq!(number(&pool, "SELECT count(*) FROM shadow.beside_latest").await, 0);
    pipeline(folder.path(), false);
    eventually("all is at rest", PATIENCE, || async {
        stages(&host).await.len() == 4
            && number(&pool, "SELECT sum(lag)::bigint FROM tidemill.lag").await == 0
    })
    .await;
    assert_eq!(number(&pool, "SELECT count(*) FROM shadow.beside_latest").await, 0);
    sqlx::query("UPDATE current_positions_shadow SET altitude = altitude + 1 WHERE id = (SELECT min(id) FROM current_positions)")
        .execute(&pool)
        .await
        .expect("changed");
    let (live, made): (i64, i64) = sqlx::query_as(
        "SELECT (live->>'altitude')::bigint, (shadow->>'altitude')::bigint FROM shadow.beside_latest",
    )
    .fetch_one(&pool)
    .await
    .expect("one row differs");
    assert_eq!(live + 1, made);
    let promoted = host.cli(&["plugin", "promote", "beside/latest"]);
    assert!(promoted.status.success(), "{}", stderr(&promoted));
    eventually("the table of the shadow is gone", PATIENCE, || async {
        number(&pool, "SELECT count(*) FROM pg_class WHERE relname = 'current_positions_shadow'").await == 0
    })
    .await;
}
