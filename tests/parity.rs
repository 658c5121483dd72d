//! Tests of both models against golden cases of the reference: logits, losses, route decisions and gradients. Here BRIAN and
//! the baseline are compared; cases of BriLLM go to `signal`.
//!
//! Walks `tests/fixtures/{brian,brillm}/<case>` and, when `NERVE_FIXTURES` is set, the same layout under that path.

use crate::signal;
use crate::support::{GOLDEN, GOLDEN_GRADIENT, TestAutodiff, difference, tokens, values};
use brian::loss::language;
use brian::loss::route::RouteLosses;
use brian::loss::view::Scope;
use brian::memory::{
    Adapters, Compression, HiddenCodeConfig, KeyValuePrefixConfig, Lifecycle, MemoryConfig,
    SharedCodeConfig, SharedCodes,
};
use brian::route::constraint::Constraint;
use brian::route::parallel::{Parallel, ParentExit};
use brian::route::policy::{Policy, Select, SequenceInfo, Teacher};
use brian::route::position::{Injection, Reach, StartPosition};
use brian::route::rules::ExitObjective;
use brian::{BaselineConfig, Brian, BrianConfig, Layout, Rules, compat, parameter};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use train::import;
use train::learner::load_model;
use train::model::Model;
use train::run::{HostTensor, TensorMap, read_tensors};

/// Below this share of a model's largest gradient, one in float64 is a zero.
const NOTHING: f32 = 1e-14;
/// And so is one in float32 below this.
const ROUNDING: f32 = 1e-7;

/// The mark of a target that does not count.
const IGNORED: i64 = -100;

#[test]
fn parity_with_the_golden_cases() {
    let mut checked = 0;
    for root in roots() {
        for (system, case) in cases(&root) {
            match check(&system, &case) {
                Ok(what) => {
                    println!("{}: {what}", case.display());
                    checked += 1;
                }
                Err(missing) => println!("{}: not checked, {missing}", case.display()),
            }
        }
    }
    assert!(checked >= 25, "only {checked} cases were checked");
}

fn roots() -> Vec<PathBuf> {
    let mut roots = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")];
    roots.extend(std::env::var_os("NERVE_FIXTURES").map(PathBuf::from));
    roots
}

/// Folders that hold a `case.json`, links followed.
fn cases(root: &Path) -> Vec<(String, PathBuf)> {
    let mut cases = Vec::new();
    for system in ["brian", "brillm"] {
        let Ok(entries) = fs::read_dir(root.join(system)) else {
            continue;
        };
        let folders = entries.map(|entry| entry.unwrap().path());
        let with_case = folders.filter(|folder| folder.join("case.json").is_file());
        cases.extend(with_case.map(|folder| (system.to_string(), folder)));
    }
    cases.sort();
    cases
}

/// Says what was checked, or which part of the model does not exist yet.
fn check(system: &str, folder: &Path) -> Result<String, String> {
    if system == "brillm" {
        return Ok(signal::check(folder));
    }
    let text = fs::read_to_string(folder.join("case.json")).unwrap();
    let case: Value = serde_json::from_str(&text).unwrap();
    match case["model"].as_str() {
        Some("baseline") => Ok(check_baseline(folder, &case)),
        Some("brian") => check_routed(folder, &case),
        other => Err(format!("model {other:?} is unknown")),
    }
}

fn check_baseline(folder: &Path, case: &Value) -> String {
    let golden = Golden::read(folder);
    let config = baseline_config(case);
    let skeleton = config.skeleton(golden.vocabulary(), &Default::default());
    let model: Model<TestAutodiff> = golden.fill(Model::new(skeleton), folder);
    let rules = Rules::sequential();
    let (logits, _) = model.forward(tokens(&golden.input_ids), &rules, &[]);
    let loss = golden.language_loss(&logits);
    golden.compare("logits", logits, folder);
    golden.compare("loss", loss.clone(), folder);
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    golden.compare_gradients(&model, &gradients, folder)
}

