//! Connecting: URLs as psql takes them, sessions set up for short transactions, and errors that say what to do. What is
//! then done with a connection goes through [`Pool`] and its parts, which also know how to go through a pooler.
//!
//! No password is ever part of a message: use [`redact_url`] wherever a URL is printed or logged.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};

mod session;

pub use session::{Pool, Session, Transaction};

/// One attempt to connect, log in and ask something.
const ATTEMPT: Duration = Duration::from_secs(5);
/// A statement that the server should have ended, and of which nothing is heard for so long more, is given up.
const SILENCE: Duration = Duration::from_secs(5);
/// Pause between attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// Why there is no connection. Every message says what to do next and none holds a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "{url:?} is not a Postgres URL: {reason}; it looks like postgres://user:password@host:5432/database, or \
         postgres://user@localhost/database?host=/folder/of/the/socket"
    )]
    Url { url: String, reason: String },
    #[error(
        "cannot reach Postgres at {target}: {reason}; start it, or leave out --database-url (and DATABASE_URL) to use \
         the embedded server"
    )]
    Unreachable { target: String, reason: String },
    #[error(
        "Postgres at {target} refused the login of {user:?}: {reason}; check the user and the password in \
         --database-url, or ~/.pgpass"
    )]
    Login { target: String, user: String, reason: String },
    #[error("Postgres at {target} has no database {database:?}; create it with: createdb {database}")]
    NoDatabase { target: String, database: String },
    #[error("Postgres at {target}: {source}")]
    Other { target: String, source: sqlx::Error },
}

/// Limits of a pool. The defaults suit a host.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Connections at once; further work waits.
    pub max_connections: u32,
    /// How long work waits for a connection before it fails.
    pub acquire_timeout: Duration,
    /// No statement of ours runs longer.
    pub statement_timeout: Duration,
    /// No transaction of ours stays idle longer: it would hold back vacuum for everybody.
    pub idle_in_transaction: Duration,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// How long to wait at start for a server that does not answer yet.
    pub wait: Duration,
    /// The URL leads to a pooler such as pgbouncer in transaction mode.
    pub pooler: bool,
    /// Leads to the server itself, for what a pooler cannot carry. Only used with `pooler`.
    pub direct_url: Option<String>,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            max_connections: 20,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            idle_in_transaction: Duration::from_secs(5),
            application_name: "tidemill".into(),
            wait: Duration::from_secs(10),
            pooler: false,
            direct_url: None,
        }
    }
}

/// Connects, waiting a while for a server that does not answer yet, and gives a pool that reconnects by itself.
pub async fn connect(url: &str, settings: &PoolSettings) -> Result<Pool, ConnectError> {
    let options = match settings.pooler {
        true => pooler_options(url, settings)?,
        false => connect_options(url, settings)?,
    };
    let direct = settings.direct_url.as_deref().map(|url| connect_options(url, settings)).transpose()?;
    let deadline = Instant::now() + settings.wait;
    let mut said = false;
    while let Err(error) = attempt(&options).await {
        if !is_passing(&error) || Instant::now() >= deadline {
            return Err(explain(&options, error));
        }
        if !said {
            said = true;
            let target = target(&options);
            tracing::info!(
                target,
                seconds = settings.wait.as_secs(),
                reason = reason(&error),
                "waiting for Postgres"
            );
        }
        sleep(PAUSE).await;
    }
    let pool = PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.acquire_timeout)
        .connect_lazy_with(options);
    let limit = settings.statement_timeout + SILENCE;
    Ok(match settings.pooler {
        true => Pool::behind_pooler(pool, limits(settings), direct, limit),
        false => Pool::straight(pool, limit),
    })
}

/// What bounds a transaction where sessions cannot be given settings.
fn limits(settings: &PoolSettings) -> String {
    format!(
        "SET LOCAL statement_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {}",
        settings.statement_timeout.as_millis(),
        settings.idle_in_transaction.as_millis()
    )
}

