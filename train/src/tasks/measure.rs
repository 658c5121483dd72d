//! `measure`: a task's answers and their figures, under the names of lm-eval: means with the standard error of a mean, and
//! perplexities.

use super::definition::Task;
use super::documents::{Document, documents};
use super::scorer::{Likelihood, Scorer, Silent, is_space};
use crate::error::Error;
use serde_json::{Map, Value, json};

/// What is known of a task.
#[derive(Debug)]
pub struct Results {
    /// Its name.
    pub name: String,
    /// Figures by name; the standard error where it is known.
    pub figures: Vec<(&'static str, f64, Option<f64>)>,
    /// One object per question.
    pub samples: Vec<Value>,
    /// Texts that lost their beginning.
    pub n_cut: u64,
}

/// Asks all questions of a task, at most `limit`.
///
/// # Errors
/// `Invalid`, naming file and line, for a question that cannot be asked.
pub fn measure(
    task: &Task,
    limit: Option<usize>,
    scorer: &mut Scorer<'_>,
) -> Result<Results, Error> {
    let documents = documents(task.files(), limit)?;
    scorer.n_cut = 0;
    let mut figures = Figures::default();
    let mut samples = Vec::with_capacity(documents.len());
    for (id, document) in documents.iter().enumerate() {
        let mut sample = ask(task, document, scorer, &mut figures)?;
        sample.insert("doc_id".to_string(), json!(id));
        sample.insert("doc".to_string(), json!(document.fields));
        samples.push(Value::Object(sample));
    }
    Ok(Results {
        name: task.name().to_string(),
        figures: figures.all(),
        samples,
        n_cut: scorer.n_cut,
    })
}

/// What the answers to a task's questions add up to.
#[derive(Default)]
struct Figures {
    /// By name, in the order in which they come.
    means: Vec<(&'static str, Vec<f64>)>,
    /// Logarithms whose mean is that of a perplexity.
    lns: Vec<f64>,
    /// The logarithm of all texts, their words and their bytes.
    texts: Option<(f64, u64, u64)>,
}

impl Figures {
    fn add(&mut self, name: &'static str, value: f64) {
        match self.means.iter_mut().find(|(of, _)| *of == name) {
            Some((_, values)) => values.push(value),
            None => self.means.push((name, vec![value])),
        }
    }

