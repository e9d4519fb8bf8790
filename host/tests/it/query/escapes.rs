//! `tests/queries/escapes.sql`: nothing is written, nothing outside is read, nobody is called.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Asked;
use crate::support::{eventually, root, stderr};

/// In every file that no query may read.
const SECRET: &str = "unspeakable-7f3a";

struct Attempt {
    expected: String,
    sql: String,
}

/// Blocks of `-- word: why`, then the statement, up to a blank line.
fn attempts() -> Vec<Attempt> {
    let text =
        std::fs::read_to_string(root().join("host/tests/queries/escapes.sql")).expect("the corpus is there");
    let blocks = text.split("\n\n").skip(1);
    blocks
        .map(|block| {
            let (first, sql) =
                block.split_once('\n').unwrap_or_else(|| panic!("a block without a statement: {block}"));
            let word =
                first.trim_start_matches("-- ").split(':').next().unwrap_or_default().trim().to_string();
            assert!(["refused", "forbidden", "harmless"].contains(&word.as_str()), "what is {first:?}?");
            Attempt { expected: word, sql: sql.trim().to_string() }
        })
        .collect()
}

/// Every file below a folder with its contents, hashed.
fn contents(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder can be read") {
            let entry = entry.expect("an entry can be read");
            let path = entry.path();
            if entry.file_type().expect("it has a type").is_dir() {
                folders.push(path);
            } else if entry.file_type().expect("it has a type").is_file() {
                let hash = Sha256::digest(std::fs::read(&path).expect("a file can be read"));
                found.insert(path, hex::encode(hash));
            }
        }
    }
    found
}

fn plant_secrets(outside: &Path, asked: &Asked) {
    std::fs::create_dir_all(outside).expect("a folder can be made");
    for (name, text) in [
        ("secret.txt", SECRET.to_string()),
        ("secret.csv", format!("a,b\n{SECRET},1\n")),
        ("secret.json", format!("{{\"a\":\"{SECRET}\"}}\n")),
    ] {
        std::fs::write(outside.join(name), text).expect("a file can be written");
    }
    let path = outside.join("secret.parquet");
    let sql = format!("SELECT '{SECRET}' AS a");
    let made =
        asked.host.cli(&["query", &sql, "--format", "parquet", "--output", path.to_str().expect("a path")]);
    assert!(made.status.success(), "{}", stderr(&made));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_gets_out() {
    let asked = Asked::start(1_000).await;
    let bucket = asked.folder.path().join("data/bucket").canonicalize().expect("the bucket is there");
    let (archive, outside) = (bucket.join("archive"), asked.folder.path().join("data/outside"));
    let archived = archive.join("positions/date=2026-01-01/0-0-999-x.parquet");
    std::fs::create_dir_all(archived.parent().expect("a folder")).expect("a folder can be made");
    let path = archived.to_str().expect("a path");
    let made = asked.host.cli(&["query", "SELECT * FROM positions", "--format", "parquet", "--output", path]);
    assert!(made.status.success(), "{}", stderr(&made));
    plant_secrets(&outside, &asked);
    std::os::unix::fs::symlink(&outside, archive.join("link")).expect("a link can be made");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.set_nonblocking(true).expect("a listener can be asked");
    let port = listener.local_addr().expect("it has an address").port();
    // The host itself writes there until it has archived what it has.
    let pool = asked.host.pool().await;
    eventually("all is archived", Duration::from_secs(30), || async {
        let archived = sqlx::query_scalar("SELECT coalesce(sum(records), 0) = 1000 FROM tidemill.objects");
        archived.fetch_one(&pool).await.expect("the catalog can be read")
    })
    .await;
    let before = (contents(&bucket), contents(&outside));

    let attempts = attempts();
    assert!(attempts.len() >= 60, "only {} statements", attempts.len());
    let mut wrong = Vec::new();
    for attempt in &attempts {
        let sql = attempt
            .sql
            .replace("{archived}", path)
            .replace("{archive}", archive.to_str().expect("a path"))
            .replace("{outside}", outside.to_str().expect("a path"))
            .replace("{port}", &port.to_string());
        let (status, answer) = asked.ask(json!({ "sql": sql })).await;
        let fits = match attempt.expected.as_str() {
            "refused" => status == StatusCode::BAD_REQUEST,
            "forbidden" => matches!(status, StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST),
            _ => status == StatusCode::OK,
        };
        let text = answer.to_string();
        if !fits || text.contains(SECRET) || text.contains("root:") {
            wrong.push(format!("{}: {sql}\n  {status} {text}", attempt.expected));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), attempts.len(), wrong.join("\n"));
    assert_eq!(before, (contents(&bucket), contents(&outside)), "files changed");
    assert!(listener.accept().is_err(), "somebody was called");
}
