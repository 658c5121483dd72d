//! Checks whether a run matches its row of a sweep as defined now: recipe values, data, tokenizer and initial weights.

use crate::data::{Bigrams, Split, Tokenizer, list_of};
use crate::error::{Error, Problem};
use crate::file::{read_regular, read_text};
use crate::hash::hexadecimal;
use crate::recipe::difference::{Values, differences, shown, values};
use crate::recipe::source::{MAX_BYTES, Source};
use crate::recipe::{Checked, StageStart, load_run};
use crate::run::checkpoint::{self, Glance};
use crate::run::{Extension, InputRecord, RunDirectory, RunInfo};
use crate::say::note;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// They say where a run goes and what it is called, not what it is.
const PLACES: [&str; 2] = ["run.name", "run.root"];

/// So many differences are named in one line.
const MOST_NAMED: usize = 6;

/// Hashes of the files that recipes name; each is read once, however many rows name it.
#[derive(Default)]
pub struct Contents {
    read: BTreeMap<PathBuf, String>,
}

impl Contents {
    /// The hashes of all files that decide a recipe's run, by the path as the recipe has it.
    ///
    /// # Errors
    /// `Invalid` for the first that is missing or broken.
    fn of(&mut self, recipe: &Checked) -> Result<BTreeMap<String, String>, Error> {
        let mut contents = BTreeMap::new();
        let mut add = |path: &Path, read: &dyn Fn(&Path) -> Result<String, Error>| {
            if !self.read.contains_key(path) {
                self.read.insert(path.to_path_buf(), read(path)?);
            }
            contents.insert(path.display().to_string(), self.read[path].clone());
            Ok::<(), Error>(())
        };
        let tokenizer = |path: &Path| Ok(Tokenizer::load(path)?.sha256());
        add(&recipe.tokenizer.file, &tokenizer)?;
        let train = recipe.data.train.iter().map(|source| source.tokens());
        for source in train.chain(recipe.data.valid.iter().map(|source| source.tokens())) {
            add(source.path, &|_| Ok(Split::hashes(source)?.0))?;
            // The same ids may be other documents, or stand for other bytes.
            if Split::is_prepared(source) {
                let list = |_: &Path| Ok(Split::hashes(source)?.1.unwrap_or_default());
                add(&list_of(source.path), &list)?;
            }
        }
        if let Some(path) = recipe.model.counts() {
            add(path, &|path| Ok(Bigrams::load(path)?.sha256()))?;
        }
        if let crate::data::DifficultySource::File { path } = &recipe.data.difficulty {
            add(path, &sha256_of_file)?;
        }
        Ok(contents)
    }
}

fn sha256_of_file(path: &Path) -> Result<String, Error> {
    let expected = "a file of `nerve eval --difficulty`";
    let bytes = read_regular(path, expected, u64::MAX)?;
    Ok(hexadecimal(&Sha256::digest(bytes)))
}

/// A run on disk, with what is needed to compare it with its row.
pub struct Found {
    pub run: RunDirectory,
    pub info: RunInfo,
    /// Its newest checkpoint, if it has one.
    pub newest: Option<Glance>,
    /// The files that it took with it, or knows by their hash.
    inputs: Option<InputRecord>,
    /// How it went on after its end.
    extensions: Vec<Extension>,
}

