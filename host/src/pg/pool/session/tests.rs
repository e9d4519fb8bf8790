//! Statements that are not answered, against a real server: it is the one session of a pool that must be usable again.

use sqlx::postgres::PgPoolOptions;

use super::*;
use crate::pg::testing::{TestDatabase, empty_database};

const LIMIT: Duration = Duration::from_millis(300);
/// Far longer than the limit, and than a test should take.
const SLEEP: &str = "SELECT pg_sleep(60)::text";

async fn pools() -> (TestDatabase, [Pool; 2]) {
    let database = empty_database().await;
    let one = || {
        let options = (*database.pool.connect_options()).clone();
        PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(20))
            .connect_lazy_with(options)
    };
    let pools = [
        Pool::straight(one(), LIMIT),
        Pool::behind_pooler(one(), "SET LOCAL statement_timeout = 0".to_owned(), None, LIMIT),
    ];
    (database, pools)
}

fn is_silence(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut)
}

async fn one(pool: &Pool) -> i32 {
    sqlx::query_scalar("SELECT 1").fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_statement_that_is_not_answered_fails_and_its_session_is_closed() {
    let (_database, pools) = pools().await;
    for pool in &pools {
        let error = sqlx::query(SLEEP).fetch_one(pool).await.unwrap_err();
        assert!(is_silence(&error), "{error}");
        assert_eq!(one(pool).await, 1);
        let error = sqlx::query(SLEEP).fetch_all(pool).await.unwrap_err();
        assert!(is_silence(&error), "{error}");
        assert_eq!(one(pool).await, 1);
    }
}

#[tokio::test]
async fn a_transaction_that_is_not_answered_is_not_committed() {
    let (_database, pools) = pools().await;
    for (number, pool) in (0..).zip(&pools) {
        let table = format!("t{number}");
        let run = |sql: String| sqlx::raw_sql(AssertSqlSafe(sql));
        run(format!("CREATE TABLE {table} ()")).execute(pool).await.unwrap();
        let mut transaction = pool.begin().await.unwrap();
        run(format!("INSERT INTO {table} DEFAULT VALUES")).execute(&mut *transaction).await.unwrap();
        let error = sqlx::query(SLEEP).execute(&mut *transaction).await.unwrap_err();
        assert!(is_silence(&error), "{error}");
        drop(transaction);
        let count = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(pool).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_statement_that_nobody_waits_for_takes_its_session_with_it() {
    let (_database, pools) = pools().await;
    for pool in &pools {
        let waited = timeout(LIMIT / 3, sqlx::query(SLEEP).execute(pool)).await;
        assert!(waited.is_err());
        assert_eq!(one(pool).await, 1);
    }
}

#[tokio::test]
async fn a_session_goes_on_after_a_statement_that_the_server_refuses() {
    let (_database, pools) = pools().await;
    for pool in &pools {
        let mut session = pool.acquire().await.unwrap();
        let pid = "SELECT pg_backend_pid()";
        let before: i32 = sqlx::query_scalar(pid).fetch_one(&mut session).await.unwrap();
        let refused = sqlx::query("SELECT 1 / 0").execute(&mut session).await.unwrap_err();
        assert!(matches!(refused, Error::Database(_)), "{refused}");
        let after: i32 = sqlx::query_scalar(pid).fetch_one(&mut session).await.unwrap();
        assert_eq!(before, after);
        drop(session);
        // Rolled back, and the session is there for the next.
        drop(pool.begin().await.unwrap());
        assert_eq!(sqlx::query_scalar::<_, i32>(pid).fetch_one(pool).await.unwrap(), before);
    }
}

async fn pid(session: &mut Session) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(session).await.unwrap()
}

#[tokio::test]
async fn the_session_that_was_given_back_last_is_taken_first() {
    let database = empty_database().await;
    let pool = &database.pool;
    let (mut one, mut two) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    let (first, second) = (pid(&mut one).await, pid(&mut two).await);
    drop(one);
    drop(two);
    for _ in 0..3 {
        let mut again = pool.acquire().await.unwrap();
        assert_eq!(pid(&mut again).await, second);
    }
    let (_held, mut other) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    assert_eq!(pid(&mut other).await, first);
}

#[tokio::test]
async fn nobody_waits_while_a_session_rests() {
    let (_database, pools) = pools().await;
    for pool in &pools {
        for _ in 0..20 {
            let held = pool.acquire().await.unwrap();
            let waiter = tokio::spawn({
                let pool = pool.clone();
                async move { one(&pool).await }
            });
            tokio::task::yield_now().await;
            drop(held);
            let answer = timeout(Duration::from_secs(5), waiter).await;
            assert_eq!(answer.unwrap().unwrap(), 1);
        }
    }
}

#[tokio::test]
async fn a_session_that_broke_while_it_rested_is_replaced() {
    let database = empty_database().await;
    let pool = &database.pool;
    let (mut one, mut two) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    let broken = pid(&mut one).await;
    sqlx::query("SELECT pg_terminate_backend($1)").bind(broken).execute(&mut two).await.unwrap();
    drop(two);
    drop(one);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut session = pool.acquire().await.unwrap();
    assert_ne!(pid(&mut session).await, broken);
}

#[tokio::test]
async fn a_closed_pool_has_no_sessions() {
    let database = empty_database().await;
    let other = Pool::straight(
        PgPoolOptions::new().connect_lazy_with((*database.pool.connect_options()).clone()),
        LIMIT,
    );
    let mut session = other.acquire().await.unwrap();
    let pid = pid(&mut session).await;
    drop(session);
    timeout(Duration::from_secs(5), other.close()).await.unwrap();
    assert!(matches!(other.acquire().await.unwrap_err(), Error::PoolClosed));
    let there = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
    let until = Instant::now() + Duration::from_secs(5);
    while sqlx::query_scalar::<_, i64>(there).bind(pid).fetch_one(&database.pool).await.unwrap() > 0 {
        assert!(Instant::now() < until, "the session is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
