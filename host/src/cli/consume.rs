//! `tidemill consume`: records of a topic to standard output.
//!
//! Memory is bounded: a piece of the answer is written before the next is read, so a slow reader slows the host's cursor
//! down. With a group, offsets are committed after the records were written: a run that is cut short repeats a few
//! records and loses none.

mod commit;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use reqwest::{Method, RequestBuilder};

use super::client::views::GroupTopics;
use super::client::{Client, ClientArgs};
use super::output::alive;
use commit::GroupReader;

/// How often a group's offsets are committed while records flow.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// The payload and a newline
    Raw,
    /// One JSON object a record, with partition, offset, timestamp, key and headers
    Json,
}

/// Print the records of a topic
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  tidemill consume positions --from earliest > all.ndjson\n  \
                        tidemill consume alerts --from tail:5 --follow --format json\n  \
                        tidemill consume positions --group my-export --max 1000")]
pub struct ConsumeArgs {
    /// The topic
    topic: String,
    /// Go on where this group stopped, and commit what was printed
    #[arg(long)]
    group: Option<String>,
    /// earliest, latest, an offset, a time such as 2026-01-01T00:00:00Z, or tail:N for the last N of each partition;
    /// with --group only where the group has no offset yet
    #[arg(long, value_name = "PLACE")]
    from: Option<String>,
    /// Only this partition
    #[arg(long)]
    partition: Option<u32>,
    /// Stop after so many records
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// Go on as records arrive
    #[arg(long)]
    follow: bool,
    /// What to print
    #[arg(long, value_enum, default_value_t = OutputFormat::Raw)]
    format: OutputFormat,
    #[command(flatten)]
    client: ClientArgs,
}

pub async fn run(args: ConsumeArgs) -> anyhow::Result<ExitCode> {
    let client = args.client.connect()?;
    match &args.group {
        Some(group) => args.run_group(&client, group).await?,
        None => args.run_stream(&client).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A stage's group cannot be committed from here, so nothing is printed for one either.
async fn refuse_owned(client: &Client, group: &str, topic: &str) -> anyhow::Result<()> {
    let described: GroupTopics = match client.get(&["v1", "groups", group]).await {
        Err(error) if error.code() == Some("group_not_found") => return Ok(()),
        described => described?,
    };
    let here = described.topics.iter().find(|lag| lag.topic == topic);
    if let Some(lag) = here.filter(|lag| lag.partitions.iter().any(|p| p.owner.is_some())) {
        anyhow::bail!(
            "group {group} is run by stage {}; read with another group, or without --group",
            lag.stage.as_deref().unwrap_or("of another host")
        );
    }
    Ok(())
}

impl ConsumeArgs {
    async fn run_stream(&self, client: &Client) -> anyhow::Result<()> {
        let mut response = client.send(self.request(client, false)).await?;
        let mut out = io::stdout();
        while let Some(chunk) = response.chunk().await.map_err(|e| client.lost(&e))? {
            if !alive(out.write_all(&chunk).and_then(|()| out.flush()))? {
                break;
            }
        }
        Ok(())
    }

    async fn run_group(&self, client: &Client, group: &str) -> anyhow::Result<()> {
        refuse_owned(client, group, &self.topic).await?;
        let raw = self.format == OutputFormat::Raw;
        let mut reader = GroupReader::new(client.clone(), group, &self.topic, raw);
        let mut response = client.send(self.request(client, raw)).await?;
        let mut timer = tokio::time::interval(COMMIT_EVERY);
        let mut out = io::stdout();
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        let outcome = loop {
            tokio::select! {
                chunk = response.chunk() => match chunk {
                    Ok(Some(chunk)) => {
                        let text = reader.take(&chunk)?;
                        if !alive(out.write_all(&text).and_then(|()| out.flush()))? {
                            break Ok(());
                        }
                        reader.written();
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(client.lost(&error)),
                },
                _ = timer.tick() => reader.commit().await?,
                _ = &mut interrupt => break Ok(()),
            }
        };
        reader.commit().await?;
        Ok(outcome?)
    }

    /// `as_text` asks for payloads as text or base64 and never as embedded JSON: only so are they exact to the byte.
    fn request(&self, client: &Client, as_text: bool) -> RequestBuilder {
        let json = self.group.is_some() || self.format == OutputFormat::Json;
        let mut query = vec![("format", if json { "json" } else { "raw" }.to_string())];
        let mut add = |name, value: Option<String>| query.extend(value.map(|value| (name, value)));
        add("group", self.group.clone());
        add("from", self.from.clone());
        add("partition", self.partition.map(|p| p.to_string()));
        add("max", self.max.map(|m| m.to_string()));
        add("follow", self.follow.then(|| "true".to_string()));
        add("payload", as_text.then(|| "text".to_string()));
        client.request(Method::GET, &["v1", "topics", &self.topic, "records"]).query(&query)
    }
}
