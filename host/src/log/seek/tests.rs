use super::*;
use crate::log::AppendOptions;
use crate::log::testing::*;

#[test]
fn targets_are_read_and_printed() {
    for text in ["earliest", "latest", "0", "1234", "tail:5", "2026-01-31T12:00:00.000000Z"] {
        assert_eq!(text.parse::<SeekTarget>().unwrap().to_string(), text);
    }
    assert_eq!(
        "2026-01-31T13:00:00+01:00".parse(),
        Ok::<_, SeekTargetError>(SeekTarget::Time(1_769_860_800_000_000))
    );
    for bad in
        ["", "first", "-1", "tail:", "tail:-1", "1.5", "2026", "99999999999999999999", "2026-13-01T00:00:00Z"]
    {
        match bad.parse::<SeekTarget>() {
            Err(error) => assert!(error.to_string().contains("tail:N"), "{error}"),
            // A year alone is a number, and so an offset.
            Ok(target) => assert_eq!((bad, target), ("2026", SeekTarget::Offset(2026))),
        }
    }
}

#[tokio::test]
async fn targets_mean_offsets() {
    let (database, log, topic) = with_topic(1).await;
    let mut times = Vec::new();
    for n in 0..4 {
        log.append(&topic, records([n, n, n]), AppendOptions::default()).await.unwrap();
        let at: i64 = sqlx::query_scalar("SELECT tidemill.micros(max(ts)) FROM log.events")
            .fetch_one(&database.pool)
            .await
            .unwrap();
        times.push(at);
        // The second half lies in a later segment.
        if n == 1 {
            sqlx::query("UPDATE tidemill.log_counter SET last_ts = last_ts + interval '1 hour'")
                .execute(&database.pool)
                .await
                .unwrap();
        }
    }
    let resolve = |target| {
        let (log, topic) = (log.clone(), topic.clone());
        async move { log.resolve(&topic, 0, &target).await }
    };
    let cases = [
        (SeekTarget::Earliest, 0),
        (SeekTarget::Latest, 12),
        (SeekTarget::Offset(12), 12),
        (SeekTarget::Offset(5), 5),
        (SeekTarget::Tail(2), 10),
        (SeekTarget::Tail(0), 12),
        (SeekTarget::Tail(u64::MAX), 0),
        (SeekTarget::Time(0), 0),
        (SeekTarget::Time(times[1]), 3),
        (SeekTarget::Time(times[1] + 1), 6),
        (SeekTarget::Time(times[2]), 6),
        (SeekTarget::Time(times[3] + 1), 12),
    ];
    for (target, offset) in cases {
        assert_eq!(resolve(target.clone()).await.unwrap(), offset, "{target}");
    }
    let error = resolve(SeekTarget::Offset(13)).await.unwrap_err();
    assert!(
        matches!(error, LogError::Read(FetchError::OutOfRange { from: 13, start: 0, end: 12, .. })),
        "{error}"
    );
}
