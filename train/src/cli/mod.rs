//! Command-line arguments of `nerve` and its verbs; verbs with subcommands, and `trace`, have files of their own.

mod check_transfer;
pub mod config;
pub mod data;
pub mod runs;
pub mod tokenizer;
mod trace;

pub use check_transfer::{CheckTransfer, Growth};
pub use trace::Trace;

use crate::data::TokenFormat;
use crate::recipe::sweep::KEYS;
use crate::render::Render;
#[cfg(feature = "serve")]
use crate::task::LONGEST;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Language models that learn the path of their own computation
#[derive(Debug, Parser)]
#[command(name = "nerve", version, max_term_width = 100)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Train the stages of a recipe, or go on with a run; prints the run directory
    Fit(Fit),
    /// Run the rows of a sweep, go on where it stopped, and compare them
    Sweep(Sweep),
    /// Continue a text with a trained model
    Sample(Sample),
    /// Answer requests over HTTP, as OpenAI's completions and lm-eval ask them
    #[cfg(feature = "serve")]
    Serve(Serve),
    /// Measure loss, perplexity and bits per byte on prepared data
    Eval(Eval),
    /// Show where a trained router sends tokens: walks, block load, exits, transitions
    Route(Route),
    /// Show why a graph of tokens said what it said: energies, contributions, edges, what-ifs
    Trace(Trace),
    /// Make a run of a pretrained decoder (a Hugging Face directory) or of a checkpoint of a reference implementation
    Import(Import),
    /// Prepare, make and count training data
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Train and inspect tokenizers
    #[command(subcommand)]
    Tokenizer(tokenizer::TokenizerCommand),
    /// Write, check, explain and show recipes
    #[command(subcommand)]
    Config(config::Verb),
    /// Tell what a recipe will cost: parameters, operations, memory, time
    Estimate(Estimate),
    /// Measure at several widths whether settings of a recipe's model hold at all of them (docs/brian.md)
    CheckTransfer(CheckTransfer),
    /// Time a run's training, evaluation and continuation of text on its own data
    Bench(Bench),
    /// List, show, compare, verify and prune runs
    #[command(subcommand)]
    Runs(runs::Verb),
    /// Report backends, devices, memory and speed of this machine
    Doctor(Doctor),
}

/// Arguments of `nerve fit`.
#[derive(Clone, Debug, clap::Args)]
pub struct Fit {
    /// The recipe
    #[arg(required_unless_present = "resume", conflicts_with = "resume")]
    pub recipe: Option<PathBuf>,
    /// Go on with this run: a path, a name or its beginning, `last`, `last~1`
    #[arg(long, value_name = "RUN")]
    pub resume: Option<String>,
    /// Where runs are, for `--resume`
    #[arg(long, default_value = "runs", requires = "resume")]
    pub root: PathBuf,
    /// Let a stage that is over go on to so many steps, those done included, at the learning rate with which it ended;
    /// the optimizer and the place in the data go on too. The stage is the last one, or one whose gate stayed shut
    #[arg(long, value_name = "STAGE=STEPS", requires = "resume")]
    pub extend: Option<String>,
    /// A folder in which to look, by their hashes, for files of the run that are not where they were; may be repeated
    #[arg(long, value_name = "DIR", requires = "resume")]
    pub data: Vec<PathBuf>,
    /// Change a value of the recipe; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE", conflicts_with = "resume")]
    pub sets: Vec<String>,
    /// The backend: short for --set device.backend=…
    #[arg(long, conflicts_with = "resume")]
    pub device: Option<String>,
    /// How to show the training
    #[arg(long, value_enum, default_value_t = Render::Plain)]
    pub render: Render,
    /// Stop with exit code 6 when a router that leads has collapsed; else it is only said
    #[arg(long)]
    pub fail_on_collapse: bool,
    /// In a job of several ranks, how many seconds a rank waits for another before it ends the job
    #[cfg(feature = "mpi")]
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub rank_timeout: u64,
    /// Check everything and print the plan, but write nothing
    #[arg(long, conflicts_with = "resume")]
    pub dry_run: bool,
}

/// Arguments of `nerve estimate`.
#[derive(Clone, Debug, clap::Args)]
pub struct Estimate {
    /// The recipe
    pub recipe: PathBuf,
    /// Change a value of the recipe; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
    /// The size of the vocabulary, if the tokenizer does not exist yet; of a graph without counts, the most it can be
    #[arg(long, value_name = "N")]
    pub vocabulary: Option<usize>,
    /// For a graph, which pairs were seen: a file of `nerve data bigrams`, in the place of the recipe's
    #[arg(long, value_name = "FILE", conflicts_with = "vocabulary")]
    pub counts: Option<PathBuf>,
    /// The speed of the device, if it is not the one measured here
    #[arg(long, value_name = "GFLOP/s")]
    pub gflops: Option<f64>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `nerve sweep`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = sweep_keys())]
