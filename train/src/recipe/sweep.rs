//! `Sweep`: reads and checks a sweep file (one question, one recipe, rows of overrides, several seeds) and makes the recipe of
//! every run; it starts none.
//!
//! Every row and seed is a recipe of its own, resolved like any other. `{seed}` in a value stands for the seed, so that a row can
//! start from the run of the same seed.

use crate::error::{Error, Problem};
use crate::file::read_text;
use crate::recipe::measure::measures;
use crate::recipe::nearest::nearest;
use crate::recipe::{Checked, load};
use crate::text::toml_complaint;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The format of sweeps.
const FORMAT: u32 = 1;

/// The row that the others are compared with.
pub const CONTROL: &str = "control";

/// How large a sweep may be, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The longest name of a run; the directory gets it.
const NAME_BYTES: usize = 100;

/// The keys of the file and what they are, for `nerve sweep --help` and the page about sweeps.
pub const KEYS: [(&str, &str); 9] = [
    ("format", "1, the format of the file"),
    (
        "question",
        "what the sweep is to find out; the table begins with it",
    ),
    (
        "recipe",
        "the recipe that every row changes, relative to where the program runs",
    ),
    (
        "seeds",
        "whole numbers, each once; every row is run with each, as run.seed",
    ),
    (
        "compare",
        "numbers of the last validation, by split and name: \"valid/loss/lm\"; each once",
    ),
    (
        "[[row]]",
        "a variant; the row named \"control\" is what the others are held against",
    ),
    (
        "row.name",
        "letters, digits, `.`, `_`, `-`; a run is called SWEEP-ROW-sSEED",
    ),
    (
        "row.recipe",
        "another recipe than the sweep's; may be left out",
    ),
    (
        "row.set",
        "paths of the recipe and their values, as --set takes them; {seed} stands for the seed",
    ),
];

/// A sweep as it is written; [`KEYS`] says what the fields mean.
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
    pub row: Vec<SweepRow>,
}

/// One variant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepRow {
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

impl Variant {
    /// The metrics in `compare` that this run will not have.
    pub fn lacks<'a>(&self, compare: &'a [String]) -> Vec<&'a str> {
        let has = measures(&self.recipe);
        let lacks = compare.iter().filter(|name| !has.contains(name));
        lacks.map(String::as_str).collect()
    }
}

