//! `nerve trace`: why a graph of tokens said what it said.

mod ablation;
mod asked;
mod card;
mod comparison;
mod contributions;
mod names;
mod picture;
mod raised;
mod report;
mod steps;
mod subject;
mod table;

use super::answer;
use super::markup;
use super::trained::Trained;
use crate::cli;
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::recipe::ModelConfig;
use crate::say::note;
use crate::task::{Decoder, begun};
use ablation::Ablation;
use asked::{Asked, WhatIf};
use brillm::explain::{Step, replace};
use burn::tensor::backend::AutodiffBackend;
use card::EdgeCard;
use comparison::Comparison;
use names::{Names, Pair};
use raised::Raised;
use report::TraceReport;
use std::collections::BTreeSet;
use subject::Subject;

/// The most tokens that are followed: every step knows all before it.
const MOST_TOKENS: usize = 512;

/// Traces, and prints or writes the report.
///
/// # Errors
/// `Config` if the run is no graph of tokens, or for tokens, positions and edges that do not exist; `Invalid` for a broken
/// file; `Resource` if a report cannot be written.
pub fn run(arguments: &cli::Trace) -> Result<(), Error> {
    let trained = Trained::open(&arguments.source)?;
    if !matches!(trained.recipe.model, ModelConfig::BriLlm(_)) {
        return Err(no_graph(&arguments.source.run));
    }
    let names = Names::new(&trained.tokenizer);
    let tokens = arguments.text.as_deref().map(|text| read(&trained, text));
    let follow = Follow {
        asked: Asked::read(arguments, &names, tokens)?,
        trained: &trained,
        names: &names,
        arguments,
    };
    let report = device::run(&trained.device, follow)?;
    markup::write(arguments.html.as_ref(), || report.html(&names))?;
    markup::write(arguments.svg.as_ref(), || report.svg(&names))?;
    match arguments.source.json {
        true => answer::print_json(&report.json(&names)),
        false => answer::print(&report.terminal(&names)),
    }
}

fn no_graph(run: &str) -> Error {
    let found = "a model without a graph";
    let problem = Problem::new(run, "model.kind", found, "a run of a brillm");
    Error::config(problem.advise("`nerve route` shows the walks of a brian"))
}

/// The tokens of a text, as training would show them.
fn read(trained: &Trained, text: &str) -> Vec<u32> {
    let mut tokens = begun(&trained.tokenizer, trained.recipe.data.start(), text);
    if tokens.len() > MOST_TOKENS {
        note(&format!(
            "the text has {} tokens; the first {MOST_TOKENS} are traced",
            tokens.len()
        ));
        tokens.truncate(MOST_TOKENS);
    }
    tokens
}

struct Follow<'a> {
    trained: &'a Trained,
    names: &'a Names<'a>,
    arguments: &'a cli::Trace,
    asked: Asked,
}

impl Task for Follow<'_> {
    type Output = TraceReport;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<TraceReport, Error> {
        let model: Decoder<B::InnerBackend> = self.trained.model(&device)?;
        let Decoder::BriLlm(signal) = &model else {
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
        let Asked {
            edits,
            what_ifs,
            edges,
            ablations,
            ..
        } = &self.asked;
        let state = &self.trained.loaded.snapshot.state;
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
            run: (
                self.trained.recipe.run.name.clone(),
                state.stage.clone(),
                state.step,
            ),
            edits: edits.iter().map(|edit| edit.name(self.names)).collect(),
            text: self
                .arguments
                .text
                .clone()
                .map(|text| (text, tokens.clone())),
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
            report
                .ablations
                .push(ablation.ok_or_else(|| self.no_edge("--ablate", pair))?);
        }
        report.raised = self.arguments.positive_only.then(|| Raised::new(&subject));
        Ok(report)
    }

    fn no_edge(&self, flag: &str, pair: Pair) -> Error {
        let found = format!(
            "{}, a pair without an edge of its own",
            self.names.pair(pair)
        );
        let expected = "a pair that was seen often enough to have one";
        let problem = Problem::new("command line", flag, found, expected);
        Error::config(
            problem.advise("its row is shared, and changing it would change other pairs too"),
        )
    }
}

/// The same text otherwise, beside the steps as they are.
fn otherwise(
    subject: &Subject<'_>,
    tokens: &[u32],
    steps: &[Step],
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
            let kept = tokens
                .iter()
                .enumerate()
                .filter(|(place, _)| !removed.contains(place));
            let kept: Vec<u32> = kept.map(|(_, &token)| token).collect();
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
