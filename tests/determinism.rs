//! Tests of reproducible training: the same bits from a resume at any checkpoint, any number of threads, with or without
//! validation; three micro-batches act as one large batch; `--extend` goes on exactly.

use crate::support::{Finished, TestAutodiff, Workplace, tokens};
use brian::loss::language;
use brian::route::policy::{Policy, Select, SequenceInfo};
use brian::{Brian, BrianConfig, Rules, parameter};
use burn::optim::GradientsParams;
use std::fs;
use std::thread;
use train::data::Split;
use train::learner::{Decay, OptimizerConfig, ParameterOptimizer, Rate};

/// A two-stage ladder of eight steps each; an epoch has a few micro-batches, so several edges lie inside a stage.
fn fit(workplace: &Workplace, name: &str, sets: &[&str]) -> Finished {
    fit_with(workplace, name, sets, &[("RAYON_NUM_THREADS", "2")])
}

fn fit_with(
    workplace: &Workplace,
    name: &str,
    sets: &[&str],
    environment: &[(&str, &str)],
) -> Finished {
    let small = [
        "stage.baseline.steps=8",
        "stage.baseline.learning_rate.warmup_steps=2",
        "stage.fixed.steps=8",
        "stage.fixed.learning_rate.warmup_steps=2",
        "watch.log_every_steps=1",
        "watch.valid_every_steps=3",
        "watch.valid_tokens=512",
        "watch.sample_every_steps=5",
        "watch.sample_tokens=8",
        "checkpoint.every_steps=2",
        "checkpoint.keep_last=100",
    ];
    let name = format!("run.name={name}");
    let mut line = format!("fit ladder.toml --render none --set {name}");
    for set in small.iter().chain(sets) {
        line.push_str(" --set ");
        line.push_str(set);
    }
    workplace.nerve_with(&line, environment)
}

/// A width that is transferred.
const BASE: &str = "model.width_transfer={base_d_model=16,base_d_head=8}";

#[test]
fn a_run_resumed_from_any_of_its_checkpoints_is_the_run_that_never_stopped() {
    // One of the cases trains on all of them at every step.
    let workplace = Workplace::with_so_many_stories(8);
    let split = Split::open(workplace.path("data/stories/train.bin")).unwrap();
    let documents = split.documents().iter();
    let windows: u64 = documents.map(|document| document.tokens.div_ceil(64)).sum();
    // With all windows in one micro-batch every step ends on the edge of an epoch, else most end inside one.
    let epoch = format!("batch.sequences={windows}");
    // A group that rests to the very end of a stage must learn again in the next one.
    let freeze = "stage.baseline.freeze=[{group='embedding',until_step=8}]";
    // Steps grow in the first stage and, from half of it on, in the second.
    let ramps = "stage.baseline.batch_ramp=[{from_step=3,accumulate=2},{from_step=5,accumulate=4}]";
    let share = "stage.fixed.batch_ramp=[{from_share=0.5,accumulate=3}]";
    // Validations measure it, so a resume without its bits would show in the log.
    let average = "average={decay=0.75,every_steps=2,from_step=3}";
    let cases: [&[&str]; 7] = [
        &["batch.sequences=2", freeze, BASE],
        &["batch.sequences=3", ramps, share, average],
        &["batch.accumulate=1", &epoch],
        &[
            "batch.accumulate=3",
            "batch.sequences=7",
            "data.documents=run_on",
        ],
        &[
            "batch.accumulate=2",
            "batch.sequences=3",
            "data.documents=packed",
            "data.window=48",
        ],
        &[
            "batch.accumulate=1",
            "batch.sequences=5",
            "watch.valid_every_steps=0",
        ],
        &[
            "batch.accumulate=3",
            "batch.sequences=3",
            "watch.valid_every_steps=0",
        ],
    ];
    for (index, sets) in cases.into_iter().enumerate() {
        let finished = fit(&workplace, &format!("whole{index}"), sets).expect(0);
        check_every_resume(&workplace, finished.answer());
    }
}

