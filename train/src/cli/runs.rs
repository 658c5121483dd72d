//! Command-line arguments of `nerve runs`.

use std::path::PathBuf;

/// The verbs of `nerve runs`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Verb {
    /// List the runs, newest first, with their last losses
    List(TableArgs),
    /// Show one run: time, tokens, data, stages, changed keys, checkpoints
    Show(RunArgs),
    /// Compare runs: changed keys, numbers at equal steps and tokens, loss over the same documents with an interval
    Compare(CompareArgs),
    /// Read every checkpoint of a run again and compare it with its hashes; exit 1 if one differs
    Verify(RunArgs),
    /// Remove checkpoints that are neither the newest nor the best, or runs that failed; says what, and asks
    Prune(PruneArgs),
}

/// Where runs are, and how to print them.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// Directory that holds the runs
    #[arg(long, default_value = "runs")]
    pub root: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `nerve runs list`.
#[derive(Clone, Debug, clap::Args)]
pub struct TableArgs {
    /// Sort by this number, the smallest first: the split and the name in metrics.jsonl, as in valid/loss/lm
    #[arg(long, value_name = "METRIC")]
    pub sort: Option<String>,
    /// Where runs are and how to print them
    #[command(flatten)]
    pub list: ListArgs,
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

/// Arguments of `nerve runs compare`.
#[derive(Clone, Debug, clap::Args)]
pub struct CompareArgs {
    /// At least two runs; the others are held against the first
    #[arg(value_name = "RUN", num_args = 2.., required = true)]
    pub runs: Vec<String>,
    /// Measure on the documents of this prepared split (`.bin`); else on the first validation split, if all runs have the same
    #[arg(long, value_name = "FILE", conflicts_with = "no_documents")]
    pub data: Option<PathBuf>,
    /// Measure nothing; only recipes and logs are compared
    #[arg(long)]
    pub no_documents: bool,
    /// Measure the checkpoints with the best validation loss instead of the last ones
    #[arg(long)]
    pub best: bool,
    /// The backend to measure on, if not the runs' own
    #[arg(long)]
    pub device: Option<String>,
    /// Where runs are and how to print them
    #[command(flatten)]
    pub list: ListArgs,
}

/// Arguments of `nerve runs prune`.
#[derive(Clone, Debug, clap::Args)]
pub struct PruneArgs {
    /// The runs; all under the root if none is named
    #[arg(value_name = "RUN")]
    pub runs: Vec<String>,
    /// Remove the named runs whole; each of them must have failed
    #[arg(long, requires = "runs")]
    pub failed: bool,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Remove without asking
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Where runs are and how to print them
    #[command(flatten)]
    pub list: ListArgs,
}
