//! Tests of the training loop: order of steps, accumulation, clipping, freezing, validation, checkpoints, stops and resume,
//! with a model of two numbers, whose losses and gradients are known, and with small decoders.

use super::*;
use crate::collective::Ranks;
use crate::data::HostBatch;
use crate::device::tests::{Host, Learning as B};
use crate::hook::StagedUnfreezing;
use crate::ladder::{Blueprint, route};
use crate::learner::{AverageConfig, MicroBatches};
use crate::learner::{Decay, Hook, HookedStrategy, OptimizerConfig, Outcome, learner};
use crate::metric::NoLog;
use crate::model::Model;
use crate::recipe::Freeze;
use crate::recipe::bundled::BUNDLED;
use crate::recipe::load::from_text;
use crate::render::{Render, StagePlace};
use crate::run::{RunInfo, TensorMap};
use brian::BaselineConfig;
use brian::initial::Initial;
use burn::data::dataloader::{DataLoaderIterator, Progress};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::train::{SupervisedTraining, TrainOutput, TrainStep, TrainingStrategy};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// Loses `(embedding + norm) · target` on a target, so the gradient of both is the mean target of a step.
#[derive(Module, Debug)]
struct Toy<B: Backend> {
    embedding: Param<Tensor<B, 2>>,
    norm: Param<Tensor<B, 1>>,
}

impl<B: Backend> Toy<B> {
    /// 1 and 2: three nats for a target of 1.
    fn new() -> Self {
        let device = Default::default();
        Self {
            embedding: Param::from_tensor(Tensor::from_floats([[1.0]], &device)),
            norm: Param::from_tensor(Tensor::from_floats([2.0], &device)),
        }
    }

    fn values(&self) -> [f64; 2] {
        let [embedding, norm] = [
            self.embedding.val().into_data(),
            self.norm.val().into_data(),
        ];
        [&embedding, &norm].map(|data| data.iter::<f64>().sum())
    }

    fn token_losses(&self, batch: &Batch) -> Tensor<B, 1> {
        let places = batch.host.targets.iter().zip(&batch.host.valid);
        let counted = places.filter(|(_, valid)| **valid);
        let sum: u32 = counted.map(|(target, _)| target).sum();
        (self.embedding.val().reshape([1]) + self.norm.val()) * f64::from(sum)
    }

    fn measured(&self, batch: &Batch) -> Measured {
        Measured {
            nats: self.token_losses(batch).into_data().iter::<f64>().sum(),
            targets: batch.targets(),
            bytes: batch.host.bytes,
            ..Measured::default()
        }
    }
}

impl<B: AutodiffBackend> TrainStep for Toy<B> {
    type Input = Batch;
    type Output = Measured;

    fn step(&self, batch: Batch) -> TrainOutput<Measured> {
        let loss = self.token_losses(&batch) / batch.plan.targets as f64;
        TrainOutput::new(self, loss.backward(), self.measured(&batch))
    }
}

impl<B: Backend> InferenceStep for Toy<B> {
    type Input = Batch;
    type Output = Measured;

    fn step(&self, batch: Batch) -> Measured {
        self.measured(&batch)
    }
}

impl Trainable<B> for Toy<B> {}

/// One row of targets, of which the first `counted` count.
fn batch(targets: &[u32], counted: usize) -> Batch {
    let host = HostBatch {
        inputs: vec![0; targets.len()],
        targets: targets.to_vec(),
        valid: (0..targets.len()).map(|place| place < counted).collect(),
        bytes: 2 * counted as u64,
        batch: 1,
        seq: targets.len(),
        ids: vec![(0, 7)],
        parts: Vec::new(),
        difficulty: vec![None],
        sequences: vec![0],
    };
    Batch {
        host,
        source: 0,
        plan: StepPlan::idle(RoutePlan::sequential()),
    }
}

/// Batches that were given, pass after pass.
struct Given(Mutex<VecDeque<Vec<Batch>>>);

impl Given {
    fn new(passes: Vec<Vec<Batch>>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(passes.into())))
    }
}

struct BatchesOfPass(std::vec::IntoIter<Batch>);

impl Iterator for BatchesOfPass {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        self.0.next()
    }
}

impl DataLoaderIterator<Batch> for BatchesOfPass {
    fn progress(&self) -> Progress {
        Progress::new(0, 1)
    }
}

impl<B: Backend> DataLoader<B, Batch> for Given {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let pass = self.0.lock().unwrap().pop_front();
        Box::new(BatchesOfPass(
            pass.expect("a pass for every time").into_iter(),
        ))
    }

    fn num_items(&self) -> usize {
        1
    }

    fn to_device(&self, _device: &B::Device) -> Arc<dyn DataLoader<B, Batch>> {
        unreachable!("one device")
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<B, Batch>> {
        unreachable!("one device")
    }
}