#[test]
fn a_routed_run_resumed_from_any_of_its_checkpoints_is_the_run_that_never_stopped() {
    let workplace = Workplace::with_routes();
    let noisy = [
        "noise_std={from=0.3,to=0.1,steps=3}",
        "override_probability={from=0.4,to=0.2,steps=3}",
    ];
    let drawn = "{kind='sample',temperature=1.2,in_evaluation=true}";
    let cases: [Vec<String>; 3] = [
        vec![
            "stage.exit.walk.exit_objective=soft_mixture".to_string(),
            format!("stage.scheduled.policy.select={drawn}"),
            "stage.imitation.policy.teacher=random_internal".to_string(),
            "batch.accumulate=2".to_string(),
        ],
        vec![
            "stage.exit.walk.exit_objective={kind='legacy',hard=true}".to_string(),
            "model.route.top_k=2".to_string(),
            "stage.scheduled.walk.constraint.self_recurrence_cap=1".to_string(),
            "stage.imitation.policy.teacher=balanced_coverage".to_string(),
        ],
        vec![
            format!("stage.exit.policy={{kind='router',select={drawn}}}"),
            "stage.exit.walk.choice_gradient=gated".to_string(),
            "stage.imitation.policy.teacher=mixed_skip_recur".to_string(),
            "stage.scheduled.policy.teacher=random_internal".to_string(),
        ],
    ];
    for (index, sets) in cases.into_iter().enumerate() {
        let mut line = format!("fit routes.toml --render none --set run.name=routed{index}");
        for (stage, noise) in ["scheduled", "exit"]
            .iter()
            .flat_map(|stage| noisy.map(|noise| (stage, noise)))
        {
            line += &format!(" --set stage.{stage}.walk.exploration.{noise}");
        }
        for set in &sets {
            line += &format!(" --set {set}");
        }
        let finished = workplace.nerve(&line).expect(0);
        check_every_resume(&workplace, finished.answer());
    }
}

#[test]
fn a_run_with_a_memory_and_several_paths_resumed_is_the_run_that_never_stopped() {
    let workplace = Workplace::with_parallel_routes();
    let codes = "{kind='hidden_code',d_code=6,sink=1,window=2,adapters='per_block',head_rank=2,lifecycle='frozen'}";
    let prefix = "{kind='key_value_prefix',sink=1,window=1,bias=-1.0,compression={kind='code',d_code=3},lifecycle='frozen'}";
    let cases = [
        vec![format!("model.memory={codes}"), BASE.to_string()],
        vec![
            format!("model.memory={prefix}"),
            "model.route.parallel=none".to_string(),
        ],
        vec![
            "model.memory=none".to_string(),
            "model.route.parallel.width=3".to_string(),
            "model.route.attends=selected".to_string(),
            "model.route.execution=dense".to_string(),
        ],
    ];
    for (index, sets) in cases.iter().enumerate() {
        let mut line = format!(
            "fit routes.toml --render none --set run.name=parallel{index} --set data.window=64 --set model.context=64"
        );
        for set in sets {
            line += &format!(" --set {set}");
        }
        // So briefly trained, all tokens would leave at once, and nothing would be remembered or branch.
        for stage in ["exit", "memory", "parallel"] {
            let constraint = format!("stage.{stage}.walk.constraint");
            line += &format!(" --set {constraint}.early_exit_penalty=1000.0");
            line += &format!(" --set {constraint}.min_exit_step=3");
        }
        let finished = workplace.nerve(&line).expect(0);
        check_every_resume(&workplace, finished.answer());
    }
}

#[test]
fn validation_changes_no_weight() {
    let workplace = Workplace::with_few_stories();
    let with = fit(&workplace, "with", &[]).expect(0);
    let without = fit(&workplace, "without", &["watch.valid_every_steps=0"]).expect(0);
    let weights = |run: &Finished| workplace.result_of(run.answer()).0;
    assert!(weights(&with) == weights(&without));
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    let workplace = Workplace::with_few_stories();
    let results = ["1", "2"].map(|threads| {
        let environment = [
            ("RAYON_NUM_THREADS", threads),
            ("MATMUL_NUM_THREADS", threads),
        ];
        let run = fit_with(&workplace, &format!("threads{threads}"), &[], &environment).expect(0);
        workplace.result_of(run.answer())
    });
    assert!(results[0] == results[1]);
}

#[test]
fn another_seed_gives_other_weights() {
    let workplace = Workplace::with_few_stories();
    let runs = ["run.seed=1", "run.seed=2"].map(|seed| fit(&workplace, "seed", &[seed]).expect(0));
    let weights = runs.map(|run| workplace.result_of(run.answer()).0);
    assert!(weights[0] != weights[1]);
}

#[test]
fn three_micro_batches_are_one_large_batch() {
    let workplace = Workplace::with_few_stories();
    let one = fit(&workplace, "one", &["batch.sequences=12"]).expect(0);
    let three = fit(
        &workplace,
        "three",
        &["batch.sequences=4", "batch.accumulate=3"],
    )
    .expect(0);
    let losses = [one, three].map(|run| {
        let lines = workplace.result_of(run.answer()).1;
        lines
            .iter()
            .map(|line| line["loss/lm"].as_f64().unwrap())
            .collect::<Vec<_>>()
    });
    for (one, three) in losses[0].iter().zip(&losses[1]) {
        assert!((one - three).abs() < 1e-4, "{one} and {three}");
    }
}

