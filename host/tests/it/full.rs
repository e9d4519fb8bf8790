//! A full disk: under Postgres's tables, under its log, under the host's own folders. Nothing that was acknowledged is lost,
//! producers are told to come back, and when there is room again all goes on without a hand.
//!
//! The disks are small file systems in memory, mounted where only the host and its children see them, which takes root.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidemill::pg::embedded::account::Account;

use crate::support::{Host, client, eventually, program, scratch};

const PATIENCE: Duration = Duration::from_secs(90);
/// What is taken away to make room.
const BALLAST: &str = "ballast";

/// Says why the test does not run where nothing can be mounted.
fn can_mount() -> bool {
    let tried = Command::new("unshare")
        .args(["-m", "sh", "-c", "mount --make-rprivate / && mount -t tmpfs -o size=1m tmpfs /mnt"])
        .stderr(Stdio::null())
        .status();
    let can = tried.is_ok_and(|status| status.success());
    if !can {
        eprintln!("skipped: no file system can be mounted here (it takes root and mount namespaces)");
    }
    can
}

/// A program that mounts small file systems and then becomes `tidemill`. Each place keeps what was in it.
fn in_small_places(folder: &Path, places: &[(&Path, u32)]) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let owner = match Account::choose().expect("an account for the server") {
        Account::Same => String::new(),
        Account::Other { uid, gid, .. } => format!(",uid={uid},gid={gid}"),
    };
    let mut mounts = String::from("mount --make-rprivate / || exit 1\n");
    for (place, mib) in places {
        let place = place.display();
        mounts.push_str(&format!(
            "mkdir -p {place} && cp -a {place} {place}.copy && \
             mount -t tmpfs -o size={mib}m,mode=755{owner} tmpfs {place} && cp -a {place}.copy/. {place}/ && \
             rm -rf {place}.copy || exit 1\n"
        ));
    }
    let script = folder.join("small.sh");
    let text = format!(
        "#!/bin/sh\nif [ -z \"$SMALL\" ]; then SMALL=1 exec unshare -m \"$0\" \"$@\"; fi\n{mounts}exec {} \"$@\"\n",
        program().display()
    );
    std::fs::write(&script, text).expect("the script can be written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    script
}

/// A path as the host sees it.
fn seen_by(host: &Host, path: &Path) -> PathBuf {
    Path::new("/proc")
        .join(host.pid().to_string())
        .join("root")
        .join(path.strip_prefix("/").expect("absolute"))
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| fastrand::u8(b'0'..b'z')).collect()
}

/// A topic without an archive, which keeps its segments.
fn topic(host: &Host) {
    let made = host.cli(&["topic", "create", "events", "--partitions", "1", "--format", "bytes"]);
    assert!(made.status.success(), "{}", crate::support::stderr(&made));
}

/// What a producer was told: stored at an offset, or to come back.
enum Told {
    Stored(u64),
    ComeBack(String),
}

async fn produce(host: &Host, payload: &[u8]) -> Told {
    let request = client()
        .post(format!("{}/v1/topics/events/records", host.url))
        .header("content-type", "application/octet-stream")
        .header("idempotency-key", format!("{:016x}", fastrand::u64(..)))
        .timeout(Duration::from_secs(60))
        .body(payload.to_vec());
    let answer = request.send().await.expect("the host answers");
    let (status, retry) = (answer.status().as_u16(), answer.headers().get("retry-after").cloned());
    let body: Value = answer.json().await.expect("JSON");
    match status {
        200 => Told::Stored(body["partitions"][0]["first_offset"].as_u64().expect("an offset")),
        503 => {
            assert!(retry.is_some(), "a 503 says when to come back: {body}");
            Told::ComeBack(body["error"]["message"].as_str().unwrap_or_default().to_owned())
        }
        other => panic!("{other}: {body}"),
    }
}

