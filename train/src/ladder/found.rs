//! Finds the files of a run, also after a move: its own copies first, then the old paths, then folders that the user named.
//!
//! A file is found if its hash is the recorded one. Runs that are older than this record have the hashes of their data and
//! of their tokenizer in `run.json`.

use crate::data::{DifficultySource, Manifest, Split, TokenSource, list_of};
use crate::error::{Error, Problem};
use crate::recipe::{Checked, StageStart};
use crate::run::{InputRecord, RunDirectory, RunInfo, file_sha256};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// How deep below a named folder is looked, and at how many entries.
const DEPTH: usize = 12;
const MOST_ENTRIES: usize = 100_000;

/// Changes the paths in a run's recipe to where its files are now. A file that is not found is an error only for callers
/// that need it, see [`Checked::elsewhere`].
///
/// # Errors
/// `Invalid` if the run's records are broken; `Config` if a named folder is not one.
pub fn find_inputs(
    recipe: &mut Checked,
    run: &RunDirectory,
    folders: &[PathBuf],
) -> Result<(), Error> {
    for folder in folders {
        if !folder.is_dir() {
            let path = folder.display().to_string();
            let problem = Problem::new("command line", "--data", path, "a folder");
            return Err(Error::config(problem));
        }
    }
    let record = InputRecord::read(run)?;
    let search = Search {
        places: places(recipe, run, record.as_ref()),
        record,
        info: run.info()?,
        run,
        files: folders
            .iter()
            .flat_map(|folder| files_below(folder))
            .collect(),
    };
    let mut found = Vec::new();
    let tokenizer = recipe.tokenizer.file.clone();
    let known = search.info.tokenizer_sha256.clone();
    found.push((
        tokenizer.clone(),
        search.small(&tokenizer, &known, &run.tokenizer()),
    ));
    if let DifficultySource::File { path } = &recipe.data.difficulty {
        found.push((path.clone(), search.small(path, "", Path::new(""))));
    }
    if let Some(path) = recipe.model.counts() {
        found.push((path.to_path_buf(), search.small(path, "", &run.bigrams())));
    }
    for stage in &recipe.stage {
        if let StageStart::Run { path, .. } = &stage.start {
            let mut candidates = search.candidates(path);
            let there = candidates.find(|path| path.join("run.json").is_file());
            found.push((path.clone(), there));
        }
    }
    let train = recipe.data.train.iter().map(|source| source.tokens());
    let valid = recipe.data.valid.iter().map(|source| source.tokens());
    let data: BTreeSet<TokenSource<'_>> = train.chain(valid).collect();
    let mut missing = Vec::new();
    for source in data {
        let path = source.path.to_path_buf();
        match search.data(source) {
            Ok(real) => found.push((path, Some(real))),
            Err(problem) => missing.push((path, problem)),
        }
    }
    recipe.relocate(|elsewhere| {
        for (path, real) in found {
            if let Some(real) = real {
                elsewhere.found(&path, real);
            }
        }
        for (path, problem) in missing {
            elsewhere.missing(&path, problem);
        }
    });
    Ok(())
}

/// What is known and where is looked.
struct Search<'a> {
    record: Option<InputRecord>,
    info: RunInfo,
    /// Directories from which relative paths may be meant, the likeliest first.
    places: Vec<PathBuf>,
    run: &'a RunDirectory,
    /// The files of the folders that were named.
    files: Vec<PathBuf>,
}

