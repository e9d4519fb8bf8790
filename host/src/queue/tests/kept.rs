//! Jobs that have ended stay where they are for a while.

use super::*;

impl Setting {
    async fn done(&self, jobs: &[ClaimedJob]) {
        let finished: Vec<_> = jobs
            .iter()
            .map(|job| Finished { claim: job.claim, id: job.id, verdict: Verdict::Done(None) })
            .collect();
        assert_eq!(self.queues.finish(&finished).await.unwrap().len(), jobs.len());
    }

    async fn tables(&self, which: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM tidemill.job_tables WHERE {which}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&self.database.pool).await.unwrap()
    }

    async fn listed(&self, state: JobState, most: u32) -> Vec<u64> {
        self.queues.list(&self.queue, state, most).await.unwrap().into_iter().map(|job| job.id).collect()
    }
}

#[tokio::test]
async fn jobs_of_many_claims_and_lanes_are_found_and_listed_newest_first() {
    let setting = setting(json!({})).await;
    setting.put((1..=6).map(job)).await;
    let urgent = setting.put([NewJob { priority: Some(1), ..job("urgent") }]).await[0];
    let first = setting.claim(3).await;
    assert_eq!(payloads(&first), ["urgent", "1", "2"]);
    let second = setting.claim(3).await;
    setting.done(&second).await;
    // In another order than they were claimed in, and only some of them.
    let result = Verdict::Done(Some("of the urgent one".into()));
    let some = [(&first[2], Verdict::Done(None)), (&first[0], result)];
    let some = some.map(|(job, verdict)| Finished { claim: job.claim, id: job.id, verdict });
    assert_eq!(setting.queues.finish(&some).await.unwrap().len(), 2);
    let found = setting.queues.find(&setting.queue, urgent).await.unwrap().unwrap();
    assert_eq!((found.state, found.priority), (JobState::Done, 1));
    assert_eq!(found.result.as_deref(), Some(&b"of the urgent one"[..]));
    let found = setting.queues.find(&setting.queue, 2).await.unwrap().unwrap();
    assert_eq!((found.state, found.result, found.worker.as_deref()), (JobState::Done, None, Some("w")));
    assert_eq!(setting.state(1).await, Some(JobState::Running));
    assert_eq!(setting.state(6).await, Some(JobState::Waiting));
    let all = setting.listed(JobState::Done, 10).await;
    assert_eq!((all.len(), &all[2..]), (5, &[5, 4, 3][..]));
    assert_eq!(setting.listed(JobState::Done, 1).await.len(), 1);
    assert!(setting.listed(JobState::Cancelled, 10).await.is_empty());
}

#[tokio::test]
async fn a_job_that_came_again_is_kept_as_it_ended() {
    let setting = setting(json!({ "backoff_first": 0 })).await;
    setting.put([job("a"), job("b")]).await;
    let jobs = setting.claim(2).await;
    let retry = Verdict::Retry { error: "not yet".into(), after: None };
    assert!(setting.finish(&jobs[0], retry).await);
    assert!(setting.finish(&jobs[1], Verdict::Done(None)).await);
    setting.tend().await;
    let again = setting.claim(2).await;
    assert!(setting.finish(&again[0], Verdict::Done(Some("now".into()))).await);
    let found = setting.queues.find(&setting.queue, 1).await.unwrap().unwrap();
    assert_eq!((found.state, found.attempt, found.error), (JobState::Done, 2, None));
    assert_eq!(found.result.as_deref(), Some(&b"now"[..]));
    assert_eq!(setting.listed(JobState::Done, 10).await, [1, 2]);
}

#[tokio::test]
async fn what_has_ended_goes_when_its_time_is_over_and_not_before() {
    let setting = setting(json!({ "keep": 3600 })).await;
    setting.put((0..16_384).map(job)).await;
    setting.put([job("in the next table")]).await;
    let mut left = 16_385;
    while left > 0 {
        let jobs = setting.claim(10_000).await;
        left -= jobs.len();
        setting.done(&jobs).await;
    }
    setting.tend().await;
    setting.claim(1).await;
    assert_eq!(setting.tables("lane = 0 AND settled_at IS NOT NULL").await, 1);
    assert_eq!(setting.state(1).await, Some(JobState::Done));
    // An hour later.
    setting
        .run(
            "UPDATE tidemill.job_tables SET settled_at = settled_at - interval '1 h';
             DO $$ DECLARE t text; BEGIN
                 FOR t IN SELECT table_name FROM tidemill.job_tables
                           WHERE lane = -1 AND first <= extract(epoch FROM clock_timestamp()) LOOP
                     EXECUTE format('ALTER TABLE jobs.%I RENAME TO old', t);
                     UPDATE tidemill.job_tables SET first = 0, upper = 1, table_name = 'old' WHERE table_name = t;
                 END LOOP; END $$",
        )
        .await;
    setting.tend().await;
    setting.claim(1).await;
    assert_eq!(setting.tables("lane = 0 AND settled_at IS NOT NULL").await, 0);
    assert_eq!(setting.tables("table_name = 'old'").await, 0);
    assert_eq!(setting.state(1).await, None);
}