#[test]
fn a_decay_branched_off_a_stable_rate_is_the_run_that_was_to_decay_there() {
    let workplace = Workplace::with_few_stories();
    let decays = "{kind='warmup_stable_decay',peak=1e-2,decay_steps=4,decay='linear',floor=1e-4";
    let fit = |name: &str, steps: u64, start: &str, rate: &str| {
        let line = format!(
            "fit assets/recipes/baseline/tiny.toml --render none --set run.name={name} --set batch.sequences=2 \
             --set batch.accumulate=2 --set checkpoint.every_steps=1 --set checkpoint.keep_last=100 \
             --set watch.sample_every_steps=0 --set stage.baseline.steps={steps} --set stage.baseline.start={start} \
             --set stage.baseline.learning_rate={rate}"
        );
        workplace.nerve(&line).expect(0).answer().to_string()
    };
    let constant = "{kind='constant',peak=1e-2,warmup_steps=2}";
    let stable = fit("stable", 6, "fresh", constant);
    // Off its fifth step, and off its last.
    for from in [5, 6] {
        let warm = format!("{decays},warmup_steps=2}}");
        let whole = fit(&format!("whole{from}"), from + 4, "fresh", &warm);
        let start = format!("{{kind='run',path='{stable}',step={from},optimizer='kept'}}");
        let at_once = format!("{decays},warmup_steps=0}}");
        let branch = fit(&format!("branch{from}"), 4, &start, &at_once);
        let newest = |run: &str| workplace.checkpoints(run).pop().unwrap();
        let [whole_end, branch_end] = [whole.as_str(), branch.as_str()].map(newest);
        for file in [
            "model-00001-of-00001.safetensors",
            "optim-00001-of-00001.safetensors",
        ] {
            let [whole, branch] =
                [&whole_end, &branch_end].map(|end| fs::read(end.join(file)).unwrap());
            assert!(whole == branch, "{file} from step {from}");
        }
        // It may be stopped anywhere.
        check_every_resume_of(&workplace, &branch, 4);
    }
}

#[test]
fn a_finished_run_is_resumed_without_doing_anything() {
    let workplace = Workplace::with_few_stories();
    let run = fit(&workplace, "finished", &[]).expect(0);
    let before = workplace.result_of(run.answer());
    let again = workplace
        .nerve(&format!("fit --resume {}", run.answer()))
        .expect(0);
    assert_eq!(again.answer(), run.answer());
    let over = format!(
        "the run is over, all 16 steps are done; `nerve fit --resume {} --extend fixed=STEPS` goes on",
        run.answer()
    );
    assert!(again.stderr.contains(&over), "{}", again.stderr);
    assert!(workplace.result_of(run.answer()) == before);
}

