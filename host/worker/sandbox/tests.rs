//! The walls alone, without the check of the statement and without DuckDB's own settings.

use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use duckdb::Connection;
use tidemill::query::protocol::{AnswerFormat, Job, Limits, Range, Source, View};

use super::*;

/// Where the test runs again, as a process of its own: walls stay up for good.
const INSIDE: &str = "TIDEMILL_TEST_WALLS";

fn job(folder: &Path) -> Job {
    let hot = Source::Files {
        archived: vec![folder.join("bucket/archive/old.parquet")],
        hot: vec![folder.join("hot.parquet")],
        ranges: vec![Range { partition: 0, first: 0, next: 10 }],
    };
    Job {
        sql: String::new(),
        root: folder.join("bucket"),
        views: vec![View { name: "t".to_string(), columns: Vec::new(), source: hot }],
        format: AnswerFormat::Json,
        limits: Limits {
            rows: 10,
            bytes: 1 << 20,
            memory_bytes: 256 << 20,
            address_space_bytes: 4 << 30,
            threads: 1,
            deadline_ms: 10_000,
            cpu_seconds: 60,
        },
    }
}

fn inside(folder: &Path) {
    let port: u16 = fs::read_to_string(folder.join("port")).unwrap().parse().unwrap();
    forbid_files().unwrap();
    let job = job(folder);
    let ready = enter(&job).unwrap();
    if ready != (Ready { files: Wall::Enforced, calls: Wall::Enforced }) {
        return println!("this kernel has no such walls: {ready:?}");
    }
    let archived = folder.join("bucket/archive/old.parquet");
    assert!(
        fs::read(&archived).is_ok() && fs::read(folder.join("hot.parquet")).is_ok(),
        "the job's files are open"
    );
    for path in ["/etc/passwd", "/proc/self/environ", "/proc/self/maps"].map(PathBuf::from) {
        assert!(fs::read(&path).is_err(), "{} was read", path.display());
    }
    assert!(fs::read(folder.join("secret.txt")).is_err() && fs::read_dir(folder).is_err());
    assert!(fs::write(&archived, "x").is_err() && fs::write(folder.join("new"), "x").is_err());
    assert!(fs::File::options().append(true).open(&archived).is_err());
    assert!(
        fs::remove_file(&archived).is_err()
            && fs::rename(&archived, folder.join("bucket/archive/x")).is_err()
    );
    assert!(fs::create_dir(folder.join("bucket/archive/new")).is_err());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err() && TcpListener::bind("127.0.0.1:0").is_err());
    assert!(UdpSocket::bind("127.0.0.1:0").is_err());
    assert!(Command::new("/bin/true").status().is_err());

    let session = Connection::open_in_memory().unwrap();
    let old = archived.display();
    let folder = folder.display();
    for sql in [
        format!("COPY (SELECT 1 AS x) TO '{old}' (FORMAT parquet)"),
        format!("COPY (SELECT 1 AS x) TO '{old}' (FORMAT parquet, use_tmp_file false)"),
        format!("COPY (SELECT 1 AS x) TO '{folder}/bucket/archive/new.parquet' (FORMAT parquet)"),
        format!("EXPORT DATABASE '{folder}/bucket/archive/export'"),
        format!("ATTACH '{folder}/bucket/new.db' AS d; CREATE TABLE d.t AS SELECT 1 AS x"),
        format!("SELECT * FROM read_text('{folder}/secret.txt')"),
        "SELECT * FROM read_text('/etc/passwd')".to_string(),
        "INSTALL httpfs".to_string(),
    ] {
        assert!(session.execute_batch(&sql).is_err(), "{sql} went through");
    }
    let count: i64 =
        session.query_row(&format!("SELECT count(*) FROM '{old}'"), [], |row| row.get(0)).unwrap();
    assert_eq!(count, 10);
    println!("the walls hold");
}

#[test]
fn the_walls_hold_without_the_check_of_the_statement() {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return inside(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    fs::create_dir_all(path.join("bucket/archive")).unwrap();
    fs::write(path.join("secret.txt"), "unspeakable").unwrap();
    let maker = Connection::open_in_memory().unwrap();
    for file in ["bucket/archive/old.parquet", "hot.parquet"] {
        let sql = format!("COPY (SELECT range AS x FROM range(10)) TO '{}'", path.join(file).display());
        maker.execute_batch(&sql).unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    fs::write(path.join("port"), listener.local_addr().unwrap().port().to_string()).unwrap();
    let before = fs::read(path.join("bucket/archive/old.parquet")).unwrap();

    let name = "sandbox::tests::the_walls_hold_without_the_check_of_the_statement";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, &path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("the walls hold") || said.contains("no such walls"), "{said}");
    assert_eq!(fs::read(path.join("bucket/archive/old.parquet")).unwrap(), before);
    let mut names: Vec<_> =
        fs::read_dir(path.join("bucket/archive")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["old.parquet"]);
    assert!(listener.accept().is_err(), "somebody was called");
}