/// What a hook saw of a step.
#[derive(Clone, Debug, Default)]
struct Seen {
    stage_step: u64,
    stage_steps: u64,
    is_last: bool,
    tokens: u64,
    targets: u64,
    train: Option<BTreeMap<String, f64>>,
    valid: BTreeMap<String, f64>,
    values: [f64; 2],
}

impl Seen {
    fn number(&self, name: &str) -> f64 {
        self.train.as_ref().expect("a step")[name]
    }
}

/// Writes down what happens, and stops after a step.
#[derive(Clone, Default)]
struct Spy {
    planned: Arc<Mutex<Vec<u64>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    finished: Arc<Mutex<u64>>,
    stop_after: Option<u64>,
    signal_after: Option<(u64, Stop)>,
}

impl Spy {
    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Of the steps alone.
    fn steps(&self) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|one| one.train.is_some());
        seen
    }
}

impl Hook<B, Toy<B>> for Spy {
    fn name(&self) -> &'static str {
        "spy"
    }

    fn before_step(&mut self, plan: &mut StepPlan) -> Result<(), Error> {
        assert_eq!(plan.stage_steps, 4, "schedules follow the recipe's steps");
        self.planned.lock().unwrap().push(plan.stage_step);
        Ok(())
    }

    fn after_step(&mut self, step: &mut StepInfo<Toy<B>>) -> Result<Verdict, Error> {
        let valid = step.valid.iter();
        self.seen.lock().unwrap().push(Seen {
            stage_step: step.stage_step,
            stage_steps: step.stage_steps,
            is_last: step.is_last(),
            tokens: step.tokens,
            targets: step.plan.targets,
            train: step.train.as_ref().map(Measured::named),
            valid: valid.map(|(name, of)| (name.clone(), of.loss())).collect(),
            values: step.model.values(),
        });
        if let Some((after, stop)) = &self.signal_after
            && *after == step.stage_step
        {
            stop.request(15);
        }
        match self.stop_after == Some(step.stage_step) {
            true => Ok(Verdict::Stop(Error::Numerical("enough".to_string()))),
            false => Ok(Verdict::Continue),
        }
    }

    fn finish(&mut self) -> Result<(), Error> {
        *self.finished.lock().unwrap() += 1;
        Ok(())
    }

    fn state(&mut self) -> Result<Option<serde_json::Value>, Error> {
        Ok(Some(self.seen().len().into()))
    }
}

fn constant(peak: f64, warmup_steps: u64) -> Schedule {
    Schedule::Constant {
        peak,
        warmup_steps: Some(warmup_steps),
        warmup_share: None,
    }
}

/// A stage of four steps without validations; nothing is clipped, and the rate of 0 changes nothing.
fn settings() -> StageSettings {
    StageSettings {
        name: "a".to_string(),
        schedule_steps: 4,
        ends: vec![4],
        micro_batches: MicroBatches::always(1),
        route: RoutePlan::sequential(),
        learning_rate: constant(0.0, 0),
        average: None,
        clip_norm: 1e9,
        valid: vec!["valid".to_string()],
        valid_every_steps: 0,
        checkpoint_every_steps: 1000,
        keep_last: 9,
        keep_best: false,
    }
}

fn adamw() -> OptimizerConfig {
    OptimizerConfig::Adamw {
        betas: [0.75, 0.5],
        epsilon: 1e-8,
        weight_decay: 0.0,
        decay: Decay::All,
        decay_by: None,
        clip_norm: 1e9,
    }
}

fn session<M: Trainable<B>>(root: &TempDir, settings: StageSettings, model: M) -> Session<B, M> {
    let run = RunDirectory::create(root.path(), "run", "", RunInfo::new("test")).unwrap();
    Session {
        ranks: Ranks::alone(),
        settings,
        run,
        stop: Stop::new(),
        state: CheckpointState {
            format: checkpoint::STATE_FORMAT,
            stage: "a".to_string(),
            ..CheckpointState::default()
        },
        model: Some(model),
        average: None,
        optimizer: ParameterOptimizer::new(&adamw()),
        hooks: Vec::new(),
        clock: Clock::after(0.0),
    }
}

