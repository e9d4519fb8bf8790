//! `tidemill dlq`: list, show, redrive, drop.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Table;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::Invalid;
use super::carried::{cut, headers, key, payload};
use super::client::views::{DeadLetter, DeadLetterPage};
use super::client::{Client, ClientArgs};
use super::output::{count, plain, print, print_json, print_table, short_digest, size, table};

/// List, show, redrive and drop dead letters: messages that a stage gave up on
#[derive(Args, Debug)]
pub struct DlqArgs {
    #[command(subcommand)]
    verb: DlqVerb,
}

#[derive(Subcommand, Debug)]
enum DlqVerb {
    /// List dead letters, newest first
    #[command(
        after_help = "Examples:\n  tidemill dlq list\n  tidemill dlq list --group watch --kind trap --since 2026-01-01T00:00:00Z\n  \
                            tidemill dlq list --limit 1000 --json"
    )]
    List(ListArgs),
    /// Show one dead letter: where it came from, why it failed, key, headers, payload
    #[command(after_help = "Example:\n  tidemill dlq show 17")]
    Show(ShowArgs),
    /// Run dead letters again, in the group that gave up on them and nowhere else
    #[command(
        after_help = "Examples:\n  tidemill dlq redrive 17 18\n  tidemill dlq redrive --group watch\n  \
                            tidemill dlq redrive --group watch --kind trap --digest 1a2b3c\n\n\
                            A message can be repaired first: UPDATE tidemill.dead_letters SET payload = '…' WHERE dead_letter_id = 17"
    )]
    Redrive(ChangeArgs),
    /// Drop dead letters for good
    #[command(
        after_help = "Examples:\n  tidemill dlq drop 17\n  tidemill dlq drop --group watch --until 2026-01-01T00:00:00Z --yes"
    )]
    Drop(DropArgs),
}

/// Which of them.
#[derive(Args, Clone, Debug, Default)]
struct FilterArgs {
    /// Only of this consumer group
    #[arg(long)]
    group: Option<String>,
    /// Only of this topic
    #[arg(long)]
    topic: Option<String>,
    /// Only of this stage: its name, or pipeline/stage
    #[arg(long)]
    stage: Option<String>,
    /// Only of this kind
    #[arg(long, value_parser = ["reject", "retries", "trap", "deadline", "memory", "output", "fatal"])]
    kind: Option<String>,
    /// Only of the plugin whose digest begins so
    #[arg(long, value_name = "DIGITS")]
    digest: Option<String>,
    /// Only what failed at this time or later, such as 2026-01-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what failed before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Only those that wait for a redrive (queued), or that do not (dead)
    #[arg(long, value_parser = ["dead", "queued"])]
    state: Option<String>,
    /// How many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only ids below this one: the next page
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// Its id
    id: i64,
    /// Show the payload as a hex dump even if it is text
    #[arg(long)]
    hex: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
struct ChangeArgs {
    /// Their ids; without any, all those of --group that the filters leave
    ids: Vec<i64>,
    #[command(flatten)]
    filter: FilterArgs,
    /// At most so many, the oldest first
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Debug)]
struct DropArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// Do it without asking, if it is more than one
    #[arg(long)]
    yes: bool,
}

