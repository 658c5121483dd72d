//! `RouteReport`: counts, losses and FLOPs of all walks, and a few sequences token by token. Gives the rows, rates and collapse
//! warnings that the text and the page show, and JSON.

use super::{page, picture, terminal};
use brian::collapse::{Collapse, Mode};
use brian::route::action::Action;
use brian::route::trace::{Decisions, Walks};
use brian::stats::RouteCounts;
use serde_json::{Value, json};
use std::cmp::Reverse;

/// A note on the numbers.
pub(super) const NOTE: &str = "FLOPs are those of a forward pass; low and high bound the 95 % interval of the slope, over sequences.";

/// The rates shown, in this order, where they exist.
const RATES: [&str; 14] = [
    "steps_mean",
    "steps_easy",
    "steps_medium",
    "steps_hard",
    "difficulty_slope",
    "difficulty_slope_low",
    "difficulty_slope_high",
    "imitation_accuracy",
    "entropy",
    "out_probability",
    "load_entropy",
    "path_diversity",
    "exit_first",
    "exit_never",
];

/// The most tokens of a sequence that are shown.
pub(super) const MOST_TOKENS: usize = 512;

/// A report on the walks of a run.
#[derive(Clone, Debug, Default)]
pub struct RouteReport {
    /// The run and its step.
    pub title: String,
    /// Counts over all sequences.
    pub counts: RouteCounts,
    /// The losses and FLOPs of the passes.
    pub passes: Passes,
    /// A few sequences, token by token.
    pub sequences: Vec<Vec<ShownToken>>,
    /// Collapse modes that are no warning, because the stage's teacher walks like that.
    pub by_design: Vec<Mode>,
}

/// Sums over passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passes {
    /// Sum of `−ln p(target)`.
    pub nats: f64,
    /// The number of targets in that sum.
    pub targets: u64,
    /// Multiplications and additions of the actual walks; unknown where several paths are walked at once.
    pub flops: Option<f64>,
    /// The number of tokens in that sum, padding included.
    pub tokens: u64,
    /// The FLOPs that a decoder of as many blocks in a row would have needed.
    pub baseline_flops: f64,
}

impl Passes {
    /// Means by name, all of which are shown.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        let per = |sum: f64, n: u64| (n > 0).then(|| sum / n as f64);
        let of_token = self.flops.and_then(|flops| per(flops, self.tokens));
        let in_a_row = per(self.baseline_flops, self.tokens);
        let known = self.flops.filter(|_| self.baseline_flops > 0.0);
        let share = known.map(|flops| flops / self.baseline_flops);
        let named = [
            ("loss/lm", per(self.nats, self.targets)),
            ("flops_per_token", of_token),
            ("flops_per_token_of_all_blocks_in_a_row", in_a_row),
            ("flops_share_of_all_blocks_in_a_row", share),
        ];
        let known = |(name, value): (_, Option<f64>)| Some((name, value?));
        named.into_iter().filter_map(known).collect()
    }
}

/// A token and its walk.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownToken {
    /// Its text.
    pub text: String,
    /// Its actions; OUT is the last one where it ends the walk.
    pub actions: Vec<Action>,
    /// The router's probabilities at each of them, `[n_actions]`.
    pub probabilities: Vec<Vec<f32>>,
}

impl RouteReport {
    /// Shows a sequence of a batch: `texts` are those of its valid tokens.
    pub fn show(&mut self, walks: &Walks, row: usize, texts: Vec<String>) {
        let token = |(place, text): (usize, String)| {
            let token = row * walks.seq + place;
            let mut actions = walks.actions(token);
            let taken = actions.iter().position(|&action| action == Action::Out);
            if let (true, Some(last)) = (walks.hard_exit, taken) {
                actions.truncate(last + 1);
            }
            let steps = walks.steps[..actions.len()].iter();
            let thought = |step: &Decisions| {
                let of_token = step.probabilities.chunks(walks.n_pool + 1).nth(token);
                of_token.map(<[f32]>::to_vec).unwrap_or_default()
            };
            ShownToken {
                text,
                actions,
                probabilities: steps.map(thought).collect(),
            }
        };
        let texts = texts.into_iter().take(MOST_TOKENS);
        self.sequences.push(texts.enumerate().map(token).collect());
    }

