//! What the host's SQL goes through: a [`Pool`], a [`Session`] taken from it, a [`Transaction`].
//!
//! Straight to a server these are sqlx's own, and statements are prepared once per session. Behind a pooler in
//! transaction mode consecutive transactions of one session may run on different server connections, so there
//! * nothing outlives a transaction: no setting of the session, no lock of it, no prepared statement. Limits are SET LOCAL
//!   in the round trip of BEGIN;
//! * a statement outside a transaction gets one, because sqlx parses in one round trip and binds in the next. It has
//!   succeeded when COMMIT was answered. That is four round trips instead of one.
//!
//! What needs a session of its own all the same (LISTEN, DETACH CONCURRENTLY) connects with [`Pool::direct`].

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use futures::channel::mpsc;
use futures::future::{BoxFuture, ready};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, SinkExt, StreamExt, TryStreamExt};
use sqlx::error::BoxDynError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{
    AssertSqlSafe, Connection, Describe, Either, Error, Execute, Executor, PgConnection, Postgres, SqlStr,
};

/// Sessions that are shared. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    pool: PgPool,
    mode: Mode,
    direct: Option<Arc<PgConnectOptions>>,
}

/// A session from the pool, given back when it is dropped.
#[derive(Debug)]
pub struct Session {
    held: Held,
    mode: Mode,
}

#[derive(Debug)]
enum Held {
    Alone(PoolConnection<Postgres>),
    InTransaction(sqlx::Transaction<'static, Postgres>),
}

/// A session within a transaction, which is rolled back when it is dropped before [`Transaction::commit`].
#[derive(Debug)]
pub struct Transaction(Session);

#[derive(Clone, Debug)]
enum Mode {
    Direct,
    /// Behind a pooler: what is said with each BEGIN.
    Pooler(Arc<str>),
}

impl Mode {
    /// The statement that begins a transaction of a kind.
    fn begin(&self, begin: &'static str) -> AssertSqlSafe<String> {
        AssertSqlSafe(match self {
            Self::Direct => begin.to_owned(),
            Self::Pooler(settings) => format!("{begin}; {settings}"),
        })
    }
}

impl Pool {
    /// Sessions of a server.
    pub(super) fn straight(pool: PgPool) -> Self {
        let direct = Some(pool.connect_options());
        Self { pool, mode: Mode::Direct, direct }
    }

    /// Sessions of a pooler in transaction mode. `settings` are SET LOCAL statements; `direct` leads to the server itself.
    pub(super) fn behind_pooler(pool: PgPool, settings: String, direct: Option<PgConnectOptions>) -> Self {
        Self { pool, mode: Mode::Pooler(settings.into()), direct: direct.map(Arc::new) }
    }

    /// How to reach the server itself, for what cannot go through a pooler. None: there is only the pooler.
    pub fn direct(&self) -> Option<&PgConnectOptions> {
        self.direct.as_deref()
    }

    /// How the sessions of this pool connect.
    pub fn connect_options(&self) -> Arc<PgConnectOptions> {
        self.pool.connect_options()
    }

    pub async fn acquire(&self) -> Result<Session, Error> {
        Ok(Session { held: Held::Alone(self.pool.acquire().await?), mode: self.mode.clone() })
    }

    pub async fn begin(&self) -> Result<Transaction, Error> {
        self.begin_with("BEGIN").await
    }

    /// Begins with a statement such as `BEGIN ISOLATION LEVEL REPEATABLE READ`.
    pub async fn begin_with(&self, begin: &'static str) -> Result<Transaction, Error> {
        let transaction = self.pool.begin_with(self.mode.begin(begin)).await?;
        Ok(Transaction(Session { held: Held::InTransaction(transaction), mode: self.mode.clone() }))
    }

