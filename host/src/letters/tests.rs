//! Dead letters against a real Postgres: filtered, queued, ended under an epoch, dropped.

use super::redrive::{Failure, Standing, settle_in};
use super::*;
use crate::config::plan::Start;
use crate::ids::{GroupName, HostId};
use crate::log::offsets::{CommitError, Groups, Lease, hold_in};
use crate::log::testing::{records, with_topic};
use crate::pg::testing::TestDatabase;

struct Setting {
    database: TestDatabase,
    letters: Letters,
    groups: Groups,
    lease: Lease,
    topic: String,
}

/// A group that owns partition 0 of a topic of ten records, and has given up on so many of them.
async fn setting(dead: i64) -> Setting {
    let (database, log, topic) = with_topic(1).await;
    log.append(&topic, records(0..10), Default::default()).await.unwrap();
    let groups = Groups::new(database.pool.clone());
    let group = GroupName::parse("watch").unwrap();
    groups.join(&group, &topic.name, Start::Earliest).await.unwrap();
    let lease = groups.acquire(&group, topic.id, 0, &HostId("h".into()), "p/s").await.unwrap().unwrap();
    let setting =
        Setting { letters: Letters::new(log), database, groups, lease, topic: topic.name.to_string() };
    for offset in 0..dead {
        let kind = if offset % 2 == 0 { "trap" } else { "reject" };
        setting.bury("watch", offset, kind).await;
    }
    setting
}

impl Setting {
    async fn bury(&self, group: &str, offset: i64, kind: &str) {
        sqlx::query(
            "INSERT INTO tidemill.dead_letters (group_name, pipeline, stage, digest, topic, partition, c_offset, ts, key,
                                                headers, payload, kind, error, attempts)
             VALUES ($1, 'p', 's', 'sha256:1a2b', $2, 0, $3, now(), 'k', '[[\"h\", \"v\"]]', convert_to(repeat('x', 300), 'UTF8'),
                     $4, 'out of fuel', 5)",
        )
        .bind(group)
        .bind(&self.topic)
        .bind(offset)
        .bind(kind)
        .execute(&self.database.pool)
        .await
        .unwrap();
    }

    async fn next(&self) -> Option<Letter> {
        self.letters.next(&self.lease, &self.topic).await.unwrap()
    }

    async fn all(&self) -> Vec<Letter> {
        self.letters.list(&Filter::default(), None, None, 100).await.unwrap()
    }
}

fn of_group(group: &str) -> Filter {
    Filter { group: Some(group.to_string()), ..Filter::default() }
}

#[tokio::test]
async fn letters_are_listed_by_page_and_filter_and_shown_whole() {
    let setting = setting(5).await;
    let first = setting.letters.list(&Filter::default(), None, None, 3).await.unwrap();
    let offsets: Vec<u64> = first.iter().map(|letter| letter.record.offset).collect();
    assert_eq!(offsets, [4, 3, 2]);
    let rest = setting.letters.list(&Filter::default(), None, Some(first[2].id), 3).await.unwrap();
    assert_eq!(rest.iter().map(|letter| letter.record.offset).collect::<Vec<_>>(), [1, 0]);
    assert_eq!((first[0].record.payload.len(), first[0].bytes), (256, 300));
    for (filter, count) in [
        (Filter { kind: Some("reject".into()), ..Filter::default() }, 2),
        (Filter { stage: Some("p/s".into()), topic: Some(setting.topic.clone()), ..Filter::default() }, 5),
        (Filter { stage: Some("other".into()), ..Filter::default() }, 0),
        (Filter { digest: Some("1a".into()), ..Filter::default() }, 5),
        (Filter { digest: Some("sha256:1a".into()), ..of_group("watch") }, 5),
        (Filter { digest: Some("2b".into()), ..Filter::default() }, 0),
        (Filter { since: Some(0), ..Filter::default() }, 5),
        (Filter { until: Some(0), ..Filter::default() }, 0),
        (of_group("other"), 0),
    ] {
        let found = setting.letters.list(&filter, None, None, 100).await.unwrap();
        assert_eq!(found.len(), count, "{filter:?}");
    }
    let whole = setting.letters.get(first[0].id).await.unwrap();
    assert_eq!((whole.record.payload.len(), whole.record.headers[0].name.as_str()), (300, "h"));
    assert!(matches!(setting.letters.get(9_999).await, Err(LetterError::Unknown(_))));
}

