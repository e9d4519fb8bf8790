//! State in a real Postgres: commits, fences, sweeps, and what is left after each.

use super::*;
use crate::config::plan::Start;
use crate::ids::{GroupName, HostId, Offset, Partition, TopicName};
use crate::log::SeekTarget;
use crate::log::offsets::{CommitError, Groups, advance_in};
use crate::log::testing::with_topic;
use crate::pg::testing::TestDatabase;
use crate::plugin::state::Session;

const LIMITS: StateLimits =
    StateLimits { quota: 1 << 20, value: 100_000, call_bytes: 1 << 20, call_entries: 10_000 };
const SECOND: Micros = 1_000_000;

struct Setting {
    database: TestDatabase,
    groups: Groups,
    topic: crate::ids::TopicId,
    name: TopicName,
    group: GroupName,
}

/// Ten records in each of two partitions, and a group at the start.
async fn setting() -> Setting {
    let (database, log, topic) = with_topic(2).await;
    for i in 0..20_u8 {
        let key = vec![i].into();
        let record = crate::record::NewRecord { key: Some(key), payload: "x".into(), ..Default::default() };
        log.append(&topic, vec![record], Default::default()).await.unwrap();
    }
    let groups = Groups::new(database.pool.clone());
    let group = GroupName::parse("counters").unwrap();
    groups.join(&group, &topic.name, Start::Earliest).await.unwrap();
    Setting { groups, topic: topic.id, name: topic.name.clone(), group, database }
}

impl Setting {
    async fn lease(&self, partition: Partition) -> Lease {
        let host = HostId("here".into());
        self.groups.acquire(&self.group, self.topic, partition, &host, "p/s").await.unwrap().unwrap()
    }

    async fn open(&self, lease: &Lease) -> TaskState {
        TaskState::open(&self.database.pool, lease, LIMITS).await.unwrap()
    }

    /// One call: `work` on the state, then its commit from an offset to the next.
    async fn call(
        &self,
        state: &mut TaskState,
        lease: &Lease,
        from: Offset,
        now: Micros,
        work: impl AsyncFnOnce(&Session),
    ) -> Result<(), CommitError> {
        let session = begin(state, now);
        work(&session).await;
        let changes = state.take().await;
        let mut transaction = self.database.pool.begin().await?;
        advance_in(&mut transaction, lease, from, from + 1, "sha256:test").await?;
        if let Some(changes) = &changes {
            changes.store_in(&mut transaction).await?;
        }
        transaction.commit().await?;
        if let Some(changes) = changes {
            changes.committed();
        }
        Ok(())
    }

    /// (entries, bytes by the sum, bytes by the rows) over all spaces.
    async fn stored(&self) -> (i64, i64, i64) {
        sqlx::query_as(
            "SELECT (SELECT count(*) FROM tidemill.state_entries), (SELECT coalesce(sum(bytes), 0)::bigint FROM tidemill.state_spaces),
                    (SELECT coalesce(sum(64 + length(key) + length(value)), 0)::bigint FROM tidemill.state_entries)",
        )
        .fetch_one(&self.database.pool)
        .await
        .unwrap()
    }
}

fn begin(state: &mut TaskState, now: Micros) -> Arc<Session> {
    let mut context = Context { now, ..Context::default() };
    state.begin(&mut context);
    context.state.unwrap()
}

async fn get(session: &Session, key: &str) -> Option<Vec<u8>> {
    session.get(vec![key.into()]).await.unwrap().remove(0)
}

async fn set(session: &Session, key: &str, value: &str, ttl: Option<u64>) {
    session.put(key.as_bytes(), value.as_bytes(), ttl).await.unwrap();
}