pub async fn run(args: DlqArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        DlqVerb::List(args) => list(args).await?,
        DlqVerb::Show(args) => show(args).await?,
        DlqVerb::Redrive(args) => redrive(args).await?,
        DlqVerb::Drop(args) => drop_letters(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

impl FilterArgs {
    fn pairs(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let pairs = [
            ("group", &self.group),
            ("topic", &self.topic),
            ("stage", &self.stage),
            ("kind", &self.kind),
            ("digest", &self.digest),
            ("since", &self.since),
            ("until", &self.until),
        ];
        pairs.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }
}

impl ChangeArgs {
    /// The request's body: ids, or a group and what narrows it.
    fn body(&self) -> Result<Value, Invalid> {
        match (self.ids.is_empty(), self.filter.pairs().next().is_some()) {
            (false, false) => Ok(json!({ "ids": self.ids })),
            (true, _) if self.filter.group.is_some() => {
                let mut body: Map<String, Value> =
                    self.filter.pairs().map(|(name, value)| (name.to_string(), json!(value))).collect();
                body.insert("max".to_string(), json!(self.max));
                Ok(Value::Object(body))
            }
            (false, true) => Err(Invalid("give ids, or --group and filters, but not both".to_string())),
            (true, _) => Err(Invalid(
                "say which: ids, or --group GROUP and perhaps --topic, --stage, --kind, --digest, --since, --until; \
                 `tidemill dlq list` shows what there is"
                    .to_string(),
            )),
        }
    }
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    let mut query: Vec<(&str, String)> =
        args.filter.pairs().map(|(name, value)| (name, value.clone())).collect();
    query.push(("limit", args.limit.to_string()));
    query.extend(args.state.map(|state| ("state", state)));
    query.extend(args.before.map(|id| ("before", id.to_string())));
    let request = client.request(Method::GET, &["v1", "dead-letters"]).query(&query);
    let answer: Value = client.json(request).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(());
    }
    let page: DeadLetterPage = serde_json::from_value(answer)?;
    print_table(&letter_table(&page.dead_letters), "no dead letters")?;
    if let Some(next) = page.next {
        print(&format!("there may be more: --before {next}\n"))?;
    }
    Ok(())
}

fn letter_table(letters: &[DeadLetter]) -> Table {
    let mut out = table(&[">ID", "STATE", "GROUP", "FROM", "KIND", ">ATTEMPTS", "DIGEST", "FAILED", "ERROR"]);
    for letter in letters {
        let (partition, offset) = (letter.partition.unwrap_or(0), letter.offset.unwrap_or(0));
        out.add_row([
            letter.id.to_string(),
            plain(&letter.state),
            plain(&letter.group),
            plain(&format!("{} {partition}:{offset}", letter.topic)),
            plain(&letter.kind),
            letter.attempts.to_string(),
            short_digest(&letter.digest),
            plain(letter.failed_at.get(..19).unwrap_or(&letter.failed_at)),
            cut(&letter.error),
        ]);
    }
    out
}

async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    let answer: Value = client.get(&["v1", "dead-letters", &args.id.to_string()]).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(());
    }
    let record = answer["record"].clone();
    let letter: DeadLetter = serde_json::from_value(answer)?;
    print(&described(&letter, &record, args.hex)?)?;
    Ok(())
}

fn described(letter: &DeadLetter, record: &Value, hex: bool) -> anyhow::Result<String> {
    let mut out = String::new();
    let text = |name: &str| record[name].as_str().map(plain);
    let lines = [
        ("letter", format!("{} ({})", letter.id, plain(&letter.state))),
        ("group", plain(&letter.group)),
        ("stage", plain(&format!("{}/{}", letter.pipeline, letter.stage))),
        ("plugin", plain(&letter.digest)),
        (
            "message",
            plain(&format!("{} partition {} offset {}", letter.topic, record["partition"], record["offset"])),
        ),
        ("timestamp", text("timestamp").unwrap_or_default()),
        ("appended", text("appended_at").unwrap_or_default()),
        ("failed", plain(&letter.failed_at)),
        ("redriven", plain(letter.redriven_at.as_deref().unwrap_or("-"))),
        ("attempts", letter.attempts.to_string()),
        ("error", format!("{}: {}", plain(&letter.kind), plain(&letter.error))),
        ("key", key(record)),
    ];
    for (name, value) in lines {
        let _ = writeln!(out, "{name:<10} {value}");
    }
    out.push_str(&headers(record));
    let _ = writeln!(out, "{:<10} {}\n", "payload", size(letter.bytes));
    out.push_str(&payload(record, hex)?);
    Ok(out)
}

async fn redrive(args: ChangeArgs) -> anyhow::Result<()> {
    let client = args.client.connect()?;
    let answer: Value = client.post(&["v1", "dead-letters", "redrive"], &args.body()?).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(());
    }
    let queued = answer["queued"].as_u64().unwrap_or(0);
    let mut said = format!("{} queued; each runs again as soon as its stage gets to it\n", letters(queued));
    if queued == 0 {
        said = "nothing was queued: all of them are queued already, or nobody reads their topic any more\n"
            .into();
    }
    if answer["more"] == true {
        said.push_str("there may be more: run the same again for the next ones\n");
    }
    print(&said)?;
    Ok(())
}

