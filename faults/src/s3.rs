//! A misbehaving S3: a real server over HTTP, with a layer before it that fails some requests on their way in or out.
//!
//! Only requests for archived objects are touched. Objects are files below [`Bucket::folder`], so what is really stored
//! can be looked at past all faults.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use fastrand::Rng;
use futures::{StreamExt, stream};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

const KEY: &str = "tidemill-faults";
const SECRET: &str = "not-a-secret";
const BUCKET: &str = "faults";
const PREFIX: &str = "some/prefix";
/// Larger than any object of a case.
const BODY: usize = 256 << 20;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 503, not done.
    Unavailable,
    /// 429, not done.
    TooMany,
    /// 409, not done: S3's answer to a put that meets another one.
    Conflict,
    /// Done, and answered with 412, as a repeat of a put whose answer was lost.
    DoneAndPrecondition,
    /// Done, and answered with 500.
    DoneAnd500,
    /// Done, and the connection is closed instead of an answer.
    Lost,
    /// The connection is closed, not done.
    Reset,
    /// No answer, not done.
    Stall,
    /// 200 with an error in the body, not done.
    OkButNot,
    /// Half of the body, then the connection is closed.
    Cut,
    /// Half of the body as if it were all.
    Truncated,
    /// One byte of the body is another.
    Wrong,
}

/// What can happen to a put, and to a read.
pub const PUTS: [Fault; 9] = [
    Fault::Unavailable,
    Fault::TooMany,
    Fault::Conflict,
    Fault::DoneAndPrecondition,
    Fault::DoneAnd500,
    Fault::Lost,
    Fault::Reset,
    Fault::Stall,
    Fault::OkButNot,
];
pub const READS: [Fault; 7] = [
    Fault::Unavailable,
    Fault::TooMany,
    Fault::Reset,
    Fault::Stall,
    Fault::Cut,
    Fault::Truncated,
    Fault::Wrong,
];

/// A server on a port of its own; ends when dropped.
pub struct Bucket {
    /// Where the objects are files.
    folder: PathBuf,
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    service: S3Service,
    dice: Mutex<(Rng, f64)>,
    /// How long a request without an answer is held.
    stall: Mutex<Duration>,
    /// Each request for an object takes so much longer.
    delay: Mutex<Duration>,
    faults: AtomicU64,
    damaged: AtomicU64,
    puts: AtomicU64,
}