/// Everything about the route: logits, every component of the loss, every decision of the last token, every gradient.
fn check_routed(folder: &Path, case: &Value) -> Result<String, String> {
    let config = brian_config(case)?;
    let mut golden = Golden::read(folder);
    if matches!(config.memory, MemoryConfig::SharedCode(memory) if memory.codes == SharedCodes::Current)
    {
        golden.without_biases_that_cancel();
    }
    let skeleton = config.skeleton(golden.vocabulary(), &Default::default());
    let model: Model<TestAutodiff> = golden.fill(Model::new(skeleton), folder);
    let brian: &Brian<_> = model.get().expect("it was made above");
    let rules = rules(case);
    let difficulty = compat::difficulty(&golden.input_ids);
    let rows: Vec<SequenceInfo> = (0..)
        .zip(difficulty)
        .map(|(sequence, difficulty)| SequenceInfo {
            sequence,
            difficulty: Some(difficulty),
        })
        .collect();
    let (logits, trace) = brian.forward(tokens(&golden.input_ids), &rules, &rows);
    let language = golden.language_loss(&logits);
    let valid = vec![true; golden.input_ids.concat().len()];
    let terms = losses(case).terms(&trace, &brian.position, &rules, &valid);
    let added = terms.iter().map(|term| term.value.clone() * term.weight);
    let loss = added.fold(language.clone(), |sum, term| sum + term);

    golden.compare("logits", logits, folder);
    golden.compare("component.lm_loss", language, folder);
    golden.compare("loss", loss.clone(), folder);
    let component = |name: &str| match name {
        "imitation" => "component.route_loss".to_string(),
        name => format!("component.{name}_loss"),
    };
    for term in &terms {
        golden.compare(&component(term.name), term.value.clone(), folder);
    }
    // A term that this pass does not have is zero in the reference.
    let compared: Vec<String> = terms.iter().map(|term| component(term.name)).collect();
    for (name, value) in &golden.expected {
        let ours = compared.contains(name) || name == "component.lm_loss";
        let silent = ours || !name.starts_with("component.");
        assert!(silent || value == &[0.0], "{}: no {name}", folder.display());
    }
    let last = |row: usize| (row + 1) * trace.walks.seq - 1;
    let of_last = |values: &dyn Fn(usize, usize) -> Vec<f32>| -> Vec<f32> {
        let steps = 0..trace.walks.steps.len();
        let places = steps.flat_map(|step| (0..rows.len()).map(move |row| (step, row)));
        places
            .flat_map(|(step, row)| values(step, last(row)))
            .collect()
    };
    let n_actions = config.n_pool + 1;
    let probabilities = of_last(&|step, token| {
        trace.walks.steps[step].probabilities[token * n_actions..][..n_actions].to_vec()
    });
    golden.compare_values("route_probs", &probabilities, folder);
    let logits: Vec<Vec<f32>> = trace
        .steps
        .iter()
        .map(|step| values(step.logits.clone()))
        .collect();
    let logits = of_last(&|step, token| logits[step][token * n_actions..][..n_actions].to_vec());
    golden.compare_values("route_logits", &logits, folder);
    let actions = of_last(&|step, token| vec![trace.walks.steps[step].actions[token] as f32]);
    assert_eq!(
        actions,
        golden.expected["selected_actions"],
        "{}",
        folder.display()
    );
    if let Some(expected) = golden.expected.get("route_targets") {
        let targets = of_last(&|step, token| {
            vec![trace.walks.steps[step].targets.as_ref().unwrap()[token] as f32]
        });
        assert_eq!(&targets, expected, "{}", folder.display());
    }
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    Ok(format!(
        "{}, {} terms, {} decisions",
        golden.compare_gradients(&model, &gradients, folder),
        terms.len(),
        actions.len()
    ))
}

