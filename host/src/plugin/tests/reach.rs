//! What a guest reaches: the corpus of attempts, each of which must end at the host's walls, and the grants that open doors.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;

use super::*;
use crate::config::grants::HttpPlan;
use crate::plugin::http::{HttpClient, Lookup};
use crate::plugin::state::{Memory, Session, StateLimits};

const ALL: [Grant; 5] = Grant::ALL;

async fn reach(grants: Grants, limits: &Limits) -> Instance {
    let plugin = engine().load(built("test-reach"), PluginKind::Transform).await.unwrap();
    plugin.granted(grants).unwrap().instantiate("reach", &Json::Null, limits).await.unwrap()
}

/// What came of one attempt.
async fn attempt(instance: &mut Instance, attempt: Json) -> String {
    let outcome = instance.process(vec![message(0, attempt.to_string())]).await.unwrap();
    assert!(outcome.refusals.is_empty(), "{:?}", outcome.refusals);
    String::from_utf8(outcome.emissions[0].payload.clone()).unwrap()
}

/// A server on this machine that no attempt may reach, unless its test says so.
struct Target {
    address: SocketAddr,
    reached: Arc<AtomicU32>,
}

impl Target {
    async fn start(
        answer: impl Fn(&str) -> axum::response::Response + Clone + Send + Sync + 'static,
    ) -> Self {
        let reached = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&reached);
        let app = Router::new().fallback(move |request: axum::extract::Request| {
            counter.fetch_add(1, Ordering::SeqCst);
            let answer = answer(request.uri().path());
            async move { answer }
        });
        // All addresses of this machine, those of IPv6 too where there is any.
        let listener = match tokio::net::TcpListener::bind("[::]:0").await {
            Ok(listener) => listener,
            Err(_) => tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap(),
        };
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, reached }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    fn reached(&self) -> u32 {
        self.reached.load(Ordering::SeqCst)
    }
}

fn secret(_: &str) -> axum::response::Response {
    axum::response::IntoResponse::into_response("secret")
}

fn allowing(origins: &[String]) -> HttpPlan {
    HttpPlan { allow: origins.iter().map(|origin| origin.parse().unwrap()).collect(), ..HttpPlan::default() }
}

/// Names of a test's own; each look-up takes the next of their answers, the last one again and again.
fn names(table: &[(&str, &[&[&str]])]) -> (Lookup, Arc<AtomicU32>) {
    type Answers = (AtomicU32, Vec<Vec<IpAddr>>);
    let parsed = |answers: &[&[&str]]| {
        let addresses = answers.iter().map(|answer| answer.iter().map(|ip| ip.parse().unwrap()).collect());
        (AtomicU32::new(0), addresses.collect())
    };
    let table: HashMap<String, Answers> =
        table.iter().map(|(name, answers)| ((*name).to_owned(), parsed(answers))).collect();
    let (table, count) = (Arc::new(table), Arc::new(AtomicU32::new(0)));
    let counter = Arc::clone(&count);
    let lookup: Lookup = Arc::new(move |name| {
        counter.fetch_add(1, Ordering::SeqCst);
        let found = table.get(&name).map(|(turn, answers)| {
            let turn = turn.fetch_add(1, Ordering::SeqCst) as usize;
            answers[turn.min(answers.len() - 1)].clone()
        });
        Box::pin(async move { found.ok_or_else(|| std::io::Error::other(format!("no such name: {name}"))) })
    });
    (lookup, count)
}

async fn with_http(plan: HttpPlan, lookup: Lookup) -> Instance {
    let client = HttpClient::new(plan, lookup, tokio::runtime::Handle::current()).unwrap();
    let limits = Limits { deadline: Duration::from_secs(20), ..Limits::default() };
    let mut instance = reach(Grants::new(ALL, Some(client)), &limits).await;
    instance.set_context(Context::default());
    instance
}