/// Trains until the end; each validation has one batch of one target, and after the last pass of `train` nothing comes.
// burn-train asks for an `Arc`, also of what stays in one thread.
#[allow(clippy::arc_with_non_send_sync)]
fn launch(session: Session<B, Toy<B>>, train: Vec<Batch>, valid: &[u32]) -> Outcome<Toy<B>> {
    let tiny = BUNDLED.iter().find(|one| one.kind == "baseline").unwrap();
    let recipe = from_text("r.toml", tiny.text.to_string(), &[]).unwrap();
    let valid = valid.iter().map(|target| vec![batch(&[*target], 1)]);
    let path = session.run.path().to_path_buf();
    let strategy = Arc::new(HookedStrategy::new(session));
    let interrupter = Interrupter::new();
    let training =
        SupervisedTraining::new(path, Given::new(vec![train]), Given::new(valid.collect()))
            .num_epochs(1)
            .with_application_logger(None)
            .with_metric_logger(NoLog)
            .with_interrupter(interrupter.clone())
            .with_training_strategy(TrainingStrategy::Custom(strategy.clone()));
    let training = Render::None.attach(training, StagePlace::new(&recipe, 0), interrupter);
    drop(training.launch(learner(Toy::new())));
    strategy.outcome()
}

fn with_spy(root: &TempDir, settings: StageSettings, spy: &Spy) -> Session<B, Toy<B>> {
    let mut session = session(root, settings, Toy::new());
    session.hooks.push(Box::new(spy.clone()));
    session
}

fn saved(root: &TempDir) -> Vec<u64> {
    let run = RunDirectory::open(&root.path().join("run")).unwrap();
    let list = checkpoint::list(&run).unwrap().into_iter();
    list.map(|(step, _)| step).collect()
}

fn twos(n: usize) -> Vec<Batch> {
    (0..n).map(|_| batch(&[2, 2, 9], 2)).collect()
}

#[test]
fn steps_validations_and_rates_come_in_their_order_and_the_last_step_is_validated() {
    let root = tempfile::tempdir().unwrap();
    let spy = Spy::default();
    let settings = StageSettings {
        ends: vec![3, 5],
        valid_every_steps: 2,
        learning_rate: constant(1e-12, 2),
        ..settings()
    };
    let outcome = launch(with_spy(&root, settings, &spy), twos(5), &[1, 2, 3, 4, 5]);
    let state = outcome.state.unwrap();
    assert_eq!(
        (
            state.step,
            state.stage_step,
            state.micro_batches,
            state.tokens
        ),
        (5, 5, 5, 10)
    );
    assert_eq!(*spy.planned.lock().unwrap(), [0, 1, 2, 3, 4]);
    let seen = spy.seen();
    // A loss of 3 times the target; the first validation comes before any step, and step 3 was an end once.
    let valid: Vec<(u64, f64)> = seen
        .iter()
        .filter_map(|one| Some((one.stage_step, one.valid.get("valid")?.round())))
        .collect();
    assert_eq!(valid, [(0, 3.0), (2, 6.0), (3, 9.0), (4, 12.0), (5, 15.0)]);
    assert!(seen[0].train.is_none() && seen.len() == 6);
    assert_eq!(
        seen.iter().map(|one| one.tokens).collect::<Vec<_>>(),
        [0, 2, 4, 6, 8, 10]
    );
    assert_eq!(
        seen.iter().map(|one| one.stage_steps).collect::<Vec<_>>(),
        [3, 3, 3, 3, 5, 5]
    );
    assert_eq!(seen.iter().filter(|one| one.is_last).count(), 2);
    let steps = spy.steps();
    let rates: Vec<f64> = steps
        .iter()
        .map(|one| one.number("learning_rate"))
        .collect();
    assert_eq!(rates, [5e-13, 1e-12, 1e-12, 1e-12, 1e-12]);
    // Four nats of 3 each on two targets, with four bytes; the gradient is (2, 2).
    for step in &steps {
        assert_eq!(step.targets, 2);
        assert!((step.number("loss/lm") - 6.0).abs() < 1e-5);
        assert!((step.number("loss/total") - 6.0).abs() < 1e-5);
        assert!((step.number("bits_per_byte") - 3.0 / std::f64::consts::LN_2).abs() < 1e-5);
        assert!((step.number("gradient_norm") - 8f64.sqrt()).abs() < 1e-5);
    }
    assert_eq!(state.stage_valid["valid/loss/lm"].round(), 15.0);
}

#[test]
fn micro_batches_have_the_loss_and_the_gradient_of_one_batch_by_their_targets() {
    let step = |batches: Vec<Batch>| {
        let root = tempfile::tempdir().unwrap();
        let mut session = session(&root, settings(), Toy::<B>::new());
        let mut plan = session.plan();
        plan.targets = batches.iter().map(Batch::targets).sum();
        let measured = session.step(&plan, batches).unwrap();
        let (moments, _) = session.optimizer.export(session.model());
        let first = moments["embedding.moment_1"].floats()[0];
        assert_eq!(session.state.tokens, 3);
        (measured.named(), first, session.state.micro_batches)
    };
    // Targets 2, 4 and 6: mean 4. The mean of the two micro-batches' means would be 4.5.
    let (whole, of_whole, one) = step(vec![batch(&[2, 4, 6, 9], 3)]);
    let (parts, of_parts, two) = step(vec![batch(&[2, 4, 9, 9], 2), batch(&[6, 9, 9, 9], 1)]);
    assert_eq!((one, two), (1, 2));
    for (numbers, moment) in [(whole, of_whole), (parts, of_parts)] {
        assert!((numbers["loss/lm"] - 12.0).abs() < 1e-5, "{numbers:?}");
        assert!((numbers["gradient_norm"] - 32f64.sqrt()).abs() < 1e-5);
        // A quarter of the gradient.
        assert!((moment - 1.0).abs() < 1e-6);
    }
}