#[tokio::test]
async fn queued_letters_come_in_the_order_of_offsets_and_end_once() {
    let setting = setting(3).await;
    assert!(setting.next().await.is_none(), "nothing is queued yet");
    assert_eq!(setting.letters.redrive_all(&of_group("watch"), 100).await.unwrap(), 3);
    assert_eq!(setting.letters.redrive_all(&of_group("watch"), 100).await.unwrap(), 0, "they are queued");
    let letter = setting.next().await.unwrap();
    assert_eq!(letter.record.offset, 0);
    let mut transaction = setting.database.pool.begin().await.unwrap();
    assert_eq!(hold_in(&mut transaction, &setting.lease).await.unwrap(), 0);
    assert!(settle_in(&mut transaction, &letter).await.unwrap());
    transaction.commit().await.unwrap();
    assert_eq!(setting.letters.standing(&letter).await.unwrap(), Standing::Gone);
    let mut transaction = setting.database.pool.begin().await.unwrap();
    assert!(!settle_in(&mut transaction, &letter).await.unwrap(), "a second end finds nothing");
    drop(transaction);
    assert_eq!(setting.next().await.unwrap().record.offset, 1);
}

#[tokio::test]
async fn a_letter_that_fails_again_is_dead_with_the_new_error() {
    let setting = setting(1).await;
    let id = setting.all().await[0].id;
    assert_eq!(setting.letters.redrive(&[id]).await.unwrap(), 1);
    let letter = setting.next().await.unwrap();
    let failure = Failure { kind: "deadline", error: "too slow", digest: "sha256:ffff" };
    setting.letters.fail(&setting.lease, &letter, failure).await.unwrap();
    assert!(setting.next().await.is_none());
    let dead = setting.letters.get(id).await.unwrap();
    let is = (dead.kind.as_str(), dead.error.as_str(), dead.digest.as_str(), dead.attempts, dead.queued);
    assert_eq!(is, ("deadline", "too slow", "sha256:ffff", 6, false));
}

#[tokio::test]
async fn a_letter_that_is_to_come_again_waits_and_lets_others_pass() {
    let setting = setting(2).await;
    setting.letters.redrive_all(&of_group("watch"), 100).await.unwrap();
    let letter = setting.next().await.unwrap();
    setting.letters.postpone(&setting.lease, &letter, std::time::Duration::from_secs(3_600)).await.unwrap();
    assert_eq!(setting.next().await.unwrap().record.offset, 1);
    let waits = setting.letters.get(letter.id).await.unwrap();
    assert_eq!((waits.queued, waits.tries, waits.attempts), (true, 1, 6));
}

#[tokio::test]
async fn who_lost_the_lease_and_who_ran_an_old_payload_change_nothing() {
    let setting = setting(2).await;
    setting.letters.redrive_all(&of_group("watch"), 100).await.unwrap();
    let letter = setting.next().await.unwrap();
    sqlx::query("UPDATE tidemill.dead_letters SET payload = 'repaired' WHERE dead_letter_id = $1")
        .bind(letter.id)
        .execute(&setting.database.pool)
        .await
        .unwrap();
    assert_eq!(setting.letters.standing(&letter).await.unwrap(), Standing::Changed);
    let failure = Failure { kind: "trap", error: "of the old payload", digest: "sha256:ffff" };
    setting.letters.fail(&setting.lease, &letter, failure).await.unwrap();
    let repaired = setting.next().await.unwrap();
    assert_eq!((repaired.id, &repaired.record.payload[..]), (letter.id, b"repaired".as_slice()));

    let owner = HostId("h".into());
    let group = setting.lease.group.clone();
    let newer = setting.groups.acquire(&group, setting.lease.topic, 0, &owner, "p/s").await.unwrap();
    assert!(newer.is_some());
    let failure = Failure { kind: "trap", error: "of the old owner", digest: "sha256:ffff" };
    let refused = setting.letters.fail(&setting.lease, &repaired, failure).await;
    assert!(matches!(refused, Err(CommitError::Fenced)), "{refused:?}");
    let refused = setting.letters.postpone(&setting.lease, &repaired, std::time::Duration::ZERO).await;
    assert!(matches!(refused, Err(CommitError::Fenced)), "{refused:?}");
    assert_eq!(setting.letters.standing(&repaired).await.unwrap(), Standing::There);
}