pub struct Sweep {
    /// The sweep: a TOML file, whose keys are explained below
    pub sweep: PathBuf,
    /// Only this row; may be repeated
    #[arg(long, value_name = "ROW")]
    pub only: Vec<String>,
    /// Train anew, beside the old runs, what was trained under another definition; the newest run that fits counts
    #[arg(long)]
    pub again: bool,
    /// How to show the trainings
    #[arg(long, value_enum, default_value_t = Render::Plain)]
    pub render: Render,
    /// Check every recipe and every run and print what would be done, but write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What stands in a sweep, for `--help`.
fn sweep_keys() -> String {
    let line = |(key, what): &(&str, &str)| format!("  {key:<11} {what}\n");
    let lines: String = KEYS.iter().map(line).collect();
    format!("Keys of a sweep:\n{lines}")
}

/// Which weights of a checkpoint to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Weights {
    /// Those that were trained
    Trained,
    /// Their moving average, of a run with a table `[average]`
    Average,
}

/// Which run to use, and on what.
#[derive(Clone, Debug, clap::Args)]
pub struct Source {
    /// The run: a path, a name or its beginning, `last`, `last~1`
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Where runs are
    #[arg(long, default_value = "runs")]
    pub root: PathBuf,
    /// Use the checkpoint with the best validation loss instead of the last one
    #[arg(long)]
    pub best: bool,
    /// Which weights of the checkpoint to use
    #[arg(long, value_enum, default_value_t = Weights::Trained)]
    pub weights: Weights,
    /// The backend, if not the run's own
    #[arg(long)]
    pub device: Option<String>,
    /// A folder in which to look, by their hashes, for files of the run that are not where they were; may be repeated
    #[arg(long, value_name = "DIR")]
    pub data: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `nerve sample`.
#[derive(Clone, Debug, clap::Args)]
pub struct Sample {
    /// The run
    #[command(flatten)]
    pub source: Source,
    /// The text to continue; empty begins a document
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub prompt: String,
    /// Read the prompt from a file or a stream instead, as from /dev/stdin; with --stream in constant memory
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub prompt_file: Option<PathBuf>,
    /// Print the continuation as it is drawn, without the prompt
    #[arg(long, conflicts_with_all = ["json", "n"])]
    pub stream: bool,
    /// The most tokens to add; the end of the document stops before
    #[arg(long, default_value_t = 200)]
    pub tokens: usize,
    /// Go on behind the end of a document with another one
    #[arg(long)]
    pub ignore_end: bool,
    /// How many continuations
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub n: u64,
    /// Divides the logits, before anything else; 0 takes the likeliest token
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Only so many of the likeliest tokens compete; 0 for all
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub top_k: usize,
    /// Of these, only the likeliest with at least this much of their probability compete
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f64,
    /// Of these, only tokens with at least this share of the likeliest one's probability compete
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub min_p: f64,
    /// Decides the draws
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Arguments of `nerve serve`.
#[cfg(feature = "serve")]
#[derive(Clone, Debug, clap::Args)]
#[command(mut_arg("json", |json| json.hide(true)))]
pub struct Serve {
    /// The run
    #[command(flatten)]
    pub source: Source,
    /// Where to listen; other machines reach the server only if this is an address of this one
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// The port; 0 for a free one. The address is the only line on stdout
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Texts that are read or continued at the same time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub slots: u64,
    /// Texts that may wait for one; a request that finds no place is told to come again (429)
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub queue: u64,
    /// The longest text in tokens, for a model that has no context of its own
    #[arg(long, default_value_t = LONGEST as u64, value_parser = clap::value_parser!(u64).range(1..))]
    pub longest: u64,
    /// Seconds that an answer may take, time in the queue included
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub time_limit_s: u64,
    /// Seconds in which answers may end after the first SIGTERM or SIGINT; the second ends at once
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub drain_s: u64,
    /// A file with a key per line, one of which a request has to bring: Authorization: Bearer KEY
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
}

/// Arguments of `nerve eval`.
#[derive(Clone, Debug, clap::Args)]
#[command(mut_arg("data", |data| data.value_name("FILE|DIR").help(
    "Prepared splits (`.bin`) to measure instead of the recipe's validation splits; of a folder: look there, by their \
     hashes, for files of the run that are not where they were; may be repeated"
)))]
pub struct Eval {
    /// The run
    #[command(flatten)]
    pub source: Source,
    /// Also measure every document of the recipe's data, training data included, and write how hard each is to this file
    #[arg(long, value_name = "FILE")]
    pub difficulty: Option<PathBuf>,
    /// Targets of each split to measure, rounded up to whole windows; 0 for all
    #[arg(long, default_value_t = 0)]
    pub tokens: u64,
    /// Let windows overlap: after the first, only the last so many targets of a window count, each with the longest
    /// context; 1 is the most exact and the slowest
    #[arg(long, value_name = "TARGETS")]
    pub stride: Option<usize>,
    /// How the files of --data hold token ids, if another program made them and they have no header that says so
    #[arg(long, value_enum)]
    pub format: Option<TokenFormat>,
    /// Leave the model's memory out: what it is worth is the difference
    #[arg(long)]
    pub without_memory: bool,
    /// Measure the tasks of this TOML file instead of splits, as lm-eval measures them (docs/tasks.md)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["difficulty", "stride", "format", "without_memory"])]
    pub tasks: Option<PathBuf>,
    /// Only so many questions of each task, the first ones
    #[arg(long, value_name = "N", requires = "tasks", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Also write every question and its answers into this directory, a file per task
    #[arg(long, value_name = "DIR", requires = "tasks")]
    pub samples: Option<PathBuf>,
}

