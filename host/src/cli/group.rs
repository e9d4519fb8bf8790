//! `tidemill group`: list, describe, seek, delete.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::{Value, json};

use super::client::ClientArgs;
use super::client::views::{Group, GroupTopics, Groups};
use super::output::{count, plain, print, print_json, print_table, rate, short_digest, table};

/// List, describe, move and delete consumer groups
#[derive(Args, Debug)]
pub struct GroupArgs {
    #[command(subcommand)]
    verb: GroupVerb,
}

#[derive(Subcommand, Debug)]
enum GroupVerb {
    /// List the consumer groups and how far each is behind
    #[command(after_help = "Example:\n  tidemill group list")]
    List(ListArgs),
    /// Show one group: offset, lag and owner of each partition, and the plugin that made the last commit
    #[command(after_help = "Example:\n  tidemill group describe latest --json")]
    Describe(DescribeArgs),
    /// Move a group to another place in a topic; a running stage goes on from there
    #[command(after_help = "Examples:\n  tidemill group seek latest positions earliest\n  \
                            tidemill group seek latest positions 2026-01-01T00:00:00Z\n  \
                            tidemill group seek latest positions 1200 --partition 0\n  \
                            tidemill group seek counts events earliest --clear-state")]
    Seek(SeekArgs),
    /// Forget a group and its offsets
    #[command(after_help = "Example:\n  tidemill group delete my-export")]
    Delete(DeleteArgs),
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
    /// The group
    group: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
struct SeekArgs {
    /// The group
    group: String,
    /// The topic to move in
    topic: String,
    /// Where to: earliest, latest, an offset, or a time such as 2026-01-01T00:00:00Z
    to: String,
    /// Only this partition
    #[arg(long)]
    partition: Option<u32>,
    /// Forget what the group's stage keeps as state, too
    #[arg(long)]
    clear_state: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
struct DeleteArgs {
    /// The group
    group: String,
    #[command(flatten)]
    client: ClientArgs,
}

pub async fn run(args: GroupArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        GroupVerb::List(args) => list(args).await?,
        GroupVerb::Describe(args) => describe(args).await?,
        GroupVerb::Seek(args) => seek(args).await?,
        GroupVerb::Delete(args) => delete(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let answer: Value = args.client.connect()?.get(&["v1", "groups"]).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(());
    }
    let groups: Groups = serde_json::from_value(answer)?;
    print_table(&group_table(&groups.groups), "no consumer groups yet")?;
    Ok(())
}

/// One row a group and topic; `status` shows the same.
pub fn group_table(groups: &[Group]) -> Table {
    let mut out = table(&["GROUP", "TOPIC", "STAGE", ">PARTITIONS", ">RATE", ">LAG"]);
    for group in groups {
        out.add_row([
            plain(&group.group),
            plain(&group.topic),
            plain(group.stage.as_deref().unwrap_or("-")),
            group.partitions.len().to_string(),
            group.records_per_second.map_or_else(|| "-".to_string(), rate),
            count(group.lag),
        ]);
    }
    out
}

async fn describe(args: DescribeArgs) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    let answer: Value = client.get(&["v1", "groups", &args.group]).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(());
    }
    let described: GroupTopics = serde_json::from_value(answer)?;
    print_table(
        &partition_table(&described.topics),
        &format!("group {} reads no topic", plain(&described.group)),
    )?;
    Ok(())
}

fn partition_table(topics: &[Group]) -> Table {
    let mut out =
        table(&["TOPIC", ">PARTITION", ">OFFSET", ">END", ">LAG", "STAGE", "OWNER", ">EPOCH", "DIGEST"]);
    for topic in topics {
        for partition in &topic.partitions {
            out.add_row([
                plain(&topic.topic),
                partition.partition.to_string(),
                partition.offset.to_string(),
                partition.end.to_string(),
                count(partition.lag),
                plain(topic.stage.as_deref().unwrap_or("-")),
                plain(partition.owner.as_deref().unwrap_or("-")),
                partition.epoch.to_string(),
                partition.digest.as_deref().map_or_else(|| "-".to_string(), short_digest),
            ]);
        }
    }
    out
}

async fn seek(args: SeekArgs) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    let body = json!({
        "topic": args.topic, "to": args.to, "partition": args.partition, "clear_state": args.clear_state
    });
    let answer: Value = client.post(&["v1", "groups", &args.group, "seek"], &body).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(());
    }
    let group: Group = serde_json::from_value(answer)?;
    print_table(&partition_table(&[group]), "nothing moved")?;
    Ok(())
}

async fn delete(args: DeleteArgs) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    client.delete(&["v1", "groups", &args.group]).await?;
    print(&format!("deleted group {}\n", plain(&args.group)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_cut_short() {
        assert_eq!(short_digest("sha256:0123456789abcdef"), "sha256:0123456789ab");
        assert_eq!(short_digest("0123456789abcdef"), "sha256:0123456789ab");
    }
}
