//! `nerve tokenizer train`, `nerve tokenizer inspect`, and `encode` for comparing with other programs.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::answer::{padded, print, print_json, print_text, printable};
use super::data::refuse_existing;
use crate::cli::tokenizer::{EncodeArgs, InspectArgs, TokenizerCommand, TrainArgs};
use crate::data::document::DocumentReader;
use crate::data::prepare::progress_bar;
use crate::data::tokenizer::{Kind, Normalise, Specials, SpelledSpecials, Tokenizer};
use crate::error::{Error, Problem};
use crate::escape;
use crate::file::{create_parent, open_stream};
use crate::run::replace_file;
use crate::say::note;
use crate::text::json_complaint;

/// Byte pairs to learn if nobody says how many.
const BPE_VOCABULARY: usize = 4096;

/// The most added tokens that are listed in a table.
const ADDED_LISTED: usize = 24;

/// The longest line of texts to encode.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Runs a subcommand.
///
/// # Errors
/// The errors of the subcommand.
pub fn run(verb: &TokenizerCommand) -> Result<(), Error> {
    match verb {
        TokenizerCommand::Train(arguments) => train(arguments),
        TokenizerCommand::Inspect(arguments) => inspect(arguments),
        TokenizerCommand::Encode(arguments) => encode(arguments),
    }
}

fn train(arguments: &TrainArgs) -> Result<(), Error> {
    refuse_existing(&arguments.output, arguments.force)?;
    if arguments.files.is_empty() && arguments.kind != Kind::Byte {
        let expected = "at least one to learn from";
        let problem = Problem::new("command line", "", "no text file", expected);
        let advice = "name text or .jsonl files after the options";
        return Err(Error::config(problem.advise(advice)));
    }
    if arguments.normalise != Normalise::None && arguments.kind != Kind::Character {
        let expected = "none: only character tokenizers normalise";
        let problem = Problem::new("command line", "--normalise", "another kind", expected);
        return Err(Error::config(problem));
    }
    let rules = arguments.reading.rules();
    let mut readers = Vec::new();
    let mut size = 0;
    for file in &arguments.files {
        let reader = DocumentReader::open(file, &rules, None)?.advising_options();
        size += reader.file_bytes().unwrap_or(0);
        readers.push((file.clone(), reader));
    }
    if arguments.dry_run {
        let (n_files, output) = (readers.len(), arguments.output.display());
        return print(&format!(
            "learn from {n_files} files ({size} bytes), write {output}\n"
        ));
    }
    let default = (arguments.kind == Kind::Bpe).then_some(BPE_VOCABULARY);
    let bar = progress_bar(size);
    let texts = texts(readers, arguments.reading.specials, bar.clone());
    let size = arguments.vocabulary.or(default);
    let tokenizer = match arguments.kind {
        Kind::Character => Tokenizer::train_characters(arguments.normalise, texts, size)?,
        kind => Tokenizer::train(kind, texts, size)?,
    };
    bar.finish_and_clear();
    let found = tokenizer.vocabulary_size();
    if let Some(wanted) = arguments.vocabulary.filter(|wanted| *wanted > found) {
        note(&format!(
            "{}: {found} tokens instead of {wanted}: the text has no more",
            arguments.output.display()
        ));
    }
    create_parent(&arguments.output)?;
    replace_file(&arguments.output, tokenizer.file())?;
    print_text(&format!("{}\n", arguments.output.display()))
}

/// The texts of files; behind each, what was left out of it or read otherwise is said.
fn texts(
    readers: Vec<(PathBuf, DocumentReader)>,
    specials: SpelledSpecials,
    bar: ProgressBar,
) -> impl Iterator<Item = Result<String, Error>> + Send {
    readers.into_iter().flat_map(move |(file, mut reader)| {
        let bar = bar.clone();
        let mut n_spelled = 0;
        std::iter::from_fn(move || {
            let before = reader.bytes_read();
            let document = reader.next();
            bar.inc(reader.bytes_read() - before);
            let Some(document) = document else {
                let mut facts = reader.notes().to_vec();
                facts.extend(reader.counts().sentences());
                facts.extend((n_spelled > 0).then(|| spelled_specials(n_spelled, specials)));
                let say = |fact| note(&format!("{}: {fact}", file.display()));
                bar.suspend(|| facts.iter().for_each(say));
                return None;
            };
            Some(document.map(|document| without_specials(document.text, specials, &mut n_spelled)))
        })
        .fuse()
    })
}

