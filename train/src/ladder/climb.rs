//! Stage after stage, from the newest checkpoint or from the ground.

use super::build::{adapt, fresh_model, skeleton};
use super::gate;
use crate::data::Tokenizer;
use crate::error::{Error, Problem};
use crate::hook::{MetricsLog, Sample, StagedUnfreezing, Throughput};
use crate::learner::{
    Clock, Every, GroupedAdamW, Hook, HookedStrategy, OptimizerConfig, Outcome, Session,
    StageSettings, TrainingData, TrainingLoader, ValidationData, ValidationLoader, load_model,
};
use crate::metric;
use crate::recipe::{Checked, Policy, Stage, Start};
use crate::render::Render;
use crate::run::RunDirectory;
use crate::run::checkpoint::{self, STATE_FORMAT, Snapshot, State};
use crate::signal::Stop;
use crate::task::Decoder;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{Interrupter, Learner, SupervisedTraining, TrainingStrategy};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A recipe on its way through its stages.
pub struct Ladder {
    /// What to do.
    pub recipe: Checked,
    /// Where it is saved.
    pub run: RunDirectory,
    /// What signals have asked for.
    pub stop: Stop,
    /// How it is shown.
    pub render: Render,
    /// Says something to the user.
    pub say: fn(&str),
}

/// Data and tokenizer, opened and checked once for all stages.
struct Inputs {
    tokenizer: Arc<Tokenizer>,
    train: Arc<TrainingData>,
    sha256: BTreeMap<String, String>,
}

impl Ladder {
    /// Climbs from the newest checkpoint that verifies, or from the ground.
    ///
    /// # Errors
    /// `Invalid` if data, tokenizer or checkpoint are broken or have changed since; `Stopped` after a signal;
    /// `Refused` if a gate stays shut; `Numerical` if a loss is not finite; `Resource` if the disk is full.
    pub fn climb<B: AutodiffBackend>(&self, device: &B::Device) -> Result<(), Error> {
        let inputs = self.open_inputs()?;
        let resumed = self.newest()?;
        let mut state = match &resumed {
            Some(snapshot) => self.check_unchanged(&snapshot.state, &inputs)?,
            None => self.first_state(&inputs),
        };
        let mut resumed = resumed;
        let mut model: Option<Decoder<B>> = None;
        for (index, stage) in self.recipe.stage.iter().enumerate().skip(state.stage_index) {
            if index > state.stage_index {
                state = next_stage(state, index, stage);
            }
            let ready = match (resumed.take(), model.take()) {
                (Some(snapshot), _) => self.restore(stage, snapshot, &inputs, device)?,
                (None, carried) => self.start(stage, carried, &inputs, device),
            };
            (model, state) = self.train_stage(stage, ready, state, &inputs)?;
            gate::check(stage, &state.stage_valid)?;
        }
        Ok(())
    }

    fn open_inputs(&self) -> Result<Inputs, Error> {
        let recipe = &*self.recipe;
        let tokenizer = Tokenizer::load(&recipe.tokenizer.file)?;
        let train = TrainingData::open(&recipe.data, recipe.batch.sequences, &tokenizer)?;
        let mut sha256 = train.sha256();
        sha256.extend(self.open_validation(&tokenizer, Policy::None)?.sha256());
        Ok(Inputs {
            tokenizer: Arc::new(tokenizer),
            train: Arc::new(train),
            sha256,
        })
    }

    fn open_validation(
        &self,
        tokenizer: &Tokenizer,
        policy: Policy,
    ) -> Result<ValidationData, Error> {
        let recipe = &*self.recipe;
        let names = split_names(
            &recipe
                .data
                .valid
                .iter()
                .map(|valid| valid.name.as_str())
                .collect::<Vec<_>>(),
        );
        let paths = recipe.data.valid.iter().map(|valid| valid.path.as_path());
        let splits: Vec<(String, &Path)> = names.into_iter().zip(paths).collect();
        ValidationData::open(
            &splits,
            &recipe.data,
            recipe.batch.sequences,
            recipe.watch.valid_tokens,
            tokenizer,
            policy.route(),
        )
    }

