//! Command-line arguments of `nerve data` (`prepare`, `synth`, `stats`, `export`, `bigrams`, `ngrams`), and `ReadingArgs`, how text files
//! are read, which `nerve tokenizer train` shares.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::data::count::Room;
use crate::data::document::{BadUtf8, DocumentRule, Format, ReadRules};
use crate::data::prepare::SplitRule;
use crate::data::tokenizer::SpelledSpecials;
use crate::data::{StartRule, TokenFormat};

/// The verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum DataCommand {
    /// Turn text and JSONL files into a directory of tokens that a recipe can name.
    Prepare(PrepareArgs),
    /// Generate texts of known difficulty as JSONL.
    Synth(SynthArgs),
    /// Count what a prepared directory holds; re-checks every hash.
    Stats(StatsArgs),
    /// Count which token follows which in a training split: the edges of a BriLLM.
    Bigrams(BigramsArgs),
    /// Write a split as token ids for other programs: a `.bin` of llm.c or nanoGPT, or a `.npy`.
    Export(ExportArgs),
    /// Measure held-out splits with n-gram models of a training split: what any language model has to beat.
    Ngrams(NgramsArgs),
}

/// `nerve data ngrams`
#[derive(Clone, Debug, Args)]
pub struct NgramsArgs {
    /// The training split, as in data/songs/train.bin.
    pub split: PathBuf,
    /// Held-out splits to measure.
    #[arg(long, required = true)]
    pub valid: Vec<PathBuf>,
    /// Orders, from unigrams up; all are interpolated modified Kneser-Ney models, as KenLM's [default: 1, 2, 3, 5].
    #[arg(long)]
    pub order: Vec<usize>,
    /// How a document begins, as the recipe says it in data.start: first_token compares with measures of before.
    #[arg(long, value_enum, default_value_t = StartRule::Symbol)]
    pub start: StartRule,
    /// How much memory counting may take.
    #[command(flatten)]
    pub room: RoomArgs,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// How much memory counting may take.
#[derive(Clone, Debug, Args)]
pub struct RoomArgs {
    /// The memory of the whole program in MB, as far as the text to measure and the lists of documents allow; what does not fit is
    /// sorted on the disk.
    #[arg(long, value_name = "MB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(128..))]
    pub memory: u32,
    /// Where that is done, with room for a few times the split [default: the system's folder for temporary files].
    #[arg(long, value_name = "FOLDER")]
    pub temporary: Option<PathBuf>,
}

impl RoomArgs {
    /// What is left for counting, in bytes.
    pub fn bytes(&self) -> usize {
        const PROGRAM_MB: usize = 80;
        (self.memory as usize - PROGRAM_MB) << 20
    }

    /// What keys may take while they are sorted.
    pub fn room(&self) -> Room {
        let folder = self.temporary.clone();
        Room {
            bytes: self.bytes() / 2,
            folder: folder.unwrap_or_else(std::env::temp_dir),
        }
    }

    /// How long ranks wait for one that counts more than they do.
    pub fn longest_wait(&self) -> Duration {
        Duration::from_secs(3600)
    }
}

/// `nerve data export`
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// The split to write, as data/songs/train.bin.
    pub split: PathBuf,
    /// The file to write; `.npy` or `.bin`.
    #[arg(long)]
    pub output: PathBuf,
    /// How it holds the ids [default: npy for a name with that ending, llm_c otherwise].
    #[arg(long, value_enum)]
    pub format: Option<TokenFormat>,
    /// Replace the file if it exists.
    #[arg(long)]
    pub force: bool,
}