fn spelled_specials(count: u64, specials: SpelledSpecials) -> String {
    let read = match specials {
        SpelledSpecials::Text => "learned from as text; --specials parse leaves them out",
        SpelledSpecials::Parse => "left out; --specials text learns from them",
    };
    format!("{count} special tokens, such as </s>, are spelled out in the text and {read}")
}

/// A text to learn from; specials that are none of the text end a line.
fn without_specials(mut text: String, specials: SpelledSpecials, count: &mut u64) -> String {
    for special in Specials::TEXTS {
        let n_spelled = text.matches(special).count() as u64;
        *count += n_spelled;
        if n_spelled > 0 && specials == SpelledSpecials::Parse {
            text = text.replace(special, "\n");
        }
    }
    text
}

fn inspect(arguments: &InspectArgs) -> Result<(), Error> {
    let tokenizer = Tokenizer::load(&arguments.file)?.with_spelled_specials(arguments.specials);
    let facts = facts(&tokenizer, arguments.text.as_deref());
    if arguments.json {
        return print_json(&facts);
    }
    let word = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let mean = |value: &Value| format!("{:.3}", value.as_f64().unwrap_or_default());
    let of_all = mean(&facts["mean_token_bytes"]) + " (mean over the vocabulary)";
    let normalise = match tokenizer.normalise() {
        Normalise::Other => tokenizer.normalizers().to_string(),
        _ => word(&facts["normalise"]),
    };
    let mut rows = vec![
        ("kind".to_string(), word(&facts["kind"])),
        (
            "vocabulary".to_string(),
            facts["vocabulary_size"].to_string(),
        ),
        ("normalise".to_string(), normalise),
        ("bytes per token".to_string(), of_all),
        ("sha256".to_string(), tokenizer.sha256()),
    ];
    let added = tokenizer.added();
    let unlisted = added.len().saturating_sub(ADDED_LISTED);
    let listed = added.take(ADDED_LISTED);
    rows.extend(listed.map(|(text, id)| (printable(text), id.to_string())));
    if unlisted > 0 {
        let more = format!("{unlisted} more added tokens (--json lists them)");
        rows.push(("…".to_string(), more));
    }
    rows.extend(roles(&tokenizer));
    if let Some(template) = tokenizer.template() {
        let template = printable(&template.join(" "));
        let read = "not put around texts: documents are bounded by begin and end";
        rows.push(("template".to_string(), format!("{template} ({read})")));
    }
    let losses = tokenizer.losses();
    if !losses.is_empty() {
        rows.push(("does not keep".to_string(), losses.join(", ")));
    }
    let notes = tokenizer.notes().iter();
    rows.extend(notes.map(|note| ("note".to_string(), printable(note))));
    if let Some(cut) = facts.get("text") {
        let tokens = escape::json(&cut["tokens"].to_string());
        let of_text = mean(&cut["bytes_per_token"]) + " (in this text)";
        rows.push(("ids".to_string(), cut["ids"].to_string()));
        rows.push(("tokens".to_string(), tokens));
        rows.push(("bytes per token".to_string(), of_text));
        if cut["specials_in_text"] != 0 {
            let (count, rule) = (&cut["specials_in_text"], word(&json!(arguments.specials)));
            let read = format!("{count}, read as --specials {rule}");
            rows.push(("specials in it".to_string(), read));
        }
        let round_trip = match cut["round_trip"] == true {
            true => "exact",
            false => "changed",
        };
        rows.push(("round trip".to_string(), round_trip.to_string()));
    }
    let rows = rows.iter();
    let lines = rows.map(|(name, value)| format!("{} {value}\n", padded(name, 15)));
    print(&lines.collect::<String>())
}

