//! How runs end, and what is left of a job.

use super::*;
use crate::log::LogOptions;
use crate::log::testing::{log_with, plan};

#[tokio::test]
async fn a_result_can_be_looked_at_while_it_is_kept() {
    let setting = setting(json!({ "keep": 60 })).await;
    setting.put([job("a"), job("b")]).await;
    let jobs = setting.claim(2).await;
    assert!(setting.finish(&jobs[0], Verdict::Done(Some("{\"ok\":true}".into()))).await);
    assert!(setting.finish(&jobs[1], Verdict::Cancel("not needed".into())).await);
    let done = setting.queues.find(&setting.queue, 1).await.unwrap().unwrap();
    assert_eq!(
        (done.state, done.attempt, done.result.as_deref()),
        (JobState::Done, 1, Some(&b"{\"ok\":true}"[..]))
    );
    assert!(done.finished_at >= done.claimed_at && done.payload == b"a");
    let ended = setting.queues.list(&setting.queue, JobState::Cancelled, 10).await.unwrap();
    assert_eq!((ended.len(), ended[0].id, ended[0].error.as_deref()), (1, 2, Some("not needed")));
}

#[tokio::test]
async fn nothing_is_kept_where_nothing_is_to_be_kept() {
    let setting = setting(json!({ "keep": 0 })).await;
    setting.put([job("a")]).await;
    let jobs = setting.claim(1).await;
    assert!(setting.finish(&jobs[0], Verdict::Done(Some("x".into()))).await);
    assert_eq!(setting.state(1).await, None);
}

#[tokio::test]
async fn a_run_that_fails_is_made_again_after_a_wait_that_doubles_until_the_job_is_dead() {
    let setting = setting(json!({ "max_attempts": 4, "backoff_first": 100, "backoff_longest": 300 })).await;
    setting.put([job("a")]).await;
    let mut waits = Vec::new();
    for attempt in 1..=4 {
        let jobs = setting.claim(1).await;
        assert_eq!(jobs[0].attempt, attempt);
        let error = format!("no {attempt}");
        assert!(setting.finish(&jobs[0], Verdict::Retry { error: error.clone(), after: None }).await);
        let found = setting.queues.find(&setting.queue, 1).await.unwrap().unwrap();
        assert_eq!(found.error, Some(error));
        if let Some(at) = found.run_at.filter(|_| found.state == JobState::Scheduled) {
            waits.push((at - now()) / 1_000_000);
        }
        setting.run("UPDATE tidemill.later_jobs SET run_at = clock_timestamp()").await;
        setting.tend().await;
    }
    assert!(
        (88..=110).contains(&waits[0]) && (178..=220).contains(&waits[1]) && (268..=330).contains(&waits[2]),
        "{waits:?}"
    );
    assert_eq!(
        (waits.len(), setting.state(1).await, setting.count().await.dead),
        (3, Some(JobState::Dead), 1)
    );

    // A dead job starts anew, or is forgotten.
    setting.queues.retry(&setting.queue, 1).await.unwrap();
    setting.tend().await;
    let again = setting.claim(1).await;
    assert_eq!((again[0].id, again[0].attempt), (1, 1));
    assert!(setting.finish(&again[0], Verdict::Reject("it is no job".into())).await);
    let dead = setting.queues.find(&setting.queue, 1).await.unwrap().unwrap();
    assert_eq!((dead.state, dead.error.as_deref(), dead.attempt), (JobState::Dead, Some("it is no job"), 1));
    assert_eq!(setting.queues.drop_dead(&setting.queue, &[1, 2]).await.unwrap(), 1);
    assert_eq!(setting.state(1).await, None);
}

