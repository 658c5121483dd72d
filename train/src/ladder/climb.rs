//! `Ladder`: trains a recipe's stages in order from a position: makes each stage's model, optimizer and hooks, asks its gate.

use super::branch::{self, Branch};
use super::build::Blueprint;
use super::extend;
use super::gate;
use super::inputs::Inputs;
use super::route::route;
use super::survey::{of_another_tokenizer, without_checkpoint};
use crate::collective::{Facts, Ranks};
use crate::error::{Error, Problem};
use crate::hook::custom::Open;
use crate::hook::{
    CollapseGuard, MetricsLog, RouteSchedule, RoutingMetrics, Sample, StagedUnfreezing, Throughput,
};
use crate::learner::{
    Clock, Every, HookedStrategy, Hooks, Outcome, ParameterOptimizer, Session, StageSettings,
    TrainingLoader, ValidationLoader, learner,
};
use crate::metric;
use crate::model::Model;
use crate::recipe::{Checked, Policy, Stage, StageStart, measure};
use crate::registry::registry;
use crate::render::{Opening, Render, StagePlace};
use crate::run::checkpoint::{self, CheckpointState, Earlier, Snapshot};
use crate::run::{Extension, RunDirectory, RunInfo, StartedFrom};
use crate::say::say;
use crate::signal::Stop;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{Interrupter, SupervisedTraining, TrainingStrategy};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A recipe on its way through its stages.
pub struct Ladder {
    /// What to do.
    pub recipe: Checked,
    /// What it learns from.
    pub inputs: Inputs,
    /// Where it is saved.
    pub run: RunDirectory,
    /// What signals have asked for.
    pub stop: Stop,
    /// How it is shown.
    pub render: Render,
    /// Whether a router that collapses ends the run.
    pub fail_on_collapse: bool,
    /// How the run went on after its end.
    pub extensions: Vec<Extension>,
    /// Who trains together.
    pub ranks: Ranks,
}

/// Where a climb begins: on the ground, or at a checkpoint.
pub struct Position {
    /// The counters there.
    pub(super) state: CheckpointState,
    /// The checkpoint's content.
    pub(super) resumed: Option<Snapshot>,
}

impl Ladder {
    /// Climbs from where [`Ladder::find_start`] found it.
    ///
    /// # Errors
    /// `Invalid` if a stage starts with a run that does not fit; `Stopped` after a signal; `Refused` if a gate stays shut;
    /// `Numerical` if a loss is not finite; `Resource` if the disk is full.
    pub fn climb<B: AutodiffBackend>(
        &self,
        start: Position,
        device: &B::Device,
    ) -> Result<(), Error> {
        let Position {
            mut state,
            mut resumed,
        } = start;
        let mut model: Option<Model<B>> = None;
        let first = state.stage_index;
        for (index, stage) in self.recipe.stage.iter().enumerate().skip(state.stage_index) {
            if index > state.stage_index {
                state = next_stage(state, index, stage);
            }
            let ready = match (resumed.take(), model.take()) {
                (Some(snapshot), _) => self.restore(stage, snapshot, device)?,
                (None, carried) => self.start(stage, carried, device)?,
            };
            if let Some(earlier) = ready.earlier {
                state = behind(state, earlier);
            }
            self.introduce(&state, ready.model.n_parameters(), index == first);
            (model, state) = self.train_stage(stage, ready, state)?;
            let passed = gate::check(stage, &state, &self.run)?;
            if let Some(passed) = passed.filter(|_| self.render.is_for_people()) {
                say(&format!(
                    "{}: {passed}",
                    StagePlace::new(&self.recipe, index)
                ));
            }
        }
        Ok(())
    }

    /// Says what begins: the sitting, if this is its first stage, and the stage.
    fn introduce(&self, state: &CheckpointState, parameters: u64, is_first: bool) {
        if !self.render.is_for_people() {
            return;
        }
        let opening = Opening {
            recipe: &self.recipe,
            stage_index: state.stage_index,
            stage_step: state.stage_step,
            parameters,
        };
        if is_first {
            let vocabulary = self.recipe.rows(self.inputs.tokenizer.vocabulary_size());
            let lines = opening.run(
                &self.inputs.described(&self.recipe),
                vocabulary,
                self.run.path(),
            );
            lines.iter().for_each(|line| say(line));
        }
        opening.stage_lines().iter().for_each(|line| say(line));
    }

