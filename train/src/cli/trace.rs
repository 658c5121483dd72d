//! Command-line arguments of `nerve trace`.

use super::Source;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Arguments of `nerve trace`.
///
/// A pair `A,B` names two tokens: by their texts, in which `␣` may stand for a space and `⏎` for the end of a line, or by
/// their ids as `#17`. Positions count the tokens of the text from 1.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
A pair A,B names two tokens by their texts, where ␣ may stand for a space and ⏎ for the end of a line, or by their ids, \
as in '#17,#4'. Positions count the tokens of the text from 1. The run on disk is never changed.")]
pub struct Trace {
    /// The run
    #[command(flatten)]
    pub source: Source,
    /// The text that the signal follows; empty begins a document
    #[arg(long, allow_hyphen_values = true,
          required_unless_present_any = ["edge", "ablate", "positive_only"])]
    pub text: Option<String>,
    /// Candidates per step, and lines of every other list
    #[arg(long, default_value = "10")]
    pub top: NonZeroUsize,
    /// Also write a page that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Also write the contributions of earlier positions as a picture
    #[arg(long, value_name = "FILE", requires = "text")]
    pub svg: Option<PathBuf>,
    /// Show everything known of an edge; may be repeated
    #[arg(long, value_name = "A,B", allow_hyphen_values = true)]
    pub edge: Vec<String>,
    /// Trace the text again with a change. `drop=3`: the signal that arrived at token 3 is in no mix, as if it had faded,
    /// though the text stays. `remove=3`: token 3 was never said. `drop=3,5`: both at once. May be repeated; each is tried
    /// by itself
    #[arg(long, value_name = "CHANGE", requires = "text")]
    pub what_if: Vec<String>,
    /// Replace an edge in memory before anything else: `a,b=zero`, `a,b=shared` (the row it would share without one of its
    /// own), `a,b=c,d` (the row of another pair). May be repeated; all hold together
    #[arg(long, value_name = "A,B=ROW", allow_hyphen_values = true)]
    pub set_edge: Vec<String>,
    /// Measure the loss without an edge: with its shared row, and with zeros. May be repeated
    #[arg(long, value_name = "A,B", allow_hyphen_values = true)]
    pub ablate: Vec<String>,
    /// List edges that training only ever raised
    #[arg(long)]
    pub positive_only: bool,
    /// Tokens of the first validation split that --ablate and --edge look at, rounded up to whole windows; 0 for all
    #[arg(long, default_value_t = 4096)]
    pub tokens: u64,
}