#[test]
fn accumulation_takes_as_many_micro_batches_as_it_says_for_each_step() {
    let root = tempfile::tempdir().unwrap();
    let spy = Spy::default();
    let settings = StageSettings {
        micro_batches: MicroBatches::always(2),
        ends: vec![2],
        ..settings()
    };
    let train = [1, 3, 5, 9].map(|target| batch(&[target], 1));
    let outcome = launch(with_spy(&root, settings, &spy), train.to_vec(), &[]);
    let state = outcome.state.unwrap();
    assert_eq!((state.step, state.micro_batches, state.tokens), (2, 4, 4));
    let steps = spy.steps();
    let losses: Vec<f64> = steps.iter().map(|one| one.number("loss/lm")).collect();
    assert_eq!((losses, steps[1].targets), (vec![6.0, 21.0], 2));
}

#[test]
fn a_ramp_takes_as_many_micro_batches_as_each_of_its_steps_says() {
    let root = tempfile::tempdir().unwrap();
    let spy = Spy::default();
    let settings = StageSettings {
        micro_batches: MicroBatches::new(1, [(1, 2), (3, 3)]),
        ..settings()
    };
    let train: Vec<_> = (0..9).map(|_| batch(&[1], 1)).collect();
    let outcome = launch(with_spy(&root, settings, &spy), train, &[]);
    let state = outcome.state.unwrap();
    assert_eq!((state.step, state.micro_batches, state.tokens), (4, 8, 8));
    let targets: Vec<u64> = spy.steps().iter().map(|one| one.targets).collect();
    assert_eq!(targets, [1, 2, 2, 3]);
}

#[test]
fn an_average_follows_the_weights_by_its_recurrence_and_changes_none_of_them() {
    let trained = |average: Option<AverageConfig>| {
        let root = tempfile::tempdir().unwrap();
        let spy = Spy::default();
        let settings = StageSettings {
            learning_rate: constant(0.1, 0),
            checkpoint_every_steps: 1,
            valid_every_steps: 4,
            average,
            ..settings()
        };
        let train: Vec<_> = (0..4).map(|_| batch(&[3], 1)).collect();
        // One before the first step, one behind the last, and one more of the average.
        let valid = &[1, 1, 1][..2 + usize::from(settings.average.is_some())];
        let session = with_spy(&root, settings, &spy);
        let run = session.run.clone();
        let state = launch(session, train, valid).state.unwrap();
        let saved = checkpoint::list(&run).unwrap().into_iter();
        let saved: Vec<_> = saved
            .map(|(_, path)| checkpoint::load(&path).unwrap())
            .collect();
        (saved, state.stage_valid)
    };
    let config = AverageConfig {
        decay: 0.75,
        every_steps: 2,
        from_step: Some(1),
    };
    let (with, last) = trained(Some(config));
    let (without, _) = trained(None);
    let number = |tensors: &TensorMap| tensors["embedding"].floats()[0];
    let weights: Vec<f32> = with.iter().map(|saved| number(&saved.model)).collect();
    let of_others: Vec<f32> = without.iter().map(|saved| number(&saved.model)).collect();
    assert_eq!(weights, of_others);
    assert!(without.iter().all(|saved| saved.average.is_empty()));
    // Begun after the first step, moved after the third.
    let moved = weights[0] + 0.25 * (weights[2] - weights[0]);
    let averages: Vec<f32> = with.iter().map(|saved| number(&saved.average)).collect();
    assert_eq!(averages, [weights[0], weights[0], moved, moved]);
    // A target of 1 loses the sum of both numbers, which started as 1 and 2 and moved alike.
    let of_average = f64::from(moved) * 2.0 + 1.0;
    assert!(
        (last["valid/average/loss/lm"] - of_average).abs() < 1e-5,
        "{last:?}"
    );
    assert!(last["valid/loss/lm"] < last["valid/average/loss/lm"]);
}

