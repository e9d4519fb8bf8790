//! `tidemill plugin`: make, build, look at, try and compare components; push them to a running host and go back.

mod build;
mod component;
mod diff;
mod inspect;
mod new;
mod records;
mod run;
mod shown;
mod test;
mod versions;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Make, inspect, test and compare plugins, and give a running stage another one
#[derive(Args, Debug)]
pub struct PluginArgs {
    #[command(subcommand)]
    verb: PluginVerb,
}

#[derive(Subcommand, Debug)]
enum PluginVerb {
    New(new::NewArgs),
    Build(build::BuildArgs),
    Inspect(inspect::InspectArgs),
    Test(test::TestArgs),
    Diff(diff::DiffArgs),
    Run(run::RunArgs),
    /// List the components that are stored, and the stages that run them
    #[command(after_help = "Example:\n  tidemill plugin list")]
    List(versions::ListArgs),
    /// Show which components a stage ran, and why it stopped running them
    #[command(after_help = "Example:\n  tidemill plugin history aircraft/watch")]
    History(versions::HistoryArgs),
    /// Give a running stage another component, and wait until it is known whether it works
    ///
    /// The component is checked before anything changes, and taken over between two batches. It is on probation then: if it
    /// fails, the version before takes the same batch. Exit code 0: it runs; 1: it was rolled back; 2: it was refused.
    #[command(after_help = "Example:\n  tidemill plugin push build/watch.wasm --stage aircraft/watch")]
    Push(versions::PushArgs),
    /// Run another component beside a stage, on the same messages, to compare what the two make of them
    ///
    /// It starts where the stage stands, with copies of its state and tables, and writes topics and tables of its own, which end
    /// in _shadow. `promote` makes it the version of the stage.
    #[command(after_help = "Example:\n  tidemill plugin shadow build/watch.wasm --stage aircraft/watch")]
    Shadow(versions::ShadowArgs),
    /// End the shadow of a stage
    #[command(after_help = "Example:\n  tidemill plugin unshadow aircraft/watch")]
    Unshadow(versions::StageArgs),
    /// Make the shadow of a stage its version, on probation
    #[command(after_help = "Example:\n  tidemill plugin promote aircraft/watch")]
    Promote(versions::StageArgs),
    /// Go back to the version before, or to another one that ran
    #[command(after_help = "Examples:\n  tidemill plugin rollback aircraft/watch\n  \
                            tidemill plugin rollback aircraft/watch --to 3f9a0c")]
    Rollback(versions::RollbackArgs),
}

pub async fn run(args: PluginArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        PluginVerb::New(args) => new::run(args),
        PluginVerb::Build(args) => build::run(args).await,
        PluginVerb::Inspect(args) => inspect::run(args).await,
        PluginVerb::Test(args) => test::run(args).await,
        PluginVerb::Diff(args) => diff::run(args).await,
        PluginVerb::Run(args) => run::run(args).await,
        PluginVerb::List(args) => versions::list(args).await,
        PluginVerb::History(args) => versions::history(args).await,
        PluginVerb::Push(args) => versions::push(args).await,
        PluginVerb::Rollback(args) => versions::rollback(args).await,
        PluginVerb::Shadow(args) => versions::shadow(args).await,
        PluginVerb::Unshadow(args) => versions::unshadow(args).await,
        PluginVerb::Promote(args) => versions::promote(args).await,
    }
}
