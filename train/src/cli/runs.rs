//! What was typed after `nerve runs`.

use std::path::PathBuf;

/// Arguments of `nerve runs`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do with the runs
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs of `nerve runs`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Verb {
    /// List the runs, newest first
    List(ListArgs),
    /// Show one run and its checkpoints
    Show(RunArgs),
    /// Read every checkpoint of a run again and compare it with its hashes; exit 1 if one differs
    Verify(RunArgs),
}

/// Arguments of `nerve runs list`.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// Directory that holds the runs
    #[arg(long, default_value = "runs")]
    pub root: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of the verbs that read one run.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// A path, a run's name or its beginning, `last`, `last~1`
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Where runs are and how to print them
    #[command(flatten)]
    pub list: ListArgs,
}