#[tokio::test]
async fn state_and_offset_are_one_commit_and_a_new_owner_finds_both() {
    let setting = setting().await;
    let lease = setting.lease(0).await;
    let mut state = setting.open(&lease).await;
    setting.call(&mut state, &lease, 0, 1, async |s| set(s, "a", "1", None).await).await.unwrap();
    setting
        .call(&mut state, &lease, 1, 2, async |s| {
            assert_eq!(get(s, "a").await, Some(b"1".to_vec()));
            set(s, "b", "2", None).await;
            s.remove(b"a").await.unwrap();
        })
        .await
        .unwrap();
    // A call that is not committed leaves nothing.
    set(&begin(&mut state, 3), "c", "3", None).await;

    let lease = setting.lease(0).await;
    assert_eq!(lease.next_offset, 2);
    let mut heir = setting.open(&lease).await;
    let session = begin(&mut heir, 4);
    assert_eq!((get(&session, "a").await, get(&session, "b").await), (None, Some(b"2".to_vec())));
    assert_eq!(get(&session, "c").await, None);
    let (entries, sum, rows) = setting.stored().await;
    assert_eq!((entries, sum), (1, rows));
}

#[tokio::test]
async fn an_owner_that_was_replaced_writes_nothing() {
    let setting = setting().await;
    let zombie = setting.lease(0).await;
    let mut old = setting.open(&zombie).await;
    let heir = setting.lease(0).await;
    let mut new = setting.open(&heir).await;
    setting.call(&mut new, &heir, 0, 1, async |s| set(s, "k", "new", None).await).await.unwrap();
    let late = setting.call(&mut old, &zombie, 0, 1, async |s| set(s, "k", "old", None).await).await;
    assert!(matches!(late, Err(CommitError::Fenced)), "{late:?}");
    let lease = setting.lease(0).await;
    let mut state = setting.open(&lease).await;
    assert_eq!(get(&begin(&mut state, 2), "k").await, Some(b"new".to_vec()));
}

#[tokio::test]
async fn partitions_and_groups_do_not_see_each_other() {
    let setting = setting().await;
    let (first, second) = (setting.lease(0).await, setting.lease(1).await);
    let (mut one, mut two) = (setting.open(&first).await, setting.open(&second).await);
    setting.call(&mut one, &first, 0, 1, async |s| set(s, "k", "1", None).await).await.unwrap();
    assert_eq!(get(&begin(&mut two, 1), "k").await, None);
    let other = GroupName::parse("others").unwrap();
    setting.groups.join(&other, &setting.name, Start::Earliest).await.unwrap();
    let host = HostId("here".into());
    let lease = setting.groups.acquire(&other, setting.topic, 0, &host, "p/o").await.unwrap().unwrap();
    let mut state = setting.open(&lease).await;
    assert_eq!(get(&begin(&mut state, 1), "k").await, None);
}

#[tokio::test]
async fn what_has_expired_is_swept_in_portions_and_the_sum_stays_exact() {
    let setting = setting().await;
    let lease = setting.lease(0).await;
    let mut state = setting.open(&lease).await;
    setting
        .call(&mut state, &lease, 0, 0, async |s| {
            for i in 0..1_200_u32 {
                set(s, &format!("k{i:04}"), "value", Some(u64::from(i) * 1_000 + 1)).await;
            }
            set(s, "stays", "", None).await;
        })
        .await
        .unwrap();
    // All but the last hundred have expired: two commits of five hundred and one with the rest.
    let now = 1_100_000;
    for (from, left) in [(1, 701), (2, 201), (3, 101), (4, 101)] {
        let mut state = setting.open(&lease).await;
        setting.call(&mut state, &lease, from, now, async |_| {}).await.unwrap();
        let (entries, sum, rows) = setting.stored().await;
        assert_eq!((entries, sum), (left, rows));
    }
    // Within one task as well, where the cache must forget what was swept.
    let mut state = setting.open(&lease).await;
    let session = begin(&mut state, now);
    assert!(get(&session, "k1150").await.is_some());
    let later = 2 * SECOND;
    setting
        .call(&mut state, &lease, 5, later, async |s| assert_eq!(get(s, "k1150").await, None))
        .await
        .unwrap();
    setting.call(&mut state, &lease, 6, later, async |s| set(s, "k1150", "again", None).await).await.unwrap();
    let (entries, sum, rows) = setting.stored().await;
    assert_eq!((entries, sum), (2, rows));
}

