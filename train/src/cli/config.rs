//! Command-line arguments of `nerve config`: its verbs `new`, `check`, `explain`, `upgrade` and `show`.

use std::path::PathBuf;

/// The verbs of `nerve config`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Verb {
    /// Write a complete, commented recipe to standard output
    New {
        /// The model: baseline, brian or brillm
        kind: String,
        /// The size, as tiny or r125; one that does not exist is answered with those that do
        #[arg(long, default_value = "tiny")]
        size: String,
    },
    /// Check recipes and report everything that is wrong with them
    Check {
        /// The recipes
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Change a value before checking; may be repeated
        #[arg(long = "set", value_name = "PATH=VALUE")]
        sets: Vec<String>,
        /// Print one JSON object instead of a line for each good recipe
        #[arg(long)]
        json: bool,
    },
    /// Say what a key of a recipe takes and means
    Explain {
        /// A key, as `--set` takes it; without one, the tables of a recipe
        key: Option<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print a recipe of an older format in the one of this program; says on stderr what was added
    Upgrade {
        /// The recipe
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the recipe as a run would use it
    Show {
        /// The recipe
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Change a value; may be repeated
        #[arg(long = "set", value_name = "PATH=VALUE")]
        sets: Vec<String>,
        /// Print one JSON object instead of TOML
        #[arg(long)]
        json: bool,
    },
}