impl Sweep {
    /// Reads a sweep.
    ///
    /// # Errors
    /// `Config` with everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = read_text(path, "a sweep", MAX_BYTES)?;
        let sweep: Self = toml::from_str(&text).map_err(|cause| {
            let (line, complaint) = toml_complaint(&cause, &text);
            let found = format!("line {line}: {complaint}");
            Error::config(Problem::new(path, "", found, "a sweep"))
        })?;
        let problems = sweep.problems(path);
        match problems.is_empty() {
            true => Ok(sweep),
            false => Err(Error::Config(problems)),
        }
    }

    fn problems(&self, path: &Path) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |place: &str, found: String, expected: &str| {
            problems.push(Problem::new(path, place, found, expected));
        };
        if self.format != FORMAT {
            wrong("", format!("format {}", self.format), "format 1");
        }
        if self.seeds.is_empty() {
            wrong("seeds", "none".to_string(), "at least one");
        }
        if let Some(seed) = repeated(&self.seeds) {
            wrong("seeds", format!("{seed} twice"), "every seed once");
        }
        if let Some(name) = repeated(&self.compare) {
            wrong("compare", format!("{name:?} twice"), "every number once");
        }
        if self.row.is_empty() {
            wrong("row", "none".to_string(), "at least one [[row]]");
        }
        let names: Vec<&String> = self.row.iter().map(|row| &row.name).collect();
        if let Some(name) = repeated(&names) {
            wrong("", format!("two rows {name:?}"), "a name for every row");
        }
        for row in &self.row {
            if !is_name(&row.name) {
                let expected = "letters, digits, `.`, `_`, `-`, beginning with a letter or digit: its runs are called so";
                wrong("row", format!("the name {:?}", row.name), expected);
            }
            for key in ["run.name", "run.seed"] {
                if row.set.keys().any(|set| set.replace(' ', "") == key) {
                    let place = format!("row {}, set", row.name);
                    let expected = "a key that the sweep does not set itself, from its name, its rows and its seeds";
                    wrong(&place, key.to_string(), expected);
                }
            }
        }
        problems
    }

    /// All runs, row after row; their names begin with `name`, that of the sweep.
    ///
    /// # Errors
    /// `Config` if the name cannot begin the name of a run; everything that is wrong with the recipes.
    pub fn variants(&self, name: &str) -> Result<Vec<Variant>, Error> {
        let longest = self.row.iter().map(|row| row.name.len()).max();
        let fits =
            name.len() + longest.unwrap_or(0) + "--s18446744073709551615".len() <= NAME_BYTES;
        if !is_name(name) || !fits {
            let expected = "letters, digits, `.`, `_`, `-`, beginning with a letter or digit, and with the longest row \
                            at most 77: runs are called so";
            let problem = Problem::new(
                "command line",
                "the sweep's file name",
                format!("{name:?}"),
                expected,
            );
            return Err(Error::config(problem.advise("rename the file")));
        }
        let (mut variants, mut problems) = (Vec::new(), Vec::new());
        for row in &self.row {
            for &seed in &self.seeds {
                match self.variant(name, row, seed) {
                    Ok(variant) => variants.push(variant),
                    Err(Error::Config(of_row)) => {
                        problems.extend(of_row.into_iter().map(|problem| in_row(problem, row)));
                        // The other seeds would say the same.
                        break;
                    }
                    Err(other) => return Err(other),
                }
            }
        }
        match problems.is_empty() {
            true => Ok(variants),
            false => Err(Error::Config(problems)),
        }
    }

    fn variant(&self, name: &str, row: &SweepRow, seed: u64) -> Result<Variant, Error> {
        let value = |value: &toml::Value| value.to_string().replace("{seed}", &seed.to_string());
        // A table before what is in it, and first of all its kind, on which hangs what it may hold.
        let mut in_order: Vec<_> = row.set.iter().collect();
        in_order.sort_by_key(|(path, _)| {
            (
                !path.trim_end().ends_with("kind"),
                path.matches('.').count(),
            )
        });
        let sets = in_order.into_iter();
        let mut sets: Vec<String> = sets
            .map(|(path, set)| format!("{path}={}", value(set)))
            .collect();
        sets.push(format!("run.seed={seed}"));
        sets.push(format!("run.name=\"{}\"", run_name(name, &row.name, seed)));
        Ok(Variant {
            row: row.name.clone(),
            seed,
            recipe: load(row.recipe.as_ref().unwrap_or(&self.recipe), &sets)?,
        })
    }

    /// Refuses names in `compare` that no run will have; says which rows lack one that others have.
    ///
    /// # Errors
    /// `Config` with every such name.
    pub fn check_compare(&self, file: &Path, variants: &[Variant]) -> Result<(), Error> {
        let known: BTreeSet<String> = variants
            .iter()
            .flat_map(|variant| measures(&variant.recipe))
            .collect();
        let unknown = self.compare.iter().filter(|name| !known.contains(*name));
        let problem = |name: &String| {
            let meant = nearest(name, known.iter().map(String::as_str));
            let advice = match (meant, known.len()) {
                (_, 0) => "no row validates: watch.valid_every_steps is 0".to_string(),
                (Some(meant), _) => format!("did you mean {meant:?}?"),
                (None, _) => {
                    let plain = known.iter().filter(|name| name.matches('/').count() < 3);
                    let names: Vec<&str> = plain.map(String::as_str).collect();
                    format!("there are {}", names.join(", "))
                }
            };
            let expected = "a number that the last validation of a row measures";
            Problem::new(file, "compare", format!("{name:?}"), expected).advise(advice)
        };
        let problems: Vec<Problem> = unknown.map(problem).collect();
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Error::Config(problems)),
        }
    }
}

/// Says of which row's recipe a problem is.
fn in_row(mut problem: Problem, row: &SweepRow) -> Problem {
    problem.place = match problem.place.is_empty() {
        true => format!("row {}", row.name),
        false => format!("row {}: {}", row.name, problem.place),
    };
    problem
}

fn run_name(sweep: &str, row: &str, seed: u64) -> String {
    format!("{sweep}-{row}-s{seed}")
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && !name.starts_with(['.', '-']) && name.bytes().all(allowed)
}

