//! `nerve data`: runs `prepare`, `synth`, `stats`, `export` and `bigrams`; `ngrams` has a file of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::answer::{note_sorted_on_disk, print, print_json, print_text, printable};
use super::ngrams;
use crate::cli::data::{
    BigramsArgs, DataCommand, ExportArgs, PrepareArgs, StatsArgs, SynthArgs, SynthKind,
};
use crate::collective::{Ranks, on_ranks};
use crate::data::bigram::{CountedPairs, HeldOut, PairFigures};
use crate::data::export::Export;
use crate::data::prepare::{Preparation, sentences};
use crate::data::question::{Question, question};
use crate::data::shard::Split;
use crate::data::statistics::{SplitStatistics, statistics};
use crate::data::story::story;
use crate::data::synthetic::RoutingTasks;
use crate::data::unknown;
use crate::data::{StartRule, TokenFormat, TokenSource, Tokenizer};
use crate::error::{Error, Problem};
use crate::file::write_file;
use crate::say::{note, say};
use crate::signal;

/// Runs a subcommand.
///
/// # Errors
/// The errors of the subcommand.
pub fn run(verb: &DataCommand) -> Result<(), Error> {
    match verb {
        DataCommand::Prepare(arguments) => prepare(arguments),
        DataCommand::Synth(arguments) => synth(arguments),
        DataCommand::Stats(arguments) => stats(arguments),
        DataCommand::Bigrams(arguments) => bigrams(arguments),
        DataCommand::Export(arguments) => export(arguments),
        DataCommand::Ngrams(arguments) => ngrams::run(arguments),
    }
}

fn prepare(arguments: &PrepareArgs) -> Result<(), Error> {
    let preparation = Preparation {
        files: arguments.files.clone(),
        output: arguments.output.clone(),
        tokenizer: arguments.tokenizer.clone(),
        reading: arguments.reading.rules(),
        specials: arguments.reading.specials,
        split: arguments.split,
        valid_fraction: arguments.valid,
        seed: arguments.seed,
        end_of_document: arguments.end_of_document,
        force: arguments.force,
    };
    let plan = preparation.plan()?;
    let tokenizer = plan.tokenizer();
    let mut facts = tokenizer.notes().to_vec();
    let losses = tokenizer.losses();
    facts.extend((!losses.is_empty()).then(|| format!("texts do not keep {}", losses.join(", "))));
    for fact in facts {
        note(&format!("{}: {fact}", arguments.tokenizer.display()));
    }
    if arguments.dry_run {
        return print(&format!("{}\n", plan.describe()));
    }
    let manifest = plan.stopped_by(signal::install()?).run()?;
    for sentence in sentences(&manifest) {
        note(&sentence);
    }
    for (name, counts) in &manifest.splits {
        say(&format!("{name}: {counts}"));
    }
    print_text(&format!("{}\n", arguments.output.display()))
}

/// On several ranks each counts the pairs of some sources, and the first writes and speaks.
fn bigrams(arguments: &BigramsArgs) -> Result<(), Error> {
    on_ranks(arguments.room.longest_wait(), |ranks| {
        bigrams_on(arguments, ranks)
    })
}

fn bigrams_on(arguments: &BigramsArgs, ranks: &Ranks) -> Result<(), Error> {
    let opened = || {
        refuse_existing(&arguments.output, arguments.force)?;
        let tokenizer = arguments.tokenizer.as_ref().map(Tokenizer::load);
        let tokenizer = tokenizer.transpose()?;
        let open = |path: &Path, stays: bool| {
            let format = arguments.format;
            open_to_count(TokenSource { path, format }, tokenizer.as_ref(), stays)
        };
        let split = open(&arguments.split, true)?;
        let start = match arguments.start {
            StartRule::Symbol => split.specials().start_symbol(),
            StartRule::FirstToken => None,
        };
        let mut held_out = Vec::new();
        for path in &arguments.valid {
            let other = open(path, false)?;
            other.require_like(&split)?;
            held_out.push(HeldOut::new(&other, start));
        }
        Ok((split, start, held_out))
    };
    let (split, start, mut held_out) = ranks.agree(opened())?;
    let room = arguments.room.room();
    let counted = CountedPairs::count(ranks, &split, start, &room)?;
    note_sorted_on_disk(counted.runs());
    let least = arguments.min_count;
    let PairFigures {
        pairs,
        edges,
        sha256,
    } = counted.write(&arguments.output, least, &mut held_out, &room.folder)?;
    if !ranks.is_first() {
        return Ok(());
    }
    let nodes = split.vocabulary_size();
    let density = edges as f64 / (nodes as f64).powi(2);
    let held_out = arguments.valid.iter().zip(&held_out);
    let held_out = held_out.map(|(path, of)| (path.display().to_string(), of.coverage()));
    let held_out: Vec<(String, f64)> = held_out.collect();
    if arguments.json {
        let one = |(path, share): &(String, f64)| json!({ "path": path, "coverage": share });
        let coverage: Vec<Value> = held_out.iter().map(one).collect();
        return print_json(&json!({
            "schema": 1, "output": arguments.output, "sha256": sha256, "nodes": nodes, "pairs": pairs,
            "edges": edges, "min_count": arguments.min_count, "density": density, "held_out": coverage,
        }));
    }
    let percent = 100.0 * density;
    say(&format!(
        "{nodes} nodes, {pairs} distinct pairs, {edges} seen at least {least} times ({percent:.2} % of all), sha256 {sha256}"
    ));
    for (path, share) in &held_out {
        let percent = 100.0 * share;
        say(&format!("{path}: {percent:.2} % of the pairs have an edge"));
    }
    print_text(&format!("{}\n", arguments.output.display()))
}

