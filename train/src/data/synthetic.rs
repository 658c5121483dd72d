//! Generates texts of seven small tasks with known difficulty, to test whether a router spends more steps on harder text.
//!
//! The texts equal those of the reference's Python generators bit for bit: one `random.Random(seed)` is shared by
//! all samples, the task is number `index mod 7` and the difficulty is `index mod 3`.

use serde::Serialize;

use super::random_python::PythonRandom;

/// The tasks, in the order of `index mod 7`.
pub const TASKS: [&str; 7] = [
    "copy",
    "reverse",
    "transform",
    "arithmetic",
    "rewrite",
    "parentheses",
    "repeat_transform",
];

/// One text with what is known about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// The task and its solution in one line.
    pub text: String,
    /// Which of [`TASKS`].
    pub task: &'static str,
    /// 0 easy, 1 medium, 2 hard.
    pub difficulty: u32,
    /// The position in the stream.
    pub index: u64,
    /// The route that the reference would expect.
    pub route: Route,
}

/// The route that the reference guesses for a sample. It is not for training: the reference never trained on it either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Its name.
    #[serde(rename = "type")]
    pub name: &'static str,
    /// Expected steps.
    pub length: u32,
    /// Expected recurrences.
    pub recurrences: u32,
    /// Expected skips.
    pub skips: u32,
}

/// The endless stream of samples of a seed.
pub struct RoutingTasks {
    random: PythonRandom,
    index: u64,
}

impl RoutingTasks {
    /// Starts at sample 0.
    pub fn new(seed: u64) -> Self {
        Self {
            random: PythonRandom::new(seed),
            index: 0,
        }
    }
}

impl Iterator for RoutingTasks {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        let index = self.index;
        self.index += 1;
        let task = TASKS[(index % 7) as usize];
        let difficulty = (index % 3) as usize;
        Some(Sample {
            text: text(&mut self.random, task, difficulty),
            task,
            difficulty: difficulty as u32,
            index,
            route: route(task, difficulty),
        })
    }
}

fn text(random: &mut PythonRandom, task: &str, difficulty: usize) -> String {
    let digits = [4, 8, 16][difficulty];
    match task {
        "copy" => {
            let x = draw_digits(random, digits);
            format!("copy: {} -> {}", joined(&x), joined(&x))
        }
        "reverse" => {
            let x = draw_digits(random, digits);
            let reversed: Vec<i64> = x.iter().rev().copied().collect();
            format!("reverse: {} -> {}", joined(&x), joined(&reversed))
        }
        "transform" => {
            let x = draw_digits(random, digits);
            let shifted = joined(&shifted(&x, 1));
            format!("transform +1 mod10: {} -> {shifted}", joined(&x))
        }
        "arithmetic" => {
            let terms = (0..[2, 4, 8][difficulty]).map(|_| random.randint(0, 20));
            let terms: Vec<i64> = terms.collect();
            let sum: i64 = terms.iter().sum();
            let terms: Vec<String> = terms.iter().map(i64::to_string).collect();
            format!("sum: {} = {sum}", terms.join(" + "))
        }
        "rewrite" => {
            let letters = (0..[6, 10, 18][difficulty]).map(|_| *random.choice(&['a', 'b', 'c']));
            let s: String = letters.collect();
            let upper = s.replace('a', "A").replace('c', "C");
            format!("rewrite a,c upper: {s} -> {upper}")
        }
        "parentheses" => parentheses(random, [2, 4, 8][difficulty]),
        _ => {
            let x = draw_digits(random, [3, 5, 8][difficulty]);
            let repeats = [1, 2, 4][difficulty];
            let shifted = joined(&shifted(&x, repeats));
            format!(
                "repeat transform +1 x{repeats}: {} -> {shifted}",
                joined(&x)
            )
        }
    }
}

fn parentheses(random: &mut PythonRandom, pairs: usize) -> String {
    let mut text = String::new();
    let (mut depth, mut deepest) = (0, 0);
    for _ in 0..pairs {
        text.push('(');
        depth += 1;
        deepest = deepest.max(depth);
        if random.random() < 0.45 {
            text.push(')');
            depth -= 1;
        }
    }
    text.push_str(&")".repeat(depth));
    format!("parentheses stack: {text} -> balanced depth {deepest}")
}

