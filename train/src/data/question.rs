//! Generates questions of graded difficulty for `nerve eval --tasks`: pointers to follow, sums, texts to copy, ends of stories.

use super::story::{self, Draws};
use brian::random;
use serde_json::{Value, json};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Where a letter leads after some hops; `query`, `choices`, `gold`.
    Hops,
    /// A sum of some terms; `prompt`, `target`.
    Arithmetic,
    /// Digits once more; `context`, `target`.
    Copying,
    /// Which of four ends a story has; `query`, `choices`, `gold`, and the whole `text`.
    Cloze,
}

/// Grades of difficulty; that of a question is `index mod 4`.
const GRADES: u64 = 4;

/// The question at an index of a seed's stream, made without any other, with its `difficulty` and its `index`.
pub fn question(kind: Question, seed: u64, index: u64) -> Value {
    let name = match kind {
        Question::Hops => "hops",
        Question::Arithmetic => "arithmetic",
        Question::Copying => "copying",
        Question::Cloze => "cloze",
    };
    let mut draws = Draws::new(random::key(seed, name, index));
    let grade = (index % GRADES) as usize;
    let mut question = match kind {
        Question::Hops => hops(&mut draws, grade + 1),
        Question::Arithmetic => arithmetic(&mut draws, grade + 2),
        Question::Copying => copying(&mut draws, [3, 6, 12, 24][grade]),
        Question::Cloze => {
            let (query, ends, gold) = story::with_ends(seed, index);
            let text = story::story(seed, index).text;
            json!({ "query": query, "choices": ends, "gold": gold, "text": text })
        }
    };
    question["task"] = name.into();
    question["difficulty"] = grade.into();
    question["index"] = index.into();
    question
}

/// Five letters, each of which leads to the next of a circle, told in any order.
fn hops(draws: &mut Draws, n_hops: usize) -> Value {
    let circle = draws.some(&["a", "b", "c", "d", "e"], 5);
    let told: Vec<String> = draws
        .some(&[0, 1, 2, 3, 4], 5)
        .into_iter()
        .map(|place| format!("{} to {}", circle[place], circle[(place + 1) % 5]))
        .collect();
    let choices = ["a", "b", "c", "d", "e"];
    let start = draws.below(5);
    let end = circle[(start + n_hops) % 5];
    let gold = choices.iter().position(|choice| *choice == end);
    json!({
        "query": format!("{}. {n_hops} from {}:", told.join(", "), circle[start]),
        "choices": choices, "gold": gold,
    })
}

fn arithmetic(draws: &mut Draws, n_terms: usize) -> Value {
    let terms: Vec<usize> = (0..n_terms).map(|_| draws.below(20)).collect();
    let told: Vec<String> = terms.iter().map(usize::to_string).collect();
    let sum: usize = terms.iter().sum();
    json!({ "prompt": format!("sum: {} =", told.join(" + ")), "target": format!(" {sum}") })
}

fn copying(draws: &mut Draws, n_digits: usize) -> Value {
    let digits: Vec<String> = (0..n_digits).map(|_| draws.below(10).to_string()).collect();
    let digits = digits.join(" ");
    json!({ "context": format!("copy: {digits} ->"), "target": format!(" {digits}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<'a>(question: &'a Value, field: &str) -> &'a str {
        question[field].as_str().unwrap()
    }

    #[test]
    fn every_answer_follows_from_its_question() {
        for index in 0..200 {
            let hops = question(Question::Hops, 3, index);
            let (told, asked) = text(&hops, "query").split_once(". ").unwrap();
            let (n, start) = asked.trim_end_matches(':').split_once(" from ").unwrap();
            let mut at = start;
            for _ in 0..n.parse().unwrap() {
                let pairs = told
                    .split(", ")
                    .map(|pair| pair.split_once(" to ").unwrap());
                at = pairs.clone().find(|(from, _)| *from == at).unwrap().1;
            }
            assert_eq!(hops["choices"][hops["gold"].as_u64().unwrap() as usize], at);
            assert_eq!(n.parse::<u64>().unwrap(), index % 4 + 1);

            let sum = question(Question::Arithmetic, 3, index);
            let terms = text(&sum, "prompt").strip_prefix("sum: ").unwrap();
            let terms = terms.trim_end_matches(" =").split(" + ");
            let total: u64 = terms.map(|term| term.parse::<u64>().unwrap()).sum();
            assert_eq!(text(&sum, "target"), format!(" {total}"));

            let copy = question(Question::Copying, 3, index);
            let digits = text(&copy, "context").strip_prefix("copy:").unwrap();
            assert_eq!(digits.strip_suffix(" ->"), Some(text(&copy, "target")));

            let cloze = question(Question::Cloze, 3, index);
            let ends = cloze["choices"].as_array().unwrap();
            let (gold, before) = (cloze["gold"].as_u64().unwrap(), text(&cloze, "query"));
            for (place, end) in (0..).zip(ends) {
                let whole = format!("{before} {}.", end.as_str().unwrap());
                assert_eq!(whole == text(&cloze, "text"), place == gold, "{whole}");
            }
            assert_eq!(ends.len(), 4);
        }
    }

    #[test]
    fn a_question_is_the_same_whatever_was_asked_before() {
        for kind in [
            Question::Hops,
            Question::Arithmetic,
            Question::Copying,
            Question::Cloze,
        ] {
            assert_eq!(question(kind, 1, 7), question(kind, 1, 7));
            assert_ne!(question(kind, 1, 7), question(kind, 2, 7));
        }
    }
}