/// The reference's settings as ours, or the first that has no counterpart yet.
fn brian_config(case: &Value) -> Result<BrianConfig, String> {
    let settings = &case["brian"];
    let size = |name: &str| settings[name].as_u64().map(|size| size as usize);
    let mode = case["call"]["route_mode"].as_str();
    if !matches!(mode, Some("free" | "fixed" | "pseudo" | "parallel")) {
        return Err(format!("route mode {mode:?} is not one without chance"));
    }
    let is = |name: &str, default: bool| settings[name].as_bool().unwrap_or(default);
    let n_pre = size("pre_blocks").unwrap();
    let n_post = size("post_blocks").unwrap();
    let n_pool = size("route_pool_blocks").unwrap();
    let mut baseline = baseline_config(case);
    // A fine-grained pool has another number of blocks than the middle of the decoder.
    baseline.n_layers = n_pre + n_pool + n_post;
    let d_position = size("block_position_dim").unwrap();
    let max_steps = size("max_route_steps").unwrap();
    let mut config = compat::brian(baseline, n_pre, n_pool, d_position, max_steps);
    if let Some(multiple) = settings["route_block_ffn_multiplier"].as_f64() {
        config.d_ff_pool = compat::d_ff(config.d_model, multiple);
    }
    config.route.top_k_first = size("top_k").unwrap_or(1).clamp(1, n_pool + 1);
    config.route.top_k = size("later_top_k").unwrap_or(2).clamp(1, n_pool + 1);
    if is("parallel_passing", false) {
        let number = |name: &str, default: f64| settings[name].as_f64().unwrap_or(default);
        config.route.parallel = Parallel::SequenceBeam {
            width: size("beam_size").unwrap_or(2),
            branch_cost: number("branch_cost", 0.01),
            score_decay: number("branch_score_decay", 0.99),
            parent_exit: match settings["parallel_exit_policy"].as_str() {
                Some("top1") => ParentExit::Top1,
                Some("any_topk") => ParentExit::AnyTopk,
                _ => ParentExit::Branch,
            },
        };
    }
    config.position.layout = match settings["block_position_mode"].as_str() {
        Some("none") => Layout::None,
        Some("random") => Layout::Random,
        Some("circular") => Layout::ClosedCircle,
        _ => Layout::OpenArc,
    };
    if settings["block_position_injection"] == "direct_add" {
        config.position.injection = Injection::Direct;
    }
    if is("independent_input_position", false) {
        config.position.start = StartPosition::Learned;
    }
    let both = (
        is("position_to_router", true),
        is("position_to_blocks", true),
    );
    config.position.into = match both {
        (true, true) => Reach::Both,
        (true, false) => Reach::Router,
        (false, true) => Reach::Blocks,
        (false, false) => Reach::Neither,
    };
    config.memory = memory_config(settings, &case["base"]);
    Ok(config)
}

/// The reference's memory, with its lifecycle.
fn memory_config(settings: &Value, base: &Value) -> MemoryConfig {
    let size = |name: &str| settings[name].as_u64().map(|size| size as usize);
    let has = |name: &str| settings[name].as_bool() == Some(true);
    if has("global_kv") {
        return MemoryConfig::HiddenCode(HiddenCodeConfig {
            d_code: size("global_code_dim").unwrap(),
            sink: size("global_sink_slots").unwrap_or(4),
            window: size("global_window_slots").unwrap_or(32),
            adapters: match settings["global_adapter_scope"].as_str() {
                Some("per_block") => Adapters::PerBlock,
                _ => Adapters::Shared,
            },
            head_rank: size("global_head_delta_rank").unwrap_or(0),
            lifecycle: Lifecycle::Reference,
        });
    }
    let shares = has("attention_global_kv")
        && settings["attention_global_kv_mode"].as_str() == Some("pure_factorized");
    if shares {
        let d_head = || base["d_model"].as_u64().unwrap() / base["n_heads"].as_u64().unwrap();
        return MemoryConfig::SharedCode(SharedCodeConfig {
            d_code: size("attention_global_code_dim").unwrap_or_else(|| d_head() as usize),
            codes: match settings["attention_global_route_execution"].as_str() {
                Some("cache_only") => SharedCodes::Current,
                _ => SharedCodes::CurrentAndLast { bias: -4.0 },
            },
        });
    }
    if has("attention_global_kv") {
        let d_code = || size("attention_global_code_dim").unwrap();
        return MemoryConfig::KeyValuePrefix(KeyValuePrefixConfig {
            sink: size("attention_global_sink_slots").unwrap_or(4),
            window: size("attention_global_window_slots").unwrap_or(32),
            bias: -4.0,
            compression: match settings["attention_global_kv_mode"].as_str() {
                Some("token_compressed") => Compression::Code { d_code: d_code() },
                _ => Compression::None,
            },
            lifecycle: Lifecycle::Reference,
        });
    }
    MemoryConfig::None
}

fn rules(case: &Value) -> Rules {
    let call = &case["call"];
    let bounds = &call["routing_constraints"];
    let number = |name: &str| bounds[name].as_f64().unwrap_or(0.0);
    let count = |name: &str| bounds[name].as_u64().map(|count| count as usize);
    let teacher = || match call["pseudo_policy"].as_str() {
        Some("mixed_skip_recur") => Teacher::MixedSkipRecur,
        Some("balanced_coverage") => Teacher::BalancedCoverage,
        Some("sequential") | None => Teacher::Sequential,
        Some(other) => panic!("the golden cases know no teacher {other}"),
    };
    let caps = [
        "self_recur_max_consecutive",
        "self_recur_cap",
        "max_consecutive_self_recur",
    ];
    Rules {
        policy: match call["route_mode"].as_str() {
            Some("fixed" | "pseudo") => Policy::Teacher(teacher()),
            _ => Policy::Router {
                teacher: None,
                select: Select::Argmax,
            },
        },
        ask_router: true,
        location_bias: case["brian"]["location_bias_weight"]
            .as_f64()
            .unwrap_or(0.0),
        constraint: Constraint {
            early_exit_penalty: number("early_exit_logit_penalty"),
            min_exit_step: count("min_exit_step").unwrap_or(1),
            exit_ramp_bias: number("exit_ramp_logit_bias"),
            exit_ramp_start: count("exit_ramp_start").unwrap_or(0),
            final_exit_bias: number("final_exit_logit_bias"),
            force_final_exit: bounds["force_final_exit"].as_bool().unwrap_or(false),
            self_recurrence_cap: caps.into_iter().find_map(count).unwrap_or(0),
        },
        exit_objective: ExitObjective::Legacy {
            hard: call["hard_exit"].as_bool().unwrap_or(false),
        },
        with_gradients: true,
        ..Rules::sequential()
    }
}

