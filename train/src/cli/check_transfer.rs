//! Arguments of `nerve check-transfer`.

use std::path::PathBuf;

/// What attention has more of in a wider copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Growth {
    /// More heads, each as wide as in the recipe
    More,
    /// As many heads as in the recipe, each wider
    Wider,
}

/// Arguments of `nerve check-transfer`.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckTransfer {
    /// The recipe, whose first stage is trained
    pub recipe: PathBuf,
    /// Change a value of the recipe; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
    /// The widths of the copies, at least two
    #[arg(long, value_name = "D_MODEL", value_delimiter = ',', default_values_t = [64, 128, 256, 512])]
    pub widths: Vec<usize>,
    /// What attention has more of in a wider copy
    #[arg(long, value_enum, default_value_t = Growth::More)]
    pub heads: Growth,
    /// Optimizer steps of each copy, all on the same 16 tokens
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub steps: u64,
    /// How many copies of each width, with other initial values and other tokens; their mean counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
    /// The learning rate of all steps; one at which a loss falls smoothly tells more than a large one
    #[arg(long, value_name = "RATE", default_value_t = 0.001)]
    pub learning_rate: f64,
    /// Also draw the sizes of all changes over the widths
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
