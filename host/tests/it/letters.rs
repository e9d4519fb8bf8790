//! Dead letters run again: in their own group, once, whatever is killed.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::cutter::Cutter;
use crate::support::{Host, client, eventually, root, scratch, stderr, stdout};

const PATIENCE: Duration = Duration::from_secs(60);

/// Two stages that trap at payloads with "trap", each with a group and a topic of its own.
fn pipeline(folder: &Path, more: &str) -> String {
    let stage = |name: &str| {
        format!(
            "[topics.out_{name}]\npartitions = 1\nformat = \"bytes\"\n\n[transforms.{name}]\nplugin = \"test-misbehave\"\n\
             from = \"a\"\nto = \"out_{name}\"\nconfig = {{ fault = \"trap\" }}\nmax_attempts = 1\n{more}\n\n"
        )
    };
    let text = format!(
        "[pipeline]\nname = \"letters\"\n\n[topics.a]\npartitions = 1\nformat = \"bytes\"\n\n{}{}",
        stage("first"),
        stage("second")
    );
    let file = folder.join("letters.toml");
    std::fs::write(&file, text).expect("a pipeline file can be written");
    file.display().to_string()
}

async fn produce(host: &Host, topic: &str, body: String) {
    let url = format!("{}/v1/topics/{topic}/records", host.url);
    let answer = client().post(url).header("content-type", "text/plain").body(body).send().await;
    let status = answer.expect("an answer").status();
    assert!(status.is_success(), "{status}");
}

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap_or(-1)
}

async fn lag(pool: &PgPool) -> i64 {
    count(pool, "SELECT coalesce(sum(lag), -1)::bigint FROM tidemill.lag").await
}

