//! `nerve route`: passes a text or a validation split through a routed model, counts the walks of its tokens, and prints the
//! report, also as HTML and SVG files; with `--memory`, what the tokens read from the model's memory.

mod memory;
mod page;
mod picture;
mod report;
mod terminal;

use super::answer;
use super::markup;
use super::trained::Trained;
use crate::cli;
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::escape;
use crate::file;
use crate::ladder;
use crate::model::Model;
use crate::task::begun;
use brian::collapse::by_design;
use brian::loss::language;
use brian::route::policy::SequenceInfo;
use brian::route::trace::Walks;
use brian::{BrianConfig, Rules};
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use report::{Passes, RouteReport};

/// The width of a terminal that does not say its own.
const WIDTH: usize = 100;

/// The longest text that is walked.
const TEXT_BYTES: u64 = 64 << 20;

/// Runs the model on the tokens, and prints or writes the report.
///
/// # Errors
/// `Config` if the run's stage has no router; `Invalid` for a broken file; `Resource` if a report cannot be written.
pub fn run(arguments: &cli::Route) -> Result<(), Error> {
    let trained = Trained::open(&arguments.source)?;
    let stage = trained.stage();
    if stage.walk.is_none() {
        let (run, place) = (&arguments.source.run, format!("stage {}", stage.name));
        let expected = "a stage whose policy is teacher, scheduled or router";
        let problem = Problem::new(run, place, "a policy without a router", expected);
        return Err(Error::config(
            problem.advise("route a run that reached one"),
        ));
    }
    if arguments.memory {
        return memory::run(&trained, arguments);
    }
    let walk = Walk {
        trained: &trained,
        text: text(arguments)?,
        sequences: arguments.sequences,
        tokens: arguments.tokens,
    };
    let report = device::run(&trained.device, walk)?;
    markup::write(arguments.html.as_ref(), || report.html())?;
    markup::write(arguments.svg.as_ref(), || report.svg())?;
    let text = || report.terminal(WIDTH, arguments.top);
    answer::give(arguments.source.json, || report.json(), text)
}

/// The text to be walked, if one was named or typed.
fn text(arguments: &cli::Route) -> Result<Option<String>, Error> {
    let read = |path| file::read_stream(path, "a text in UTF-8", TEXT_BYTES);
    let text = arguments.text.as_deref().map(read).transpose()?;
    Ok(text.or(arguments.prompt.clone()))
}

/// The run and its step.
fn title(trained: &Trained) -> String {
    let state = &trained.loaded.snapshot.state;
    let name = &trained.recipe.run.name;
    format!("{name}, stage {}, step {}", state.stage, state.step)
}

/// A token as it is shown.
fn shown(trained: &Trained, id: u32) -> String {
    match trained.tokenizer.continued(&[id]) {
        text if text.is_empty() => "␃".to_string(),
        text if text == "\u{fffd}" => format!("#{id}"),
        text => escape::terminal(&text),
    }
}

struct Walk<'a> {
    trained: &'a Trained,
    text: Option<String>,
    sequences: usize,
    tokens: u64,
}

impl Task for Walk<'_> {
    type Output = RouteReport;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<RouteReport, Error> {
        let model = self.trained.model::<B>(&device)?.valid();
        let mut report = RouteReport {
            title: title(self.trained),
            ..RouteReport::default()
        };
        match &self.text {
            Some(text) => self.of_text(&model, text, &device, &mut report)?,
            None => self.of_data(&model, &device, &mut report)?,
        }
        let plan = ladder::route(self.trained.stage(), &self.trained.recipe);
        let teacher = plan.teacher();
        report.by_design = teacher.map_or(Vec::new(), |teacher| by_design(teacher, &report.counts));
        Ok(report)
    }
}

