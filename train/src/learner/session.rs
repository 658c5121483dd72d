//! `Session`: the only training loop, for one stage; it accumulates, clips, updates, validates, calls hooks, saves and stops.
//! `StageSettings` are its input; `evaluate` sums the losses of batches.
//!
//! Per step: plan → hooks → freeze → micro-batches → norm and clip → AdamW → validation → hooks → events → checkpoint.
//! All ranks of a job do the same with the same numbers, except that each runs its own micro-batches and batches of validation, and
//! that only the first one saves (docs/distributed.md).
//! Everything random is a function of the step, and the data position is one integer, so nothing else has to be saved.

use super::accumulate::{Accumulated, accumulate, in_order};
use super::average::{AverageConfig, AverageStep, moved};
use super::events::Events;
use super::freeze::freeze;
use super::gradient;
use super::hook::{Hooks, StepInfo, Verdict};
use super::micro_batches::MicroBatches;
use super::optimizer::ParameterOptimizer;
use super::rate::Rate;
use super::schedule::Schedule;
use super::trainable::Trainable;
use super::weights::store_model;
use crate::collective::Ranks;
use crate::error::Error;
use crate::model::OwnOptimizer;
use crate::run::RunDirectory;
use crate::run::checkpoint::{self, Best, CheckpointState, Snapshot};
use crate::signal::Stop;
use crate::task::{Batch, Learnt, Measured, RoutePlan, StepPlan};
use burn::data::dataloader::DataLoader;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{InferenceStep, Interrupter};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

pub(super) const MODEL: &str = "the model is absent only while a step has it";

/// The settings of a stage that the training loop needs.
#[derive(Clone, Debug)]
pub struct StageSettings {
    /// The stage's name.
    pub name: String,
    /// Optimizer steps of the stage in the recipe: the length of its schedules.
    pub schedule_steps: u64,
    /// The steps at which the stage ends, rising: the recipe's, then that of each extension.
    pub ends: Vec<u64>,
    /// Micro-batches of every step.
    pub micro_batches: MicroBatches,
    /// The route plan: who leads the walks.
    pub route: RoutePlan,
    /// The learning rate schedule.
    pub learning_rate: Schedule,
    /// The moving average of the weights, if one is kept.
    pub average: Option<AverageConfig>,
    /// The largest norm of a gradient; longer ones are clipped.
    pub clip_norm: f64,
    /// Names of the validation splits.
    pub valid: Vec<String>,
    /// Steps between two validations; 0 for never.
    pub valid_every_steps: u64,
    /// Steps between two checkpoints.
    pub checkpoint_every_steps: u64,
    /// Checkpoints kept.
    pub keep_last: usize,
    /// Whether the checkpoint with the best validation is kept too.
    pub keep_best: bool,
}

/// A stage at work: everything that changes while it runs.
pub struct Session<B: AutodiffBackend, M: AutodiffModule<B>> {
    /// The settings of the stage.
    pub settings: StageSettings,
    /// The run directory that it is saved in.
    pub run: RunDirectory,
    /// The ranks that train together.
    pub ranks: Ranks,
    /// The requests made by signals.
    pub stop: Stop,
    /// Counters; at a resume those of the checkpoint.
    pub state: CheckpointState,
    /// The model, from the learner. Every step moves it out and back, so that it never has two owners.
    pub model: Option<M>,
    /// The moving average of the model's weights, where there is one; at a resume that of the checkpoint.
    pub average: Option<M::InnerModule>,
    /// AdamW and its moments.
    pub optimizer: ParameterOptimizer<B>,
    /// The hooks, in the order in which they are called.
    pub hooks: Hooks<B, M>,
    /// The training time, including that before a resume.
    pub clock: Clock,
}

/// Seconds of training, including those before a resume.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    before_s: f64,
}

