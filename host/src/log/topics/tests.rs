use super::*;
use crate::log::testing::*;
use crate::log::{AppendError, AppendOptions, FetchError, FetchLimits};
use crate::pg::testing::database;

#[tokio::test]
async fn a_topic_is_made_as_it_is_specified() {
    let (_database, log) = open().await;
    let spec = TopicPlan {
        segment: Duration::from_secs(90),
        hot: None,
        cold: Cold::For(Duration::from_secs(86_400)),
        format: Format::Json,
        acks: Acks::Relaxed,
        schema: Some(serde_json::json!([{ "name": "id", "type": "text" }])),
        sort: vec!["id".to_owned(), "ts".to_owned()],
        ..plan("positions", 7)
    };
    let before = log.clock().now();
    let topic = log.create_topic(&spec).await.unwrap();
    assert!(is_as_specified(&topic, &spec), "{topic:?}");
    assert_eq!((topic.partitions, topic.format), (7, Format::Json));
    assert!(topic.created_at > before - 60_000_000 && topic.created_at < before + 60_000_000);
    assert!(["lz4", "pglz"].contains(&topic.compression.as_str()));
    assert_eq!(log.topics().await.unwrap(), std::slice::from_ref(&topic));
    assert_eq!(log.bounds(topic.id).await.unwrap().len(), 7);
    let again = log.create_topic(&spec).await.unwrap_err();
    assert_eq!(again.to_string(), "topic \"positions\" exists already");
}

#[tokio::test]
async fn an_unknown_topic_is_answered_with_what_was_probably_meant() {
    let (_database, log) = open().await;
    for name in ["positions", "alerts"] {
        log.create_topic(&plan(name, 1)).await.unwrap();
    }
    let error = log.topic("position").await.unwrap_err().to_string();
    assert_eq!(error, "there is no topic \"position\"; did you mean positions?");
    for hostile in ["", "\"", "'; DROP SCHEMA log; --", "nul\0", "positions\0", "é"] {
        let error = log.topic(hostile).await;
        assert!(
            hostile.starts_with("positions") || matches!(error, Err(LogError::TopicNotFound { .. })),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn sql_lets_no_hostile_name_in() {
    let database = database().await;
    let long = "a".repeat(49);
    for name in [
        "",
        "x\"; DROP SCHEMA log CASCADE; --",
        "it's",
        "A",
        "1a",
        "a-b",
        "a b",
        "ä",
        "pg.catalog",
        "a\nb",
        "ends_like_a_segment_p_60",
        &long,
    ] {
        let refused =
            sqlx::query("SELECT tidemill.create_topic($1)").bind(name).execute(&database.pool).await;
        assert_eq!(code(&refused.unwrap_err()), "TM005", "{name:?}");
    }
    // Words of SQL and the longest name are good names.
    let longest = "z".repeat(48);
    for name in ["select", "table", "user", "log", "a_p_x", &longest] {
        sqlx::query("SELECT tidemill.create_topic($1)").bind(name).execute(&database.pool).await.unwrap();
        sqlx::query("SELECT tidemill.append($1, 'x')").bind(name).execute(&database.pool).await.unwrap();
        let read = format!("SELECT count(*) FROM topics.\"{name}\"");
        let count: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(read)).fetch_one(&database.pool).await.unwrap();
        assert_eq!(count, 1);
    }
}

#[tokio::test]
async fn settings_out_of_range_are_refused_with_the_ranges() {
    let (_database, log) = open().await;
    let good = plan("events", 1);
    let bad = [
        TopicPlan { partitions: 0, ..good.clone() },
        TopicPlan { partitions: 257, ..good.clone() },
        TopicPlan { segment: Duration::ZERO, ..good.clone() },
        TopicPlan { segment: Duration::from_millis(1500), ..good.clone() },
        TopicPlan { segment: Duration::from_secs(32 * 86_400), ..good.clone() },
        TopicPlan { hot: Some(Duration::ZERO), ..good.clone() },
    ];
    for spec in bad {
        let error = log.create_topic(&spec).await.unwrap_err();
        assert!(matches!(&error, LogError::Invalid(text) if text.contains("from 1 to 256")), "{error}");
    }
    assert!(log.topics().await.unwrap().is_empty());
}

#[tokio::test]
async fn ensuring_a_topic_changes_what_may_change_and_nothing_else() {
    let (database, log) = open().await;
    let spec = plan("events", 2);
    let made = log.ensure_topic(&spec).await.unwrap();
    assert_eq!(log.ensure_topic(&spec).await.unwrap(), made);
    let changed = TopicPlan {
        segment: Duration::from_secs(60),
        hot: Some(Duration::from_secs(5)),
        cold: Cold::Forever,
        acks: Acks::Relaxed,
        ..spec.clone()
    };
    let topic = log.ensure_topic(&changed).await.unwrap();
    assert!(topic.id == made.id && is_as_specified(&topic, &changed));
    let error = log.ensure_topic(&TopicPlan { partitions: 3, ..spec.clone() }).await.unwrap_err();
    assert!(error.to_string().contains("has partitions 2, which cannot become 3"), "{error}");
    let error = log.ensure_topic(&TopicPlan { format: Format::Json, ..spec.clone() }).await.unwrap_err();
    assert!(error.to_string().contains("has format bytes"), "{error}");
    let error = log.ensure_topic(&TopicPlan { segment: Duration::ZERO, ..spec.clone() }).await.unwrap_err();
    assert!(matches!(error, LogError::Invalid(_)), "{error}");

    // Several hosts that start at once agree.
    let hosts: Vec<_> = (0..4)
        .map(|_| {
            let log = log_with(&database, crate::log::LogOptions::default());
            tokio::spawn(async move { log.ensure_topic(&plan("fresh", 4)).await.unwrap().id })
        })
        .collect();
    let mut ids = Vec::new();
    for host in hosts {
        ids.push(host.await.unwrap());
    }
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_topic_can_be_deleted_under_load_and_made_again() {
    let (database, log, topic) = with_topic(2).await;
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (log, topic) = (log.clone(), topic.clone());
            tokio::spawn(async move {
                loop {
                    if let Err(error) = log.append(&topic, records(["x"]), AppendOptions::default()).await {
                        return error;
                    }
                }
            })
        })
        .collect();
    eventually("something is stored", || async { log.size(topic.id).await.unwrap().records > 20 }).await;
    log.delete_topic(&topic.name).await.unwrap();
    for writer in writers {
        let error = writer.await.unwrap();
        assert!(matches!(error, AppendError::TopicGone { .. }), "{error}");
    }
    let error = log.fetch(&topic, 1, 10_000, FetchLimits::default()).await.unwrap_err();
    assert!(matches!(error, FetchError::TopicGone), "{error}");
    assert!(matches!(log.delete_topic(&topic.name).await, Err(LogError::TopicNotFound { .. })));
    let left: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                  WHERE n.nspname IN ('log', 'topics')) + (SELECT count(*) FROM tidemill.segments)",
    )
    .fetch_one(&database.pool)
    .await
    .unwrap();
    assert_eq!(left, 0);
    let again = log.create_topic(&plan("events", 3)).await.unwrap();
    assert_ne!(again.id, topic.id);
    log.append(&again, records(["y"]), to(2)).await.unwrap();
    assert_eq!(log.size(again.id).await.unwrap().records, 1);
}
