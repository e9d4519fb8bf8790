//! Who gets which job, and when.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test]
async fn jobs_come_in_order_with_all_that_was_put() {
    let setting = setting(json!({ "max_attempts": 7 })).await;
    let whole = NewJob {
        headers: vec![Header { name: "trace".into(), value: "abc".into() }],
        max_attempts: Some(3),
        ..keyed("a1", "first")
    };
    assert_eq!(setting.put([whole.clone(), job("second")]).await, [1, 2]);
    assert_eq!(setting.state(1).await, Some(JobState::Waiting));
    let jobs = setting.claim(10).await;
    assert_eq!(payloads(&jobs), ["first", "second"]);
    assert_eq!((&jobs[0].key, &jobs[0].headers), (&whole.key, &whole.headers));
    assert_eq!((jobs[0].attempt, jobs[0].max_attempts, jobs[1].max_attempts, jobs[0].priority), (1, 3, 7, 2));
    assert_eq!(jobs[0].claim, jobs[1].claim);
    assert!(jobs[0].due_at == jobs[0].enqueued_at && now() - jobs[0].enqueued_at < 60_000_000);
    assert!(setting.claim(10).await.is_empty());
    let found = setting.queues.find(&setting.queue, 1).await.unwrap().unwrap();
    assert_eq!((found.state, found.attempt, found.worker.as_deref()), (JobState::Running, 1, Some("w")));
    assert_eq!(setting.queues.find(&setting.queue, 3).await.unwrap(), None);
}

#[tokio::test]
async fn priorities_go_first_and_what_comes_again_goes_before_what_is_new() {
    let setting = setting(json!({})).await;
    let at = |priority| NewJob { priority: Some(priority), ..job(priority) };
    setting.put([at(4), at(3), at(2), at(1), at(2)]).await;
    assert_eq!(payloads(&setting.claim(3).await), ["1", "2", "2"]);
    let third = setting.claim(1).await;
    assert_eq!(payloads(&third), ["3"]);
    assert!(setting.finish(&third[0], Verdict::Snooze(Duration::ZERO)).await);
    setting.put([at(3)]).await;
    setting.tend().await;
    let rest = setting.claim(10).await;
    assert_eq!(
        rest.iter().map(|job| (job.priority, job.attempt)).collect::<Vec<_>>(),
        [(3, 1), (3, 1), (4, 1)]
    );
    assert_eq!(rest[0].id, third[0].id, "it had its turn before");
}

#[tokio::test]
async fn what_is_scheduled_is_not_claimed_before_it_is_due() {
    let setting = setting(json!({})).await;
    let ids = setting.put([NewJob { run_at: Some(seconds(3600)), ..job("later") }, job("now")]).await;
    assert_eq!(payloads(&setting.claim(10).await), ["now"]);
    assert_eq!(setting.state(ids[0]).await, Some(JobState::Scheduled));
    assert_eq!(setting.count().await.scheduled, 1);
    setting.run("UPDATE tidemill.later_jobs SET run_at = clock_timestamp()").await;
    setting.tend().await;
    let jobs = setting.claim(10).await;
    assert_eq!((payloads(&jobs), jobs[0].id, jobs[0].attempt), (vec!["later"], ids[0], 1));
    assert!(jobs[0].due_at > jobs[0].enqueued_at);
}

