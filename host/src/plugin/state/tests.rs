//! Sessions over a space in memory, held against a plain map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::plugin::bindings::shared::tidemill::plugin::state::{Error, Write};

const LIMITS: StateLimits =
    StateLimits { quota: 10_000, value: 1_000, call_bytes: 100_000, call_entries: 1_000 };

fn write(key: &[u8], value: &[u8], ttl: Option<u64>) -> Write {
    Write { key: key.to_vec(), value: value.to_vec(), ttl }
}

async fn get(session: &Session, key: &[u8]) -> Option<Vec<u8>> {
    session.get(vec![key.to_vec()]).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_call_reads_what_it_wrote_and_what_is_not_committed_is_gone() {
    let memory = Memory::default();
    let space = memory.space(LIMITS);
    let first = space.session(0);
    first.set(vec![write(b"a", b"1", None), write(b"b", b"2", None)]).await.unwrap();
    first.delete(vec![b"b".to_vec(), b"never".to_vec()]).await.unwrap();
    assert_eq!(get(&first, b"a").await, Some(b"1".to_vec()));
    assert_eq!(get(&first, b"b").await, None);
    assert_eq!(get(&space.session(0), b"a").await, None);
    drop(first);

    let second = space.session(0);
    second.set(vec![write(b"a", b"3", None)]).await.unwrap();
    memory.commit(&second.take().await.unwrap());
    assert_eq!(get(&space.session(1), b"a").await, Some(b"3".to_vec()));
    assert!(space.session(1).take().await.is_none());
}

#[tokio::test]
async fn entries_expire_by_the_time_of_the_call_and_are_swept() {
    let memory = Memory::default();
    let space = memory.space(LIMITS);
    let call = space.session(1_000);
    call.set(vec![write(b"short", b"1", Some(10)), write(b"long", b"2", Some(100))]).await.unwrap();
    assert_eq!(get(&call, b"short").await, Some(b"1".to_vec()));
    memory.commit(&call.take().await.unwrap());
    assert_eq!(get(&space.session(1_009), b"short").await, Some(b"1".to_vec()));
    assert!(space.session(1_009).take().await.is_none());
    let later = space.session(1_010);
    assert_eq!(get(&later, b"short").await, None);
    assert_eq!(later.scan(vec![], None, 10).await.unwrap().len(), 1);
    let sweep = later.take().await.unwrap();
    assert_eq!((sweep.puts.len(), sweep.deletes.len()), (0, 0));
    memory.commit(&sweep);
    assert_eq!(space.used(), weight(4, 1));
    assert!(!space.is_sweep_due(1_099) && space.is_sweep_due(1_100));
}

#[tokio::test]
async fn limits_refuse_a_write_whole() {
    let space = Memory::default().space(LIMITS);
    let call = space.session(0);
    let too_large = call.set(vec![write(b"ok", b"", None), write(b"k", &[0; 1_001], None)]).await;
    assert!(matches!(too_large, Err(Error::TooLarge(_))), "{too_large:?}");
    assert!(matches!(call.set(vec![write(b"", b"", None)]).await, Err(Error::TooLarge(_))));
    assert!(matches!(call.delete(vec![vec![0; KEY_BYTES + 1]]).await, Err(Error::TooLarge(_))));
    assert!(matches!(call.get(vec![vec![0]; READ_KEYS + 1]).await, Err(Error::TooLarge(_))));
    assert!(call.take().await.is_none());

    let large = |i: u8| write(&[i], &[0; 900], None);
    call.set((0..10).map(large).collect()).await.unwrap();
    let quota = call.set(vec![write(b"one more", &[0; 400], None)]).await;
    assert!(
        matches!(&quota, Err(Error::Quota(text)) if text.contains("raise the limit `state`")),
        "{quota:?}"
    );
    call.set(vec![large(3)]).await.unwrap();
    call.delete(vec![vec![0]]).await.unwrap();
    call.set(vec![write(b"one more", &[0; 400], None)]).await.unwrap();
}

#[tokio::test]
async fn a_space_over_a_lowered_quota_may_shrink() {
    let memory = Memory::default();
    let call = memory.space(LIMITS).session(0);
    call.set((0..9).map(|i| write(&[i], &[0; 900], None)).collect()).await.unwrap();
    memory.commit(&call.take().await.unwrap());
    let call = memory.space(StateLimits { quota: 1_000, ..LIMITS }).session(0);
    assert!(call.set(vec![write(&[3], &[0; 901], None)]).await.is_err());
    call.set(vec![write(&[3], &[0; 100], None)]).await.unwrap();
    call.delete(vec![vec![4]]).await.unwrap();
}

#[test]
fn the_end_of_a_prefix_is_the_next_key_after_it() {
    let end = |prefix: &[u8]| Range { prefix: prefix.to_vec(), after: None }.end();
    assert_eq!(end(b"a"), Some(b"b".to_vec()));
    assert_eq!(end(b"a\xff\xff"), Some(b"b".to_vec()));
    assert_eq!(end(b"\xff"), None);
    assert_eq!(end(b""), None);
}

#[derive(Clone, Debug)]
enum Step {
    Set(Vec<(Vec<u8>, u8, Option<u64>)>),
    Delete(Vec<Vec<u8>>),
    Get(Vec<u8>),
    Scan(Vec<u8>, Option<Vec<u8>>, u32),
    Commit,
    Fail,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0, 1, 255]), 1..4)
}

