//! `nerve runs compare`: recipe keys that differ, metrics at equal steps and at equal tokens, and, where runs are measured on
//! the same data, the difference of their losses with an interval over its documents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::answer::{give, maybe, printable, table};
use super::super::losses;
use super::super::trained::Trained;
use super::logged::{self, Line};
use super::row::number;
use crate::cli::runs::CompareArgs;
use crate::cli::{Source, Weights};
use crate::data::{TokenFormat, TokenSource};
use crate::error::{Error, Problem};
use crate::ladder;
use crate::paired::Paired;
use crate::recipe::difference::{Values, differences, shown, values};
use crate::recipe::load_run;
use crate::run::checkpoint;
use crate::run::{RunDirectory, find};

/// They say where a run is, not what it is.
const PLACES: [&str; 2] = ["run.name", "run.root"];

/// Compares the first run with every other one.
///
/// # Errors
/// `Config` for a run that is named twice; else errors of finding and reading the runs.
pub fn compare(arguments: &CompareArgs) -> Result<(), Error> {
    let mut runs: Vec<RunDirectory> = Vec::new();
    for name in &arguments.runs {
        let run = find(name, &arguments.list.root)?;
        if runs.iter().any(|other| other.path() == run.path()) {
            let problem = Problem::typed("RUN", format!("{name:?} twice"), "different runs");
            return Err(Error::config(problem));
        }
        runs.push(run);
    }
    let changed = changed(&runs)?;
    let points = points(&runs);
    let documents = match arguments.no_documents {
        true => Documents::Not("--no-documents".to_string()),
        false => over_documents(&runs, arguments)?,
    };
    let names: Vec<String> = runs.iter().map(|run| printable(run.name())).collect();
    let object = || {
        let key = |(key, values): (&String, _)| json!({ "key": key, "values": values });
        json!({
            "schema": 1,
            "runs": runs.iter().map(RunDirectory::path).collect::<Vec<&Path>>(),
            "changed": changed.iter().map(key).collect::<Value>(),
            "points": points.iter().map(|point| point.json(&runs)).collect::<Value>(),
            "documents": documents.json(&runs),
        })
    };
    let text = || text(&names, &changed, &points, &documents);
    give(arguments.list.json, object, text)
}

/// Keys that are not the same in all runs, with the value in each.
type Changed = BTreeMap<String, Vec<Option<String>>>;

fn changed(runs: &[RunDirectory]) -> Result<Changed, Error> {
    let of_run = |run: &RunDirectory| Ok(values(load_run(&run.recipe(), &[])?.source()));
    let all: Vec<Values> = runs.iter().map(of_run).collect::<Result<_, Error>>()?;
    let mut changed = Changed::new();
    for other in &all[1..] {
        for one in differences(&all[0], other, &PLACES) {
            let value = |values: &Values| values.get(&one.key).cloned();
            changed.insert(one.key.clone(), all.iter().map(value).collect());
        }
    }
    Ok(changed)
}

/// What all runs measured at one point of their trainings.
struct Point {
    what: &'static str,
    split: String,
    /// A line of each run.
    lines: Vec<Line>,
}

impl Point {
    fn json(&self, runs: &[RunDirectory]) -> Value {
        let lines = self.lines.iter().zip(runs).map(|(line, run)| {
            json!({
                "run": run.path(), "step": line.step, "stage": line.stage, "tokens": line.tokens,
                "wall_s": line.wall_s, "numbers": line.numbers,
            })
        });
        json!({ "at": self.what, "split": self.split, "runs": lines.collect::<Value>() })
    }
}