#[tokio::test]
async fn a_time_given_with_a_retry_is_kept_to_and_a_snooze_is_no_attempt() {
    let setting = setting(json!({ "max_attempts": 2 })).await;
    setting.put([job("a")]).await;
    for _ in 0..5 {
        let jobs = setting.claim(1).await;
        assert_eq!(jobs[0].attempt, 1);
        assert!(setting.finish(&jobs[0], Verdict::Snooze(Duration::from_millis(1))).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
        setting.tend().await;
    }
    let jobs = setting.claim(1).await;
    let retry = Verdict::Retry { error: "busy".into(), after: Some(Duration::from_secs(1000)) };
    assert!(setting.finish(&jobs[0], retry).await);
    let found = setting.queues.find(&setting.queue, 1).await.unwrap().unwrap();
    assert!((990..=1000).contains(&((found.run_at.unwrap() - now()) / 1_000_000)), "{found:?}");
    // By hand it goes at once.
    setting.queues.retry(&setting.queue, 1).await.unwrap();
    setting.tend().await;
    assert_eq!(setting.claim(1).await[0].attempt, 2);
}

#[tokio::test]
async fn ending_a_run_is_part_of_the_transaction_and_each_claim_ends_its_own() {
    let setting = setting(json!({})).await;
    setting.put((0..4).map(job)).await;
    let (first, second) = (setting.claim(2).await, setting.claim(2).await);
    let end = |job: &ClaimedJob, claim: i64| Finished { claim, id: job.id, verdict: Verdict::Done(None) };
    let mut transaction = setting.database.pool.begin().await.unwrap();
    let all: Vec<_> = first.iter().chain(&second).map(|job| end(job, job.claim)).collect();
    assert_eq!(finish_in(&mut transaction, &all).await.unwrap().len(), 4);
    transaction.rollback().await.unwrap();
    assert_eq!(setting.count().await.running, 4);
    // The wrong claim, twice the same, and the right one.
    let run =
        [end(&first[0], second[0].claim), end(&first[1], first[1].claim), end(&first[1], first[1].claim)];
    assert_eq!(setting.queues.finish(&run).await.unwrap(), [(first[1].claim, first[1].id)]);
    assert_eq!(setting.queues.finish(&run).await.unwrap(), []);
    let held = setting.queues.holds(&[first[0].claim]).await.unwrap();
    assert_eq!(held, [(first[0].claim, vec![first[0].id])]);
    assert!(setting.finish(&first[0], Verdict::Done(None)).await);
    assert_eq!(setting.queues.holds(&[first[0].claim]).await.unwrap(), []);
}

#[tokio::test]
async fn a_job_can_be_cancelled_wherever_it_is_but_where_it_has_ended() {
    let setting = setting(json!({ "ordered": true })).await;
    let later = NewJob { run_at: Some(seconds(60)), ..job("scheduled") };
    let ids = setting.put([keyed("k", "runs"), keyed("k", "blocked"), later]).await;
    let running = setting.claim(10).await;
    let waiting = setting.put([job("waits")]).await;
    let mut states = Vec::new();
    for id in ids.iter().chain(&waiting) {
        states.push(setting.queues.cancel(&setting.queue, *id, Some("by hand")).await.unwrap());
        assert_eq!(setting.state(*id).await, Some(JobState::Cancelled));
    }
    assert_eq!(states, ["running", "blocked", "scheduled", "waiting"]);
    assert!(!setting.finish(&running[0], Verdict::Done(None)).await);
    setting.tend().await;
    assert!(setting.claim(10).await.is_empty());
    let again = setting.queues.cancel(&setting.queue, 1, None).await.unwrap_err();
    assert!(
        matches!(&again, QueueError::Impossible(words) if words == "job 1 of queue \"reports\" is cancelled already")
    );
    assert!(matches!(setting.queues.cancel(&setting.queue, 99, None).await, Err(QueueError::Unknown(_))));
    assert!(matches!(setting.queues.retry(&setting.queue, 1).await, Err(QueueError::Impossible(_))));
}

#[tokio::test]
async fn ended_jobs_become_records_of_the_history_in_the_same_commit() {
    let (database, _) = open().await;
    let log = log_with(&database, LogOptions::default());
    log.create_topic(&plan("jobs_done", 3)).await.unwrap();
    let (queues, queue) = (Queues::new(log), QueueName::parse("reports").unwrap());
    queues.declare(&queue, &json!({ "history": "jobs_done", "keep": 0, "max_attempts": 1 })).await.unwrap();
    queues.enqueue(&queue, &[keyed("k1", "{\"n\":1}"), job("no JSON")]).await.unwrap();
    let jobs = queues.claim(&queue, 2, "w", None).await.unwrap();
    let verdicts =
        [Verdict::Done(Some("{\"r\":2}".into())), Verdict::Retry { error: "it failed".into(), after: None }];
    let finished: Vec<_> = jobs
        .iter()
        .zip(verdicts)
        .map(|(job, verdict)| Finished { claim: job.claim, id: job.id, verdict })
        .collect();
    queues.finish(&finished).await.unwrap();
    let records: Vec<(Option<Vec<u8>>, Value)> = sqlx::query_as(
        "SELECT key, tidemill.try_json(payload) FROM topics.jobs_done ORDER BY (tidemill.try_json(payload) ->> 'id')::bigint",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let told: Vec<BTreeMap<&str, &Value>> = records
        .iter()
        .map(|(_, record)| {
            ["queue", "id", "state", "attempt", "key", "payload", "result", "error"]
                .map(|f| (f, &record[f]))
                .into()
        })
        .collect();
    assert_eq!(records[0].0.as_deref(), Some(&b"k1"[..]));
    assert_eq!(
        json!(told),
        json!([
            { "queue": "reports", "id": 1, "state": "done", "attempt": 1, "key": "k1", "payload": { "n": 1 },
              "result": { "r": 2 }, "error": null },
            { "queue": "reports", "id": 2, "state": "dead", "attempt": 1, "key": null, "payload": "bm8gSlNPTg==",
              "result": null, "error": "it failed" },
        ])
    );
    assert!(records[0].1["finished_at"].as_i64() >= records[0].1["claimed_at"].as_i64());
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_words() {
    let setting = setting(json!({})).await;
    let refused =
        async |job: NewJob| setting.queues.enqueue(&setting.queue, &[job]).await.unwrap_err().to_string();
    assert_eq!(
        refused(NewJob { priority: Some(9), ..job("a") }).await,
        "a job cannot be put into queue \"reports\": its priority is 9, and they go from 1 to 4"
    );
    assert_eq!(
        refused(keyed(&"k".repeat(1025), "a")).await,
        "a job cannot be put into queue \"reports\": its key is longer than 1,024 bytes"
    );
    let nobody = QueueName::parse("nobody").unwrap();
    assert!(matches!(setting.queues.enqueue(&nobody, &[job("a")]).await, Err(QueueError::Unknown(_))));
    let error = setting.queues.declare(&setting.queue, &json!({ "leese": 3 })).await.unwrap_err();
    assert_eq!(error.to_string(), "a queue has no setting \"leese\"");
    let error = setting.queues.declare(&setting.queue, &json!({ "lease": 0.1 })).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "queue \"reports\" cannot have these settings: they break queues_lease_range"
    );
    assert!(setting.claim(1).await.is_empty());
}
