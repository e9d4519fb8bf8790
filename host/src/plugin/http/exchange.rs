//! One request and its answer.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use tokio::time::timeout;

use super::Shared;
use super::resolve::NotForPlugins;
use crate::plugin::bindings::shared::tidemill::plugin::http::{Error, Request, Response};
use crate::plugin::bindings::shared::tidemill::plugin::types::Header;
use crate::plugin::log::printable;

const MAX_URL: usize = 8_192;
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 32 << 10;
/// What is shown of texts that are not ours, in characters.
const SHOWN: usize = 200;

/// Headers that say where a request goes, how it is framed, or how the connection is used.
const RESERVED: [&str; 13] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "forwarded",
];

/// Bytes that the answers to one call may still hold.
#[derive(Clone)]
pub(super) struct Budget(Arc<AtomicU64>);

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.is_ok()
    }
}

impl Shared {
    pub(super) async fn exchange(
        &self,
        request: Request,
        left: Duration,
        budget: Budget,
    ) -> Result<Response, Error> {
        let asked = request.timeout.map_or(Duration::MAX, Duration::from_micros);
        let patience = asked.min(self.plan.timeout).min(left);
        let request = self.check(request)?;
        let answer = async {
            // Closed never, so this only waits.
            let _slot =
                self.slots.acquire().await.map_err(|closed| Error::Unreachable(closed.to_string()))?;
            let answer = self.client.execute(request).await.map_err(|error| explain(&error))?;
            self.read(answer, &budget).await
        };
        timeout(patience, answer).await.unwrap_or(Err(Error::Timeout))
    }

    /// The request as it goes out, or why it does not.
    fn check(&self, request: Request) -> Result<reqwest::Request, Error> {
        let url = parse(&request.url)?;
        if !self.plan.allow.iter().any(|origin| origin.covers(&url)) {
            let allowed: Vec<String> = self.plan.allow.iter().map(ToString::to_string).collect();
            return Err(Error::Denied(format!(
                "{} is not allowed; `http.allow` lists {}",
                shown(&url),
                allowed.join(", ")
            )));
        }
        if !self.plan.methods.iter().any(|method| method.as_str() == request.method) {
            let methods: Vec<&str> = self.plan.methods.iter().map(|method| method.as_str()).collect();
            let method = printable(&request.method, SHOWN);
            let methods = methods.join(", ");
            return Err(Error::Denied(format!("the method {method} is not in `http.methods`: {methods}")));
        }
        let method = Method::from_bytes(request.method.as_bytes())
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let body = request.body.unwrap_or_default();
        if body.len() as u64 > self.plan.request_bytes {
            return Err(Error::TooLarge(format!(
                "a request of {} bytes, allowed are {}; raise `http.request_bytes`, or give smaller batches",
                body.len(),
                self.plan.request_bytes
            )));
        }
        let mut headers = headers(&request.headers)?;
        for (_, own) in self.plan.headers.iter().filter(|(origin, _)| origin.covers(&url)) {
            for (name, value) in own {
                let name = HeaderName::from_bytes(name.as_bytes());
                let value = HeaderValue::from_str(value.reveal());
                if let (Ok(name), Ok(mut value)) = (name, value) {
                    value.set_sensitive(true);
                    headers.insert(name, value);
                }
            }
        }
        let mut out = reqwest::Request::new(method, url);
        *out.headers_mut() = headers;
        if !body.is_empty() {
            *out.body_mut() = Some(Bytes::from(body).into());
        }
        Ok(out)
    }

    async fn read(&self, mut answer: reqwest::Response, budget: &Budget) -> Result<Response, Error> {
        let limit = self.plan.response_bytes;
        let too_large =
            || Error::TooLarge(format!("a response of more than {limit} bytes; raise `http.response_bytes`"));
        if answer.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let status = answer.status().as_u16();
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| Header { name: name.as_str().to_owned(), value: value.as_bytes().to_vec() })
            .collect();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| explain(&error))? {
            if body.len() as u64 + chunk.len() as u64 > limit {
                return Err(too_large());
            }
            if !budget.take(chunk.len() as u64) {
                return Err(Error::TooLarge(
                    "the responses together; send fewer requests at once".to_owned(),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response { status, headers, body })
    }
}

/// Browsers drop line breaks and trim blanks in a URL; here they are mistakes, or tricks.
fn parse(text: &str) -> Result<Url, Error> {
    if text.len() > MAX_URL {
        return Err(Error::Invalid(format!("a URL of {} bytes, allowed are {MAX_URL}", text.len())));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Error::Invalid("the URL has blanks or control characters".to_owned()));
    }
    let url = Url::parse(text).map_err(|error| Error::Invalid(format!("not a URL: {error}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::Denied(
            "a URL with a user or a password; let the stage set `http.headers`".to_owned(),
        ));
    }
    Ok(url)
}

/// The URL without what may be secret in it.
fn shown(url: &Url) -> String {
    let (host, port) = (url.host_str().unwrap_or_default(), url.port().map(|port| format!(":{port}")));
    let origin = format!("{}://{host}{}{}", url.scheme(), port.unwrap_or_default(), url.path());
    printable(&origin, SHOWN)
}

fn headers(given: &[Header]) -> Result<HeaderMap, Error> {
    let bytes: usize = given.iter().map(|header| header.name.len() + header.value.len()).sum();
    if given.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return Err(Error::Invalid(format!(
            "{} headers with {bytes} bytes, allowed are {MAX_HEADERS} with {MAX_HEADER_BYTES}",
            given.len()
        )));
    }
    let mut headers = HeaderMap::with_capacity(given.len());
    for header in given {
        let shown = || printable(&header.name, SHOWN);
        let name = HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|_| Error::Invalid(format!("{} is not the name of a header", shown())))?;
        if RESERVED.contains(&name.as_str()) {
            return Err(Error::Denied(format!("the header {name} is the host's")));
        }
        let value = HeaderValue::from_bytes(&header.value)
            .map_err(|_| Error::Invalid(format!("the value of the header {name} has control characters")))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// In the words of the interface. The URL is the guest's own, and left out.
fn explain(error: &reqwest::Error) -> Error {
    let mut cause = error.source();
    let mut text = String::new();
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<NotForPlugins>() {
            return Error::Denied(refused.to_string());
        }
        text = inner.to_string();
        cause = inner.source();
    }
    let text = if text.is_empty() { "no reason was given".to_owned() } else { printable(&text, SHOWN) };
    if error.is_connect() {
        return Error::Unreachable(text);
    }
    if error.is_timeout() { Error::Timeout } else { Error::Broken(text) }
}
