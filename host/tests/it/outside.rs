//! Plugins that talk to a web server, which fails in the ways that servers fail.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Host, eventually, scratch, stderr};

const PATIENCE: Duration = Duration::from_secs(90);

/// How a server fails, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// 500 before anything is done.
    Error,
    /// 429 with one second to wait.
    Busy,
    /// 503 without a word on when to come back.
    Unavailable,
    /// No answer for longer than the client waits.
    Slow,
    /// All is done, but the answer breaks off.
    Lost,
}

const FAULTS: [Fault; 12] = [
    Fault::Error,
    Fault::None,
    Fault::None,
    Fault::Lost,
    Fault::None,
    Fault::None,
    Fault::Slow,
    Fault::None,
    Fault::None,
    Fault::Unavailable,
    Fault::None,
    Fault::None,
];

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn start(app: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// The answer of a fault, unless it is one that comes after the work is done.
async fn before(fault: Fault) -> Option<Response> {
    match fault {
        Fault::None | Fault::Lost => None,
        Fault::Error => Some(StatusCode::INTERNAL_SERVER_ERROR.into_response()),
        Fault::Busy => Some((StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response()),
        Fault::Unavailable => Some(StatusCode::SERVICE_UNAVAILABLE.into_response()),
        Fault::Slow => {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Some("too late".into_response())
        }
    }
}

/// An answer of which half is sent.
fn broken_off() -> Response {
    let half = futures::stream::iter([
        Ok::<_, std::io::Error>(Bytes::from_static(b"half")),
        Err(std::io::Error::other("cut")),
    ]);
    ([("content-length", "100")], Body::from_stream(half)).into_response()
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// A web hook that remembers.
#[derive(Default)]
struct Hook {
    requests: u64,
    faults: Vec<Fault>,
    /// Idempotency key -> body.
    bodies: HashMap<String, Bytes>,
    /// (partition, offset) -> how often it was received, and its payload.
    lines: BTreeMap<(u64, u64), (u32, Value)>,
    /// When a busy answer was given, and when the next request came.
    left_alone: Vec<(Instant, Option<Instant>)>,
    authorized: bool,
}

async fn hook(State(hook): State<Arc<Mutex<Hook>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.expect("a whole request");
    let fault = {
        let mut hook = lock(&hook);
        let now = Instant::now();
        if let Some((_, after @ None)) = hook.left_alone.last_mut() {
            *after = Some(now);
        }
        hook.authorized = text(&parts.headers, "authorization") == "Bearer hunter2";
        let turn = hook.requests as usize;
        hook.requests += 1;
        let fault = hook.faults.get(turn % hook.faults.len().max(1)).copied().unwrap_or(Fault::None);
        if fault == Fault::Busy {
            hook.left_alone.push((now, None));
        }
        fault
    };
    if let Some(answer) = before(fault).await {
        return answer;
    }
    let records: Vec<Value> =
        body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(parsed).collect();
    if records.iter().any(|record| record["payload"]["bad"] == true) {
        return (StatusCode::UNPROCESSABLE_ENTITY, "bad record").into_response();
    }
    let mut hook = lock(&hook);
    let key = text(&parts.headers, "idempotency-key");
    if let Some(earlier) = hook.bodies.insert(key.clone(), body.clone()) {
        assert_eq!(earlier, body, "two bodies under the key {key}");
    }
    for record in records {
        let place = (
            record["partition"].as_u64().expect("a partition"),
            record["offset"].as_u64().expect("an offset"),
        );
        let line = hook.lines.entry(place).or_insert((0, record["payload"].clone()));
        line.0 += 1;
        assert_eq!(line.1, record["payload"], "offset {place:?} came with two payloads");
    }
    if fault == Fault::Lost { broken_off() } else { StatusCode::NO_CONTENT.into_response() }
}

fn parsed(line: &[u8]) -> Value {
    serde_json::from_slice(line).unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(line)))
}

fn pipeline(folder: &std::path::Path, text: &str) -> String {
    let file = folder.join("pipeline.toml");
    std::fs::write(&file, text).expect("written");
    file.display().to_string()
}

async fn append(pool: &PgPool, from: i64, count: i64) {
    sqlx::query(
        "SELECT tidemill.append_many('orders', array_agg(convert_to(format('{\"n\":%s}', n), 'UTF8') ORDER BY n),
                                     array_agg(CASE WHEN n % 2 = 0 THEN int8send(n) ELSE convert_to(n::text, 'UTF8') END
                                               ORDER BY n))
           FROM generate_series($1::bigint, $1 + $2 - 1) n",
    )
    .bind(from)
    .bind(count)
    .execute(pool)
    .await
    .expect("orders can be appended");
}