    fn newest(&self) -> Result<Option<Snapshot>, Error> {
        let loaded = checkpoint::latest(&self.run)?;
        Ok(loaded.map(|loaded| {
            for problem in &loaded.skipped {
                (self.say)(&format!("{problem}; it is passed over"));
            }
            let state = &loaded.snapshot.state;
            let stage_step = state.stage_step;
            (self.say)(&format!(
                "resuming at step {} (stage {}, step {stage_step}) from {}",
                state.step,
                state.stage,
                loaded.path.display()
            ));
            loaded.snapshot
        }))
    }

    fn first_state(&self, inputs: &Inputs) -> State {
        State {
            format: STATE_FORMAT,
            stage: self.recipe.stage[0].name.clone(),
            recipe_sha256: self.recipe.sha256(),
            tokenizer_sha256: inputs.tokenizer.sha256(),
            data_sha256: inputs.sha256.clone(),
            nerve_version: env!("CARGO_PKG_VERSION").to_string(),
            backend: self.recipe.device.backend.clone(),
            threads: crate::device::threads(),
            ..State::default()
        }
    }

    /// A resume is exact only with the recipe, the data and the tokenizer it was saved with.
    fn check_unchanged(&self, state: &State, inputs: &Inputs) -> Result<State, Error> {
        let now = self.first_state(inputs);
        let changed = |file: &Path, advice: &str| {
            let problem = Problem::new(
                file,
                "",
                "content that changed since the checkpoint was saved",
                "the same content",
            );
            problem.advise(advice.to_string())
        };
        if now.recipe_sha256 != state.recipe_sha256 {
            let advice = "put it back, or start a new run with the changed recipe";
            return Err(Error::config(changed(&self.run.recipe(), advice)));
        }
        if now.tokenizer_sha256 != state.tokenizer_sha256 {
            let advice = "put the old tokenizer back";
            return Err(Error::Invalid(changed(&self.recipe.tokenizer.file, advice)));
        }
        for (path, sha256) in &state.data_sha256 {
            if now.data_sha256.get(path) != Some(sha256) {
                return Err(Error::Invalid(changed(
                    Path::new(path),
                    "put the old data back",
                )));
            }
        }
        if now.threads != state.threads {
            (self.say)(&format!(
                "{} threads instead of the checkpoint's {}: the run goes on, but not to the same bits",
                now.threads, state.threads
            ));
        }
        Ok(state.clone())
    }

