//! `nerve eval`: loss, perplexity and bits per byte on any prepared split.

use super::answer::{self, maybe, table};
use super::difficulty;
use super::losses::{Losses, measure};
use super::tasks;
use super::trained::Trained;
use crate::cli;
use crate::data::{Beginning, TokenSource, unknown};
use crate::error::{Error, Problem};
use crate::file;
use crate::learner::ValidationData;
use crate::say::note;
use crate::task::{Coverage, Measured, ratio_standard_error};
use brian::{BrianConfig, MemoryConfig};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Measures the splits and prints one row for each.
///
/// # Errors
/// `Invalid` if a split is broken, was made with another tokenizer or has nothing to predict; else see [`Trained::open`].
pub fn run(arguments: &cli::Eval) -> Result<(), Error> {
    if let Some(file) = &arguments.tasks {
        return tasks::run(file, arguments);
    }
    let mut source = arguments.source.clone();
    let files: Vec<PathBuf> = source.data.extract_if(.., |path| !path.is_dir()).collect();
    if arguments.difficulty.is_some() && !files.is_empty() {
        let expected = "no split beside --difficulty, which measures the recipe's own data";
        let found = files[0].display().to_string();
        return Err(Error::config(Problem::typed("--data", found, expected)));
    }
    if files.is_empty()
        && let Some(format) = arguments.format
    {
        let found = format!("{format:?} without a file of --data");
        let problem = Problem::typed(
            "--format",
            found,
            "a file of token ids that it is the format of",
        );
        return Err(Error::config(problem));
    }
    if let Some(file) = &arguments.difficulty {
        require_file_name(file)?;
    }
    let trained = Trained::open(&source)?;
    if arguments.without_memory {
        check_memory(&trained)?;
    }
    check_stride(arguments, &trained)?;
    if let Some(file) = &arguments.difficulty {
        difficulty::write(&trained, file)?;
    }
    let data = open(&trained, arguments, &files)?;
    for windows in data.sources() {
        let split = windows.split();
        let said = split
            .reading()
            .map(|text| format!("{}: {text}", split.path().display()));
        said.iter().for_each(|sentence| note(sentence));
    }
    let losses = measure(&trained, &data)?;
    let splits: Vec<(&String, &Losses)> = data.names().iter().zip(&losses).collect();
    for (name, losses) in &splits {
        unknown::sentence(name, losses.unknown, losses.measured.targets)
            .iter()
            .for_each(|sentence| note(sentence));
    }
    if files.is_empty() {
        say_folders(&source.data, &trained);
    }
    let checkpoint = &trained.loaded.path;
    let step = trained.loaded.snapshot.state.step;
    if arguments.source.json {
        let objects: Vec<Value> = splits.iter().map(|(name, l)| object(name, l)).collect();
        return answer::print_json(&trained.say_weights(json!({
            "schema": 1, "step": step, "checkpoint": checkpoint, "start": trained.recipe.data.start,
            "start_symbol": start_symbol(&trained),
            "window": trained.recipe.data.window, "stride": arguments.stride, "splits": objects,
        })));
    }
    let head = "split | documents | targets | bytes | loss/lm | standard error | perplexity | bits per byte";
    let rows = splits.iter().map(|(name, losses)| row(name, losses));
    let title = format!("step {step}, {}", trained.place());
    answer::print(&format!("{title}\n{}", table(head, rows)))?;
    let parts = splits
        .iter()
        .flat_map(|(name, l)| coverage(name, &l.measured));
    let parts: Vec<[String; 4]> = parts.collect();
    if parts.is_empty() {
        return Ok(());
    }
    let parts = table("split | pairs | tokens | loss/lm", parts);
    answer::print(&format!("\n{parts}"))
}

/// What stands before a document; nothing where the tokenizer has no such symbol, or the run is older than the choice.
fn start_symbol(trained: &Trained) -> Option<u32> {
    match Beginning::of(trained.recipe.data.start, &trained.tokenizer) {
        Beginning::Symbol(symbol) => Some(symbol),
        Beginning::Unmarked | Beginning::FirstToken => None,
    }
}

/// A folder of prepared splits that are not the run's is not what was measured.
fn say_folders(folders: &[PathBuf], trained: &Trained) {
    let valid = &trained.recipe.data.valid;
    let is_measured = |folder: &Path| valid.iter().any(|one| one.path.starts_with(folder));
    for folder in folders {
        if folder.join("manifest.json").is_file() && !is_measured(folder) {
            note(&format!(
                "{}: a folder is only looked into for files of the run; the run's own validation splits were measured, \
                 --data {} would measure that one",
                folder.display(),
                folder.join("valid.bin").display()
            ));
        }
    }
}

/// Refuses what a file would take the place of, as of a device, before the work.
fn require_file_name(path: &Path) -> Result<(), Error> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            let found = file::kind(metadata.file_type());
            let problem = Problem::new(path, "", found, "a file or a free name");
            Err(Error::config(problem.advise("choose another --difficulty")))
        }
        _ => Ok(()),
    }
}

/// A stride beyond the window would leave targets out.
fn check_stride(arguments: &cli::Eval, trained: &Trained) -> Result<(), Error> {
    let window = trained.recipe.data.window;
    match arguments.stride {
        Some(stride) if !(1..=window).contains(&stride) => {
            let expected = format!("1 to {window}, the recipe's data.window");
            let problem = Problem::typed("--stride", stride.to_string(), expected);
            Err(Error::config(problem))
        }
        _ => Ok(()),
    }
}

