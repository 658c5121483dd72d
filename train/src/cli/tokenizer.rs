//! Command-line arguments of `nerve tokenizer`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::data::ReadingArgs;
use crate::data::tokenizer::{Kind, Normalise, SpelledSpecials};

/// The verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenizerCommand {
    /// Learn a vocabulary and write it as a tokenizer.json that Python's `tokenizers` reads.
    Train(TrainArgs),
    /// Show the kind, the size and the specials of a tokenizer, and how it cuts a text.
    Inspect(InspectArgs),
    /// Encode texts given as one JSON string per line; prints one JSON list of ids per line.
    #[command(hide = true)]
    Encode(EncodeArgs),
}

/// `nerve tokenizer train`
#[derive(Clone, Debug, Args)]
pub struct TrainArgs {
    /// Text files, pipes, or - for the standard input, read as `nerve data prepare` reads them; none for bytes.
    pub files: Vec<PathBuf>,
    /// What a token stands for.
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// Tokens in all, the four specials included [default: 260 for byte, all for character, 4096 for bpe].
    #[arg(long, allow_negative_numbers = true)]
    pub vocabulary: Option<usize>,
    /// What happens to a text before it is cut, for characters: full-width forms (`，`) are read as half-width (`,`).
    #[arg(long, value_enum, default_value_t = Normalise::None)]
    pub normalise: Normalise,
    /// The file to write.
    #[arg(long)]
    pub output: PathBuf,
    /// How texts are read; with `--specials parse` nothing is learned from specials that are spelled out in them.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Replace the file if it exists.
    #[arg(long)]
    pub force: bool,
    /// Say what would be done and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `nerve tokenizer inspect`
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// A tokenizer.json.
    pub file: PathBuf,
    /// A text to cut.
    #[arg(long, allow_hyphen_values = true)]
    pub text: Option<String>,
    /// What a special token is that is spelled out in the text.
    #[arg(long, value_enum, default_value = "text")]
    pub specials: SpelledSpecials,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `nerve tokenizer encode`
#[derive(Clone, Debug, Args)]
pub struct EncodeArgs {
    /// A tokenizer.json.
    pub file: PathBuf,
    /// One JSON string per line.
    #[arg(long)]
    pub input: PathBuf,
    /// What a special token is that is spelled out in a text.
    #[arg(long, value_enum, default_value = "text")]
    pub specials: SpelledSpecials,
    /// Print objects instead: the ids, the text they decode to, and the bytes of the source that they stand for.
    #[arg(long)]
    pub decode: bool,
}
