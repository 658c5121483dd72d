//! `nerve trace`: follows a text through a BriLLM graph, also with replaced edges and what-ifs, collects what the options ask
//! for (edge cards, ablations, raised edges), and prints or writes the report.

mod ablation;
mod card;
mod comparison;
mod contributions;
mod names;
mod picture;
mod raised;
mod report;
mod request;
mod steps;
mod subject;
mod table;

use super::answer;
use super::markup;
use super::trained::Trained;
use crate::cli;
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::family::brillm::{BriLlmTask, SignalConfig};
use crate::say::note;
use crate::task::begun;
use ablation::Ablation;
use brillm::explain::{TracedStep, replace};
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use card::EdgeCard;
use comparison::Comparison;
use names::{Names, Pair};
use raised::Raised;
use report::TraceReport;
use request::{TraceRequest, WhatIf};
use std::collections::BTreeSet;
use subject::Subject;

/// The most tokens that are followed: every step knows all before it.
const MOST_TOKENS: usize = 512;

/// Traces a text, and prints or writes the report.
///
/// # Errors
/// `Config` if the run is no graph of tokens, or for tokens, positions and edges that do not exist; `Invalid` for a broken
/// file; `Resource` if a report cannot be written.
pub fn run(arguments: &cli::Trace) -> Result<(), Error> {
    let trained = Trained::open(&arguments.source)?;
    if trained.recipe.model.get::<SignalConfig>().is_none() {
        return Err(no_graph(&arguments.source.run));
    }
    let names = Names::new(&trained.tokenizer);
    let tokens = arguments.text.as_deref().map(|text| read(&trained, text));
    let follow = Follow {
        asked: TraceRequest::read(arguments, &names, tokens)?,
        trained: &trained,
        names: &names,
        arguments,
    };
    let report = device::run(&trained.device, follow)?;
    markup::write(arguments.html.as_ref(), || report.html(&names))?;
    markup::write(arguments.svg.as_ref(), || report.svg(&names))?;
    let object = || report.json(&names);
    answer::give(arguments.source.json, object, || report.terminal(&names))
}

fn no_graph(run: &str) -> Error {
    let found = "a model without a graph";
    let problem = Problem::new(run, "model.kind", found, "a run of a brillm");
    Error::config(problem.advise("`nerve route` shows the walks of a brian"))
}

/// The tokens of a text, as training would show them.
fn read(trained: &Trained, text: &str) -> Vec<u32> {
    let mut tokens = begun(&trained.tokenizer, trained.recipe.data.start, text);
    if tokens.len() > MOST_TOKENS {
        let n = tokens.len();
        note(&format!(
            "the text has {n} tokens; the first {MOST_TOKENS} are traced"
        ));
        tokens.truncate(MOST_TOKENS);
    }
    tokens
}

struct Follow<'a> {
    trained: &'a Trained,
    names: &'a Names<'a>,
    arguments: &'a cli::Trace,
    asked: TraceRequest,
}

impl Task for Follow<'_> {
    type Output = TraceReport;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<TraceReport, Error> {
        let model = self.trained.model::<B>(&device)?.valid();
        let Some(signal) = model.get::<BriLlmTask<B::InnerBackend>>() else {
            return Err(no_graph(&self.arguments.source.run));
        };
        let mut core = signal.write();
        let subject = Subject::new(
            self.trained,
            &mut core,
            self.asked.tokens.clone(),
            self.arguments.top.get(),
            self.arguments.tokens,
        );
        self.report(subject)
    }
}