/// `nerve data bigrams`
#[derive(Clone, Debug, Args)]
pub struct BigramsArgs {
    /// The split to count, as in data/songs/train.bin; never one that is measured.
    pub split: PathBuf,
    /// The file to write.
    #[arg(long)]
    pub output: PathBuf,
    /// The tokenizer that made the ids of files of other programs; ours have it beside them.
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
    /// How files of other programs hold ids, if they have no header that says so.
    #[arg(long, value_enum, requires = "tokenizer")]
    pub format: Option<TokenFormat>,
    /// Held-out splits; the share of their pairs that have an edge is printed.
    #[arg(long)]
    pub valid: Vec<PathBuf>,
    /// How a document begins, as the recipe says it in data.start.
    #[arg(long, value_enum, default_value_t = StartRule::Symbol)]
    pub start: StartRule,
    /// Pairs seen less often are left out of the figures; the file holds all.
    #[arg(long, default_value_t = 1)]
    pub min_count: u32,
    /// How much memory counting may take.
    #[command(flatten)]
    pub room: RoomArgs,
    /// Replace the file if it exists.
    #[arg(long)]
    pub force: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// How texts are read; the same for every verb that reads many.
#[derive(Clone, Debug, Args)]
pub struct ReadingArgs {
    /// What a document is in a text file.
    #[arg(long, value_enum, default_value = "file")]
    pub document: DocumentRule,
    /// What files are read as; auto goes by their names, for pipes by the first line.
    #[arg(long, value_enum, default_value = "auto")]
    pub format: Format,
    /// The field of JSONL that holds the text, meta.text one below another; `task` and `difficulty` are kept if present.
    #[arg(long, default_value = "text")]
    pub field: String,
    /// Leave out records of JSONL that are broken or have no text; how many, and the first, is said.
    #[arg(long)]
    pub skip_bad_records: bool,
    /// What happens to bytes that are no UTF-8: stop, put U+FFFD, or leave the line out.
    #[arg(long, value_enum, default_value = "error")]
    pub on_bad_utf8: BadUtf8,
    /// The longest line that is read.
    #[arg(long, default_value_t = 16 << 20, allow_negative_numbers = true)]
    pub max_line_bytes: u64,
    /// What a special token is that is spelled out in a text, as `</s>` in HTML: text, or that token.
    #[arg(long, value_enum, default_value = "text")]
    pub specials: SpelledSpecials,
}

impl ReadingArgs {
    /// As the reader wants them.
    pub fn rules(&self) -> ReadRules {
        ReadRules {
            document: self.document,
            field: self.field.clone(),
            on_bad_utf8: self.on_bad_utf8,
            max_line_bytes: self.max_line_bytes,
            format: self.format,
            skip_bad_records: self.skip_bad_records,
        }
    }
}

/// `nerve data prepare`
#[derive(Clone, Debug, Args)]
pub struct PrepareArgs {
    /// Text files, pipes, or - for the standard input; .jsonl, .ndjson and .json files hold one JSON object per line. What is
    /// compressed by gzip or zstd is decompressed.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The directory to make.
    #[arg(long)]
    pub output: PathBuf,
    /// The tokenizer.json that makes the ids.
    #[arg(long)]
    pub tokenizer: PathBuf,
    /// How texts are read.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// The share of validation; 0 for none.
    #[arg(long, default_value_t = 0.05, allow_negative_numbers = true)]
    pub valid: f64,
    /// How validation is chosen [default: tail for text files read whole, hash otherwise].
    #[arg(long, value_enum)]
    pub split: Option<SplitRule>,
    /// The seed of --split hash.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    pub seed: u64,
    /// Whether each document ends with `</s>` [default: false for text files read whole, true otherwise].
    #[arg(long, value_name = "true|false")]
    pub end_of_document: Option<bool>,
    /// Replace an existing data directory.
    #[arg(long)]
    pub force: bool,
    /// Say what would be done and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `nerve data synth`
#[derive(Clone, Debug, Args)]
pub struct SynthArgs {
    /// What to generate.
    #[arg(value_enum)]
    pub kind: SynthKind,
    /// How many texts.
    #[arg(long, allow_negative_numbers = true)]
    pub samples: u64,
    /// Which texts.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    pub seed: u64,
    /// The .jsonl file to write; `-` for the standard output.
    #[arg(long)]
    pub output: PathBuf,
    /// Replace the file if it exists.
    #[arg(long)]
    pub force: bool,
    /// Say what would be done and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// What can be generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SynthKind {
    /// Seven small tasks (copy, reverse, sums, …), easy, medium and hard in turn.
    Routing,
    /// Small stories in which people carry things around, of four difficulties in turn.
    Story,
    /// Questions for tasks: where a letter leads after some hops.
    Hops,
    /// Questions for tasks: sums.
    Arithmetic,
    /// Questions for tasks: digits once more.
    Copying,
    /// Questions for tasks: which of four ends a story has.
    Cloze,
}

/// `nerve data stats`
#[derive(Clone, Debug, Args)]
pub struct StatsArgs {
    /// A directory that `nerve data prepare` made.
    pub directory: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        data: DataCommand,
    }

    #[test]
    fn a_negative_number_is_named_as_such_and_not_taken_for_an_option() {
        for option in ["--seed", "--samples"] {
            let line = ["nerve", "synth", "story", "--output", "-", option, "-1"];
            let error = Line::try_parse_from(line).unwrap_err().to_string();
            assert!(error.contains("invalid value '-1'"), "{error}");
        }
    }
}