impl Walk<'_> {
    /// The windows of the recipe's first validation split.
    fn of_data<B: Backend>(
        &self,
        model: &Model<B>,
        device: &B::Device,
        report: &mut RouteReport,
    ) -> Result<(), Error> {
        let data = self.trained.first_split(self.tokens)?;
        for batch in data.batches() {
            let rules = self.trained.route().rules;
            let (logits, trace) = model.forward_batch(&batch, &rules);
            let Some(trace) = trace else { continue };
            let nats =
                language::token_losses(logits, batch.target_tokens(device)) * batch.counted(device);
            let nats = nats.sum().into_data().iter::<f64>().sum();
            self.trained.require_finite("loss", nats)?;
            let (walks, host) = (&trace.walks, &batch.host);
            self.count(&mut report.passes, &rules, walks, nats, batch.targets());
            report.counts.add(walks, &host.valid, &host.difficulty);
            let inputs = host.inputs.chunks(host.seq);
            let rows = inputs.zip(host.valid.chunks(host.seq));
            for (row, (inputs, valid)) in rows.enumerate() {
                if report.sequences.len() < self.sequences {
                    let counted = inputs.iter().zip(valid).filter(|(_, valid)| **valid);
                    let texts = counted.map(|(&id, _)| shown(self.trained, id)).collect();
                    report.show(walks, row, texts);
                }
            }
        }
        Ok(())
    }

    /// A text, cut at the context.
    fn of_text<B: Backend>(
        &self,
        model: &Model<B>,
        text: &str,
        device: &B::Device,
        report: &mut RouteReport,
    ) -> Result<(), Error> {
        let Trained {
            tokenizer, recipe, ..
        } = self.trained;
        let ids = begun(tokenizer, recipe.data.start, text);
        let rules = self.trained.route().rules;
        for (sequence, ids) in ids.chunks(self.trained.recipe.model.context()).enumerate() {
            let values: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
            let data = TensorData::new(values, [1, ids.len()]);
            let input = Tensor::<B, 2, Int>::from_data(data, device);
            let row = SequenceInfo {
                sequence: sequence as u64,
                difficulty: None,
            };
            let (logits, trace) = model.forward(input, &rules, &[row]);
            let sum = logits.sum().into_data().iter::<f64>().sum();
            self.trained.require_finite("sum of the logits", sum)?;
            let Some(trace) = trace else { continue };
            let walks = &trace.walks;
            self.count(&mut report.passes, &rules, walks, 0.0, 0);
            report.counts.add(walks, &vec![true; ids.len()], &[None]);
            if report.sequences.len() < self.sequences {
                let texts = ids.iter().map(|&id| shown(self.trained, id)).collect();
                report.show(walks, 0, texts);
            }
        }
        Ok(())
    }

    fn count(&self, passes: &mut Passes, rules: &Rules, walks: &Walks, nats: f64, targets: u64) {
        let Some(config) = self.trained.recipe.model.get::<BrianConfig>() else {
            return;
        };
        let config = config.under(rules);
        let vocabulary = self.trained.tokenizer.vocabulary_size();
        let vocabulary = self.trained.recipe.rows(vocabulary);
        let tokens = (walks.batch * walks.seq) as u64;
        let flops = config.flops(vocabulary, walks);
        passes.flops = match passes.tokens {
            0 => flops,
            _ => passes.flops.zip(flops).map(|(sum, flops)| sum + flops),
        };
        passes.baseline_flops +=
            config.baseline().flops_of(vocabulary, &walks.texts()) * tokens as f64;
        passes.tokens += tokens;
        passes.nats += nats;
        passes.targets += targets;
    }
}

#[cfg(test)]
mod tests {
    use super::super::trained::tests::kept;
    use super::*;
    use crate::learner::ValidationData;

    fn walked(trained: &Trained, text: Option<&str>) -> RouteReport {
        let walk = Walk {
            trained,
            text: text.map(str::to_string),
            sequences: 3,
            tokens: 0,
        };
        device::run(&trained.device, walk).unwrap()
    }

    /// Nats, targets and tokens of the first validation split, batch by batch.
    struct Losses<'a>(&'a Trained);

    impl Task for Losses<'_> {
        type Output = [f64; 3];

        fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<[f64; 3], Error> {
            let Trained {
                recipe, tokenizer, ..
            } = self.0;
            let model = self.0.model::<B>(&device)?.valid();
            let first = &recipe.data.valid[0];
            let splits = [(first.name.clone(), first.tokens())];
            let data = ValidationData::open(&splits, &recipe.data, 4, 0, None, tokenizer)?;
            let mut sums = [0.0; 3];
            for batch in data.on(self.0.route()).batches() {
                sums[0] += model.measure(&batch).0.nats;
                sums[1] += batch.targets() as f64;
                sums[2] += (batch.host.batch * batch.host.seq) as f64;
            }
            Ok(sums)
        }
    }

    #[test]
    fn a_report_on_data_is_the_sum_of_all_of_its_passes() {
        let trained = kept("ladder");
        let report = walked(&trained, None);
        let [nats, targets, tokens] = device::run(&trained.device, Losses(&trained)).unwrap();
        let Passes { nats: found, .. } = report.passes;
        assert!((found - nats).abs() < 1e-4 * nats, "{found} and {nats}");
        assert_eq!(
            (report.passes.targets as f64, report.passes.tokens as f64),
            (targets, tokens)
        );
        assert_eq!(report.counts.tokens as f64, targets);
        assert_eq!(report.sequences.len(), 3);
    }

    #[test]
    fn the_same_text_twice_costs_twice_as_much() {
        let trained = kept("ladder");
        // As long as the context, so that the second half is a pass of its own, and like the first.
        let text = "copy: 1 2 3 -> 1 2 3 ".repeat(3)[..48].to_string();
        let [once, twice] = [1, 2].map(|times| walked(&trained, Some(&text.repeat(times))));
        assert_eq!((once.passes.tokens, once.counts.tokens), (48, 48));
        assert_eq!((twice.passes.tokens, twice.counts.tokens), (96, 96));
        assert_eq!(
            twice.passes.flops.unwrap(),
            2.0 * once.passes.flops.unwrap()
        );
        assert_eq!(
            twice.passes.baseline_flops,
            2.0 * once.passes.baseline_flops
        );
        assert_eq!(
            twice.sequences,
            [&once.sequences[..], &once.sequences].concat()
        );
        assert_eq!(once.sequences[0].len(), 48);
        assert_eq!(
            (once.sequences[0][0].text.as_str(), once.passes.targets),
            ("c", 0)
        );
    }
}
