//! What the host's SQL goes through: a [`Pool`], a [`Session`] taken from it, a [`Transaction`].
//!
//! Straight to a server these are sqlx's own sessions, and statements are prepared once per session. Behind a pooler in
//! transaction mode consecutive transactions of one session may run on different server connections, so there
//! * nothing outlives a transaction: no setting of the session, no lock of it, no prepared statement. Limits are SET LOCAL
//!   in the round trip of BEGIN;
//! * a statement outside a transaction gets one, because sqlx parses in one round trip and binds in the next. It has
//!   succeeded when COMMIT was answered. That is four round trips instead of one.
//!
//! What needs a session of its own all the same (LISTEN, DETACH CONCURRENTLY) connects with [`Pool::direct`].
//!
//! Bound: a statement is answered within the pool's limit or fails with [`std::io::ErrorKind::TimedOut`], also when the
//! server is gone without a word; like any broken connection this leaves its outcome open. A session whose last statement was
//! not answered to its end, because of that or because nobody waited for it, is closed and not given back.

mod warm;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use sqlx::error::BoxDynError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{AssertSqlSafe, Describe, Either, Error, Execute, Executor, Postgres, SqlStr};
use tokio::time::{Instant, timeout, timeout_at};
use warm::{Lent, Warm};

/// What a statement gives, one after the other.
type Step = Result<Either<PgQueryResult, PgRow>, Error>;

/// Sessions that are shared. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    pool: PgPool,
    warm: Arc<Warm>,
    mode: Mode,
    direct: Option<Arc<PgConnectOptions>>,
    /// Of one statement, with its answer.
    limit: Duration,
}

/// A session from the pool, given back when it is dropped.
#[derive(Debug)]
pub struct Session {
    /// None once it is given back.
    connection: Option<Lent>,
    warm: Arc<Warm>,
    mode: Mode,
    limit: Duration,
    in_transaction: bool,
    /// A statement was begun and its end was not seen.
    is_open: bool,
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
    fn begin(&self, begin: &'static str) -> String {
        match self {
            Self::Direct => begin.to_owned(),
            Self::Pooler(settings) => format!("{begin}; {settings}"),
        }
    }
}

impl Pool {
    /// Sessions of a server.
    pub(super) fn straight(pool: PgPool, limit: Duration) -> Self {
        let direct = Some(pool.connect_options());
        Self { pool, warm: Arc::default(), mode: Mode::Direct, direct, limit }
    }

    /// Sessions of a pooler in transaction mode. `settings` are SET LOCAL statements; `direct` leads to the server itself.
    pub(super) fn behind_pooler(
        pool: PgPool,
        settings: String,
        direct: Option<PgConnectOptions>,
        limit: Duration,
    ) -> Self {
        let mode = Mode::Pooler(settings.into());
        Self { pool, warm: Arc::default(), mode, direct: direct.map(Arc::new), limit }
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
        let lent = match self.warm.take() {
            Ok(lent) => lent,
            Err(_waiting) => Lent::new(self.pool.acquire().await?),
        };
        Ok(Session {
            connection: Some(lent),
            warm: self.warm.clone(),
            mode: self.mode.clone(),
            limit: self.limit,
            in_transaction: false,
            is_open: false,
        })
    }

    pub async fn begin(&self) -> Result<Transaction, Error> {
        self.begin_with("BEGIN").await
    }

    /// Begins with a statement such as `BEGIN ISOLATION LEVEL REPEATABLE READ`.
    pub async fn begin_with(&self, begin: &'static str) -> Result<Transaction, Error> {
        let mut session = self.acquire().await?;
        session.begin(begin).await?;
        Ok(Transaction(session))
    }

    /// Waits until all sessions are given back, and closes them.
    pub async fn close(&self) {
        self.warm.close();
        self.pool.close().await;
    }
}

impl Session {
    async fn begin(&mut self, begin: &'static str) -> Result<(), Error> {
        // Until it is answered it is not known whether there is one.
        self.in_transaction = true;
        self.simple(self.mode.begin(begin)).await
    }

    /// Ends the transaction, with COMMIT or ROLLBACK.
    async fn end(&mut self, how: &'static str) -> Result<(), Error> {
        self.simple(how.to_owned()).await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Ends the transaction of a lone statement.
    async fn settle<T>(&mut self, answer: Result<T, Error>) -> Result<T, Error> {
        match &answer {
            Ok(_) => self.end("COMMIT").await?,
            // A session that is broken is closed when it is dropped.
            Err(_) if self.is_open => {}
            Err(_) => self.end("ROLLBACK").await?,
        }
        answer
    }

    /// Statements as text, in one round trip and without anything prepared.
    async fn simple(&mut self, sql: String) -> Result<(), Error> {
        let connection = connected(&mut self.connection)?;
        let answer = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **connection).map(|done| done.map(drop));
        limited(answer, &mut self.is_open, self.limit).await
    }

