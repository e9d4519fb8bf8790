//! State, time and chance under fire: windows counted by a plugin, while hosts are killed, against the same counts in SQL.

use std::time::Duration;

use sqlx::PgPool;

use crate::support::{Host, eventually, scratch, stderr};

pub const PATIENCE: Duration = Duration::from_secs(90);

/// Windows of one second, and one second for late messages.
pub const PIPELINE: &str = r#"
[pipeline]
name = "windows"

[topics.events]
partitions = 3

[topics.counts]
[topics.late]

[transforms.counts]
plugin = "window-counts"
from = "events"
to = { default = "counts", late = "late" }
config = { field = "kind", window_s = 1, lateness_s = 1 }
grants = ["state"]
batch = { records = 200 }
"#;

/// Messages with times that run and waver, so that some are late, in all partitions. Returns how many.
pub async fn feed(pool: &PgPool, from: i64, count: i64) {
    for partition in 0..3 {
        sqlx::query(
            "SELECT tidemill.append_many('events',
                 array_agg(convert_to(format('{\"kind\":\"k%s\",\"n\":%s}', (random() * 5)::int, n), 'UTF8') ORDER BY n),
                 timestamps => array_agg(1700000000000000 + n * 2000 - (random() ^ 4 * 5000000)::bigint ORDER BY n),
                 to_partition => $3)
               FROM generate_series($1::bigint, $1 + $2 - 1) n",
        )
        .bind(from)
        .bind(count)
        .bind(partition)
        .execute(pool)
        .await
        .expect("events can be appended");
    }
}

pub async fn number(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

pub async fn caught_up(pool: &PgPool) {
    eventually("the counts catch up", PATIENCE, || async {
        number(pool, "SELECT coalesce(sum(lag), 0)::bigint FROM tidemill.lag").await == 0
    })
    .await;
}

/// Windows and late messages by the definition, from the log alone: (wrong windows, windows, late ones missing, late ones).
pub async fn compare(pool: &PgPool) -> (i64, i64, i64, i64) {
    sqlx::query_as(
        "WITH seen AS (
             SELECT partition, value->>'kind' AS kind, tidemill.micros(ts) AS at,
                    max(tidemill.micros(ts)) OVER (PARTITION BY partition ORDER BY c_offset
                        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - 1000000 AS watermark
               FROM topics.events),
         placed AS (SELECT *, at - at % 1000000 AS start FROM seen),
         ends AS (SELECT partition, max(at) - 1000000 AS watermark FROM seen GROUP BY 1),
         due AS (
             SELECT start / 1000 AS start, kind, count(*) AS n FROM placed p JOIN ends e USING (partition)
              WHERE (p.watermark IS NULL OR start + 1000000 > p.watermark) AND start + 1000000 <= e.watermark
              GROUP BY partition, p.start, kind),
         made AS (
             SELECT (value->>'from')::bigint AS start, value->>'value' AS kind, (value->>'count')::bigint AS n
               FROM topics.counts),
         late AS (SELECT count(*) AS n FROM placed WHERE start + 1000000 <= watermark)
         SELECT (SELECT count(*) FROM (SELECT * FROM due EXCEPT ALL SELECT * FROM made) missing)
              + (SELECT count(*) FROM (SELECT * FROM made EXCEPT ALL SELECT * FROM due) extra),
                (SELECT count(*) FROM made),
                (SELECT n FROM late) - (SELECT count(*) FROM topics.late),
                (SELECT n FROM late)",
    )
    .fetch_one(pool)
    .await
    .expect("the counts can be compared")
}

#[tokio::test]
async fn windows_are_exact_whatever_is_killed() {
    let folder = scratch();
    let file = folder.path().join("windows.toml");
    std::fs::write(&file, PIPELINE).expect("written");
    let mut host = Host::start(&folder.path().join("data"), &[&file.display().to_string()]);
    let pool = host.pool().await;
    let mut fed = 0;
    for _ in 0..4 {
        // The log grows while the host is down as well, so that it starts with full batches.
        for _ in 0..5 {
            feed(&pool, fed, 500).await;
            fed += 500;
        }
        eventually("some windows are closed", PATIENCE, || async {
            number(&pool, "SELECT count(*) FROM topics.counts").await > 0
        })
        .await;
        host.kill();
        feed(&pool, fed, 500).await;
        fed += 500;
        host.restart();
    }
    // A message far ahead closes all windows before it.
    feed(&pool, fed + 10_000, 1).await;
    caught_up(&pool).await;
    let (wrong, windows, missing, late) = compare(&pool).await;
    assert_eq!((wrong, missing), (0, 0), "{windows} windows, {late} late messages");
    assert!(windows > 200 && late > 50, "{windows} windows, {late} late messages");

    // What the state says of itself is what is there.
    let off = number(
        &pool,
        "SELECT count(*) FROM (SELECT s.bytes, coalesce(sum(64 + length(e.key) + length(e.value)), 0) AS sum
           FROM tidemill.state_spaces s LEFT JOIN tidemill.state_entries e USING (space_id) GROUP BY s.space_id) x
          WHERE bytes <> sum",
    )
    .await;
    assert_eq!(off, 0, "spaces whose size is wrong");
    assert_eq!(number(&pool, "SELECT count(DISTINCT partition) FROM tidemill.state").await, 3);
}