    fn train_stage<B: AutodiffBackend>(
        &self,
        stage: &Stage,
        ready: Ready<B>,
        state: CheckpointState,
    ) -> Result<(Option<Model<B>>, CheckpointState), Error> {
        let recipe = &*self.recipe;
        let steps = self.steps(stage);
        let of_stage = stage.micro_batches(recipe.batch.accumulate);
        let left = of_stage.before(steps) - of_stage.before(state.stage_step.min(steps));
        let train = TrainingLoader {
            data: self.inputs.train.clone(),
            positions: state.micro_batches..state.micro_batches.saturating_add(left),
        };
        let hooks = self.hooks::<B>(stage, &state)?;
        let place = StagePlace::new(recipe, state.stage_index);
        let mut session = self.session(stage, state, ready.optimizer, hooks);
        session.average = ready.average;
        let valid = self.inputs.valid.on(session.settings.route.evaluation());
        let rounds = match session.settings.valid_every_steps {
            0 => 1,
            every => 1 + steps.div_ceil(every),
        };
        let strategy = Arc::new(HookedStrategy::new(session));
        let interrupter = Interrupter::new();
        let train_loader = Arc::new(train);
        let valid_loader = Arc::new(ValidationLoader(Arc::new(valid)));
        let training = SupervisedTraining::new(self.run.path(), train_loader, valid_loader)
            .num_epochs(rounds as usize)
            .with_application_logger(None)
            .with_metric_logger(metric::NoLog)
            .with_interrupter(interrupter.clone())
            .with_training_strategy(TrainingStrategy::Custom(strategy.clone()));
        let training = metric::register(training, &measure::metrics(recipe, stage));
        let training = self.render.attach(training, place, interrupter);
        drop(training.launch(learner(ready.model)));
        let Outcome { model, state } = strategy.outcome();
        Ok((Some(model), state?))
    }

    /// A stage at work, still without its model.
    pub fn session<B: AutodiffBackend>(
        &self,
        stage: &Stage,
        state: CheckpointState,
        optimizer: ParameterOptimizer<B>,
        hooks: Hooks<B, Model<B>>,
    ) -> Session<B, Model<B>> {
        Session {
            hooks,
            clock: Clock::after(state.wall_s),
            settings: self.settings(stage),
            run: self.run.clone(),
            ranks: self.ranks.clone(),
            stop: self.stop.clone(),
            state,
            model: None,
            average: None,
            optimizer,
        }
    }

    /// Optimizer steps of a stage, with those it was given after its end.
    pub(super) fn steps(&self, stage: &Stage) -> u64 {
        let ends = extend::ends(stage, &self.extensions);
        ends.last().copied().unwrap_or(stage.steps)
    }

    fn settings(&self, stage: &Stage) -> StageSettings {
        let recipe = &*self.recipe;
        StageSettings {
            name: stage.name.clone(),
            schedule_steps: stage.steps,
            ends: extend::ends(stage, &self.extensions),
            micro_batches: stage.micro_batches(recipe.batch.accumulate),
            learning_rate: stage.learning_rate.clone(),
            average: recipe.average.clone(),
            route: route(stage, recipe),
            clip_norm: recipe.optimizer.clip_norm(),
            valid: self.inputs.valid.names().to_vec(),
            valid_every_steps: recipe.watch.valid_every_steps,
            checkpoint_every_steps: recipe.checkpoint.every_steps,
            keep_last: recipe.checkpoint.keep_last,
            keep_best: recipe.checkpoint.keep_best,
        }
    }

    /// In the order in which they are called: what adds numbers comes before what writes them down.
    fn hooks<B: AutodiffBackend>(
        &self,
        stage: &Stage,
        state: &CheckpointState,
    ) -> Result<Hooks<B, Model<B>>, Error> {
        let watch = &self.recipe.watch;
        let mut hooks: Hooks<B, Model<B>> = vec![
            Box::new(StagedUnfreezing::new(stage.freeze.clone())),
            Box::new(RouteSchedule::new(stage, &self.recipe)),
            Box::new(RoutingMetrics),
            Box::new(CollapseGuard::new(
                self.fail_on_collapse,
                state.hooks.get(CollapseGuard::NAME),
            )),
            Box::new(Every(watch.log_every_steps, Throughput::new(state.tokens))),
        ];
        for hook in registry().hooks() {
            let Some(config) = self.recipe.hook.get(hook.entry.name) else {
                continue;
            };
            let open = Open {
                config,
                recipe: &self.recipe,
                stage,
                state: state.hooks.get(hook.entry.name),
            };
            hooks.push(hook.open::<B>(open)?);
        }
        // What is written and shown all ranks have. Of a table that they share out all draw samples, and the first writes them.
        if self.ranks.is_first() {
            hooks.push(Box::new(MetricsLog::open(
                &self.run,
                watch.log_every_steps,
                &measure::metrics(&self.recipe, stage),
                state.hooks.get(MetricsLog::NAME),
            )?));
            hooks.extend(
                self.render
                    .hook(StagePlace::new(&self.recipe, state.stage_index)),
            );
        }
        if watch.sample_every_steps > 0 {
            let log = self.ranks.is_first().then_some(&self.run);
            let sample = Sample::open(
                log,
                self.inputs.tokenizer.clone(),
                &self.recipe,
                state.hooks.get(Sample::NAME),
            )?;
            hooks.push(Box::new(Every(watch.sample_every_steps, sample)));
        }
        Ok(hooks)
    }