impl Clock {
    /// A clock that starts now, after `before_s` seconds of earlier training.
    pub fn after(before_s: f64) -> Self {
        Self {
            start: Instant::now(),
            before_s,
        }
    }

    fn seconds(&self) -> f64 {
        self.before_s + self.start.elapsed().as_secs_f64()
    }
}

impl<B: AutodiffBackend, M: Trainable<B>> Session<B, M> {
    /// Trains until the stage is over or something asks to stop.
    pub(super) fn train(
        &mut self,
        interrupter: &Interrupter,
        train: &dyn DataLoader<B, Batch>,
        valid: &dyn DataLoader<B::InnerBackend, Batch>,
        events: &mut Events<B, M>,
    ) -> Result<(), Error> {
        let mut batches = train.iter();
        // What a stage before, or a fresh model, left thawed or frozen is not known here.
        let mut frozen: Option<BTreeSet<String>> = None;
        if self.state.stage_step == 0 {
            self.move_average();
        }
        if self.state.stage_step == 0 && self.settings.valid_every_steps > 0 {
            let measured = self.validate(valid)?;
            let verdict = self.after_step(&self.plan(), None, measured, events)?;
            stop_if_asked(verdict)?;
        }
        let last = self.settings.ends.last().copied();
        while last.is_some_and(|last| self.state.stage_step < last) {
            let number = self.settings.micro_batches.at(self.state.stage_step);
            let micro_batches: Vec<Batch> = batches.by_ref().take(number).collect();
            let (step, stage) = (self.state.step + 1, &self.settings.name);
            self.ranks.is_at(format!("step {step} of stage {stage}"));
            let mut plan = self.plan();
            plan.targets = micro_batches.iter().map(Batch::targets).sum();
            for hook in &mut self.hooks {
                hook.before_step(&mut plan)?;
            }
            if frozen.as_ref() != Some(&plan.frozen) {
                self.change_model(|model, _| freeze(model, &plan.frozen));
                frozen = Some(plan.frozen.clone());
            }
            let measured = self.step(&plan, micro_batches)?;
            self.move_average();
            let validated = match self.is_due(self.settings.valid_every_steps) {
                true => self.validate(valid)?,
                false => BTreeMap::new(),
            };
            let verdict = self.after_step(&plan, Some(measured), validated, events)?;
            self.save_if_due(interrupter, verdict)?;
        }
        Ok(())
    }

    /// One optimizer step without hooks and without saving, which `nerve bench` times.
    ///
    /// # Errors
    /// `Numerical` if a loss or gradient is not finite.
    pub fn bare_step(&mut self, micro_batches: Vec<Batch>) -> Result<(), Error> {
        let mut plan = self.plan();
        plan.targets = micro_batches.iter().map(Batch::targets).sum();
        self.step(&plan, micro_batches).map(drop)
    }

    pub(super) fn model(&self) -> &M {
        self.model.as_ref().expect(MODEL)
    }

    fn change_model(&mut self, change: impl FnOnce(M, &mut ParameterOptimizer<B>) -> M) {
        let model = self.model.take().expect(MODEL);
        self.model = Some(change(model, &mut self.optimizer));
    }

    /// Begins the average of the weights, or moves it, where the step that was made asks for it.
    fn move_average(&mut self) {
        let Some(config) = &self.settings.average else {
            return;
        };
        let due = config.after(self.state.stage_step);
        let average = match (due, self.average.take()) {
            (AverageStep::Begin, _) => Some(self.model().valid()),
            (AverageStep::Move, Some(average)) => {
                let weights = self.model().valid();
                Some(moved::<B::InnerBackend, _>(average, &weights, config.decay))
            }
            (AverageStep::Rest | AverageStep::Move, average) => average,
        };
        self.average = average;
    }

    /// The end that the stage is on its way to, or at. Going again over an earlier end, everything that was due there is
    /// due again.
    fn end(&self) -> u64 {
        let step = self.state.stage_step;
        let mut ends = self.settings.ends.iter();
        let next = ends.find(|end| **end >= step).or(self.settings.ends.last());
        next.copied().unwrap_or(step)
    }

