//! Leases and fences against a real Postgres.

use super::*;
use crate::log::testing::with_topic;
use crate::pg::testing::TestDatabase;

fn host(name: &str) -> HostId {
    HostId(name.into())
}

fn group() -> GroupName {
    GroupName::parse("readers").unwrap()
}

/// Two records in partition 0, and a group at the start.
async fn setting() -> (TestDatabase, Groups, TopicId, TopicName) {
    let (database, log, topic) = with_topic(1).await;
    for payload in ["a", "b"] {
        let record = crate::record::NewRecord { payload: payload.into(), ..Default::default() };
        log.append(&topic, vec![record], Default::default()).await.unwrap();
    }
    let groups = Groups::new(database.pool.clone());
    groups.join(&group(), &topic.name, Start::Earliest).await.unwrap();
    (database, groups, topic.id, topic.name.clone())
}

async fn advance(groups: &Groups, lease: &Lease, from: Offset, to: Offset) -> Result<(), CommitError> {
    let mut transaction = groups.pool.begin().await.unwrap();
    let result = advance_in(&mut transaction, lease, from, to, "sha256:test").await;
    transaction.commit().await.unwrap();
    result
}

async fn expire(groups: &Groups) {
    sqlx::query("UPDATE tidemill.consumer_offsets SET expires_at = clock_timestamp() - interval '1 s'")
        .execute(&groups.pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_live_lease_is_not_given_to_another_host() {
    let (_database, groups, topic, _) = setting().await;
    let held = groups.acquire(&group(), topic, 0, &host("a"), "p/s").await.unwrap();
    assert!(held.is_some());
    assert_eq!(groups.acquire(&group(), topic, 0, &host("b"), "p/s").await.unwrap(), None);
    groups.release(&held.unwrap()).await.unwrap();
    assert!(groups.acquire(&group(), topic, 0, &host("b"), "p/s").await.unwrap().is_some());
}

#[tokio::test]
async fn an_owner_that_was_replaced_changes_nothing() {
    let (_database, groups, topic, _) = setting().await;
    let zombie = groups.acquire(&group(), topic, 0, &host("a"), "p/s").await.unwrap().unwrap();
    expire(&groups).await;
    let heir = groups.acquire(&group(), topic, 0, &host("b"), "p/s").await.unwrap().unwrap();
    assert!(heir.epoch > zombie.epoch);
    assert!(matches!(advance(&groups, &zombie, 0, 1).await, Err(CommitError::Fenced)));
    assert_eq!(groups.standing(&heir).await.unwrap(), Some((0, heir.epoch)));
    advance(&groups, &heir, 0, 2).await.unwrap();
    assert!(matches!(advance(&groups, &zombie, 2, 1).await, Err(CommitError::Fenced)));
    // Nor may it give away what is no longer its own.
    groups.release(&zombie).await.unwrap();
    assert_eq!(groups.acquire(&group(), topic, 0, &host("c"), "p/s").await.unwrap(), None);
}

#[tokio::test]
async fn a_commit_from_another_offset_than_the_stored_one_is_refused() {
    let (_database, groups, topic, _) = setting().await;
    let lease = groups.acquire(&group(), topic, 0, &host("a"), "p/s").await.unwrap().unwrap();
    advance(&groups, &lease, 0, 1).await.unwrap();
    // The same batch again, as after a lost answer.
    assert!(matches!(advance(&groups, &lease, 0, 1).await, Err(CommitError::Fenced)));
    assert_eq!(groups.standing(&lease).await.unwrap(), Some((1, lease.epoch)));
}

#[tokio::test]
async fn a_seek_fences_the_owner_and_a_host_takes_its_own_lease_back_at_once() {
    let (_database, groups, topic, name) = setting().await;
    let lease = groups.acquire(&group(), topic, 0, &host("a"), "p/s").await.unwrap().unwrap();
    advance(&groups, &lease, 0, 2).await.unwrap();
    groups.seek(&group(), &name, &SeekTarget::Earliest, None, false).await.unwrap();
    assert!(matches!(advance(&groups, &lease, 2, 2).await, Err(CommitError::Fenced)));
    let again = groups.acquire(&group(), topic, 0, &host("a"), "p/s").await.unwrap().unwrap();
    assert_eq!(again.next_offset, 0);
    // Restarted after a kill, the host still is the owner on record.
    assert!(groups.acquire(&group(), topic, 0, &host("a"), "p/s").await.unwrap().is_some());
}

#[tokio::test]
async fn a_producer_commits_once_for_each_position() {
    let (_database, groups, ..) = setting().await;
    let (pipeline, stage) = (PipelineName::parse("p").unwrap(), StageName::parse("s").unwrap());
    let lease = groups.acquire_source(&pipeline, &stage, &host("a")).await.unwrap().unwrap();
    assert_eq!((lease.position.clone(), lease.commits), (None, 0));
    assert_eq!(groups.acquire_source(&pipeline, &stage, &host("b")).await.unwrap(), None);
    for expected in [true, false] {
        let mut transaction = groups.pool.begin().await.unwrap();
        let stored = advance_source_in(&mut transaction, &lease, b"here").await;
        transaction.commit().await.unwrap();
        assert_eq!(stored.is_ok(), expected, "the same step twice");
    }
    assert_eq!(groups.source_standing(&lease).await.unwrap(), Some((1, lease.epoch)));
    let again = groups.acquire_source(&pipeline, &stage, &host("a")).await.unwrap().unwrap();
    assert_eq!(again.position.as_deref(), Some(&b"here"[..]));
}

#[tokio::test]
async fn the_lag_is_what_is_not_yet_committed() {
    let (_database, groups, topic, _) = setting().await;
    let lease = groups.acquire(&group(), topic, 0, &host("a"), "p/s").await.unwrap().unwrap();
    advance(&groups, &lease, 0, 1).await.unwrap();
    let lag = groups.describe(&group()).await.unwrap();
    assert_eq!((lag.len(), lag[0].lag, lag[0].stage.as_deref()), (1, 1, Some("p/s")));
    assert_eq!(lag[0].partitions[0].owner.as_deref(), Some("a"));
    assert_eq!(groups.delete(&group()).await.unwrap(), Deleted::InUse);
    groups.release(&lease).await.unwrap();
    assert_eq!(groups.delete(&group()).await.unwrap(), Deleted::Done);
    assert_eq!(groups.delete(&group()).await.unwrap(), Deleted::Unknown);
}
