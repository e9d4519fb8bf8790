//! The same archive on S3: a real server over HTTP, behind a layer that misbehaves when told to.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use futures::{StreamExt, stream};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};

use super::*;

const KEY: &str = "tidemill-test";
const SECRET: &str = "not-a-secret";

/// What happens to one request for an object of records.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// 503, not done.
    Unavailable,
    /// 409, not done: S3's answer to a put that meets another request for the key.
    Conflict,
    /// The connection is closed, not done.
    Reset,
    /// No answer, not done.
    Stall,
    /// Done, and the connection is closed.
    Lost,
    /// Done, and answered with 500: the client sends it again and is told that the object exists.
    DoneAnd500,
    /// 200 with an error in the body, not done.
    OkButNot,
    /// Half of the answer's body, then the connection is closed.
    Cut,
    /// One byte of the answer's body is another.
    Flip,
}

type Faults = Arc<Mutex<VecDeque<(Method, Fault)>>>;

/// A server on a port of its own; ends with the test.
struct Server {
    url: String,
    faults: Faults,
}

impl Server {
    async fn start(folder: &Path) -> Self {
        let root = folder.join("s3");
        std::fs::create_dir_all(root.join("test")).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = builder.build();
        let faults = Faults::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = faults.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, faults) = (service.clone(), shared.clone());
                let answer = service_fn(move |request| answer(service.clone(), faults.clone(), request));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer);
                tokio::spawn(async move {
                    let _ = connection.await;
                });
            }
        });
        let url = format!("s3://test/some/prefix?endpoint=http://{address}&region=eu-central-1");
        Self { url, faults }
    }

    fn bucket(&self) -> Bucket {
        let options = BucketOptions {
            request: Duration::from_secs(10),
            silence: Duration::from_millis(400),
            connect: Duration::from_secs(2),
            retries: 1,
            settings: vec![
                ("aws_access_key_id".to_owned(), KEY.to_owned()),
                ("aws_secret_access_key".to_owned(), SECRET.to_owned()),
            ],
        };
        Bucket::open(&self.url, &options).unwrap()
    }

    fn expect(&self, method: Method, faults: &[Fault]) {
        self.faults.lock().unwrap().extend(faults.iter().map(|fault| (method.clone(), *fault)));
    }

    fn left(&self) -> usize {
        self.faults.lock().unwrap().len()
    }
}

/// Closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed by the test")]
struct Closed;

async fn answer(
    service: S3Service,
    faults: Faults,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Closed> {
    let about_records = request.uri().path().contains("/archive/");
    let fault = {
        let mut faults = faults.lock().unwrap();
        let place = faults.iter().position(|(method, _)| about_records && method == request.method());
        place.and_then(|place| faults.remove(place)).map(|(_, fault)| fault)
    };
    match fault {
        Some(Fault::Unavailable) => {
            return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "<Error><Code>SlowDown</Code></Error>"));
        }
        Some(Fault::Conflict) => {
            return Ok(plain(StatusCode::CONFLICT, "<Error><Code>ConditionalRequestConflict</Code></Error>"));
        }
        Some(Fault::Reset) => return Err(Closed),
        Some(Fault::Stall) => return std::future::pending().await,
        Some(Fault::OkButNot) => {
            return Ok(plain(StatusCode::OK, "<Error><Code>InternalError</Code></Error>"));
        }
        _ => {}
    }
    let (parts, body) = request.into_parts();
    let body = to_bytes(Body::new(body), usize::MAX).await.map_err(|_| Closed)?;
    let done = service.call(Request::from_parts(parts, s3s::Body::from(body))).await.map_err(|_| Closed)?;
    let (parts, body) = done.into_parts();
    match fault {
        Some(Fault::Lost) => Err(Closed),
        Some(Fault::DoneAnd500) => Ok(plain(StatusCode::INTERNAL_SERVER_ERROR, "")),
        Some(fault @ (Fault::Cut | Fault::Flip)) => {
            let whole = to_bytes(Body::new(body), usize::MAX).await.map_err(|_| Closed)?;
            let mut answer = Response::from_parts(parts, hurt(fault, &whole));
            answer.headers_mut().insert(header::CONTENT_LENGTH, whole.len().into());
            Ok(answer)
        }
        _ => Ok(Response::from_parts(parts, Body::new(body))),
    }
}

fn plain(status: StatusCode, body: &'static str) -> Response<Body> {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    answer
}

fn hurt(fault: Fault, whole: &Bytes) -> Body {
    if fault == Fault::Cut {
        let half = Ok::<_, std::io::Error>(whole.slice(..whole.len() / 2));
        let end = Err(std::io::ErrorKind::ConnectionReset.into());
        return Body::from_stream(stream::iter([half, end]).then(|part| async {
            tokio::task::yield_now().await;
            part
        }));
    }
    let mut bytes = whole.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    Body::from_stream(stream::iter([Ok::<_, Infallible>(Bytes::from(bytes))]))
}

async fn rig(partitions: u32) -> (Rig, Server) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let options = ArchiverOptions { orphan_after: Duration::ZERO, ..quick() };
    let rig = Rig::with(archived(partitions), server.bucket(), folder, options).await;
    (rig, server)
}