/// Per split the last point that all runs have in steps, and in tokens.
fn points(runs: &[RunDirectory]) -> Vec<Point> {
    let logs: Vec<Vec<Line>> = runs.iter().map(logged::places).collect();
    let splits: BTreeSet<&String> = logs[0].iter().map(|line| &line.split).collect();
    let mut points = Vec::new();
    for split in splits {
        let of_split = |log: &Vec<Line>| -> Vec<Line> {
            let lines = log.iter().filter(|line| line.split == *split);
            lines.cloned().collect()
        };
        let logs: Vec<Vec<Line>> = logs.iter().map(of_split).collect();
        for (what, by) in [
            ("equal steps", (|line| line.step) as fn(&Line) -> u64),
            ("equal tokens", |line| line.tokens),
        ] {
            if let Some(mut lines) = last_common(&logs, by) {
                for (run, line) in runs.iter().zip(&mut lines) {
                    logged::fill(run, std::iter::once(line));
                }
                let split = split.clone();
                points.push(Point { what, split, lines });
            }
        }
    }
    points
}

/// The lines at the last point that every log has; where the logs share none, the last of each that is not behind any log's end.
fn last_common(logs: &[Vec<Line>], by: fn(&Line) -> u64) -> Option<Vec<Line>> {
    let has = |log: &Vec<Line>, at: u64| log.iter().any(|line| by(line) == at);
    let first = logs[0].iter().map(by);
    let shared = first.filter(|&at| logs.iter().all(|log| has(log, at)));
    let end_of = |log: &Vec<Line>| log.iter().map(by).max();
    // A point before the first step shows the initial values only.
    let end = || logs.iter().map(end_of).min().flatten();
    let at = shared.max().filter(|&at| at > 0).or_else(end)?;
    // Where a stage ends and another begins there are two lines: the first is of the stage that was trained until then.
    let of_log = |log: &Vec<Line>| {
        let nearest = log.iter().map(by).filter(|&point| point <= at).max()?;
        log.iter().find(|line| by(line) == nearest).cloned()
    };
    logs.iter().map(of_log).collect()
}

/// The comparison on the documents of one split.
enum Documents {
    /// Why there is none.
    Not(String),
    /// The split, and per run nats per token on it and what that is more than the first run's.
    Of {
        split: String,
        rows: Vec<(f64, Option<Paired>)>,
    },
}

impl Documents {
    fn json(&self, runs: &[RunDirectory]) -> Value {
        match self {
            Self::Not(why) => json!({ "why_not": why }),
            Self::Of { split, rows } => {
                let rows = rows.iter().zip(runs).map(|((loss, paired), run)| {
                    let paired = paired.map(|paired| {
                        json!({ "mean": paired.mean, "interval_95": paired.interval, "documents": paired.pairs })
                    });
                    json!({ "run": run.path(), "loss/lm": loss, "minus_first": paired })
                });
                json!({ "split": split, "runs": rows.collect::<Value>() })
            }
        }
    }
}

/// Measures every run on every document of the split that is named, or of the first validation split if all runs have the same.
fn over_documents(runs: &[RunDirectory], arguments: &CompareArgs) -> Result<Documents, Error> {
    let (split, format) = match &arguments.data {
        Some(split) => (split.clone(), None),
        None => match shared_split(runs)? {
            Ok(split) => split,
            Err(why) => return Ok(Documents::Not(why)),
        },
    };
    let mut measured: Vec<Vec<(f64, u64)>> = Vec::new();
    for run in runs {
        let source = Source {
            run: run.path().display().to_string(),
            root: arguments.list.root.clone(),
            best: arguments.best,
            weights: Weights::Trained,
            device: arguments.device.clone(),
            data: Vec::new(),
            json: false,
        };
        let trained = Trained::open(&source)?;
        let source = TokenSource {
            path: &split,
            format,
        };
        let splits = [(split.display().to_string(), source)];
        let data = trained.splits(&splits, 0, None)?;
        let mut losses = losses::measure(&trained, &data)?;
        measured.push(losses.swap_remove(0).documents);
    }
    let targets = |losses: &[(f64, u64)]| losses.iter().map(|one| one.1).collect::<Vec<u64>>();
    let differs = |losses: &Vec<(f64, u64)>| targets(losses) != targets(&measured[0]);
    if let Some(other) = measured.iter().position(differs) {
        let name = printable(runs[other].name());
        return Ok(Documents::Not(format!(
            "{name} is not measured on the targets of the first run: windows or beginnings of documents differ"
        )));
    }
    let row = |losses: &Vec<(f64, u64)>| {
        let nats: f64 = losses.iter().map(|one| one.0).sum();
        let all: u64 = losses.iter().map(|one| one.1).sum();
        let pairs = losses.iter().zip(&measured[0]);
        let units: Vec<_> = pairs.map(|(one, first)| (one.0 - first.0, one.1)).collect();
        (nats / all as f64, Paired::of_sums(&units))
    };
    let mut rows: Vec<_> = measured.iter().map(row).collect();
    rows[0].1 = None;
    Ok(Documents::Of {
        split: split.display().to_string(),
        rows,
    })
}

