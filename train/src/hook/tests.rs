//! Tests of hooks on made-up steps: collapse guard, metrics log, `Every`, route schedule, freezing, intervals, samples.

use super::*;
use crate::data::{Kind, Tokenizer};
use crate::device::tests::Learning as B;
use crate::error::Error;
use crate::ladder::Blueprint;
use crate::learner::{Every, Hook, StepInfo, Verdict};
use crate::metric::table::{self, MetricInfo};
use crate::model::Model;
use crate::recipe::bundled::BUNDLED;
use crate::recipe::load::from_text;
use crate::recipe::{Checked, Freeze};
use crate::run::{RunDirectory, RunInfo};
use crate::task::{Measured, RoutePlan, StepPlan};
use brian::random;
use brian::route::draws::Draws;
use brian::route::policy::{Policy, Select, Teacher};
use brian::stats::RouteCounts;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;

/// A step of six in its stage, which five steps of other stages came before.
fn step<'a>(plan: &'a StepPlan, stage_step: u64) -> StepInfo<'a, ()> {
    StepInfo {
        step: 5 + stage_step,
        stage: "a",
        stage_step,
        stage_steps: 6,
        tokens: 100 * stage_step,
        wall_s: 0.5,
        plan,
        model: &(),
        train: Some(measured(6.0)),
        valid: BTreeMap::new(),
    }
}

/// Six nats, or so many, on three targets of four bytes.
fn measured(nats: f64) -> Measured {
    Measured {
        nats,
        targets: 3,
        bytes: 4,
        ..Measured::default()
    }
}

fn led_by(policy: Policy) -> StepPlan {
    let mut plan = StepPlan::idle(RoutePlan::sequential());
    plan.route.rules.policy = policy;
    plan
}

fn router() -> StepPlan {
    led_by(Policy::Router {
        teacher: None,
        select: Select::Argmax,
    })
}

/// Ten tokens that each ran one of two blocks: all the same one, or both alike.
fn walks(even: bool) -> Measured {
    let mut walks = measured(6.0);
    let route = &mut walks.route;
    (route.n_pool, route.max_steps, route.tokens, route.decisions) = (2, 3, 10, 20);
    route.load = if even { vec![5, 5] } else { vec![10, 0] };
    (route.exits, route.lengths) = (vec![0, 10, 0], vec![0, 10, 0, 0]);
    route.moves = vec![0; 4];
    walks
}

fn looked(
    guard: &mut CollapseGuard,
    plan: &StepPlan,
    valid: Option<Measured>,
) -> Result<Verdict, Error> {
    let mut info = step(plan, 2);
    info.valid = valid
        .map(|valid| ("valid".to_string(), valid))
        .into_iter()
        .collect();
    Hook::<B, ()>::after_step(guard, &mut info)
}

#[test]
fn a_router_collapses_at_the_third_validation_in_a_row_and_is_then_stopped_or_warned() {
    let plan = router();
    for fails in [true, false] {
        let mut guard = CollapseGuard::new(fails, None);
        let mut stops = Vec::new();
        // An even one and a step without a validation between them; only the first starts to count anew.
        for valid in [
            Some(false),
            Some(false),
            Some(true),
            Some(false),
            None,
            Some(false),
            Some(false),
        ] {
            let verdict = looked(&mut guard, &plan, valid.map(walks)).unwrap();
            stops.push(matches!(verdict, Verdict::Stop(_)));
        }
        assert_eq!(stops, [false, false, false, false, false, false, fails]);
    }
    let mut guard = CollapseGuard::new(true, None);
    let [_, _, last] = [(); 3].map(|()| looked(&mut guard, &plan, Some(walks(false))).unwrap());
    let Verdict::Stop(error) = last else {
        panic!("a stop");
    };
    assert_eq!(error.exit_code(), 6);
    let text = error.to_string();
    assert!(
        text.contains("step 7 of stage a") && text.contains("[10, 0]"),
        "{text}"
    );
}

#[test]
fn what_a_teacher_does_is_no_collapse_of_the_router() {
    let one_path = Teacher::Path { blocks: vec![0] };
    let mut blend = led_by(Policy::Blend {
        teacher: one_path.clone(),
        router_probability: 0.5,
        select: Select::Argmax,
    });
    let stops = |plan: &StepPlan| {
        let mut guard = CollapseGuard::new(true, None);
        let verdicts = [(); 4].map(|()| looked(&mut guard, plan, Some(walks(false))).unwrap());
        verdicts
            .iter()
            .any(|verdict| matches!(verdict, Verdict::Stop(_)))
    };
    assert!(!stops(&led_by(Policy::Teacher(Teacher::Sequential))));
    // A router that learns one path from its teacher walks it by design; alone it has collapsed.
    assert!(!stops(&blend));
    if let Policy::Blend {
        router_probability, ..
    } = &mut blend.route.rules.policy
    {
        *router_probability = 1.0;
    }
    assert!(stops(&blend));
    assert!(stops(&router()));
}