#[tokio::test]
async fn files_and_environment_are_not_there() {
    let mut instance = reach(Grants::new(ALL, None), &Limits::default()).await;
    let left = std::env::temp_dir().join(format!("tidemill-reached-{}", std::process::id()));
    let write = left.display().to_string();
    let attempts = [
        json!({"try": "read", "path": "/etc/passwd"}),
        json!({"try": "read", "path": "/proc/self/environ"}),
        json!({"try": "read", "path": "../../../../etc/hostname"}),
        json!({"try": "read", "path": ""}),
        json!({"try": "list", "path": "/"}),
        json!({"try": "list", "path": "."}),
        json!({"try": "write", "path": write}),
        json!({"try": "write", "path": "reached"}),
        json!({"try": "env"}),
    ];
    for case in attempts {
        let result = attempt(&mut instance, case.clone()).await;
        assert!(result.starts_with("refused: "), "{case}: {result}");
    }
    assert!(!left.exists());
}

#[tokio::test]
async fn sockets_and_names_are_refused_before_anything_runs() {
    let error = engine().load(built("test-sockets"), PluginKind::Transform).await.unwrap_err().to_string();
    for import in ["wasi:sockets/tcp@", "wasi:sockets/udp@", "wasi:sockets/ip-name-lookup@"] {
        assert!(error.contains(import), "{error}");
    }
    assert!(error.contains("what this host does not offer"), "{error}");
}

#[tokio::test]
async fn what_is_not_granted_is_told_by_name_and_not_run() {
    let plugin = engine().load(built("test-reach"), PluginKind::Transform).await.unwrap();
    assert_eq!(Vec::from_iter(plugin.needs().iter().copied()), ALL);
    let error = plugin.granted(Grants::new([Grant::Clock, Grant::Metrics], None)).unwrap_err();
    assert_eq!(error, LoadError::NotGranted { missing: vec![Grant::Http, Grant::Random, Grant::State] });
    assert_eq!(
        error.to_string(),
        "the component imports `http`, `random`, `state`, which the stage does not grant"
    );
    let error = plugin.instantiate("reach", &Json::Null, &Limits::default()).await.err().unwrap();
    assert!(matches!(&error, CallError::NotGranted { missing } if missing.len() == 5), "{error}");
    assert!(plugin.describe(&Limits::default()).await.is_ok(), "it may be asked what it is");
}

#[tokio::test]
async fn without_a_context_there_is_no_state_and_no_network() {
    let mut instance = reach(Grants::new(ALL, None), &Limits::default()).await;
    let get = attempt(&mut instance, json!({"try": "get", "key": "k"})).await;
    assert!(get.contains("there is no state in this call"), "{get}");
    let target = Target::start(secret).await;
    let url = format!("http://127.0.0.1:{}", target.port());
    let plan = allowing(std::slice::from_ref(&url));
    let client = HttpClient::new(plan, names(&[]).0, tokio::runtime::Handle::current()).unwrap();
    let mut instance = reach(Grants::new(ALL, Some(client)), &Limits::default()).await;
    let fetch = attempt(&mut instance, json!({"try": "fetch", "url": url})).await;
    assert!(fetch.contains("there is no network in this call"), "{fetch}");
    assert_eq!(target.reached(), 0);
}

