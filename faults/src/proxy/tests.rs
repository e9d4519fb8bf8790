//! Each mode does to a connection what it says.

use sqlx::{Connection as _, PgConnection};
use tidemill::pg::pool::parse_url;
use tidemill::pg::testing::empty_database;

use super::*;

/// A server that sends back what it gets, and a connection to it through a proxy.
async fn rig() -> (Proxy, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = socket.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    let proxy = Proxy::start(Upstream::Address(address), Rng::with_seed(1)).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(echoed(&mut client).await, "a new proxy passes");
    (proxy, client)
}

/// Whether a word comes back soon.
async fn echoed(client: &mut TcpStream) -> bool {
    client.write_all(b"ping").await.is_ok() && came(client).await
}

async fn came(client: &mut TcpStream) -> bool {
    let mut word = [0; 4];
    let read = tokio::time::timeout(Duration::from_millis(300), client.read_exact(&mut word)).await;
    matches!(read, Ok(Ok(_)))
}

async fn is_reset(client: &mut TcpStream) -> bool {
    let mut byte = [0; 1];
    let read = tokio::time::timeout(Duration::from_secs(5), client.read(&mut byte)).await;
    matches!(read, Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn a_cut_resets_what_is_open_and_lets_the_next_pass() {
    let (proxy, mut client) = rig().await;
    proxy.cut_now().await;
    assert!(is_reset(&mut client).await);
    let mut next = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(echoed(&mut next).await);
    assert_eq!(proxy.done().resets.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_a_black_hole_holds_is_delivered_when_it_ends() {
    for (up, down) in [(true, true), (true, false), (false, true)] {
        let (proxy, mut client) = rig().await;
        proxy.set(Mode::Hole { up, down });
        assert!(!echoed(&mut client).await, "up {up}, down {down}");
        proxy.set(Mode::Pass);
        assert!(came(&mut client).await, "up {up}, down {down}");
    }
}

#[tokio::test]
async fn a_connection_that_was_lost_stays_silent_and_a_new_one_passes() {
    let (proxy, mut client) = rig().await;
    proxy.set(Mode::Lost);
    assert!(!echoed(&mut client).await);
    proxy.set(Mode::Pass);
    assert!(!came(&mut client).await);
    assert!(!echoed(&mut client).await);
    let mut next = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(echoed(&mut next).await);
}

#[tokio::test]
async fn a_question_that_is_open_is_lost_with_its_connection() {
    let (proxy, mut client) = rig().await;
    let asking = async {
        sleep(Duration::from_millis(50)).await;
        client.write_all(b"ping").await.unwrap();
    };
    tokio::join!(proxy.lose(), asking);
    proxy.set(Mode::Pass);
    assert!(!came(&mut client).await);
}

#[tokio::test]
async fn latency_is_added_both_ways() {
    let (proxy, mut client) = rig().await;
    proxy.set(Mode::Latency(Duration::from_millis(60)));
    let started = std::time::Instant::now();
    assert!(echoed(&mut client).await);
    assert!(started.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn a_reset_comes_after_so_many_bytes() {
    let (proxy, mut client) = rig().await;
    proxy.set(Mode::ResetAfter(6));
    assert!(echoed(&mut client).await, "four of them");
    client.write_all(b"ping").await.unwrap();
    let mut two = [0; 2];
    let _ = client.read_exact(&mut two).await;
    assert!(is_reset(&mut client).await);
}

#[tokio::test]
async fn a_commit_that_is_cut_is_done_after_and_not_done_before() {
    let database = empty_database().await;
    sqlx::raw_sql("CREATE TABLE done (n int)").execute(&database.pool).await.unwrap();
    let options = parse_url(&database.url).unwrap();
    let socket = options.get_socket().expect("the server has a socket").join(".s.PGSQL.5432");
    let proxy = Proxy::start(Upstream::Socket(socket), Rng::with_seed(3)).await.unwrap();
    let url = format!("postgres://tidemill@{}/{}?sslmode=disable", proxy.address(), database.name);
    let (mut done, mut not) = (0, 0);
    for n in 0..12 {
        let mut connection = PgConnection::connect_with(&parse_url(&url).unwrap()).await.unwrap();
        let mut transaction = connection.begin().await.unwrap();
        sqlx::query("INSERT INTO done VALUES ($1)").bind(n).execute(&mut *transaction).await.unwrap();
        let cut_after = proxy.done().after.load(Ordering::Relaxed);
        proxy.cut_commits(1, 1.0);
        assert!(transaction.commit().await.is_err(), "the client is not told");
        let cut_after = proxy.done().after.load(Ordering::Relaxed) > cut_after;
        let stored: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM done WHERE n = $1)")
            .bind(n)
            .fetch_one(&database.pool)
            .await
            .unwrap();
        assert_eq!(stored, cut_after);
        *(if stored { &mut done } else { &mut not }) += 1;
    }
    assert!(done > 0 && not > 0 && proxy.commits_cut() == 12, "{done} were done and {not} were not");
}