/// A split, or a file of another program with the tokenizer that was named. Ids that are read once, one after the other, stay on the
/// disk, if it is a split of ours.
fn open_to_count(
    source: TokenSource<'_>,
    tokenizer: Option<&Tokenizer>,
    stays: bool,
) -> Result<Split, Error> {
    let path = source.path;
    let Some(tokenizer) = tokenizer else {
        if !Split::is_prepared(path.into()) {
            let found = "token ids of another program";
            let problem = Problem::new(path, "", found, "a split of `nerve data prepare`");
            let advice = "name the tokenizer that made the ids with --tokenizer";
            return Err(Error::Invalid(problem.advise(advice)));
        }
        return match stays {
            true => Split::open_on_disk(path),
            false => Split::open(path),
        };
    };
    let split = Split::open_for(source, tokenizer)?;
    split.require(tokenizer, "name the tokenizer that made the ids")?;
    let said = split
        .reading()
        .map(|text| format!("{}: {text}", path.display()));
    said.iter().for_each(|sentence| note(sentence));
    Ok(split)
}

fn export(arguments: &ExportArgs) -> Result<(), Error> {
    refuse_existing(&arguments.output, arguments.force)?;
    let split = Split::open(&arguments.split)?;
    let is_numpy = arguments
        .output
        .extension()
        .is_some_and(|ending| ending == "npy");
    let format = arguments.format.unwrap_or(match is_numpy {
        true => TokenFormat::Npy,
        false => TokenFormat::LlmC,
    });
    let export = Export::new(&split, format)?;
    write_file(&arguments.output, |output| export.write(output))?;
    say(&export.describe());
    print_text(&format!("{}\n", arguments.output.display()))
}

fn synth(arguments: &SynthArgs) -> Result<(), Error> {
    let to_stdout = arguments.output == Path::new("-");
    if !to_stdout {
        refuse_existing(&arguments.output, arguments.force)?;
    }
    if arguments.samples == 0 {
        let problem = Problem::new("command line", "--samples", "0", "at least 1");
        return Err(Error::config(problem));
    }
    if arguments.dry_run {
        let (samples, output) = (arguments.samples, arguments.output.display());
        return print(&format!("write {samples} texts to {output}\n"));
    }
    let lines = lines(arguments.kind, arguments.seed, arguments.samples);
    match to_stdout {
        true => match write_lines(io::stdout().lock(), lines) {
            // Whoever reads has enough.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|e| Error::resource(&arguments.output, "write", e)),
        },
        false => {
            let bar = ProgressBar::new(arguments.samples);
            write_file(&arguments.output, |output| {
                write_lines(output, bar.wrap_iter(lines))
            })?;
            print_text(&format!("{}\n", arguments.output.display()))
        }
    }
}

/// One JSON object per text: the text, its labels and its place in the stream.
fn lines(kind: SynthKind, seed: u64, samples: u64) -> Box<dyn Iterator<Item = Value>> {
    let questions = move |kind| -> Box<dyn Iterator<Item = Value>> {
        Box::new((0..samples).map(move |index| question(kind, seed, index)))
    };
    match kind {
        SynthKind::Hops => questions(Question::Hops),
        SynthKind::Arithmetic => questions(Question::Arithmetic),
        SynthKind::Copying => questions(Question::Copying),
        SynthKind::Cloze => questions(Question::Cloze),
        SynthKind::Routing => {
            let samples = RoutingTasks::new(seed).take(samples as usize);
            Box::new(samples.map(|sample| json!(sample)))
        }
        SynthKind::Story => Box::new((0..samples).map(move |index| {
            let mut line = json!(story(seed, index));
            line["task"] = "story".into();
            line
        })),
    }
}

fn stats(arguments: &StatsArgs) -> Result<(), Error> {
    let statistics = statistics(&arguments.directory)?;
    if arguments.json {
        return print_json(&json!(statistics));
    }
    let mut tables = Vec::new();
    for (name, split) in &statistics.splits {
        tables.push(table(name, split, statistics.vocabulary_size));
        if let Some(warning) = unknown::warning(name, split.counts.unknown, split.counts.tokens) {
            note(&warning);
        }
    }
    print(&tables.join("\n"))
}

