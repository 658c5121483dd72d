//! Imports a decoder from a Hugging Face directory: its description, its weights, its tokenizer, and a recipe made of them.
//!
//! Every tensor is used, compared or listed, and every parameter filled. Weights are read one parameter after the other and
//! written from where they lie: one copy of the model in f32 is all the memory that it takes.

mod expected;
mod recipe;

use super::save::{Kept, save};
use super::{account, answer, option, require_fit_to, table};
use crate::cli;
use crate::data::{Specials, Tokenizer};
use crate::error::{Error, Problem};
use crate::import::hugging_face::{
    Described, Directory, Symbols, compare, describe, load, tokenizer_of_ids,
};
use crate::import::{Checkpoint, Doubled, Globals};
use crate::run::{RunDirectory, replace_file};
use crate::say::note;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Imports a directory.
pub(super) fn run(arguments: &cli::Import, directory: &Directory) -> Result<(), Error> {
    require_no_graph(arguments)?;
    let generation = directory.generation();
    let described = describe(
        &directory.config(),
        generation.as_deref(),
        &arguments.ignored,
    )?;
    let weights = [directory.weights()?];
    let mut checkpoint = Checkpoint::open(&weights, Globals::OfTensors, Doubled::Refused)?;
    let fits = compare(&checkpoint, &described);
    if arguments.dry_run {
        answer::print(&table(&fits))?;
    }
    let advice = "see all of them with --dry-run; config.json and weights do not belong together";
    require_fit_to(
        "config.json's model",
        &checkpoint,
        &fits,
        advice.to_string(),
    )?;
    let tokenizer = tokenizer(arguments, directory, &described)?;
    let (tokenizer, symbols) = with_symbols(tokenizer, &described.symbols)?;
    let recipe = recipe::of(arguments, directory, &described, &tokenizer)?;
    let model = load(&mut checkpoint, &described)?;
    let mut notes = described.notes.clone();
    notes.extend(unread(directory, &checkpoint));
    notes.extend(symbols);
    notes.extend(without_tokens(&described, &tokenizer));
    if let Some(file) = &arguments.expected {
        let expected = expected::read(file, &described)?;
        notes.push(expected.compare(file, &recipe, &tokenizer, model.clone())?);
    }
    if arguments.dry_run {
        account::say_notes(&checkpoint, &fits);
        notes.iter().for_each(|line| note(line));
        return Ok(());
    }
    account::say(&checkpoint, &fits);
    notes.iter().for_each(|line| note(line));
    let mut account = account::to_json(&checkpoint, &fits);
    account["architecture"] = json!(described.family.architecture);
    account["notes"] = json!(notes);
    let kept = Kept {
        bigrams: None,
        min_count: 0,
    };
    let run = save(&recipe, &tokenizer, &account, Some(&kept), model)?;
    if arguments.recipe.is_none() {
        fine_tuning(&run)?;
    }
    answer::print_text(&format!("{}\n", run.path().display()))
}

/// Refuses options that only a directory has.
pub(super) fn require_no_options(arguments: &cli::Import) -> Result<(), Error> {
    let of_a_directory = [
        ("--expected", arguments.expected.is_some()),
        ("--ignore-field", !arguments.ignored.is_empty()),
    ];
    let expected =
        "no such option, as the checkpoint is no directory with a config.json of Hugging Face's";
    match of_a_directory.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(option(name, "a value", expected)),
        None => Ok(()),
    }
}

/// Refuses options that only a graph has.
fn require_no_graph(arguments: &cli::Import) -> Result<(), Error> {
    let of_a_graph = [
        ("--vocabulary", arguments.vocabulary.is_some()),
        ("--counts", arguments.counts.is_some()),
        ("--probe", arguments.probe.is_some()),
    ];
    match of_a_graph.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(option(
            name,
            "a file",
            "no such option, as the model is a decoder",
        )),
        None => Ok(()),
    }
}