/// Of a session with a pooler. Of the start-up parameters that sqlx sends pgbouncer refuses one unless it is configured
/// not to, and the host has no use for it: it reads numbers in binary.
fn pooler_options(url: &str, settings: &PoolSettings) -> Result<PgConnectOptions, ConnectError> {
    Ok(given(url, settings)?.extra_float_digits(None))
}

fn given(url: &str, settings: &PoolSettings) -> Result<PgConnectOptions, ConnectError> {
    let options = parse_url(url)
        .map_err(|error| ConnectError::Url { url: redact_url(url), reason: url_reason(error) })?;
    Ok(options.application_name(&settings.application_name))
}

/// The options of one session with a server, not with a pooler: for a connection beside the pool, such as the listener's.
pub fn connect_options(url: &str, settings: &PoolSettings) -> Result<PgConnectOptions, ConnectError> {
    Ok(given(url, settings)?.options([
        ("statement_timeout", settings.statement_timeout.as_millis().to_string()),
        ("idle_in_transaction_session_timeout", settings.idle_in_transaction.as_millis().to_string()),
        // The server finds out within a minute that a host is gone without a word, and lets go of its locks.
        ("tcp_keepalives_idle", "30".into()),
        ("tcp_keepalives_interval", "10".into()),
        ("tcp_keepalives_count", "3".into()),
    ]))
}

/// Parses a URL as libpq does, which takes an empty host (`postgres://user@/db?host=/run`) where the URL standard
/// does not. A name then fills the place; the `host` parameter goes before it.
pub fn parse_url(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    match url.split_once("@/") {
        Some((before, after)) if before.contains("://") && !before.contains('?') => {
            PgConnectOptions::from_str(&format!("{before}@localhost/{after}"))
        }
        _ if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            PgConnectOptions::from_str(url)
        }
        _ => Err(sqlx::Error::Configuration("it does not start with postgres://".into())),
    }
}

/// Asks the server one thing over a connection of its own, to the database that every server has.
pub async fn ping(url: &str) -> Result<(), sqlx::Error> {
    attempt(&parse_url(url)?.database("postgres")).await
}

async fn attempt(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let session = async {
        let mut connection = PgConnection::connect_with(options).await?;
        connection.ping().await?;
        connection.close().await
    };
    match timeout(ATTEMPT, session).await {
        Ok(result) => result,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("no answer within {} s", ATTEMPT.as_secs()),
        ))),
    }
}

/// What an error says, without what the driver puts around the server's own words.
pub fn reason(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// Whether an error may pass while a server starts: not reached, starting up or shutting down, too many clients.
pub fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => {
            matches!(error.code().as_deref(), Some("57P01" | "57P02" | "57P03" | "53300" | "08006"))
        }
        _ => false,
    }
}

fn explain(options: &PgConnectOptions, error: sqlx::Error) -> ConnectError {
    let target = target(options);
    let code = match &error {
        sqlx::Error::Database(error) => error.code().unwrap_or_default().into_owned(),
        _ => String::new(),
    };
    match (error, code.as_str()) {
        (sqlx::Error::Io(error), _) => ConnectError::Unreachable { target, reason: error.to_string() },
        (sqlx::Error::Tls(error), _) => ConnectError::Unreachable { target, reason: error.to_string() },
        (sqlx::Error::Database(error), "28P01" | "28000") => ConnectError::Login {
            target,
            user: options.get_username().into(),
            reason: error.message().into(),
        },
        (sqlx::Error::Database(_), "3D000") => {
            let database = options.get_database().unwrap_or(options.get_username()).into();
            ConnectError::NoDatabase { target, database }
        }
        (sqlx::Error::Database(error), "57P01" | "57P02" | "57P03" | "53300") => {
            ConnectError::Unreachable { target, reason: error.message().into() }
        }
        (source, _) => ConnectError::Other { target, source },
    }
}