#[tokio::test]
async fn a_scan_joins_pages_of_postgres_with_what_the_call_wrote() {
    let setting = setting().await;
    let lease = setting.lease(0).await;
    let mut state = setting.open(&lease).await;
    let fill = async |s: &Session| {
        for i in (0..5_000_u32).step_by(2) {
            set(s, &format!("k{i:04}"), "", None).await;
        }
        set(s, "l", "", None).await;
    };
    setting.call(&mut state, &lease, 0, 0, fill).await.unwrap();
    let mut state = setting.open(&lease).await;
    let session = begin(&mut state, 0);
    for i in (1..5_000_u32).step_by(2) {
        set(&session, &format!("k{i:04}"), "", None).await;
    }
    session.remove(b"k0000").await.unwrap();
    let found = session.keys(b"k", Some(b"k0009"), 4_000).await.unwrap();
    let expected: Vec<Vec<u8>> = (10..4_010).map(|i| format!("k{i:04}").into_bytes()).collect();
    assert_eq!(found, expected);
    assert_eq!(session.keys(b"k", None, 10_000).await.unwrap().len(), 4_999);
}

#[tokio::test]
async fn a_group_that_is_cleared_or_deleted_leaves_nothing_and_its_owner_is_fenced() {
    let setting = setting().await;
    let (first, second) = (setting.lease(0).await, setting.lease(1).await);
    let (mut one, mut two) = (setting.open(&first).await, setting.open(&second).await);
    setting.call(&mut one, &first, 0, 0, async |s| set(s, "k", "1", None).await).await.unwrap();
    setting.call(&mut two, &second, 0, 0, async |s| set(s, "k", "2", None).await).await.unwrap();
    let (group, name) = (&setting.group, &setting.name);
    setting.groups.seek(group, name, &SeekTarget::Offset(0), Some(0), true).await.unwrap();
    assert_eq!(setting.stored().await.0, 1);
    let late = setting.call(&mut one, &first, 1, 0, async |s| set(s, "k", "3", None).await).await;
    assert!(matches!(late, Err(CommitError::Fenced)), "{late:?}");
    setting.call(&mut two, &second, 1, 0, async |s| set(s, "k", "4", None).await).await.unwrap();
    let lease = setting.lease(0).await;
    assert_eq!(lease.next_offset, 0);
    let mut state = setting.open(&lease).await;
    assert_eq!(get(&begin(&mut state, 0), "k").await, None);
    setting.groups.release(&lease).await.unwrap();
    setting.groups.release(&second).await.unwrap();
    setting.groups.delete(&setting.group).await.unwrap();
    assert_eq!(setting.stored().await.0, 0);
}

#[tokio::test]
async fn a_broken_database_is_an_error_to_the_call_and_not_an_answer() {
    let setting = setting().await;
    let lease = setting.lease(0).await;
    let mut state = setting.open(&lease).await;
    let session = begin(&mut state, 0);
    setting.database.pool.close().await;
    let error = format!("{:?}", session.get(vec![b"k".to_vec()]).await);
    assert!(error.contains("Unavailable"), "{error}");
}

#[test]
fn portions_hold_everything_once_and_stay_small() {
    let sizes = [0, 1, PORTION - 1, 1, 1, PORTION + 5, 3, PORTION, PORTION / 2, PORTION / 2, PORTION / 2];
    let entry = |(i, size): (usize, &usize)| {
        (vec![i as u8], Stored { value: vec![0; *size].into(), expires_at: None })
    };
    let puts: Vec<_> = sizes.iter().enumerate().map(entry).collect();
    let portions: Vec<_> = portions(&puts).collect();
    assert_eq!(portions.concat(), puts);
    for portion in &portions {
        let bytes: usize = portion.iter().map(|(_, stored)| stored.value.len()).sum();
        assert!(bytes <= PORTION || portion.len() == 1, "{bytes} bytes in {} entries", portion.len());
    }
    assert_eq!(portions.len(), 7);
    assert_eq!(super::portions(&[]).count(), 0);
}
