//! Keys that are unique, and keys that take turns.

use super::*;

fn unique(key: &str, lasting: Option<Duration>) -> NewJob {
    NewJob { unique: Some(Unique { key: key.into(), lasting }), ..job(key) }
}

#[tokio::test]
async fn a_unique_key_is_taken_until_its_job_has_ended() {
    let setting = setting(json!({ "max_attempts": 1 })).await;
    let put = async |jobs: &[NewJob]| {
        let put = setting.queues.enqueue(&setting.queue, jobs).await.unwrap();
        put.into_iter().map(|job| (job.id, job.created)).collect::<Vec<_>>()
    };
    let a = unique("a", None);
    let first = put(&[a.clone(), unique("b", None), a.clone(), job("c")]).await;
    assert_eq!(first, [(1, true), (2, true), (1, false), (4, true)]);
    let jobs = setting.claim(10).await;
    assert_eq!(payloads(&jobs), ["a", "b", "c"]);
    assert_eq!(put(std::slice::from_ref(&a)).await[0], (1, false), "it runs");
    assert!(setting.finish(&jobs[0], Verdict::Done(None)).await);
    assert!(setting.finish(&jobs[1], Verdict::Reject("no".into())).await);
    let second = put(&[a.clone(), unique("b", None)]).await;
    assert!(second.iter().all(|job| job.1) && second[0].0 != 1, "{second:?}");
    // The dead one has lost its key to another, and comes back without.
    setting.queues.retry(&setting.queue, 2).await.unwrap();
    setting.tend().await;
    assert_eq!(setting.claim(10).await.len(), 3);
}

#[tokio::test]
async fn a_unique_key_can_outlast_its_job() {
    let setting = setting(json!({})).await;
    let hour = unique("a", Some(Duration::from_secs(3600)));
    setting.put([hour.clone()]).await;
    let jobs = setting.claim(1).await;
    assert!(setting.finish(&jobs[0], Verdict::Done(None)).await);
    assert_eq!(setting.put([hour.clone()]).await, [1]);
    setting.run("UPDATE tidemill.job_keys SET free_at = clock_timestamp()").await;
    assert_ne!(setting.put([hour]).await, [1]);
}

#[tokio::test]
async fn the_same_unique_key_put_at_once_makes_one_job() {
    let setting = std::sync::Arc::new(setting(json!({})).await);
    let put: Vec<_> = (0..8)
        .map(|_| {
            let setting = setting.clone();
            tokio::spawn(async move {
                let jobs = [unique("a", None), unique("b", None)];
                setting.queues.enqueue(&setting.queue, &jobs).await.unwrap()
            })
        })
        .collect();
    let mut created = 0;
    for task in put {
        created += task.await.unwrap().into_iter().filter(|job| job.created).count();
    }
    assert_eq!((created, setting.claim(10).await.len()), (2, 2));
}

#[tokio::test]
async fn no_more_jobs_of_a_key_run_than_are_allowed() {
    let setting = setting(json!({ "per_key": 2 })).await;
    setting.put((0..6).map(|n| keyed("a", n))).await;
    setting.put((6..8).map(|n| keyed("b", n)).chain([job(8)])).await;
    let jobs = setting.claim(10).await;
    assert_eq!(payloads(&jobs), ["0", "1", "6", "7", "8"]);
    assert_eq!((setting.count().await.blocked, setting.state(3).await), (4, Some(JobState::Blocked)));
    assert!(setting.finish(&jobs[1], Verdict::Done(None)).await);
    assert_eq!(payloads(&setting.claim(10).await), ["2"]);
    // One that waits for its next attempt leaves its place to another.
    assert!(setting.finish(&jobs[0], Verdict::Retry { error: "no".into(), after: None }).await);
    assert_eq!(payloads(&setting.claim(10).await), ["3"]);
}

