//! Batches against a hook that answers as each test says.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::rc::Rc;

use http_sink::{Config, Format, HttpSink, OnClientError};
use tidemill_plugin::http::{Error, Request, Response, answer_with};
use tidemill_plugin::{Failure, Header, Message, Plugin, Refused, Sink, Token};

fn message(offset: u64, payload: &str) -> Message {
    Message {
        partition: 2,
        offset,
        timestamp: 0,
        attempt: 1,
        key: None,
        headers: Vec::new(),
        payload: payload.into(),
    }
}

fn response(status: u16, headers: &[(&str, &str)]) -> Response {
    let header = |(name, value): &(&str, &str)| Header { name: (*name).to_owned(), value: (*value).into() };
    Response { status, headers: headers.iter().map(header).collect(), body: b"because".to_vec() }
}

/// What came of a delivery, and what was sent, as key and body.
type Delivered = (Result<Vec<Refused>, Failure>, Vec<(String, String)>);

/// Delivers offsets 10.. in one batch.
fn deliver(
    payloads: &[&str],
    on_client_error: OnClientError,
    mut hook: impl FnMut(&Request) -> Result<Response, Error> + 'static,
) -> Delivered {
    let sent = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&sent);
    answer_with(move |request| {
        let key = request.headers.iter().find(|header| header.name == "idempotency-key").unwrap();
        let body = String::from_utf8(request.body.clone().unwrap()).unwrap();
        seen.borrow_mut().push((String::from_utf8(key.value.clone()).unwrap(), body));
        hook(request)
    });
    let url = "https://hooks.example.com/in".to_owned();
    let mut sink = HttpSink::new(Config { url, format: Format::Payloads, on_client_error }).unwrap();
    let batch: Vec<_> = (10..).zip(payloads).map(|(offset, payload)| message(offset, payload)).collect();
    let next = 10 + batch.len() as u64;
    let token = Token { group: "g".to_owned(), topic: "t".to_owned(), partition: 2, first: 10, next };
    let result = sink.deliver(token, batch);
    (result, sent.take())
}

#[test]
fn a_batch_is_one_request_of_lines_with_its_key() {
    let (refused, sent) =
        deliver(&["1", "no json", "{\"a\":2}"], OnClientError::Auto, |_| Ok(response(204, &[])));
    assert_eq!(refused.unwrap().iter().map(|refused| refused.input).collect::<Vec<_>>(), [1]);
    assert_eq!(sent, [("g/t/2/10-13".to_owned(), "1\n{\"a\":2}\n".to_owned())]);
}

#[test]
fn a_hook_that_is_busy_is_left_alone_as_long_as_it_asks() {
    for status in [429, 503] {
        let busy = move |_: &Request| Ok(response(status, &[("retry-after", "7")]));
        let (result, _) = deliver(&["1"], OnClientError::Stop, busy);
        let Err(Failure::Retry(hint)) = result else { panic!("{result:?}") };
        assert_eq!(hint.after, Some(7_000_000));
        assert!(hint.reason.contains(&status.to_string()), "{}", hint.reason);
    }
    let (result, _) =
        deliver(&["1"], OnClientError::Auto, |_| Ok(response(503, &[("retry-after", "86400")])));
    assert!(matches!(result, Err(Failure::Retry(hint)) if hint.after == Some(600_000_000)));
    for broken in [Error::Timeout, Error::Broken("reset".into()), Error::Unreachable("refused".into())] {
        let (result, _) = deliver(&["1"], OnClientError::Auto, move |_| Err(broken.clone()));
        assert!(matches!(result, Err(Failure::Retry(_))));
    }
}

#[test]
fn the_message_at_fault_is_found_and_rejected_alone() {
    let hook = |request: &Request| {
        let bad = request.body.as_deref().unwrap().windows(3).any(|bytes| bytes == b"bad");
        Ok(response(if bad { 422 } else { 200 }, &[]))
    };
    let payloads = ["1", "2", "3", "4", "5", "\"bad\"", "7"];
    let (refused, sent) = deliver(&payloads, OnClientError::Auto, hook);
    let refused = refused.unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].input, 5);
    let keys: Vec<_> = sent.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "g/t/2/10-17",
            "g/t/2/10-13",
            "g/t/2/13-17",
            "g/t/2/13-15",
            "g/t/2/15-17",
            "g/t/2/15-16",
            "g/t/2/16-17"
        ]
    );
}

#[test]
fn other_client_errors_are_what_the_config_says() {
    let gone = |_: &Request| Ok(response(404, &[]));
    let result = |on_client_error| deliver(&["1", "2"], on_client_error, gone).0;
    assert!(
        matches!(result(OnClientError::Auto), Err(Failure::Fatal(reason)) if reason.contains("404: because"))
    );
    assert!(matches!(result(OnClientError::Stop), Err(Failure::Fatal(_))));
    assert!(matches!(result(OnClientError::Retry), Err(Failure::Retry(_))));
    assert_eq!(result(OnClientError::Reject).unwrap().len(), 2);
    let (moved, _) =
        deliver(&["1"], OnClientError::Reject, |_| Ok(response(301, &[("location", "https://new")])));
    assert!(matches!(moved, Err(Failure::Fatal(reason)) if reason.contains("https://new")));
}

/// A hook that fails every second time, and a host that lets a call send one request: the batch gets through, and what was
/// delivered is not sent again.
#[test]
fn a_batch_that_comes_again_goes_on_where_it_was() {
    let sent = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&sent);
    let mut turn = 0;
    answer_with(move |request| {
        turn += 1;
        match turn % 3 {
            0 => return Ok(response(503, &[])),
            1 => return Err(Error::Exhausted("one request".into())),
            _ => {}
        }
        let body = String::from_utf8(request.body.clone().unwrap()).unwrap();
        if body.contains("bad") {
            return Ok(response(400, &[]));
        }
        seen.borrow_mut().push(body);
        Ok(response(200, &[]))
    });
    let url = "https://hooks.example.com/in".to_owned();
    let on_client_error = OnClientError::Auto;
    let mut sink = HttpSink::new(Config { url, format: Format::Payloads, on_client_error }).unwrap();
    let payloads = ["1", "2", "\"bad\"", "4", "5", "6", "7", "8"];
    let batch: Vec<_> = (0..).zip(payloads).map(|(offset, payload)| message(offset, payload)).collect();
    let token = Token { group: "g".to_owned(), topic: "t".to_owned(), partition: 2, first: 0, next: 8 };
    let refused = (0..50).find_map(|_| sink.deliver(token.clone(), batch.clone()).ok()).unwrap();
    assert_eq!(refused.iter().map(|refused| refused.input).collect::<Vec<_>>(), [2]);
    assert_eq!(sent.take(), ["1\n2\n", "4\n", "5\n6\n7\n8\n"]);
}
