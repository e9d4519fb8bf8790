//! A host's API for one test, and a client that checks each answer against the OpenAPI document.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::openapi::DOCUMENT;
use crate::api::{ApiSettings, ApiState, serve};
use crate::archive::objects::{MIRROR_BYTES, Objects};
use crate::archive::store::{Bucket, BucketOptions};
use crate::clock::Clock;
use crate::config::plugins::PluginFolders;
use crate::ids::HostId;
use crate::log::hosts::{Hosts, Member};
use crate::log::offsets::Groups;
use crate::log::{Log, LogOptions};
use crate::pg::durability;
use crate::pg::notify::NotifyHub;
use crate::pg::testing::TestDatabase;
use crate::pg::testing::database;
use crate::pipeline::runtime::Runtime;
use crate::pipeline::share::Shares;
use crate::pipeline::stage::Services;
use crate::plugin::{EngineOptions, PluginEngine};
use crate::query::{Queries, QueryOptions};
use crate::queue::Queues;
use crate::replay::Replay;
use crate::tables::Tables;

pub struct TestHost {
    pub database: TestDatabase,
    pub state: ApiState,
    pub url: String,
    pub http: reqwest::Client,
    _folder: tempfile::TempDir,
    _stop: DropGuard,
}

impl TestHost {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ApiSettings)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let database = database().await;
        let pool = database.pool.clone();
        let log = Log::new(
            pool.clone(),
            NotifyHub::start(pool.clone(), None),
            Clock::system(),
            LogOptions::default(),
        );
        let (replay, groups) = (Replay::new(log.clone()), Groups::new(pool.clone()));
        let tables = Tables::new(pool.clone());
        let host = HostId("h-test".into());
        let member = Member { host: host.clone(), version: "0", url: "http://127.0.0.1:0".to_string() };
        let services = Services {
            log: log.clone(),
            replay: replay.clone(),
            groups: groups.clone(),
            shares: Shares::new(Hosts::new(pool.clone()), member),
            registry: crate::registry::Registry::new(pool.clone()),
            queues: Queues::new(log.clone()),
            letters: crate::letters::Letters::new(log.clone()),
            host: host.clone(),
        };
        let engine = PluginEngine::new(EngineOptions::default()).unwrap();
        let runtime = Runtime::new(engine, services, tables.clone(), PluginFolders::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut settings = ApiSettings {
            url: url.clone(),
            postgres_url: "postgres://tidemill@/tidemill".to_string(),
            data_dir: "/data".into(),
            host,
            durability: durability::check(&pool).await.unwrap(),
            token: None,
            allowed_hosts: Vec::new(),
        };
        change(&mut settings);
        let folder = tempfile::tempdir().unwrap();
        let bucket =
            Bucket::open(&folder.path().join("bucket").display().to_string(), &BucketOptions::default());
        let cache = folder.path().join("cache");
        let objects = Objects::open(bucket.unwrap(), &folder.path().join("mirror"), MIRROR_BYTES).unwrap();
        let queries = Queries::open(replay.clone(), objects, &cache, QueryOptions::default()).unwrap();
        let state = ApiState::new(log, replay, groups, tables, runtime, queries, settings);
        let stop = CancellationToken::new();
        tokio::spawn(serve(state.clone(), listener, stop.clone()));
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        Self { database, state, url, http, _folder: folder, _stop: stop.drop_guard() }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// A success's JSON, checked against the document.
    pub async fn get(&self, path: &str) -> Value {
        let response = self.request(Method::GET, path).send().await.unwrap();
        checked(&Method::GET, path, response).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let response = self.request(Method::POST, path).json(&body).send().await.unwrap();
        checked(&Method::POST, path, response).await
    }

    /// What an error says: status and code, after checking its shape.
    pub async fn refused(&self, request: RequestBuilder) -> (u16, Value) {
        refusal(request.send().await.unwrap()).await
    }

    pub async fn topic(&self, name: &str, partitions: u32, format: &str) {
        let body = json!({ "name": name, "partitions": partitions, "format": format });
        self.post("/v1/topics", body).await;
    }

    pub fn produce(
        &self,
        topic: &str,
        query: &str,
        kind: &str,
        body: impl Into<reqwest::Body>,
    ) -> RequestBuilder {
        self.request(Method::POST, &format!("/v1/topics/{topic}/records{query}"))
            .header("content-type", kind)
            .body(body)
    }

    /// Appends lines and gives the answer.
    pub async fn lines(&self, topic: &str, query: &str, body: impl Into<reqwest::Body>) -> Value {
        let response = self.produce(topic, query, "text/plain", body).send().await.unwrap();
        checked(&Method::POST, &format!("/v1/topics/{topic}/records"), response).await
    }

    pub async fn raw(&self, topic: &str, query: &str) -> Vec<u8> {
        let path = format!("/v1/topics/{topic}/records?format=raw{query}");
        let response = self.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.bytes().await.unwrap().to_vec()
    }
}

/// An error's status and content.
pub async fn refusal(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    assert!(status >= 400, "{status}");
    let body: Value = response.json().await.unwrap();
    let schema = json!({ "$ref": "#/components/schemas/Error" });
    conforms(&schema, &body, "an error");
    (status, body["error"].clone())
}

async fn checked(method: &Method, path: &str, response: Response) -> Value {
    let status = response.status().as_u16().to_string();
    let text = response.text().await.unwrap();
    assert!(status.starts_with('2'), "{method} {path}: {status} {text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    let operation = operation(method, path);
    let schema = &operation["responses"][&status]["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{method} {path}: the document does not describe a {status}");
    conforms(schema, &body, path);
    body
}

fn operation(method: &Method, path: &str) -> Value {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let path = path.split('?').next().unwrap();
    let fits = |template: &&String| {
        let (template, path): (Vec<&str>, Vec<&str>) =
            (template.split('/').collect(), path.split('/').collect());
        let same = |(part, given): (&&str, &&str)| part == given || part.starts_with('{');
        template.len() == path.len() && template.iter().zip(&path).all(same)
    };
    let mut templates: Vec<&String> = document["paths"].as_object().unwrap().keys().filter(fits).collect();
    templates.sort_by_key(|template| template.matches('{').count());
    let template = templates.first().unwrap_or_else(|| panic!("{path} is not in the document"));
    document["paths"][template.as_str()][method.as_str().to_lowercase()].clone()
}

/// Fails unless `value` is what the document says.
fn conforms(schema: &Value, value: &Value, what: &str) {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let mut whole = schema.clone();
    whole["components"] = document["components"].clone();
    let validator = jsonschema::validator_for(&whole).unwrap();
    let errors: BTreeSet<String> =
        validator.iter_errors(value).map(|e| format!("{} at {}", e, e.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{value:#}");
}