fn target(options: &PgConnectOptions) -> String {
    let (host, port) = (options.get_host(), options.get_port());
    match options.get_socket() {
        Some(dir) => format!("{}/.s.PGSQL.{port}", dir.display()),
        None if host.starts_with('/') => format!("{host}/.s.PGSQL.{port}"),
        None => format!("{host}:{port}"),
    }
}

/// The parser's reason without its prefix.
fn url_reason(error: sqlx::Error) -> String {
    match error {
        sqlx::Error::Configuration(source) => source.to_string(),
        other => other.to_string(),
    }
}

/// The URL with its password replaced. On a URL that does not parse it hides too much rather than too little.
pub fn redact_url(url: &str) -> String {
    let mut text = url.to_owned();
    if let (Some(start), Some(at)) = (text.find("://").map(|at| at + 3), text.rfind('@'))
        && let Some(colon) = text.get(start..at).and_then(|user| user.find(':'))
    {
        text.replace_range(start + colon + 1..at, "***");
    }
    let mut from = 0;
    while let Some(at) = text[from..].find("password=").map(|at| from + at + "password=".len()) {
        let end = text[at..].find(['&', ' ', '#']).map_or(text.len(), |length| at + length);
        text.replace_range(at..end, "***");
        from = at;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_as_psql_takes_them() {
        let options = parse_url("postgres://me@/flights?host=/run/pg").unwrap();
        assert_eq!(target(&options), format!("/run/pg/.s.PGSQL.{}", options.get_port()));
        assert_eq!((options.get_username(), options.get_database()), ("me", Some("flights")));
        let options = parse_url("postgresql://me:secret@db.example:6432/flights").unwrap();
        assert_eq!(target(&options), "db.example:6432");
        let options = parse_url("postgres://me@%2Frun%2Fpg:5433/flights").unwrap();
        assert_eq!(target(&options), "/run/pg/.s.PGSQL.5433");
        for bad in ["", "localhost", "mysql://a@b/c", "host=localhost password=secret", "postgres://a b:c"] {
            assert!(parse_url(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn no_password_is_printed() {
        let cases = [
            ("postgres://me:secret@host/db", "postgres://me:***@host/db"),
            ("postgres://me:se:c@ret/@host/db", "postgres://me:***@host/db"),
            ("postgres://me@host/db?password=secret&x=1", "postgres://me@host/db?password=***&x=1"),
            ("host=a password=secret user=b", "host=a password=*** user=b"),
            ("postgres://me@/db?host=/run", "postgres://me@/db?host=/run"),
            ("nonsense", "nonsense"),
        ];
        for (url, redacted) in cases {
            assert_eq!(redact_url(url), redacted);
        }
    }

    fn impatient() -> PoolSettings {
        PoolSettings { wait: Duration::ZERO, ..PoolSettings::default() }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_readable_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let url = format!("postgres://me:secret@127.0.0.1:{port}/db");
        let error = connect(&url, &impatient()).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot reach Postgres at 127.0.0.1:{port}: ")), "{error}");
        assert!(error.contains("leave out --database-url") && !error.contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn a_bad_url_is_a_readable_error_without_the_password() {
        let error = connect("postgres://me:secret@:bad/db", &impatient()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Url { .. }), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_database_is_named() {
        let database = crate::pg::testing::empty_database().await;
        let url = database.url.replace(&database.name, "not_there");
        let error = connect(&url, &PoolSettings::default()).await.unwrap_err();
        assert!(
            matches!(&error, ConnectError::NoDatabase { database, .. } if database == "not_there"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn sessions_have_their_limits() {
        let database = crate::pg::testing::empty_database().await;
        let pool = connect(&database.url, &PoolSettings::default()).await.unwrap();
        let settings: (String, String, String, String) = sqlx::query_as(
            "SELECT current_setting('statement_timeout'), current_setting('application_name'), \
                    current_setting('idle_in_transaction_session_timeout'), current_setting('timezone')",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        let settings = [settings.0, settings.1, settings.2, settings.3];
        assert_eq!(settings, ["30s", "tidemill", "5s", "UTC"]);
    }
}
