//! Whom the host answers, and what it takes.

use axum::http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::host::TestHost;
use crate::api::metrics::resident_bytes;
use crate::api::routes;

#[tokio::test]
async fn every_route_checks_host_and_origin() {
    let host = TestHost::start().await;
    let paths = routes::all().into_iter().map(|route| (route.method, route.path));
    for (method, path) in
        paths.chain([(Method::GET, "/"), (Method::GET, "/assets/x.js"), (Method::GET, "/none")])
    {
        let path = path.replace(['{', '}'], "");
        for (name, value, code) in [
            ("host", "evil.example", "bad_host"),
            ("host", "127.0.0.1.evil.example:8080", "bad_host"),
            ("origin", "http://evil.example", "bad_origin"),
            ("origin", "null", "bad_origin"),
            ("sec-fetch-site", "cross-site", "bad_origin"),
        ] {
            let (status, error) = host.refused(host.request(method.clone(), &path).header(name, value)).await;
            assert_eq!(
                (status, error["code"].as_str()),
                (403, Some(code)),
                "{method} {path} {name}: {value}"
            );
        }
    }
    let own =
        host.request(Method::GET, "/v1/status").header("origin", host.url.clone()).send().await.unwrap();
    assert_eq!(own.status(), 200);
    let headers = own.headers();
    assert!(headers.get("access-control-allow-origin").is_none());
    assert!(headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'self'"));
    assert_eq!(headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn a_token_is_asked_for_where_there_is_data() {
    let host = TestHost::with(|settings| settings.token = Some("secret".to_string())).await;
    for path in ["/v1/status", "/v1/openapi.json", "/metrics", "/v1/none", "/v1/topics/t/stream"] {
        let (status, error) = host.refused(host.request(Method::GET, path).bearer_auth("wrong")).await;
        assert_eq!((status, error["code"].as_str()), (401, Some("token_needed")), "{path}");
    }
    let answer = host.request(Method::GET, "/v1/status").bearer_auth("secret").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    for path in ["/healthz", "/"] {
        let answer = host.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn a_hundred_megabytes_are_refused_and_never_held() {
    let host = TestHost::start().await;
    host.topic("t", 1, "bytes").await;
    let piece = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    let before = resident_bytes().unwrap_or(0);
    for declared in [true, false] {
        let piece = piece.clone();
        let pieces = futures::stream::iter((0..100).map(move |_| Ok::<_, std::io::Error>(piece.clone())));
        let mut request = host.produce("t", "", "text/plain", reqwest::Body::wrap_stream(pieces));
        if declared {
            request = request.header("content-length", 100 << 20);
        }
        let (status, error) = host.refused(request).await;
        assert_eq!((status, error["code"].as_str()), (413, Some("body_too_large")));
        assert!(error["hint"].as_str().unwrap().contains("smaller batches"));
    }
    let grown = resident_bytes().unwrap_or(0).saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
    // Who waits for leave to send is told at once.
    let address = host.url.trim_start_matches("http://").to_string();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST /v1/topics/t/records HTTP/1.1\r\nhost: {address}\r\ncontent-type: text/plain\r\n\
         content-length: 104857600\r\nexpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(host.get("/v1/topics/t").await["records"], 0);
}

#[tokio::test]
async fn a_request_line_cannot_name_another_host() {
    let host = TestHost::start().await;
    let address = host.url.trim_start_matches("http://").to_string();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head =
        format!("GET http://evil.example/v1/status HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn streams_have_a_limit() {
    let host = TestHost::start().await;
    host.topic("t", 1, "bytes").await;
    let mut open = Vec::new();
    loop {
        let answer = host.request(Method::GET, "/v1/topics/t/stream").send().await.unwrap();
        if answer.status() != 200 {
            assert_eq!(answer.status(), 429);
            assert!(answer.headers().contains_key("retry-after"));
            break;
        }
        open.push(answer);
        assert!(open.len() <= 256, "more streams than the limit");
    }
    assert_eq!(open.len(), 256);
    drop(open);
    for _ in 0..100 {
        let answer = host.request(Method::GET, "/v1/topics/t/stream").send().await.unwrap();
        if answer.status() == 200 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("places of closed streams were not given back");
}

#[tokio::test]
async fn the_page_or_the_way_to_build_it_is_at_the_root() {
    let host = TestHost::start().await;
    let answer = host.request(Method::GET, "/").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let kind = answer.headers()["content-type"].to_str().unwrap().to_string();
    let etag = answer.headers().get("etag").cloned();
    let text = answer.text().await.unwrap();
    match etag {
        Some(etag) => {
            assert_eq!(kind, "text/html; charset=utf-8");
            let again = host.request(Method::GET, "/").header("if-none-match", etag).send().await.unwrap();
            assert_eq!(again.status(), 304);
        }
        None => assert!(kind.starts_with("text/plain") && text.contains("make web"), "{kind}: {text}"),
    }
    for path in ["/../Cargo.toml", "/%2e%2e/Cargo.toml", "/..%2fCargo.toml", "//etc/passwd"] {
        let answer = host.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
    }
}