impl Bucket {
    /// Keeps its objects in `folder`.
    pub async fn start(folder: &Path, rng: Rng) -> Result<Self> {
        std::fs::create_dir_all(folder.join(BUCKET)).with_context(|| folder.display().to_string())?;
        let files =
            s3s_fs::FileSystem::new(folder).map_err(|error| anyhow!("a folder as a bucket: {error:?}"))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let shared = Arc::new(Shared {
            service: builder.build(),
            dice: Mutex::new((rng, 0.0)),
            stall: Mutex::new(Duration::MAX),
            delay: Mutex::default(),
            faults: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            puts: AtomicU64::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for a bucket")?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, shared.clone())).abort_handle();
        Ok(Self { folder: folder.join(BUCKET).join(PREFIX), address, shared, accepting })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As hosts take it, at its own address or at that of a proxy before it.
    pub fn url(&self, address: SocketAddr) -> String {
        format!("s3://{BUCKET}/{PREFIX}?endpoint=http://{address}&region=eu-central-1")
    }

    /// Variables that hosts need for it.
    pub fn environment() -> Vec<(String, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID".to_owned(), KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), SECRET.to_owned()),
        ]
    }

    /// Keys are paths below it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// From now on each request for an object fails with this chance.
    pub fn misbehave(&self, chance: f64) {
        self.shared.dice.lock().unwrap_or_else(PoisonError::into_inner).1 = chance;
    }

    /// A request without an answer ends with its connection after this, and not only when its client gives up.
    pub fn stall_for(&self, time: Duration) {
        *self.shared.stall.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }

    /// From now on each request for an object takes so much longer.
    pub fn slow_down(&self, by: Duration) {
        *self.shared.delay.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// Answers so far whose body was cut, truncated or wrong.
    pub fn damaged(&self) -> u64 {
        self.shared.damaged.load(Ordering::Relaxed)
    }

    /// Requests that were failed so far.
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::Relaxed)
    }

    /// Puts of objects that came so far.
    pub fn puts(&self) -> u64 {
        self.shared.puts.load(Ordering::Relaxed)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn draw(&self, request: &Request<hyper::body::Incoming>) -> Option<Fault> {
        if !request.uri().path().contains("/archive/") {
            return None;
        }
        let kinds = match *request.method() {
            Method::PUT => {
                self.puts.fetch_add(1, Ordering::Relaxed);
                &PUTS[..]
            }
            Method::GET => &READS[..],
            // Without a body there is nothing to hurt in it.
            _ => &READS[..4],
        };
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        let (rng, chance) = &mut *dice;
        if rng.f64() >= *chance {
            return None;
        }
        self.faults.fetch_add(1, Ordering::Relaxed);
        let fault = rng.choice(kinds).copied();
        if matches!(fault, Some(Fault::Cut | Fault::Truncated | Fault::Wrong)) {
            self.damaged.fetch_add(1, Ordering::Relaxed);
        }
        fault
    }
}

impl Shared {
    async fn answer(
        &self,
        fault: Option<Fault>,
        request: Request<hyper::body::Incoming>,
    ) -> Result<Response<Body>, Closed> {
        if request.uri().path().contains("/archive/") {
            let delay = *self.delay.lock().unwrap_or_else(PoisonError::into_inner);
            sleep(delay).await;
        }
        if fault == Some(Fault::Stall) {
            let stall = *self.stall.lock().unwrap_or_else(PoisonError::into_inner);
            sleep(stall).await;
            return Err(Closed);
        }
        answer(&self.service, fault, request).await
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((socket, _)) = listener.accept() => {
                let shared = shared.clone();
                let answer = service_fn(move |request| {
                    let (shared, fault) = (shared.clone(), shared.draw(&request));
                    async move { shared.answer(fault, request).await }
                });
                let http = hyper::server::conn::http1::Builder::new();
                connections.spawn(http.serve_connection(TokioIo::new(socket), answer));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Closes the connection without an answer.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed as a fault")
    }
}

impl std::error::Error for Closed {}

async fn answer(
    service: &S3Service,
    fault: Option<Fault>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Closed> {
    match fault {
        Some(Fault::Unavailable) => return Ok(error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")),
        Some(Fault::TooMany) => return Ok(error(StatusCode::TOO_MANY_REQUESTS, "SlowDown")),
        Some(Fault::Conflict) => return Ok(error(StatusCode::CONFLICT, "ConditionalRequestConflict")),
        Some(Fault::OkButNot) => return Ok(error(StatusCode::OK, "InternalError")),
        Some(Fault::Reset | Fault::Stall) => return Err(Closed),
        _ => {}
    }
    let (parts, body) = request.into_parts();
    let body = to_bytes(Body::new(body), BODY).await.map_err(|_| Closed)?;
    let done = service.call(Request::from_parts(parts, s3s::Body::from(body))).await.map_err(|_| Closed)?;
    let (mut parts, body) = done.into_parts();
    match fault {
        Some(Fault::Lost) => Err(Closed),
        Some(Fault::DoneAnd500) => Ok(error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
        Some(Fault::DoneAndPrecondition) => Ok(error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed")),
        Some(fault @ (Fault::Cut | Fault::Truncated | Fault::Wrong)) => {
            let whole = to_bytes(Body::new(body), BODY).await.map_err(|_| Closed)?;
            let length = if fault == Fault::Truncated { whole.len() / 2 } else { whole.len() };
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
            Ok(Response::from_parts(parts, hurt(fault, &whole)))
        }
        _ => Ok(Response::from_parts(parts, Body::new(body))),
    }
}

fn error(status: StatusCode, code: &str) -> Response<Body> {
    let mut answer = Response::new(Body::from(format!("<Error><Code>{code}</Code></Error>")));
    *answer.status_mut() = status;
    answer
}

fn hurt(fault: Fault, whole: &Bytes) -> Body {
    let half = whole.slice(..whole.len() / 2);
    match fault {
        Fault::Cut => {
            let end = Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
            // Apart, so that the first half is on its way before the end.
            Body::from_stream(stream::iter([Ok(half), end]).then(|part| async {
                tokio::task::yield_now().await;
                part
            }))
        }
        Fault::Truncated => Body::from(half),
        _ => {
            let mut bytes = whole.to_vec();
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 0x40;
            }
            Body::from_stream(stream::iter([Ok::<_, Infallible>(Bytes::from(bytes))]))
        }
    }
}

#[cfg(test)]
mod tests;
