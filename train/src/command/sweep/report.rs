//! The result table of a sweep: per row and metric the mean over seeds, and the difference to the control, paired by seed.

use super::super::answer::table;
use crate::error::Error;
use crate::paired::Paired;
use crate::recipe::sweep::{CONTROL, Sweep};
use crate::run::replace_file;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A finished run.
#[derive(Serialize)]
pub struct Finished {
    pub row: String,
    pub seed: u64,
    /// Its directory.
    pub run: PathBuf,
    /// The numbers of its last validation.
    pub numbers: BTreeMap<String, f64>,
}

/// A failed run.
#[derive(Serialize)]
pub struct Failed {
    pub row: String,
    pub seed: u64,
    /// Why, in one line.
    pub problem: String,
}

/// The results of a sweep so far.
pub struct Report<'a> {
    pub sweep: &'a Sweep,
    pub finished: Vec<Finished>,
    pub failed: Vec<Failed>,
}

impl Report<'_> {
    /// The finished runs of a row.
    fn of_row<'b>(&'b self, row: &'b str) -> impl Iterator<Item = &'b Finished> {
        self.finished.iter().filter(move |run| run.row == row)
    }

    /// The values of a number in a row, by seed.
    fn values(&self, row: &str, number: &str) -> BTreeMap<u64, f64> {
        let value = |run: &Finished| Some((run.seed, *run.numbers.get(number)?));
        self.of_row(row).filter_map(value).collect()
    }

    /// What a row has more than the control on the seeds that both have; nothing for the control itself.
    fn difference(&self, row: &str, number: &str) -> Option<Paired> {
        let control = self.values(CONTROL, number);
        let pairs = self.values(row, number).into_iter();
        let differences: Vec<f64> = pairs
            .filter_map(|(seed, value)| Some(value - control.get(&seed)?))
            .collect();
        Paired::of(&differences).filter(|_| row != CONTROL)
    }

    /// The report as JSON.
    pub fn json(&self) -> Value {
        let rows = self.sweep.row.iter().flat_map(|row| {
            let of_number = |number: &String| {
                let values: Vec<f64> = self.values(&row.name, number).into_values().collect();
                let [mean, least, most] = summary(&values)?;
                Some(json!({
                    "row": row.name, "number": number, "runs": values.len(), "mean": mean, "from": least, "to": most,
                    "minus_control": self.difference(&row.name, number),
                }))
            };
            self.sweep.compare.iter().filter_map(of_number).collect::<Vec<Value>>()
        });
        json!({
            "schema": 1,
            "question": self.sweep.question,
            "runs": self.finished,
            "rows": rows.collect::<Value>(),
            "failed": self.failed,
        })
    }

    /// The report as a table, with the notes needed to read it.
    pub fn text(&self) -> String {
        let mut lines: Vec<[String; 9]> = Vec::new();
        for row in &self.sweep.row {
            let runs = self.of_row(&row.name).count();
            let failed = self.failed.iter().any(|run| run.row == row.name);
            if runs == 0 && !failed {
                continue;
            }
            let mut add = |runs: usize, cells: &[String]| {
                let mut line = std::array::from_fn(|_| "-".to_string());
                (line[0], line[1]) = (row.name.clone(), runs.to_string());
                line[2..][..cells.len()].clone_from_slice(cells);
                lines.push(line);
            };
            if self.sweep.compare.is_empty() || runs == 0 {
                add(runs, &[]);
                continue;
            }
            for number in &self.sweep.compare {
                let values: Vec<f64> = self.values(&row.name, number).into_values().collect();
                let mut cells = vec![number.clone()];
                let means = summary(&values).into_iter().flatten();
                cells.extend(means.map(|mean| format!("{mean:.4}")));
                let paired = self.difference(&row.name, number);
                cells.extend(paired.iter().flat_map(Paired::cells));
                add(values.len(), &cells);
            }
        }
        let head = "row | runs | number | mean | from | to | minus control | 95 % interval | pairs";
        let notes = self.notes().into_iter();
        let notes: String = notes.map(|note| note + "\n").collect();
        format!("{}\n{}{notes}", self.sweep.question, table(head, lines))
    }

    /// What is missing in the table and why.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let has_control = self.sweep.row.iter().any(|row| row.name == CONTROL);
        notes.push(match self.finished.iter().any(|run| run.row == CONTROL) {
            true => "Differences to the control are paired by seed; their interval is Student's, over the pairs. One pair has none."
                .to_string(),
            false if has_control => "No run of the control is here, so there are no differences.".to_string(),
            false => format!("No row is named {CONTROL:?}, so there are no differences."),
        });
        for row in &self.sweep.row {
            let (name, of) = (&row.name, self.of_row(&row.name).count());
            for number in &self.sweep.compare {
                let has = |run: &&Finished| run.numbers.contains_key(number);
                let without = of - self.of_row(name).filter(has).count();
                if without > 0 {
                    let note = format!("{number}: {without} of {of} runs of row {name} have none.");
                    notes.push(note);
                }
            }
        }
        notes.extend(self.failed.iter().map(|Failed { row, seed, problem }| {
            format!("Row {row}, seed {seed} failed: {problem}")
        }));
        notes
    }

    /// Keeps the table beside the runs: `ROOT/NAME.sweep.txt` and `.json`, each whole or not at all.
    ///
    /// # Errors
    /// `Resource` if they cannot be written.
    pub fn keep(&self, root: &Path, name: &str) -> Result<[PathBuf; 2], Error> {
        let files = ["txt", "json"].map(|end| root.join(format!("{name}.sweep.{end}")));
        let [text, object] = &files;
        replace_file(text, self.text().as_bytes())?;
        replace_file(object, format!("{:#}\n", self.json()).as_bytes())?;
        Ok(files)
    }
}