fn log_of(root: &TempDir) -> (RunDirectory, MetricsLog) {
    let run = RunDirectory::create(root.path(), "run", "", RunInfo::new("x")).unwrap();
    let log = MetricsLog::open(&run, 4, &known(), None).unwrap();
    (run, log)
}

fn lines(run: &RunDirectory) -> Vec<Value> {
    let text = fs::read_to_string(run.metrics()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn every_fourth_step_and_the_last_are_logged_and_every_validation() {
    let root = tempfile::tempdir().unwrap();
    let (run, mut log) = log_of(&root);
    let plan = router();
    for at in 0..=6 {
        let mut info = step(&plan, at);
        if at == 0 {
            info.train = None;
        }
        if at % 3 == 0 {
            info.valid.insert("valid.b".to_string(), measured(9.0));
        }
        Hook::<B, ()>::after_step(&mut log, &mut info).unwrap();
    }
    let written = lines(&run);
    let place = |line: &Value| {
        (
            line["step"].as_u64().unwrap(),
            line["split"].as_str().unwrap().to_string(),
        )
    };
    let places: Vec<(u64, String)> = written.iter().map(place).collect();
    let expected = [
        (5, "valid.b"),
        (8, "valid.b"),
        (9, "train"),
        (11, "train"),
        (11, "valid.b"),
    ];
    assert_eq!(
        places,
        expected.map(|(step, split)| (step, split.to_string()))
    );
    let train = &written[2];
    assert_eq!(
        (&train["schema"], &train["stage"], &train["tokens"]),
        (&1.into(), &"a".into(), &400.into())
    );
    assert_eq!(
        (&train["wall_s"], &train["loss/lm"], &train["loss/total"]),
        (&0.5.into(), &2.0.into(), &2.0.into())
    );
    // 6 nats in bits over 4 bytes.
    assert_eq!(train["bits_per_byte"], 1.5 / std::f64::consts::LN_2);
    assert_eq!(written[0]["loss/lm"], 3.0);
    // A resume goes on behind the lines that its checkpoint knew.
    let state = Hook::<B, ()>::state(&mut log).unwrap();
    Hook::<B, ()>::after_step(&mut log, &mut step(&plan, 4)).unwrap();
    drop(log);
    let mut resumed = MetricsLog::open(&run, 1, &known(), state.as_ref()).unwrap();
    Hook::<B, ()>::after_step(&mut resumed, &mut step(&plan, 1)).unwrap();
    let steps: Vec<u64> = lines(&run)
        .iter()
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [5, 8, 9, 11, 11, 6]);
    let broken = MetricsLog::open(
        &run,
        1,
        &known(),
        Some(&serde_json::json!({ "bytes": "9" })),
    );
    assert_eq!(broken.err().unwrap().exit_code(), 3);
}

/// What every model measures, and a number of a hook.
fn known() -> Vec<MetricInfo> {
    let mut known = table::of_all_models();
    known.push(MetricInfo::new("odd", "a number of a hook"));
    known
}

#[test]
fn a_number_that_no_table_has_is_not_logged_but_stops() {
    let root = tempfile::tempdir().unwrap();
    let (run, mut log) = log_of(&root);
    let plan = router();
    let mut info = step(&plan, 4);
    info.add("even", 2.0);
    let error = Hook::<B, ()>::after_step(&mut log, &mut info).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(
        text.contains("found the number even, which no table"),
        "{text}"
    );
    assert!(lines(&run).is_empty());
    let mut info = step(&plan, 4);
    info.add("odd", 2.0);
    Hook::<B, ()>::after_step(&mut log, &mut info).unwrap();
    assert_eq!(lines(&run)[0]["odd"], 2.0);
}

#[test]
fn a_number_that_is_not_finite_is_not_logged_but_stops() {
    let root = tempfile::tempdir().unwrap();
    let (run, mut log) = log_of(&root);
    let plan = router();
    let mut info = step(&plan, 4);
    info.add("odd", f64::NAN);
    let error = Hook::<B, ()>::after_step(&mut log, &mut info).unwrap_err();
    assert_eq!(error.exit_code(), 6);
    assert!(
        error
            .to_string()
            .contains("found NaN for odd of the split train"),
        "{error}"
    );
    assert!(lines(&run).is_empty());
}

#[test]
fn a_hook_for_every_nth_step_sees_those_of_training_and_the_last() {
    struct Count(Vec<u64>);
    impl Hook<B, ()> for Count {
        fn name(&self) -> &'static str {
            "count"
        }
        fn after_step(&mut self, step: &mut StepInfo<()>) -> Result<Verdict, Error> {
            self.0.push(step.stage_step);
            Ok(Verdict::Continue)
        }
    }
    let plan = router();
    let mut every = Every(4, Count(Vec::new()));
    for at in 0..=6 {
        let mut info = step(&plan, at);
        if at == 0 {
            info.train = None;
        }
        Hook::<B, ()>::after_step(&mut every, &mut info).unwrap();
    }
    assert_eq!(every.1.0, [4, 6]);
}

