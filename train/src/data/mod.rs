//! Data pipeline: texts become documents, shards, windows and batches; this file holds the recipe's `[data]` section.
//!
//! | file | turns |
//! |---|---|
//! | `synthetic`, `story` | a seed and an index into a text with known difficulty |
//! | `difficulty` | labels or losses into the difficulty of a sequence |
//! | `document` | text and JSONL files, pipes, compressed ones into a stream of documents, in bounded memory |
//! | `cut` | a long text into parts with the same byte pairs |
//! | `tokenizer` | text into ids and back; files that Python's `tokenizers` reads |
//! | `prepare` | documents into a data directory: `train.bin`, `valid.bin`, `manifest.json` |
//! | `shard` | a `.bin` file into a checked [`Split`] |
//! | `token_file` | a file of token ids that another program made into ids |
//! | `tokens` | ids into as few bytes of memory as their vocabulary allows |
//! | `export` | a split into a file of token ids for other programs |
//! | `window` | a split into fixed windows of inputs and targets |
//! | `packing` | pieces of documents into windows that several share |
//! | `order` | a sequence number into (source, epoch, window), without state |
//! | `batch` | windows into the arrays that a step consumes |
//! | `unknown` | counts of `<unk>` into messages |
//! | `count` | keys of any number into how often each came, in bounded memory |
//! | `bigram` | a split into counts of ordered pairs |
//! | `ngram` | counts into Kneser-Ney models, as baselines |

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub mod batch;
pub mod bigram;
pub mod count;
pub mod cut;
pub mod difficulty;
pub mod document;
pub mod export;
pub mod manifest;
pub mod ngram;
pub mod order;
pub mod packing;
pub mod permutation;
pub mod prepare;
pub mod question;
pub mod random_python;
pub mod shard;
pub mod statistics;
pub mod story;
pub mod synthetic;
pub mod token_file;
pub mod tokenizer;
mod tokens;
pub mod unknown;
pub mod window;
pub mod writer;

pub use batch::{HostBatch, collect};
pub use bigram::Bigrams;
pub use difficulty::DifficultySource;
pub use document::{BadUtf8, Document, DocumentReader, DocumentRule, Format, ReadRules};
pub use manifest::Manifest;
pub use order::{Mixture, SequencePlace};
pub use permutation::Permutation;
pub use shard::{Split, list_of};
pub use token_file::{TokenFormat, TokenSource};
pub use tokenizer::{Kind, Specials, SpelledSpecials, Tokenizer};
pub use window::{Beginning, Cut, Window, Windows};

/// The `[data]` section of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Inputs per window, in tokens.
    pub window: usize,
    /// Whether windows may run across the ends of documents.
    pub documents: DocumentsRule,
    /// How a document begins.
    pub start: StartRule,
    /// The seed of the order in which windows are seen; apart from the run's seed, so that either can vary alone.
    pub order_seed: u64,
    /// Where the difficulty of a sequence comes from.
    pub difficulty: DifficultySource,
    /// Training splits and their shares.
    pub train: Vec<TrainSource>,
    /// Named validation splits.
    pub valid: Vec<ValidSource>,
}

impl DataConfig {
    /// The names of the validation splits in metrics. The first is `valid`; its loss selects the best checkpoint.
    pub fn valid_splits(&self) -> Vec<String> {
        let name = |(index, source): (usize, &ValidSource)| match index {
            0 => "valid".to_string(),
            _ => format!("valid.{}", source.name),
        };
        self.valid.iter().enumerate().map(name).collect()
    }
}

/// One training split and its share of the sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSource {
    /// A `.bin` file of `nerve data prepare`, or token ids of another program: a `.bin` of llm.c or nanoGPT, or a `.npy`. Ours
    /// has a `manifest.json` beside it.
    pub path: PathBuf,
    /// Its share relative to the other weights; above zero.
    pub weight: f64,
    /// How a file of another program holds ids; needed only where it has no header that says so. A file of `nerve data prepare`
    /// has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<TokenFormat>,
}

impl TrainSource {
    /// The file, and what the recipe says of it.
    pub fn tokens(&self) -> TokenSource<'_> {
        TokenSource {
            path: &self.path,
            format: self.format,
        }
    }
}

/// One validation split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidSource {
    /// The name its metrics carry.
    pub name: String,
    /// A `.bin` file of `nerve data prepare`, or token ids of another program, as of a training split.
    pub path: PathBuf,
    /// How a file of another program holds ids, as of a training split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<TokenFormat>,
}

impl ValidSource {
    /// The file, and what the recipe says of it.
    pub fn tokens(&self) -> TokenSource<'_> {
        TokenSource {
            path: &self.path,
            format: self.format,
        }
    }
}

/// How a document begins for the model, in training, evaluation and sampling alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum StartRule {
    /// Behind the start symbol, which is context and never predicted: `<s>`, or the symbol that ends documents where the
    /// tokenizer has no `<s>`. The first token is predicted. With neither it is context and does not count.
    Symbol,
    /// With its first token as context, which is not predicted; where documents run on it is predicted from the document
    /// before.
    FirstToken,
}

/// How windows are cut out of the stream of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentsRule {
    /// The stream is cut every `window` tokens; a window may hold the end of one document and the start of the next.
    RunOn,
    /// No window crosses a document; short ones are padded, and the padding is masked.
    Separate,
    /// Several whole documents share a window, each as if it were alone: attention stays within it, and its places count from zero. Where
    /// nothing fits the window is padded. One that is longer than a window is cut as with `separate`, and its pieces share windows too.
    Packed,
}
