//! The client against a real server on this machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use axum::Router;
use axum::extract::Request as Incoming;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response as Answer};

use super::*;
use crate::config::grants::Method;
use crate::config::secret::Secret;
use crate::plugin::bindings::shared::tidemill::plugin::types::Header;

const LONG: Duration = Duration::from_secs(20);

/// A server that answers by path, and counts how many requests it holds at most at a time.
struct Server {
    address: SocketAddr,
    most: Arc<AtomicU32>,
}

async fn serve() -> Server {
    let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&most);
    let app = Router::new().fallback(move |request: Incoming| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&counted));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let answer = answer(request).await;
            now.fetch_sub(1, Ordering::SeqCst);
            answer
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    Server { address, most }
}

async fn answer(request: Incoming) -> Answer {
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/headers" => {
            let lines = request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
            lines.collect::<String>().into_response()
        }
        "/large" => vec![b'x'; 5_000].into_response(),
        "/slow" => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            "late".into_response()
        }
        "/soon" => {
            tokio::time::sleep(Duration::from_millis(100)).await;
            "soon".into_response()
        }
        "/moved" => (StatusCode::FOUND, [("location", "/headers")]).into_response(),
        _ => {
            let (method, path) = (request.method().to_string(), path.clone());
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
            format!("{method} {path} {}", body.len()).into_response()
        }
    }
}

impl Server {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn plan(&self) -> HttpPlan {
        HttpPlan { allow: vec![self.url("").parse().unwrap()], ..HttpPlan::default() }
    }
}

fn client(plan: HttpPlan) -> HttpClient {
    HttpClient::new(plan, system_lookup(), Handle::current()).unwrap()
}

fn get(url: String) -> Request {
    Request { method: "GET".to_owned(), url, headers: vec![], body: None, timeout: None }
}

async fn one(client: &HttpClient, request: Request) -> Result<Response, Error> {
    client.exchange(vec![request], LONG, &mut 0).await.remove(0)
}

fn body(response: Result<Response, Error>) -> String {
    String::from_utf8(response.unwrap().body).unwrap()
}

#[tokio::test]
async fn a_request_goes_out_as_it_is_and_the_answer_comes_back() {
    let server = serve().await;
    let client = client(server.plan());
    let request =
        Request { method: "POST".to_owned(), body: Some(b"12345".to_vec()), ..get(server.url("/a/b?c")) };
    assert_eq!(body(one(&client, request).await), "POST /a/b 5");
    let moved = one(&client, get(server.url("/moved"))).await.unwrap();
    assert_eq!(moved.status, 302);
    assert!(moved.headers.iter().any(|header| header.name == "location" && header.value == b"/headers"));
}