    fn restore<B: AutodiffBackend>(
        &self,
        stage: &Stage,
        snapshot: Snapshot,
        device: &B::Device,
    ) -> Result<Ready<B>, Error> {
        let step = snapshot.state.step;
        let file = self.run.checkpoints().join(format!("step-{step:08}"));
        let blueprint = self.blueprint();
        let model = blueprint.load(&stage.policy, snapshot.model, &file, device)?;
        let mut optimizer = ParameterOptimizer::new(&self.recipe.optimizer);
        let (moments, times) = (snapshot.optimizer, &snapshot.state.optimizer_times);
        match model.own_optimizer() {
            Some(own) => own.set_moments(moments, &file).map_err(Error::Invalid)?,
            None => optimizer = optimizer.import(&model, moments, times, &file)?,
        }
        let average = match snapshot.average.is_empty() {
            true => None,
            false => {
                let policy = &stage.policy;
                let average: Model<B> = blueprint.load(policy, snapshot.average, &file, device)?;
                Some(average.valid())
            }
        };
        self.check_average(&snapshot.state, average.is_some(), &file)?;
        Ok(Ready {
            average,
            ..Ready::new(model, optimizer)
        })
    }

    /// Whether a checkpoint has an average of the weights where the recipe says that there is one by then.
    fn check_average(
        &self,
        state: &CheckpointState,
        found: bool,
        file: &Path,
    ) -> Result<(), Error> {
        let config = self.recipe.average.as_ref();
        let expected = config.is_some_and(|config| config.has_begun(state.stage_step));
        if found == expected {
            return Ok(());
        }
        let words = |there| match there {
            true => "averaged weights",
            false => "none",
        };
        let problem = Problem::new(file, "average", words(found), words(expected));
        let advice = "the recipe and the checkpoint do not belong together";
        Err(Error::Invalid(problem.advise(advice)))
    }

    fn start<B: AutodiffBackend>(
        &self,
        stage: &Stage,
        carried: Option<Model<B>>,
        device: &B::Device,
    ) -> Result<Ready<B>, Error> {
        let blueprint = self.blueprint();
        let policy = &stage.policy;
        let model = match (&stage.start, carried) {
            (StageStart::Previous, Some(carried)) => blueprint.adapt(policy, carried),
            (StageStart::Run { path, step, .. }, _) => {
                return self.of_run(path, *step, stage, device);
            }
            _ => blueprint.fresh(policy, device),
        };
        let optimizer = ParameterOptimizer::new(&self.recipe.optimizer);
        Ok(Ready::new(model, optimizer))
    }

    /// The model of another run's checkpoint, and its optimizer if that is kept.
    fn of_run<B: AutodiffBackend>(
        &self,
        path: &Path,
        step: Option<u64>,
        stage: &Stage,
        device: &B::Device,
    ) -> Result<Ready<B>, Error> {
        let policy = &stage.policy;
        let run = RunDirectory::open(path)?;
        let found = match step {
            None => checkpoint::latest_without(&run, self.left_on_disk())?,
            Some(step) => checkpoint::at_step_without(&run, step, self.left_on_disk())?,
        };
        let Some(loaded) = found else {
            return Err(without_checkpoint(&run, step));
        };
        let tokenizer = &self.inputs.tokenizer;
        if loaded.snapshot.state.tokenizer_sha256 != tokenizer.sha256() {
            return Err(of_another_tokenizer(path));
        }
        // A run cannot be told from another one with the same recipe unless it says which weights it took.
        let started = StartedFrom {
            path: path.display().to_string(),
            step: loaded.snapshot.state.step,
            weights_sha256: checkpoint::weights_sha256(&loaded.path)?,
        };
        // The other run may go on while the ranks read.
        let taken = format!("step {} (weights {})", started.step, started.weights_sha256);
        let place = format!("start of stage {}", stage.name);
        self.ranks.compare(&Facts::default().with(place, taken))?;
        let note = |info: &mut RunInfo| drop(info.starts.insert(stage.name.clone(), started));
        self.ranks.by_first(|| self.run.change_info(note))?;
        let plain = loaded
            .snapshot
            .model
            .keys()
            .any(|path| path.starts_with("blocks."));
        let of_run = if plain { &Policy::None } else { policy };
        let blueprint = self.blueprint();
        let Snapshot {
            state,
            model,
            optimizer,
            ..
        } = loaded.snapshot;
        let model = blueprint.load(of_run, model, &loaded.path, device)?;
        let model = blueprint.adapt(policy, model);
        if !stage.start.keeps_optimizer() {
            let fresh = ParameterOptimizer::new(&self.recipe.optimizer);
            return Ok(Ready::new(model, fresh));
        }
        branch::check(&self.recipe, &run, &state)?;
        let branch = Branch {
            state: &state,
            moments: optimizer,
            file: &loaded.path,
        };
        let optimizer = branch.optimizer(&self.recipe, &model)?;
        Ok(Ready {
            earlier: Some(branch::earlier(&state)),
            ..Ready::new(model, optimizer)
        })
    }

