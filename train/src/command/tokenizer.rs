//! `nerve tokenizer train`, `nerve tokenizer inspect`, and `encode` for comparing with other programs.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::answer::{print, print_json};
use super::data::{create_parent, refuse_existing};
use crate::cli::tokenizer::{EncodeArgs, InspectArgs, TokenizerArgs, TokenizerCommand, TrainArgs};
use crate::data::document::{BadUtf8, DocumentReader, DocumentRule, ReadRules};
use crate::data::prepare::progress_bar;
use crate::data::tokenizer::{Kind, Normalise, Tokenizer};
use crate::error::{Error, Problem};
use crate::text::json_complaint;

/// Byte pairs to learn if nobody says how many.
const BPE_VOCABULARY: usize = 4096;

/// Runs the verb that was typed.
///
/// # Errors
/// Whatever stops it.
pub fn run(arguments: &TokenizerArgs) -> Result<(), Error> {
    match &arguments.command {
        TokenizerCommand::Train(arguments) => train(arguments),
        TokenizerCommand::Inspect(arguments) => inspect(arguments),
        TokenizerCommand::Encode(arguments) => encode(arguments),
    }
}

fn train(arguments: &TrainArgs) -> Result<(), Error> {
    refuse_existing(&arguments.output, arguments.force)?;
    if arguments.files.is_empty() && arguments.kind != Kind::Byte {
        let problem = Problem::new(
            "command line",
            "",
            "no text file",
            "at least one to learn from",
        );
        return Err(Error::config(
            problem.advise("name text or .jsonl files after the options"),
        ));
    }
    if arguments.normalise != Normalise::None && arguments.kind != Kind::Character {
        let expected = "none: only character tokenizers normalise";
        let problem = Problem::new("command line", "--normalise", "another kind", expected);
        return Err(Error::config(problem));
    }
    let rules = ReadRules {
        document: DocumentRule::File,
        field: arguments.field.clone(),
        on_bad_utf8: BadUtf8::Error,
        max_line_bytes: 16 << 20,
    };
    let mut readers = Vec::new();
    let mut size = 0;
    for file in &arguments.files {
        readers.push(DocumentReader::open(file, &rules, None)?);
        size += fs::metadata(file)
            .map_err(|e| Error::resource(file, "read", e))?
            .len();
    }
    if arguments.dry_run {
        let (n_files, output) = (readers.len(), arguments.output.display());
        return print(&format!(
            "learn from {n_files} files ({size} bytes), write {output}\n"
        ));
    }
    let default = (arguments.kind == Kind::Bpe).then_some(BPE_VOCABULARY);
    let bar = progress_bar(size);
    let texts = texts(readers, bar.clone());
    let size = arguments.vocabulary.or(default);
    let tokenizer = match arguments.kind {
        Kind::Character => Tokenizer::train_characters(arguments.normalise, texts, size)?,
        kind => Tokenizer::train(kind, texts, size)?,
    };
    bar.finish_and_clear();
    let found = tokenizer.vocabulary_size();
    if let Some(wanted) = arguments.vocabulary.filter(|wanted| *wanted > found) {
        eprintln!(
            "{}: {found} tokens instead of {wanted}: the text has no more",
            arguments.output.display()
        );
    }
    create_parent(&arguments.output)?;
    tokenizer.save(&arguments.output)?;
    print(&format!("{}\n", arguments.output.display()))
}

fn texts(
    readers: Vec<DocumentReader>,
    bar: ProgressBar,
) -> impl Iterator<Item = Result<String, Error>> + Send {
    readers.into_iter().flatten().map(move |document| {
        let document = document?;
        bar.inc(document.text.len() as u64);
        Ok(document.text)
    })
}

fn inspect(arguments: &InspectArgs) -> Result<(), Error> {
    let tokenizer = Tokenizer::load(&arguments.file)?;
    let facts = facts(&tokenizer, arguments.text.as_deref());
    if arguments.json {
        return print_json(&facts);
    }
    let mut lines = vec![
        format!(
            "kind            {}",
            facts["kind"].as_str().unwrap_or_default()
        ),
        format!("vocabulary      {}", facts["vocabulary_size"]),
        format!(
            "normalise       {}",
            facts["normalise"].as_str().unwrap_or_default()
        ),
        format!(
            "bytes per token {:.3} (mean over the vocabulary)",
            facts["mean_token_bytes"].as_f64().unwrap_or_default()
        ),
        format!("sha256          {}", tokenizer.sha256()),
    ];
    for (text, id) in tokenizer.added() {
        lines.push(format!("{text:<16}{id}"));
    }
    if let Some(cut) = facts.get("text") {
        lines.push(format!("ids             {}", cut["ids"]));
        lines.push(format!("tokens          {}", cut["tokens"]));
        lines.push(format!(
            "bytes per token {:.3} (in this text)",
            cut["bytes_per_token"].as_f64().unwrap_or_default()
        ));
        lines.push(format!(
            "round trip      {}",
            if cut["round_trip"] == true {
                "exact"
            } else {
                "changed"
            }
        ));
    }
    print(&(lines.join("\n") + "\n"))
}

fn facts(tokenizer: &Tokenizer, text: Option<&str>) -> Value {
    let specials = tokenizer.added().iter();
    let n_plain = tokenizer.vocabulary_size() - specials.len();
    let bytes: u32 = tokenizer.token_bytes().iter().sum();
    let mut facts = json!({
        "schema": 1,
        "kind": tokenizer.kind(),
        "vocabulary_size": tokenizer.vocabulary_size(),
        "normalise": tokenizer.normalise(),
        "mean_token_bytes": f64::from(bytes) / n_plain as f64,
        "sha256": tokenizer.sha256(),
        "specials": specials.map(|(text, id)| (text.to_string(), json!(id))).collect::<serde_json::Map<_, _>>(),
    });
    if let Some(text) = text {
        let ids = tokenizer.encode(text);
        let tokens: Vec<String> = ids.iter().map(|id| tokenizer.token_text(*id)).collect();
        facts["text"] = json!({
            "tokens": tokens,
            "bytes_per_token": text.len() as f64 / ids.len().max(1) as f64,
            "round_trip": tokenizer.decode(&ids) == text,
            "ids": ids,
        });
    }
    facts
}

fn encode(arguments: &EncodeArgs) -> Result<(), Error> {
    let tokenizer = Tokenizer::load(&arguments.file)?;
    let path = &arguments.input;
    let file =
        File::open(path).map_err(|e| Error::unreadable(path, "one JSON string per line", e))?;
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.map_err(|e| Error::resource(path, "read", e))?;
        let text: String = serde_json::from_str(&line).map_err(|e| {
            Error::Invalid(Problem::new(
                path,
                format!("line {number}"),
                json_complaint(&e),
                "a JSON string",
            ))
        })?;
        print(&format!("{}\n", json!(tokenizer.encode(&text))))?;
    }
    Ok(())
}