fn losses(case: &Value) -> RouteLosses {
    let weight = |name: &str| case["loss_weights"][name].as_f64().unwrap_or(0.0);
    let least = &case["call"]["routing_constraints"]["coverage_floor_min"];
    RouteLosses {
        scope: Scope::LastToken,
        imitation: weight("route"),
        balance: weight("balance"),
        selected_balance: weight("selected_balance"),
        coverage_floor: weight("coverage_floor"),
        coverage_least: least.as_f64().unwrap_or(0.0),
        transition_diversity: weight("transition_diversity"),
        cost: weight("cost"),
        location: weight("location"),
        exit_boundary: weight("exit_boundary"),
        input_anchor: weight("input_anchor"),
        ..RouteLosses::NONE
    }
}

fn baseline_config(case: &Value) -> BaselineConfig {
    let size = |name: &str| case["base"][name].as_u64().unwrap() as usize;
    compat::baseline(
        size("d_model"),
        size("n_heads"),
        size("layers"),
        size("context_length"),
    )
}

struct Golden {
    weights: TensorMap,
    gradients: TensorMap,
    expected: BTreeMap<String, Vec<f32>>,
    input_ids: Vec<Vec<i64>>,
    targets: Vec<Vec<i64>>,
}

impl Golden {
    fn read(folder: &Path) -> Self {
        let translated = |file: &str| {
            let (known, unknown) =
                import::brian::translate(read_tensors(&folder.join(file)).unwrap());
            assert_eq!(unknown, [""; 0], "{}", folder.display());
            known
        };
        let inputs = integers(&folder.join("inputs.safetensors"));
        Self {
            weights: translated("weights.safetensors"),
            gradients: translated("grads.safetensors"),
            expected: floats(&folder.join("expected.safetensors")),
            input_ids: inputs["input_ids"].clone(),
            targets: inputs["targets"].clone(),
        }
    }

    /// Where a block adds its bias to all scores, it cancels: the reference has such biases, whose gradients are rounding, and we
    /// have none.
    fn without_biases_that_cancel(&mut self) {
        let cancels = |path: &str| path.starts_with("memory.blocks.") && path.ends_with(".bias");
        let largest =
            |tensor: &HostTensor| tensor.floats().iter().fold(0.0, |a: f32, b| a.max(b.abs()));
        let of_all = self.gradients.values().map(largest).fold(0.0, f32::max);
        for (path, gradient) in &self.gradients {
            assert!(
                !cancels(path) || largest(gradient) < NOTHING * of_all,
                "{path}"
            );
        }
        for tensors in [&mut self.weights, &mut self.gradients] {
            tensors.retain(|path, _| !cancels(path));
        }
    }

    fn vocabulary(&self) -> usize {
        self.weights["embedding.weight"].shape[0]
    }

    fn fill(&self, skeleton: Model<TestAutodiff>, folder: &Path) -> Model<TestAutodiff> {
        load_model(skeleton, self.weights.clone(), folder).unwrap()
    }

    /// The mean loss of predicting each target from the position before it.
    fn language_loss(&self, logits: &Tensor<TestAutodiff, 3>) -> Tensor<TestAutodiff, 1> {
        let seq = self.input_ids[0].len();
        let later: Vec<Vec<i64>> = self.targets.iter().map(|row| row[1..].to_vec()).collect();
        let counts = |of: fn(i64) -> i64| {
            later
                .iter()
                .map(|row| row.iter().map(|&target| of(target)).collect())
                .collect::<Vec<_>>()
        };
        let counted =
            tokens::<TestAutodiff>(&counts(|target| i64::from(target != IGNORED))).float();
        let targets = tokens(&counts(|target| if target == IGNORED { 0 } else { target }));
        let nats = language::token_losses(logits.clone().narrow(1, 0, seq - 1), targets);
        (nats * counted.clone()).sum() / counted.sum()
    }

