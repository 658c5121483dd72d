//! `nerve runs show`: prints one run with its times, data, stages and the keys that its recipe changed.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::super::answer::{aligned, maybe, print, print_json, printable, readable_bytes};
use super::row::{HEAD, RunRow};
use super::{CheckpointRow, checkpoints};
use crate::cli::runs::RunArgs;
use crate::data::{Manifest, Split, TokenSource};
use crate::error::Error;
use crate::recipe::difference::{Difference, differences, shown, values};
use crate::recipe::load::from_text;
use crate::recipe::{Checked, Recipe, load_run};
use crate::registry::registry;
use crate::run::checkpoint::{self, Glance};
use crate::run::{Extension, StartedFrom, find};

/// Keys that every run of a recipe may have of its own.
const OWN: [&str; 3] = ["run.name", "run.root", "run.seed"];

/// Prints the run.
///
/// # Errors
/// The errors of finding and reading the run.
pub fn show(arguments: &RunArgs) -> Result<(), Error> {
    let run = find(&arguments.run, &arguments.list.root)?;
    let info = run.info()?;
    let row = RunRow::new(&run, &info);
    let checkpoints = checkpoints(&run)?;
    let newest = checkpoint::glance(&run);
    let newest = newest.as_ref().ok().and_then(Option::as_ref);
    let extensions = Extension::read(&run)?;
    let recipe = load_run(&run.recipe(), &[]);
    let recipe = recipe.as_ref();
    let origin = recipe.ok().and_then(Origin::of);
    let data = recipe.map_or_else(|_| Vec::new(), |recipe| data(recipe, newest));
    let stages = recipe.map_or_else(|_| Vec::new(), |recipe| stages(recipe, &extensions, newest));
    if arguments.list.json {
        let stage = |[name, steps, what]: &[String; 3]| json!({ "name": name, "steps": steps, "what": what });
        return print_json(&json!({
            "schema": 1,
            "run": row,
            "info": info,
            "checkpoints": checkpoints,
            "seconds": newest.map(|newest| newest.state.wall_s),
            "tokens": newest.map(|newest| newest.state.tokens),
            "parameters": newest.map(|newest| newest.parameters),
            "data": data,
            "stages": stages.iter().map(stage).collect::<Value>(),
            "recipe": origin.as_ref().map(Origin::json),
        }));
    }
    let mut lines: Vec<[String; 2]> = Vec::new();
    let mut add = |name: &str, text: String| lines.push([name.to_string(), printable(&text)]);
    for (name, cell) in HEAD.split(" | ").zip(row.cells()) {
        add(name, cell);
    }
    for loss in [&row.train, &row.valid].into_iter().flatten() {
        let name = format!("{} loss is of", loss.split);
        add(&name, format!("stage {}, step {}", loss.stage, loss.step));
    }
    let known = |of: fn(&Glance) -> String| maybe(newest, of);
    add("time", known(|newest| seconds(newest.state.wall_s)));
    add(
        "tokens trained on",
        known(|newest| newest.state.tokens.to_string()),
    );
    add("parameters", known(|newest| newest.parameters.to_string()));
    let versions = info.versions.iter();
    let versions = versions.map(|(name, version)| format!("{name} {version}"));
    add("versions", versions.collect::<Vec<_>>().join(", "));
    add("backend", info.backend.clone());
    add("git", info.git.clone().unwrap_or("-".to_string()));
    for (stage, StartedFrom { path, step, .. }) in &info.starts {
        add(
            "started from",
            format!("stage {stage}: {path} at step {step}"),
        );
    }
    for [name, steps, what] in &stages {
        add("stage", format!("{name}: {steps} steps, {what}"));
    }
    for source in &data {
        add(source.role, source.text());
    }
    match (&origin, recipe) {
        (_, Err(problem)) => {
            let problem = problem.to_string().replace('\n', "; ");
            add("recipe", format!("cannot be read: {problem}"));
        }
        (Some(origin), _) => {
            for (name, text) in origin.lines() {
                add(name, text);
            }
        }
        (None, Ok(_)) => add("recipe", "like no bundled one".to_string()),
    }
    for CheckpointRow { path, bytes, .. } in checkpoints {
        let (path, size) = (path.display(), readable_bytes(bytes));
        add("checkpoint", format!("{path}  {size}"));
    }
    print(&aligned(&lines))
}

/// A time of training, for people.
fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.2} h", s / 3600.0),
    }
}

/// A file that the run learns from or is measured on.
#[derive(Serialize)]
struct Source {
    role: &'static str,
    path: String,
    sha256: Option<String>,
    /// Whether `nerve data prepare` made it.
    is_prepared: bool,
    /// These two are known if the prepared data is still the one it was trained on.
    tokens: Option<u64>,
    documents: Option<u64>,
}

impl Source {
    fn text(&self) -> String {
        let hash = match &self.sha256 {
            Some(sha256) => format!("sha256 {}", sha256.get(..16).unwrap_or(sha256)),
            None => "no hash kept yet".to_string(),
        };
        let counts = match self.tokens.zip(self.documents) {
            Some((tokens, documents)) => format!("{tokens} tokens of {documents} documents"),
            None if !self.is_prepared => "token ids of another program".to_string(),
            None => "not there any more, or another".to_string(),
        };
        format!("{}  {hash}  {counts}", self.path)
    }
}