/// A file of tokens, with its format if a recipe says it.
type Split = (PathBuf, Option<TokenFormat>);

/// The first validation split, if all runs were measured on the same content; else why not.
fn shared_split(runs: &[RunDirectory]) -> Result<Result<Split, String>, Error> {
    let mut shared: Option<(Split, String)> = None;
    for run in runs {
        let name = printable(run.name());
        let Some(newest) = checkpoint::glance(run)? else {
            return Ok(Err(format!("{name} has no checkpoint")));
        };
        let mut recipe = load_run(&run.recipe(), &[])?;
        let path = recipe.data.valid[0].path.display().to_string();
        let Some(sha256) = newest.state.data_sha256.get(&path).cloned() else {
            return Ok(Err(format!("{name} does not know the content of {path}")));
        };
        match &shared {
            Some((_, first)) if *first != sha256 => {
                return Ok(Err(format!(
                    "the first validation split of {name} has other content than that of the first run; --data FILE names one"
                )));
            }
            Some(_) => {}
            None => {
                // Where it is now, if the run was moved; and what it was, if somebody prepared it again.
                ladder::find_inputs(&mut recipe, run, &[])?;
                let path = recipe.data.valid[0].path.clone();
                if let Err(problem) = recipe.elsewhere().check([&*path]) {
                    return Ok(Err(format!("{problem}")));
                }
                shared = Some(((path, recipe.data.valid[0].format), sha256));
            }
        }
    }
    let (split, _) = shared.expect("at least two runs were named");
    Ok(Ok(split))
}

fn text(names: &[String], changed: &Changed, points: &[Point], documents: &Documents) -> String {
    let mut keys = Vec::new();
    for (key, values) in changed {
        for (index, (value, name)) in values.iter().zip(names).enumerate() {
            let key = if index == 0 { key.as_str() } else { "" };
            keys.push([key.to_string(), name.clone(), shown(value.as_ref())]);
        }
    }
    let keys = match changed.len() {
        0 => "The recipes have the same values.\n".to_string(),
        _ => table("key | run | value", keys),
    };
    let mut rows = Vec::new();
    for point in points {
        let first = point.lines[0].number("loss/lm");
        for (index, (line, name)) in point.lines.iter().zip(names).enumerate() {
            let loss = line.number("loss/lm");
            let both = loss.zip(first).filter(|_| index > 0);
            let minus = both.map(|(loss, first)| loss - first);
            rows.push([
                point.what.to_string(),
                point.split.clone(),
                name.clone(),
                line.stage.clone(),
                line.step.to_string(),
                line.tokens.to_string(),
                number(loss),
                maybe(minus, |minus| format!("{minus:+.4}")),
                number(line.number("bits_per_byte")),
            ]);
        }
    }
    let points = match points.len() {
        0 => "The runs have logged nothing that could be held together.\n".to_string(),
        _ => table(
            "at | split | run | stage | step | tokens | loss/lm | minus first | bits/byte",
            rows,
        ),
    };
    format!("{keys}\n{points}\n{}", documents_text(names, documents))
}

