//! Which files make the topics that a statement names.
//!
//! Guarantee: the rows of a view are the records of the topic as of one snapshot of the catalog, each once. Objects count
//! from the moment their catalog row is committed; the rest is read as of the same moment into hot files, and the view
//! cuts those to the snapshot's ranges.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalog::{self, Holding};
use super::error::QueryError;
use super::hot::{Chunk, HotError, HotFiles};
use super::protocol::{Source, View, ViewColumn};
use crate::archive::parquet::layout::{Field, FieldKind, Layout};
use crate::ids::TopicId;
use crate::log::{Log, LogError, Topic};

/// Snapshots that are taken at most when records move into the archive under a query's feet.
const ATTEMPTS: u32 = 5;

/// The views of a query, and the files that must stay until it ends.
#[derive(Debug, Default)]
pub struct Views {
    pub views: Vec<View>,
    pub hot: Vec<Arc<Chunk>>,
}

/// A view for each topic; rows only for those whose name is in the statement.
pub async fn gather(log: &Log, hot: &HotFiles, root: &Path, sql: &str) -> Result<Views, QueryError> {
    let topics = log.topics().await?;
    hot.keep_only(&topics);
    let text = sql.to_lowercase();
    let (named, unnamed): (Vec<_>, Vec<_>) = topics.into_iter().partition(|topic| text.contains(topic.name.as_str()));
    let mut attempt = 1;
    let mut gathered = loop {
        match collect(log, hot, root, &named).await {
            Err(HotError::Gone) if attempt < ATTEMPTS => attempt += 1,
            Err(HotError::Gone) => {
                return Err(QueryError::Hot("they move into the archive faster than they can be read".to_string()));
            }
            Err(HotError::Failed(error)) => return Err(error),
            Ok(gathered) => break gathered,
        }
    };
    gathered.views.extend(unnamed.iter().map(|topic| view(topic, Source::Unnamed)));
    Ok(gathered)
}

async fn collect(log: &Log, hot: &HotFiles, root: &Path, topics: &[Arc<Topic>]) -> Result<Views, HotError> {
    if topics.is_empty() {
        return Ok(Views::default());
    }
    let ids: Vec<TopicId> = topics.iter().map(|topic| topic.id).collect();
    let mut holdings = catalog::snapshot(log.pool(), &ids)
        .await
        .map_err(|error| HotError::Failed(QueryError::Log(LogError::from(error))))?;
    let mut gathered = Views::default();
    for topic in topics {
        let Holding { objects, hot: ranges } = holdings.remove(&topic.id).unwrap_or_default();
        let files = hot.collect(topic, &ranges).await?;
        let source = Source::Files {
            archived: objects.iter().map(|path| root.join(path)).collect(),
            hot: files.iter().map(|chunk| chunk.path.clone()).collect::<Vec<PathBuf>>(),
            ranges,
        };
        gathered.views.push(view(topic, source));
        gathered.hot.extend(files);
    }
    Ok(gathered)
}

fn view(topic: &Topic, source: Source) -> View {
    let field = |field: &Field| ViewColumn { name: field.column.to_string(), kind: kind(field.kind) };
    let ours = [
        ("_partition", "INTEGER"),
        ("_offset", "BIGINT"),
        ("_ts", "TIMESTAMP WITH TIME ZONE"),
        ("_key", "BLOB"),
        ("_headers", "VARCHAR"),
        ("_payload", "BLOB"),
    ];
    let ours = ours.map(|(name, kind)| ViewColumn { name: name.to_string(), kind: kind.to_string() });
    let columns = Layout::of(topic).fields.iter().map(field).chain(ours).collect();
    View { name: topic.name.to_string(), columns, source }
}

/// The type of a column in DuckDB's words.
fn kind(kind: FieldKind) -> String {
    match kind {
        FieldKind::String | FieldKind::Json => "VARCHAR".to_string(),
        FieldKind::Int => "BIGINT".to_string(),
        FieldKind::Float => "DOUBLE".to_string(),
        FieldKind::Bool => "BOOLEAN".to_string(),
        FieldKind::Timestamp => "TIMESTAMP WITH TIME ZONE".to_string(),
        FieldKind::Decimal(scale) => format!("DECIMAL(18,{scale})"),
    }
}
