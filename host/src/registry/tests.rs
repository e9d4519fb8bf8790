//! Decisions about versions, as Postgres takes them. The plugins need no bytes that run: nothing here runs them.

use super::*;
use crate::pg::testing::{TestDatabase, database};

const STAGE: &str = "p/s";

async fn with_plugins(count: u32) -> (TestDatabase, Registry, Vec<String>) {
    let database = database().await;
    let mut digests = Vec::new();
    for number in 0..count {
        let digest = format!("sha256:{number:064x}");
        sqlx::query(
            "INSERT INTO tidemill.plugins (digest, kind, name, version, bytes, size, pushed_by)
             VALUES ($1, 'transform', 'a', '1', '\\x00', 1, 'test')",
        )
        .bind(&digest)
        .execute(&database.pool)
        .await
        .unwrap();
        digests.push(digest);
    }
    let registry = Registry::new(database.pool.clone());
    (database, registry, digests)
}

async fn activate(registry: &Registry, digest: &str, source: Source) -> Active {
    registry.activate(STAGE, digest, source, "h", true).await.unwrap()
}

#[tokio::test]
async fn the_first_version_is_believed_and_the_next_one_is_on_probation() {
    let (_database, registry, digests) = with_plugins(2).await;
    let first = activate(&registry, &digests[0], Source::File).await;
    assert_eq!((first.epoch, first.state, first.previous), (1, Standing::Stable, None));
    let second = activate(&registry, &digests[1], Source::File).await;
    assert_eq!((second.epoch, second.state), (2, Standing::Probation));
    assert_eq!(second.previous.as_ref(), Some(&digests[0]));
    let again = activate(&registry, &digests[1], Source::Push).await;
    assert_eq!(again, second, "what runs already changes nothing");
    assert!(registry.prove(STAGE, 2).await.unwrap());
    assert!(!registry.prove(STAGE, 2).await.unwrap());
}

#[tokio::test]
async fn what_stands_by_is_never_itself_on_probation() {
    let (_database, registry, digests) = with_plugins(3).await;
    activate(&registry, &digests[0], Source::File).await;
    activate(&registry, &digests[1], Source::Push).await;
    let third = activate(&registry, &digests[2], Source::Push).await;
    assert_eq!(third.previous.as_ref(), Some(&digests[0]));
    let back = activate(&registry, &digests[0], Source::Push).await;
    assert_eq!((back.state, back.previous), (Standing::Stable, None), "it is proven");
}

#[tokio::test]
async fn one_of_many_hosts_rolls_back_and_a_file_does_not_bring_it_again() {
    let (_database, registry, digests) = with_plugins(2).await;
    activate(&registry, &digests[0], Source::File).await;
    let bad = activate(&registry, &digests[1], Source::File).await;
    let judging: Vec<_> = (0..8)
        .map(|_| {
            let registry = registry.clone();
            tokio::spawn(async move { registry.fail(STAGE, bad.epoch, "it traps", "h").await.unwrap() })
        })
        .collect();
    let mut decided = Vec::new();
    for judge in judging {
        decided.extend(judge.await.unwrap());
    }
    let [restored] = &decided[..] else { panic!("{decided:?}") };
    assert_eq!((restored.epoch, restored.state), (3, Standing::RolledBack));
    assert_eq!((&restored.digest, restored.reason.as_deref()), (&digests[0], Some("it traps")));
    assert_eq!(&activate(&registry, &digests[1], Source::File).await, restored);
    let pushed = activate(&registry, &digests[1], Source::Push).await;
    assert_eq!((pushed.epoch, pushed.state), (4, Standing::Probation));
    assert!(pushed.refused.is_empty());
}

#[tokio::test]
async fn a_rollback_by_hand_goes_to_what_was_proven_or_to_what_is_named() {
    let (_database, registry, digests) = with_plugins(3).await;
    activate(&registry, &digests[0], Source::File).await;
    let error = registry.roll_back(STAGE, None, "me").await.unwrap_err();
    assert!(matches!(error, RegistryError::Impossible(_)), "{error}");
    for (epoch, digest) in [(2, &digests[1]), (3, &digests[2])] {
        activate(&registry, digest, Source::Push).await;
        registry.prove(STAGE, epoch).await.unwrap();
    }
    let back = registry.roll_back(STAGE, None, "me").await.unwrap();
    assert_eq!((&back.digest, back.state), (&digests[1], Standing::RolledBack));
    let further = registry.roll_back(STAGE, None, "me").await.unwrap();
    assert_eq!(further.digest, digests[0], "the proven one before that");
    let digits = &digests[2]["sha256:".len()..];
    let named = registry.roll_back(STAGE, Some(digits), "me").await.unwrap();
    assert_eq!(named.digest, digests[2]);
    let error = registry.roll_back(STAGE, Some("0000"), "me").await.unwrap_err();
    assert!(matches!(error, RegistryError::Invalid(_)), "{error}");
    let error = registry.roll_back(STAGE, Some("ffff"), "me").await.unwrap_err();
    assert!(matches!(error, RegistryError::Unknown(_)), "{error}");
}

#[tokio::test]
async fn bytes_are_forgotten_when_nothing_ran_them_lately_and_names_are_not() {
    let (database, registry, digests) = with_plugins(14).await;
    for (epoch, digest) in (1..).zip(&digests) {
        activate(&registry, digest, Source::Push).await;
        registry.prove(STAGE, epoch).await.unwrap();
        // What was stored a moment ago is kept: it may be about to be made active.
        sqlx::query("UPDATE tidemill.plugins SET pushed_at = now() - interval '1 hour' WHERE digest = $1")
            .bind(digest)
            .execute(&database.pool)
            .await
            .unwrap();
    }
    let mut kept: Vec<(String, bool)> =
        registry.list().await.unwrap().into_iter().map(|stored| (stored.digest, stored.kept)).collect();
    kept.sort();
    let kept: Vec<bool> = kept.into_iter().map(|(_, kept)| kept).collect();
    assert_eq!(kept, [[false; 4].as_slice(), &[true; 10]].concat());
    let error = registry.roll_back(STAGE, Some(&digests[0]), "me").await.unwrap_err();
    assert!(matches!(error, RegistryError::Impossible(_)), "{error}");
    assert_eq!(registry.bytes(&digests[13]).await.unwrap(), Some(vec![0]));
    assert_eq!(registry.bytes(&digests[0]).await.unwrap(), None);
}
