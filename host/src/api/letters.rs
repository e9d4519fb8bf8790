//! Dead letters: list, show, redrive, drop.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::ApiState;
use super::encode::{Payload, RecordWriter};
use super::error::ApiError;
use super::params::Params;
use crate::clock::{parse_rfc3339, rfc3339};
use crate::ids::Micros;
use crate::letters::{CHANGE_MAX, Filter, Letter, PAGE_MAX};

/// Letters of a page that does not say how many.
const PAGE: u32 = 50;
/// Ids in one request.
const IDS_MAX: usize = 1_000;

/// What there is to know of a letter beside its record.
#[derive(Serialize)]
struct LetterView<'a> {
    id: i64,
    state: &'static str,
    group: &'a str,
    pipeline: &'a str,
    stage: &'a str,
    digest: &'a str,
    topic: &'a str,
    kind: &'a str,
    error: &'a str,
    attempts: u32,
    created_at: String,
    failed_at: String,
    redriven_at: Option<String>,
    /// Of the whole payload.
    bytes: u64,
    #[serde(flatten)]
    content: Content<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    /// The beginning of key and payload, as far as that is text.
    Preview {
        partition: u32,
        offset: u64,
        timestamp: String,
        key: Option<String>,
        preview: String,
    },
    Whole {
        record: &'a RawValue,
    },
}

/// What to redrive or drop: letters by their ids, or those of a group.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    ids: Option<Vec<i64>>,
    group: Option<String>,
    topic: Option<String>,
    stage: Option<String>,
    kind: Option<String>,
    digest: Option<String>,
    since: Option<String>,
    until: Option<String>,
    max: Option<u32>,
}

enum Chosen {
    Ids(Vec<i64>),
    Filter(Filter, u32),
}

pub async fn list(State(state): State<ApiState>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let known = ["group", "topic", "stage", "kind", "digest", "since", "until", "state", "before", "limit"];
    let params = Params::read(&uri, &known)?;
    let text = |name| params.text(name).map(str::to_string);
    let filter = Filter {
        group: text("group"),
        topic: text("topic"),
        stage: text("stage"),
        kind: text("kind"),
        digest: text("digest"),
        since: params.text("since").map(|at| time("since", at)).transpose()?,
        until: params.text("until").map(|at| time("until", at)).transpose()?,
    };
    let queued = match params.text("state") {
        None => None,
        Some("queued") => Some(true),
        Some("dead") => Some(false),
        Some(other) => {
            return Err(ApiError::bad_request("bad_parameter", format!("state={other} cannot be used"))
                .hint("it is dead or queued"));
        }
    };
    let before = params.number("before", 0, i64::MAX as u64)?.map(|id| id as i64);
    let limit = params.number("limit", 1, u64::from(PAGE_MAX))?.map_or(PAGE, |limit| limit as u32);
    let letters = state.letters().list(&filter, queued, before, limit).await?;
    let next = letters.last().filter(|_| letters.len() == limit as usize).map(|letter| letter.id);
    let views: Vec<LetterView<'_>> = letters.iter().map(preview).collect();
    Ok(Json(json!({ "dead_letters": views, "next": next })))
}

pub async fn show(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    let letter = state.letters().get(number(&id)?).await?;
    let mut writer = RecordWriter::new(Payload::Text);
    writer.appended(&letter.record, letter.appended_at);
    let internal = |error: serde_json::Error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string())
    };
    let record: Box<RawValue> = serde_json::from_slice(&writer.take()).map_err(internal)?;
    let view = view(&letter, Content::Whole { record: &record });
    Ok(Json(serde_json::to_value(&view).map_err(internal)?))
}