    /// The plan of the coming step, before the hooks have seen it.
    fn plan(&self) -> StepPlan {
        let (step, steps) = (self.state.stage_step, self.settings.schedule_steps);
        StepPlan {
            stage_step: step,
            stage_steps: steps,
            learning_rate: self.settings.learning_rate.rate(step, steps),
            ..StepPlan::idle(self.settings.route.clone())
        }
    }

    /// One optimizer step.
    fn step(&mut self, plan: &StepPlan, micro_batches: Vec<Batch>) -> Result<Measured, Error> {
        let rate = plan.learning_rate;
        let windows: Vec<_> = micro_batches
            .iter()
            .flat_map(|batch| batch.host.ids.clone())
            .collect();
        self.state.micro_batches += micro_batches.len() as u64;
        if let Some(own) = self.model().own_optimizer() {
            let Learnt {
                measured,
                gradient_norm,
            } = own.learn(&micro_batches, rate);
            let bad = (!gradient_norm.is_finite()).then(|| "the edges".to_string());
            self.check_finite(&measured, bad, &windows)?;
            return Ok(self.stepped(measured, rate, gradient_norm));
        }
        let Accumulated {
            measured,
            gradients,
            exchange,
        } = accumulate(&self.ranks, self.model(), plan, micro_batches);
        let norm = gradient::norm(self.model(), &gradients);
        self.check_finite(&measured, norm.not_finite, &windows)?;
        let longest = self.settings.clip_norm;
        let gradients = gradient::clip(self.model(), gradients, norm.length, longest);
        let of_schedule = Rate::of(rate, self.settings.learning_rate.peak());
        self.change_model(|model, optimizer| {
            optimizer.scale_by(model.update_scales());
            optimizer.step(of_schedule, model, gradients)
        });
        let mut measured = self.stepped(measured, rate, norm.length);
        measured.gradient_norms = norm.by_path;
        if !self.ranks.is_alone() {
            let seconds = exchange.as_secs_f64();
            measured
                .numbers
                .insert("exchange_seconds".to_string(), seconds);
        }
        Ok(measured)
    }

    /// Counts a step that was made.
    fn stepped(&mut self, mut measured: Measured, rate: f64, gradient_norm: f64) -> Measured {
        self.state.step += 1;
        self.state.stage_step += 1;
        self.state.tokens += measured.targets;
        let numbers = [("learning_rate", rate), ("gradient_norm", gradient_norm)];
        measured
            .numbers
            .extend(numbers.map(|(name, value)| (name.to_string(), value)));
        measured
    }

    /// A loss or gradient that is no number stops the run before it can reach the weights.
    fn check_finite(
        &self,
        measured: &Measured,
        not_finite: Option<String>,
        windows: &[(usize, u64)],
    ) -> Result<(), Error> {
        let what = match (measured.loss().is_finite(), not_finite) {
            (false, _) => format!("a loss of {}", measured.loss()),
            (true, Some(path)) => format!("a gradient of {path} that is not finite"),
            (true, None) => return Ok(()),
        };
        let shown: Vec<String> = windows
            .iter()
            .take(8)
            .map(|(source, window)| format!("{source}:{window}"))
            .collect();
        Err(Error::Numerical(format!(
            "{}: step {} of stage {}: found {what}, expected finite numbers; the weights are those of the step before; \
             lower learning_rate.peak or look at the batch (source:window {}{})",
            self.run.path().display(),
            self.state.step + 1,
            self.settings.name,
            shown.join(" "),
            if windows.len() > shown.len() {
                " …"
            } else {
                ""
            },
        )))
    }