/// Appends until there is no room, makes room, and sees that it goes on with all that was stored.
async fn fills_up_and_goes_on(host: &Host, ballast: &Path) {
    let mut stored: Vec<(u64, Vec<u8>)> = Vec::new();
    let started = Instant::now();
    let full = loop {
        assert!(started.elapsed() < PATIENCE, "{} MB and not full", stored.len() / 2);
        let payload = noise(500_000);
        match produce(host, &payload).await {
            Told::Stored(offset) => stored.push((offset, payload)),
            Told::ComeBack(message) => break message,
        }
    };
    assert!(stored.len() > 10, "full after {} appends: {full}", stored.len());
    // Some room may be left for less, so what comes now is either stored or refused.
    for _ in 0..3 {
        let payload = noise(500_000);
        if let Told::Stored(offset) = produce(host, &payload).await {
            stored.push((offset, payload));
        }
    }
    std::fs::remove_file(seen_by(host, ballast)).expect("room can be made");
    eventually("appends go on by themselves", PATIENCE, || async {
        matches!(produce(host, b"again").await, Told::Stored(_))
    })
    .await;
    for (offset, payload) in &stored {
        let url = format!("{}/v1/topics/events/records?format=raw&max=1&partition=0&from={offset}", host.url);
        let answer = client().get(url).send().await.expect("the host answers");
        assert_eq!(answer.status(), 200, "offset {offset}");
        let read = answer.bytes().await.expect("a record");
        assert_eq!(
            read.strip_suffix(b"\n"),
            Some(&payload[..]),
            "the record at {offset} is the one that was stored"
        );
    }
}

#[tokio::test]
async fn a_full_disk_under_postgres_refuses_producers_until_there_is_room() {
    if !can_mount() {
        return;
    }
    let folder = scratch();
    let data = folder.path().join("data");
    let home = data.join("postgres");
    let small = in_small_places(folder.path(), &[(&home, 224)]);
    let host = Host::start_by(&small, &data, &[], &[]);
    topic(&host);
    let ballast = home.join(BALLAST);
    std::fs::write(seen_by(&host, &ballast), vec![1; 64 << 20]).expect("ballast");
    fills_up_and_goes_on(&host, &ballast).await;
}

#[tokio::test]
async fn a_full_disk_under_the_servers_log_stops_it_and_room_brings_it_back() {
    if !can_mount() {
        return;
    }
    let folder = scratch();
    let data = folder.path().join("data");
    let mut host = Host::start(&data, &[]);
    topic(&host);
    assert_eq!(host.stop(), Some(0));
    let wal = data.join("postgres/data/pg_wal");
    host.restart_by(&in_small_places(folder.path(), &[(&wal, 160)]));
    let ballast = wal.join(BALLAST);
    std::fs::write(seen_by(&host, &ballast), vec![1; 64 << 20]).expect("ballast");
    fills_up_and_goes_on(&host, &ballast).await;
}

#[tokio::test]
async fn a_full_disk_under_the_hosts_own_files_delays_the_archive_and_nothing_else() {
    if !can_mount() {
        return;
    }
    let folder = scratch();
    let data = folder.path().join("data");
    let (work, cache) = (data.join("archive-work"), data.join("query-cache"));
    let small = in_small_places(folder.path(), &[(&work, 8), (&cache, 8)]);
    let file = folder.path().join("spool.toml");
    let pipeline = "[pipeline]\nname = \"spool\"\n[topics.events]\npartitions = 1\nformat = \"bytes\"\nsegment = \"1s\"\n\
                    retention = { hot = \"2s\", cold = \"1d\" }\n";
    std::fs::write(&file, pipeline).expect("written");
    let host = Host::start_by(&small, &data, &[&file.display().to_string()], &[]);
    for place in [&work, &cache] {
        let _ = std::fs::write(seen_by(&host, &place.join(BALLAST)), vec![1; 8 << 20]);
    }
    for n in 0..5_u64 {
        let told = produce(&host, format!("record-{n}").as_bytes()).await;
        assert!(matches!(told, Told::Stored(offset) if offset == n), "appends do not need that room");
    }
    let pool = host.pool().await;
    let said = || async {
        let error = "SELECT max(archive_error) FROM tidemill.segments";
        sqlx::query_scalar::<_, Option<String>>(error).fetch_one(&pool).await.ok().flatten()
    };
    eventually("the archiver says what is wrong", PATIENCE, || async { said().await.is_some() }).await;
    let error = said().await.unwrap_or_default();
    assert!(error.contains("No space left on device"), "{error}");
    for place in [&work, &cache] {
        std::fs::remove_file(seen_by(&host, &place.join(BALLAST))).expect("room can be made");
    }
    eventually("the archive catches up by itself", PATIENCE, || async {
        let archived = sqlx::query_scalar(
            "SELECT coalesce(sum(next_offset - first_offset), 0)::bigint FROM tidemill.objects",
        );
        archived.fetch_one(&pool).await.unwrap_or(0_i64) == 5
    })
    .await;
}
