//! What bad plugins cost the stages beside them, and the host.

use std::time::{Duration, Instant};

use sqlx::PgPool;

use crate::support::{Host, client, eventually, scratch};

/// How long is measured, before and while guests spin.
const SPAN: Duration = Duration::from_secs(5);

async fn copied(pool: &PgPool) -> i64 {
    let sql = "SELECT coalesce(sum(next_offset), 0)::bigint FROM tidemill.consumer_offsets WHERE group_name = 'good'";
    sqlx::query_scalar(sql).fetch_one(pool).await.expect("the group's offsets")
}

/// Messages a second that the good stage commits, and the 99th percentile of the time of a request.
async fn measure(host: &Host, pool: &PgPool) -> (f64, Duration) {
    let (client, url) = (client(), format!("{}/v1/topics", host.url));
    let (before, begun) = (copied(pool).await, Instant::now());
    let mut times = Vec::new();
    while begun.elapsed() < SPAN {
        let asked = Instant::now();
        let answer = client.get(&url).send().await.expect("the host answers");
        assert!(answer.status().is_success());
        answer.bytes().await.expect("the whole answer");
        times.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let rate = (copied(pool).await - before) as f64 / begun.elapsed().as_secs_f64();
    times.sort();
    (rate, times[times.len() * 99 / 100])
}

/// Eight stages whose plugin never comes back, on however few cores there are.
#[tokio::test]
async fn eight_spinning_stages_leave_the_others_half_their_rate_and_http_its_answers() {
    let folder = scratch();
    let mut text =
        "[pipeline]\nname = \"loud\"\n\n[topics.a]\npartitions = 1\n\n[topics.bait]\npartitions = 1\n\n\
                    [topics.c]\npartitions = 1\n\n\
                    [producers.fleet]\nplugin = \"aircraft-generator\"\nto = \"a\"\n\
                    config = { aircraft = 500, rate = 2000 }\n\n\
                    [transforms.good]\nplugin = \"test-identity\"\nfrom = \"a\"\nto = \"c\"\n\n"
            .to_string();
    for number in 0..8 {
        text.push_str(&format!(
            "[transforms.spinner{number}]\nplugin = \"test-misbehave\"\nfrom = \"bait\"\nto = \"c\"\n\
             config = {{ fault = \"spin\", when = \"process\" }}\nlimits = {{ deadline = \"1s\" }}\n\
             batch = {{ records = 1 }}\nmax_attempts = 1\n\n"
        ));
    }
    let file = folder.path().join("loud.toml");
    std::fs::write(&file, text).expect("written");
    let host = Host::start(&folder.path().join("data"), &[&file.display().to_string()]);
    let pool = host.pool().await;
    eventually("the good stage runs", Duration::from_secs(30), || async { copied(&pool).await > 4000 }).await;
    let (alone, quiet) = measure(&host, &pool).await;
    let bait = "x\n".repeat(200);
    let answer = client()
        .post(format!("{}/v1/topics/bait/records", host.url))
        .header("content-type", "text/plain")
        .body(bait)
        .send()
        .await
        .expect("the host answers");
    assert!(answer.status().is_success());
    eventually("all eight have given up their first message", Duration::from_secs(30), || async {
        let sql = "SELECT count(DISTINCT stage) FROM tidemill.dead_letters WHERE kind = 'deadline'";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&pool).await.is_ok_and(|stages| stages == 8)
    })
    .await;
    let (beside, loud) = measure(&host, &pool).await;
    eprintln!(
        "alone {alone:.0}/s, HTTP p99 {quiet:?}; beside eight spinning stages {beside:.0}/s, HTTP p99 {loud:?}"
    );
    assert!(beside > alone / 2.0, "{alone:.0}/s fell to {beside:.0}/s");
    assert!(loud < Duration::from_millis(250), "HTTP p99 {loud:?}");
}