/// Ways to write, hide or resolve an address of this machine, or of its network, in a URL that no origin covers.
fn forged(port: u16) -> Vec<String> {
    let mut urls: Vec<String> = [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.1",
        "127.0.1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::1]",
        "[::1%25lo]",
        "[fe80::1%25eth0]",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "ⓛocalhost",
        "127.0.0.1.",
        "hooks.example.com.",
        "hooks.example.com@127.0.0.1",
        "hooks.example.com:x@127.0.0.1",
        "169.254.169.254",
        "0xa9fea9fe",
        "[fd00:ec2::254]",
        "10.0.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "sub.hooks.example.com",
        "hooks.example.com.evil.org",
    ]
    .iter()
    .map(|host| format!("http://{host}:{port}/"))
    .collect();
    urls.extend([
        format!("http://127.0.0.1:{port}\\@hooks.example.com/"),
        format!("http://127.0.0.1:{port}#@hooks.example.com:{port}/"),
        format!("http://127.0.0.1:{port}?@hooks.example.com:{port}/"),
        format!("http://hooks.example.com:{port}@127.0.0.1:{port}/"),
        format!("http://hooks.example.com%2f@127.0.0.1:{port}/"),
        format!("http://127.0.0.1%00.example.com:{port}/"),
        format!("http://127.0.0.1:{port}\t/"),
        format!("http://127.0.0.1:{port}/\r\nhost: hooks.example.com"),
        format!(" http://127.0.0.1:{port}/"),
        format!("http:127.0.0.1:{port}/"),
        format!("http:\\\\127.0.0.1:{port}\\"),
        format!("//127.0.0.1:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("ftp://127.0.0.1:{port}/"),
        format!("gopher://127.0.0.1:{port}/_GET"),
        format!("ws://127.0.0.1:{port}/"),
        "file:///etc/passwd".to_owned(),
        "data:text/plain,secret".to_owned(),
        "unix:///run/docker.sock".to_owned(),
    ]);
    urls
}

#[tokio::test]
async fn no_way_to_write_a_url_leads_to_this_machine() {
    let target = Target::start(secret).await;
    let port = target.port();
    let allowed = [format!("http://hooks.example.com:{port}")];
    let (lookup, lookups) = names(&[("hooks.example.com", &[&["203.0.113.1"]])]);
    let mut instance = with_http(allowing(&allowed), lookup).await;
    let urls = forged(port);
    assert!(urls.len() >= 12);
    for url in &urls {
        let result = attempt(&mut instance, json!({"try": "fetch", "url": url})).await;
        let denied =
            result.starts_with("refused: Error::Denied") || result.starts_with("refused: Error::Invalid");
        assert!(denied, "{url:?}: {result}");
    }
    assert_eq!(lookups.load(Ordering::SeqCst), 0, "nothing was even looked up");
    assert_eq!(target.reached(), 0);
}

#[tokio::test]
async fn no_allowed_name_leads_to_this_machine_or_its_network() {
    let target = Target::start(secret).await;
    let port = target.port();
    let answers: [&[&[&str]]; 14] = [
        &[&["127.0.0.1"]],
        &[&["127.8.8.8"]],
        &[&["::1"]],
        &[&["::ffff:127.0.0.1"]],
        &[&["64:ff9b::7f00:1"]],
        &[&["2002:7f00:1::1"]],
        &[&["0.0.0.0"]],
        &[&["::"]],
        &[&["10.0.0.1", "192.168.1.1"]],
        &[&["100.64.0.1"]],
        &[&["169.254.169.254"]],
        &[&["fe80::1"], &["fd00:ec2::254"]],
        &[&["224.0.0.1", "127.0.0.1"]],
        // A name that changes between two looks: each request looks once, and connects to what it checked.
        &[&["10.9.9.9"], &["127.0.0.1"], &["::1"]],
    ];
    let hosts: Vec<String> = (0..answers.len()).map(|i| format!("n{i}.example.com")).collect();
    let table: Vec<(&str, &[&[&str]])> = hosts.iter().map(String::as_str).zip(answers).collect();
    let (lookup, lookups) = names(&table);
    let origins: Vec<String> = hosts.iter().map(|host| format!("http://{host}:{port}")).collect();
    let mut instance = with_http(allowing(&origins), lookup).await;
    let mut asked = 0;
    for url in &origins {
        for _ in 0..3 {
            let result = attempt(&mut instance, json!({"try": "fetch", "url": url})).await;
            assert!(result.starts_with("refused: Error::Denied"), "{url}: {result}");
            assert!(result.contains("which is not for plugins"), "{url}: {result}");
            asked += 1;
        }
    }
    assert_eq!(lookups.load(Ordering::SeqCst), asked, "one look-up for each request");
    assert_eq!(target.reached(), 0);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_its_target_is_checked_like_any_other() {
    let target = Target::start(secret).await;
    let place = format!("http://127.0.0.1:{}/", target.port());
    let away = place.clone();
    let door = Target::start(move |_| {
        let location = [("location", away.clone())];
        axum::response::IntoResponse::into_response((
            axum::http::StatusCode::TEMPORARY_REDIRECT,
            location,
            "moved",
        ))
    })
    .await;
    let allowed = format!("http://127.0.0.1:{}", door.port());
    let mut instance = with_http(allowing(std::slice::from_ref(&allowed)), names(&[]).0).await;
    let result = attempt(&mut instance, json!({"try": "fetch", "url": allowed})).await;
    assert_eq!(result, "ok: 307 moved");
    let result = attempt(&mut instance, json!({"try": "fetch", "url": place})).await;
    assert!(result.starts_with("refused: Error::Denied"), "{result}");
    assert_eq!((door.reached(), target.reached()), (1, 0));
}

#[tokio::test]
async fn a_path_that_is_not_allowed_is_not_reached_on_an_allowed_host() {
    let target = Target::start(|path| {
        axum::response::IntoResponse::into_response(if path.starts_with("/in/") { "fine" } else { "secret" })
    })
    .await;
    let origin = format!("http://127.0.0.1:{}", target.port());
    let mut instance = with_http(allowing(&[format!("{origin}/in/")]), names(&[]).0).await;
    let fine = attempt(&mut instance, json!({"try": "fetch", "url": format!("{origin}/in/a")})).await;
    assert_eq!(fine, "ok: 200 fine");
    for path in [
        "/",
        "/secret",
        "/inner",
        "/in/../secret",
        "/in/%2e%2e/secret",
        "/in/.%2E/x",
        "/in/..%2fsecret",
        "/in/..%5csecret",
        "/in\\..\\secret",
        "//in/",
    ] {
        let result = attempt(&mut instance, json!({"try": "fetch", "url": format!("{origin}{path}")})).await;
        assert!(!result.starts_with("ok: 200 secret"), "{path}: {result}");
        assert!(result.starts_with("refused: Error::Denied"), "{path}: {result}");
    }
}

#[tokio::test]
async fn what_is_listed_is_reached_by_address_by_localhost_and_by_private_name() {
    let target = Target::start(secret).await;
    let port = target.port();
    let origins = [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        format!("http://away.example.com:{port}"),
    ];
    let table: [(&str, &[&[&str]]); 2] =
        [("localhost", &[&["127.0.0.1"]]), ("away.example.com", &[&["127.0.0.1"]])];
    let plan = HttpPlan { private: true, ..allowing(&origins) };
    let mut instance = with_http(plan, names(&table).0).await;
    for url in &origins[..2] {
        assert_eq!(attempt(&mut instance, json!({"try": "fetch", "url": url})).await, "ok: 200 secret");
    }
    // The decimal form is the same address, and so the same origin.
    let decimal = format!("http://2130706433:{port}/x");
    assert_eq!(attempt(&mut instance, json!({"try": "fetch", "url": decimal})).await, "ok: 200 secret");
    let away = attempt(&mut instance, json!({"try": "fetch", "url": origins[2]})).await;
    assert!(away.starts_with("refused: Error::Denied"), "private networks are not this machine: {away}");
    let both = json!({"try": "fetch-many", "urls": [origins[0], origins[2]]});
    let both = attempt(&mut instance, both).await;
    assert!(both.starts_with("ok: 200 secret | Error::Denied"), "{both}");
    assert_eq!(target.reached(), 4);
}

#[tokio::test]
async fn a_slow_server_is_a_timeout_to_the_guest_before_its_deadline_ends_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let client = HttpClient::new(
        allowing(std::slice::from_ref(&origin)),
        names(&[]).0,
        tokio::runtime::Handle::current(),
    );
    let limits = Limits { deadline: Duration::from_millis(1_500), ..Limits::default() };
    let mut instance = reach(Grants::new(ALL, Some(client.unwrap())), &limits).await;
    instance.set_context(Context::default());
    let result = attempt(&mut instance, json!({"try": "fetch", "url": origin})).await;
    assert_eq!(result, "refused: Error::Timeout");
    assert!(!instance.poisoned());
}

fn context(now: i64, seed: &str, state: Option<Arc<Session>>) -> Context {
    Context { now, seed: Seed::of(&[seed.as_bytes()]), state }
}

#[tokio::test]
async fn time_and_chance_are_those_of_the_batch_and_the_same_in_a_second_run() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let mut instance = reach(Grants::new(ALL, None), &Limits::default()).await;
        let mut results = Vec::new();
        for (now, seed) in [(1_700_000_000_123_456, "first"), (1_700_000_000_123_457, "second")] {
            instance.set_context(context(now, seed, None));
            for kind in ["clock", "wall", "random"] {
                results.push(attempt(&mut instance, json!({"try": kind})).await);
            }
            assert_eq!(results[results.len() - 3], format!("ok: {now}"));
            assert_eq!(results[results.len() - 2], format!("ok: {now}"));
        }
        assert_ne!(results[2], results[5]);
        runs.push(results);
    }
    assert_eq!(runs[0], runs[1]);
    let mut instance = reach(Grants::new(ALL, None), &Limits::default()).await;
    assert_eq!(attempt(&mut instance, json!({"try": "monotonic"})).await, "ok: 1");
}