#[tokio::test]
async fn psql_users_queue_by_id_by_filter_and_are_told_what_cannot_be() {
    let setting = setting(4).await;
    setting.bury("nobody", 9, "trap").await;
    let pool = &setting.database.pool;
    let id = setting.all().await[1].id;
    let queued: bool =
        sqlx::query_scalar("SELECT tidemill.redrive($1)").bind(id).fetch_one(pool).await.unwrap();
    let again: bool =
        sqlx::query_scalar("SELECT tidemill.redrive($1)").bind(id).fetch_one(pool).await.unwrap();
    assert_eq!((queued, again), (true, false));
    let count: i64 =
        sqlx::query_scalar("SELECT tidemill.redrive('watch', kind => 'trap')").fetch_one(pool).await.unwrap();
    assert_eq!(count, 2);
    let orphan = setting.letters.list(&of_group("nobody"), None, None, 1).await.unwrap()[0].id;
    assert!(matches!(setting.letters.redrive(&[orphan]).await, Err(LetterError::Impossible(_))));
    assert_eq!(setting.letters.redrive_all(&of_group("nobody"), 10).await.unwrap(), 0);
    assert!(matches!(setting.letters.redrive(&[9_999]).await, Err(LetterError::Unknown(_))));
}

#[tokio::test]
async fn letters_are_counted_and_dropped() {
    let setting = setting(4).await;
    setting.bury("nobody", 9, "trap").await;
    setting.letters.redrive_all(&Filter { kind: Some("trap".into()), ..of_group("watch") }, 1).await.unwrap();
    let counts: Vec<_> = setting.letters.counts().await.unwrap();
    let counts: Vec<_> = counts.iter().map(|it| (it.group.as_str(), it.letters, it.queued)).collect();
    assert_eq!(counts, [("nobody", 1, 0), ("watch", 4, 1)]);
    let reject = Filter { kind: Some("reject".into()), ..of_group("watch") };
    assert_eq!(setting.letters.drop_all(&reject, 100).await.unwrap(), 2);
    let ids: Vec<i64> = setting.all().await.iter().map(|letter| letter.id).collect();
    assert_eq!(setting.letters.drop(&ids).await.unwrap(), 3);
    assert!(setting.letters.counts().await.unwrap().is_empty());
}

#[tokio::test]
async fn letters_go_when_they_were_kept_long_enough_unless_they_are_to_run() {
    let setting = setting(3).await;
    let day = std::time::Duration::from_secs(86_400);
    sqlx::query("UPDATE tidemill.dead_letters SET failed_at = now() - interval '2 days' WHERE c_offset < 2")
        .execute(&setting.database.pool)
        .await
        .unwrap();
    let id = setting.all().await.last().unwrap().id;
    setting.letters.redrive(&[id]).await.unwrap();
    assert_eq!(setting.letters.expire(3 * day).await.unwrap(), 0);
    assert_eq!(setting.letters.expire(day).await.unwrap(), 1);
    let left: Vec<u64> = setting.all().await.iter().map(|letter| letter.record.offset).collect();
    assert_eq!(left, [2, 0]);
}