    /// Waits until all sessions are given back, and closes them.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Session {
    fn connection(&mut self) -> &mut PgConnection {
        match &mut self.held {
            Held::Alone(connection) => connection,
            Held::InTransaction(transaction) => transaction,
        }
    }
}

impl Transaction {
    pub async fn commit(self) -> Result<(), Error> {
        match self.0.held {
            Held::InTransaction(transaction) => transaction.commit().await,
            Held::Alone(_) => Ok(()),
        }
    }

    pub async fn rollback(self) -> Result<(), Error> {
        match self.0.held {
            Held::InTransaction(transaction) => transaction.rollback().await,
            Held::Alone(_) => Ok(()),
        }
    }
}

impl Deref for Transaction {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.0
    }
}

impl<'c> Executor<'c> for &Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match &self.mode {
            Mode::Direct => self.pool.fetch_many(query),
            mode => many(begin(self.pool.clone(), mode.begin("BEGIN")), query),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match &self.mode {
            Mode::Direct => self.pool.fetch_optional(query),
            mode => optional(begin(self.pool.clone(), mode.begin("BEGIN")), query),
        }
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        self.pool.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        self.pool.describe(sql)
    }
}

impl<'c> Executor<'c> for &'c mut Session {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match (&self.mode, &mut self.held) {
            (Mode::Direct, Held::Alone(connection)) => connection.fetch_many(query),
            (Mode::Direct, Held::InTransaction(transaction)) => transaction.fetch_many(query),
            (_, Held::InTransaction(transaction)) => transaction.fetch_many(Unnamed(query)),
            (mode, Held::Alone(connection)) => many(connection.begin_with(mode.begin("BEGIN")), query),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match (&self.mode, &mut self.held) {
            (Mode::Direct, Held::Alone(connection)) => connection.fetch_optional(query),
            (Mode::Direct, Held::InTransaction(transaction)) => transaction.fetch_optional(query),
            (_, Held::InTransaction(transaction)) => transaction.fetch_optional(Unnamed(query)),
            (mode, Held::Alone(connection)) => optional(connection.begin_with(mode.begin("BEGIN")), query),
        }
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        self.connection().prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        self.connection().describe(sql)
    }
}

async fn begin(
    pool: PgPool,
    begin: AssertSqlSafe<String>,
) -> Result<sqlx::Transaction<'static, Postgres>, Error> {
    pool.begin_with(begin).await
}

/// Runs a statement in a transaction of its own. Rows are given as they come; the stream ends without an error only
/// after the commit.
fn many<'e, 't: 'e, 'q: 'e, E>(
    begin: impl Future<Output = Result<sqlx::Transaction<'t, Postgres>, Error>> + Send + 'e,
    query: E,
) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
where
    E: 'q + Execute<'q, Postgres>,
{
    let (mut give, given) = mpsc::channel(0);
    let work = async move {
        let mut transaction = begin.await?;
        let mut steps = transaction.fetch_many(Unnamed(query));
        while let Some(step) = steps.try_next().await? {
            // The other end goes with this future.
            let _ = give.send(step).await;
        }
        drop(steps);
        transaction.commit().await
    };
    let failure = stream::once(work).filter_map(|done| ready(done.err().map(Err)));
    stream::select(given.map(Ok), failure).boxed()
}

fn optional<'e, 't: 'e, 'q: 'e, E>(
    begin: impl Future<Output = Result<sqlx::Transaction<'t, Postgres>, Error>> + Send + 'e,
    query: E,
) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
where
    E: 'q + Execute<'q, Postgres>,
{
    async move {
        let mut transaction = begin.await?;
        let row = transaction.fetch_optional(Unnamed(query)).await?;
        transaction.commit().await?;
        Ok(row)
    }
    .boxed()
}

/// A query that leaves no prepared statement behind on the server connection.
struct Unnamed<E>(E);

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Unnamed<E> {
    fn sql(self) -> SqlStr {
        self.0.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        None
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.0.take_arguments()
    }

    fn persistent(&self) -> bool {
        false
    }
}
