//! What every request passes before its handler: is it meant for this host, does it come from our own page or from
//! none, does it carry the token, and is there room for it.
//!
//! A loopback address alone protects nothing: any page in a browser can send requests to it, and with a name that
//! resolves to 127.0.0.1 it can read the answers too. So `Host` must be a name that this host is known by, `Origin`, if
//! a browser sends one, must be the same, and on every route, streams included. There are no CORS headers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::error::ApiError;

/// Requests that are worked on at a time; streams count only until they have begun.
const MAX_REQUESTS: usize = 256;

const SECURITY_HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'self'; style-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// Who may ask. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard {
    bound: SocketAddr,
    /// Further names, as in `tidemill.example` or `http://localhost:5173` for a page served elsewhere.
    allowed: Arc<[String]>,
    /// SHA-256 of the token.
    token: Option<[u8; 32]>,
    requests: Arc<Semaphore>,
}

impl Guard {
    pub fn new(bound: SocketAddr, allowed: &[String], token: Option<&str>) -> Self {
        Self {
            bound,
            allowed: allowed.iter().map(|name| name.to_ascii_lowercase()).collect(),
            token: token.map(digest),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
        }
    }

    fn check(&self, request: &Request) -> Result<(), ApiError> {
        let host = self.check_host(request)?;
        self.check_origin(request, &host)?;
        if needs_token(request.uri().path()) {
            self.check_token(request.headers())?;
        }
        Ok(())
    }

    fn check_host(&self, request: &Request) -> Result<Authority, ApiError> {
        let header = single(request.headers(), &HOST)?;
        let host = header.and_then(|host| host.parse::<Authority>().ok());
        let Some(host) = host.filter(|host| !host.as_str().contains('@')) else {
            return Err(ApiError::bad_request(
                "bad_host",
                "the request has no Host header that names a host",
            ));
        };
        // A request line may name a host of its own, as proxies send it.
        let others = request.uri().authority().into_iter();
        for name in others.chain([&host]) {
            if !self.knows(name.host()) {
                return Err(ApiError::forbidden(
                    "bad_host",
                    format!("this host is not known as {:?}", name.host()),
                )
                .hint("use the address that `tidemill up` printed, or start it with --allow-host NAME"));
            }
        }
        Ok(host)
    }

    /// Names that no attacker can point here: loopback names, our own address, what was configured.
    fn knows(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if name == "localhost" || self.allowed.contains(&name) {
            return true;
        }
        match bare.parse::<IpAddr>() {
            // Whoever listens on all addresses is reached by any of them; a literal address cannot be re-pointed.
            Ok(ip) => ip.is_loopback() || ip == self.bound.ip() || self.bound.ip().is_unspecified(),
            Err(_) => false,
        }
    }

    /// A page may ask when this host served it: then its origin is the host the request names.
    fn check_origin(&self, request: &Request, host: &Authority) -> Result<(), ApiError> {
        let foreign = |what: &str| {
            ApiError::forbidden("bad_origin", format!("requests from {what:?} are not taken"))
                .hint("open the page from this host, or start it with --allow-host ORIGIN")
        };
        if let Some(origin) = single(request.headers(), &ORIGIN)? {
            let lower = origin.to_ascii_lowercase();
            let own = ["http://", "https://"]
                .iter()
                .filter_map(|scheme| lower.strip_prefix(scheme))
                .any(|rest| rest == host.as_str().to_ascii_lowercase());
            return if own || self.allowed.contains(&lower) { Ok(()) } else { Err(foreign(origin)) };
        }
        // No Origin, but a browser that says the page is another site's: only reading by address bar and links passes.
        let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match site {
            None | Some(b"same-origin" | b"none") => Ok(()),
            Some(_) if reads && request.headers().get("sec-fetch-mode").is_some_and(|m| m == "navigate") => {
                Ok(())
            }
            Some(site) => Err(foreign(&String::from_utf8_lossy(site))),
        }
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(expected) = &self.token else {
            return Ok(());
        };
        let given = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .map(|token| digest(token.trim()));
        // Digests are compared without an early end, so that the time tells nothing.
        let differs =
            given.is_none_or(|given| expected.iter().zip(given).fold(0, |d, (a, b)| d | (a ^ b)) != 0);
        if differs {
            return Err(ApiError::new(
                axum::http::StatusCode::UNAUTHORIZED,
                "token_needed",
                "this host asks for a token",
            )
            .hint(
                "send `Authorization: Bearer TOKEN`; the tidemill command takes --token or TIDEMILL_TOKEN",
            ));
        }
        Ok(())
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The page itself and the probes of an orchestrator carry no data; a browser could not send a token for them.
fn needs_token(path: &str) -> bool {
    path.starts_with("/v1") || path == "/metrics"
}

/// A header that must not come twice: a proxy and we could each look at another one.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    let twice = values.next().is_some();
    match value.map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(text)) if !twice => Ok(Some(text)),
        Some(_) => Err(ApiError::bad_request(
            "bad_header",
            format!("the {name} header must come once, as plain text"),
        )),
    }
}