impl Follow<'_> {
    fn report(&self, mut subject: Subject<'_>) -> Result<TraceReport, Error> {
        let TraceRequest {
            edits,
            what_ifs,
            edges,
            ablations,
            ..
        } = &self.asked;
        let state = &self.trained.loaded.snapshot.state;
        let (name, text) = (&self.trained.recipe.run.name, &self.arguments.text);
        let tokens = subject.tokens.clone().unwrap_or_default();
        let as_trained = subject.trace(&tokens, &BTreeSet::new());
        for step in &as_trained {
            let what = format!("entropy behind token {}", step.position + 1);
            self.trained.require_finite(&what, step.odds.entropy)?;
        }
        for edit in edits {
            let replaced = replace(&mut subject.core.model, edit.pair, edit.by);
            replaced.ok_or_else(|| self.no_edge("--set-edge", edit.pair))?;
        }
        let mut report = TraceReport {
            run: (name.clone(), state.stage.clone(), state.step),
            edits: edits.iter().map(|edit| edit.name(self.names)).collect(),
            text: text.clone().map(|text| (text, tokens.clone())),
            top: subject.top,
            ..TraceReport::default()
        };
        report.steps = match edits.is_empty() {
            true => as_trained,
            false => {
                let edited = subject.trace(&tokens, &BTreeSet::new());
                if report.text.is_some() {
                    let name = "what the replaced edges change".to_string();
                    report.edited = Some(Comparison::new(name, &as_trained, &edited, Some));
                }
                edited
            }
        };
        let compared = |what_if| otherwise(&subject, &tokens, &report.steps, what_if);
        report.what_ifs = what_ifs.iter().map(compared).collect();
        for &pair in edges {
            report.edges.push(EdgeCard::new(&mut subject, pair)?);
        }
        for &pair in ablations {
            let ablation = Ablation::new(&mut subject, pair)?;
            let ablation = ablation.ok_or_else(|| self.no_edge("--ablate", pair))?;
            report.ablations.push(ablation);
        }
        report.raised = self.arguments.positive_only.then(|| Raised::new(&subject));
        Ok(report)
    }

    fn no_edge(&self, flag: &str, pair: Pair) -> Error {
        let pair = self.names.pair(pair);
        let found = format!("{pair}, a pair without an edge of its own");
        let expected = "a pair that was seen often enough to have one";
        let advice = "its row is shared, and changing it would change other pairs too";
        Error::config(Problem::typed(flag, found, expected).advise(advice))
    }
}

