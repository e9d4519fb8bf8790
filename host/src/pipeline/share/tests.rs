//! Two hosts' shares against a real Postgres. What is assigned to whom is tested in `assign`.

use super::*;
use crate::ids::HostId;
use crate::pg::testing::{TestDatabase, database};

const PATIENCE: Duration = Duration::from_secs(20);

/// A host without a listener, which finds everything by looking.
struct Host {
    shares: Shares,
    token: CancellationToken,
}

impl Host {
    async fn start(database: &TestDatabase, name: &str) -> Self {
        let member = Member { host: HostId(name.into()), version: "0", url: "http://127.0.0.1:0".into() };
        let shares = Shares::new(Hosts::new(database.pool.clone()), member);
        shares.enter().await.unwrap();
        shares.run(Stages::from([("p/s".to_string(), 2)]));
        let token = CancellationToken::new();
        let hub = NotifyHub::start(database.pool.clone(), None);
        tokio::spawn(shares.clone().keep(hub, token.clone()));
        Self { shares, token }
    }

    fn count(&self) -> usize {
        self.shares.shared.mine.borrow().len()
    }

    async fn has(&self, count: usize) {
        let mut mine = self.shares.shared.mine.subscribe();
        let reached = tokio::time::timeout(PATIENCE, mine.wait_for(|mine| mine.len() == count)).await;
        assert!(reached.is_ok(), "has {} instead of {count}", self.count());
    }
}

#[tokio::test]
async fn hosts_share_and_one_that_leaves_or_falls_silent_is_replaced() {
    let database = database().await;
    let first = Host::start(&database, "a").await;
    first.has(2).await;
    let second = Host::start(&database, "b").await;
    first.has(1).await;
    second.has(1).await;

    second.shares.leave().await;
    first.has(2).await;
    second.has(0).await;

    second.shares.run(Stages::from([("p/s".to_string(), 2)]));
    first.has(1).await;
    // No word from it any more: what it had is free when its time is over.
    second.token.cancel();
    first.has(2).await;
    assert_eq!(second.count(), 1, "it does not know");
}

#[tokio::test]
async fn work_is_told_to_end_when_its_partition_goes_to_another_host() {
    let database = database().await;
    let first = Host::start(&database, "a").await;
    first.has(2).await;
    let works = |partition| {
        let mut share = first.shares.of("p/s", partition);
        let held = CancellationToken::new();
        async move {
            let work = async {
                held.cancelled().await;
                partition
            };
            share.during(&held, work).await
        }
    };
    let both = async {
        tokio::select! { ended = works(0) => ended, ended = works(1) => ended }
    };
    let (ended, _second) = tokio::join!(tokio::time::timeout(PATIENCE, both), Host::start(&database, "b"));
    // Who joins gets the last one: what is held stays in order.
    assert!(ended.is_ok(), "neither was handed over");
}

#[tokio::test]
async fn a_process_that_starts_does_not_keep_alive_what_the_one_before_it_held() {
    let database = database().await;
    let first = Host::start(&database, "a").await;
    first.has(2).await;
    let _taken = first.shares.of("p/gone", 0).take();
    lease(&database, "gone").await;
    let roll = first.shares.shared.hosts.roll().await.unwrap();
    assert_eq!(roll.held.len(), 1, "{roll:?}");
    first.shares.enter().await.unwrap();
    let roll = first.shares.shared.hosts.roll().await.unwrap();
    assert!(roll.held.is_empty(), "{roll:?}");
}

/// A lease that the first host has in Postgres.
async fn lease(database: &TestDatabase, stage: &str) {
    sqlx::query("INSERT INTO tidemill.sources (pipeline, stage, owner, expires_at) VALUES ('p', $1, 'a', now() + interval '1 h')")
        .bind(stage)
        .execute(&database.pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_lease_that_no_task_has_is_given_back_though_the_host_lives() {
    let database = database().await;
    let first = Host::start(&database, "a").await;
    first.has(2).await;
    let taken = first.shares.of("p/taken", 0).take();
    lease(&database, "taken").await;
    let held = async || -> Vec<String> {
        let roll = first.shares.shared.hosts.roll().await.unwrap();
        roll.held.into_keys().map(|slot| slot.stage).collect()
    };
    let until = Instant::now() + PATIENCE;
    // One that could not be given back.
    lease(&database, "left").await;
    while held().await != ["p/taken"] {
        assert!(Instant::now() < until, "{:?}", held().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(taken);
    while !held().await.is_empty() {
        assert!(Instant::now() < until, "{:?}", held().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
