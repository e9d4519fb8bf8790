//! `tidemill plugin`: make, build, look at, try and compare components.

mod build;
mod component;
mod diff;
mod inspect;
mod new;
mod records;
mod run;
mod shown;
mod test;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Make, build, inspect, test and compare plugins
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
}

pub async fn run(args: PluginArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        PluginVerb::New(args) => new::run(args),
        PluginVerb::Build(args) => build::run(args).await,
        PluginVerb::Inspect(args) => inspect::run(args).await,
        PluginVerb::Test(args) => test::run(args).await,
        PluginVerb::Diff(args) => diff::run(args).await,
        PluginVerb::Run(args) => run::run(args).await,
    }
}