    /// What all ranks have to begin with.
    ///
    /// # Errors
    /// `Invalid` if the checkpoint has changed since it was read.
    pub fn facts(&self, start: &Position) -> Result<Facts, Error> {
        let CheckpointState { step, stage, .. } = &start.state;
        let facts = Facts::default()
            .with("checkpoint", format!("step {step} of stage {stage}"))
            .with("extensions", format!("{:?}", self.extensions));
        Ok(match start.resumed {
            None => facts,
            Some(_) => {
                let checkpoint = self.run.checkpoints().join(format!("step-{step:08}"));
                facts.with("weights", checkpoint::weights_sha256(&checkpoint)?)
            }
        })
    }

    /// The tensors whose values are read when it is known which of them this rank holds.
    pub(super) fn left_on_disk(&self) -> &'static [&'static str] {
        match self.ranks.is_alone() {
            true => &[],
            false => self.recipe.model.family().tables,
        }
    }

    fn blueprint(&self) -> Blueprint<'_> {
        Blueprint {
            recipe: &self.recipe,
            vocabulary: self.inputs.tokenizer.vocabulary_size(),
            counts: self.inputs.counts.as_ref(),
            ranks: Some(&self.ranks),
        }
    }
}

/// What a stage begins with.
struct Ready<B: AutodiffBackend> {
    model: Model<B>,
    optimizer: ParameterOptimizer<B>,
    /// What another run did before, where its optimizer is kept.
    earlier: Option<Earlier>,
    /// The moving average of the weights, if the stage goes on with one.
    average: Option<Model<B::InnerBackend>>,
}

impl<B: AutodiffBackend> Ready<B> {
    /// With an optimizer of this run.
    fn new(model: Model<B>, optimizer: ParameterOptimizer<B>) -> Self {
        Self {
            model,
            optimizer,
            earlier: None,
            average: None,
        }
    }
}

/// The first state of a run that goes on behind what another one did.
fn behind(state: CheckpointState, earlier: Earlier) -> CheckpointState {
    CheckpointState {
        micro_batches: earlier.micro_batches,
        earlier: Some(earlier),
        ..state
    }
}

fn next_stage(state: CheckpointState, index: usize, stage: &Stage) -> CheckpointState {
    CheckpointState {
        stage_index: index,
        stage: stage.name.clone(),
        stage_step: 0,
        stage_valid: BTreeMap::new(),
        optimizer_times: BTreeMap::new(),
        ..state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;
    use crate::run::checkpoint::Best;

    #[test]
    fn a_stage_begins_at_its_first_step_with_fresh_moments_and_goes_on_in_the_data() {
        let tiny = BUNDLED
            .iter()
            .find(|one| (one.kind, one.size) == ("brian", "tiny"))
            .unwrap();
        let recipe = from_text("r.toml", tiny.text.to_string(), &[]).unwrap();
        let before = CheckpointState {
            stage: "baseline".to_string(),
            step: 150,
            stage_step: 150,
            micro_batches: 300,
            tokens: 999,
            wall_s: 5.0,
            best: Some(Best {
                step: 100,
                value: 3.0,
            }),
            stage_valid: [("valid/loss/lm".to_string(), 3.0)].into(),
            optimizer_times: [("norm".to_string(), 150)].into(),
            hooks: [("metrics_log".to_string(), 7.into())].into(),
            ..CheckpointState::default()
        };
        let expected = CheckpointState {
            stage_index: 1,
            stage: "fixed".to_string(),
            stage_step: 0,
            stage_valid: BTreeMap::new(),
            optimizer_times: BTreeMap::new(),
            ..before.clone()
        };
        assert_eq!(next_stage(before, 1, &recipe.stage[1]), expected);
    }
}
