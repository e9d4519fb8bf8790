//! `tidemill plugin`: make, build, look at, try and compare components.

mod component;
mod diff;
mod inspect;
mod records;
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
    Inspect(inspect::InspectArgs),
    Test(test::TestArgs),
    Diff(diff::DiffArgs),
}

pub async fn run(args: PluginArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        PluginVerb::Inspect(args) => inspect::run(args).await,
        PluginVerb::Test(args) => test::run(args).await,
        PluginVerb::Diff(args) => diff::run(args).await,
    }
}
