//! Equal to the reference where the reference is right: golden cases of both systems, as folders.
//!
//! Walks `tests/fixtures/{brian,brillm}/<case>` and, when `NERVE_FIXTURES` is set, the same layout under that path.

use crate::support::{GOLDEN, GOLDEN_GRADIENT, TestAutodiff, difference, tokens, values};
use brian::loss::language;
use brian::route::policy::Policy;
use brian::{BaselineConfig, compat, parameter};
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
use train::run::{HostTensor, TensorMap, read_tensors};
use train::task::Decoder;

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
    assert!(checked >= 2, "only {checked} cases were checked");
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
        return Err("BriLLM has no model yet".to_string());
    }
    let text = fs::read_to_string(folder.join("case.json")).unwrap();
    let case: Value = serde_json::from_str(&text).unwrap();
    match case["model"].as_str() {
        Some("baseline") => Ok(check_baseline(folder, &case)),
        Some("brian") => check_fixed_route(folder, &case),
        other => Err(format!("model {other:?} is unknown")),
    }
}

fn check_baseline(folder: &Path, case: &Value) -> String {
    let golden = Golden::read(folder);
    let config = baseline_config(case);
    let skeleton = config.skeleton(golden.vocabulary(), &Default::default());
    let model: Decoder<TestAutodiff> = golden.fill(Decoder::Baseline(skeleton), folder);
    let (logits, loss) = golden.run(&model);
    golden.compare_forward(&logits, &loss, "loss", folder);
    let raw = loss.backward();
    let gradients = GradientsParams::from_grads(raw, &model);
    golden.compare_gradients(&model, &gradients, folder)
}

fn check_fixed_route(folder: &Path, case: &Value) -> Result<String, String> {
    let mode = case["call"]["route_mode"].as_str().unwrap_or("free");
    if mode != "fixed" {
        return Err(format!("route mode {mode} needs a router that chooses"));
    }
    let teacher = case["call"]["pseudo_policy"]
        .as_str()
        .unwrap_or("sequential");
    if teacher != "sequential" || !case["call"]["routing_constraints"].is_null() {
        return Err(format!(
            "the teacher {teacher} with constraints does not exist yet"
        ));
    }
    let settings = case["brian"].as_object().unwrap();
    let known = [
        "pre_blocks",
        "route_pool_blocks",
        "post_blocks",
        "block_position_dim",
        "max_route_steps",
        "top_k",
        "later_top_k",
        "location_bias_weight",
        "position_to_router",
    ];
    if let Some(setting) = settings
        .keys()
        .find(|setting| !known.contains(&setting.as_str()))
    {
        return Err(format!("the setting {setting} does not exist yet"));
    }
    let golden = Golden::read(folder);
    let size = |name: &str| settings[name].as_u64().unwrap() as usize;
    let (n_pre, n_pool) = (size("pre_blocks"), size("route_pool_blocks"));
    let config = compat::brian(
        baseline_config(case),
        n_pre,
        n_pool,
        size("block_position_dim"),
    );
    let skeleton = config.skeleton(golden.vocabulary(), &Default::default());
    let model: Decoder<TestAutodiff> = golden.fill(Decoder::Brian(skeleton), folder);
    let (logits, loss) = golden.run(&model);
    golden.compare_forward(&logits, &loss, "component.lm_loss", folder);
    Ok("logits and language-model loss".to_string())
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

    fn vocabulary(&self) -> usize {
        self.weights["embedding.weight"].shape[0]
    }

    fn fill(&self, skeleton: Decoder<TestAutodiff>, folder: &Path) -> Decoder<TestAutodiff> {
        load_model(skeleton, self.weights.clone(), folder).unwrap()
    }

    /// Logits, and the mean loss of predicting each target from the position before it.
    fn run(
        &self,
        model: &Decoder<TestAutodiff>,
    ) -> (Tensor<TestAutodiff, 3>, Tensor<TestAutodiff, 1>) {
        let logits = model.forward(tokens(&self.input_ids), Policy::Sequential);
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
        let nats = language::nats(logits.clone().narrow(1, 0, seq - 1), targets);
        let loss = (nats * counted.clone()).sum() / counted.sum();
        (logits, loss)
    }

    fn compare_forward(
        &self,
        logits: &Tensor<TestAutodiff, 3>,
        loss: &Tensor<TestAutodiff, 1>,
        loss_name: &str,
        folder: &Path,
    ) {
        let of_logits = difference(&values(logits.clone()), &self.expected["logits"]);
        assert!(
            of_logits <= GOLDEN,
            "{}: logits differ by {of_logits:e}",
            folder.display()
        );
        let of_loss = difference(&values(loss.clone()), &self.expected[loss_name]);
        assert!(
            of_loss <= GOLDEN,
            "{}: {loss_name} differs by {of_loss:e}",
            folder.display()
        );
    }

    fn compare_gradients(
        &self,
        model: &Decoder<TestAutodiff>,
        gradients: &GradientsParams,
        folder: &Path,
    ) -> String {
        let found = collect_gradients(model, gradients);
        let paths = |map: &TensorMap| map.keys().cloned().collect::<Vec<_>>();
        assert_eq!(
            paths(&found),
            paths(&self.gradients),
            "{}",
            folder.display()
        );
        let mut worst = 0.0;
        for (path, expected) in &self.gradients {
            assert_eq!(found[path].shape, expected.shape, "{path}");
            let largest = expected.values.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
            let difference = difference(&found[path].values, &expected.values);
            // A gradient that is zero everywhere has no scale: it must be zero here too.
            let relative = if largest > 0.0 {
                difference / largest
            } else {
                difference
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
fn collect_gradients(model: &Decoder<TestAutodiff>, gradients: &GradientsParams) -> TensorMap {
    struct Put<'a>(&'a GradientsParams);
    impl burn::module::ModuleMapper<TestAutodiff> for Put<'_> {
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<Tensor<TestAutodiff, D>>,
        ) -> burn::module::Param<Tensor<TestAutodiff, D>> {
            let gradient = self
                .0
                .get(param.id)
                .expect("every parameter has a gradient");
            param.map(|_| Tensor::from_inner(gradient))
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

fn floats(file: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    let of_floats = tensors
        .tensors()
        .into_iter()
        .filter(|(_, view)| view.dtype() == Dtype::F32);
    of_floats
        .map(|(name, view)| (name, view.data().chunks(4).map(float).collect()))
        .collect()
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