    /// The report as JSON.
    pub fn json(&self) -> Value {
        let n_pool = self.counts.n_pool;
        let indices = |actions: &[Action]| -> Vec<usize> {
            actions.iter().map(|action| action.index(n_pool)).collect()
        };
        let rounded = |p: &f32| (f64::from(*p) * 1e4).round() / 1e4;
        let token = |token: &ShownToken| {
            let of_step = |step: &Vec<f32>| step.iter().map(rounded).collect::<Value>();
            let probabilities: Value = token.probabilities.iter().map(of_step).collect();
            json!({ "text": token.text, "actions": indices(&token.actions), "probabilities": probabilities })
        };
        let sequence = |sequence: &Vec<ShownToken>| sequence.iter().map(token).collect::<Value>();
        let path =
            |(path, share): (Vec<Action>, f64)| json!({ "path": indices(&path), "share": share });
        json!({
            "schema": 1,
            "title": self.title,
            "n_pool": n_pool,
            "tokens": self.counts.tokens,
            "numbers": self.counts.named(true),
            "passes": self.passes.named().into_iter().collect::<Value>(),
            "paths": self.top_paths(usize::MAX).into_iter().map(path).collect::<Value>(),
            "collapses": self.warnings(),
            "sequences": self.sequences.iter().map(sequence).collect::<Value>(),
        })
    }

    /// The report for a terminal of this width, with the `top` most frequent paths.
    pub fn terminal(&self, width: usize, top: usize) -> String {
        terminal::text(self, width, top)
    }

    /// The report as one self-contained HTML page.
    pub fn html(&self) -> String {
        page::page(self)
    }

    /// The flow of all tokens over the steps, as a standalone SVG.
    pub fn svg(&self) -> String {
        picture::flow(&self.counts)
    }

    /// The losses and FLOPs of the passes, as rows of a table.
    pub(super) fn costs(&self) -> Vec<[String; 2]> {
        let shown = |(name, value): (&str, f64)| {
            let value = match name.starts_with("flops_per") {
                true => format!("{value:.4e}"),
                false => format!("{value:.4}"),
            };
            [name.to_string(), value]
        };
        self.passes.named().into_iter().map(shown).collect()
    }

    /// The rates that say most about a router, in a fixed order, where they exist; a slope with its 95 % interval.
    pub(super) fn rates(&self) -> Vec<[String; 2]> {
        let named = self.counts.named(true);
        let value = |name: &&str| named.get(&format!("route/{name}")).copied();
        let known = RATES
            .iter()
            .filter_map(|name| Some((name.to_string(), value(name)?)));
        rows(known)
    }

    /// Numbers about reads of the memory, if there is one.
    pub(super) fn memory(&self) -> Vec<[String; 2]> {
        let mut named = self.counts.memory.named("memory");
        named.extend(self.counts.attended.named("attended"));
        rows(named)
    }

    /// How often each block followed each block, one row per block, in percent of all moves.
    pub(super) fn moves(&self) -> Vec<Vec<String>> {
        let total = self.counts.moves.iter().sum::<u64>().max(1) as f64;
        let share = |count: &u64| format!("{:.1}", 100.0 * *count as f64 / total);
        let rows = self.counts.moves.chunks(self.counts.n_pool.max(1));
        rows.map(|row| row.iter().map(share).collect()).collect()
    }

    /// The most frequent paths with their shares of all tokens.
    pub(super) fn top_paths(&self, top: usize) -> Vec<(Vec<Action>, f64)> {
        let n_pool = self.counts.n_pool;
        let known = |path: &Vec<usize>| path.iter().all(|&index| index <= n_pool);
        let action = |&index: &usize| Action::from_index(index, n_pool);
        let paths = self.counts.paths.iter().filter(|(path, _)| known(path));
        let mut paths: Vec<(&[usize], u64)> =
            paths.map(|(path, &n)| (path.as_slice(), n)).collect();
        paths.sort_by_key(|&(path, n)| (Reverse(n), path.len(), path));
        let share = |n: u64| n as f64 / self.counts.tokens as f64;
        let top = paths.into_iter().take(top);
        top.map(|(path, n)| (path.iter().map(action).collect(), share(n)))
            .collect()
    }

    /// Signs of a collapse, with what may help.
    pub(super) fn warnings(&self) -> Vec<String> {
        let describe = |collapse: Collapse| {
            let Collapse { mode, found, bound } = collapse;
            let (metric, advice) = (mode.metric(), mode.advice());
            format!("{metric} is {found:.3} (bound {bound}); {advice}")
        };
        let mut found = self.counts.collapses();
        found.retain(|collapse| !self.by_design.contains(&collapse.mode));
        found.into_iter().map(describe).collect()
    }
}

/// Numbers as rows of a table.
pub(super) fn rows(named: impl IntoIterator<Item = (String, f64)>) -> Vec<[String; 2]> {
    let row = |(name, value): (String, f64)| [name, format!("{value:.4}")];
    named.into_iter().map(row).collect()
}