#[test]
fn a_run_that_goes_on_after_its_end_keeps_rate_moments_and_place_and_may_be_stopped_anywhere() {
    let workplace = Workplace::with_few_stories();
    let sets = ["batch.sequences=2", "batch.accumulate=2"];
    let run = fit(&workplace, "longer", &sets)
        .expect(0)
        .answer()
        .to_string();
    let longer = workplace
        .nerve(&format!(
            "fit --resume {run} --extend fixed=13 --render none"
        ))
        .expect(0);
    assert!(
        longer.stderr.contains(
            "stage fixed goes on from step 8 to 13 at the learning rate 0.0001 with which it ended; this is not the run \
             that a recipe of 13 steps would have been"
        ),
        "{}",
        longer.stderr
    );
    let whole = workplace.result_of(&run);
    let trained = whole.1.iter().filter(|line| line["split"] == "train");
    let rates: Vec<(u64, f64)> = trained
        .map(|line| {
            let rate = line["learning_rate"].as_f64().unwrap();
            (line["step"].as_u64().unwrap(), rate)
        })
        .collect();
    // The cosine of the second stage is at its floor with its eighth step, and stays there.
    assert_eq!(rates.len(), 21);
    assert!(rates[14].1 > 1e-4);
    for (step, rate) in &rates[15..] {
        assert_eq!(*rate, 1e-4, "step {step}");
    }
    let newest = workplace.checkpoints(&run).pop().unwrap();
    let state = fs::read_to_string(newest.join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(
        (&state["step"], &state["stage_step"]),
        (&21.into(), &13.into())
    );
    assert_eq!(state["micro_batches"], 42);
    // Moments that began anew would have counted five updates.
    assert_eq!(state["optimizer_times"]["embedding.weight"], 13);

    // In the first stage, before the recipe's end, and after it.
    for kept in [3, 7, 9] {
        let copy = format!("{run}-from-{kept}");
        workplace.copy_run(&run, &copy);
        for newer in &workplace.checkpoints(&copy)[kept..] {
            fs::remove_dir_all(newer).unwrap();
        }
        let resume = format!("fit --resume {copy} --render none");
        workplace.nerve(&resume).expect(0);
        assert!(workplace.result_of(&copy) == whole, "resumed after {kept}");
    }
}

/// How many checkpoints are kept before a resume: any number; under an emulated processor, where all would take hours, none, half
/// of them, and all but the last.
fn kept(n_checkpoints: usize) -> Vec<usize> {
    match std::env::var_os("NERVE_EMULATED") {
        None => (0..n_checkpoints).collect(),
        Some(_) => vec![0, n_checkpoints / 2, n_checkpoints - 1],
    }
}

/// Removes the newer checkpoints and resumes, for every one of them.
pub fn check_every_resume(workplace: &Workplace, run: &str) {
    check_every_resume_of(workplace, run, 8);
}

/// The same of a run with at least so many checkpoints.
fn check_every_resume_of(workplace: &Workplace, run: &str, at_least: usize) {
    let whole = workplace.result_of(run);
    let n_checkpoints = workplace.checkpoints(run).len();
    assert!(n_checkpoints >= at_least, "{n_checkpoints} checkpoints");
    for kept in kept(n_checkpoints) {
        let copy = format!("{run}-from-{kept}");
        workplace.copy_run(run, &copy);
        for newer in &workplace.checkpoints(&copy)[kept..] {
            fs::remove_dir_all(newer).unwrap();
        }
        workplace
            .nerve(&format!("fit --resume {copy} --render none"))
            .expect(0);
        assert!(
            workplace.result_of(&copy) == whole,
            "resumed after {kept} checkpoints of {run}"
        );
        fs::remove_dir_all(workplace.path(&copy)).unwrap();
    }
}

/// A routed model in training.
struct Training {
    model: Brian<TestAutodiff>,
    optimizer: ParameterOptimizer<TestAutodiff>,
    seed: i64,
}

impl Training {
    fn new(seed: u64) -> Self {
        let config = BrianConfig::small();
        let optimizer = OptimizerConfig::Adamw {
            betas: [0.9, 0.95],
            epsilon: 1e-8,
            weight_decay: 0.1,
            decay: Decay::Matrices,
            decay_by: None,
            clip_norm: 1.0,
        };
        Self {
            model: config.init(20, seed, &Default::default()),
            optimizer: ParameterOptimizer::new(&optimizer),
            seed: seed as i64,
        }
    }

    fn step(mut self) -> Self {
        let rules = Rules {
            policy: Policy::Router {
                teacher: None,
                select: Select::Argmax,
            },
            ask_router: true,
            with_gradients: true,
            ..Rules::sequential()
        };
        let text = |row: i64| (0..24).map(|at| (at * at + row + self.seed) % 20).collect();
        let rows: Vec<Vec<i64>> = (0..4).map(text).collect();
        let input = tokens::<TestAutodiff>(&rows);
        let known = [SequenceInfo::default(); 4];
        let (logits, _) = self.model.forward(input.clone(), &rules, &known);
        let loss = language::token_losses(logits, input).mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &self.model);
        self.model = self
            .optimizer
            .step(Rate::at_peak(0.01), self.model, gradients);
        self
    }

    fn weights(&self) -> Vec<u32> {
        let values = parameter::collect(&self.model).into_values();
        let bits = |data: burn::tensor::TensorData| -> Vec<u32> {
            data.iter::<f32>().map(f32::to_bits).collect()
        };
        values.flat_map(bits).collect()
    }
}

#[test]
fn models_that_train_in_turns_or_beside_each_other_are_those_that_train_alone() {
    let alone = |seed: u64| {
        let trained = (0..4).fold(Training::new(seed), |training, _| training.step());
        trained.weights()
    };
    let (one, two) = (alone(1), alone(2));
    assert_ne!(one, two);
    let turns = (0..4).fold(
        (Training::new(1), Training::new(2)),
        |(first, second), _| (first.step(), second.step()),
    );
    assert!(
        turns.0.weights() == one && turns.1.weights() == two,
        "in turns"
    );
    for _ in 0..3 {
        let beside = thread::scope(|scope| {
            let [first, second] = [1, 2].map(|seed| scope.spawn(move || alone(seed)));
            [first.join().unwrap(), second.join().unwrap()]
        });
        assert!(beside == [one.clone(), two.clone()], "in two threads");
    }
}