    fn train_stage<B: AutodiffBackend>(
        &self,
        stage: &Stage,
        ready: Ready<B>,
        state: State,
        inputs: &Inputs,
    ) -> Result<(Option<Decoder<B>>, State), Error> {
        let recipe = &*self.recipe;
        let steps_left = stage.steps - state.stage_step;
        let route = stage.policy.route();
        let valid = self.open_validation(&inputs.tokenizer, stage.policy)?;
        let accumulate = recipe.batch.accumulate as u64;
        let train = TrainingLoader {
            data: inputs.train.clone(),
            positions: state.micro_batches..state.micro_batches + steps_left * accumulate,
            route,
        };
        let settings = self.settings(stage, valid.names());
        let rounds = match settings.valid_every_steps {
            0 => 1,
            every => 1 + stage.steps.div_ceil(every),
        };
        let session = Session {
            hooks: self.hooks::<B>(stage, &state, inputs)?,
            clock: Clock::after(state.wall_s),
            settings,
            run: self.run.clone(),
            stop: self.stop.clone(),
            state,
            model: None,
            optimizer: ready.optimizer,
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
        let training = metric::register(training);
        let training = self.render.attach(training, &stage.name, interrupter);
        let fresh = GroupedAdamW::new(&recipe.optimizer);
        let result = training.launch(Learner::new(ready.model, fresh, stage.learning_rate.peak()));
        drop(result);
        let Outcome { model, state } = strategy.outcome();
        Ok((Some(model), state?))
    }

    fn settings(&self, stage: &Stage, valid: &[String]) -> StageSettings {
        let recipe = &*self.recipe;
        let OptimizerConfig::Adamw { clip_norm, .. } = recipe.optimizer;
        StageSettings {
            name: stage.name.clone(),
            steps: stage.steps,
            accumulate: recipe.batch.accumulate,
            learning_rate: stage.learning_rate.clone(),
            route: stage.policy.route(),
            clip_norm,
            valid: valid.to_vec(),
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
        state: &State,
        inputs: &Inputs,
    ) -> Result<Vec<Box<dyn Hook<B, Decoder<B>>>>, Error> {
        let watch = &self.recipe.watch;
        let mut hooks: Vec<Box<dyn Hook<B, Decoder<B>>>> = vec![
            Box::new(StagedUnfreezing::new(stage.freeze.clone())),
            Box::new(Every(watch.log_every_steps, Throughput::new(state.tokens))),
            Box::new(MetricsLog::open(
                &self.run,
                watch.log_every_steps,
                state.hooks.get(MetricsLog::NAME),
                self.say,
            )?),
        ];
        if watch.sample_every_steps > 0 {
            let sample = Sample::open(
                &self.run,
                inputs.tokenizer.clone(),
                &self.recipe,
                state.hooks.get(Sample::NAME),
                self.say,
            )?;
            hooks.push(Box::new(Every(watch.sample_every_steps, sample)));
        }
        Ok(hooks)
    }

    fn restore<B: AutodiffBackend>(
        &self,
        stage: &Stage,
        snapshot: Snapshot,
        inputs: &Inputs,
        device: &B::Device,
    ) -> Result<Ready<B>, Error> {
        let vocabulary = inputs.tokenizer.vocabulary_size();
        let skeleton = skeleton(&self.recipe.model, stage.policy, vocabulary, device);
        let model = load_model(skeleton, snapshot.model, &self.run.checkpoints())?;
        let fresh = GroupedAdamW::new(&self.recipe.optimizer);
        let optimizer = fresh.import(&model, snapshot.optimizer, &snapshot.state.optimizer_times);
        Ok(Ready { model, optimizer })
    }

    fn start<B: AutodiffBackend>(
        &self,
        stage: &Stage,
        carried: Option<Decoder<B>>,
        inputs: &Inputs,
        device: &B::Device,
    ) -> Ready<B> {
        let seed = self.recipe.run.seed;
        let vocabulary = inputs.tokenizer.vocabulary_size();
        let model = match (stage.start, carried) {
            (Start::Previous, Some(carried)) => {
                adapt(&self.recipe.model, stage.policy, carried, seed)
            }
            _ => fresh_model(&self.recipe.model, stage.policy, vocabulary, seed, device),
        };
        let optimizer = GroupedAdamW::new(&self.recipe.optimizer);
        Ready { model, optimizer }
    }
}

/// What a stage begins with.
struct Ready<B: AutodiffBackend> {
    model: Decoder<B>,
    optimizer: GroupedAdamW<Decoder<B>, B>,
}

/// The names of validation splits in metrics: the first is `valid`, whose loss chooses checkpoints.
fn split_names(names: &[&str]) -> Vec<String> {
    let name = |(index, name): (usize, &&str)| match index {
        0 => "valid".to_string(),
        _ => format!("valid.{name}"),
    };
    names.iter().enumerate().map(name).collect()
}

fn next_stage(state: State, index: usize, stage: &Stage) -> State {
    State {
        stage_index: index,
        stage: stage.name.clone(),
        stage_step: 0,
        stage_valid: BTreeMap::new(),
        optimizer_times: BTreeMap::new(),
        ..state
    }
}