fn ladder() -> Checked {
    let found = BUNDLED
        .iter()
        .find(|one| (one.kind, one.size) == ("brian", "ladder"))
        .unwrap();
    from_text("r.toml", found.text.to_string(), &[]).unwrap()
}

#[test]
fn a_schedule_leads_by_its_rows_disturbs_by_its_ramps_and_draws_by_step_and_stage() {
    let recipe = ladder();
    let stage = recipe
        .stage
        .iter()
        .find(|stage| stage.name == "scheduled")
        .unwrap();
    let mut hook = RouteSchedule::new(stage, &recipe);
    // Of 120 steps: rows end at 40, 80 and 120, both ramps fall from 0.1 to 0 in 100.
    for (at, probability, imitation, disturbed) in [
        (0, 0.1, 1.0, 0.1),
        (39, 0.1, 1.0, 0.061),
        (40, 0.5, 0.5, 0.06),
        (79, 0.5, 0.5, 0.021),
        (80, 1.0, 0.1, 0.02),
        (99, 1.0, 0.1, 0.001),
        (100, 1.0, 0.1, 0.0),
        (119, 1.0, 0.1, 0.0),
        (500, 1.0, 0.1, 0.0),
    ] {
        let mut plan = StepPlan {
            stage_step: at,
            stage_steps: 120,
            ..StepPlan::idle(crate::ladder::route(stage, &recipe))
        };
        Hook::<B, ()>::before_step(&mut hook, &mut plan).unwrap();
        let rules = &plan.route.rules;
        let Policy::Blend {
            router_probability, ..
        } = rules.policy
        else {
            panic!("a blend");
        };
        assert_eq!(
            (router_probability, plan.route.losses.imitation),
            (probability, imitation)
        );
        assert!(
            (rules.noise_std - disturbed).abs() < 1e-12,
            "{at}: {}",
            rules.noise_std
        );
        assert!((rules.override_probability - disturbed).abs() < 1e-12);
        assert_eq!(rules.draws, Draws::new(stage.seed(recipe.run.seed), at));
        assert_ne!(rules.draws, Draws::new(stage.seed(recipe.run.seed + 1), at));
    }
}

#[test]
fn a_plan_that_nobody_blends_keeps_its_leader_and_its_imitation() {
    let recipe = ladder();
    for name in ["imitation", "exit"] {
        let stage = recipe
            .stage
            .iter()
            .find(|stage| stage.name == name)
            .unwrap();
        let route = crate::ladder::route(stage, &recipe);
        let mut plan = StepPlan {
            stage_step: 75,
            stage_steps: 200,
            ..StepPlan::idle(route.clone())
        };
        Hook::<B, ()>::before_step(&mut RouteSchedule::new(stage, &recipe), &mut plan).unwrap();
        assert_eq!(plan.route.rules.policy, route.rules.policy);
        assert_eq!(plan.route.losses, route.losses);
        // The ramp of `exit` is half done after 75 of 150 steps; `imitation` has none.
        let noise = if name == "exit" { 0.05 } else { 0.0 };
        assert!((plan.route.rules.noise_std - noise).abs() < 1e-12);
    }
}

#[test]
fn a_group_is_frozen_before_its_step_and_not_at_it() {
    let freeze = |group: &str, until_step, until_share| Freeze {
        group: group.to_string(),
        until_step,
        until_share,
    };
    let groups = vec![
        freeze("embedding", Some(2), None),
        freeze("pool", None, Some(0.5)),
        freeze("norm", None, Some(1.0)),
    ];
    let mut hook = StagedUnfreezing::new(groups);
    let mut frozen = |stage_step| {
        let mut plan = StepPlan {
            stage_step,
            stage_steps: 10,
            ..StepPlan::idle(RoutePlan::sequential())
        };
        Hook::<B, ()>::before_step(&mut hook, &mut plan).unwrap();
        plan.frozen.into_iter().collect::<Vec<_>>().join(" ")
    };
    let found = [0, 1, 2, 4, 5, 9, 10].map(&mut frozen);
    assert_eq!(
        found,
        [
            "embedding norm pool",
            "embedding norm pool",
            "norm pool",
            "norm pool",
            "norm",
            "norm",
            ""
        ]
    );
}

