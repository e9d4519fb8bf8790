//! How the client verbs talk to a running host: where it is, who asks, and what an error answer means.

pub mod views;

use std::time::Duration;

use clap::Args;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Time for a short question; streams and appends set their own.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of an error answer that are looked at.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Where the host is.
#[derive(Args, Clone, Debug)]
pub struct ClientArgs {
    /// Address of the running host
    #[arg(
        long,
        env = "TIDEMILL_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL",
        help_heading = "Connection"
    )]
    pub url: String,
    /// Token of a host that asks for one
    #[arg(
        long,
        env = "TIDEMILL_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Connection"
    )]
    pub token: Option<String>,
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "cannot reach a tidemill host at {url}: {reason}; start one with `tidemill up`, or say where it is with --url"
    )]
    Unreachable { url: String, reason: String },
    #[error("{}", refusal(message, hint.as_deref()))]
    Refused {
        status: u16,
        code: String,
        message: String,
        hint: Option<String>,
        /// The line of the request that was at fault, from 1.
        line: Option<u64>,
        retry_after: Option<Duration>,
    },
    #[error("what answers at {url} is not a tidemill host (status {status}); say where it is with --url")]
    NotTidemill { url: String, status: u16 },
    #[error("the connection to {url} broke: {reason}; see whether the host still runs (`tidemill status`)")]
    Broken { url: String, reason: String },
    #[error("{url:?} is not an address of a host: {reason}; it looks like http://127.0.0.1:8080")]
    BadUrl { url: String, reason: String },
    #[error("cannot set up the HTTP client: {0}")]
    Setup(String),
}

fn refusal(message: &str, hint: Option<&str>) -> String {
    match hint {
        Some(hint) => format!("{message}; {hint}"),
        None => message.to_string(),
    }
}

impl ClientError {
    /// The code of a refusal, as in the HTTP API.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether the same request may go through a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Refused { status, .. } => matches!(status, 429 | 502 | 503 | 504),
            Self::NotTidemill { status, .. } => matches!(status, 502..=504),
            Self::BadUrl { .. } | Self::Setup(_) => false,
        }
    }
}

/// A client of one host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

impl ClientArgs {
    pub fn connect(&self) -> Result<Client, ClientError> {
        let bad = |reason: String| ClientError::BadUrl { url: self.url.clone(), reason };
        let base = Url::parse(&self.url).map_err(|e| bad(e.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(bad("it must start with http:// or https://".to_string()));
        }
        // A second installation in one process is refused, which is fine: the first one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        let loopback = matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if loopback {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| ClientError::Setup(cause(&e)))?;
        Ok(Client { http, base, token: self.token.clone() })
    }
}

impl Client {
    /// A request to `/seg/ments`, each segment escaped as needed.
    pub fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends, and turns every answer but a success into an error.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|e| self.lost(&e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refused(response).await)
    }

    /// Sends and reads a JSON answer.
    pub async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request.timeout(QUESTION_TIMEOUT)).await?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|e| self.lost(&e))?;
        serde_json::from_slice(&bytes).map_err(|_| self.stranger(status))
    }

    pub async fn get<T: DeserializeOwned>(&self, segments: &[&str]) -> Result<T, ClientError> {
        self.json(self.request(Method::GET, segments)).await
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        body: &serde_json::Value,
    ) -> Result<T, ClientError> {
        self.json(self.request(Method::POST, segments).json(body)).await
    }

    pub async fn delete(&self, segments: &[&str]) -> Result<(), ClientError> {
        let request = self.request(Method::DELETE, segments).timeout(QUESTION_TIMEOUT);
        self.send(request).await.map(drop)
    }

    /// What an error of the transport means.
    pub fn lost(&self, error: &reqwest::Error) -> ClientError {
        let (url, reason) = (self.url(), cause(error));
        if error.is_connect() {
            ClientError::Unreachable { url, reason }
        } else {
            ClientError::Broken { url, reason }
        }
    }

    fn url(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_string()
    }

    fn stranger(&self, status: StatusCode) -> ClientError {
        ClientError::NotTidemill { url: self.url(), status: status.as_u16() }
    }

    async fn refused(&self, mut response: Response) -> ClientError {
        let status = response.status();
        let retry_after = response
            .headers()
            .get(reqwest::header::RETRY_AFTER)
            .and_then(|v| v.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let mut bytes = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ERROR_BYTES {
                break;
            }
        }
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => ClientError::Refused {
                status: status.as_u16(),
                code: body.error.code,
                message: body.error.message,
                hint: body.error.hint,
                line: body.error.line,
                retry_after,
            },
            Err(_) => self.stranger(status),
        }
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    code: String,
    message: String,
    hint: Option<String>,
    line: Option<u64>,
}

/// The innermost reason: the outer ones repeat the address.
fn cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Result<Client, ClientError> {
        let args = ClientArgs { url: url.to_string(), token: None };
        args.connect()
    }

    #[test]
    fn names_are_escaped_in_paths() {
        let client = client("http://127.0.0.1:1/base/").unwrap();
        let request = client.request(Method::GET, &["v1", "topics", "a/b \"c\""]).build().unwrap();
        assert_eq!(request.url().as_str(), "http://127.0.0.1:1/base/v1/topics/a%2Fb%20%22c%22");
    }

    #[test]
    fn an_address_without_a_scheme_is_explained() {
        let error = client("localhost:8080").unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:8080"), "{error}");
    }

    #[tokio::test]
    async fn a_host_that_does_not_run_is_named_with_the_remedy() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = client(&url).unwrap().get::<serde_json::Value>(&["v1", "status"]).await.unwrap_err();
        assert!(error.is_transient());
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("cannot reach a tidemill host at {url}:"))
                && text.contains("tidemill up"),
            "{text}"
        );
    }
}