fn route(task: &str, difficulty: usize) -> Route {
    let name = match (difficulty, task) {
        (0, "copy" | "transform") => "early_exit",
        (0, _) => "skip",
        (1, "parentheses" | "repeat_transform") => "mixed",
        (1, _) => "advance",
        (_, "arithmetic" | "parentheses") => "late_exit",
        (_, _) => "recur",
    };
    let (length, recurrences, skips) = match name {
        "early_exit" => (1, 0, 1),
        "skip" => (2, 0, 1),
        "advance" => (4, 0, 0),
        "mixed" => (5, 1, 1),
        "recur" => (6, 2, 0),
        _ => (8, 2, 0),
    };
    Route {
        name,
        length,
        recurrences,
        skips,
    }
}

fn draw_digits(random: &mut PythonRandom, n: usize) -> Vec<i64> {
    (0..n).map(|_| random.randint(0, 9)).collect()
}

fn shifted(digits: &[i64], by: i64) -> Vec<i64> {
    digits.iter().map(|digit| (digit + by) % 10).collect()
}

fn joined(digits: &[i64]) -> String {
    let digits: Vec<String> = digits.iter().map(i64::to_string).collect();
    digits.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hexadecimal;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_first_thousand_texts_have_the_hash_of_the_reference() {
        let mut hash = Sha256::new();
        for sample in RoutingTasks::new(1).take(1000) {
            hash.update(sample.text + "\n");
        }
        let expected = "cff3349c6624957266dc8260ac9e4e07b2e8087de50c4bcd1aef64fa75662d09";
        assert_eq!(hexadecimal(&hash.finalize()), expected);
    }

    #[test]
    fn single_texts_equal_those_of_the_reference() {
        let samples: Vec<Sample> = RoutingTasks::new(1).take(21).collect();
        let golden = [
            (0, "copy: 2 9 1 4 -> 2 9 1 4"),
            (1, "reverse: 1 7 7 7 6 3 1 7 -> 7 1 3 6 7 7 7 1"),
            (3, "sum: 12 + 6 = 18"),
            (4, "rewrite a,c upper: bcacabbcab -> bCACAbbCAb"),
            (5, "parentheses stack: ()()(()()((()))) -> balanced depth 4"),
            (10, "sum: 11 + 15 + 0 + 15 = 41"),
            (
                20,
                "repeat transform +1 x4: 3 4 1 9 2 5 4 1 -> 7 8 5 3 6 9 8 5",
            ),
        ];
        for (index, text) in golden {
            assert_eq!(samples[index].text, text);
        }
    }

    #[test]
    fn the_first_text_has_the_text_and_token_hashes_of_the_reference() {
        let text = RoutingTasks::new(1).next().unwrap().text;
        let expected = "4543084aeec3a44b22392f7c11e77b9658e05dbf15fc9111399d4d1794985fc4";
        assert_eq!(hexadecimal(&Sha256::digest(&text)), expected);
        // The reference puts its own ids around the bytes: 256 begins, 257 ends.
        let ids = std::iter::once(256)
            .chain(text.bytes().map(u32::from))
            .chain([257]);
        let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
        let expected = "f7074f9b773ffd6c7cf7ae85884e6fb3723150e35083798cb2d1f0f2f0a82e9e";
        assert_eq!(hexadecimal(&Sha256::digest(ids.join(","))), expected);
    }

    #[test]
    fn labels_follow_task_and_difficulty() {
        let samples: Vec<Sample> = RoutingTasks::new(3).take(21).collect();
        let seen: std::collections::HashSet<_> =
            samples.iter().map(|s| (s.task, s.difficulty)).collect();
        assert_eq!(seen.len(), 21);
        let names: Vec<&str> = samples.iter().take(6).map(|s| s.route.name).collect();
        assert_eq!(
            names,
            [
                "early_exit",
                "advance",
                "recur",
                "skip",
                "advance",
                "late_exit"
            ]
        );
        assert_eq!(samples[5].route.length, 8);
    }
}