/// Sequences of three difficulties, whose steps are `1 + slope · difficulty` and noise of deviation 1.
fn graded(n: u64, slope: f64, seed: u64) -> RouteCounts {
    let key = random::key(seed, "graded", 0);
    let noise = |place: u64| {
        // Twelve uniform numbers have the variance of one normal one.
        (0..12)
            .map(|one| random::uniform(key, 12 * place + one))
            .sum::<f64>()
            - 6.0
    };
    let sample = |place: u64| {
        let difficulty = (place % 3) as u8;
        (
            difficulty,
            1.0 + slope * f64::from(difficulty) + noise(place),
        )
    };
    let mut counts = RouteCounts::default();
    (counts.tokens, counts.load, counts.n_pool) = (1, vec![1, 0], 2);
    counts.samples = (0..n).map(sample).collect();
    counts
}

#[test]
fn only_a_validation_has_intervals_and_they_are_as_wide_as_95_of_100_cases_need() {
    let plan = router();
    let mut hook = RoutingMetrics;
    let (mut covered, mut cases) = (0, 0);
    for seed in 0..10 {
        let mut info = step(&plan, 2);
        for counts in [graded(120, 0.5, 2 * seed), graded(120, 0.5, 2 * seed + 1)] {
            let split = format!("valid.{}", info.valid.len());
            let measured = Measured {
                route: counts,
                ..measured(6.0)
            };
            info.valid.insert(split, measured);
        }
        info.train = info.valid.values().next().cloned();
        Hook::<B, ()>::after_step(&mut hook, &mut info).unwrap();
        let train = &info.train.as_ref().unwrap().numbers;
        assert!(
            train.contains_key("route/difficulty_slope") && train.contains_key("route/steps_mean")
        );
        assert!(!train.contains_key("route/difficulty_slope_low"));
        for valid in info.valid.values() {
            let number = |name: &str| valid.numbers[&format!("route/difficulty_slope{name}")];
            let [low, slope, high] = ["_low", "", "_high"].map(number);
            // Standard error 1 / √(120 · 2/3) = 0.1118; 1.96 of it is 0.219, one of it, for 68 of 100, half as much. The
            // deviation that was drawn and the resampling are uncertain by a tenth each.
            for half in [slope - low, high - slope] {
                assert!((0.15..0.30).contains(&half), "{low} {slope} {high}");
            }
            covered += u32::from((low..=high).contains(&0.5));
            cases += 1;
        }
    }
    assert!(cases == 20 && covered >= 17, "{covered} of {cases}");
}

#[test]
fn a_sample_is_another_at_another_step_and_for_another_prompt_and_the_same_again() {
    let tiny = BUNDLED
        .iter()
        .find(|one| (one.kind, one.size) == ("baseline", "tiny"))
        .unwrap();
    let sets = [
        "model.d_model=4",
        "model.n_heads=1",
        "model.d_ff=4",
        "model.n_layers=1",
        "watch.sample_tokens=6",
        "watch.sample_prompts=['ab','ab']",
    ];
    let recipe = from_text("r.toml", tiny.text.to_string(), &sets.map(str::to_string)).unwrap();
    let tokenizer = Arc::new(Tokenizer::train(Kind::Byte, std::iter::empty(), None).unwrap());
    let blueprint = Blueprint {
        recipe: &recipe,
        vocabulary: tokenizer.vocabulary_size(),
        counts: None,
        ranks: None,
    };
    let model: Model<B> = blueprint.fresh(&recipe.stage[0].policy, &Default::default());
    let plan = StepPlan::idle(RoutePlan::sequential());
    let root = tempfile::tempdir().unwrap();
    let run = RunDirectory::create(root.path(), "run", "", RunInfo::new("x")).unwrap();
    let mut sample = Sample::open(Some(&run), tokenizer, &recipe, None).unwrap();
    for at in [3, 4, 3] {
        let made_up = step(&plan, at);
        let mut info = StepInfo {
            step: made_up.step,
            stage: "a",
            stage_step: at,
            stage_steps: 6,
            tokens: 0,
            wall_s: 0.0,
            plan: &plan,
            model: &model,
            train: made_up.train,
            valid: BTreeMap::new(),
        };
        Hook::<B, Model<B>>::after_step(&mut sample, &mut info).unwrap();
    }
    let text = fs::read_to_string(run.samples()).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let texts: Vec<&str> = lines
        .iter()
        .map(|line| line["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts.len(), 6);
    let different = BTreeSet::from_iter(&texts[..4]);
    assert_eq!(different.len(), 4, "{texts:?}");
    assert_eq!(texts[4..], texts[..2]);
    assert_eq!(
        (&lines[2]["step"], &lines[2]["prompt"]),
        (&9.into(), &"ab".into())
    );
    assert!(
        lines
            .iter()
            .all(|line| line["tokens"].as_u64().unwrap() <= 6)
    );
}