async fn number(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

#[tokio::test]
async fn a_web_hook_gets_everything_through_failures_and_kills_and_can_tell_what_it_had() {
    let state = Arc::new(Mutex::new(Hook { faults: FAULTS.to_vec(), ..Hook::default() }));
    let address = start(Router::new().fallback(hook).with_state(Arc::clone(&state))).await;
    let folder = scratch();
    let secret = folder.path().join("token");
    std::fs::write(&secret, "Bearer hunter2\n").expect("written");
    let file = pipeline(
        folder.path(),
        &format!(
            "[pipeline]\nname = \"hooks\"\n[topics.orders]\npartitions = 2\n\
             [sinks.hook]\nplugin = \"http-sink\"\nfrom = \"orders\"\ngrants = [\"http\"]\nlimits = {{ deadline = \"5s\" }}\n\
             batch = {{ records = 50 }}\nconfig = {{ url = \"http://{address}/in\", format = \"records\" }}\n\
             [sinks.hook.http]\nallow = [\"http://{address}\"]\ntimeout = \"500ms\"\n\
             headers = {{ \"http://{address}\" = {{ authorization = {{ file = \"token\" }} }} }}\n"
        ),
    );
    let mut host = Host::start(&folder.path().join("data"), &[&file]);
    let pool = host.pool().await;
    let mut sent = 0;
    for round in 0..3 {
        append(&pool, sent, 400).await;
        sent += 400;
        let so_far = lock(&state).requests;
        eventually("the hook is called again", PATIENCE, || async { lock(&state).requests > so_far + 4 })
            .await;
        host.kill();
        if round == 1 {
            sqlx::query("SELECT tidemill.append('orders', '{\"bad\":true}')")
                .execute(&pool)
                .await
                .expect("appended");
        }
        host.restart();
    }
    eventually("all is delivered", PATIENCE, || async {
        number(&pool, "SELECT coalesce(sum(lag), 0)::bigint FROM tidemill.lag").await == 0
    })
    .await;
    {
        let hook = lock(&state);
        assert!(hook.authorized, "the stage's secret was not sent");
        let numbers: Vec<i64> =
            hook.lines.values().filter_map(|(_, payload)| payload["n"].as_i64()).collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..sent).collect::<Vec<_>>(), "orders lost, or not under one offset each");
        assert!(
            hook.lines.values().any(|(times, _)| *times > 1),
            "no answer was lost after its work was done"
        );
    }
    let dead: Vec<(String, String, Vec<u8>)> =
        sqlx::query_as("SELECT kind, error, payload FROM tidemill.dead_letters")
            .fetch_all(&pool)
            .await
            .expect("read");
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!((dead[0].0.as_str(), dead[0].2.as_slice()), ("reject", &b"{\"bad\":true}"[..]));
    assert!(dead[0].1.contains("the hook answered 422: bad record"), "{}", dead[0].1);
}

