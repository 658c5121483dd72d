//! Dispatch of the command line: `run` calls the file of each verb. The other files are parts of verbs, as `losses` of `eval`
//! and `runs compare`. They only combine other modules.

pub mod answer;
pub mod bench;
pub mod check_transfer;
pub mod config;
pub mod data;
mod difficulty;
pub mod doctor;
pub mod estimate;
pub mod evaluate;
pub mod fit;
pub mod import;
mod losses;
mod markup;
mod ngrams;
mod plan;
pub mod route;
pub mod runs;
pub mod sample;
#[cfg(feature = "serve")]
pub mod serve;
mod stream;
pub mod sweep;
mod tasks;
pub mod tokenizer;
pub mod trace;
pub mod trained;

use crate::cli::Verb;
use crate::error::Error;

/// Runs a verb.
///
/// # Errors
/// The errors of the verb.
pub fn run(verb: &Verb) -> Result<(), Error> {
    match verb {
        Verb::Fit(arguments) => fit::run(arguments),
        Verb::Sweep(arguments) => sweep::run(arguments),
        Verb::Sample(arguments) => sample::run(arguments),
        #[cfg(feature = "serve")]
        Verb::Serve(arguments) => serve::run(arguments),
        Verb::Eval(arguments) => evaluate::run(arguments),
        Verb::Import(arguments) => import::run(arguments),
        Verb::Route(arguments) => route::run(arguments),
        Verb::Trace(arguments) => trace::run(arguments),
        Verb::Data(verb) => data::run(verb),
        Verb::Tokenizer(verb) => tokenizer::run(verb),
        Verb::Config(verb) => config::run(verb),
        Verb::Runs(verb) => runs::run(verb),
        Verb::Estimate(arguments) => estimate::run(arguments),
        Verb::CheckTransfer(arguments) => check_transfer::run(arguments),
        Verb::Bench(arguments) => bench::run(arguments),
        Verb::Doctor(arguments) => doctor::run(arguments),
    }
}
