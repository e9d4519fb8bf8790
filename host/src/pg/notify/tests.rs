use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::time::timeout;

use super::*;
use crate::pg::pool;
use crate::pg::testing::{self, TestDatabase};

const SOON: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_millis(150);

fn listening(database: &TestDatabase) -> NotifyHub {
    NotifyHub::start(database.pool.clone(), Some(pool::parse_url(&database.url).unwrap()))
}

fn deaf(database: &TestDatabase) -> NotifyHub {
    NotifyHub::start(database.pool.clone(), None)
}

/// The pid of the hub's listening session, once it listens.
async fn listener_pid(database: &TestDatabase) -> i32 {
    let sql = "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND query LIKE 'LISTEN%'";
    timeout(SOON, async {
        loop {
            let pid = sqlx::query_scalar(sql).bind(&database.name).fetch_optional(&database.pool).await;
            if let Some(pid) = pid.unwrap() {
                return pid;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_local_append_wakes_only_the_waiters_of_its_topic() {
    let database = testing::empty_database().await;
    let hub = deaf(&database);
    let (mut one, mut two) = (hub.subscribe(TopicId(1)), hub.subscribe(TopicId(2)));
    hub.appended(TopicId(1));
    timeout(SOON, one.woken()).await.unwrap();
    assert!(timeout(NEVER, two.woken()).await.is_err(), "topic 2 was woken by an append to topic 1");
    assert!(timeout(NEVER, one.woken()).await.is_err(), "one append woke twice");
}

#[tokio::test]
async fn an_append_between_two_waits_is_not_missed() {
    let database = testing::empty_database().await;
    let hub = deaf(&database);
    let mut waiter = hub.subscribe(TopicId(1));
    for _ in 0..3 {
        hub.appended(TopicId(1));
    }
    timeout(SOON, waiter.woken()).await.unwrap();
    assert!(timeout(NEVER, waiter.woken()).await.is_err(), "three appends count as one");
}

#[tokio::test]
async fn an_append_in_one_process_wakes_another() {
    let database = testing::empty_database().await;
    let (near, far) = (deaf(&database), listening(&database));
    let (mut waiter, mut other) = (far.subscribe(TopicId(7)), far.subscribe(TopicId(8)));
    // The first wake-up is the listener's own, when it has connected.
    timeout(SOON, waiter.woken()).await.unwrap();
    timeout(SOON, other.woken()).await.unwrap();
    near.appended(TopicId(7));
    timeout(SOON, waiter.woken()).await.unwrap();
    assert!(timeout(NEVER, other.woken()).await.is_err());
}

#[tokio::test]
async fn a_hub_does_not_wake_by_its_own_notification() {
    let database = testing::empty_database().await;
    let hub = listening(&database);
    let mut waiter = hub.subscribe(TopicId(1));
    timeout(SOON, waiter.woken()).await.unwrap();
    hub.appended(TopicId(1));
    timeout(SOON, waiter.woken()).await.unwrap();
    assert!(timeout(NEVER, waiter.woken()).await.is_err(), "woken again by the NOTIFY");
}

#[tokio::test]
async fn many_appends_become_few_notifications() {
    let database = testing::empty_database().await;
    let mut listener = PgListener::connect(&database.url).await.unwrap();
    listener.listen(CHANNEL).await.unwrap();
    let hub = deaf(&database);
    let started = tokio::time::Instant::now();
    for round in 0..1000 {
        hub.appended(TopicId(round % 10));
        tokio::task::yield_now().await;
    }
    hub.appended(TopicId(99));
    let (mut count, mut seen) = (0, BTreeSet::new());
    while !seen.contains("99") {
        let payload = timeout(SOON, listener.recv()).await.unwrap().unwrap().payload().to_owned();
        seen.extend(payload.split_once(' ').unwrap().1.split(',').map(str::to_owned));
        count += 1;
    }
    assert_eq!(seen.len(), 11, "{seen:?}");
    let most = started.elapsed().as_millis() / PAUSE.as_millis() + 2;
    assert!(count <= most, "{count} notifications in the time for {most}");
}

#[tokio::test]
async fn a_lost_listener_comes_back_and_wakes_everybody() {
    let database = testing::empty_database().await;
    let hub = listening(&database);
    let mut waiter = hub.subscribe(TopicId(1));
    timeout(SOON, waiter.woken()).await.unwrap();

    let killed = listener_pid(&database).await;
    sqlx::query("SELECT pg_terminate_backend($1)").bind(killed).execute(&database.pool).await.unwrap();
    timeout(SOON, waiter.woken()).await.unwrap();
    assert_ne!(listener_pid(&database).await, killed);

    let other = deaf(&database);
    other.appended(TopicId(1));
    timeout(SOON, waiter.woken()).await.unwrap();
}

#[tokio::test]
async fn any_payload_is_survived() {
    let database = testing::empty_database().await;
    let hub = deaf(&database);
    let mut waiter = hub.subscribe(TopicId(1));
    for odd in ["", " ", "x", "x 2,,a,99999999999", "x 2", "heartbeat"] {
        hub.shared.received(odd);
    }
    assert!(timeout(NEVER, waiter.woken()).await.is_err());
    hub.shared.received("x *");
    timeout(SOON, waiter.woken()).await.unwrap();
    hub.shared.received("x 3,1");
    timeout(SOON, waiter.woken()).await.unwrap();
}

#[tokio::test]
async fn the_payload_stays_within_what_postgres_takes() {
    let database = testing::empty_database().await;
    let hub = deaf(&database);
    let longest: BTreeSet<TopicId> = (0..TOPICS_MAX as i32).map(|n| TopicId(i32::MIN + n)).collect();
    let payload = hub.shared.payload(&longest);
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(CHANNEL)
        .bind(&payload)
        .execute(&database.pool)
        .await
        .unwrap();
    let more: BTreeSet<TopicId> = (0..=TOPICS_MAX as i32).map(TopicId).collect();
    assert!(hub.shared.payload(&more).ends_with(" *"));
}

#[tokio::test]
async fn topics_nobody_waits_for_are_forgotten() {
    let database = testing::empty_database().await;
    let hub = deaf(&database);
    for topic in 0..100 {
        drop(hub.subscribe(TopicId(topic)));
    }
    assert!(locked(&hub.shared.topics).len() <= 1);
}