#[test]
fn a_long_gradient_is_scaled_to_the_longest_and_logged_as_it_was() {
    // The gradient is (3, 3), √18 long.
    for (longest, scaled) in [
        (1e9, 3.0),
        (18f64.sqrt() + 1e-3, 3.0),
        (2.0, 2f64.sqrt()),
        (1.0, 0.5f64.sqrt()),
        (0.02, 0.02 * 0.5f64.sqrt()),
    ] {
        let root = tempfile::tempdir().unwrap();
        let settings = StageSettings {
            clip_norm: longest,
            ..settings()
        };
        let mut session = session(&root, settings, Toy::<B>::new());
        let plan = StepPlan {
            targets: 1,
            ..session.plan()
        };
        let measured = session.step(&plan, vec![batch(&[3], 1)]).unwrap();
        assert!((measured.numbers["gradient_norm"] - 18f64.sqrt()).abs() < 1e-5);
        let (moments, _) = session.optimizer.export(session.model());
        for path in ["embedding", "norm"] {
            // A quarter of the gradient, and half of its square.
            let of = |which: u32| f64::from(moments[&format!("{path}.moment_{which}")].floats()[0]);
            assert!(
                (4.0 * of(1) - scaled).abs() < 1e-5 * scaled,
                "{longest}: {}",
                of(1)
            );
            assert!((2.0 * of(2) - scaled * scaled).abs() < 1e-4 * scaled * scaled);
        }
    }
}

#[test]
fn a_group_rests_until_its_step_and_learns_from_it_on() {
    let root = tempfile::tempdir().unwrap();
    let spy = Spy::default();
    let settings = StageSettings {
        learning_rate: constant(0.1, 0),
        ..settings()
    };
    let mut session = with_spy(&root, settings, &spy);
    let group = Freeze {
        group: "embedding".to_string(),
        until_step: Some(2),
        until_share: None,
    };
    session
        .hooks
        .insert(0, Box::new(StagedUnfreezing::new(vec![group])));
    let outcome = launch(session, twos(4), &[]);
    let times = outcome.state.unwrap().optimizer_times;
    assert_eq!((times["embedding"], times["norm"]), (2, 4));
    let steps = spy.steps();
    // Its first update is the third; AdamW's steps along a constant gradient are as long as the rate.
    let values: Vec<[f64; 2]> = steps.iter().map(|one| one.values).collect();
    let expected = [[1.0, 1.9], [1.0, 1.8], [0.9, 1.7], [0.8, 1.6]];
    for (found, expected) in values.iter().zip(expected) {
        let close = |which: usize| (found[which] - expected[which]).abs() < 1e-5;
        assert!(close(0) && close(1), "{values:?}");
    }
    assert_eq!(values[1][0], 1.0);
    let norms: Vec<f64> = steps
        .iter()
        .map(|one| one.number("gradient_norm"))
        .collect();
    let expected = [2.0, 2.0, 8f64.sqrt(), 8f64.sqrt()];
    assert!(
        norms
            .iter()
            .zip(expected)
            .all(|(one, other)| (one - other).abs() < 1e-5)
    );
}

#[test]
fn the_best_is_the_lowest_validation_after_a_step_and_is_saved_at_once() {
    let best = |keep_best, valid: &[u32]| {
        let root = tempfile::tempdir().unwrap();
        let settings = StageSettings {
            valid_every_steps: 1,
            keep_best,
            ..settings()
        };
        let outcome = launch(with_spy(&root, settings, &Spy::default()), twos(4), valid);
        let best = outcome.state.unwrap().best;
        (best.map(|best| (best.step, best.value)), saved(&root))
    };
    // What was measured before the first step is no checkpoint; an equal loss later is not better.
    assert_eq!(
        best(true, &[1, 9, 7, 7, 8]),
        (Some((2, 21.0)), vec![1, 2, 4])
    );
    assert_eq!(best(true, &[9, 5, 7, 6, 4]), (Some((4, 12.0)), vec![1, 4]));
    assert_eq!(best(false, &[9, 5, 7, 6, 4]), (None, vec![4]));
}

#[test]
fn checkpoints_come_every_so_many_steps_and_at_every_end() {
    let root = tempfile::tempdir().unwrap();
    let settings = StageSettings {
        checkpoint_every_steps: 3,
        ends: vec![4, 8],
        ..settings()
    };
    let session = session(&root, settings, Toy::new());
    launch(session, twos(8), &[]).state.unwrap();
    assert_eq!(saved(&root), [3, 4, 6, 8]);
    let run = RunDirectory::open(&root.path().join("run")).unwrap();
    let loaded = checkpoint::latest(&run).unwrap().unwrap().snapshot;
    assert_eq!(
        (loaded.state.stage_step, loaded.state.micro_batches),
        (8, 8)
    );
    assert_eq!(loaded.state.optimizer_times["norm"], 8);
    assert_eq!(loaded.model["norm"].floats()[0], 2.0);
    assert_eq!(run.info().unwrap().step, 8);
}