impl Search<'_> {
    /// A path of the recipe, from every place it may be meant from.
    fn candidates(&self, path: &Path) -> impl Iterator<Item = PathBuf> {
        let places = self.places.iter();
        let joined: Vec<PathBuf> = places.map(|place| place.join(path)).collect();
        joined.into_iter()
    }

    /// A file of which the run may have a copy, or had one when it was imported.
    fn small(&self, path: &Path, known: &str, imported: &Path) -> Option<PathBuf> {
        let record = self.record.as_ref().and_then(|record| record.of(path));
        let copy = record.and_then(|file| file.copy.as_ref());
        let copy = copy.map(|copy| self.run.path().join(copy));
        let own = (imported.file_name() == path.file_name()).then(|| imported.to_path_buf());
        let there: Vec<PathBuf> = copy
            .into_iter()
            .chain(own)
            .chain(self.candidates(path))
            .filter(|path| path.is_file())
            .collect();
        let sha256 = record.map_or(known, |file| file.sha256.as_str());
        if sha256.is_empty() {
            return there.into_iter().next();
        }
        let same = |path: &&PathBuf| file_sha256(path).as_deref() == Some(sha256);
        let extension = path.extension();
        let named = self.files.iter();
        let mut named = named.filter(|path| path.extension() == extension);
        // Of several that are all others, the first is the one that the error is to name.
        let found = there.iter().find(same).or_else(|| named.find(same));
        found.or(there.first()).cloned()
    }

    /// A prepared split, by the hash that its manifest promises; reading it holds it to that. A file of another program by its own.
    fn data(&self, source: TokenSource<'_>) -> Result<PathBuf, Problem> {
        let TokenSource { path, format } = source;
        let record = self.record.as_ref().and_then(|record| record.of(path));
        let written = path.display().to_string();
        let known = record
            .map(|file| &file.sha256)
            .or_else(|| self.info.data_sha256.get(&written));
        let there: Vec<PathBuf> = self
            .candidates(path)
            .filter(|path| path.is_file())
            .collect();
        let Some(sha256) = known else {
            // Killed before it saved anything: only the path is known.
            return Ok(there.into_iter().next().unwrap_or(path.to_path_buf()));
        };
        let list = self
            .record
            .as_ref()
            .and_then(|record| record.of(&list_of(path)))
            .filter(|_| source.may_be_prepared());
        let same_list = |path: &PathBuf| {
            list.is_none_or(|list| promised_sha256(&list_of(path)).as_ref() == Some(&list.sha256))
        };
        // A record has the list of documents of every split of ours; runs that are older than records know no other files.
        let is_theirs = record.is_some() && list.is_none();
        let hash = |found: &Path| {
            let source = TokenSource {
                path: found,
                format,
            };
            match Split::is_prepared(source) {
                true => promised_sha256(found).filter(|_| !is_theirs),
                false if !is_theirs || found.extension() != path.extension() => None,
                false => file_sha256(found),
            }
        };
        let same = |path: &&PathBuf| hash(path).as_deref() == Some(sha256) && same_list(path);
        let found = there
            .iter()
            .find(same)
            .or_else(|| self.files.iter().find(same));
        if let Some(found) = found {
            return Ok(found.clone());
        }
        let only_list = there
            .iter()
            .find(|path| hash(path).as_ref() == Some(sha256));
        let (place, found, expected) = match (there.first(), only_list.zip(list)) {
            (_, Some((path, list))) => (
                list_of(path),
                "other documents, or other bytes of them, than the run was made with",
                format!("the content with hash {}", list.sha256),
            ),
            (Some(changed), None) => (
                changed.clone(),
                "content that changed since the run was made",
                format!("the content with hash {sha256}"),
            ),
            (None, None) => {
                let expected = format!("the data of this run, with hash {sha256}");
                (path.to_path_buf(), "no such file", expected)
            }
        };
        let folder = "name a folder that holds them with --data DIR";
        let advice = match there.is_empty() {
            true => folder.to_string(),
            false => format!("put the old data back, or {folder}"),
        };
        Err(Problem::new(place, "", found, expected).advise(advice))
    }
}

/// The directories from which the run's relative paths may be meant: where it was started, where that would be if the
/// whole place has moved, and where one stands; the last comes first where nobody wrote down the first.
fn places(recipe: &Checked, run: &RunDirectory, record: Option<&InputRecord>) -> Vec<PathBuf> {
    let moved = place_of_root(run.path(), &recipe.run.root);
    let mut places: Vec<PathBuf> = match record {
        Some(record) => vec![record.directory.clone()],
        None => vec![PathBuf::new()],
    };
    places.extend(moved);
    places.push(PathBuf::new());
    // Messages then show paths as they are written.
    let here = std::env::current_dir().ok();
    for place in &mut places {
        if Some(&*place) == here.as_ref() {
            *place = PathBuf::new();
        }
    }
    places
}

/// `/x/runs/tiny` with the root `runs` was started in `/x`.
fn place_of_root(run: &Path, root: &Path) -> Option<PathBuf> {
    let run = fs::canonicalize(run).ok()?;
    let mut place = run.parent()?;
    for part in root.components().rev() {
        match part {
            Component::Normal(name) if place.file_name() == Some(name) => place = place.parent()?,
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(place.to_path_buf())
}

/// The hash that the manifest beside a `.bin` file, or beside its list of documents, promises.
fn promised_sha256(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let is_data = name.ends_with(".bin") || name.ends_with(".documents.jsonl");
    let manifest = is_data.then(|| Manifest::load(path.parent()?).ok())??;
    manifest.files.get(name).map(|file| file.sha256.clone())
}

/// The regular files below a folder, without following links to folders.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut entries) = (Vec::new(), 0);
    let mut open = vec![(folder.to_path_buf(), 0)];
    while let Some((folder, depth)) = open.pop() {
        let Ok(listed) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in listed.flatten() {
            entries += 1;
            if entries > MOST_ENTRIES {
                return files;
            }
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match is_folder {
                true if depth < DEPTH => open.push((path, depth + 1)),
                true => {}
                false if path.is_file() => files.push(path),
                false => {}
            }
        }
    }
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_run_is_the_folder_that_its_root_was_meant_from() {
        let place = tempfile::tempdir().unwrap();
        let run = place.path().join("out/runs/tiny");
        fs::create_dir_all(&run).unwrap();
        let canonical = fs::canonicalize(place.path()).unwrap();
        let of = |root: &str| place_of_root(&run, Path::new(root));
        assert_eq!(of("runs"), Some(canonical.join("out")));
        assert_eq!(of("./out/runs"), Some(canonical));
        assert_eq!(
            [of("other"), of("../runs"), of("/runs")],
            [None, None, None]
        );
    }
}