#[tokio::test]
async fn a_job_that_is_committed_late_is_not_passed_over_and_one_rolled_back_is_forgotten() {
    let setting = setting(json!({})).await;
    let mut late = setting.database.pool.begin().await.unwrap();
    enqueue_in(&mut late, &setting.queue, &[job("late")]).await.unwrap();
    let mut never = setting.database.pool.begin().await.unwrap();
    enqueue_in(&mut never, &setting.queue, &[job("never"), job("never")]).await.unwrap();
    setting.put([job("early")]).await;
    assert_eq!(payloads(&setting.claim(10).await), ["early"]);
    assert!(setting.claim(10).await.is_empty());
    never.rollback().await.unwrap();
    assert!(setting.claim(10).await.is_empty());
    late.commit().await.unwrap();
    assert_eq!(payloads(&setting.claim(10).await), ["late"]);
    // Gaps are forgotten when every transaction of the server that was open then is over, those of other tests among them. So
    // let them be over: no transaction is older than the first.
    setting.run("UPDATE tidemill.queue_heads SET aging_since = '1' WHERE aging <> '{}'").await;
    assert!(setting.claim(10).await.is_empty());
    let sql = "SELECT gaps::text FROM tidemill.queue_heads ORDER BY generation DESC LIMIT 1";
    let gaps: String = sqlx::query_scalar(sql).fetch_one(&setting.database.pool).await.unwrap();
    assert_eq!(gaps, "{}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_job_is_claimed_once_while_many_put_roll_back_and_claim() {
    let setting = Arc::new(setting(json!({ "keep": 0 })).await);
    let (mut putting, claimed) = (Vec::new(), Arc::new(AtomicUsize::new(0)));
    for writer in 0..6 {
        let setting = setting.clone();
        putting.push(tokio::spawn(async move {
            let mut put = Vec::new();
            for round in 0..40 {
                let mut transaction = setting.database.pool.begin().await.unwrap();
                let jobs: Vec<_> = (0..=round % 7)
                    .map(|n| NewJob {
                        priority: Some(1 + (n % 4) as u8),
                        ..job(format!("{writer} {round} {n}"))
                    })
                    .collect();
                enqueue_in(&mut transaction, &setting.queue, &jobs).await.unwrap();
                tokio::task::yield_now().await;
                if (round + writer) % 5 == 0 {
                    transaction.rollback().await.unwrap();
                } else {
                    transaction.commit().await.unwrap();
                    put.extend(jobs.into_iter().map(|job| job.payload));
                }
            }
            put
        }));
    }
    let wanted = Arc::new(AtomicUsize::new(usize::MAX));
    let claiming: Vec<_> = (0..4)
        .map(|_| {
            let (setting, claimed, wanted) = (setting.clone(), claimed.clone(), wanted.clone());
            tokio::spawn(async move {
                let mut got = Vec::new();
                while claimed.load(Ordering::SeqCst) < wanted.load(Ordering::SeqCst) {
                    let jobs = setting.claim(7).await;
                    claimed.fetch_add(jobs.len(), Ordering::SeqCst);
                    for job in &jobs {
                        assert!(setting.finish(job, Verdict::Done(None)).await);
                    }
                    got.extend(jobs.into_iter().map(|job| job.payload));
                }
                got
            })
        })
        .collect();
    let (mut put, mut got) = (Vec::new(), Vec::new());
    for writer in putting {
        put.extend(writer.await.unwrap());
    }
    wanted.store(put.len(), Ordering::SeqCst);
    for claimer in claiming {
        got.extend(claimer.await.unwrap());
    }
    assert_eq!(got.len(), put.len());
    assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), put.into_iter().collect::<BTreeSet<_>>());
    assert_eq!(setting.count().await.running, 0);
}

#[tokio::test]
async fn a_worker_that_falls_silent_loses_its_jobs_and_its_word_counts_no_more() {
    let setting = setting(json!({ "max_attempts": 2 })).await;
    setting.put([job("a"), job("b")]).await;
    let first = setting.claim(2).await;
    assert!(setting.finish(&first[1], Verdict::Done(None)).await);
    setting.lapse().await;
    assert!(!setting.finish(&first[0], Verdict::Done(None)).await, "a lease that ended is not enough");
    assert_eq!(setting.queues.extend(&[first[0].claim]).await.unwrap(), Vec::<i64>::new());
    setting.tend().await;
    let second = setting.claim(2).await;
    assert_eq!((payloads(&second), second[0].attempt), (vec!["a"], 2));
    assert!(!setting.finish(&first[0], Verdict::Done(None)).await, "somebody else has it");
    setting.lapse().await;
    setting.tend().await;
    assert!(setting.claim(2).await.is_empty());
    let dead = setting.queues.find(&setting.queue, second[0].id).await.unwrap().unwrap();
    assert_eq!((dead.state, dead.attempt), (JobState::Dead, 2));
    assert_eq!(dead.error.unwrap(), "worker \"w\" was silent for longer than its lease of 00:00:30");
}

#[tokio::test]
async fn a_claim_that_is_extended_does_not_lapse() {
    let setting = setting(json!({ "lease": 30 })).await;
    setting.put([job("a")]).await;
    let jobs = setting.claim(1).await;
    setting.run("UPDATE tidemill.claims SET expires_at = clock_timestamp() + interval '5 s'").await;
    assert_eq!(setting.queues.extend(&[jobs[0].claim, 4711]).await.unwrap(), [jobs[0].claim]);
    let left: f64 = sqlx::query_scalar(
        "SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 FROM tidemill.claims",
    )
    .fetch_one(&setting.database.pool)
    .await
    .unwrap();
    assert!((6.0..=30.0).contains(&left), "{left}");
    setting.tend().await;
    assert!(setting.claim(1).await.is_empty());
    assert!(setting.finish(&jobs[0], Verdict::Done(None)).await);
}