#[test]
fn a_hook_and_a_signal_stop_after_a_checkpoint_and_no_step_later() {
    let root = tempfile::tempdir().unwrap();
    let spy = Spy {
        stop_after: Some(2),
        ..Spy::default()
    };
    let outcome = launch(with_spy(&root, settings(), &spy), twos(4), &[]);
    assert!(matches!(outcome.state, Err(Error::Numerical(text)) if text == "enough"));
    // The checkpoint keeps what the hook wants to find again, and its end is said once.
    let run = RunDirectory::open(&root.path().join("run")).unwrap();
    let hooks = checkpoint::latest(&run)
        .unwrap()
        .unwrap()
        .snapshot
        .state
        .hooks;
    assert_eq!(
        (&hooks["spy"], *spy.finished.lock().unwrap()),
        (&2.into(), 1)
    );
    assert_eq!((spy.steps().len(), saved(&root)), (2, vec![2]));
    let root = tempfile::tempdir().unwrap();
    let mut session = session(&root, settings(), Toy::new());
    let spy = Spy {
        signal_after: Some((3, session.stop.clone())),
        ..Spy::default()
    };
    session.hooks.push(Box::new(spy.clone()));
    let stopped = launch(session, twos(4), &[]).state;
    let as_expected = matches!(
        stopped,
        Err(Error::Stopped {
            signal: 15,
            step: 3,
            ..
        })
    );
    assert!(as_expected && saved(&root) == [3] && spy.steps().len() == 3);
}

#[test]
fn a_resumed_stage_goes_on_at_its_step_with_its_rate_and_without_another_first_validation() {
    let root = tempfile::tempdir().unwrap();
    let spy = Spy::default();
    let settings = StageSettings {
        valid_every_steps: 4,
        learning_rate: constant(0.4, 4),
        ..settings()
    };
    let mut session = with_spy(&root, settings, &spy);
    (session.state.step, session.state.stage_step) = (12, 2);
    (session.state.micro_batches, session.state.tokens) = (12, 30);
    session.clock = Clock::after(100.0);
    let state = launch(session, twos(2), &[1]).state.unwrap();
    assert_eq!(
        (
            state.step,
            state.stage_step,
            state.micro_batches,
            state.tokens
        ),
        (14, 4, 14, 34)
    );
    assert!((100.0..160.0).contains(&state.wall_s), "{}", state.wall_s);
    assert_eq!(*spy.planned.lock().unwrap(), [2, 3]);
    let steps = spy.steps();
    let rates: Vec<f64> = steps
        .iter()
        .map(|one| one.number("learning_rate"))
        .collect();
    assert!(
        (rates[0] - 0.3).abs() < 1e-12 && (rates[1] - 0.4).abs() < 1e-12,
        "{rates:?}"
    );
    assert_eq!(spy.seen().len(), 2);
}

#[test]
fn a_number_that_is_not_finite_stops_before_it_reaches_the_weights() {
    let root = tempfile::tempdir().unwrap();
    let settings = StageSettings {
        learning_rate: constant(0.1, 0),
        ..settings()
    };
    let mut broken = Toy::<B>::new();
    broken.norm = Param::from_tensor(Tensor::from_floats([f32::NAN], &Default::default()));
    let mut session = session(&root, settings, broken);
    let error = session.bare_step(twos(1)).unwrap_err();
    assert_eq!(error.exit_code(), 6);
    let text = error.to_string();
    assert!(
        text.contains("step 1 of stage a: found a loss of NaN"),
        "{text}"
    );
    assert!(text.contains("(source:window 0:7)"), "{text}");
    assert_eq!((session.state.step, session.model().values()[0]), (0, 1.0));
    let finite = batch(&[1], 1);
    let measured = Toy::<B>::new().measured(&finite);
    assert!(session.check_finite(&measured, None, &[]).is_ok());
    let bad = session.check_finite(&measured, Some("norm".to_string()), &[(0, 1); 9]);
    let text = bad.unwrap_err().to_string();
    assert!(
        text.contains("a gradient of norm that is not finite") && text.contains("0:1 …)"),
        "{text}"
    );
}

#[test]
fn the_end_on_the_way_is_the_next_one_and_everything_is_due_at_each() {
    let root = tempfile::tempdir().unwrap();
    let settings = StageSettings {
        ends: vec![4, 6, 9],
        ..settings()
    };
    let mut session = session(&root, settings, Toy::<B>::new());
    let mut ends = Vec::new();
    let mut due = Vec::new();
    for step in 0..=10 {
        session.state.stage_step = step;
        ends.push(session.end());
        due.push(session.is_due(5));
        assert!(!session.is_due(0) && session.is_due(1));
    }
    assert_eq!(ends, [4, 4, 4, 4, 4, 6, 6, 9, 9, 9, 9]);
    let steps: Vec<usize> = (0..=10).filter(|&step| due[step]).collect();
    assert_eq!(steps, [0, 4, 5, 6, 9, 10]);
}