/// Arguments of `nerve route`.
#[derive(Clone, Debug, clap::Args)]
pub struct Route {
    /// The run
    #[command(flatten)]
    pub source: Source,
    /// Walk this file; without it, and without a prompt, the recipe's first validation split
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub text: Option<PathBuf>,
    /// Walk this text
    #[arg(long, allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// Tokens of the split to look at, rounded up to whole windows; 0 for all
    #[arg(long, default_value_t = 0)]
    pub tokens: u64,
    /// Show instead what tokens read from the model's memory: from which step of which token, and which block had written it
    #[arg(long)]
    pub memory: bool,
    /// Sequences that are shown token by token
    #[arg(long, default_value_t = 8)]
    pub sequences: usize,
    /// Most frequent paths that are shown; with --memory, of every read the largest shares
    #[arg(long, default_value_t = 20)]
    pub top: usize,
    /// Also write a page that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Also write the flow of tokens over the steps as a picture; with --memory, the reads of the first sequence
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Arguments of `nerve import`.
#[derive(Clone, Debug, clap::Args)]
pub struct Import {
    /// The checkpoint: a directory of Hugging Face's with config.json; or a file of torch.save, safetensors, an index of
    /// shards, or a directory with one; several files are one checkpoint, and in a release of a graph the later file counts
    /// where both hold a tensor
    #[arg(required = true, value_name = "CHECKPOINT")]
    pub checkpoints: Vec<PathBuf>,
    /// The recipe whose model it is; of a directory with config.json one is made, unless this brings all but the table of the model
    #[arg(long)]
    pub recipe: Option<PathBuf>,
    /// Change a value of the recipe; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
    /// For a graph: the release's vocabulary, an object of tokens and ids
    #[arg(long, value_name = "FILE")]
    pub vocabulary: Option<PathBuf>,
    /// For a graph: how often each pair was seen, `word_frequency.json`; without it every pair must have a row
    #[arg(long, value_name = "FILE")]
    pub counts: Option<PathBuf>,
    /// For a graph: a tokenizer.json with exactly that vocabulary; without it tokens are single characters. For a directory
    /// with config.json: a tokenizer.json instead of its own, or `none` for texts that are ids: "17 4 92"
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// For a graph: measure on the lines of this text whether the recipe's positions are those of the weights
    #[arg(long, value_name = "FILE")]
    pub probe: Option<PathBuf>,
    /// For a directory with config.json: compute the logits of this safetensors file (`input_ids`, `logits`) before the run is
    /// made, and refuse the model if they are others; the model is then in memory twice
    #[arg(long, value_name = "FILE")]
    pub expected: Option<PathBuf>,
    /// For a directory with config.json: a field of it that is not understood and that you know to be harmless; may be repeated
    #[arg(long = "ignore-field", value_name = "NAME")]
    pub ignored: Vec<String>,
    /// Print the table of names and shapes, but write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `nerve bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Bench {
    /// The run
    #[command(flatten)]
    pub source: Source,
    /// How often each is timed; the median counts
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,
    /// Rounds before that, in which a GPU builds its kernels
    #[arg(long, default_value_t = 2)]
    pub warm_up: u64,
    /// Tokens of a prompt that is read at once
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    pub prefill: u64,
    /// Tokens of a continuation
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    pub tokens: u64,
}

/// Arguments of `nerve doctor`.
#[derive(Clone, Debug, clap::Args)]
pub struct Doctor {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