/// The same text otherwise, beside the steps as they are.
fn otherwise(
    subject: &Subject<'_>,
    tokens: &[u32],
    steps: &[TracedStep],
    what_if: &WhatIf,
) -> Comparison {
    let name = format!("what if {}", what_if.name());
    let places =
        |positions: &[usize]| -> BTreeSet<usize> { positions.iter().map(|n| n - 1).collect() };
    match what_if {
        WhatIf::Drop(positions) => {
            let dropped = places(positions);
            let after = subject.trace(tokens, &dropped);
            let reached = |place: usize| dropped.iter().any(|&dropped| dropped <= place);
            Comparison::new(name, steps, &after, |place| reached(place).then_some(place))
        }
        WhatIf::Remove(positions) => {
            let removed = places(positions);
            let kept = (0..tokens.len()).filter(|place| !removed.contains(place));
            let kept: Vec<u32> = kept.map(|place| tokens[place]).collect();
            let after = subject.trace(&kept, &BTreeSet::new());
            // A step has a partner where its token and the next one are still there, behind what was removed.
            let partner = |place: usize| {
                let before = removed.range(..place).count();
                let whole = !removed.contains(&place) && !removed.contains(&(place + 1));
                (before > 0 && whole).then(|| place - before)
            };
            Comparison::new(name, steps, &after, partner)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trained::tests::kept;
    use super::*;
    use crate::family::brillm::BriLlmState;
    use burn::tensor::backend::Backend;

    /// Looks at the graph that is kept, with a text.
    struct Look<'a, F>(&'a Trained, F);

    impl<F: FnOnce(Subject<'_>)> Task for Look<'_, F> {
        type Output = ();

        fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<(), Error> {
            let model = self.0.model::<B>(&device)?.valid();
            look(self.0, &model, self.1);
            Ok(())
        }
    }

    fn look<B: Backend>(
        trained: &Trained,
        model: &crate::model::Model<B>,
        with: impl FnOnce(Subject<'_>),
    ) {
        let Some(signal) = model.get::<BriLlmTask<B>>() else {
            panic!("a graph is kept")
        };
        let core: &mut BriLlmState = &mut signal.write();
        let tokens = begun(
            &trained.tokenizer,
            trained.recipe.data.start,
            "One cat was near.",
        );
        with(Subject::new(trained, core, Some(tokens), 3, 0));
    }

    #[test]
    fn what_if_compares_each_step_with_the_same_step_of_the_other_text() {
        let trained = kept("brillm");
        let check = |subject: Subject<'_>| {
            let tokens = subject.tokens.clone().unwrap();
            let steps = subject.trace(&tokens, &BTreeSet::new());
            // Positions count from 1.
            for positions in [vec![1], vec![4], vec![2, 5, 6]] {
                let places: BTreeSet<usize> = positions.iter().map(|n| n - 1).collect();
                let first = places.first().copied().unwrap();
                let dropped =
                    otherwise(&subject, &tokens, &steps, &WhatIf::Drop(positions.clone()));
                let after = subject.trace(&tokens, &places);
                // The step at a dropped token is the first that misses its signal.
                let found: Vec<usize> = dropped.steps.iter().map(|step| step.position).collect();
                assert_eq!(found, (first + 1..=tokens.len()).collect::<Vec<_>>());
                for step in &dropped.steps {
                    let nats = |steps: &[TracedStep]| {
                        steps[step.position - 1].truth.map(|truth| truth.nats)
                    };
                    assert_eq!(
                        step.nats,
                        nats(&steps).zip(nats(&after)).map(|(a, b)| [a, b])
                    );
                }
                let removed = otherwise(&subject, &tokens, &steps, &WhatIf::Remove(positions));
                let kept = |place: &usize| !places.contains(place);
                let shorter: Vec<u32> = (0..tokens.len())
                    .filter(kept)
                    .map(|place| tokens[place])
                    .collect();
                let after = subject.trace(&shorter, &BTreeSet::new());
                let mut expected = Vec::new();
                for place in first + 1..tokens.len() {
                    if kept(&place) && kept(&(place + 1)) {
                        let other = &after[(0..place).filter(kept).count()];
                        assert_eq!(other.token, tokens[place]);
                        let nats = steps[place].truth.zip(other.truth);
                        expected.push((
                            place + 1,
                            tokens[place],
                            nats.map(|(a, b)| [a.nats, b.nats]),
                        ));
                    }
                }
                let found: Vec<_> = removed
                    .steps
                    .iter()
                    .map(|step| (step.position, step.token, step.nats))
                    .collect();
                assert_eq!(found, expected);
            }
        };
        device::run(&trained.device, Look(&trained, check)).unwrap();
    }

    #[test]
    fn an_edge_that_was_left_out_is_there_again_and_its_worth_is_the_change() {
        let trained = kept("brillm");
        let check = |mut subject: Subject<'_>| {
            let tokens = subject.tokens.clone().unwrap();
            let pair = (tokens[2], tokens[3]);
            let before = subject.core.model.parameters.clone();
            let ablation = Ablation::new(&mut subject, pair)
                .unwrap()
                .expect("an edge of its own");
            assert!(subject.core.model.parameters == before);
            let nats = subject.token_losses(&tokens);
            let valid = subject.validation().unwrap();
            for measured in &ablation.measured {
                let replacement = match measured.by {
                    "zero" => brillm::explain::Replacement::Zero,
                    _ => brillm::explain::Replacement::BackOff,
                };
                let sequences = match measured.on {
                    "text" => std::slice::from_ref(&tokens),
                    _ => &valid[..],
                };
                let all = |subject: &Subject<'_>| -> f64 {
                    sequences
                        .iter()
                        .flat_map(|tokens| subject.token_losses(tokens))
                        .sum()
                };
                let (old, _) = (
                    all(&subject),
                    replace(&mut subject.core.model, pair, replacement),
                );
                let new = all(&subject);
                subject.core.model.parameters = before.clone();
                let sum = &measured.parts[0];
                assert!((sum.before - old).abs() < 1e-6 && (sum.after - new).abs() < 1e-6);
                let targets: usize = sequences.iter().map(|tokens| tokens.len() - 1).sum();
                assert_eq!(sum.tokens, targets as u64);
            }
            assert_eq!(ablation.measured.len(), 4);
            assert_eq!(ablation.measured[0].parts[0].tokens, nats.len() as u64);
        };
        device::run(&trained.device, Look(&trained, check)).unwrap();
    }
}