#[test]
fn an_evaluation_adds_up_each_split_by_its_targets() {
    let mut of_other = batch(&[5], 1);
    of_other.source = 1;
    let batches = [batch(&[1, 1, 9], 2), of_other, batch(&[4, 9], 1)];
    let measured =
        evaluate::<B, Toy<B>>(&Ranks::alone(), &Toy::<Host>::new(), batches.into_iter(), 2);
    // (3 + 3 + 12) / 3, not the mean of 3 and 12.
    assert_eq!(
        (measured[0].loss(), measured[0].targets, measured[0].bytes),
        (6.0, 3, 6)
    );
    assert_eq!((measured[1].loss(), measured[1].targets), (15.0, 1));
    let named = BTreeMap::from([
        ("valid".to_string(), measured[0].clone()),
        ("valid.b".to_string(), Measured::default()),
    ]);
    let numbers = valid_numbers(&named);
    assert_eq!(numbers["valid/loss/lm"], 6.0);
    assert!(
        numbers.keys().all(|name| name.starts_with("valid/")),
        "{numbers:?}"
    );
}

/// Three rows as batches that end where it is said: one batch, or two of different sizes and different numbers of targets.
fn rows(vocabulary: u32, ends: &[usize]) -> Vec<Batch> {
    let seq = 4;
    let part = |ends: &[usize]| {
        let rows = ends[0]..ends[1];
        let places = rows.start * seq..rows.end * seq;
        let token = |place: usize| (place as u32 * 7 + 3) % vocabulary;
        let host = HostBatch {
            inputs: places.clone().map(token).collect(),
            targets: places.clone().map(|place| token(place + 1)).collect(),
            valid: places.map(|place| ![6, 7, 9].contains(&place)).collect(),
            bytes: 5,
            batch: rows.len(),
            seq,
            ids: rows.clone().map(|row| (0, row as u64)).collect(),
            parts: Vec::new(),
            difficulty: vec![None; rows.len()],
            sequences: rows.map(|row| row as u64).collect(),
        };
        Batch {
            host,
            source: 0,
            plan: StepPlan::idle(RoutePlan::sequential()),
        }
    };
    ends.windows(2).map(part).collect()
}

/// Numbers and first moments of a step.
fn decoder_step(
    model: Model<B>,
    plan: &RoutePlan,
    batches: Vec<Batch>,
) -> (BTreeMap<String, f64>, TensorMap) {
    let root = tempfile::tempdir().unwrap();
    let mut session = session(&root, settings(), model);
    let plan = StepPlan {
        targets: batches.iter().map(Batch::targets).sum(),
        route: plan.clone(),
        ..session.plan()
    };
    let numbers = session.step(&plan, batches).unwrap().named();
    let (mut moments, _) = session.optimizer.export(session.model());
    moments.retain(|name, _| name.ends_with("moment_1"));
    (numbers, moments)
}

fn equal_in_parts(model: &Model<B>, plan: &RoutePlan, names: &[&str]) {
    let (whole, of_whole) = decoder_step(model.clone(), plan, rows(5, &[0, 3]));
    let (parts, of_parts) = decoder_step(model.clone(), plan, rows(5, &[0, 1, 3]));
    for name in names {
        let (one, other) = (whole[*name], parts[*name]);
        assert!(
            (one - other).abs() < 1e-5 * one.abs(),
            "{name}: {one} and {other}"
        );
    }
    assert_eq!(of_whole.len(), of_parts.len());
    for (name, one) in &of_whole {
        let other = of_parts[name].floats();
        let largest = one
            .floats()
            .iter()
            .fold(0f32, |most, value| most.max(value.abs()));
        for (one, other) in one.floats().iter().zip(other.iter()) {
            // Sums in another order, of numbers as large as the largest.
            assert!(
                (one - other).abs() <= 1e-4 * largest + 1e-9,
                "{name}: {one} and {other}"
            );
        }
    }
}

fn baseline() -> Model<B> {
    let config = BaselineConfig {
        d_model: 4,
        n_heads: 1,
        d_ff: 6,
        n_layers: 1,
        context: 4,
        rope_base: 100.0,
        norm_epsilon: 1e-6,
        initial: Initial::Scaled { std: 0.7 },
        ..BaselineConfig::small()
    };
    Model::trainable(config.init(5, 3, &Default::default()))
}