#[tokio::test]
async fn a_queue_with_the_longest_name_has_its_own_tables() {
    let mut setting = setting(json!({})).await;
    for name in ["a".repeat(48), format!("{}b", "a".repeat(47))] {
        setting.queue = QueueName::parse(&name).unwrap();
        setting.queues.declare(&setting.queue, &json!({})).await.unwrap();
        setting.put((0..20_000).map(job)).await;
        setting.done(&setting.claim(10_000).await).await;
        setting.queues.cancel(&setting.queue, 10_001, None).await.unwrap();
        assert_eq!(setting.state(1).await, Some(JobState::Done));
        assert_eq!(setting.state(10_001).await, Some(JobState::Cancelled));
        assert_eq!(payloads(&setting.claim(1).await), ["10001"]);
    }
    assert_eq!(setting.tables("length(table_name) > 63").await, 0);
}

#[tokio::test]
async fn large_jobs_of_a_slow_queue_do_not_wait_for_their_table_to_be_full() {
    let setting = setting(json!({ "keep": 0 })).await;
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(8 << 20).collect();
    let large = NewJob { payload: noise.into(), ..NewJob::default() };
    for _ in 0..9 {
        setting.put([large.clone()]).await;
    }
    setting.done(&setting.claim(100).await).await;
    setting.tend().await;
    assert!(setting.claim(1).await.is_empty());
    assert_eq!(setting.put([job("soon after")]).await, [10]);
    setting.run("UPDATE tidemill.job_tables SET created_at = created_at - interval '1 h'").await;
    setting.tend().await;
    setting.done(&setting.claim(1).await).await;
    assert_eq!(setting.put([job("an hour later")]).await, [16_384]);
    assert_eq!(payloads(&setting.claim(1).await), ["an hour later"]);
    // Nobody can put a job where places were left out: no transaction is older than the first.
    assert!(setting.claim(1).await.is_empty());
    setting.run("UPDATE tidemill.queue_heads SET aging_since = '1' WHERE aging <> '{}'").await;
    assert!(setting.claim(1).await.is_empty());
    setting.tend().await;
    assert!(setting.claim(1).await.is_empty());
    assert_eq!(setting.tables("lane = 0 AND first = 0").await, 0);
}

#[tokio::test]
async fn a_claim_can_be_made_in_parts_and_each_is_ended_by_itself() {
    let setting = setting(json!({})).await;
    setting.put((1..=25).map(job)).await;
    // A claim that looks after due jobs, too, is one.
    setting.run("UPDATE tidemill.queue_heads SET tended_at = 'infinity'").await;
    let jobs = setting.queues.claim_in_parts(&setting.queue, 25, "w", None, Some(10)).await.unwrap();
    let claims: Vec<i64> = jobs.iter().map(|job| job.claim).collect();
    let (first, second, third) = (claims[0], claims[10], claims[20]);
    assert!(first < second && second < third);
    assert_eq!(claims, [[first; 10], [second; 10], [third; 10]].concat()[..25]);
    setting.done(&jobs[10..20]).await;
    setting.done(&jobs[3..4]).await;
    assert_eq!(setting.count().await.running, 14);
    setting.lapse().await;
    setting.tend().await;
    assert_eq!(setting.claim(20).await.len(), 14);
    setting.put([job("one")]).await;
    let next = setting.queues.claim_in_parts(&setting.queue, 1, "w", None, Some(10)).await.unwrap();
    assert!(next[0].claim > third);
}

#[tokio::test]
async fn single_runs_are_ended_by_statements_too() {
    let setting = setting(json!({})).await;
    setting.put(["done", "snoozed", "rejected"].map(job)).await;
    let jobs = setting.claim(3).await;
    let claim = jobs[0].claim;
    setting.run(&format!("SELECT tidemill.complete_job({claim}, 1, '{{}}')")).await;
    setting.run(&format!("SELECT tidemill.snooze_job({claim}, 2, '1 h')")).await;
    setting.run(&format!("SELECT tidemill.reject_job({claim}, 3, 'never')")).await;
    assert_eq!(setting.state(1).await, Some(JobState::Done));
    let snoozed = setting.queues.find(&setting.queue, 2).await.unwrap().unwrap();
    assert_eq!((snoozed.state, snoozed.attempt), (JobState::Scheduled, 0));
    let rejected = setting.queues.find(&setting.queue, 3).await.unwrap().unwrap();
    assert_eq!((rejected.state, rejected.attempt), (JobState::Dead, 1));
    assert_eq!(rejected.error.as_deref(), Some("never"));
    let again = sqlx::query("SELECT tidemill.snooze_job($1, 2, '1 h')").bind(claim);
    let refused = again.execute(&setting.database.pool).await.unwrap_err();
    assert!(refused.to_string().contains("job 2 is not held by claim"), "{refused}");
}