#[tokio::test]
async fn a_web_hook_that_is_busy_is_left_alone_as_long_as_it_asks() {
    let faults = vec![Fault::Busy, Fault::None];
    let state = Arc::new(Mutex::new(Hook { faults, ..Hook::default() }));
    let address = start(Router::new().fallback(hook).with_state(Arc::clone(&state))).await;
    let folder = scratch();
    let file = pipeline(
        folder.path(),
        &format!(
            "[pipeline]\nname = \"hooks\"\n[topics.orders]\npartitions = 1\n\
             [sinks.hook]\nplugin = \"http-sink\"\nfrom = \"orders\"\ngrants = [\"http\"]\nbatch = {{ records = 10 }}\n\
             config = {{ url = \"http://{address}/in\", format = \"records\" }}\nhttp = {{ allow = [\"http://{address}\"] }}\n"
        ),
    );
    let host = Host::start(&folder.path().join("data"), &[&file]);
    append(&host.pool().await, 0, 30).await;
    eventually("all is delivered", PATIENCE, || async { lock(&state).lines.len() == 30 }).await;
    let hook = lock(&state);
    assert!(hook.left_alone.len() >= 3);
    for (asked, came) in &hook.left_alone {
        let waited = came.expect("it came back").duration_since(*asked);
        assert!(waited >= Duration::from_secs(1) && waited < Duration::from_secs(10), "{waited:?}");
    }
}

/// A feed of items 1, 2, 3, … and a document with a version.
#[derive(Default)]
struct Feed {
    items: u64,
    version: u64,
    requests: u64,
    unchanged: u64,
}

type Shared = Arc<Mutex<Feed>>;

async fn items(
    State(feed): State<Shared>,
    Query(query): Query<HashMap<String, u64>>,
) -> Result<Response, Infallible> {
    let (fault, last) = {
        let mut feed = lock(&feed);
        feed.requests += 1;
        (FAULTS[feed.requests as usize % FAULTS.len()], feed.items)
    };
    if let Some(answer) = before(fault).await {
        return Ok(answer);
    }
    if fault == Fault::Lost {
        return Ok(broken_off());
    }
    let since = query.get("since").copied().unwrap_or(0);
    let page: Vec<Value> =
        (since + 1..=last).take(70).map(|id| json!({ "id": id, "text": format!("item {id}") })).collect();
    Ok(axum::Json(json!({ "items": page })).into_response())
}