#[test]
fn a_group_that_rests_has_no_gradient_in_any_of_its_parts() {
    let plan = RoutePlan::sequential();
    let learns = |groups: &[&str]| {
        let frozen = groups.iter().map(|group| group.to_string()).collect();
        let model = freeze(baseline(), &frozen);
        let names = decoder_step(model, &plan, rows(5, &[0, 3])).1.into_keys();
        names
            .map(|name| name.split('.').next().unwrap_or_default().to_string())
            .collect::<BTreeSet<String>>()
    };
    let of = |groups: &[&str]| BTreeSet::from_iter(groups.iter().map(|group| group.to_string()));
    assert_eq!(learns(&[]), of(&["blocks", "embedding", "norm"]));
    assert_eq!(learns(&["blocks"]), of(&["embedding", "norm"]));
    assert_eq!(learns(&["embedding", "norm"]), of(&["blocks"]));
}

#[test]
fn a_decoder_learns_the_same_from_one_batch_and_from_its_parts() {
    let model = baseline();
    let plan = RoutePlan::sequential();
    equal_in_parts(&model, &plan, &["loss/lm", "loss/total", "gradient_norm"]);
    // The loss is the mean over the targets that count, place by place: those of row 0, and 5 of the 8 others.
    let (numbers, _) = decoder_step(model.clone(), &plan, rows(5, &[0, 3]));
    let batch = &rows(5, &[0, 3])[0];
    let nats = model.measure(batch).1;
    let counted: Vec<f64> = (0..12)
        .filter(|place| ![6, 7, 9].contains(place))
        .map(|place| nats[place])
        .collect();
    assert_eq!(counted.len(), 9);
    assert!((numbers["loss/lm"] - counted.iter().sum::<f64>() / 9.0).abs() < 1e-5);
    assert!([6, 7, 9].iter().all(|&place| nats[place] == 0.0));
}

#[test]
fn terms_of_the_route_weigh_by_the_targets_of_their_micro_batch() {
    let ladder = BUNDLED
        .iter()
        .find(|one| (one.kind, one.size) == ("brian", "ladder"))
        .unwrap();
    let sets = [
        "model.d_model=8",
        "model.n_heads=2",
        "model.d_ff=8",
        "model.d_ff_pool=8",
        "model.position.d_position=4",
        "model.initial={kind='scaled',std=0.5}",
        "stage.imitation.walk.loss.cost=0.25",
        "stage.imitation.walk.loss.imitation=0.5",
    ];
    let recipe = from_text("r.toml", ladder.text.to_string(), &sets.map(str::to_string)).unwrap();
    let stage = recipe
        .stage
        .iter()
        .find(|stage| stage.name == "imitation")
        .unwrap();
    let blueprint = Blueprint {
        recipe: &recipe,
        vocabulary: 5,
        counts: None,
        ranks: None,
    };
    let model: Model<B> = blueprint.fresh(&stage.policy, &Default::default());
    let plan = route(stage, &recipe);
    // A teacher leads every token through as many steps, so both terms are means over targets.
    let names = [
        "loss/lm",
        "loss/imitation",
        "loss/cost",
        "loss/total",
        "gradient_norm",
    ];
    equal_in_parts(&model, &plan, &names);
    let (numbers, _) = decoder_step(model, &plan, rows(5, &[0, 3]));
    let total = numbers["loss/lm"] + 0.5 * numbers["loss/imitation"] + 0.25 * numbers["loss/cost"];
    assert!((numbers["loss/total"] - total).abs() < 1e-6, "{numbers:?}");
}

#[test]
fn the_first_split_alone_chooses_the_best_and_each_must_be_finite_or_empty() {
    let root = tempfile::tempdir().unwrap();
    let settings = StageSettings {
        keep_best: true,
        valid: vec!["valid".to_string(), "valid.b".to_string()],
        ..settings()
    };
    let mut session = session(&root, settings, Toy::<B>::new());
    (session.state.step, session.state.stage_step) = (4, 1);
    let pass = |first: &[u32], second: u32| {
        let mut other = batch(&[second], 1);
        other.source = 1;
        vec![batch(first, first.len()), other]
    };
    let given = Given::new(vec![
        pass(&[5, 7], 1),
        pass(&[5, 5], 9),
        pass(&[6, 5], 0),
        pass(&[], 1),
    ]);
    let mut best = Vec::new();
    for _ in 0..4 {
        let measured = session.validate(&*given).unwrap();
        assert_eq!(measured.len(), 2);
        best.push(
            session
                .state
                .best
                .map(|best| (best.step, best.value))
                .unwrap(),
        );
        session.state.step += 1;
    }
    assert_eq!(best, [(4, 18.0), (5, 15.0), (5, 15.0), (5, 15.0)]);
    session.model = Some(Toy {
        norm: Param::from_tensor(Tensor::from_floats([f32::INFINITY], &Default::default())),
        ..Toy::new()
    });
    let given = Given::new(vec![pass(&[], 1)]);
    let error = session.validate(&*given).unwrap_err();
    assert_eq!(error.exit_code(), 6);
    assert!(
        error
            .to_string()
            .contains("found a loss of inf on the split valid.b"),
        "{error}"
    );
}