#[tokio::test]
async fn a_group_starts_again_with_its_state_cleared_and_makes_the_same_windows() {
    let folder = scratch();
    let file = folder.path().join("windows.toml");
    std::fs::write(&file, PIPELINE).expect("written");
    let host = Host::start(&folder.path().join("data"), &[&file.display().to_string()]);
    let pool = host.pool().await;
    feed(&pool, 0, 3_000).await;
    feed(&pool, 20_000, 1).await;
    caught_up(&pool).await;
    let (wrong, windows, ..) = compare(&pool).await;
    assert_eq!(wrong, 0);

    let sought = host.cli(&["group", "seek", "counts", "events", "earliest", "--clear-state"]);
    assert!(sought.status.success(), "{}", stderr(&sought));
    eventually("each window is there twice", PATIENCE, || async {
        number(&pool, "SELECT count(*) FROM topics.counts").await == 2 * windows
    })
    .await;
    let odd = number(
        &pool,
        "SELECT count(*) FROM (SELECT FROM topics.counts GROUP BY value->>'from', value->>'value', value->>'count'
          HAVING count(*) % 2 = 1) odd",
    )
    .await;
    assert_eq!(odd, 0, "windows that came out different the second time");
}

#[tokio::test]
async fn a_second_run_of_the_same_messages_sees_the_same_time_and_chance() {
    let folder = scratch();
    let text = "[pipeline]\nname = \"again\"\n[topics.tries]\npartitions = 1\n[topics.results]\npartitions = 1\n\
                [transforms.reach]\nplugin = \"test-reach\"\nfrom = \"tries\"\nto = \"results\"\nbatch = { records = 1 }\n\
                grants = [\"clock\", \"http\", \"metrics\", \"random\", \"state\"]\nhttp = { allow = [\"https://example.com\"] }\n";
    let file = folder.path().join("again.toml");
    std::fs::write(&file, text).expect("written");
    let mut host = Host::start(&folder.path().join("data"), &[&file.display().to_string()]);
    let pool = host.pool().await;
    for attempt in ["clock", "wall", "random", "random", "clock"] {
        sqlx::query("SELECT tidemill.append('tries', $1)")
            .bind(format!("{{\"try\":\"{attempt}\"}}"))
            .execute(&pool)
            .await
            .expect("appended");
    }
    caught_up(&pool).await;
    host.kill();
    host.restart();
    let sought = host.cli(&["group", "seek", "reach", "tries", "earliest"]);
    assert!(sought.status.success(), "{}", stderr(&sought));
    eventually("all is run again", PATIENCE, || async {
        number(&pool, "SELECT count(*) FROM topics.results").await == 10
    })
    .await;
    let results: Vec<String> =
        sqlx::query_scalar("SELECT convert_from(payload, 'UTF8') FROM topics.results ORDER BY c_offset")
            .fetch_all(&pool)
            .await
            .expect("results can be read");
    assert_eq!(results[..5], results[5..], "the second run saw something else");
    assert_ne!(results[2], results[3], "two batches drew the same numbers");
    let appended: Vec<i64> =
        sqlx::query_scalar("SELECT tidemill.micros(appended_at) FROM topics.tries ORDER BY c_offset")
            .fetch_all(&pool)
            .await
            .expect("the log can be read");
    for (at, index) in [(appended[0], 0), (appended[1], 1), (appended[4], 4)] {
        assert_eq!(results[index], format!("ok: {at}"), "the time is that of the append");
    }
}
