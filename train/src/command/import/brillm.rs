//! Imports a BriLLM release: checks options against the recipe, assigns rows of the checkpoint to token pairs by vocabulary and
//! counts, loads the weights, measures them if `--probe` is given, and saves the run.

use super::probe::{Probe, Probed};
use super::save::{Kept, save};
use super::{account, answer, brian, option, require_fit, table};
use crate::cli;
use crate::data::{Bigrams, Tokenizer};
use crate::device;
use crate::error::{Error, Problem};
use crate::family::brillm::{Edges, SignalConfig};
use crate::import::brillm::{Release, Sizes};
use crate::import::frequency::Frequencies;
use crate::import::vocabulary::Vocabulary;
use crate::import::{Checkpoint, Doubled, Globals};
use crate::recipe::Checked;
use crate::run::TensorMap;
use crate::say::{note, say};
use brillm::compat;
use brillm::graph::BackOff;
use brillm::position::Encoding;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Imports a graph.
pub(super) fn run(
    arguments: &cli::Import,
    recipe: &Checked,
    config: &SignalConfig,
) -> Result<(), Error> {
    let files = &arguments.checkpoints;
    let mut checkpoint = Checkpoint::open(files, Globals::OfTensors, Doubled::LaterCounts)?;
    if checkpoint.is_our_graph() {
        return brian::take_over(arguments, recipe, checkpoint);
    }
    let vocabulary = arguments.vocabulary.as_deref().ok_or_else(|| {
        let expected = "the vocabulary file of the release: it numbers the rows";
        option("--vocabulary", "none", expected)
    })?;
    let vocabulary = Vocabulary::load(vocabulary)?;
    let release = checkpoint.release()?;
    require_options(arguments, config, release)?;
    let tokenizer = tokenizer(arguments.tokenizer.as_deref(), &vocabulary)?;
    let frequencies = match (&arguments.counts, release) {
        (Some(path), Release::Rows(rows)) => Some(Frequencies::load(path, &vocabulary, rows)?),
        _ => None,
    };
    let counted = frequencies.is_some();
    let sizes = sizes(&checkpoint, release, config, &vocabulary, counted)?;
    let fits = checkpoint.compare(release, sizes);
    if arguments.dry_run {
        answer::print(&table(&fits))?;
        answer::print(&rows_in_words(sizes, counted))?;
    }
    require_fit(&checkpoint, &fits)?;
    if let Some(frequencies) = &frequencies {
        say_what_is_odd(frequencies);
    }
    say_what_is_no_release(config, release);
    if arguments.dry_run && arguments.probe.is_none() {
        return Ok(());
    }
    require_memory(sizes)?;
    let tensors = checkpoint.load(release, sizes)?;
    let min_count = match &frequencies {
        Some(frequencies) if frequencies.unmentioned > 0 => 0,
        _ => 1,
    };
    let bigrams = frequencies.map(|frequencies| Bigrams {
        counts: frequencies.counts,
        tokenizer_sha256: tokenizer.sha256(),
        split_sha256: frequencies.sha256,
        start: None,
    });
    if !arguments.dry_run {
        account::say(&checkpoint, &fits);
    }
    let account = account::to_json(&checkpoint, &fits);
    let kept = Kept {
        bigrams: bigrams.as_ref(),
        min_count,
    };
    let keep = |tensors: TensorMap| match arguments.dry_run {
        true => Ok(None),
        false => save(recipe, &tokenizer, &account, Some(&kept), tensors).map(Some),
    };
    let run = match &arguments.probe {
        None => keep(tensors)?,
        Some(text) => {
            let counts = bigrams.as_ref().map(|bigrams| bigrams.counts.clone());
            let probe = Probe {
                text,
                recipe,
                config,
                tokenizer: &tokenizer,
                counts: counts.map(Arc::new),
                min_count,
            };
            let (probed, run) = probe.run(tensors, checkpoint.path(), keep)?;
            show(&probed, arguments.dry_run)?;
            run
        }
    };
    match run {
        Some(run) => answer::print_text(&format!("{}\n", run.path().display())),
        None => Ok(()),
    }
}

/// Whether recipe and options are of one kind.
fn require_options(
    arguments: &cli::Import,
    config: &SignalConfig,
    release: Release,
) -> Result<(), Error> {
    let file = arguments.recipe.as_deref().unwrap_or(Path::new(""));
    let wrong = |place: &str, found: &str, expected: &str| {
        Error::config(Problem::new(file, place, found, expected))
    };
    let counts = arguments.counts.is_some();
    let sources = release == Release::Sources;
    Err(match &config.edges {
        _ if matches!(config.flow.encoding, Encoding::Learnt { .. }) => {
            let expected = "reference_multiply or standard: a release has no learnt codes";
            wrong("model.flow.encoding", "learnt", expected)
        }
        _ if sources && counts => {
            let expected = "none: this release has a matrix for every pair";
            option("--counts", "a file", expected)
        }
        Edges::Full if counts => wrong("model.edges", "full", "counted, as --counts is given"),
        Edges::Counted { .. } if sources => {
            let expected = "full: this release has a matrix for every pair";
            wrong("model.edges", "counted", expected)
        }
        Edges::Counted { back_off, .. } if counts && *back_off != BackOff::SharedRow => {
            let expected = "shared_row: the release has one such row";
            wrong("model.edges.back_off", "something else", expected)
        }
        Edges::Counted { min_count, .. } if counts && *min_count > 1 => {
            let expected = "1: every pair that was seen owns a row of the release";
            wrong("model.edges.min_count", &min_count.to_string(), expected)
        }
        _ => return Ok(()),
    })
}