fn repeated<T: Ord>(values: &[T]) -> Option<&T> {
    let mut seen = BTreeSet::new();
    values.iter().find(|value| !seen.insert(*value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const HEAD: &str = "format = 1\nquestion = \"?\"\nrecipe = \"../assets/recipes/brian/tiny.toml\"\nseeds = [3, 4]\ncompare = []\n";

    fn of_text(text: &str) -> Result<Sweep, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.toml");
        fs::write(&path, text).unwrap();
        Sweep::load(&path)
    }

    fn sweep(rows: &str) -> Result<Sweep, Error> {
        of_text(&format!("{HEAD}{rows}"))
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
    fn another_kind_of_a_table_brings_its_own_keys() {
        let rows = "[[row]]\nname = \"muon\"\nset = { \"optimizer.adamw_rate\" = 0.5, \"optimizer.kind\" = \"muon\", \
                    \"optimizer.momentum\" = 0.9, \"optimizer.nesterov\" = true, \"optimizer.step_length\" = \"original\" }";
        let variants = sweep(rows).unwrap().variants("s").unwrap();
        assert_eq!(variants[0].recipe.optimizer.kind(), "muon");
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

    #[test]
    fn seeds_rows_and_names_are_checked_at_once() {
        let row = "[[row]]\nname = \"a\"\nset = {}\n";
        let text = format!("{HEAD}[[row]]\nname = \"a/b\"\nset = {{ \"run.seed\" = 3 }}\n");
        let text = text
            .replace("[3, 4]", "[3, 4, 3]")
            .replace("[]", "[\"x\", \"x\"]");
        let message = of_text(&text).unwrap_err().to_string();
        for expected in [
            "seeds: found 3 twice, expected every seed once",
            "compare: found \"x\" twice, expected every number once",
            "row: found the name \"a/b\", expected letters",
            "row a/b, set: found run.seed, expected a key that the sweep does not set itself",
        ] {
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(message.lines().count(), 4, "{message}");
        let none = of_text(&format!("{}row = []\n", HEAD.replace("[3, 4]", "[]"))).unwrap_err();
        let none = none.to_string();
        assert!(none.contains("seeds: found none"), "{none}");
        assert!(none.contains("row: found none"), "{none}");
        for name in ["my sweep", "..", "", &"x".repeat(90)] {
            let refused = sweep(row).unwrap().variants(name).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{name}");
        }
    }

    #[test]
    fn a_number_that_no_row_measures_is_refused_and_one_that_some_measure_is_not() {
        let rows = "[[row]]\nname = \"routed\"\nset = {}\n\
                    [[row]]\nname = \"plain\"\nrecipe = \"../assets/recipes/baseline/tiny.toml\"\nset = {}\n";
        let compare = |names: &str| {
            let text = format!(
                "{}{rows}",
                HEAD.replace("compare = []", &format!("compare = {names}"))
            );
            let sweep = of_text(&text).unwrap();
            let variants = sweep.variants("s").unwrap();
            let checked = sweep.check_compare(Path::new("s.toml"), &variants);
            checked.map(|()| {
                variants
                    .iter()
                    .map(|variant| variant.lacks(&sweep.compare).len())
                    .collect::<Vec<_>>()
            })
        };
        let found = compare("[\"valid/loss/lm\", \"valid/route/steps_mean\"]").unwrap();
        assert_eq!(found, [0, 0, 1, 1]);
        let message = compare("[\"valid/los/lm\", \"valid/perplexity\"]")
            .unwrap_err()
            .to_string();
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!(
            lines[0],
            "s.toml: compare: found \"valid/los/lm\", expected a number that the last validation of a row measures; \
             did you mean \"valid/loss/lm\"?"
        );
        assert!(
            lines[1].contains("\"valid/perplexity\"") && lines[1].contains("valid/bits_per_byte"),
            "{message}"
        );
    }

    #[test]
    fn the_keys_that_are_explained_are_the_keys_there_are() {
        // What serde lists when it meets a key that it does not know.
        let listed = |text: &str| -> Vec<String> {
            let message = toml::from_str::<Sweep>(text).unwrap_err().to_string();
            let list = message.split("expected one of ").nth(1).unwrap();
            list.split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_string)
                .collect()
        };
        let mut keys = listed("none = 1");
        keys.retain(|key| key != "row");
        keys.push("[[row]]".to_string());
        let of_rows = listed(&format!("{HEAD}[[row]]\nnone = 1"));
        keys.extend(of_rows.into_iter().map(|key| format!("row.{key}")));
        assert_eq!(KEYS.map(|(key, _)| key.to_string()).to_vec(), keys);
        let page = include_str!("../../../assets/README.md");
        for (key, what) in KEYS {
            assert!(
                page.contains(&format!("| `{key}` | {what} |")),
                "{key}: {what}"
            );
        }
    }
}
