use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::pg::testing::database;

#[test]
fn sql_and_rust_send_a_key_to_the_same_partition() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(database());
    let keys = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..200);
    let mut runner = TestRunner::new(Config::with_cases(60));
    runner
        .run(&(keys, 1..=256_u32), |(keys, partitions)| {
            let sql: Vec<i32> = runtime.block_on(async {
                sqlx::query_scalar(
                    "SELECT tidemill.partition_of(k, $2) FROM unnest($1::bytea[]) WITH ORDINALITY u(k, i) ORDER BY i",
                )
                .bind(&keys)
                .bind(partitions.cast_signed())
                .fetch_all(&database.pool)
                .await
                .unwrap()
            });
            for (key, sql) in keys.iter().zip(sql) {
                prop_assert_eq!(partition_of(key, partitions).cast_signed(), sql);
            }
            Ok(())
        })
        .unwrap();
}

/// These must never change: records of a key would no longer be in order.
#[test]
fn the_partition_of_a_key_is_for_ever() {
    let partitions = |key: &str| [1, 4, 7, 256].map(|of| partition_of(key.as_bytes(), of));
    assert_eq!(partitions(""), [0, 2, 1, 66]);
    assert_eq!(partitions("a1b2c3"), [0, 2, 3, 74]);
    assert_eq!(partition_of(b"x", 0), 0);
}

#[test]
fn keys_spread_evenly() {
    let mut counts = [0_u32; 8];
    for n in 0..80_000 {
        counts[partition_of(format!("aircraft-{n}").as_bytes(), 8) as usize] += 1;
    }
    assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
}
