//! Which files make the topics that a statement names.
//!
//! Guarantee: the rows of a view are the records of the topic as of one snapshot of the catalog, each once. Objects count
//! from the moment their catalog row is committed; the rest is read as of the same moment into hot files, and the view
//! cuts those to the snapshot's ranges.

use std::sync::Arc;

use super::catalog::{self, Holding};
use super::error::QueryError;
use super::hot::{Chunk, HotError, HotFiles};
use super::protocol::{Source, View, ViewColumn};
use crate::archive::objects::{Object, Objects, Pin};
use crate::archive::parquet::layout::{Field, FieldKind, Layout};
use crate::ids::TopicId;
use crate::log::{Log, LogError, Topic};

/// Snapshots that are taken at most when records move into the archive under a query's feet.
const ATTEMPTS: u32 = 5;

/// What views are made from.
#[derive(Debug)]
pub struct Sources {
    pub log: Log,
    pub hot: HotFiles,
    pub objects: Objects,
}

/// The views of a query, and what must stay until it ends.
#[derive(Debug, Default)]
pub struct Views {
    pub views: Vec<View>,
    pub held: Held,
}

/// Files that a query uses. They may go when it is dropped.
#[derive(Debug, Default)]
pub struct Held {
    hot: Vec<Arc<Chunk>>,
    _archived: Pin,
}

impl Sources {
    /// A view for each topic; rows only for those whose name is in the statement.
    pub async fn gather(&self, sql: &str) -> Result<Views, QueryError> {
        let topics = self.log.topics().await?;
        self.hot.keep_only(&topics);
        let text = sql.to_lowercase();
        let (named, unnamed): (Vec<_>, Vec<_>) =
            topics.into_iter().partition(|topic| text.contains(topic.name.as_str()));
        // Whoever writes a path reads more than topics; a mirror has it only when it was fetched.
        let everything = self.objects.is_mirror() && text.contains("archive");
        let mut attempt = 1;
        let mut gathered = loop {
            match self.collect(&named, everything).await {
                Err(HotError::Gone) if attempt < ATTEMPTS => attempt += 1,
                Err(HotError::Gone) => {
                    return Err(QueryError::Hot(
                        "they move into the archive faster than they can be read".to_string(),
                    ));
                }
                Err(HotError::Failed(error)) => return Err(error),
                Ok(gathered) => break gathered,
            }
        };
        gathered.views.extend(unnamed.iter().map(|topic| view(topic, Source::Unnamed)));
        Ok(gathered)
    }

    async fn collect(&self, topics: &[Arc<Topic>], everything: bool) -> Result<Views, HotError> {
        let ids: Vec<TopicId> = topics.iter().map(|topic| topic.id).collect();
        let unread = |error: sqlx::Error| HotError::Failed(QueryError::Log(LogError::from(error)));
        let mut holdings = catalog::snapshot(self.log.pool(), &ids).await.map_err(unread)?;
        let mut needed: Vec<Object> = holdings.values().flat_map(|holding| holding.objects.clone()).collect();
        if everything {
            let all = catalog::objects(self.log.pool()).await.map_err(unread)?;
            self.objects.keep_only(&all);
            needed.extend(all);
            needed.sort();
            needed.dedup();
        }
        let archived = self.objects.provide(&needed).await.map_err(|error| HotError::Failed(error.into()))?;
        let mut gathered = Views { views: Vec::new(), held: Held { hot: Vec::new(), _archived: archived } };
        for topic in topics {
            let Holding { objects, hot: ranges } = holdings.remove(&topic.id).unwrap_or_default();
            let files = self.hot.collect(topic, &ranges).await?;
            let source = Source::Files {
                archived: objects.iter().map(|object| self.objects.root().join(&object.path)).collect(),
                hot: files.iter().map(|chunk| chunk.path.clone()).collect(),
                ranges,
            };
            gathered.views.push(view(topic, source));
            gathered.held.hot.extend(files);
        }
        Ok(gathered)
    }
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
