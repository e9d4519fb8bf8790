//! `tidemill topic`: create, list, describe, delete.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::{Value, json};

use super::client::views::{Topic, Topics};
use super::client::{Client, ClientArgs};
use super::output::{count, plain, print, print_json, print_table, rate, size, table};
use crate::ids::TopicName;

/// Make, list, describe and delete topics
#[derive(Args, Debug)]
pub struct TopicArgs {
    #[command(subcommand)]
    verb: TopicVerb,
}

#[derive(Subcommand, Debug)]
enum TopicVerb {
    /// Make a topic
    #[command(after_help = "Example:\n  tidemill topic create flights --partitions 8 --hot 7d")]
    Create(CreateArgs),
    /// List the topics
    #[command(after_help = "Example:\n  tidemill topic list --json")]
    List(ListArgs),
    /// Show one topic: offsets, retention, and what it takes in Postgres
    #[command(after_help = "Example:\n  tidemill topic describe positions")]
    Describe(DescribeArgs),
    /// Delete a topic with its records
    #[command(after_help = "Example:\n  tidemill topic delete flights --yes")]
    Delete(DeleteArgs),
}

#[derive(Args, Debug)]
struct CreateArgs {
    /// Lower-case letters, digits and underscores
    name: TopicName,
    /// How many partitions; fixed from then on
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    partitions: u32,
    /// Span of one time partition of the table, such as 1m, 1h, 1d
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    segment: String,
    /// How long records stay in Postgres, such as 24h, or forever
    #[arg(long, default_value = "24h", value_name = "DURATION")]
    hot: String,
    /// How long they are kept in the archive after that: a duration, forever, or none
    #[arg(long, default_value = "forever", value_name = "DURATION")]
    cold: String,
    /// What payloads are: json or bytes
    #[arg(long, default_value = "json", value_parser = ["json", "bytes"])]
    format: String,
    /// When an append is acknowledged: fsync (on disk) or relaxed (a crash may lose the last moment)
    #[arg(long, default_value = "fsync", value_parser = ["fsync", "relaxed"])]
    acks: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
struct DescribeArgs {
    /// The topic
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
struct DeleteArgs {
    /// The topic
    name: String,
    /// Delete it although it holds records
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    client: ClientArgs,
}

pub async fn run(args: TopicArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        TopicVerb::Create(args) => create(args).await?,
        TopicVerb::List(args) => list(args).await?,
        TopicVerb::Describe(args) => describe(args).await?,
        TopicVerb::Delete(args) => delete(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    let body = json!({
        "name": args.name,
        "partitions": args.partitions,
        "segment": args.segment,
        "retention": { "hot": args.hot, "cold": args.cold },
        "format": args.format,
        "acks": args.acks,
    });
    let answer: Value = client.post(&["v1", "topics"], &body).await?;
    if args.json {
        print_json(&answer)?;
    } else {
        let topic: Topic = serde_json::from_value(answer)?;
        print(&format!("made topic {} with {} partitions\n", topic.name, topic.partitions))?;
    }
    Ok(())
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let answer: Value = args.client.connect()?.get(&["v1", "topics"]).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(());
    }
    let topics: Topics = serde_json::from_value(answer)?;
    print_table(&topic_table(&topics.topics), "no topics yet; make one with `tidemill topic create NAME`")?;
    Ok(())
}

/// One row a topic; `status` shows the same.
pub fn topic_table(topics: &[Topic]) -> Table {
    let mut out = table(&[
        "TOPIC",
        ">PARTITIONS",
        ">RECORDS",
        ">RATE",
        ">HOT RECORDS",
        ">HOT SIZE",
        ">BYTES/RECORD",
        "FORMAT",
        "HOT FOR",
        "COLD FOR",
    ]);
    for topic in topics {
        out.add_row([
            plain(&topic.name),
            topic.partitions.to_string(),
            count(topic.records),
            topic.records_per_second.map_or_else(|| "-".to_string(), rate),
            count(topic.hot.records),
            size(topic.hot.bytes),
            topic.hot.bytes_per_record.map_or_else(|| "-".to_string(), |b| format!("{b:.1}")),
            topic.format.clone(),
            topic.retention.hot.clone(),
            topic.retention.cold.clone(),
        ]);
    }
    out
}

async fn describe(args: DescribeArgs) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    let answer: Value = client.get(&["v1", "topics", &args.name]).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(());
    }
    let topic: Topic = serde_json::from_value(answer)?;
    let mut facts = table(&["TOPIC", &topic.name]);
    let per_record = match topic.hot.bytes_per_record {
        Some(bytes) => format!("{} ({bytes:.1} bytes a record)", size(topic.hot.bytes)),
        None => size(topic.hot.bytes),
    };
    for (name, value) in [
        ("format", topic.format.clone()),
        ("acks", topic.acks.clone()),
        ("segment", topic.segment.clone()),
        ("kept in Postgres", topic.retention.hot.clone()),
        ("kept in the archive", topic.retention.cold.clone()),
        ("compression", topic.compression.clone()),
        ("records", count(topic.records)),
        ("rate", topic.records_per_second.map_or_else(|| "-".to_string(), rate)),
        ("hot segments", count(topic.hot.segments)),
        ("hot size", per_record),
    ] {
        facts.add_row([name.to_string(), value]);
    }
    let mut offsets = table(&[">PARTITION", ">START", ">NEXT", ">RECORDS"]);
    for (partition, (start, next)) in topic.start_offsets.iter().zip(&topic.next_offsets).enumerate() {
        offsets.add_row([partition.to_string(), start.to_string(), next.to_string(), count(next - start)]);
    }
    print(&format!("{}\n\n{}\n", facts.trim_fmt(), offsets.trim_fmt()))?;
    Ok(())
}

async fn delete(args: DeleteArgs) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    if !args.yes {
        refuse_to_lose_records(&client, &args.name).await?;
    }
    client.delete(&["v1", "topics", &args.name]).await?;
    print(&format!("deleted topic {}\n", plain(&args.name)))?;
    Ok(())
}

async fn refuse_to_lose_records(client: &Client, name: &str) -> anyhow::Result<()> {
    let topic: Topic = client.get(&["v1", "topics", name]).await?;
    if topic.hot.records > 0 {
        anyhow::bail!(
            "topic {name} holds {} records; add --yes to delete them with it",
            count(topic.hot.records)
        );
    }
    Ok(())
}