async fn execute(pool: &PgPool, sql: &'static str) {
    sqlx::query(sql).execute(pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn out(host: &Host, topic: &str) -> String {
    stdout(&host.cli(&["consume", topic, "--from", "earliest", "--format", "raw"]))
}

#[tokio::test]
async fn a_repaired_message_runs_again_in_its_own_group_and_only_there() {
    let folder = scratch();
    let host = Host::start(&folder.path().join("data"), &[&pipeline(folder.path(), "")]);
    let pool = host.pool().await;
    produce(&host, "a", "one\ntrap two\nthree\n".to_string()).await;
    eventually("both groups have passed the message", PATIENCE, || async { lag(&pool).await == 0 }).await;
    let list = stdout(&host.cli(&["dlq", "list", "--group", "first"]));
    assert!(list.contains("a 0:1") && list.contains("trap") && !list.contains("second"), "{list}");
    let page: Value =
        serde_json::from_str(&stdout(&host.cli(&["dlq", "list", "--group", "first", "--json"])))
            .expect("it prints JSON");
    let id = page["dead_letters"][0]["id"].as_i64().expect("an id").to_string();
    let shown = stdout(&host.cli(&["dlq", "show", &id]));
    assert!(shown.contains("trap two") && shown.contains("letters/first"), "{shown}");

    // Here it fails as it did there, without a change anywhere.
    let wasm = root().join("plugins/dist/test-misbehave.wasm").display().to_string();
    let config = "{\"fault\":\"trap\"}";
    let run = host.cli(&["plugin", "run", "--dead-letter", &id, "--plugin", &wasm, "--config", config]);
    assert!(
        run.status.code() == Some(1) && stdout(&run).contains("asked to trap at offset 1"),
        "{}",
        stdout(&run)
    );
    let config = "{\"fault\":\"none\"}";
    let run =
        host.cli(&["plugin", "run", "--dead-letter", &id, "--plugin", &wasm, "--config", config, "--json"]);
    assert!(run.status.success() && stdout(&run).contains("trap two"), "{}{}", stdout(&run), stderr(&run));

    // As it is it fails again, with one attempt more.
    assert!(host.cli(&["dlq", "redrive", &id]).status.success());
    eventually("the letter has failed again", PATIENCE, || async {
        count(&pool, "SELECT count(*) FROM tidemill.dead_letters WHERE state = 'dead' AND attempts = 2").await
            == 1
    })
    .await;
    execute(&pool, "UPDATE tidemill.dead_letters SET payload = 'mended two' WHERE group_name = 'first'")
        .await;
    let queued: bool = sqlx::query_scalar(
        "SELECT tidemill.redrive(dead_letter_id) FROM tidemill.dead_letters WHERE group_name = 'first'",
    )
    .fetch_one(&pool)
    .await
    .expect("psql users can queue it");
    assert!(queued);
    eventually("the letter is gone", PATIENCE, || async {
        count(&pool, "SELECT count(*) FROM tidemill.dead_letters WHERE group_name = 'first'").await == 0
    })
    .await;
    assert_eq!(out(&host, "out_first"), "one\nthree\nmended two\n");
    assert_eq!(out(&host, "out_second"), "one\nthree\n", "the other group is left alone");
    assert_eq!(count(&pool, "SELECT count(*) FROM tidemill.dead_letters").await, 1);
    // The output still names the message it was made from.
    let input = "SELECT input_offset FROM log.out_first ORDER BY base_offset DESC LIMIT 1";
    assert_eq!(count(&pool, input).await, 1);
    let status = host.get("/v1/status").await;
    assert_eq!(status["dead_letters"], json!([{ "group": "second", "letters": 1, "queued": 0 }]));

    let refused = host.cli(&["dlq", "drop", "--group", "second"]);
    assert!(!refused.status.success() && stderr(&refused).contains("1 dead letter of group second"));
    let dropped = stdout(&host.cli(&["dlq", "drop", "--group", "second", "--yes"]));
    assert_eq!(dropped, "1 dead letter dropped\n");
}

/// Kills the host at a place in the middle of redrives until all are done, and gives the number of kills.
async fn redrive_under_kills(place: &str) -> u32 {
    const LETTERS: i64 = 60;
    let folder = scratch();
    let data = folder.path().join("data");
    let mut host = Host::start(&data, &[&pipeline(folder.path(), "breaker = { failures = 0 }")]);
    let pool = host.pool().await;
    let lines: String = (0..LETTERS).map(|n| format!("trap {n}\nfine {n}\n")).collect();
    produce(&host, "a", lines).await;
    eventually("all messages are done with", PATIENCE, || async { lag(&pool).await == 0 }).await;
    execute(&pool, "UPDATE tidemill.dead_letters SET payload = convert_to(replace(convert_from(payload, 'UTF8'), 'trap', 'mended'), 'UTF8')").await;
    host.stop();
    pool.close().await;
    // What is queued while no host runs is done by the first one that comes.
    drop(host);
    let mut kills = 0;
    let mut queued = false;
    loop {
        let file = pipeline(folder.path(), "breaker = { failures = 0 }");
        let mut host = Host::start_with(&data, &[&file], &[("TIDEMILL_CRASH_AT", place)]);
        let pool = host.pool().await;
        if !queued {
            let all: i64 =
                sqlx::query_scalar("SELECT tidemill.redrive('first') + tidemill.redrive('second')")
                    .fetch_one(&pool)
                    .await
                    .expect("queued");
            assert_eq!(all, 2 * LETTERS);
            queued = true;
        }
        let deadline = std::time::Instant::now() + PATIENCE;
        let done = loop {
            if host.ended() {
                break false;
            }
            if count(&pool, "SELECT count(*) FROM tidemill.dead_letters").await == 0 {
                break true;
            }
            assert!(std::time::Instant::now() < deadline, "neither killed nor done");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        if done {
            for group in ["first", "second"] {
                let mut lines: Vec<String> =
                    out(&host, &format!("out_{group}")).lines().map(str::to_string).collect();
                let mended: Vec<String> = lines.extract_if(.., |line| line.starts_with("mended")).collect();
                let wanted: Vec<String> = (0..LETTERS).map(|n| format!("mended {n}")).collect();
                assert_eq!(mended, wanted, "{group}: each once, in the order of offsets");
                let fine: Vec<String> = (0..LETTERS).map(|n| format!("fine {n}")).collect();
                assert_eq!(lines, fine, "{group}");
            }
            return kills;
        }
        kills += 1;
    }
}

#[tokio::test]
async fn redrives_that_are_killed_before_their_commit_run_once() {
    let kills = redrive_under_kills("letter.commit:25").await;
    assert!(kills >= 4, "only {kills} kills");
}

#[tokio::test]
async fn redrives_that_are_killed_after_their_commit_run_once() {
    let kills = redrive_under_kills("letter.committed:25").await;
    assert!(kills >= 4, "only {kills} kills");
}

/// A component whose every call traps, or passes every message without a word.
fn component(file: &Path, traps: bool) {
    let text = include_str!("../guests/transform.wat")
        .replace("(;PROCESS;)", if traps { "unreachable" } else { "" })
        .replace("(;WORK;)", "tidemill:plugin/transforming@0.1.0");
    let bytes = wat::parse_str(text).expect("a component");
    crate::marked::rename_into(file, &bytes);
}

async fn broken(host: &Host) -> (String, String) {
    let status = host.get("/v1/status").await;
    let stage = &status["pipelines"][0]["stages"][0];
    let text = |name: &str| stage[name].as_str().unwrap_or_default().to_string();
    (text("state"), text("reason"))
}

/// 300 messages for a plugin that traps at each of them: a few become dead letters, the others wait for a version that works.
#[tokio::test]
async fn a_plugin_that_always_traps_does_not_turn_its_topic_into_dead_letters() {
    let folder = scratch();
    let wasm = folder.path().join("always.wasm");
    component(&wasm, true);
    let file = folder.path().join("storm.toml");
    let text = "[pipeline]\nname = \"storm\"\n[topics.a]\npartitions = 1\nformat = \"bytes\"\n[topics.b]\npartitions = 1\n\
                [transforms.always]\nplugin = \"./always.wasm\"\nfrom = \"a\"\nto = \"b\"\nmax_attempts = 1\n\
                breaker = { failures = 10, wait = \"1s\", longest = \"1h\" }\nprobation = { batches = 1, time = \"0s\" }\n";
    std::fs::write(&file, text).expect("a pipeline file can be written");
    let host = Host::start(&folder.path().join("data"), &[&file.display().to_string()]);
    let pool = host.pool().await;
    produce(&host, "a", (0..300).map(|n| format!("{n}\n")).collect()).await;
    eventually("the breaker opens", PATIENCE, || async { broken(&host).await.0 == "broken" }).await;
    // Waits of 1, 2 and 4 s, and one message after each.
    eventually("it has opened three times more", PATIENCE, || async {
        count(&pool, "SELECT count(*) FROM tidemill.dead_letters").await == 13
    })
    .await;
    let (state, reason) = broken(&host).await;
    assert_eq!(state, "broken");
    assert!(reason.contains("offset 13 is tried after 8.0 s"), "{reason}");
    let metrics = client().get(format!("{}/metrics", host.url)).send().await.expect("an answer");
    let metrics = metrics.text().await.expect("text");
    let opened = "tidemill_stage_breaker_opened_total{pipeline=\"storm\",stage=\"always\"} 4";
    assert!(metrics.contains(opened), "{metrics}");
    let status = stdout(&host.cli(&["status"]));
    assert!(status.contains("always is broken: the breaker is open"), "{status}");
    // A redrive waits like everything else.
    let queued = stdout(&host.cli(&["dlq", "redrive", "--group", "always", "--json"]));
    assert!(queued.contains("\"queued\": 13"), "{queued}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(count(&pool, "SELECT count(*) FROM tidemill.dead_letters WHERE state = 'queued'").await, 13);

    component(&wasm, false);
    eventually("the new version has done the rest, and the letters", PATIENCE, || async {
        lag(&pool).await == 0 && count(&pool, "SELECT count(*) FROM tidemill.dead_letters").await == 0
    })
    .await;
    assert_eq!(broken(&host).await.0, "running");
}

fn position(id: &str, ts: i64, altitude: i64) -> String {
    json!({
        "id": id, "callsign": "UAL1", "kind": "airliner", "lat": 44.1, "lon": -105.0, "altitude": altitude, "heading": 90.0, "speed": 450.0,
        "vertical_rate": 0, "squawk": "1200", "ts": ts
    })
    .to_string()
}

#[tokio::test]
async fn a_late_message_does_not_go_back_behind_a_newer_row() {
    let folder = scratch();
    let file = folder.path().join("late.toml");
    let text = "[pipeline]\nname = \"late\"\n[topics.a]\npartitions = 1\nformat = \"bytes\"\n[materializers.latest]\n\
                plugin = \"latest-position\"\nfrom = \"a\"\ntables = { current_positions = \"current_positions\" }\n";
    std::fs::write(&file, text).expect("a pipeline file can be written");
    let host = Host::start(&folder.path().join("data"), &[&file.display().to_string()]);
    let pool = host.pool().await;
    let body = format!("not JSON\nnor this\n{}\n", position("a1", 2_000_000, 2));
    produce(&host, "a", body).await;
    eventually("all messages are done with", PATIENCE, || async { lag(&pool).await == 0 }).await;
    assert_eq!(count(&pool, "SELECT count(*) FROM tidemill.dead_letters WHERE kind = 'reject'").await, 2);
    // One would be older than the row that is there, the other is the first of its key.
    for (offset, payload) in [(0_i64, position("a1", 1_000_000, 1)), (1, position("b2", 1_000_000, 1))] {
        sqlx::query("UPDATE tidemill.dead_letters SET payload = convert_to($2, 'UTF8') WHERE c_offset = $1")
            .bind(offset)
            .bind(payload)
            .execute(&pool)
            .await
            .expect("repaired");
    }
    assert!(host.cli(&["dlq", "redrive", "--group", "latest"]).status.success());
    eventually("the letters are gone", PATIENCE, || async {
        count(&pool, "SELECT count(*) FROM tidemill.dead_letters").await == 0
    })
    .await;
    let altitude = |id: &str| {
        let sql = "SELECT altitude::bigint FROM current_positions WHERE id = $1";
        sqlx::query_scalar::<_, i64>(sql).bind(id.to_string()).fetch_one(&pool)
    };
    assert_eq!((altitude("a1").await.expect("a row"), altitude("b2").await.expect("a row")), (2, 1));
}

/// A trigger that runs at COMMIT and ends the connection, for the first few letters of the table `cuts`.
const CUT: &str = "CREATE TABLE cuts (left_over int NOT NULL);
    INSERT INTO cuts VALUES (3);
    CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE v_left int := nextval('cut_counter');
    BEGIN
        IF v_left <= (SELECT left_over FROM cuts) THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
        END IF;
        RETURN NULL;
    END $$;
    CREATE SEQUENCE cut_counter;
    CREATE CONSTRAINT TRIGGER cut AFTER DELETE ON tidemill.dead_letters DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION cut()";

/// The connection is lost at COMMIT, and the host cannot know what happened: it asks, and each letter runs once.
#[tokio::test]
async fn a_commit_of_a_redrive_that_is_cut_is_resolved_by_asking() {
    let folder = scratch();
    let host =
        Host::start(&folder.path().join("data"), &[&pipeline(folder.path(), "breaker = { failures = 0 }")]);
    let pool = host.pool().await;
    produce(&host, "a", (0..10).map(|n| format!("trap {n}\n")).collect()).await;
    eventually("all messages are done with", PATIENCE, || async { lag(&pool).await == 0 }).await;
    execute(&pool, "UPDATE tidemill.dead_letters SET payload = convert_to(replace(convert_from(payload, 'UTF8'), 'trap', 'mended'), 'UTF8')").await;
    sqlx::raw_sql(CUT).execute(&pool).await.expect("the trigger is there");
    assert!(host.cli(&["dlq", "redrive", "--group", "first"]).status.success());
    eventually("the letters are gone", PATIENCE, || async {
        count(&pool, "SELECT count(*) FROM tidemill.dead_letters WHERE group_name = 'first'").await == 0
    })
    .await;
    let wanted: String = (0..10).map(|n| format!("mended {n}\n")).collect();
    assert_eq!(out(&host, "out_first"), wanted);
    assert_eq!(count(&pool, "SELECT last_value FROM cut_counter").await, 13, "three commits were cut");
}

/// The answer to COMMIT is lost after it has happened: the letter's row is gone, so nothing is written a second time.
#[tokio::test]
async fn a_redrive_whose_commit_got_no_answer_is_not_run_again() {
    const CUTS: u32 = 5;
    let folder = scratch();
    let keeper = Host::start(&folder.path().join("data"), &[]);
    let (_, socket) = keeper.postgres_url.split_once("host=").expect("the embedded server has a socket");
    let socket = socket.split('&').next().expect("a folder");
    let proxy = folder.path().join("proxy");
    std::fs::create_dir(&proxy).expect("a folder");
    let server = Path::new(socket).join(".s.PGSQL.5432");
    let cutter = Cutter::start(
        &proxy,
        server,
        "DELETE FROM tidemill.dead_letters WHERE dead_letter_id = $1 AND",
        CUTS,
    );
    let url = keeper.postgres_url.replace(socket, &proxy.display().to_string());
    let file = pipeline(folder.path(), "breaker = { failures = 0 }");
    let host = Host::start(&folder.path().join("other"), &[&file, "--database-url", &url]);
    let pool = keeper.pool().await;
    produce(&host, "a", (0..20).map(|n| format!("trap {n}\n")).collect()).await;
    eventually("all messages are done with", PATIENCE, || async { lag(&pool).await == 0 }).await;
    execute(&pool, "UPDATE tidemill.dead_letters SET payload = convert_to(replace(convert_from(payload, 'UTF8'), 'trap', 'mended'), 'UTF8')").await;
    assert!(host.cli(&["dlq", "redrive", "--group", "first"]).status.success());
    eventually("the letters are gone", PATIENCE, || async {
        count(&pool, "SELECT count(*) FROM tidemill.dead_letters WHERE group_name = 'first'").await == 0
    })
    .await;
    let wanted: String = (0..20).map(|n| format!("mended {n}\n")).collect();
    assert_eq!(out(&host, "out_first"), wanted);
    assert_eq!(cutter.cuts(), CUTS, "commits whose answer was lost");
}

/// State is written in the commit that ends the letter: a window counts a redriven message once.
#[tokio::test]
async fn the_state_of_a_redriven_message_counts_once() {
    let folder = scratch();
    let file = folder.path().join("windows.toml");
    let text = "[pipeline]\nname = \"windows\"\n[topics.events]\npartitions = 1\nformat = \"bytes\"\n[topics.counts]\n\
                [transforms.counts]\nplugin = \"window-counts\"\nfrom = \"events\"\nto = { default = \"counts\" }\n\
                config = { field = \"kind\", window_s = 10, lateness_s = 1 }\ngrants = [\"state\"]\n";
    std::fs::write(&file, text).expect("a pipeline file can be written");
    let place = ("TIDEMILL_CRASH_AT", "letter.commit");
    let data = folder.path().join("data");
    let mut host = Host::start_with(&data, &[&file.display().to_string()], &[place]);
    let pool = host.pool().await;
    let append = "SELECT tidemill.append_many('events', ARRAY[convert_to($1, 'UTF8')], timestamps => ARRAY[$2::bigint * 1000000],
                                              to_partition => 0)";
    for (second, payload) in
        [(1_000_i64, "{\"kind\":\"a\"}"), (1_001, "no JSON"), (1_002, "{\"kind\":\"a\"}")]
    {
        sqlx::query(append).bind(payload).bind(second).execute(&pool).await.expect("appended");
    }
    eventually("all messages are done with", PATIENCE, || async { lag(&pool).await == 0 }).await;
    let mend = "UPDATE tidemill.dead_letters SET payload = convert_to('{\"kind\":\"a\"}', 'UTF8')";
    execute(&pool, mend).await;
    assert!(host.cli(&["dlq", "redrive", "--group", "counts"]).status.success());
    eventually("the host is killed in the redrive", PATIENCE, || {
        let ended = host.ended();
        async move { ended }
    })
    .await;
    let host = Host::start(&data, &[&file.display().to_string()]);
    let pool = host.pool().await;
    eventually("the letter is gone", PATIENCE, || async {
        count(&pool, "SELECT count(*) FROM tidemill.dead_letters").await == 0
    })
    .await;
    sqlx::query(append).bind("{\"kind\":\"a\"}").bind(1_100_i64).execute(&pool).await.expect("appended");
    eventually("the window is closed", PATIENCE, || async {
        count(&pool, "SELECT count(*) FROM topics.counts").await == 1
    })
    .await;
    assert_eq!(count(&pool, "SELECT (value->>'count')::bigint FROM topics.counts").await, 3);
}

/// `on_error` is about messages on their way: a letter that fails again stays a letter, whatever the stage says by now, and
/// stops nothing.
#[tokio::test]
async fn a_letter_that_fails_again_stays_whatever_on_error_says() {
    let folder = scratch();
    let mut host = Host::start(&folder.path().join("data"), &[&pipeline(folder.path(), "")]);
    let pool = host.pool().await;
    produce(&host, "a", "trap one\n".to_string()).await;
    eventually("all messages are done with", PATIENCE, || async { lag(&pool).await == 0 }).await;
    pool.close().await;
    for (mode, attempts) in [("stop", 2), ("skip", 3)] {
        host.stop();
        pipeline(folder.path(), &format!("on_error = \"{mode}\""));
        host.restart();
        let pool = host.pool().await;
        assert!(host.cli(&["dlq", "redrive", "--group", "first"]).status.success());
        eventually("the letter has failed again", PATIENCE, || async {
            let sql =
                "SELECT attempts FROM tidemill.dead_letters WHERE group_name = 'first' AND state = 'dead'";
            let is: Option<i32> =
                sqlx::query_scalar(sql).fetch_optional(&pool).await.expect("it can be asked");
            is == Some(attempts)
        })
        .await;
        produce(&host, "a", format!("after {mode}\n")).await;
        eventually("the stage goes on", PATIENCE, || async { lag(&pool).await == 0 }).await;
        pool.close().await;
    }
    assert_eq!(out(&host, "out_first"), "after stop\nafter skip\n");
}

/// Who has pushed a version that works and redrives at once is not answered by the old one.
#[tokio::test]
async fn letters_run_by_the_version_that_was_just_pushed() {
    let folder = scratch();
    let (wasm, good) = (folder.path().join("always.wasm"), folder.path().join("good.wasm"));
    component(&wasm, true);
    component(&good, false);
    let file = folder.path().join("push.toml");
    let text = "[pipeline]\nname = \"push\"\n[topics.a]\npartitions = 1\nformat = \"bytes\"\n[topics.b]\n\
                [transforms.t]\nplugin = \"./always.wasm\"\nfrom = \"a\"\nto = \"b\"\nmax_attempts = 1\n";
    std::fs::write(&file, text).expect("a pipeline file can be written");
    let host = Host::start(&folder.path().join("data"), &[&file.display().to_string()]);
    let pool = host.pool().await;
    produce(&host, "a", "one\n".to_string()).await;
    eventually("all messages are done with", PATIENCE, || async { lag(&pool).await == 0 }).await;
    let good = good.display().to_string();
    let pushed = host.cli(&["plugin", "push", &good, "--stage", "push/t"]);
    assert!(pushed.status.success(), "{}", stderr(&pushed));
    assert!(host.cli(&["dlq", "redrive", "--group", "t"]).status.success());
    eventually("the letter is done with", PATIENCE, || async {
        count(&pool, "SELECT count(*) FROM tidemill.dead_letters WHERE state = 'queued'").await == 0
    })
    .await;
    assert_eq!(count(&pool, "SELECT count(*) FROM tidemill.dead_letters").await, 0);
}

/// Two hosts share the work, and one of them is killed in the middle of its redrives: the other one does the rest, once.
#[tokio::test]
async fn letters_of_a_host_that_dies_are_run_by_another() {
    const LETTERS: i64 = 60;
    let folder = scratch();
    let keeper = Host::start(&folder.path().join("data"), &[]);
    let file = pipeline(folder.path(), "breaker = { failures = 0 }");
    let arguments = [file.as_str(), "--database-url", &keeper.postgres_url];
    let survivor = Host::start(&folder.path().join("survivor"), &arguments);
    let pool = keeper.pool().await;
    produce(&survivor, "a", (0..LETTERS).map(|n| format!("trap {n}\n")).collect()).await;
    eventually("all messages are done with", PATIENCE, || async { lag(&pool).await == 0 }).await;
    execute(&pool, "UPDATE tidemill.dead_letters SET payload = convert_to(replace(convert_from(payload, 'UTF8'), 'trap', 'mended'), 'UTF8')").await;
    let place = ("TIDEMILL_CRASH_AT", "letter.commit:20");
    let mut victim = Host::start_with(&folder.path().join("victim"), &arguments, &[place]);
    let owners = "SELECT count(DISTINCT owner) FROM tidemill.leases";
    eventually("each host owns a group's partition", PATIENCE, || async { count(&pool, owners).await == 2 })
        .await;
    for group in ["first", "second"] {
        assert!(survivor.cli(&["dlq", "redrive", "--group", group]).status.success());
    }
    eventually("the one host is killed", PATIENCE, || {
        let ended = victim.ended();
        async move { ended }
    })
    .await;
    eventually("the other one has done all letters", PATIENCE, || async {
        count(&pool, "SELECT count(*) FROM tidemill.dead_letters").await == 0
    })
    .await;
    let wanted: String = (0..LETTERS).map(|n| format!("mended {n}\n")).collect();
    for topic in ["out_first", "out_second"] {
        assert_eq!(out(&survivor, topic), wanted, "{topic}");
    }
}
