//! DuckDB, set up for one hostile statement.
//!
//! The order matters: views first, while files may be looked at; then what DuckDB may touch; then the lock. Everything
//! is read back afterwards, and a setting that did not take ends the query.

use duckdb::{Config, Connection};

use tidemill::query::protocol::{Failure, FailureKind, Job, Source, View};

use crate::sandbox;

/// Deep enough for any statement a person writes, and far from the end of the stack.
const MAX_EXPRESSION_DEPTH: &str = "500";

/// A database in memory with the job's views, locked.
pub fn open(job: &Job) -> Result<Connection, Failure> {
    let session = connect(job).map_err(internal)?;
    for view in &job.views {
        session.execute_batch(&definition(view)).map_err(|error| {
            let mut failure = failure_of(error);
            failure.kind = FailureKind::Internal;
            failure.position = None;
            failure.message = format!("topic {} cannot be shown: {}", view.name, failure.message);
            failure
        })?;
    }
    lock(&session, job).map_err(internal)?;
    read_back(&session, job)?;
    Ok(session)
}

fn connect(job: &Job) -> duckdb::Result<Connection> {
    let config = Config::default()
        .threads(i64::from(job.limits.threads))?
        .max_memory(&bytes(job.limits.memory_bytes))?
        .enable_autoload_extension(false)?
        .with("allow_unsigned_extensions", "false")?
        .with("allow_persistent_secrets", "false")?
        .with("temp_directory", "")?;
    let session = Connection::open_in_memory_with_flags(config)?;
    session.execute_batch(
        "SET errors_as_json = true;
         SET TimeZone = 'UTC';
         SET enable_external_file_cache = false;
         SET parquet_metadata_cache = true;
         SET enable_profiling = 'no_output';
         SET custom_profiling_settings = '{\"OPERATOR_CARDINALITY\": \"true\", \"TOTAL_BYTES_READ\": \"true\", \
             \"EXTRA_INFO\": \"true\"}';",
    )?;
    Ok(session)
}

fn bytes(number: u64) -> String {
    format!("{number}B")
}

/// The view of a topic. An empty relation in front gives the declared columns their place and type, whatever the files
/// hold; columns of older files that are declared no more come after them.
fn definition(view: &View) -> String {
    let columns: Vec<String> = view
        .columns
        .iter()
        .map(|column| format!("NULL::{} AS {}", column.kind, name(&column.name)))
        .collect();
    let declared = format!("SELECT {}", columns.join(", "));
    let body = match &view.source {
        Source::Unnamed => {
            let advice = format!("write the name of topic {} as it is in the statement", view.name);
            format!("{declared} WHERE error({}) IS NULL", text(&advice))
        }
        Source::Files { archived, hot, ranges } => {
            let mut body = format!("{declared} WHERE false");
            if !archived.is_empty() {
                body += &format!(" UNION ALL BY NAME SELECT * FROM {}", files(archived));
            }
            if !hot.is_empty() && !ranges.is_empty() {
                let count: Vec<String> = ranges
                    .iter()
                    .map(|range| {
                        format!(
                            "(_partition = {} AND _offset >= {} AND _offset < {})",
                            range.partition, range.first, range.next
                        )
                    })
                    .collect();
                body +=
                    &format!(" UNION ALL BY NAME SELECT * FROM {} WHERE {}", files(hot), count.join(" OR "));
            }
            body
        }
    };
    format!("CREATE VIEW {} AS {body}", name(&view.name))
}

fn files(paths: &[std::path::PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| text(&path.to_string_lossy())).collect();
    format!("read_parquet([{}], union_by_name = true, hive_partitioning = false)", paths.join(", "))
}

fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What may be read: the archive, because a glob needs its folder, and each hot file by its path.
fn lock(session: &Connection, job: &Job) -> duckdb::Result<()> {
    let list = |entries: Vec<String>| entries.iter().map(|entry| text(entry)).collect::<Vec<_>>().join(", ");
    session.execute_batch(&format!(
        "SET allow_community_extensions = false;
         SET max_expression_depth = {MAX_EXPRESSION_DEPTH};
         SET allowed_directories = [{}];
         SET allowed_paths = [{}];
         SET enable_external_access = false;
         SET lock_configuration = true;",
        list(allowed_directories(job)),
        list(allowed_paths(job)),
    ))
}