#[tokio::test]
async fn headers_of_the_stage_are_added_and_those_of_the_host_are_guarded() {
    let server = serve().await;
    let origin = server.url("").parse().unwrap();
    let own = [("authorization".to_owned(), Secret::plain("Bearer hunter2"))];
    let client = client(HttpPlan { headers: vec![(origin, own.into())], ..server.plan() });
    let header = |name: &str, value: &[u8]| Header { name: name.to_owned(), value: value.to_vec() };
    let with = |headers| Request { headers, ..get(server.url("/headers")) };
    let seen = body(one(&client, with(vec![header("X-Own", b"1"), header("authorization", b"mine")])).await);
    assert!(seen.contains("authorization: Bearer hunter2\n") && seen.contains("x-own: 1\n"), "{seen}");
    assert!(!seen.contains("mine") && seen.contains(&format!("host: {}\n", server.address)), "{seen}");
    for name in
        ["Host", "content-length", "Transfer-Encoding", "connection", "upgrade", "proxy-authorization"]
    {
        let refused = one(&client, with(vec![header(name, b"1")])).await;
        assert!(
            matches!(&refused, Err(Error::Denied(words)) if words.contains("is the host's")),
            "{refused:?}"
        );
    }
    for (name, value) in
        [("a b", &b"1"[..]), ("a", b"1\r\nhost: x"), ("a\r\nb", b"1"), ("", b"1"), ("a", b"\0")]
    {
        let refused = one(&client, with(vec![header(name, value)])).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    let many = (0..65).map(|i| header(&format!("h{i}"), b"1")).collect();
    assert!(matches!(one(&client, with(many)).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn sizes_methods_and_numbers_are_bounded() {
    let server = serve().await;
    let client = client(HttpPlan {
        methods: vec![Method::Get],
        request_bytes: 1_024,
        response_bytes: 4_096,
        requests: 3,
        ..server.plan()
    });
    let large = one(&client, get(server.url("/large"))).await;
    assert!(
        matches!(&large, Err(Error::TooLarge(words)) if words.contains("http.response_bytes")),
        "{large:?}"
    );
    let large = Request { body: Some(vec![0; 1_025]), ..get(server.url("/")) };
    assert!(matches!(one(&client, large).await, Err(Error::TooLarge(_))));
    let post = Request { method: "POST".to_owned(), ..get(server.url("/")) };
    assert!(
        matches!(one(&client, post).await, Err(Error::Denied(words)) if words.contains("`http.methods`: GET"))
    );
    let lower = Request { method: "get".to_owned(), ..get(server.url("/")) };
    assert!(matches!(one(&client, lower).await, Err(Error::Denied(_))));

    let mut sent = 0;
    let requests = || (0..2).map(|_| get(server.url("/"))).collect::<Vec<_>>();
    assert!(client.exchange(requests(), LONG, &mut sent).await.iter().all(Result::is_ok));
    let answers = client.exchange(requests(), LONG, &mut sent).await;
    assert!(answers[0].is_ok());
    assert!(matches!(&answers[1], Err(Error::Exhausted(words)) if words.contains("more than 3 requests")));
}

#[tokio::test]
async fn the_answers_of_one_call_are_bounded_together() {
    let server = serve().await;
    let client = client(HttpPlan { requests: 10_000, concurrent: 64, ..server.plan() });
    let requests = (0..4_000).map(|_| get(server.url("/large"))).collect();
    let answers = client.exchange(requests, LONG, &mut 0).await;
    let bytes: usize = answers.iter().flatten().map(|answer| answer.body.len()).sum();
    assert!(bytes as u64 <= MANY_BYTES && bytes > 12 << 20, "{bytes}");
    assert!(answers.iter().any(|answer| matches!(answer, Err(Error::TooLarge(_)))));
}

#[tokio::test]
async fn so_many_exchanges_run_at_a_time_and_no_more() {
    let server = serve().await;
    let client = client(HttpPlan { concurrent: 3, ..server.plan() });
    let requests = (0..9).map(|_| get(server.url("/soon"))).collect();
    let began = Instant::now();
    let answers = client.exchange(requests, LONG, &mut 0).await;
    assert!(answers.into_iter().all(|answer| body(answer) == "soon"));
    assert_eq!(server.most.load(Ordering::SeqCst), 3);
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn time_is_that_of_the_stage_the_request_or_the_call_whichever_ends_first() {
    let server = serve().await;
    let second = Duration::from_secs(1);
    let client = client(HttpPlan { timeout: second, ..server.plan() });
    let slow = |timeout| Request { timeout, ..get(server.url("/slow")) };
    for (timeout, left, least) in [
        (None, LONG, second),
        (Some(200_000), LONG, second / 5),
        (Some(u64::MAX), Duration::from_millis(350), second * 3 / 10),
    ] {
        let began = Instant::now();
        let answers = client.exchange(vec![slow(timeout)], left, &mut 0).await;
        assert_eq!(answers, [Err(Error::Timeout)]);
        assert!(began.elapsed() >= least && began.elapsed() < least + second * 5, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn what_cannot_be_connected_or_breaks_is_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("http://{address}/");
    let client = client(HttpPlan { allow: vec![url.parse().unwrap()], ..HttpPlan::default() });
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
    });
    let broken = one(&client, get(url.clone())).await;
    assert!(matches!(broken, Err(Error::Broken(_))), "{broken:?}");
    let refused = one(&client, get(url)).await;
    assert!(matches!(refused, Err(Error::Unreachable(_))), "{refused:?}");
}