#[tokio::test]
async fn a_worker_that_stops_in_the_middle_of_an_end_does_not_keep_its_job() {
    let setting = setting(json!({ "lease": 1 })).await;
    setting.put([job("a")]).await;
    let first = setting.claim(1).await;
    let mut stopped = setting.database.pool.begin().await.unwrap();
    let end = Finished { claim: first[0].claim, id: first[0].id, verdict: Verdict::Done(None) };
    assert_eq!(finish_in(&mut stopped, &[end]).await.unwrap().len(), 1);
    let since = std::time::Instant::now();
    let second = loop {
        setting.tend().await;
        match setting.claim(1).await {
            jobs if jobs.is_empty() => tokio::time::sleep(Duration::from_millis(50)).await,
            jobs => break jobs,
        }
        assert!(since.elapsed() < Duration::from_secs(60), "the job is stuck");
    };
    assert_eq!(second[0].attempt, 2);
    assert!(stopped.commit().await.is_err());
    assert!(setting.finish(&second[0], Verdict::Done(None)).await);
}

#[tokio::test]
async fn no_more_run_than_the_queue_allows_and_none_while_it_is_paused() {
    let setting = setting(json!({ "concurrency": 3 })).await;
    setting.put((0..10).map(job)).await;
    let first = setting.claim(2).await;
    assert_eq!((first.len(), setting.claim(10).await.len(), setting.claim(10).await.len()), (2, 1, 0));
    assert!(setting.finish(&first[0], Verdict::Done(None)).await);
    setting.queues.pause(&setting.queue, true).await.unwrap();
    assert!(setting.claim(10).await.is_empty() && setting.count().await.paused);
    assert!(setting.finish(&first[1], Verdict::Done(None)).await, "what runs goes on");
    setting.queues.pause(&setting.queue, false).await.unwrap();
    assert_eq!(payloads(&setting.claim(10).await), ["3", "4"]);
}

#[tokio::test]
async fn tables_of_jobs_that_have_ended_are_dropped_also_under_an_old_snapshot() {
    let setting = setting(json!({ "keep": 0 })).await;
    let mut old = setting.database.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0").execute(&mut *old).await.unwrap();
    sqlx::query("SELECT count(*) FROM tidemill.queues").execute(&mut *old).await.unwrap();
    let tables = async || -> i64 {
        let sql = "SELECT count(*) FROM tidemill.job_tables WHERE lane = 0";
        sqlx::query_scalar(sql).fetch_one(&setting.database.pool).await.unwrap()
    };
    for _ in 0..8 {
        setting.put((0..10_000).map(job)).await;
    }
    assert!(tables().await >= 3, "{}", tables().await);
    let mut left = 80_000;
    while left > 0 {
        let jobs = setting.claim(10_000).await;
        left -= jobs.len();
        let finished: Vec<_> = jobs
            .iter()
            .map(|job| Finished { claim: job.claim, id: job.id, verdict: Verdict::Done(None) })
            .collect();
        assert_eq!(setting.queues.finish(&finished).await.unwrap().len(), jobs.len());
    }
    setting.tend().await;
    assert!(setting.claim(1).await.is_empty());
    assert!(tables().await <= 2, "{}", tables().await);
    old.rollback().await.unwrap();
    setting.put([job("goes on")]).await;
    assert_eq!(payloads(&setting.claim(1).await), ["goes on"]);
}

#[tokio::test]
async fn a_head_that_was_moved_often_is_replaced() {
    let setting = setting(json!({ "keep": 0 })).await;
    for n in 0..250 {
        setting.put([job(n)]).await;
        let jobs = setting.claim(1).await;
        assert_eq!(payloads(&jobs), [n.to_string()]);
        assert!(setting.finish(&jobs[0], Verdict::Done(None)).await);
    }
    let heads: Vec<(i64, i32)> = sqlx::query_as("SELECT generation, uses FROM tidemill.queue_heads")
        .fetch_all(&setting.database.pool)
        .await
        .unwrap();
    assert!(heads.len() == 1 && heads[0].0 == 1, "{heads:?}");
}