/// The directory's tokenizer, another one, or one of ids.
fn tokenizer(
    arguments: &cli::Import,
    directory: &Directory,
    described: &Described,
) -> Result<Tokenizer, Error> {
    let file = match (&arguments.tokenizer, directory.tokenizer()) {
        (Some(none), _) if none == Path::new("none") => {
            let file = tokenizer_of_ids(described.vocabulary);
            return Tokenizer::from_bytes(Path::new("tokenizer of ids"), file.into_bytes());
        }
        (Some(file), _) => file.clone(),
        (None, Some(file)) => file,
        (None, None) => {
            let path = directory.path().join("tokenizer.json");
            let problem = Problem::new(path, "", "no such file", "the model's tokenizer");
            let advice =
                "name one with --tokenizer FILE, or use ids as texts with --tokenizer none";
            return Err(Error::Invalid(problem.advise(advice)));
        }
    };
    let tokenizer = Tokenizer::load(&file)?;
    let (tokens, rows) = (tokenizer.vocabulary_size(), described.vocabulary);
    if tokens > rows {
        let expected =
            format!("at most {rows}, the rows of the embedding (vocab_size of config.json)");
        let problem = Problem::new(&file, "", format!("{tokens} tokens"), expected);
        return Err(Error::Invalid(problem));
    }
    Ok(tokenizer)
}

/// Files of weights beside those that were read.
fn unread(directory: &Directory, checkpoint: &Checkpoint) -> Option<String> {
    let read: Vec<PathBuf> = checkpoint.files().map(Path::to_path_buf).collect();
    let others = directory.others(&read);
    (!others.is_empty()).then(|| {
        format!(
            "not read, as the weights do not name them: {}",
            others.join(", ")
        )
    })
}

/// Rows of the embedding that no token has.
fn without_tokens(described: &Described, tokenizer: &Tokenizer) -> Option<String> {
    let (tokens, rows) = (tokenizer.vocabulary_size(), described.vocabulary);
    (tokens < rows).then(|| {
        format!(
            "{} of {rows} rows of the embedding have no token: they count in every softmax, as where the model comes from, \
             and are never drawn",
            rows - tokens
        )
    })
}

/// The tokenizer with the special tokens of the model, and a line for each that the tokenizer called otherwise. Its own token that
/// ends a document stays if it is one of the model's ends, of which there may be several.
fn with_symbols(
    tokenizer: Tokenizer,
    symbols: &Symbols,
) -> Result<(Tokenizer, Vec<String>), Error> {
    let (mut notes, own) = (Vec::new(), tokenizer.specials());
    let mut known = |id: &u32| {
        let is_known = !tokenizer.token_text(*id).is_empty();
        if !is_known {
            notes.push(format!(
                "the special token {id} of the model is no token of its tokenizer, and left out"
            ));
        }
        is_known
    };
    let begin = symbols.begin.filter(&mut known).or(own.begin);
    let pad = symbols.pad.filter(&mut known).or(own.pad);
    let mut ends: Vec<u32> = symbols.ends.iter().copied().filter(&mut known).collect();
    let end = own
        .end
        .filter(|end| ends.contains(end))
        .or(ends.first().copied());
    let end = end.or(own.end);
    let specials = Specials {
        begin,
        end,
        pad,
        ..own
    };
    ends.sort_unstable();
    ends.dedup();
    let same_ends = ends.is_empty() || ends == tokenizer.ends();
    if specials == own && same_ends {
        return Ok((tokenizer, notes));
    }
    let id = |id: Option<u32>| id.map_or("none".to_string(), |id| id.to_string());
    for (what, model, tokenizer) in [
        ("begins a text", begin, own.begin),
        ("ends a document", end, own.end),
        ("fills up rows", pad, own.pad),
    ] {
        if model != tokenizer {
            let (model, tokenizer) = (id(model), id(tokenizer));
            notes.push(format!("what {what} is token {model}, as the model says; by its name it would be {tokenizer}"));
        }
    }
    if !same_ends {
        let ends: Vec<String> = ends.iter().map(u32::to_string).collect();
        notes.push(format!(
            "what ends a text is any of the tokens {}",
            ends.join(", ")
        ));
    }
    if tokenizer.added().len() == 0 {
        notes.push(
            "the tokenizer has no added token, so none of this can be said in it: its own count"
                .to_string(),
        );
        return Ok((tokenizer, notes));
    }
    notes.push(
        "the run's tokenizer.json says these special tokens, so prepare data with it".to_string(),
    );
    Ok((tokenizer.with_specials(specials, &ends)?, notes))
}

/// Leaves a recipe in the run that goes on from its weights.
fn fine_tuning(run: &RunDirectory) -> Result<(), Error> {
    let text = recipe::fine_tuning(run)?;
    let file = run.path().join("finetune.toml");
    replace_file(&file, text.as_bytes())?;
    note(&format!(
        "{} trains on from here: prepare data with the run's tokenizer.json and name them there",
        file.display()
    ));
    Ok(())
}