fn step() -> impl Strategy<Value = Step> {
    let entry = (key(), any::<u8>(), prop::option::of(1..30_u64));
    prop_oneof![
        3 => prop::collection::vec(entry, 1..4).prop_map(Step::Set),
        1 => prop::collection::vec(key(), 1..3).prop_map(Step::Delete),
        2 => key().prop_map(Step::Get),
        3 => (prop::collection::vec(prop::sample::select(vec![0, 1, 255]), 0..2), prop::option::of(key()), 0..6_u32)
            .prop_map(|(prefix, after, limit)| Step::Scan(prefix, after, limit)),
        2 => Just(Step::Commit),
        1 => Just(Step::Fail),
    ]
}

type Model = BTreeMap<Vec<u8>, (u8, Option<i64>)>;

fn live(model: &Model, now: i64) -> impl Iterator<Item = (&Vec<u8>, u8)> {
    model
        .iter()
        .filter(move |(_, (_, at))| at.is_none_or(|at| at > now))
        .map(|(key, (value, _))| (key, *value))
}

proptest! {
    #[test]
    fn sessions_behave_as_a_map_with_transactions(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let memory = Memory::default();
            let space = memory.space(StateLimits { quota: u64::MAX, ..LIMITS });
            let (mut committed, mut model) = (Model::new(), Model::new());
            let mut now = 0;
            let mut session = space.session(now);
            for step in steps {
                match step {
                    Step::Set(entries) => {
                        for (key, value, ttl) in &entries {
                            model.insert(key.clone(), (*value, ttl.map(|ttl| now + ttl as i64)));
                        }
                        let writes = entries.iter().map(|(key, value, ttl)| write(key, &[*value], *ttl)).collect();
                        session.set(writes).await.unwrap();
                    }
                    Step::Delete(keys) => {
                        for key in &keys {
                            model.remove(key);
                        }
                        session.delete(keys).await.unwrap();
                    }
                    Step::Get(key) => {
                        let expected = live(&model, now).find(|(k, _)| **k == key).map(|(_, value)| vec![value]);
                        prop_assert_eq!(get(&session, &key).await, expected);
                    }
                    Step::Scan(prefix, after, limit) => {
                        let expected: Vec<_> = live(&model, now)
                            .filter(|(key, _)| key.starts_with(&prefix) && after.as_ref().is_none_or(|a| *key > a))
                            .take(limit as usize)
                            .map(|(key, value)| (key.clone(), vec![value]))
                            .collect();
                        let found = session.scan(prefix, after, limit).await.unwrap();
                        let found: Vec<_> = found.into_iter().map(|entry| (entry.key, entry.value)).collect();
                        prop_assert_eq!(found, expected);
                    }
                    Step::Commit => {
                        if let Some(writes) = session.take().await {
                            let expected = writes.used;
                            let before: u64 = memory.space(LIMITS).used();
                            memory.commit(&writes);
                            prop_assert!(space.used() <= expected, "{} {expected} {before}", space.used());
                            prop_assert_eq!(space.used(), memory.space(LIMITS).used());
                        }
                        committed = model.clone();
                        now += 7;
                        session = space.session(now);
                    }
                    Step::Fail => {
                        model = committed.clone();
                        now += 7;
                        session = space.session(now);
                    }
                }
            }
            Ok(())
        })?;
    }
}