fn data(recipe: &Checked, newest: Option<&Glance>) -> Vec<Source> {
    let train = recipe
        .data
        .train
        .iter()
        .map(|source| ("training data", source.tokens()));
    let valid = recipe
        .data
        .valid
        .iter()
        .map(|source| ("validation data", source.tokens()));
    let source = |(role, file): (&'static str, TokenSource<'_>)| {
        let path = file.path.display().to_string();
        let sha256 = newest.and_then(|newest| newest.state.data_sha256.get(&path));
        let is_prepared = Split::is_prepared(file);
        let counts = is_prepared.then(|| counts(file.path, sha256.map(String::as_str)));
        let (tokens, documents) = counts.flatten().unzip();
        Source {
            role,
            sha256: sha256.cloned(),
            is_prepared,
            path,
            tokens,
            documents,
        }
    };
    train.chain(valid).map(source).collect()
}

/// Tokens and documents of a prepared split, by the manifest beside it.
fn counts(path: &Path, sha256: Option<&str>) -> Option<(u64, u64)> {
    let manifest = Manifest::load(path.parent()?).ok()?;
    let file = manifest.files.get(path.file_name()?.to_str()?)?;
    let split = manifest.splits.get(path.file_stem()?.to_str()?)?;
    let same = sha256.is_none_or(|sha256| file.sha256 == sha256);
    same.then_some((split.tokens, split.documents))
}

/// Name, steps done of all, and how each stage stands.
fn stages(recipe: &Recipe, extensions: &[Extension], newest: Option<&Glance>) -> Vec<[String; 3]> {
    let at = newest.map(|newest| (newest.state.stage_index, newest.state.stage_step));
    let stages = recipe.stage.iter().enumerate().map(|(index, stage)| {
        // A stage that went on after its end has more steps than its recipe says.
        let mut later = extensions.iter().rev();
        let longer = later.find(|one| one.stage == stage.name);
        let steps = longer.map_or(stage.steps, |one| one.to_step);
        let done = match at {
            Some((stage_index, step)) if stage_index == index => step,
            Some((stage_index, _)) if stage_index > index => steps,
            _ => 0,
        };
        let how = match done {
            0 => "not begun",
            done if done == steps => "through",
            _ => "begun",
        };
        let done = format!("{done} of {steps}");
        [stage.name.clone(), done, how.to_string()]
    });
    stages.collect()
}

/// The bundled recipe that a run's recipe is nearest to, and the keys that are not as there.
struct Origin {
    name: String,
    changed: Vec<Difference>,
}

impl Origin {
    fn of(recipe: &Checked) -> Option<Self> {
        let own = values(recipe.source());
        let kind = recipe.model.kind();
        let recipes = registry().recipes().into_iter();
        let of_kind = recipes.filter(|bundled| bundled.kind == kind);
        let origins = of_kind.filter_map(|bundled| {
            let bundled_recipe = from_text("bundled", bundled.text.to_string(), &[]).ok()?;
            Some(Self {
                name: format!("{}/{}", bundled.kind, bundled.size),
                changed: differences(&values(bundled_recipe.source()), &own, &OWN),
            })
        });
        origins.min_by_key(|origin| origin.changed.len())
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let name = &self.name;
        let head = match self.changed.len() {
            0 => format!("as the bundled {name}"),
            n => format!("nearest is the bundled {name}; {n} keys are other ones"),
        };
        let line = |one: &Difference| {
            let [there, here] = [&one.first, &one.second].map(|value| shown(value.as_ref()));
            ("changed", format!("{} = {here}, there {there}", one.key))
        };
        let mut lines = vec![("recipe", head)];
        lines.extend(self.changed.iter().map(line));
        lines
    }

    fn json(&self) -> Value {
        let changed =
            |one: &Difference| json!({ "key": one.key, "bundled": one.first, "run": one.second });
        let changed: Value = self.changed.iter().map(changed).collect();
        json!({ "nearest_bundled": self.name, "changed": changed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::checkpoint::CheckpointState;

    #[test]
    fn a_time_is_told_in_seconds_minutes_or_hours() {
        assert_eq!([0.04, 119.94].map(seconds), ["0.0 s", "119.9 s"]);
        assert_eq!([120.0, 7199.0].map(seconds), ["2.0 min", "120.0 min"]);
        assert_eq!([7200.0, 9000.0].map(seconds), ["2.00 h", "2.50 h"]);
    }

    #[test]
    fn stages_are_through_begun_or_not_begun_with_the_steps_they_were_given() {
        let tiny = crate::recipe::bundled::BUNDLED
            .iter()
            .find(|one| (one.kind, one.size) == ("brian", "tiny"))
            .unwrap();
        let recipe = from_text("r.toml", tiny.text.to_string(), &[]).unwrap();
        let at = |stage_index, stage_step, extensions: &[Extension]| -> Vec<String> {
            let newest = Glance {
                path: Default::default(),
                state: CheckpointState {
                    stage_index,
                    stage_step,
                    ..CheckpointState::default()
                },
                weights_sha256: String::new(),
                parameters: 0,
            };
            let stages = stages(&recipe, extensions, Some(&newest)).into_iter();
            stages
                .map(|stage| format!("{} {}", stage[1], stage[2]))
                .collect()
        };
        assert_eq!(at(0, 0, &[]), ["0 of 150 not begun", "0 of 150 not begun"]);
        assert_eq!(at(0, 149, &[]), ["149 of 150 begun", "0 of 150 not begun"]);
        assert_eq!(
            at(1, 150, &[]),
            ["150 of 150 through", "150 of 150 through"]
        );
        let longer = [
            Extension::new("fixed", 150, 200, 1e-4),
            Extension::new("fixed", 200, 250, 1e-4),
        ];
        assert_eq!(
            at(1, 200, &longer),
            ["150 of 150 through", "200 of 250 begun"]
        );
        let none: Vec<[String; 3]> = stages(&recipe, &[], None);
        assert!(none.iter().all(|stage| stage[2] == "not begun"));
    }
}