/// The sizes of our model.
fn sizes(
    checkpoint: &Checkpoint,
    release: Release,
    config: &SignalConfig,
    vocabulary: &Vocabulary,
    counted: bool,
) -> Result<Sizes, Error> {
    let nodes = vocabulary.tokens().len();
    let full = 1 + nodes * nodes;
    let rows = match release {
        Release::Rows(rows) if counted => rows,
        Release::Rows(rows) if rows != full => {
            let found = format!("{rows} rows");
            let expected = format!("{full}: one for each pair of {nodes} tokens, and row 0");
            let problem = Problem::new(checkpoint.path(), "tensor weights", found, expected);
            let advice =
                "name the release's --counts: without them nobody knows which row is whose";
            return Err(Error::Invalid(problem.advise(advice)));
        }
        Release::Rows(_) if config.counts().is_some() => {
            let expected =
                "full: no --counts are given, and the checkpoint has a row for every pair";
            let problem = Problem::new("recipe", "model.edges", "counted", expected);
            return Err(Error::config(problem));
        }
        _ => full,
    };
    Ok(Sizes {
        nodes,
        rows,
        d: config.d_node,
        mix: config.flow.mix.initial().len(),
        storage: config.storage,
    })
}

/// The user's tokenizer, whose ids are those of the vocabulary; or one made of single characters.
fn tokenizer(file: Option<&Path>, vocabulary: &Vocabulary) -> Result<Tokenizer, Error> {
    let Some(file) = file else {
        return Tokenizer::of_characters(vocabulary.path(), vocabulary.tokens());
    };
    let tokenizer = Tokenizer::load(file)?;
    let tokens = vocabulary.tokens();
    let wrong = |place: String, found: String, expected: String| {
        let problem = Problem::new(file, place, found, expected);
        let advice = "name the tokenizer of the release";
        Err(Error::Invalid(problem.advise(advice)))
    };
    for (id, token) in (0..).zip(tokens) {
        let found = tokenizer.token_text(id);
        if found != *token {
            let expected = format!("{token:?} as in {}", vocabulary.path().display());
            return wrong(format!("id {id}"), format!("{found:?}"), expected);
        }
    }
    if tokenizer.vocabulary_size() != tokens.len() {
        let found = format!("{} tokens", tokenizer.vocabulary_size());
        let expected = format!("{} as in {}", tokens.len(), vocabulary.path().display());
        return wrong(String::new(), found, expected);
    }
    Ok(tokenizer)
}

fn rows_in_words(sizes: Sizes, counted: bool) -> String {
    let Sizes { nodes, rows, .. } = sizes;
    let (owning, pairs) = (rows - 1, nodes * nodes);
    match counted {
        true => format!(
            "{owning} of {pairs} pairs own a row, and row 0 is shared: {rows} rows, as the checkpoint has\n"
        ),
        false => format!("{owning} pairs own a row, and no pair uses row 0: {rows} rows\n"),
    }
}

fn say_what_is_odd(frequencies: &Frequencies) {
    if frequencies.unmentioned > 0 {
        note(&format!(
            "{} pairs are not in the counts; they own rows, as in the reference, and the run's min_count is 0",
            frequencies.unmentioned
        ));
    }
    if frequencies.foreign > 0 {
        note(&format!(
            "{} counts are of tokens that the vocabulary does not have; they are passed over",
            frequencies.foreign
        ));
    }
}

fn say_what_is_no_release(config: &SignalConfig, release: Release) {
    let published = match release {
        Release::Rows(_) => compat::REFERENCE,
        Release::Sources => compat::DENSE_2025,
    };
    if config.flow != published {
        note(&format!(
            "[model.flow] is not that of this release ({published:?}); numbers will differ from the reference's"
        ));
    }
}

/// Refuses weights that the memory cannot hold.
fn require_memory(sizes: Sizes) -> Result<(), Error> {
    let needed = sizes.bytes();
    let Some(free) = device::free_host_bytes().filter(|free| *free < needed) else {
        return Ok(());
    };
    let (needed, free) = (needed / 1_000_000, free / 1_000_000);
    let cause = format!("they take {needed} MB and {free} MB are free; use a machine with more");
    let cause = io::Error::other(cause);
    Err(Error::resource("memory", "hold these weights", cause))
}

/// The table of the probe: the answer of a dry run, else beside it.
fn show(probed: &Probed, dry_run: bool) -> Result<(), Error> {
    let table = probed.table();
    match dry_run {
        true => answer::print(&table)?,
        false => say(table.trim_end()),
    }
    if let Some(warning) = probed.warning() {
        note(&warning);
    }
    Ok(())
}
