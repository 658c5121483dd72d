//! Sweeps: one question, one recipe, rows of overrides, several seeds.
//!
//! Every row and seed is a recipe of its own, resolved like any other. `{seed}` in a value stands for the seed, so that a row can
//! start from the run of the same seed.

use crate::error::{Error, Problem};
use crate::recipe::{Checked, load};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A sweep as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// The format of this file: 1.
    pub format: u32,
    /// What it is to find out.
    pub question: String,
    /// The recipe that every row changes, relative to the working directory.
    pub recipe: PathBuf,
    /// Every row is run with each.
    pub seeds: Vec<u64>,
    /// Numbers of the last validation that are put side by side: `valid/loss/lm`.
    pub compare: Vec<String>,
    /// The variants.
    pub row: Vec<Row>,
}

/// One variant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What its runs are called.
    pub name: String,
    /// Another recipe than the sweep's.
    pub recipe: Option<PathBuf>,
    /// Paths of the recipe and their values.
    pub set: BTreeMap<String, toml::Value>,
}

/// A run of a sweep.
#[derive(Debug)]
pub struct Variant {
    /// The row's name.
    pub row: String,
    /// Its seed.
    pub seed: u64,
    /// Its recipe.
    pub recipe: Checked,
}

impl Sweep {
    /// Reads a sweep.
    ///
    /// # Errors
    /// `Config` if it is no sweep, or a row has no name of its own.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let wrong =
            |found: String, expected: &str| Error::config(Problem::new(path, "", found, expected));
        let text =
            fs::read_to_string(path).map_err(|cause| Error::unreadable(path, "a sweep", cause))?;
        let sweep: Self = toml::from_str(&text).map_err(|cause| {
            let line = cause
                .span()
                .map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            wrong(format!("line {line}: {}", cause.message()), "a sweep")
        })?;
        let mut names = BTreeSet::new();
        if let Some(row) = sweep.row.iter().find(|row| !names.insert(&row.name)) {
            return Err(wrong(
                format!("two rows {:?}", row.name),
                "a name for every row",
            ));
        }
        match sweep.format {
            super::FORMAT => Ok(sweep),
            other => Err(wrong(format!("format {other}"), "format 1")),
        }
    }

    /// All runs, row after row; `name` is the sweep's, and the beginning of theirs.
    ///
    /// # Errors
    /// Everything that is wrong with the first recipe that has something wrong.
    pub fn variants(&self, name: &str) -> Result<Vec<Variant>, Error> {
        let pairs = self
            .row
            .iter()
            .flat_map(|row| self.seeds.iter().map(move |&seed| (row, seed)));
        pairs
            .map(|(row, seed)| self.variant(name, row, seed))
            .collect()
    }

    fn variant(&self, name: &str, row: &Row, seed: u64) -> Result<Variant, Error> {
        let value = |value: &toml::Value| value.to_string().replace("{seed}", &seed.to_string());
        let mut sets: Vec<String> = row
            .set
            .iter()
            .map(|(path, set)| format!("{path}={}", value(set)))
            .collect();
        sets.push(format!("run.seed={seed}"));
        sets.push(format!("run.name={}", run_name(name, &row.name, seed)));
        Ok(Variant {
            row: row.name.clone(),
            seed,
            recipe: load(row.recipe.as_ref().unwrap_or(&self.recipe), &sets)?,
        })
    }
}

fn run_name(sweep: &str, row: &str, seed: u64) -> String {
    format!("{sweep}-{row}-s{seed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(rows: &str) -> Result<Sweep, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.toml");
        let head = "format = 1\nquestion = \"?\"\nrecipe = \"../assets/recipes/brian/tiny.toml\"\nseeds = [3, 4]\ncompare = []\n";
        fs::write(&path, format!("{head}{rows}")).unwrap();
        Sweep::load(&path)
    }

    #[test]
    fn every_row_is_a_recipe_for_every_seed() {
        let rows = "[[row]]\nname = \"wide\"\n[row.set]\n\"model.exit\" = \"projection\"\n\
                    \"stage.baseline.start\" = { kind = \"run\", path = \"runs/p{seed}\" }";
        let variants = sweep(rows).unwrap().variants("s").unwrap();
        let names: Vec<&str> = variants
            .iter()
            .map(|v| v.recipe.run.name.as_str())
            .collect();
        assert_eq!(names, ["s-wide-s3", "s-wide-s4"]);
        assert!(variants[1].recipe.text().contains("runs/p4"));
        assert_eq!(variants[1].recipe.run.seed, 4);
    }

    #[test]
    fn mistakes_are_named() {
        let twice = "[[row]]\nname = \"a\"\nset = {}\n[[row]]\nname = \"a\"\nset = {}";
        assert!(sweep(twice).unwrap_err().to_string().contains("two rows"));
        let unknown = sweep("[[row]]\nname = \"a\"\nsets = {}")
            .unwrap_err()
            .to_string();
        assert!(
            unknown.contains("line 8") && unknown.contains("sets"),
            "{unknown}"
        );
        let path = "[[row]]\nname = \"a\"\nset = { \"model.n_pol\" = 3 }";
        let error = sweep(path).unwrap().variants("s").unwrap_err().to_string();
        assert!(error.contains("model.n_pool"), "{error}");
    }
}