    fn all(self) -> Vec<(&'static str, f64, Option<f64>)> {
        let mut all = Vec::new();
        for (name, values) in self.means {
            let (mean, error) = mean(&values);
            all.push((name, mean, error));
        }
        if !self.lns.is_empty() {
            let (mean, error) = mean(&self.lns);
            let perplexity = (-mean).exp();
            // Of a function of a mean, to first order.
            all.push((
                "perplexity",
                perplexity,
                error.map(|error| error * perplexity),
            ));
        }
        if let Some((ln, words, bytes)) = self.texts {
            let per = |n: u64| -ln / n as f64;
            all.push(("word_perplexity", per(words).exp(), None));
            all.push(("byte_perplexity", per(bytes).exp(), None));
            all.push(("bits_per_byte", per(bytes) / std::f64::consts::LN_2, None));
        }
        all
    }
}

/// What the logarithm of an answer's probability is divided by.
type Length = fn(&str) -> f64;

/// Accuracies by logarithms per character and per byte, as lm-eval names them.
const NORMALISED: [(&str, Length); 2] = [
    ("acc_norm", |text| text.chars().count() as f64),
    ("acc_bytes", |text| text.len() as f64),
];

/// 1 if the answer with the largest logarithm per length is the right one, else 0.
fn right(lns: &[f64], texts: &[&str], length: Length, gold: usize) -> f64 {
    let each = lns.iter().zip(texts);
    let scores: Vec<f64> = each.map(|(ln, text)| ln / length(text)).collect();
    f64::from(u8::from(largest(&scores) == gold))
}

/// A mean and its standard error; none of a single value.
fn mean(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt() / n.sqrt());
    (mean, error)
}

fn ask(
    task: &Task,
    document: &Document,
    scorer: &mut Scorer<'_>,
    figures: &mut Figures,
) -> Result<Map<String, Value>, Error> {
    let silent = |why: Silent| document.problem(why.found(), "a question that can be asked");
    let mut sample = Map::new();
    let mut note = |name: &str, value: Value| sample.insert(name.to_string(), value);
    let shown =
        |of: &[Likelihood]| -> Value { of.iter().map(|of| json!([of.ln, of.is_greedy])).collect() };
    let mut choose = |context: &str, answers: &[String], lengths: &[&str], gold: usize| {
        let found = answers.iter().map(|answer| scorer.behind(context, answer));
        let found: Vec<Likelihood> = found.collect::<Result<_, _>>().map_err(silent)?;
        let lns: Vec<f64> = found.iter().map(|of| of.ln).collect();
        let right = |length: Length| right(&lns, lengths, length, gold);
        figures.add("acc", right(|_| 1.0));
        let normalised = NORMALISED.map(|(name, length)| (name, right(length)));
        Ok::<_, Error>((normalised, found))
    };
    match task {
        Task::Pairs { good, bad, .. } => {
            let texts = [document.text(good)?, document.text(bad)?];
            let (_, found) = choose("", &texts.map(str::to_string), &texts, 0)?;
            note("resps", shown(&found));
            note("target", json!(0));
        }
        Task::Choices {
            query,
            choices,
            gold,
            delimiter,
            ..
        } => {
            let answers = document.texts(choices)?;
            let place = document.place(gold, &answers)?;
            let behind: Vec<String> = answers
                .iter()
                .map(|it| format!("{delimiter}{it}"))
                .collect();
            let (normalised, found) = choose(document.text(query)?, &behind, &answers, place)?;
            for (name, value) in normalised {
                figures.add(name, value);
            }
            note("resps", shown(&found));
            note("target", json!(place));
        }
        Task::Continuation {
            context, target, ..
        } => {
            let (context, target) = (document.text(context)?, document.text(target)?);
            let found = scorer.behind(context, target).map_err(silent)?;
            figures.add("acc", f64::from(u8::from(found.is_greedy)));
            figures.lns.push(found.ln);
            note("resps", shown(&[found]));
            note("target", json!(target));
        }
        Task::Perplexity { text, .. } => {
            let text = document.text(text)?;
            let ln = scorer.whole(text).map_err(silent)?;
            let (sum, words, bytes) = figures.texts.get_or_insert_default();
            *sum += ln;
            *words += n_words(text);
            *bytes += text.len() as u64;
            note("resps", json!([ln]));
        }
        Task::Generation {
            prompt,
            target,
            stop,
            max_tokens,
            ..
        } => {
            let target = document.text(target)?;
            let found = scorer.go_on(document.text(prompt)?, stop, *max_tokens);
            let found = found.map_err(silent)?;
            figures.add("exact_match", f64::from(u8::from(found == target)));
            note("resps", json!([found]));
            note("target", json!(target));
        }
    }
    Ok(sample)
}

/// The place of the largest; the first among equals.
fn largest(values: &[f64]) -> usize {
    let places = 0..values.len();
    places
        .reduce(|best, next| {
            if values[next] > values[best] {
                next
            } else {
                best
            }
        })
        .expect("there are answers")
}

/// Pieces between runs of white space, as Python's `re.split(r"\s+", text)` counts them.
fn n_words(text: &str) -> u64 {
    let (mut n, mut was_space) = (1, false);
    for c in text.chars() {
        let is_space = is_space(c);
        n += u64::from(is_space && !was_space);
        was_space = is_space;
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_python_splits() {
        let cases = [
            ("", 1),
            ("a", 1),
            ("a b", 2),
            ("  a  b\n\tc ", 5),
            ("a\u{1f}b\u{3000}c", 3),
        ];
        for (text, n) in cases {
            assert_eq!(n_words(text), n, "{text:?}");
        }
    }

    #[test]
    fn means_have_the_error_of_a_sample_and_perplexities_that_of_their_exponent() {
        let mut figures = Figures::default();
        for value in [1.0, 0.0, 0.0, 1.0] {
            figures.add("acc", value);
        }
        figures.lns = vec![-1.0, -3.0];
        figures.texts = Some((-12.0, 4, 24));
        let all = figures.all();
        // Squares add up to 1, over 3, root 0.577, over root 4.
        let error = (1.0f64 / 3.0).sqrt() / 2.0;
        assert_eq!(all[0], ("acc", 0.5, Some(error)));
        // Mean -2 with the error 1.
        let e2 = 2f64.exp();
        assert_eq!(all[1].1, e2);
        assert!((all[1].2.unwrap() - e2).abs() < 1e-12);
        assert_eq!(all[2], ("word_perplexity", 3f64.exp(), None));
        assert_eq!(all[3], ("byte_perplexity", 0.5f64.exp(), None));
        assert!((all[4].1 - 0.5 / std::f64::consts::LN_2).abs() < 1e-12);
        assert_eq!(mean(&[3.0]), (3.0, None));
    }

    #[test]
    fn an_answer_is_best_by_its_logarithm_per_character_or_per_byte() {
        // One character of two bytes, and two of one byte: -3 and -2 per character, -1.5 and -2 per byte.
        let (lns, texts) = ([-3.0, -4.0], ["ä", "ab"]);
        let of_first = NORMALISED.map(|(name, length)| (name, right(&lns, &texts, length, 0)));
        assert_eq!(of_first, [("acc_norm", 0.0), ("acc_bytes", 1.0)]);
        assert_eq!(right(&lns, &texts, |_| 1.0, 0), 1.0);
    }

    #[test]
    fn the_first_among_equals_is_the_answer() {
        assert_eq!(largest(&[-2.0, -1.0, -1.0]), 1);
        assert_eq!(largest(&[f64::NEG_INFINITY; 2]), 0);
    }
}