/// Ticks until all is archived; at no time is anything catalogued that is not in the bucket.
async fn archive_all(rig: &mut Rig, server: &Server) -> Vec<String> {
    let mut failures = Vec::new();
    for _ in 0..40 {
        let report = rig.archiver.tick().await.unwrap();
        failures.extend(report.failures);
        for partition in 0..rig.topic.partitions {
            let cold = if server.left() == 0 { rig.cold(partition).await } else { Vec::new() };
            assert_eq!(cold, rig.hot(partition).await[..cold.len()]);
        }
        let waiting = "SELECT count(*) FROM tidemill.segments WHERE state = 'sealed'";
        if server.left() == 0 && count(&rig.database.pool, waiting).await == 0 {
            return failures;
        }
    }
    panic!("never archived; {} faults are left; {failures:#?}", server.left());
}

/// All is in the bucket, and nothing else is.
async fn is_whole(rig: &mut Rig) {
    for partition in 0..rig.topic.partitions {
        let hot = rig.hot(partition).await;
        assert!(!hot.is_empty());
        assert_eq!(rig.cold(partition).await, hot);
    }
    rig.archiver.tick().await.unwrap();
    let stored: BTreeSet<String> = rig.bucket.list("archive").await.unwrap().into_iter().collect();
    assert_eq!(stored, rig.paths().await.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_serves_as_a_folder_does() {
    let (mut rig, server) = rig(2).await;
    rig.segment(0, 300).await;
    assert_eq!(archive_all(&mut rig, &server).await, Vec::<String>::new());
    is_whole(&mut rig).await;
    assert!(rig.bucket.local_path("x").is_none());
    assert!(!rig.bucket.url().contains("127.0.0.1"), "{}", rig.bucket.url());
    let [path, _] = rig.paths().await.try_into().unwrap();
    let again = rig.bucket.put_new(&path, "other".into()).await.unwrap_err();
    assert!(matches!(again, BucketError::Different { .. }), "an object is never overwritten: {again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_fails_in_any_way_is_made_good() {
    let (mut rig, server) = rig(3).await;
    rig.segment(0, 100).await;
    use Fault::*;
    server.expect(
        Method::PUT,
        &[
            Lost,
            DoneAnd500,
            Conflict,
            Unavailable,
            Reset,
            Stall,
            OkButNot,
            Unavailable,
            Unavailable,
            Reset,
            Reset,
            Lost,
            Lost,
        ],
    );
    archive_all(&mut rig, &server).await;
    is_whole(&mut rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_back_that_fails_in_any_way_is_no_proof() {
    let (mut rig, server) = rig(3).await;
    rig.segment(0, 100).await;
    use Fault::*;
    server.expect(
        Method::GET,
        &[Flip, Cut, Unavailable, Reset, Stall, Flip, Flip, Flip, Flip, Cut, Cut, Cut, Cut],
    );
    server.expect(Method::HEAD, &[Unavailable, Reset, Stall, Unavailable, Unavailable]);
    let failures = archive_all(&mut rig, &server).await;
    assert!(!failures.is_empty(), "three wrong answers in a row are a failure");
    is_whole(&mut rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_that_fails_is_made_again() {
    let (mut rig, server) = rig(1).await;
    rig.segment(0, 50).await;
    archive_all(&mut rig, &server).await;
    let orphan = "archive/events/date=2026-01-01/orphan.parquet";
    for fault in [Fault::Unavailable, Fault::Reset, Fault::Lost] {
        rig.bucket.put_new(orphan, "left".into()).await.unwrap();
        note(&rig.database.pool, orphan).await;
        server.expect(Method::DELETE, &[fault, fault]);
        for _ in 0..10 {
            // As if the time of the sweep before had passed.
            sqlx::raw_sql("UPDATE tidemill.loose_objects SET doomed_at = doomed_at - interval '1 hour'")
                .execute(&rig.database.pool)
                .await
                .unwrap();
            let _ = rig.archiver.tick().await;
        }
        assert_eq!((server.left(), rig.bucket.size(orphan).await.unwrap()), (0, None), "{fault:?}");
        is_whole(&mut rig).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_bucket_is_away_postgres_keeps_everything_and_no_transaction_is_open() {
    let (mut rig, server) = rig(1).await;
    rig.segment(0, 50).await;
    server.expect(Method::PUT, &[Fault::Stall; 2]);
    let pool = rig.database.pool.clone();
    let archiving = async {
        let report = rig.archiver.tick().await.unwrap();
        assert_eq!(report.objects, 0, "{report:?}");
    };
    let looking = async {
        let mut most = 0;
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' \
                        AND pid <> pg_backend_pid() AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL) \
                        AND state LIKE 'idle in transaction%'";
            most = most.max(count(&pool, open).await);
        }
        assert_eq!(most, 0, "a transaction is open while the bucket is waited for");
    };
    tokio::join!(archiving, looking);
    archive_all(&mut rig, &server).await;
    is_whole(&mut rig).await;
}
