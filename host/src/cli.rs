//! The command line: one binary, one file a verb. Only here and in `main` is anything printed.
//!
//! Exit codes: 0 done, 1 something failed while running, 2 the input is wrong (usage, a pipeline file, a plugin).

mod carried;
pub mod check;
pub mod client;
pub mod consume;
pub mod dlq;
pub mod group;
pub mod job;
pub mod output;
pub mod plugin;
pub mod produce;
pub mod query;
pub mod queue;
pub mod schema;
pub mod status;
pub mod topic;
pub mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A durable log on one Postgres, with WebAssembly plugins, wired by TOML.
///
/// `tidemill up pipelines/aircraft.toml` runs a pipeline with everything it needs; the other verbs talk to a running host.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, propagate_version = true, max_term_width = 110)]
#[command(after_help = "Examples:
  tidemill up pipelines/aircraft.toml        run a pipeline, with embedded Postgres and the map
  tidemill produce positions < flights.ndjson
  tidemill consume positions --from earliest --max 10
  tidemill query \"SELECT kind, count(*) FROM positions GROUP BY kind\"
  tidemill status")]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Up(up::UpArgs),
    Check(check::CheckArgs),
    Topic(topic::TopicArgs),
    Produce(produce::ProduceArgs),
    Consume(consume::ConsumeArgs),
    Query(query::QueryArgs),
    Group(group::GroupArgs),
    Dlq(dlq::DlqArgs),
    Queue(queue::QueueArgs),
    Job(job::JobArgs),
    Plugin(plugin::PluginArgs),
    Status(status::StatusArgs),
    Schema(schema::SchemaArgs),
}

/// Input of the user that is wrong: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// Runs the verb and says how it ended.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let ended = runtime.block_on(async {
        match cli.verb {
            Verb::Up(args) => up::run(args).await,
            Verb::Check(args) => check::run(args).await,
            Verb::Topic(args) => topic::run(args).await,
            Verb::Produce(args) => produce::run(args).await,
            Verb::Consume(args) => consume::run(args).await,
            Verb::Query(args) => query::run(args).await,
            Verb::Group(args) => group::run(args).await,
            Verb::Dlq(args) => dlq::run(args).await,
            Verb::Queue(args) => queue::run(args).await,
            Verb::Job(args) => job::run(args).await,
            Verb::Plugin(args) => plugin::run(args).await,
            Verb::Status(args) => status::run(args).await,
            Verb::Schema(args) => schema::run(args),
        }
    });
    // A read of standard input cannot be cancelled: do not wait for it.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(error) => output::fail(&error),
    }
}