/// Losses apart by how often the pair was seen, where that is known.
fn coverage(name: &str, measured: &Measured) -> Vec<[String; 4]> {
    let Coverage { nats, targets } = measured.coverage;
    let parts = Coverage::NAMES.iter().zip(nats).zip(targets);
    let row = |((part, nats), targets): ((&&str, f64), u64)| {
        let (part, loss) = (part.to_string(), format!("{:.6}", nats / targets as f64));
        (targets > 0).then(|| [name.to_string(), part, targets.to_string(), loss])
    };
    parts.filter_map(row).collect()
}

fn open(
    trained: &Trained,
    arguments: &cli::Eval,
    files: &[PathBuf],
) -> Result<ValidationData, Error> {
    let named = files.iter().map(|path| {
        let format = arguments.format;
        (path.display().to_string(), TokenSource { path, format })
    });
    let own = trained.recipe.data.valid.iter();
    let own = own.map(|valid| (valid.name.clone(), valid.tokens()));
    let splits: Vec<(String, TokenSource<'_>)> = match files.is_empty() {
        true => {
            trained.check_data(own.clone().map(|(_, source)| source.path))?;
            own.collect()
        }
        false => named.collect(),
    };
    let data = trained.splits(&splits, arguments.tokens, arguments.stride)?;
    let mut route = trained.route();
    route.rules.without_memory |= arguments.without_memory;
    Ok(data.on(route))
}

/// Refuses to leave out a memory that is not there.
fn check_memory(trained: &Trained) -> Result<(), Error> {
    match trained.recipe.model.get::<BrianConfig>() {
        Some(config) if config.memory != MemoryConfig::None => Ok(()),
        _ => {
            let found = "a model without a memory";
            let expected = "a run whose model.memory is not \"none\"";
            let problem = Problem::typed("--without-memory", found, expected);
            Err(Error::config(problem))
        }
    }
}

fn object(name: &str, losses: &Losses) -> Value {
    let measured = &losses.measured;
    json!({
        "split": name,
        "documents": losses.n_documents(),
        "tokens": measured.targets,
        "targets": measured.targets,
        "unknown": losses.unknown,
        "bytes": measured.bytes,
        "loss/lm": measured.loss(),
        "standard_error": ratio_standard_error(&losses.documents),
        "perplexity": measured.loss().exp(),
        "bits_per_byte": measured.bits_per_byte(),
        "coverage": coverage(name, measured).iter().map(|[_, part, tokens, loss]| {
            json!({ "pairs": part, "tokens": tokens.parse::<u64>().ok(), "loss/lm": loss.parse::<f64>().ok() })
        }).collect::<Vec<Value>>(),
    })
}

fn row(name: &str, losses: &Losses) -> [String; 8] {
    let measured = &losses.measured;
    let error = ratio_standard_error(&losses.documents);
    [
        name.to_string(),
        losses.n_documents().to_string(),
        measured.targets.to_string(),
        measured.bytes.to_string(),
        format!("{:.6}", measured.loss()),
        maybe(error, |error| format!("{error:.6}")),
        format!("{:.4}", measured.loss().exp()),
        maybe(measured.bits_per_byte(), |bits| format!("{bits:.4}")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 12 nats on 6 targets of 8 bytes, in three documents and one that was not reached.
    fn losses() -> Losses {
        let mut measured = Measured {
            nats: 12.0,
            targets: 6,
            bytes: 8,
            ..Measured::default()
        };
        for (count, nats) in [
            (0, 6.0),
            (5, 4.0),
            (6, 1.0),
            (200, 0.5),
            (201, 0.25),
            (202, 0.25),
        ] {
            measured.coverage.add(count, nats);
        }
        Losses {
            measured,
            documents: vec![(4.0, 2), (5.0, 1), (0.0, 0), (3.0, 3)],
            unknown: 1,
        }
    }

    #[test]
    fn a_split_is_told_by_its_mean_its_error_its_perplexity_and_its_bits() {
        // Residuals 0, 3 and −3 around a mean of 2: √(3/2 · 18) / 6 = 0.866025; e² = 7.3891; 12 / ln 2 / 8 = 2.1640.
        assert_eq!(
            row("a", &losses()),
            [
                "a", "3", "6", "8", "2.000000", "0.866025", "7.3891", "2.1640"
            ]
        );
        let object = object("a", &losses());
        let number = |name: &str| object[name].as_f64().unwrap();
        assert!((number("standard_error") - 27f64.sqrt() / 6.0).abs() < 1e-12);
        assert!((number("perplexity") - 2f64.exp()).abs() < 1e-12);
        assert!((number("bits_per_byte") - 1.5 / std::f64::consts::LN_2).abs() < 1e-12);
        let counts =
            ["documents", "tokens", "targets", "unknown", "bytes"].map(|name| number(name) as u64);
        assert_eq!((counts, number("loss/lm")), ([3, 6, 6, 1, 8], 2.0));
        assert_eq!(object["coverage"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn parts_by_how_often_a_pair_was_seen_have_means_of_their_own() {
        let parts = coverage("a", &losses().measured);
        let shown: Vec<[&str; 3]> = parts
            .iter()
            .map(|[_, part, tokens, loss]| [part.as_str(), tokens, loss])
            .collect();
        assert_eq!(
            shown,
            [
                ["pairs never seen", "1", "6.000000"],
                ["seen 1 to 9 times", "2", "2.500000"],
                ["seen 100 times or more", "3", "0.333333"],
            ]
        );
    }

    #[test]
    fn one_document_has_no_error_and_no_byte_no_bits() {
        let losses = Losses {
            documents: vec![(12.0, 6)],
            measured: Measured {
                bytes: 0,
                ..losses().measured
            },
            unknown: 0,
        };
        let row = row("a", &losses);
        assert_eq!([&row[1], &row[5], &row[7]], ["1", "-", "-"]);
        assert!(object("a", &losses)["standard_error"].is_null());
    }
}
