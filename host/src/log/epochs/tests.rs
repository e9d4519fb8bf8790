//! What a fail-over leaves, made by hand: the end of the log is gone, and the last append was on another timeline. A real
//! standby is promoted in `tests/it/failover.rs`.

use super::*;
use crate::config::plan::Start;
use crate::ids::{GroupName, HostId, LogEpoch, Offset};
use crate::log::offsets::{CommitError, Groups, advance_in};
use crate::log::testing::{payload, records, to, with_topic};
use crate::log::{FetchLimits, Topic};
use crate::pg::testing::TestDatabase;

fn under(offset: Offset, epoch: i32) -> Place {
    Place { offset, epoch: Some(LogEpoch(epoch)) }
}

async fn append(log: &Log, topic: &Topic, payloads: impl IntoIterator<Item = &str>) {
    for payload in payloads {
        log.append(topic, records([payload]), to(0)).await.unwrap();
    }
}

/// Takes the log back to `end`, as if a standby had taken over that had got no further.
async fn lose(database: &TestDatabase, end: i64) {
    for change in [
        "UPDATE tidemill.log_counter SET next_offset = $1, timeline = timeline - 1 WHERE partition = 0",
        "DELETE FROM log.events WHERE partition = 0 AND base_offset >= $1",
        "UPDATE tidemill.installation SET timeline = timeline - 1 WHERE $1 >= 0",
    ] {
        sqlx::query(change).bind(end).execute(&database.pool).await.unwrap();
    }
}

async fn fetched(log: &Log, topic: &Topic, place: Place) -> Result<Vec<String>, FetchError> {
    let fetched = log.fetch(topic, 0, place, FetchLimits::default()).await?;
    Ok(fetched.batches.iter().flat_map(|batch| batch.records.iter()).map(|r| payload(r).to_owned()).collect())
}

fn lost(error: FetchError) -> (Offset, Offset) {
    match error {
        FetchError::Lost { from, until, .. } => (from, until),
        other => panic!("{other}"),
    }
}

/// Of partition 0.
async fn epoch(log: &Log, topic: &Topic) -> i32 {
    log.bounds(topic.id).await.unwrap()[0].log_epoch.0
}

#[tokio::test]
async fn who_had_read_what_is_gone_is_told_and_nobody_gets_it_from_the_cache() {
    let (database, log, topic) = with_topic(1).await;
    append(&log, &topic, ["a", "b", "c", "d", "e"]).await;
    assert_eq!(fetched(&log, &topic, under(0, 1)).await.unwrap(), ["a", "b", "c", "d", "e"]);
    lose(&database, 3).await;
    let error = fetched(&log, &topic, under(5, 1)).await.unwrap_err();
    assert!(
        matches!(error, FetchError::OutOfRange { from: 5, end: 3, .. }),
        "not noticed yet, and not silent: {error}"
    );
    append(&log, &topic, ["x"]).await;
    assert_eq!(lost(fetched(&log, &topic, under(5, 1)).await.unwrap_err()), (3, 5), "beyond the end");
    append(&log, &topic, ["y", "z"]).await;
    let now = epoch(&log, &topic).await;
    let error = fetched(&log, &topic, under(5, 1)).await.unwrap_err();
    assert!(
        error.to_string().starts_with("offsets 3 up to 5 of partition 0 are gone: another server took over"),
        "{error}"
    );
    assert_eq!(lost(error), (3, 5), "grown past the place");
    assert_eq!(
        fetched(&log, &topic, under(3, now)).await.unwrap(),
        ["x", "y", "z"],
        "not d and e from the cache"
    );
    assert_eq!(
        fetched(&log, &topic, under(3, 1)).await.unwrap(),
        ["x", "y", "z"],
        "read up to where it broke"
    );
    assert_eq!(fetched(&log, &topic, Place::from(5)).await.unwrap(), ["z"], "chosen, not kept");
    let error = fetched(&log, &topic, under(5, now - 1)).await.unwrap_err();
    assert_eq!(lost(error), (3, 5), "read from a server that this one knows nothing of");
    assert_eq!(log.check_server().await.unwrap(), 0, "the append has begun the epoch");
}

#[tokio::test]
async fn a_look_begins_the_epochs_of_partitions_without_appends() {
    let (database, log, topic) = with_topic(2).await;
    append(&log, &topic, ["a", "b"]).await;
    assert_eq!(log.check_server().await.unwrap(), 0);
    lose(&database, 1).await;
    assert_eq!(log.check_server().await.unwrap(), 1, "partition 1 was not touched by it");
    assert_eq!(log.check_server().await.unwrap(), 0);
    assert_eq!(lost(fetched(&log, &topic, under(2, 1)).await.unwrap_err()), (1, 2));
    let first = LogEpoch(epoch(&log, &topic).await);
    // A restored backup: another cluster, whatever its timeline.
    sqlx::query("UPDATE tidemill.installation SET system_identifier = 7")
        .execute(&database.pool)
        .await
        .unwrap();
    assert_eq!(log.check_server().await.unwrap(), 2);
    let bounds = log.bounds(topic.id).await.unwrap();
    assert!(bounds.iter().all(|bound| bound.log_epoch > LogEpoch(1)), "{bounds:?}");
    assert!(bounds[0].log_epoch > first, "raised twice, be it within one second");
}

#[tokio::test]
async fn what_was_read_of_an_earlier_epoch_is_not_committed() {
    let (database, log, topic) = with_topic(1).await;
    append(&log, &topic, ["a", "b", "c"]).await;
    let groups = Groups::new(database.pool.clone());
    let (group, host) = (GroupName::parse("readers").unwrap(), HostId("a".into()));
    groups.join(&group, &topic.name, Start::Earliest).await.unwrap();
    let lease = groups.acquire(&group, topic.id, 0, &host, "p/s").await.unwrap().unwrap();
    let advance = async |lease: &_, to| {
        let mut transaction = database.pool.begin().await.unwrap();
        let result = advance_in(&mut transaction, lease, 0, to, "sha256:test").await;
        transaction.rollback().await.unwrap();
        result
    };
    advance(&lease, 3).await.unwrap();
    lose(&database, 1).await;
    assert!(
        matches!(advance(&lease, 3).await, Err(CommitError::Fenced)),
        "beyond the end, before it is noticed"
    );
    append(&log, &topic, ["x", "y"]).await;
    assert!(matches!(advance(&lease, 3).await, Err(CommitError::Fenced)), "of other records, after it");
    let again = groups.acquire(&group, topic.id, 0, &host, "p/s").await.unwrap().unwrap();
    advance(&again, 3).await.unwrap();
    let told = (again.given_anew(1), again.given_anew(2), lease.given_anew(3));
    assert_eq!(told, (None, Some(again.log_epoch), None), "what tells deliveries apart");
    let other = crate::log::offsets::Lease { owner: HostId("b".into()), ..again };
    assert!(matches!(advance(&other, 3).await, Err(CommitError::Fenced)), "epochs repeat, owners do not");
}