    /// Measures the validation splits, by name, and remembers the best loss of the first one.
    fn validate(
        &mut self,
        valid: &dyn DataLoader<B::InnerBackend, Batch>,
    ) -> Result<BTreeMap<String, Measured>, Error> {
        // Never on the autodiff backend: operations without a later backward pass are kept there for ever.
        let model = self.model().valid();
        let names = self.settings.valid.iter().cloned();
        let own = self.model().own_optimizer();
        let ranks = match own.is_some_and(OwnOptimizer::is_shared_out) {
            // All measure every batch together.
            true => Ranks::alone(),
            false => self.ranks.clone(),
        };
        let mut measured = evaluate::<B, M>(&ranks, &model, valid.iter(), names.len());
        if let Some(average) = &self.average {
            let of_average = evaluate::<B, M>(&ranks, average, valid.iter(), names.len());
            for (measured, of_average) in measured.iter_mut().zip(of_average) {
                let named = of_average.named().into_iter();
                let named = named.chain(of_average.route.named(true));
                let named = named.map(|(name, value)| (format!("average/{name}"), value));
                measured.numbers.extend(named);
            }
        }
        for (split, measured) in self.settings.valid.iter().zip(&measured) {
            if measured.targets > 0 && !measured.loss().is_finite() {
                return Err(Error::Numerical(format!(
                    "{}: step {} of stage {}: found a loss of {} on the split {split}, expected finite numbers; lower \
                     learning_rate.peak; the checkpoint before is whole",
                    self.run.path().display(),
                    self.state.step,
                    self.settings.name,
                    measured.loss(),
                )));
            }
        }
        let loss = measured[0].loss();
        let better = self.state.best.is_none_or(|best| loss < best.value);
        if self.settings.keep_best && self.state.stage_step > 0 && better && loss.is_finite() {
            let step = self.state.step;
            self.state.best = Some(Best { step, value: loss });
        }
        Ok(names.zip(measured).collect())
    }

    /// Shows the hooks and the dashboard what happened.
    fn after_step(
        &mut self,
        plan: &StepPlan,
        train: Option<Measured>,
        valid: BTreeMap<String, Measured>,
        events: &mut Events<B, M>,
    ) -> Result<Verdict, Error> {
        self.state.wall_s = self.clock.seconds();
        let mut info = StepInfo {
            step: self.state.step,
            stage: &self.settings.name,
            stage_step: self.state.stage_step,
            stage_steps: self.end(),
            tokens: self.state.tokens,
            wall_s: self.state.wall_s,
            plan,
            model: self.model.as_ref().expect(MODEL),
            train,
            valid,
        };
        let mut verdict = Verdict::Continue;
        for hook in &mut self.hooks {
            if let Verdict::Stop(error) = hook.after_step(&mut info)? {
                verdict = Verdict::Stop(error);
            }
        }
        if !info.valid.is_empty() {
            self.state.stage_valid = valid_numbers(&info.valid);
        }
        events.send(info, &self.settings.valid);
        Ok(verdict)
    }

    fn is_due(&self, every: u64) -> bool {
        let last = self.settings.ends.contains(&self.state.stage_step);
        every > 0 && (last || self.state.stage_step.is_multiple_of(every))
    }

    /// Saves where the recipe, a signal or a hook says so, and stops where a signal or a hook says so.
    fn save_if_due(&mut self, interrupter: &Interrupter, verdict: Verdict) -> Result<(), Error> {
        let signal = match interrupter.should_stop() {
            // The dashboard's stop key is an interruption like any other.
            true => Some(signal_hook::consts::SIGINT),
            false => self.stop.requested(),
        };
        let hook_stops = matches!(verdict, Verdict::Stop(_));
        let wants_checkpoint = self.stop.take_checkpoint_request();
        // What one rank is asked for all do, at the same step.
        let asked = self.ranks.gather(&(signal, wants_checkpoint));
        let signal = asked.iter().find_map(|(signal, _)| *signal);
        let wants_checkpoint = asked.iter().any(|(_, wants)| *wants);
        let is_best = self
            .state
            .best
            .is_some_and(|best| best.step == self.state.step);
        let due = is_best || self.is_due(self.settings.checkpoint_every_steps);
        if due || signal.is_some() || hook_stops || wants_checkpoint {
            self.save_together()?;
        }
        stop_if_asked(verdict)?;
        match signal {
            Some(signal) => Err(Error::Stopped {
                signal,
                step: self.state.step,
                run: self.run.path().to_path_buf(),
            }),
            None => Ok(()),
        }
    }

