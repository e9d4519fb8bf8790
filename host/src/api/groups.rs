//! Consumer groups: list, show, move, commit, delete.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ApiState;
use super::error::ApiError;
use super::params::Params;
use super::path::Named;
use super::start::no_partition;
use crate::ids::{GroupName, Partition, TopicName};
use crate::log::SeekTarget;
use crate::log::offsets::{Deleted, GroupLag};
use crate::replay::Position;

/// A group on one topic as answers show it.
#[derive(Clone, Debug, Serialize)]
pub struct GroupView {
    #[serde(flatten)]
    lag: GroupLag,
    /// Committed, averaged over some seconds; null until that is known.
    records_per_second: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seek {
    topic: TopicName,
    to: String,
    partition: Option<Partition>,
    #[serde(default)]
    clear_state: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Commit {
    topic: TopicName,
    position: String,
}

impl GroupView {
    pub fn new(state: &ApiState, lag: GroupLag) -> Self {
        Self { records_per_second: state.rates.of_group(&lag.group, &lag.topic), lag }
    }
}

pub async fn list(State(state): State<ApiState>, uri: Uri) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    Ok(Json(json!({ "groups": views(&state).await? })))
}

/// All groups.
pub async fn views(state: &ApiState) -> Result<Vec<GroupView>, ApiError> {
    let groups = state.groups.list().await?;
    Ok(groups.into_iter().map(|lag| GroupView::new(state, lag)).collect())
}

pub async fn describe(
    State(state): State<ApiState>,
    Named(group): Named<GroupName>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    Params::read(&uri, &[])?;
    let topics = state.groups.describe(&group).await?;
    if topics.is_empty() {
        return Err(unknown(&state, &group).await);
    }
    let topics: Vec<GroupView> = topics.into_iter().map(|lag| GroupView::new(&state, lag)).collect();
    Ok(Json(json!({ "group": group, "topics": topics })))
}

pub async fn remove(
    State(state): State<ApiState>,
    Named(group): Named<GroupName>,
    uri: Uri,
) -> Result<StatusCode, ApiError> {
    Params::read(&uri, &[])?;
    match state.groups.delete(&group).await? {
        Deleted::Done => Ok(StatusCode::NO_CONTENT),
        Deleted::InUse => Err(in_use(&group)),
        Deleted::Unknown => Err(unknown(&state, &group).await),
    }
}

pub async fn seek(
    State(state): State<ApiState>,
    Named(group): Named<GroupName>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<GroupView>, ApiError> {
    Params::read(&uri, &[])?;
    let seek: Seek = state.bodies.json(&headers, body).await?;
    let topic = state.log.topic(seek.topic.as_str()).await?;
    if let Some(partition) = seek.partition.filter(|partition| *partition >= topic.partitions) {
        return Err(no_partition(&topic, partition));
    }
    let target: SeekTarget = seek.to.parse().map_err(|_| {
        ApiError::bad_request("bad_target", format!("a group cannot be moved to {:?}", seek.to))
            .hint("it is earliest, latest, an offset, tail:N, or a time such as 2026-01-01T00:00:00Z")
    })?;
    // Checked here for a better answer; Postgres decides.
    let within = super::start::Start::Target(target.clone());
    let begin = super::start::resolve(&state, &topic, &within, seek.partition).await?;
    match target {
        SeekTarget::Earliest | SeekTarget::Hot | SeekTarget::Latest | SeekTarget::Time(_) => {
            state.groups.seek(&group, &seek.topic, &target, seek.partition, seek.clear_state).await?;
        }
        SeekTarget::Offset(_) | SeekTarget::Tail(_) => {
            for (partition, place) in begin.from {
                let target = SeekTarget::Offset(place.offset);
                state.groups.seek(&group, &seek.topic, &target, Some(partition), seek.clear_state).await?;
            }
        }
    }
    shown(&state, &group, &seek.topic).await
}

pub async fn commit(
    State(state): State<ApiState>,
    Named(group): Named<GroupName>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<GroupView>, ApiError> {
    Params::read(&uri, &[])?;
    let commit: Commit = state.bodies.json(&headers, body).await?;
    let topic = state.log.topic(commit.topic.as_str()).await?;
    let position: Position = commit.position.parse().map_err(|_| {
        ApiError::bad_request("bad_position", format!("{:?} is no position", commit.position))
            .hint("it looks like 0:120,1:99, the next offset of each partition")
    })?;
    if let Some((partition, _)) = position.iter().find(|(partition, _)| *partition >= topic.partitions) {
        return Err(no_partition(&topic, partition));
    }
    let standing = state.groups.describe(&group).await?;
    let here = standing.iter().find(|lag| lag.topic == commit.topic.as_str());
    for place in here.iter().flat_map(|lag| &lag.partitions) {
        let Some(next) = position.get(place.partition) else { continue };
        if place.owner.is_some() {
            return Err(in_use(&group));
        }
        if next < place.offset || next > place.end {
            return Err(ApiError::out_of_range(place.partition, next, place.offset, place.end).hint(
                "a commit goes forward from where the group stands, at most to the end; /seek moves a group anywhere",
            ));
        }
    }
    state.groups.commit(&group, &commit.topic, &position).await?;
    shown(&state, &group, &commit.topic).await
}

async fn shown(state: &ApiState, group: &GroupName, topic: &TopicName) -> Result<Json<GroupView>, ApiError> {
    let topics = state.groups.describe(group).await?;
    match topics.into_iter().find(|lag| lag.topic == topic.as_str()) {
        Some(lag) => Ok(Json(GroupView::new(state, lag))),
        None => Err(unknown(state, group).await),
    }
}

fn in_use(group: &GroupName) -> ApiError {
    ApiError::conflict("group_in_use", format!("a running stage owns group {group}"))
        .hint("use another group, or stop the pipeline that runs it; /seek moves it while it runs")
}

async fn unknown(state: &ApiState, group: &GroupName) -> ApiError {
    let groups = state.groups.list().await.unwrap_or_default();
    let near = groups
        .iter()
        .map(|lag| (strsim::damerau_levenshtein(&lag.group, group.as_str()), &lag.group))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    let hint = match near {
        Some((_, near)) => format!("did you mean {near:?}?"),
        None => "GET /v1/groups lists them; a group begins with its first commit or seek".to_string(),
    };
    ApiError::not_found("group_not_found", format!("there is no consumer group {:?}", group.as_str()))
        .hint(hint)
}