/// The middleware: checks, then room, then the handler.
pub async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let api = needs_token(request.uri().path());
    let mut response = match guard.check(&request) {
        Err(error) => error.into_response(),
        Ok(()) => match guard.requests.clone().try_acquire_owned() {
            Ok(_permit) => next.run(request).await,
            Err(_) => ApiError::unavailable("busy", "too many requests at a time")
                .hint("try again in a moment")
                .into_response(),
        },
    };
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if api {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn guard(bound: &str, allowed: &[&str], token: Option<&str>) -> Guard {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        Guard::new(bound.parse().unwrap(), &allowed, token)
    }

    fn ask(guard: &Guard, method: &str, headers: &[(&str, &str)]) -> Result<(), &'static str> {
        let mut request = Request::builder().method(method).uri("/v1/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard.check(&request.body(Body::empty()).unwrap()).map_err(|e| e.code)
    }

    #[test]
    fn only_names_of_this_host_are_taken() {
        let guard = guard("127.0.0.1:8080", &["tide.example"], None);
        for good in ["localhost:8080", "127.0.0.1:9", "[::1]:8080", "LOCALHOST", "tide.example"] {
            assert_eq!(ask(&guard, "GET", &[("host", good)]), Ok(()), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1:8080",
            "127.0.0.1.evil.example",
            "user@localhost",
        ] {
            assert_eq!(ask(&guard, "GET", &[("host", bad)]), Err("bad_host"), "{bad}");
        }
        assert_eq!(ask(&guard, "GET", &[]), Err("bad_host"));
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(ask(&guard, "GET", &twice), Err("bad_header"));
    }

    #[test]
    fn a_host_on_all_addresses_is_reached_by_any_address_but_no_foreign_name() {
        let guard = guard("0.0.0.0:8080", &[], Some("secret"));
        let auth = ("authorization", "Bearer secret");
        assert_eq!(ask(&guard, "GET", &[("host", "192.168.1.7:8080"), auth]), Ok(()));
        assert_eq!(ask(&guard, "GET", &[("host", "evil.example"), auth]), Err("bad_host"));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let guard = guard("127.0.0.1:8080", &["http://localhost:5173"], None);
        let host = ("host", "localhost:8080");
        for good in ["http://localhost:8080", "http://localhost:5173"] {
            assert_eq!(ask(&guard, "POST", &[host, ("origin", good)]), Ok(()), "{good}");
        }
        for bad in [
            "http://evil.example",
            "null",
            "http://localhost:3000",
            "http://localhost:8080.evil.example",
            "file://localhost:8080",
        ] {
            assert_eq!(ask(&guard, "GET", &[host, ("origin", bad)]), Err("bad_origin"), "{bad}");
        }
        let cross = ("sec-fetch-site", "cross-site");
        assert_eq!(ask(&guard, "POST", &[host, cross]), Err("bad_origin"));
        assert_eq!(ask(&guard, "GET", &[host, cross]), Err("bad_origin"));
        assert_eq!(ask(&guard, "GET", &[host, cross, ("sec-fetch-mode", "navigate")]), Ok(()));
    }

    #[test]
    fn a_token_must_match_whole() {
        let guard = guard("127.0.0.1:8080", &[], Some("secret"));
        let host = ("host", "localhost");
        assert_eq!(ask(&guard, "GET", &[host]), Err("token_needed"));
        for bad in ["Bearer secre", "Bearer secret2", "Basic secret", "Bearer "] {
            assert_eq!(ask(&guard, "GET", &[host, ("authorization", bad)]), Err("token_needed"), "{bad}");
        }
        assert_eq!(ask(&guard, "GET", &[host, ("authorization", "Bearer secret")]), Ok(()));
    }

    #[tokio::test]
    async fn a_host_that_is_full_says_when_to_come_back() {
        let guard = guard("127.0.0.1:8080", &[], None);
        let _all = guard.requests.clone().try_acquire_many_owned(MAX_REQUESTS as u32).unwrap();
        let app = axum::Router::new()
            .route("/v1/status", axum::routing::get(|| async { "served" }))
            .layer(axum::middleware::from_fn_with_state(guard, admit));
        let request = Request::builder().uri("/v1/status").header("host", "localhost");
        let answer = tower::ServiceExt::oneshot(app, request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"));
        assert!(answer.headers().contains_key("content-security-policy"));
    }
}