fn allowed_directories(job: &Job) -> Vec<String> {
    vec![format!("{}/", sandbox::archive(job).to_string_lossy())]
}

fn allowed_paths(job: &Job) -> Vec<String> {
    let mut paths: Vec<String> = job
        .views
        .iter()
        .filter_map(|view| match &view.source {
            Source::Files { hot, .. } => Some(hot),
            Source::Unnamed => None,
        })
        .flatten()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

fn read_back(session: &Connection, job: &Job) -> Result<(), Failure> {
    let wanted = [
        ("autoload_known_extensions", "false"),
        ("autoinstall_known_extensions", "false"),
        ("allow_community_extensions", "false"),
        ("allow_unsigned_extensions", "false"),
        ("allow_persistent_secrets", "false"),
        ("temp_directory", ""),
        ("max_expression_depth", MAX_EXPRESSION_DEPTH),
        ("enable_external_access", "false"),
        ("lock_configuration", "true"),
    ];
    let lists = [("allowed_directories", allowed_directories(job)), ("allowed_paths", allowed_paths(job))];
    let threads = job.limits.threads.to_string();
    let wanted: Vec<(&str, &str)> = wanted.into_iter().chain([("threads", threads.as_str())]).collect();
    // In one statement: each takes a third of a millisecond, and a query is to start quickly.
    let plain = wanted.iter().map(|(setting, _)| format!("current_setting('{setting}')::VARCHAR"));
    let sorted =
        lists.iter().map(|(setting, _)| format!("to_json(list_sort(current_setting('{setting}')))::VARCHAR"));
    let columns: Vec<String> = plain.chain(sorted).collect();
    let read = |row: &duckdb::Row<'_>| {
        (0..columns.len()).map(|at| row.get(at)).collect::<duckdb::Result<Vec<String>>>()
    };
    let found = session.query_row(&format!("SELECT {}", columns.join(", ")), [], read).map_err(internal)?;
    let (plain, sorted) = found.split_at(wanted.len());
    for ((setting, value), found) in wanted.iter().zip(plain) {
        expect(setting, value, found)?;
    }
    for ((setting, value), found) in lists.iter().zip(sorted) {
        let found: Vec<String> = serde_json::from_str(found).map_err(internal)?;
        expect(setting, &format!("{value:?}"), &format!("{found:?}"))?;
    }
    Ok(())
}

fn expect(setting: &str, wanted: &str, found: &str) -> Result<(), Failure> {
    if wanted == found {
        return Ok(());
    }
    Err(internal(format!("DuckDB has {setting} = {found:?} instead of {wanted:?}, so no query runs")))
}

fn internal(error: impl std::fmt::Display) -> Failure {
    Failure { kind: FailureKind::Internal, message: error.to_string(), position: None }
}

/// DuckDB's errors are told as JSON (`errors_as_json`), behind a prefix.
pub fn failure_of(error: duckdb::Error) -> Failure {
    let text = match error {
        duckdb::Error::DuckDBFailure(_, Some(text)) => text,
        other => return internal(other),
    };
    if text.starts_with("INTERNAL") {
        // What follows is a list of addresses in this process.
        let first = text.lines().next().unwrap_or_default();
        let message = format!("DuckDB failed on it: {}", first.trim_start_matches("INTERNAL Error: "));
        return Failure { kind: FailureKind::Query, message, position: None };
    }
    let told = text.find('{').and_then(|at| serde_json::from_str::<Told>(&text[at..]).ok());
    let Some(told) = told else {
        return Failure { kind: FailureKind::Query, message: text, position: None };
    };
    let kind = match told.exception_type.as_str() {
        "Permission" => FailureKind::Forbidden,
        "Out of Memory" => FailureKind::Memory,
        "INTERRUPT" | "Interrupt" => FailureKind::Deadline,
        _ => FailureKind::Query,
    };
    Failure {
        kind,
        message: format!("{} error: {}", told.exception_type.to_lowercase(), told.exception_message),
        position: told.position.and_then(|position| position.parse().ok()),
    }
}

#[derive(serde::Deserialize)]
struct Told {
    exception_type: String,
    exception_message: String,
    position: Option<String>,
}
