//! Requests made by the host, by the grant `http` and to the origins that the stage's `http.allow` lists. Redirects are
//! answers like any other; secrets that the stage configures as headers are added by the host and not seen here.
//!
//! ```
//! use tidemill_plugin::{Failure, http::{self, Request}};
//!
//! fn post(line: &str) -> Result<bool, Failure> {
//!     let request = Request::post("https://hooks.example.com/in", line).header("content-type", "text/plain");
//!     let response = http::send(&request)?; // an error becomes a failure: retry, or fatal where that does not help
//!     Ok(response.is_success())
//! }
//! # http::answer_with(|_| Ok(http::Response { status: 204, headers: vec![], body: vec![] }));
//! # assert_eq!(post("x"), Ok(true));
//! ```
//!
//! In a native build requests go to the function that [`answer_with`] was given.

use std::str;

use crate::{Failure, Header};

pub use crate::bindings::imports::tidemill::plugin::http::{Error, Request, Response};

#[cfg(target_family = "wasm")]
pub use crate::bindings::imports::tidemill::plugin::http::{send, send_many};

#[cfg(not(target_family = "wasm"))]
pub use stand_in::{answer_with, send, send_many};

impl Request {
    /// A request without headers and body. The method is in capitals.
    #[must_use]
    pub fn new(method: &str, url: &str) -> Self {
        Request {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: None,
            timeout: None,
        }
    }

    /// A GET request.
    #[must_use]
    pub fn get(url: &str) -> Self {
        Request::new("GET", url)
    }

    /// A POST request.
    pub fn post(url: &str, body: impl Into<Vec<u8>>) -> Self {
        Request { body: Some(body.into()), ..Request::new("POST", url) }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push(Header { name: name.to_owned(), value: value.into() });
        self
    }

    /// Shortens the stage's timeout for this request, in microseconds.
    #[must_use]
    pub fn timeout(mut self, micros: u64) -> Self {
        self.timeout = Some(micros);
        self
    }
}

impl Response {
    /// Whether the status is 200 to 299.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of a name, which is in lower case; None if it is not text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|header| header.name == name)?;
        str::from_utf8(&header.value).ok()
    }

    /// How long the server asks to be left alone, in microseconds: its `retry-after` in seconds. A date is not read, since
    /// a plugin may have no clock to compare it with.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        let seconds: u64 = self.header("retry-after")?.trim().parse().ok()?;
        seconds.checked_mul(1_000_000)
    }
}

impl Error {
    /// Whether trying again may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Error::Unreachable(_) | Error::Timeout | Error::Broken(_))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let passing = error.is_passing();
        let reason = match error {
            Error::Denied(reason) => format!("request denied: {reason}"),
            Error::Invalid(reason) => format!("not a request: {reason}"),
            Error::Unreachable(reason) => format!("no connection: {reason}"),
            Error::Timeout => "no answer in time".to_owned(),
            Error::Broken(reason) => format!("the connection broke: {reason}"),
            Error::TooLarge(reason) => format!("too large: {reason}"),
            Error::Exhausted(reason) => reason,
        };
        if passing { Failure::retry(reason, None) } else { Failure::fatal(reason) }
    }
}

#[cfg(not(target_family = "wasm"))]
mod stand_in {
    use std::cell::RefCell;

    use super::{Error, Request, Response};

    type Answer = Box<dyn FnMut(&Request) -> Result<Response, Error>>;

    thread_local! {
        static ANSWER: RefCell<Option<Answer>> = const { RefCell::new(None) };
    }

    /// Answers the requests of this thread. Only in native builds.
    pub fn answer_with(answer: impl FnMut(&Request) -> Result<Response, Error> + 'static) {
        ANSWER.set(Some(Box::new(answer)));
    }

    /// Sends a request.
    ///
    /// # Errors
    /// If it is not allowed or no whole answer came.
    pub fn send(request: &Request) -> Result<Response, Error> {
        ANSWER.with_borrow_mut(|answer| match answer {
            Some(answer) => answer(request),
            None => Err(Error::Denied("there is no network in a native build".to_owned())),
        })
    }

    /// Sends several; the answers are in their order.
    pub fn send_many(requests: &[Request]) -> Vec<Result<Response, Error>> {
        requests.iter().map(send).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_retry_only_where_that_may_help() {
        assert!(matches!(Failure::from(Error::Timeout), Failure::Retry(_)));
        assert!(matches!(Failure::from(Error::Denied("x".into())), Failure::Fatal(_)));
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let response = |value: &str| {
            let headers = vec![Header { name: "retry-after".to_owned(), value: value.into() }];
            Response { status: 429, headers, body: Vec::new() }
        };
        assert_eq!(response("3").retry_after(), Some(3_000_000));
        assert_eq!(response("Wed, 21 Oct 2026 07:28:00 GMT").retry_after(), None);
        assert_eq!(response("99999999999999999999").retry_after(), None);
    }
}