/// The displayed name of an action in a single cell.
pub(super) fn mark(action: Action) -> String {
    name(action).replace("OUT", "·")
}

/// The displayed name of an action.
pub(super) fn name(action: Action) -> String {
    let block = action.block().map(|block| block.to_string());
    block.unwrap_or_else(|| "OUT".to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use brian::route::trace::{Decisions, Origin};

    /// Two sequences of two tokens in a pool of two: `0 1 OUT`, `OUT`, `1 1 1`, `0 OUT`.
    pub fn report(texts: [&str; 4]) -> RouteReport {
        let paths: [&[usize]; 4] = [&[0, 1, 2], &[2, 2, 2], &[1, 1, 1], &[0, 2, 2]];
        let left = |path: &[usize], step: usize| path[..step].contains(&2);
        let step = |step: usize| Decisions {
            actions: paths.iter().map(|path| path[step]).collect(),
            origins: paths
                .iter()
                .map(|path| {
                    if left(path, step) {
                        Origin::Left
                    } else {
                        Origin::Router
                    }
                })
                .collect(),
            fused: vec![false; 4],
            best: paths.iter().map(|path| path[step]).collect(),
            targets: None,
            probabilities: [0.5, 0.25, 0.25].repeat(4),
            likeliest: Vec::new(),
            capped: vec![false; 4],
        };
        let walks = Walks {
            batch: 2,
            seq: 2,
            n_pool: 2,
            max_steps: 3,
            hard_exit: true,
            steps: (0..3).map(step).collect(),
            ..Walks::default()
        };
        let mut report = RouteReport {
            title: "run <1>".to_string(),
            ..RouteReport::default()
        };
        report.counts.add(&walks, &[true; 4], &[None, None]);
        for (row, texts) in texts.chunks(2).enumerate() {
            report.show(
                &walks,
                row,
                texts.iter().map(|text| text.to_string()).collect(),
            );
        }
        report
    }

    #[test]
    fn a_walk_is_shown_up_to_its_exit() {
        let report = report(["a", "b", "c", "d"]);
        let actions: Vec<Vec<usize>> = report
            .sequences
            .concat()
            .into_iter()
            .map(|token| token.actions.iter().map(|a| a.index(2)).collect())
            .collect();
        assert_eq!(actions, [vec![0, 1, 2], vec![2], vec![1, 1, 1], vec![0, 2]]);
        let json = report.json();
        assert_eq!(json["sequences"][1][0]["text"], "c");
        assert_eq!(json["numbers"]["route/steps_mean"], 1.5);
        assert_eq!(json["paths"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn what_passes_gave_and_cost_is_a_mean_over_their_own_tokens() {
        let passes = Passes {
            nats: 6.0,
            targets: 3,
            flops: Some(100.0),
            tokens: 5,
            baseline_flops: 400.0,
        };
        let expected = [
            ("loss/lm", 2.0),
            ("flops_per_token", 20.0),
            ("flops_per_token_of_all_blocks_in_a_row", 80.0),
            ("flops_share_of_all_blocks_in_a_row", 0.25),
        ];
        assert_eq!(passes.named(), expected);
        let unknown = Passes {
            flops: None,
            ..passes
        };
        assert_eq!(unknown.named(), [expected[0], expected[2]]);
        let of_text = Passes {
            nats: 0.0,
            targets: 0,
            ..passes
        };
        assert_eq!(of_text.named(), expected[1..]);
        assert_eq!(Passes::default().named(), []);
    }

    #[test]
    fn paths_stand_by_their_number_then_by_their_length() {
        let mut report = report(["a", "b", "c", "d"]);
        let paths: Vec<Vec<usize>> = report
            .top_paths(9)
            .iter()
            .map(|(path, _)| path.iter().map(|a| a.index(2)).collect())
            .collect();
        // OUT is no part of a path: who left at once has an empty one.
        assert_eq!(paths, [vec![], vec![0], vec![0, 1], vec![1, 1, 1]]);
        assert!(report.top_paths(9).iter().all(|(_, share)| *share == 0.25));
        *report.counts.paths.get_mut(&vec![1, 1, 1]).unwrap() += 1;
        report.counts.tokens = 8;
        assert_eq!(report.top_paths(1), [(vec![Action::Block(1); 3], 0.25)]);
        // From block 0 to 1 once, from 1 to 1 twice.
        assert_eq!(report.moves(), [["0.0", "33.3"], ["0.0", "66.7"]]);
    }
}