impl Found {
    /// Reads what is needed to compare.
    ///
    /// # Errors
    /// `Invalid` if `run.json` or all checkpoints are broken.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let run = RunDirectory::open(path)?;
        Ok(Self {
            info: run.info()?,
            newest: checkpoint::glance(&run)?,
            inputs: InputRecord::read(&run)?,
            extensions: Extension::read(&run)?,
            run,
        })
    }

    /// All differences between the run and the recipe now, one text each: for a key, the value there and the value now.
    ///
    /// # Errors
    /// The errors of reading the recipes' files.
    pub fn differs(&self, recipe: &Checked, contents: &mut Contents) -> Result<Vec<String>, Error> {
        let now = contents.of(recipe)?;
        let (mut there, changed) = self.recipe()?;
        let mut here = values(recipe.source());
        for values in [&mut there, &mut here] {
            // What recipes mean that were written before there was a choice.
            let start = values.entry("data.start".to_string());
            start.or_insert_with(|| "\"first_token\"".to_string());
        }
        name_by_content(&mut there, &self.contents(), &mut here, &now);
        let mut found = Vec::new();
        if changed {
            found.push("its own recipe.toml was changed after it was trained".to_string());
        }
        let keys = differences(&there, &here, &PLACES);
        let texts = keys.iter().map(|one| {
            let [there, now] = [&one.first, &one.second].map(|value| shown(value.as_ref()));
            format!("{} is {there} there and {now} now", one.key)
        });
        found.extend(texts);
        found.extend(self.extensions.iter().map(|one| {
            let Extension { stage, from_step, to_step, .. } = one;
            format!("its stage {stage} went on from step {from_step} to {to_step}, after the end that its recipe gives it")
        }));
        found.extend(self.other_starts(recipe)?);
        Ok(found)
    }

    /// The values of its recipe, and whether the file is another than the one it was trained with.
    fn recipe(&self) -> Result<(Values, bool), Error> {
        let path = self.run.recipe();
        // Rules may have become stricter since: then its values count as they are written.
        let (values, sha256) = match load_run(&path, &[]) {
            Ok(recipe) => (values(recipe.source()), recipe.sha256()),
            Err(_) => {
                let expected = "the recipe of a run";
                let text = read_text(&path, expected, MAX_BYTES as u64)?;
                let sha256 = hexadecimal(&Sha256::digest(&text));
                let source = Source::parse(&path.display().to_string(), text);
                (values(&source.map_err(Error::Invalid)?), sha256)
            }
        };
        let newest = self.newest.as_ref();
        let changed = newest.is_some_and(|newest| newest.state.recipe_sha256 != sha256);
        Ok((values, changed))
    }

    /// The hashes of its files, by path; the tokenizer goes by its key, for its path is not kept with its hash.
    fn contents(&self) -> BTreeMap<String, String> {
        let (data, tokenizer) = match &self.newest {
            Some(Glance { state, .. }) => (&state.data_sha256, &state.tokenizer_sha256),
            None => (&self.info.data_sha256, &self.info.tokenizer_sha256),
        };
        let mut contents = data.clone();
        for file in self.inputs.iter().flat_map(|record| &record.files) {
            // Counts go by a hash of what they hold, which a checkpoint knows; the record has that of the file.
            let is_counts = |copy: &PathBuf| copy.ends_with("bigrams.safetensors");
            if !file.copy.as_ref().is_some_and(is_counts) {
                let path = file.path.display().to_string();
                contents.entry(path).or_insert_with(|| file.sha256.clone());
            }
        }
        if !tokenizer.is_empty() {
            contents.insert(TOKENIZER.to_string(), tokenizer.clone());
        }
        contents
    }

    /// Stages that took other weights from a run than that run has now.
    fn other_starts(&self, recipe: &Checked) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let begun = self.newest.as_ref().map(|newest| newest.state.stage_index);
        for (index, stage) in recipe.stage.iter().enumerate() {
            let StageStart::Run { path, step, .. } = &stage.start else {
                continue;
            };
            let (stage, from) = (&stage.name, path.display());
            let Some(started) = self.info.starts.get(stage) else {
                if begun.is_some_and(|begun| begun >= index) {
                    let run = self.run.path().display();
                    note(&format!(
                        "{run}: it does not say which weights stage {stage} took from {from}, so they are not compared"
                    ));
                }
                continue;
            };
            let now = RunDirectory::open(path).and_then(|run| match step {
                None => checkpoint::glance(&run),
                Some(step) => checkpoint::glance_at(&run, *step),
            });
            let now = match now {
                Ok(Some(glance)) if glance.weights_sha256 == started.weights_sha256 => continue,
                Ok(Some(glance)) => of_step(glance.state.step, &glance.weights_sha256),
                Ok(None) if *step == Some(started.step) => {
                    note(&format!(
                        "{from}: its checkpoint of step {} is gone, so its weights are not compared",
                        started.step
                    ));
                    continue;
                }
                Ok(None) => "without a checkpoint".to_string(),
                Err(_) => "not readable".to_string(),
            };
            let there = of_step(started.step, &started.weights_sha256);
            found.push(format!(
                "stage {stage} started from {from} {there}, which is {now} now"
            ));
        }
        Ok(found)
    }
}

/// How far the newest checkpoint of a run is, and which weights it has.
fn of_step(step: u64, sha256: &str) -> String {
    format!("at step {step} (weights {})", beginning(sha256))
}

fn beginning(sha256: &str) -> &str {
    sha256.get(..8).unwrap_or(sha256)
}

/// The key whose file is the tokenizer.
const TOKENIZER: &str = "tokenizer.file";

/// The path that a value of a recipe names, and the hash of what lies there.
fn content<'a>(
    contents: &'a BTreeMap<String, String>,
    value: &str,
) -> Option<(&'a String, &'a String)> {
    contents
        .iter()
        .find(|(path, _)| format!("{path:?}") == value)
}

/// Where both recipes name a file whose content is known, the contents are compared and not the paths.
fn name_by_content(
    there: &mut Values,
    contents_there: &BTreeMap<String, String>,
    here: &mut Values,
    contents_here: &BTreeMap<String, String>,
) {
    for (key, value) in here.iter_mut() {
        let Some(old) = there.get_mut(key) else {
            continue;
        };
        let tokenizer = contents_there.get(TOKENIZER).filter(|_| key == TOKENIZER);
        let was = tokenizer.or_else(|| Some(content(contents_there, old)?.1));
        let (Some(was), Some((_, is))) = (was, content(contents_here, value)) else {
            continue;
        };
        // Runs of before do not know the hash of the list.
        let list = |contents: &BTreeMap<String, String>, value: &str| {
            let (path, _) = content(contents, value)?;
            contents
                .get(&list_of(Path::new(path)).display().to_string())
                .cloned()
        };
        let lists = list(contents_there, old).zip(list(contents_here, value));
        let (what, was, is) = match lists {
            _ if was != is => ("", was.clone(), is.clone()),
            Some((was, is)) if was != is => ("documents ", was, is),
            _ => {
                old.clone_from(value);
                continue;
            }
        };
        *old = format!("{old} ({what}sha256 {})", beginning(&was));
        *value = format!("{value} ({what}sha256 {})", beginning(&is));
    }
}

/// Some of many differences, in one line.
pub fn named(differences: &[String]) -> String {
    let mut named: Vec<String> = differences.iter().take(MOST_NAMED).cloned().collect();
    if differences.len() > MOST_NAMED {
        named.push(format!("and {} more", differences.len() - MOST_NAMED));
    }
    named.join(", ")
}

/// The error for a run that does not match its row.
pub fn refusal(run: &Path, row: &str, seed: u64, differences: &[String]) -> Problem {
    let place = format!("row {row}, seed {seed}");
    let found = format!("a run of another definition: {}", named(differences));
    let problem = Problem::new(run, place, found, "what the row says now");
    problem.advise("undo the change, or train anew beside the old run with --again")
}