#[tokio::test]
async fn state_is_of_the_call_and_of_what_was_committed() {
    let memory = Memory::default();
    let limits = StateLimits { quota: 1_000, value: 500, call_bytes: 10_000, call_entries: 100 };
    let space = memory.space(limits);
    let mut instance = reach(Grants::new(ALL, None), &Limits::default()).await;
    let call = space.session(0);
    instance.set_context(context(0, "", Some(Arc::clone(&call))));
    assert_eq!(attempt(&mut instance, json!({"try": "set", "key": "a", "value": "1"})).await, "ok: ");
    assert_eq!(attempt(&mut instance, json!({"try": "get", "key": "a"})).await, "ok: 1");
    let large = attempt(&mut instance, json!({"try": "set", "key": "b", "size": 501})).await;
    assert!(large.contains("raise the limit `state_value`"), "{large}");
    attempt(&mut instance, json!({"try": "set", "key": "c", "size": 500})).await;
    let full = attempt(&mut instance, json!({"try": "set", "key": "d", "size": 500})).await;
    assert!(full.contains("raise the limit `state`"), "{full}");
    assert_eq!(attempt(&mut instance, json!({"try": "scan", "prefix": ""})).await, "ok: a,c");
    memory.commit(&call.take().await.unwrap());

    // A call that traps leaves nothing, and a new instance finds what was committed.
    let trapped = space.session(1);
    instance.set_context(context(1, "", Some(trapped)));
    attempt(&mut instance, json!({"try": "delete", "key": "a"})).await;
    assert!(instance.process(vec![message(0, json!({"try": "panic"}).to_string())]).await.is_err());
    let mut instance = reach(Grants::new(ALL, None), &Limits::default()).await;
    instance.set_context(context(1, "", Some(space.session(1))));
    assert_eq!(attempt(&mut instance, json!({"try": "scan", "prefix": ""})).await, "ok: a,c");
}