    fn compare<const D: usize>(&self, name: &str, found: Tensor<TestAutodiff, D>, folder: &Path) {
        self.compare_values(name, &values(found), folder);
    }

    fn compare_values(&self, name: &str, found: &[f32], folder: &Path) {
        let difference = difference(found, &self.expected[name]);
        assert!(
            difference <= GOLDEN,
            "{}: {name} differs by {difference:e}",
            folder.display()
        );
    }

    fn compare_gradients(
        &self,
        model: &Model<TestAutodiff>,
        gradients: &GradientsParams,
        folder: &Path,
    ) -> String {
        let found = collect_gradients(model, gradients);
        let unknown = self
            .gradients
            .keys()
            .find(|path| !found.contains_key(*path));
        assert_eq!(unknown, None, "{}", folder.display());
        let mut worst = 0.0;
        let largest_of = |gradient: &HostTensor| {
            let entries = gradient.floats();
            entries.iter().fold(0.0, |a: f32, b| a.max(b.abs()))
        };
        let largest_of_all = self.gradients.values().map(largest_of).fold(0.0, f32::max);
        for (path, found) in &found {
            // What the reference gives no gradient must have a zero one.
            let silent = || HostTensor::new(found.shape.clone(), vec![0.0; found.len()]);
            let expected = self.gradients.get(path).cloned().unwrap_or_else(silent);
            assert_eq!(found.shape, expected.shape, "{path}");
            let largest = largest_of(&expected);
            let difference = difference(&found.floats(), &expected.floats());
            let relative = match largest {
                // A gradient that is zero everywhere has no scale: it must be zero here too.
                0.0 => difference,
                // One that is what float64 makes of a zero must be what float32 makes of it.
                _ if largest < NOTHING * largest_of_all => {
                    assert!(
                        difference < ROUNDING * largest_of_all,
                        "{path}: {difference:e}"
                    );
                    continue;
                }
                _ => difference / largest,
            };
            assert!(
                relative <= GOLDEN_GRADIENT,
                "{}: {path} differs by {relative:e}",
                folder.display()
            );
            worst = f32::max(worst, relative);
        }
        format!(
            "logits, loss and {} gradients (worst {worst:.1e})",
            self.gradients.len()
        )
    }
}

/// The gradients of a model by path: put in the place of its values, they are collected like these.
fn collect_gradients(model: &Model<TestAutodiff>, gradients: &GradientsParams) -> TensorMap {
    struct Put<'a>(&'a GradientsParams);
    impl burn::module::ModuleMapper<TestAutodiff> for Put<'_> {
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<Tensor<TestAutodiff, D>>,
        ) -> burn::module::Param<Tensor<TestAutodiff, D>> {
            let gradient = self.0.get(param.id);
            // A parameter that the loss does not reach has no gradient at all.
            param.map(|value| match gradient {
                Some(gradient) => Tensor::from_inner(gradient),
                None => value.zeros_like(),
            })
        }
    }
    let filled = model.clone().map(&mut Put(gradients));
    let host = |data: burn::tensor::TensorData| {
        HostTensor::new(data.shape.as_slice().to_vec(), data.iter().collect())
    };
    parameter::collect(&filled)
        .into_iter()
        .map(|(path, data)| (path, host(data)))
        .collect()
}

/// All tensors as numbers; actions are small enough to be exact.
fn floats(file: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    let integer = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap()) as f32;
    let numbers = |view: &safetensors::tensor::TensorView| match view.dtype() {
        Dtype::F32 => view.data().chunks(4).map(float).collect(),
        Dtype::I64 => view.data().chunks(8).map(integer).collect(),
        other => panic!("{}: numbers of type {other:?}", file.display()),
    };
    let all = tensors.tensors().into_iter();
    all.map(|(name, view)| (name, numbers(&view))).collect()
}

fn integers(file: &Path) -> BTreeMap<String, Vec<Vec<i64>>> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let integer = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap());
    let rows = |view: &safetensors::tensor::TensorView| -> Vec<Vec<i64>> {
        let all: Vec<i64> = view.data().chunks(8).map(integer).collect();
        all.chunks(view.shape()[1]).map(<[i64]>::to_vec).collect()
    };
    tensors
        .tensors()
        .iter()
        .map(|(name, view)| (name.clone(), rows(view)))
        .collect()
}