/// Mean, least and most; nothing of nothing.
fn summary(values: &[f64]) -> Option<[f64; 3]> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let least = values.iter().copied().reduce(f64::min)?;
    let most = values.iter().copied().reduce(f64::max)?;
    Some([mean, least, most])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::sweep::SweepRow;

    fn sweep(rows: &[&str]) -> Sweep {
        let row = |name: &&str| SweepRow {
            name: name.to_string(),
            recipe: None,
            set: BTreeMap::new(),
        };
        Sweep {
            format: 1,
            question: "?".to_string(),
            recipe: PathBuf::new(),
            seeds: vec![1, 2, 3],
            compare: vec![
                "valid/loss/lm".to_string(),
                "valid/route/steps_mean".to_string(),
            ],
            row: rows.iter().map(row).collect(),
        }
    }

    fn finished(row: &str, losses: &[f64]) -> Vec<Finished> {
        let run = |(seed, loss): (u64, &f64)| Finished {
            row: row.to_string(),
            seed,
            run: PathBuf::from(format!("runs/s-{row}-s{seed}")),
            numbers: BTreeMap::from([("valid/loss/lm".to_string(), *loss)]),
        };
        (1..).zip(losses).map(run).collect()
    }

    #[test]
    fn a_row_is_held_against_the_control_seed_by_seed() {
        let sweep = sweep(&["control", "wide", "one"]);
        let mut runs = finished("control", &[2.0, 3.0, 4.0]);
        // Differences −0.1, −0.3, −0.2: mean −0.2, s = 0.1, t of 2 is 4.302653, half 0.2484138.
        runs.extend(finished("wide", &[1.9, 2.7, 3.8]));
        runs.extend(finished("one", &[2.5]));
        let report = Report {
            sweep: &sweep,
            finished: runs,
            failed: vec![Failed {
                row: "one".to_string(),
                seed: 2,
                problem: "a gate".to_string(),
            }],
        };
        let paired = report.difference("wide", "valid/loss/lm").unwrap();
        let [low, high] = paired.interval.unwrap();
        assert!((paired.mean + 0.2).abs() < 1e-12);
        assert!(
            (low + 0.448_414).abs() < 1e-6 && (high - 0.048_414).abs() < 1e-6,
            "{low} {high}"
        );
        let text = report.text();
        let row = |name: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(name) && line.contains("loss/lm"));
            line.unwrap()
                .split_whitespace()
                .skip(1)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            row("wide"),
            "3 valid/loss/lm 2.8000 1.9000 3.8000 -0.2000 -0.4484 to +0.0484 3"
        );
        assert_eq!(
            row("one"),
            "1 valid/loss/lm 2.5000 2.5000 2.5000 +0.5000 none: one pair 1"
        );
        assert_eq!(row("control"), "3 valid/loss/lm 3.0000 2.0000 4.0000 - - -");
        assert!(
            text.contains("valid/route/steps_mean: 3 of 3 runs of row wide have none."),
            "{text}"
        );
        assert!(text.contains("Row one, seed 2 failed: a gate"), "{text}");
        let json = report.json();
        assert_eq!(json["rows"][1]["minus_control"]["pairs"], 3, "{json:#}");
        assert_eq!(json["failed"][0]["seed"], 2);
    }

    #[test]
    fn without_a_control_there_is_no_difference_and_that_is_said() {
        let sweep = sweep(&["a", "b"]);
        let report = Report {
            sweep: &sweep,
            finished: finished("a", &[1.0, 2.0]),
            failed: Vec::new(),
        };
        assert!(
            report.text().contains("No row is named \"control\""),
            "{}",
            report.text()
        );
        assert!(report.json()["rows"][0]["minus_control"].is_null());
    }

    #[test]
    fn pairs_are_of_equal_seeds_whatever_their_order_and_how_many_there_are() {
        let sweep = sweep(&["control", "late"]);
        let mut runs = finished("control", &[1.0, 10.0, 100.0]);
        // Seeds 4, 3 and 2: the control has no 4 and the row no 1.
        let late = [(4, 7.0), (3, 101.0), (2, 13.0)].map(|(seed, loss)| Finished {
            row: "late".to_string(),
            seed,
            run: PathBuf::new(),
            numbers: BTreeMap::from([("valid/loss/lm".to_string(), loss)]),
        });
        runs.extend(late);
        let report = Report {
            sweep: &sweep,
            finished: runs,
            failed: Vec::new(),
        };
        // 101 − 100 and 13 − 10: mean 2, s / √2 = 1, t of 1 is 12.7062.
        let paired = report.difference("late", "valid/loss/lm").unwrap();
        let [low, high] = paired.interval.unwrap();
        assert_eq!((paired.pairs, paired.mean), (2, 2.0));
        assert!(
            (low + 10.7062).abs() < 1e-4 && (high - 14.7062).abs() < 1e-4,
            "{low} {high}"
        );
        assert_eq!(report.difference(CONTROL, "valid/loss/lm"), None);
        assert_eq!(report.difference("late", "valid/route/steps_mean"), None);
        let json = report.json();
        let late = &json["rows"][1];
        assert_eq!(
            (&late["runs"], &late["from"], &late["to"]),
            (&3.into(), &7.0.into(), &101.0.into())
        );
        assert_eq!(late["mean"], 121.0 / 3.0);
        assert_eq!(late["minus_control"]["interval_95"], json!([low, high]));
    }
}