async fn drop_letters(args: DropArgs) -> anyhow::Result<()> {
    let (change, yes) = (args.change, args.yes);
    let client = change.client.connect()?;
    let mut body = change.body()?;
    if !yes && change.ids.len() != 1 {
        let which = match change.ids.len() {
            0 => format!(
                "{} of group {}",
                matching(&client, &change).await?,
                change.filter.group.as_deref().unwrap_or("-")
            ),
            many => letters(many as u64),
        };
        return Err(Invalid(format!("this drops {which} for good; add --yes to do it")).into());
    }
    let mut dropped = 0;
    loop {
        let answer: Value = client.post(&["v1", "dead-letters", "drop"], &body).await?;
        dropped += answer["dropped"].as_u64().unwrap_or(0);
        let left = u64::from(change.max).saturating_sub(dropped);
        if answer["more"] != true || left == 0 {
            break;
        }
        body["max"] = json!(left);
    }
    match change.json {
        true => print_json(&json!({ "dropped": dropped }))?,
        false => print(&format!("{} dropped\n", letters(dropped)))?,
    };
    Ok(())
}

/// How many a filter leaves, as far as one page tells.
async fn matching(client: &Client, change: &ChangeArgs) -> anyhow::Result<String> {
    let mut query: Vec<(&str, String)> =
        change.filter.pairs().map(|(name, value)| (name, value.clone())).collect();
    query.push(("limit", "1000".to_string()));
    let request = client.request(Method::GET, &["v1", "dead-letters"]).query(&query);
    let page: DeadLetterPage = client.json(request).await?;
    let found = page.dead_letters.len() as u64;
    Ok(match page.next {
        Some(_) => format!("{} dead letters or more", count(found)),
        None => letters(found),
    })
}

fn letters(n: u64) -> String {
    match n {
        1 => "1 dead letter".to_string(),
        n => format!("{} dead letters", count(n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(ids: Vec<i64>, group: Option<&str>, kind: Option<&str>) -> ChangeArgs {
        let filter = FilterArgs {
            group: group.map(str::to_string),
            kind: kind.map(str::to_string),
            ..FilterArgs::default()
        };
        let client = ClientArgs { url: String::new(), token: None };
        ChangeArgs { ids, filter, max: 7, json: false, client }
    }

    #[test]
    fn ids_or_a_group_say_which() {
        assert_eq!(change(vec![3, 4], None, None).body().unwrap(), json!({ "ids": [3, 4] }));
        let body = change(vec![], Some("watch"), Some("trap")).body().unwrap();
        assert_eq!(body, json!({ "group": "watch", "kind": "trap", "max": 7 }));
        assert!(change(vec![3], Some("watch"), None).body().is_err());
        assert!(change(vec![], None, Some("trap")).body().is_err());
        assert!(change(vec![], None, None).body().is_err());
    }

    #[test]
    fn a_letter_is_shown_without_what_could_steer_the_terminal() {
        let letter: DeadLetter = serde_json::from_value(json!({
            "id": 17, "state": "dead", "group": "watch", "pipeline": "p", "stage": "s", "digest": "sha256:1a2b",
            "topic": "t", "kind": "trap", "error": "out\u{1b}[2J of fuel", "attempts": 5, "bytes": 3,
            "failed_at": "2026-01-01T00:00:00.000000Z", "redriven_at": null
        }))
        .unwrap();
        let record = json!({ "partition": 1, "offset": 12, "timestamp": "x", "key": "a1", "text": "a\u{7}\nb",
                             "headers": [["h", "v"], ["b", { "base64": "/w==" }]] });
        let shown = described(&letter, &record, false).unwrap();
        for part in [
            "t partition 1 offset 12",
            "key        a1",
            "h: v",
            "b: base64 /w==",
            "trap: out [2J of fuel",
            "a \nb\n",
        ] {
            assert!(shown.contains(part), "{part:?} is not in\n{shown}");
        }
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{7}'), "{shown:?}");
        let binary = json!({ "partition": 1, "offset": 12, "base64": "/wBh", "headers": [] });
        let shown = described(&letter, &binary, false).unwrap();
        assert!(shown.contains("00000000  ff 00 61") && shown.ends_with("..a\n"), "{shown}");
    }
}