fn table(name: &str, split: &SplitStatistics, vocabulary_size: usize) -> String {
    let histogram = |counts: &BTreeMap<String, u64>| {
        let pair = |(label, count): (&String, &u64)| format!("{} {count}", printable(label));
        let pairs: Vec<String> = counts.iter().map(pair).collect();
        pairs.join(", ")
    };
    let counts = &split.counts;
    let rows = [
        ("documents", counts.documents.to_string()),
        ("tokens", counts.tokens.to_string()),
        ("bytes", counts.bytes.to_string()),
        ("tokens per byte", format!("{:.4}", split.tokens_per_byte)),
        (
            "<unk>",
            format!("{} ({:.2} %)", counts.unknown, 100.0 * split.unknown_share),
        ),
        (
            "ids in use",
            format!("{} of {vocabulary_size}", split.distinct_ids),
        ),
        ("duplicates", counts.duplicates.to_string()),
        ("also in train", counts.also_in_train.to_string()),
        ("difficulties", histogram(&split.difficulties)),
        ("tasks", histogram(&split.tasks)),
    ];
    let mut table = printable(name) + "\n";
    for (label, value) in rows {
        table += &format!("  {label:<16}{value}\n");
    }
    table
}

/// Refuses to write over a file unless forced to, and over a directory, a pipe or a device in any case.
pub(super) fn refuse_existing(path: &Path, force: bool) -> Result<(), Error> {
    let refuse = |found, advice| {
        let problem = Problem::new(path, "", found, "a free name");
        Err(Error::config(problem.advise(advice)))
    };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => refuse("a directory", "choose another --output"),
        Ok(metadata) if !metadata.is_file() => {
            refuse("a pipe, socket or device", "choose another --output")
        }
        Ok(_) if !force => refuse("an existing file", "choose another --output or add --force"),
        // What the system has against a name it says again when the file is written.
        _ => Ok(()),
    }
}

fn write_lines(output: impl Write, lines: impl Iterator<Item = Value>) -> io::Result<()> {
    let mut output = BufWriter::new(output);
    for line in lines {
        writeln!(output, "{line}")?;
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::manifest::SplitCounts;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn force_replaces_files_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let pipe = directory.path().join("pipe");
        fs::write(&file, "text").unwrap();
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let refusal = |path: &Path, force| {
            let error = refuse_existing(path, force).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let text = error.to_string();
            assert_eq!(text.lines().count(), 1);
            text
        };
        for force in [false, true] {
            assert!(refusal(&pipe, force).contains("found a pipe, socket or device"));
            assert!(refusal(directory.path(), force).contains("found a directory"));
        }
        assert!(refusal(&file, false).contains("found an existing file"));
        assert!(refuse_existing(&file, true).is_ok());
        assert!(refuse_existing(&directory.path().join("free"), false).is_ok());
    }

    #[test]
    fn a_stream_of_texts_has_its_number_and_its_labels_in_every_line() {
        let routing: Vec<Value> = lines(SynthKind::Routing, 1, 9).collect();
        let stories: Vec<Value> = lines(SynthKind::Story, 4, 9).collect();
        assert_eq!((routing.len(), stories.len()), (9, 9));
        for (index, (sample, line)) in routing.iter().zip(&stories).enumerate() {
            assert_eq!(sample["index"], index);
            assert_eq!(sample["difficulty"], index % 3);
            let made = story(4, index as u64);
            let expected = json!({
                "text": made.text, "task": "story", "difficulty": index % 4, "index": index, "events": made.events
            });
            assert_eq!(*line, expected);
        }
        assert_eq!(routing[0]["text"], "copy: 2 9 1 4 -> 2 9 1 4");
        assert_eq!(routing[3]["route"]["type"], "skip");
    }

    #[test]
    fn the_table_of_a_split_has_its_numbers_behind_their_names() {
        let split = SplitStatistics {
            counts: SplitCounts {
                documents: 2,
                tokens: 10,
                bytes: 4,
                unknown: 1,
                duplicates: 5,
                also_in_train: 6,
            },
            tokens_per_byte: 2.5,
            unknown_share: 0.1,
            distinct_ids: 3,
            difficulties: [("0".to_string(), 7), ("none".to_string(), 8)].into(),
            tasks: [("copy".to_string(), 9)].into(),
        };
        let table = table("valid", &split, 260);
        let rows: Vec<&str> = table.lines().map(str::trim).collect();
        let row = |name: &str, value: &str| format!("{name:<16}{value}");
        let expected = [
            "valid".to_string(),
            row("documents", "2"),
            row("tokens", "10"),
            row("bytes", "4"),
            row("tokens per byte", "2.5000"),
            row("<unk>", "1 (10.00 %)"),
            row("ids in use", "3 of 260"),
            row("duplicates", "5"),
            row("also in train", "6"),
            row("difficulties", "0 7, none 8"),
            row("tasks", "copy 9"),
        ];
        assert_eq!(rows, expected);
    }
}