pub async fn remove(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<StatusCode, ApiError> {
    Params::read(&uri, &[])?;
    let id = number(&id)?;
    match state.letters().drop(&[id]).await? {
        0 => Err(ApiError::not_found("dead_letter_not_found", format!("there is no dead letter {id}"))
            .hint("it was redriven or dropped; GET /v1/dead-letters lists them")),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

pub async fn redrive(
    State(state): State<ApiState>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    let which: Which = state.bodies.json(&headers, body).await?;
    let (queued, more) = match which.chosen()? {
        Chosen::Ids(ids) => (state.letters().redrive(&ids).await?, false),
        Chosen::Filter(filter, max) => {
            let queued = state.letters().redrive_all(&filter, max).await?;
            (queued, queued >= u64::from(max))
        }
    };
    Ok(Json(json!({ "queued": queued, "more": more })))
}

pub async fn drop(
    State(state): State<ApiState>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    let which: Which = state.bodies.json(&headers, body).await?;
    let (dropped, more) = match which.chosen()? {
        Chosen::Ids(ids) => (state.letters().drop(&ids).await?, false),
        Chosen::Filter(filter, max) => {
            let dropped = state.letters().drop_all(&filter, max).await?;
            (dropped, dropped >= u64::from(max))
        }
    };
    Ok(Json(json!({ "dropped": dropped, "more": more })))
}

impl Which {
    fn chosen(self) -> Result<Chosen, ApiError> {
        let Self { ids, group, topic, stage, kind, digest, since, until, max } = self;
        let bad = |message: String| ApiError::bad_request("bad_choice", message);
        let max = max.unwrap_or(CHANGE_MAX);
        if !(1..=CHANGE_MAX).contains(&max) {
            return Err(bad(format!("max={max} cannot be used: it goes from 1 to {CHANGE_MAX}")));
        }
        let narrowed = [&topic, &stage, &kind, &digest, &since, &until].iter().any(|part| part.is_some());
        match (ids, group) {
            (Some(ids), None) if !narrowed => match ids.len() {
                0..=IDS_MAX => Ok(Chosen::Ids(ids)),
                count => Err(bad(format!("{count} ids are too many at once: {IDS_MAX} are allowed"))),
            },
            (None, group @ Some(_)) => {
                let since = since.map(|at| time("since", &at)).transpose()?;
                let until = until.map(|at| time("until", &at)).transpose()?;
                Ok(Chosen::Filter(Filter { group, topic, stage, kind, digest, since, until }, max))
            }
            _ => Err(bad("say which dead letters are meant".to_string()).hint(
                "give either ids, or a group and perhaps topic, stage, kind, digest, since, until, max",
            )),
        }
    }
}

fn preview(letter: &Letter) -> LetterView<'_> {
    let record = &letter.record;
    let content = Content::Preview {
        partition: record.partition,
        offset: record.offset,
        timestamp: rfc3339(record.timestamp),
        key: record.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned()),
        preview: String::from_utf8_lossy(&record.payload).into_owned(),
    };
    view(letter, content)
}

fn view<'a>(letter: &'a Letter, content: Content<'a>) -> LetterView<'a> {
    LetterView {
        id: letter.id,
        state: if letter.queued { "queued" } else { "dead" },
        group: &letter.group,
        pipeline: &letter.pipeline,
        stage: &letter.stage,
        digest: &letter.digest,
        topic: &letter.topic,
        kind: &letter.kind,
        error: &letter.error,
        attempts: letter.attempts,
        created_at: rfc3339(letter.created_at),
        failed_at: rfc3339(letter.failed_at),
        redriven_at: letter.redriven_at.map(rfc3339),
        bytes: letter.bytes,
        content,
    }
}

fn number(id: &str) -> Result<i64, ApiError> {
    id.parse().map_err(|_| {
        ApiError::bad_request("bad_id", format!("{id:?} is not the id of a dead letter"))
            .hint("it is a number; GET /v1/dead-letters lists them")
    })
}

fn time(name: &str, text: &str) -> Result<Micros, ApiError> {
    parse_rfc3339(text).ok_or_else(|| {
        ApiError::bad_request("bad_parameter", format!("{name}={text} is not a time"))
            .hint("it looks like 2026-01-01T00:00:00Z")
    })
}
