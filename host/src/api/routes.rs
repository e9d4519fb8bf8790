//! Every route in one table: the router is built from it, and a test holds the OpenAPI document against it.

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{Method, Uri};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use tower_http::compression::CompressionLayer;

use super::error::ApiError;
use super::guard::{self, Guard};
use super::queues::{claims, jobs};
use super::{
    ApiState, groups, letters, metrics, openapi, plugins, produce, query, queues, records, segments, status,
    stream, tables, topics, web,
};

/// One method of one path.
pub struct Route {
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the router takes methods from handlers; tests read this")
    )]
    pub method: Method,
    pub path: &'static str,
    handler: MethodRouter<ApiState>,
    /// Answers that may be compressed: short documents, not streams, which must not wait for a compressor's window.
    compress: bool,
}

/// The API. What is not in it is looked for among the files of the web page.
pub fn all() -> Vec<Route> {
    let read = |path, handler| Route { method: Method::GET, path, handler, compress: true };
    let streamed = |path, handler| Route { method: Method::GET, path, handler, compress: false };
    let write = |method, path, handler| Route { method, path, handler, compress: true };
    vec![
        read("/healthz", get(status::health)),
        read("/readyz", get(status::readiness)),
        read("/metrics", get(metrics::render)),
        read("/v1/openapi.json", get(openapi::document)),
        read("/v1/status", get(status::status)),
        read("/v1/pipelines", get(status::pipelines)),
        read("/v1/pipelines/{pipeline}", get(status::pipeline)),
        read("/v1/pipelines/{pipeline}/stages/{stage}/plugin", get(plugins::describe)),
        write(Method::PUT, "/v1/pipelines/{pipeline}/stages/{stage}/plugin", put(plugins::push)),
        write(
            Method::POST,
            "/v1/pipelines/{pipeline}/stages/{stage}/plugin/rollback",
            post(plugins::roll_back),
        ),
        write(Method::PUT, "/v1/pipelines/{pipeline}/stages/{stage}/shadow", put(plugins::start_shadow)),
        write(Method::DELETE, "/v1/pipelines/{pipeline}/stages/{stage}/shadow", delete(plugins::end_shadow)),
        write(Method::POST, "/v1/pipelines/{pipeline}/stages/{stage}/shadow/promote", post(plugins::promote)),
        read("/v1/shadows", get(plugins::shadows)),
        read("/v1/plugins", get(plugins::list)),
        read("/v1/topics", get(topics::list)),
        write(Method::POST, "/v1/topics", post(topics::create)),
        read("/v1/topics/{topic}", get(topics::describe)),
        write(Method::DELETE, "/v1/topics/{topic}", delete(topics::remove)),
        write(Method::POST, "/v1/topics/{topic}/records", post(produce::produce)),
        read("/v1/topics/{topic}/segments", get(segments::list)),
        streamed("/v1/topics/{topic}/records", get(records::read)),
        streamed("/v1/topics/{topic}/stream", get(stream::follow)),
        read("/v1/tables", get(tables::list)),
        read("/v1/tables/{table}", get(tables::rows)),
        streamed("/v1/tables/{table}/stream", get(tables::follow)),
        read("/v1/groups", get(groups::list)),
        read("/v1/groups/{group}", get(groups::describe)),
        write(Method::DELETE, "/v1/groups/{group}", delete(groups::remove)),
        write(Method::POST, "/v1/groups/{group}/seek", post(groups::seek)),
        write(Method::POST, "/v1/groups/{group}/commit", post(groups::commit)),
        read("/v1/dead-letters", get(letters::list)),
        read("/v1/dead-letters/{id}", get(letters::show)),
        write(Method::DELETE, "/v1/dead-letters/{id}", delete(letters::remove)),
        write(Method::POST, "/v1/dead-letters/redrive", post(letters::redrive)),
        write(Method::POST, "/v1/dead-letters/drop", post(letters::drop)),
        read("/v1/queues", get(queues::list)),
        read("/v1/queues/{queue}", get(queues::describe)),
        write(Method::POST, "/v1/queues/{queue}/pause", post(queues::pause)),
        write(Method::POST, "/v1/queues/{queue}/resume", post(queues::resume)),
        read("/v1/queues/{queue}/jobs", get(jobs::list)),
        write(Method::POST, "/v1/queues/{queue}/jobs", post(jobs::enqueue)),
        read("/v1/queues/{queue}/jobs/{id}", get(jobs::show)),
        write(Method::DELETE, "/v1/queues/{queue}/jobs/{id}", delete(jobs::remove)),
        write(Method::POST, "/v1/queues/{queue}/jobs/{id}/retry", post(jobs::retry)),
        write(Method::POST, "/v1/queues/{queue}/jobs/{id}/cancel", post(jobs::cancel)),
        write(Method::POST, "/v1/queues/{queue}/claim", post(claims::claim)),
        write(Method::POST, "/v1/queues/{queue}/claims/{claim}/extend", post(claims::extend)),
        write(Method::POST, "/v1/queues/{queue}/claims/{claim}/finish", post(claims::finish)),
        Route { method: Method::POST, path: "/v1/query", handler: post(query::run), compress: false },
    ]
}

/// The whole application, behind its guard.
pub fn router(state: ApiState, guard: Guard) -> Router {
    let mut router = Router::new();
    for route in all() {
        let handler = match route.compress {
            true => route.handler.layer(CompressionLayer::new()),
            false => route.handler,
        };
        router = router.route(route.path, handler);
    }
    router
        .method_not_allowed_fallback(wrong_method)
        .fallback(other.layer(CompressionLayer::new()))
        .layer(middleware::from_fn_with_state(guard, guard::admit))
        .with_state(state)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{method} cannot be done on {}", uri.path()),
    )
    .hint("GET /v1/openapi.json lists what can")
}

async fn other(request: Request) -> Response {
    let path = request.uri().path();
    let api = path == "/v1" || path.starts_with("/v1/");
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let file = if reads && !api { web::file(path, request.headers()) } else { None };
    file.unwrap_or_else(|| {
        ApiError::not_found("no_such_route", format!("there is nothing at {path}"))
            .hint("GET /v1/openapi.json lists the routes")
            .into_response()
    })
}