async fn document(State(feed): State<Shared>, headers: HeaderMap) -> Response {
    let mut feed = lock(&feed);
    let tag = format!("\"v{}\"", feed.version);
    if text(&headers, "if-none-match") == tag {
        feed.unchanged += 1;
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([("etag", tag)], json!({ "version": feed.version }).to_string()).into_response()
}

#[tokio::test]
async fn a_poller_writes_each_item_once_through_failures_and_kills() {
    let feed: Shared = Arc::default();
    lock(&feed).version = 1;
    let app = Router::new()
        .route("/items", axum::routing::get(items))
        .route("/document", axum::routing::get(document))
        .with_state(Arc::clone(&feed));
    let address = start(app).await;
    let folder = scratch();
    let http = format!(
        "grants = [\"http\"]\nhttp = {{ allow = [\"http://{address}\"], methods = [\"GET\"], timeout = \"400ms\" }}\n"
    );
    let file = pipeline(
        folder.path(),
        &format!(
            "[pipeline]\nname = \"polls\"\n[topics.items]\npartitions = 1\n[topics.documents]\npartitions = 1\n\
             [producers.items]\nplugin = \"http-poller\"\nto = \"items\"\nbatch = {{ records = 40 }}\n{http}\
             config = {{ url = \"http://{address}/items\", every_ms = 20, cursor = {{ param = \"since\", field = \"id\", \
             items = \"items\" }} }}\n\
             [producers.document]\nplugin = \"http-poller\"\nto = \"documents\"\n{http}\
             config = {{ url = \"http://{address}/document\", every_ms = 20 }}\n"
        ),
    );
    let mut host = Host::start(&folder.path().join("data"), &[&file]);
    let pool = host.pool().await;
    let written = || number(&pool, "SELECT count(*) FROM topics.items");
    for _ in 0..4 {
        let before = written().await;
        lock(&feed).items += 300;
        eventually("items are written", PATIENCE, || async { written().await > before }).await;
        host.kill();
        lock(&feed).version += 1;
        host.restart();
    }
    let total = lock(&feed).items as i64;
    eventually("all items are written", PATIENCE, || async { written().await >= total }).await;
    let ids: Vec<i64> =
        sqlx::query_scalar("SELECT (value->>'id')::bigint FROM topics.items ORDER BY c_offset")
            .fetch_all(&pool)
            .await
            .expect("items can be read");
    assert_eq!(ids, (1..=total).collect::<Vec<_>>(), "items lost, repeated or out of order");
    eventually("the document is up to date, and then left alone", PATIENCE, || async {
        let newest =
            number(&pool, "SELECT coalesce(max((value->>'version')::bigint), 0) FROM topics.documents").await;
        let feed = lock(&feed);
        newest == feed.version as i64 && feed.unchanged > 3
    })
    .await;
    let versions =
        number(&pool, "SELECT count(*) - count(DISTINCT value->>'version') FROM topics.documents").await;
    assert_eq!(versions, 0, "a version of the document was written twice");
}

/// A proxy in the environment is not asked, neither for what is allowed nor to get around what is not.
#[tokio::test]
async fn a_plugin_cannot_leave_its_origins_and_the_check_says_what_is_missing() {
    let folder = scratch();
    let text = "[pipeline]\nname = \"p\"\n[topics.a]\n[topics.b]\n[transforms.t]\nplugin = \"test-reach\"\nfrom = \"a\"\nto = \"b\"\n";
    let plugins = crate::support::root().join("plugins/dist").display().to_string();
    let refused = crate::support::run(&["check", "--plugins", &plugins, &pipeline(folder.path(), text)]);
    assert_eq!(refused.status.code(), Some(2));
    let said = format!("{}{}", crate::support::stdout(&refused), stderr(&refused));
    for expected in
        ["the component imports `clock`, `http`, `metrics`, `random`, `state`", "write `grants = ["]
    {
        assert!(said.contains(expected), "{said}");
    }

    let reached = Arc::new(Mutex::new(0_u32));
    let counter = Arc::clone(&reached);
    let proxy = start(Router::new().fallback(move || {
        *lock(&counter) += 1;
        async { "proxied" }
    }))
    .await;
    let fine = start(Router::new().fallback(|| async { "fine" })).await;
    let text = format!(
        "{text}grants = [\"clock\", \"http\", \"metrics\", \"random\", \"state\"]\nhttp = {{ allow = [\"http://{fine}\"] }}\n\
         limits = {{ deadline = \"10s\" }}\n"
    );
    let through = format!("http://{proxy}");
    let environment =
        ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"].map(|name| (name, &*through));
    let file = pipeline(folder.path(), &text);
    let host = Host::start_with(&folder.path().join("data"), &[&file], &environment);
    let pool = host.pool().await;
    for attempt in [
        json!({ "try": "fetch", "url": format!("http://{fine}") }),
        json!({ "try": "fetch", "url": format!("http://{proxy}") }),
        json!({ "try": "fetch", "url": "http://169.254.169.254/latest/meta-data/" }),
    ] {
        sqlx::query("SELECT tidemill.append('a', $1, '0')")
            .bind(attempt.to_string())
            .execute(&pool)
            .await
            .expect("appended");
    }
    eventually("all attempts are made", PATIENCE, || async {
        number(&pool, "SELECT count(*) FROM topics.b").await == 3
    })
    .await;
    let results: Vec<String> =
        sqlx::query_scalar("SELECT convert_from(payload, 'UTF8') FROM topics.b ORDER BY partition, c_offset")
            .fetch_all(&pool)
            .await
            .expect("results can be read");
    assert!(results.contains(&"ok: 200 fine".to_owned()), "{results:?}");
    assert_eq!(
        results.iter().filter(|result| result.starts_with("refused: Error::Denied")).count(),
        2,
        "{results:?}"
    );
    assert_eq!(*lock(&reached), 0, "the proxy was asked");
}
