//! `tidemill schema`: what a pipeline file may say, for editors.

use std::process::ExitCode;

use clap::Args;

use super::output;
use crate::config;

/// Print the JSON Schema of pipeline files, from which editors complete and check them.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  tidemill schema > pipeline.schema.json

Then put this as the first line of a pipeline file:
  #:schema ./pipeline.schema.json")]
pub struct SchemaArgs {}

pub fn run(SchemaArgs {}: SchemaArgs) -> anyhow::Result<ExitCode> {
    output::print_json(config::json_schema())?;
    Ok(ExitCode::SUCCESS)
}
