//! Repeats, take-overs and lost answers of idempotent producers.

use super::*;

#[tokio::test]
async fn a_repeat_is_stored_once_and_gets_the_first_answer() {
    let (_database, log, topic) = with_topic(4).await;
    let batch = || -> Vec<_> { (0..20).map(|n| record(Some(&format!("k{n}")), "x")).collect() };
    let first = log.append(&topic, batch(), by("p", 0, 7)).await.unwrap();
    assert!(first.len() > 1 && first.iter().all(|part| !part.duplicate));
    // Eight sequences are remembered, so seven may come between.
    for seq in 8..15 {
        log.append(&topic, batch(), by("p", 0, seq)).await.unwrap();
    }
    let again = log.append(&topic, batch(), by("p", 0, 7)).await.unwrap();
    for (first, again) in first.iter().zip(&again) {
        assert_eq!(again, &Appended { duplicate: true, ..*first });
    }
    log.append(&topic, batch(), by("p", 0, 15)).await.unwrap();
    let forgotten = log.append(&topic, batch(), by("p", 0, 7)).await.unwrap_err();
    assert!(matches!(forgotten, AppendError::OutOfSequence(_)), "{forgotten}");
    let total: u64 = log.bounds(topic.id).await.unwrap().iter().map(|bounds| bounds.next).sum();
    assert_eq!(total, 9 * 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_repeats_through_two_hosts_are_stored_once() {
    let (database, one, topic) = with_topic(2).await;
    let two = log_with(&database, LogOptions::default());
    for seq in 0..20 {
        let sends: Vec<_> = (0..6)
            .map(|n| {
                let (log, topic) = (if n % 2 == 0 { one.clone() } else { two.clone() }, topic.clone());
                // Others on the same partitions, so that repeats meet in groups with strangers.
                let other = log.clone();
                let (other_topic, id) = (topic.clone(), format!("other {n}"));
                tokio::spawn(async move {
                    other.append(&other_topic, records(["other"]), by(&id, 0, seq)).await.unwrap();
                });
                tokio::spawn(async move {
                    let batch = (0..10).map(|n| record(Some(&format!("k{n}")), format!("p {seq}"))).collect();
                    log.append(&topic, batch, by("p", 0, seq)).await.unwrap()
                })
            })
            .collect();
        let mut answers = Vec::new();
        for send in sends {
            answers.push(send.await.unwrap());
        }
        for part in 0..answers[0].len() {
            let fresh = answers.iter().filter(|answer| !answer[part].duplicate).count();
            assert_eq!(fresh, 1, "sequence {seq}");
            let offsets = |a: &Vec<Appended>| (a[part].base_offset, a[part].next_offset);
            assert!(answers.iter().all(|answer| offsets(answer) == offsets(&answers[0])));
        }
    }
    let mut stored = read(&one, &topic, 0, 0).await;
    stored.extend(read(&one, &topic, 1, 0).await);
    let ours = stored.iter().filter(|record| payload(record).starts_with("p ")).count();
    assert_eq!(ours, 200);
}

#[tokio::test]
async fn an_older_instance_of_a_producer_is_fenced() {
    let (_database, log, topic) = with_topic(1).await;
    log.append(&topic, records(["a"]), by("p", 1, 5)).await.unwrap();
    log.append(&topic, records(["b"]), by("p", 2, 0)).await.unwrap();
    let fenced = log.append(&topic, records(["c"]), by("p", 1, 6)).await.unwrap_err();
    assert!(matches!(fenced, AppendError::Fenced(_)), "{fenced}");
    assert!(fenced.to_string().contains("has epoch 2"), "{fenced}");
    log.append(&topic, records(["d"]), by("p", 2, 1)).await.unwrap();
    let stored: Vec<_> = read(&log, &topic, 0, 0).await.iter().map(|r| payload(r).to_owned()).collect();
    assert_eq!(stored, ["a", "b", "d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_does_not_harm_those_it_shares_a_commit_with() {
    let (database, log, topic) = with_topic(1).await;
    log.append(&topic, records(["first"]), by("stale", 3, 0)).await.unwrap();
    let blocker = block(&database).await;
    let send = |payload: &'static str, how| {
        let (log, topic) = (log.clone(), topic.clone());
        tokio::spawn(async move { log.append(&topic, records([payload]), how).await })
    };
    // The first waits for the lock; the others make the next group.
    let head = send("head", AppendOptions::default());
    eventually("an append waits", || async { !waiting(&database).await.is_empty() }).await;
    let stale = send("stale", by("stale", 2, 9));
    let repeat = send("repeat", by("stale", 3, 0));
    let good = send("good", by("good", 0, 0));
    let plain = send("plain", AppendOptions::default());
    drop(blocker);
    for good in [head, good, plain] {
        assert!(!good.await.unwrap().unwrap()[0].duplicate);
    }
    assert!(matches!(stale.await.unwrap().unwrap_err(), AppendError::Fenced(_)));
    let repeat = repeat.await.unwrap().unwrap();
    assert!(repeat[0].duplicate && repeat[0].base_offset == 0);
    assert_eq!(read(&log, &topic, 0, 0).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_connection_is_repeated_with_a_producer_and_admitted_without() {
    let (database, log, topic) = with_topic(1).await;
    for (how, survives) in [(by("p", 0, 0), true), (AppendOptions::default(), false)] {
        let blocker = block(&database).await;
        let append = {
            let (log, topic, how) = (log.clone(), topic.clone(), how.clone());
            tokio::spawn(async move { log.append(&topic, records(["x"]), how).await })
        };
        eventually("an append waits", || async { !waiting(&database).await.is_empty() }).await;
        for pid in waiting(&database).await {
            sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&database.pool).await.unwrap();
        }
        drop(blocker);
        let answer = append.await.unwrap();
        if survives {
            assert_eq!(answer.unwrap()[0].base_offset, 0);
        } else {
            let error = answer.unwrap_err();
            assert!(matches!(error, AppendError::Unknown(_)), "{error}");
        }
    }
    assert_eq!(read(&log, &topic, 0, 0).await.len(), 1);
}