#[tokio::test]
async fn imports_of_the_right_name_and_another_type_are_refused() {
    let hostile = super::hostile::Hostile {
        import: "(import \"tidemill:plugin/clock@0.1.0\" (instance (export \"now\" (func (result string)))))",
        ..super::hostile::Hostile::default()
    };
    let error = engine().load(hostile.bytes(), PluginKind::Transform).await.unwrap_err().to_string();
    assert!(error.contains("does not match world tidemill:plugin/transform@0.1.0"), "{error}");
    let later = super::hostile::Hostile {
        import: "(import \"tidemill:plugin/clock@0.2.0\" (instance (export \"now\" (func (result s64)))))",
        ..super::hostile::Hostile::default()
    };
    let error = engine().load(later.bytes(), PluginKind::Transform).await.unwrap_err().to_string();
    assert!(error.contains("does not offer: tidemill:plugin/clock@0.2.0"), "{error}");
}

#[tokio::test]
async fn a_stage_has_so_many_instances_and_no_more() {
    let plugin = engine().load(built("test-identity"), PluginKind::Transform).await.unwrap();
    let limits = Limits { instances: 2, ..Limits::default() };
    let first = plugin.instantiate("a", &Json::Null, &limits).await.unwrap();
    let _second = plugin.instantiate("b", &Json::Null, &limits).await.unwrap();
    let error = plugin.instantiate("c", &Json::Null, &limits).await.err();
    assert_eq!(error, Some(CallError::StageFull { limit: 2 }));
    drop(first);
    assert!(plugin.instantiate("c", &Json::Null, &limits).await.is_ok());
}