    /// Whether a statement needs a transaction of its own.
    fn is_bare(&self) -> bool {
        matches!(self.mode, Mode::Pooler(_)) && !self.in_transaction
    }
}

fn connected(lent: &mut Option<Lent>) -> Result<&mut PoolConnection<Postgres>, Error> {
    lent.as_mut().map(|lent| &mut lent.connection).ok_or(Error::PoolClosed)
}

/// An answer, or an error when it does not come in time. `is_open` stays true if its end was not seen.
async fn limited<T>(
    answer: impl Future<Output = Result<T, Error>>,
    is_open: &mut bool,
    limit: Duration,
) -> Result<T, Error> {
    *is_open = true;
    let answer = timeout(limit, answer).await.unwrap_or_else(|_| Err(silence(limit)));
    *is_open = answer.as_ref().is_err_and(is_broken);
    answer
}

/// The same for an answer of many steps.
fn limited_steps<'e>(
    steps: BoxStream<'e, Step>,
    is_open: &'e mut bool,
    limit: Duration,
) -> BoxStream<'e, Step> {
    *is_open = true;
    let until = Instant::now() + limit;
    let next = move |left: Option<(BoxStream<'e, Step>, &'e mut bool)>| async move {
        let (mut steps, is_open) = left?;
        match timeout_at(until, steps.next()).await {
            Ok(Some(Ok(step))) => Some((Ok(step), Some((steps, is_open)))),
            Ok(Some(Err(error))) => {
                *is_open = is_broken(&error);
                Some((Err(error), None))
            }
            Ok(None) => {
                *is_open = false;
                None
            }
            Err(_) => Some((Err(silence(limit)), None)),
        }
    };
    stream::unfold(Some((steps, is_open)), next).boxed()
}

/// Whether the error is not an answer of the server.
fn is_broken(error: &Error) -> bool {
    !matches!(error, Error::Database(_) | Error::RowNotFound)
}

fn silence(limit: Duration) -> Error {
    let words = format!("postgres gave no answer within {} s; the connection is given up", limit.as_secs());
    Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, words))
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(mut lent) = self.connection.take() else { return };
        if self.is_open {
            lent.connection.close_on_drop();
        } else if self.in_transaction {
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(roll_back(lent.connection, self.limit))),
                Err(_) => lent.connection.close_on_drop(),
            }
        } else {
            self.warm.give_back(lent);
        }
    }
}

async fn roll_back(mut connection: PoolConnection<Postgres>, limit: Duration) {
    let rolled_back = timeout(limit, sqlx::raw_sql("ROLLBACK").execute(&mut *connection)).await;
    if !matches!(rolled_back, Ok(Ok(_))) {
        connection.close_on_drop();
    }
}

impl Transaction {
    pub async fn commit(mut self) -> Result<(), Error> {
        self.0.end("COMMIT").await
    }

    pub async fn rollback(mut self) -> Result<(), Error> {
        self.0.end("ROLLBACK").await
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

    /// All steps at once, when the last has come: the session is given back before the first is used.
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Step>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        let all = async move {
            let steps: Vec<_> = pool.acquire().await?.fetch_many(query).try_collect().await?;
            Ok::<_, Error>(stream::iter(steps.into_iter().map(Ok)))
        };
        stream::once(all).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        async move { pool.acquire().await?.fetch_optional(query).await }.boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        let pool = self.clone();
        async move { pool.acquire().await?.prepare_with(sql, parameters).await }.boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        let pool = self.clone();
        async move { pool.acquire().await?.describe(sql).await }.boxed()
    }
}

impl<'c> Executor<'c> for &'c mut Session {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Step>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if self.is_bare() {
            let all = async move {
                self.begin("BEGIN").await?;
                let steps: Result<Vec<_>, Error> = (&mut *self).fetch_many(query).try_collect().await;
                let steps = self.settle(steps).await?;
                Ok::<_, Error>(stream::iter(steps.into_iter().map(Ok)))
            };
            return stream::once(all).try_flatten().boxed();
        }
        let limit = self.limit;
        let connection = match connected(&mut self.connection) {
            Ok(connection) => connection,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let steps = match &self.mode {
            Mode::Direct => connection.fetch_many(query),
            Mode::Pooler(_) => connection.fetch_many(Unnamed(query)),
        };
        limited_steps(steps, &mut self.is_open, limit)
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        async move {
            if self.is_bare() {
                self.begin("BEGIN").await?;
                let row = (&mut *self).fetch_optional(query).await;
                return self.settle(row).await;
            }
            let connection = connected(&mut self.connection)?;
            let row = match &self.mode {
                Mode::Direct => connection.fetch_optional(query),
                Mode::Pooler(_) => connection.fetch_optional(Unnamed(query)),
            };
            limited(row, &mut self.is_open, self.limit).await
        }
        .boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        async move { connected(&mut self.connection)?.prepare_with(sql, parameters).await }.boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        async move { connected(&mut self.connection)?.describe(sql).await }.boxed()
    }
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

#[cfg(test)]
mod tests;