    /// The first rank saves; the others give it what it does not hold.
    fn save_together(&mut self) -> Result<(), Error> {
        let saved = self.ranks.is_first().then(|| self.save());
        if let Some(own) = self.model().own_optimizer() {
            match saved.is_some() {
                true => own.dismiss(),
                false => own.assist(),
            }
        }
        self.ranks.agree(saved.transpose()).map(drop)
    }

    fn save(&mut self) -> Result<(), Error> {
        for hook in &mut self.hooks {
            if let Some(state) = hook.state()? {
                self.state.hooks.insert(hook.name().to_string(), state);
            }
        }
        let (optimizer, times) = self.optimizer.export(self.model());
        self.state.optimizer_times = times;
        self.state.wall_s = self.clock.seconds();
        let save = |model, optimizer| {
            let state = self.state.clone();
            let store = store_model::<B::InnerBackend, M::InnerModule>;
            let average = self.average.as_ref().map(store);
            let snapshot = Snapshot {
                state,
                model,
                optimizer,
                average: average.unwrap_or_default(),
            };
            checkpoint::save(&self.run, &snapshot, self.settings.keep_last).map(drop)
        };
        match self.model().own_optimizer() {
            Some(own) => own.lend(&mut |model, optimizer| save(model, optimizer))?,
            None => save(store_model(self.model()), optimizer)?,
        }
        self.run.change_info(|info| {
            info.stage.clone_from(&self.state.stage);
            info.step = self.state.step;
            info.best = self.state.best;
            info.tokenizer_sha256
                .clone_from(&self.state.tokenizer_sha256);
            info.data_sha256.clone_from(&self.state.data_sha256);
        })
    }
}

/// All finite numbers of a validation, by split and name.
fn valid_numbers(valid: &BTreeMap<String, Measured>) -> BTreeMap<String, f64> {
    let of_split = |(split, measured): (&String, &Measured)| {
        let numbers = measured.named().into_iter();
        let finite = numbers.filter(|(_, value)| value.is_finite());
        let split = split.clone();
        finite.map(move |(name, value)| (format!("{split}/{name}"), value))
    };
    valid.iter().flat_map(of_split).collect()
}

/// Measures every batch, each on one of the ranks; one sum per source, in the order of batches. All ranks call it together.
pub fn evaluate<B: AutodiffBackend, M: Trainable<B>>(
    ranks: &Ranks,
    model: &M::InnerModule,
    batches: impl Iterator<Item = Batch>,
    sources: usize,
) -> Vec<Measured> {
    let mut sums = vec![Measured::default(); sources];
    let (mut of_batches, mut own) = (Vec::new(), Vec::new());
    for (index, batch) in batches.enumerate() {
        let source = batch.source;
        let is_own = index % ranks.size() == ranks.rank();
        match is_own.then(|| model.step(batch)) {
            Some(measured) if ranks.is_alone() => sums[source] += &measured,
            measured => own.extend(measured),
        }
        of_batches.push(source);
    }
    if !ranks.is_alone() {
        for (source, measured) in of_batches.into_iter().zip(in_order(ranks, own)) {
            sums[source] += &measured;
        }
    }
    sums
}

fn stop_if_asked(verdict: Verdict) -> Result<(), Error> {
    match verdict {
        Verdict::Continue => Ok(()),
        Verdict::Stop(error) => Err(error),
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests;