/// What the special tokens are for, where they are not ours.
fn roles(tokenizer: &Tokenizer) -> Vec<(String, String)> {
    if tokenizer.added().map(|(text, _)| text).eq(Specials::TEXTS) {
        return Vec::new();
    }
    let specials = tokenizer.specials();
    let token = |id: &u32| format!("{} {id}", printable(&tokenizer.token_text(*id)));
    let row = |name: &str, id: Option<u32>, absent: &str| {
        let found = id.as_ref().map_or(absent.to_string(), token);
        (name.to_string(), found)
    };
    let no_begin = match specials.end {
        Some(_) => "absent: documents begin behind the end of another",
        None => "absent: the first token of a document is context only",
    };
    let others = tokenizer
        .ends()
        .iter()
        .filter(|id| Some(**id) != specials.end);
    let others: Vec<String> = others.map(token).collect();
    let mut rows = vec![
        row("begin", specials.begin, no_begin),
        row(
            "end",
            specials.end,
            "absent: documents run on to the next one",
        ),
        row(
            "pad",
            specials.pad,
            "absent: id 0 fills up, and never counts",
        ),
        row("unknown", specials.unknown, "absent"),
    ];
    if !others.is_empty() {
        rows.push(("other ends".to_string(), others.join(", ")));
    }
    rows
}

fn facts(tokenizer: &Tokenizer, text: Option<&str>) -> Value {
    let specials = tokenizer.added();
    let mut is_plain = vec![true; tokenizer.vocabulary_size()];
    specials.for_each(|(_, id)| is_plain[id as usize] = false);
    let n_plain = tokenizer.n_tokens() - tokenizer.added().len();
    let sizes = tokenizer.token_bytes().into_iter().zip(is_plain);
    let bytes: u64 = sizes
        .map(|(size, is_plain)| u64::from(size) * u64::from(is_plain))
        .sum();
    let ids = tokenizer.specials();
    let specials = tokenizer.added();
    let mut facts = json!({
        "schema": 1,
        "kind": tokenizer.kind(),
        "vocabulary_size": tokenizer.vocabulary_size(),
        "normalise": tokenizer.normalise(),
        "normalizers": tokenizer.normalizers(),
        "mean_token_bytes": bytes as f64 / n_plain.max(1) as f64,
        "sha256": tokenizer.sha256(),
        "specials": specials.map(|(text, id)| (text.to_string(), json!(id))).collect::<serde_json::Map<_, _>>(),
        "begin": ids.begin, "end": ids.end, "ends": tokenizer.ends(), "pad": ids.pad, "unknown": ids.unknown,
        "template": tokenizer.template(),
        "does_not_keep": tokenizer.losses(),
        "notes": tokenizer.notes(),
    });
    if let Some(text) = text {
        let ids = tokenizer.encode(text);
        let tokens: Vec<String> = ids.iter().map(|id| tokenizer.token_text(*id)).collect();
        facts["text"] = json!({
            "tokens": tokens,
            "bytes_per_token": text.len() as f64 / ids.len().max(1) as f64,
            "round_trip": tokenizer.decode(&ids) == text,
            "specials_in_text": tokenizer.count_spelled(text),
            "ids": ids,
        });
    }
    facts
}

fn encode(arguments: &EncodeArgs) -> Result<(), Error> {
    let tokenizer = Tokenizer::load(&arguments.file)?.with_spelled_specials(arguments.specials);
    let path = &arguments.input;
    let mut input = BufReader::new(open_stream(path, "one JSON string per line")?);
    for number in 1.. {
        let mut line = Vec::new();
        let read = (&mut input)
            .take(LINE_BYTES_MAX + 1)
            .read_until(b'\n', &mut line);
        if read.map_err(|e| Error::resource(path, "read", e))? == 0 {
            break;
        }
        let wrong = |found: String, expected: String| {
            let place = format!("line {number}");
            Error::Invalid(Problem::new(path, place, found, expected))
        };
        if line.len() as u64 > LINE_BYTES_MAX {
            let expected = format!("at most {LINE_BYTES_MAX} bytes");
            return Err(wrong("more bytes".to_string(), expected));
        }
        let text: String = serde_json::from_slice(&line)
            .map_err(|e| wrong(json_complaint(&e), "a JSON string".to_string()))?;
        let encoded = tokenizer.encode_spans(&[text]).remove(0);
        let line = match arguments.decode {
            true => {
                let bytes: u64 = encoded.bytes(&tokenizer).sum();
                json!({ "ids": encoded.ids, "text": tokenizer.decode(&encoded.ids), "bytes": bytes })
            }
            false => json!(encoded.ids),
        };
        print_text(&format!("{line}\n"))?;
    }
    Ok(())
}
