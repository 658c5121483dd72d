//! The current locations of the files that a run's recipe names. The text of the recipe, and so its hash, stays unchanged.

use super::root::Recipe;
use super::stage::StageStart;
use crate::data::DifficultySource;
use crate::error::{Error, Problem};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Paths as written in the recipe, with the location of each file now, or why it was not found.
#[derive(Debug, Default)]
pub struct Elsewhere {
    found: BTreeMap<PathBuf, PathBuf>,
    missing: BTreeMap<PathBuf, Problem>,
}

impl Elsewhere {
    /// Records where a file is.
    pub fn found(&mut self, written: &Path, real: PathBuf) {
        self.found.insert(written.to_path_buf(), real);
    }

    /// Records that a file was not found, or only with another content.
    pub fn missing(&mut self, written: &Path, problem: Problem) {
        self.missing.insert(written.to_path_buf(), problem);
    }

    /// Checks that no file at these paths, as the recipe has them now, is recorded as missing.
    ///
    /// # Errors
    /// `Invalid` for the first that is.
    pub fn check<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) -> Result<(), Error> {
        let mut problems = paths.into_iter().filter_map(|path| self.missing.get(path));
        problems
            .next()
            .map_or(Ok(()), |problem| Err(Error::Invalid(problem.clone())))
    }

    /// Hashes by path, with the paths as written in the recipe.
    pub fn as_written(&self, hashes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut named = hashes.clone();
        let text = |path: &Path| path.display().to_string();
        for real in self.found.values() {
            named.remove(&text(real));
        }
        for (written, real) in &self.found {
            if let Some(hash) = hashes.get(&text(real)) {
                named.insert(text(written), hash.clone());
            }
        }
        named
    }

    /// Changes the paths in a recipe to where its files are.
    pub(super) fn apply(&self, recipe: &mut Recipe) {
        let change = |path: &mut PathBuf| {
            if let Some(real) = self.found.get(path) {
                path.clone_from(real);
            }
        };
        each_path(recipe, change);
    }
}

/// Shows every path of a file or a run that a recipe names.
fn each_path(recipe: &mut Recipe, mut change: impl FnMut(&mut PathBuf)) {
    change(&mut recipe.tokenizer.file);
    for source in &mut recipe.data.train {
        change(&mut source.path);
    }
    for source in &mut recipe.data.valid {
        change(&mut source.path);
    }
    if let DifficultySource::File { path } = &mut recipe.data.difficulty {
        change(path);
    }
    recipe.model.files().into_iter().for_each(&mut change);
    for stage in &mut recipe.stage {
        if let StageStart::Run { path, .. } = &mut stage.start {
            change(path);
        }
    }
}