#[tokio::test]
async fn jobs_of_a_key_run_in_order_also_when_one_comes_again() {
    let setting = setting(json!({ "ordered": true, "max_attempts": 2 })).await;
    setting.put([keyed("a", 1), keyed("b", 2), keyed("a", 3), keyed("a", 4)]).await;
    let jobs = setting.claim(10).await;
    assert_eq!(payloads(&jobs), ["1", "2"]);
    assert!(setting.finish(&jobs[0], Verdict::Retry { error: "no".into(), after: None }).await);
    assert!(setting.claim(10).await.is_empty(), "its key waits for it");
    setting.put([keyed("a", 5)]).await;
    assert!(setting.claim(10).await.is_empty());
    setting.run("UPDATE tidemill.later_jobs SET run_at = clock_timestamp()").await;
    setting.tend().await;
    let again = setting.claim(10).await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["1"], 2));
    assert!(setting.finish(&again[0], Verdict::Retry { error: "no".into(), after: None }).await);
    assert_eq!(setting.state(1).await, Some(JobState::Dead));
    let mut order = Vec::new();
    loop {
        let next = setting.claim(10).await;
        let Some(job) = next.first() else { break };
        assert_eq!(next.len(), 1);
        order.extend(payloads(&next).into_iter().map(str::to_owned));
        assert!(setting.finish(job, Verdict::Done(None)).await);
    }
    assert_eq!(order, ["3", "4", "5"], "a dead job lets its key go on");
}

#[tokio::test]
async fn a_busy_key_holds_up_nobody_else_and_keys_take_turns() {
    let setting = setting(json!({ "ordered": true })).await;
    setting.put((0..300).map(|n| keyed("busy", n))).await;
    setting.put([keyed("x", "x1"), keyed("y", "y1"), keyed("x", "x2"), keyed("y", "y2")]).await;
    // Jobs of the busy key are put aside until others come.
    let mut running = Vec::new();
    while running.len() < 3 {
        running.extend(setting.claim(2).await);
    }
    assert_eq!(payloads(&running), ["0", "x1", "y1"]);
    for job in &running[1..] {
        assert!(setting.finish(job, Verdict::Done(None)).await);
    }
    let next = setting.claim(10).await;
    assert_eq!(payloads(&next), ["x2", "y2"], "while the busy key runs on");
    setting.put((0..4).map(|n| keyed("x", format!("x{n}")))).await;
    assert!(setting.claim(10).await.is_empty());
    let mut order = Vec::new();
    let mut ended = vec![running[0].clone(), next[0].clone()];
    for _ in 0..6 {
        for job in ended.drain(..) {
            assert!(setting.finish(&job, Verdict::Done(None)).await);
        }
        ended = setting.claim(1).await;
        order.extend(payloads(&ended).into_iter().map(|name| name.starts_with('x')));
    }
    assert!(order.windows(2).all(|pair| pair[0] != pair[1]), "{order:?}");
}

#[tokio::test]
async fn order_holds_under_many_workers_failures_and_lost_leases() {
    let setting =
        setting(json!({ "ordered": true, "max_attempts": 1000, "backoff_first": 0, "keep": 0 })).await;
    let keys = 5;
    setting.put((0..100).map(|n| keyed(&format!("k{}", n % keys), n))).await;
    let mut chance = fastrand::Rng::with_seed(7);
    let (mut done, mut held): (BTreeMap<u64, Vec<u64>>, Vec<ClaimedJob>) = (BTreeMap::new(), Vec::new());
    let mut rounds = 0;
    while done.values().map(Vec::len).sum::<usize>() < 100 {
        rounds += 1;
        assert!(rounds < 5_000, "{done:?}");
        held.extend(setting.claim(chance.u32(1..6)).await);
        let running: Vec<u64> = held.iter().map(|job| (job.id - 1) % keys).collect();
        let one_each: std::collections::BTreeSet<_> = running.iter().collect();
        assert_eq!(one_each.len(), running.len(), "two jobs of one key run");
        chance.shuffle(&mut held);
        match chance.u8(0..10) {
            0 => {
                setting.lapse().await;
                for job in held.drain(..) {
                    assert!(!setting.finish(&job, Verdict::Done(None)).await);
                }
            }
            1 | 2 => {
                if let Some(job) = held.pop() {
                    let retry = Verdict::Retry { error: "no".into(), after: Some(Duration::ZERO) };
                    assert!(setting.finish(&job, retry).await);
                }
            }
            _ => {
                if let Some(job) = held.pop() {
                    assert!(setting.finish(&job, Verdict::Done(None)).await);
                    done.entry((job.id - 1) % keys).or_default().push(job.id);
                }
            }
        }
        setting.tend().await;
    }
    assert!(done.values().all(|ids| ids.is_sorted()), "{done:?}");
}