fn documents_text(names: &[String], documents: &Documents) -> String {
    let (split, rows) = match documents {
        Documents::Not(why) => {
            return format!("No comparison over documents: {}.\n", printable(why));
        }
        Documents::Of { split, rows } => (split, rows),
    };
    let row = |((loss, paired), name): (&(f64, Option<Paired>), &String)| {
        let dashes = || ["-", "-", "-"].map(str::to_string);
        let [minus, interval, pairs] = paired.map_or_else(dashes, |paired| paired.cells());
        [name.clone(), number(Some(*loss)), minus, interval, pairs]
    };
    let head = "run | loss/lm | minus first | 95 % interval | documents";
    format!(
        "Nats per token on {}, by the newest checkpoints; the interval is Student's, over documents.\n{}",
        printable(split),
        table(head, rows.iter().zip(names).map(row))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(points: &[(u64, u64, f64)]) -> Vec<Line> {
        let line = |&(step, tokens, loss): &(u64, u64, f64)| Line {
            step,
            stage: "a".to_string(),
            split: "valid".to_string(),
            tokens,
            wall_s: 0.0,
            numbers: BTreeMap::from([("loss/lm".to_string(), loss)]),
        };
        points.iter().map(line).collect()
    }

    #[test]
    fn runs_are_held_together_where_both_have_been() {
        // The second run has batches of twice the size.
        let logs = [
            log(&[
                (0, 0, 6.0),
                (10, 100, 5.0),
                (20, 200, 4.0),
                (20, 200, 4.5),
                (30, 300, 3.0),
            ]),
            log(&[(0, 0, 6.0), (10, 200, 4.8), (20, 400, 3.8)]),
        ];
        let losses = |by| -> Vec<f64> {
            let lines = last_common(&logs, by).unwrap();
            lines
                .iter()
                .map(|line| line.number("loss/lm").unwrap())
                .collect()
        };
        assert_eq!(losses(|line| line.step), [4.0, 3.8]);
        assert_eq!(losses(|line| line.tokens), [4.0, 4.8]);
        // They share no point but the start: each as far as the shorter one got.
        let logs = [
            log(&[(0, 0, 6.0), (7, 70, 5.0)]),
            log(&[(0, 0, 6.0), (5, 50, 5.5), (10, 90, 4.0)]),
        ];
        let lines = last_common(&logs, |line| line.step).unwrap();
        assert_eq!([lines[0].step, lines[1].step], [7, 5]);
        assert!(last_common(&[log(&[(1, 1, 1.0)]), Vec::new()], |line| line.step).is_none());
    }

    #[test]
    fn what_is_less_than_in_the_first_run_stands_with_a_minus() {
        let names = ["a", "b"].map(str::to_string);
        let lines = [log(&[(10, 200, 4.0)]), log(&[(12, 300, 3.75)])].concat();
        let points = [Point {
            what: "equal tokens",
            split: "valid".to_string(),
            lines,
        }];
        // Differences −0.6 and −0.4: mean −0.5, s / √2 = 0.1, t of 1 is 12.7062.
        let documents = Documents::Of {
            split: "v.bin".to_string(),
            rows: vec![(2.0, None), (1.5, Paired::of(&[-0.6, -0.4]))],
        };
        let changed = Changed::from([("run.seed".to_string(), vec![Some("1".to_string()), None])]);
        let shown = text(&names, &changed, &points, &documents);
        let lines: Vec<String> = shown
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        for expected in [
            "equal tokens valid a a 10 200 4.0000 - -",
            "equal tokens valid b a 12 300 3.7500 -0.2500 -",
            "a 2.0000 - - -",
            "b 1.5000 -0.5000 -1.7706 to +0.7706 2",
        ] {
            assert!(
                lines.iter().any(|line| line == expected),
                "{expected}: {shown}"
            );
        }
        assert!(
            shown.contains("run.seed") && shown.contains("Nats per token on v.bin"),
            "{shown}"
        );
        let same = text(
            &names,
            &Changed::new(),
            &[],
            &Documents::Not("x".to_string()),
        );
        assert!(same.contains("The recipes have the same values."), "{same}");
        assert!(same.contains("No comparison over documents: x."), "{same}");
    }
}
