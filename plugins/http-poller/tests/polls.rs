//! Polls against a server that answers as each test says.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use http_poller::{Config, Cursor, HttpPoller};
use serde_json::json;
use tidemill_plugin::http::{Request, Response, answer_with};
use tidemill_plugin::{Failure, Header, Plugin, Poll, Producer, Production};

const NOW: i64 = 1_700_000_000_000_000;

fn response(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Response {
    let header = |(name, value): &(&str, &str)| Header { name: (*name).to_owned(), value: (*value).into() };
    Response { status, headers: headers.iter().map(header).collect(), body: body.into() }
}

fn poll(cursor: Option<Cursor>, position: Option<Vec<u8>>) -> Result<Production, Failure> {
    let config = Config { url: "https://api.example.com/x?a=1".to_owned(), every_ms: 5_000, cursor };
    HttpPoller::new(config).unwrap().produce(Poll { position, now: NOW, max_records: 3 })
}

fn cursor() -> Option<Cursor> {
    let text = |text: &str| text.to_owned();
    Some(Cursor {
        param: text("since"),
        field: text("id"),
        items: Some(text("data")),
        start: Some(text("0")),
    })
}

fn payloads(production: &Production) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    production.emissions.iter().map(|emission| text(&emission.payload)).collect()
}

#[test]
fn a_document_is_written_when_it_changes() {
    answer_with(|request| {
        assert!(request.headers.is_empty());
        Ok(response(200, &[("etag", "\"v1\"")], "one"))
    });
    let first = poll(None, None).unwrap();
    assert_eq!(payloads(&first), ["one"]);
    assert_eq!(first.next, NOW + 5_000_000);

    answer_with(|request| {
        assert_eq!(request.headers[0].value, b"\"v1\"");
        Ok(response(304, &[], ""))
    });
    let second = poll(None, Some(first.position.clone())).unwrap();
    assert_eq!((payloads(&second).len(), &second.position), (0, &first.position));

    answer_with(|_| Ok(response(200, &[], "one")));
    assert!(
        payloads(&poll(None, Some(first.position.clone())).unwrap()).is_empty(),
        "the same bytes, without a tag"
    );
    answer_with(|_| Ok(response(200, &[], "two")));
    assert_eq!(payloads(&poll(None, Some(first.position)).unwrap()), ["two"]);
}

/// Items 1..=7, four to a page; with the item of the cursor among them if `inclusive`.
fn serve(inclusive: bool) -> impl FnMut(&Request) -> Result<Response, tidemill_plugin::http::Error> {
    move |request| {
        let since: u64 =
            request.url.strip_prefix("https://api.example.com/x?a=1&since=").unwrap().parse().unwrap();
        let from = if inclusive && since > 0 { since } else { since + 1 };
        let data: Vec<_> = (from..=7).take(4).map(|id| json!({ "id": id })).collect();
        Ok(response(200, &[], json!({ "data": data }).to_string()))
    }
}

#[test]
fn a_list_is_read_to_its_end_and_each_item_once() {
    for inclusive in [false, true] {
        answer_with(serve(inclusive));
        let (mut position, mut all) = (None, Vec::new());
        loop {
            let production = poll(cursor(), position).unwrap();
            assert!(production.emissions.len() <= 3);
            all.extend(payloads(&production));
            position = Some(production.position);
            if production.next > NOW {
                break;
            }
        }
        let expected: Vec<_> = (1..=7).map(|id| format!("{{\"id\":{id}}}")).collect();
        assert_eq!(all, expected, "inclusive: {inclusive}");
    }
}

#[test]
fn a_cursor_is_escaped() {
    answer_with(|request| {
        assert!(request.url.ends_with("since=a%20b%26c%3D%C3%A4"), "{}", request.url);
        Ok(response(200, &[], "{\"data\":[]}"))
    });
    poll(cursor(), Some(b"{\"cursor\":\"a b&c=\xc3\xa4\"}".to_vec())).unwrap();
}

#[test]
fn a_busy_server_is_asked_later_and_a_wrong_one_not_at_all() {
    answer_with(|_| Ok(response(429, &[("retry-after", "2")], "")));
    assert!(matches!(poll(None, None), Err(Failure::Retry(hint)) if hint.after == Some(2_000_000)));
    answer_with(|_| Ok(response(500, &[], "")));
    assert!(matches!(poll(None, None), Err(Failure::Retry(_))));
    answer_with(|_| Ok(response(404, &[], "")));
    assert!(matches!(poll(None, None), Err(Failure::Fatal(_))));
    answer_with(|_| Ok(response(200, &[], "[{\"no\":1}]")));
    assert!(poll(cursor(), None).is_err());
    assert!(matches!(poll(None, Some(b"garbage".to_vec())), Err(Failure::Fatal(_))));
}
