//! Tests that every compiled backend agrees with ndarray within a tolerance: logits and gradients of the baseline and BRIAN, also
//! with blocks as pretrained models have them, training losses also of BriLLM, and losses in bf16. A device that is not there is printed as not run.
//!
//! `cargo test --release -p tests --features flex,wgpu agreement -- --nocapture`

use crate::causality::{SEQ, VOCABULARY, loud, pool_of_three, router, row, sequence, walk};
use crate::graph::counted;
use crate::support::{
    REORDERED, Workplace, as_pretrained, gradients, lines, relative, small_baseline, values,
};
use brian::BaselineConfig;
use brian::loss::language;
use brian::route::policy::Select;
use brian::route::rules::ExitObjective;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor, TensorData};
use train::device::{self, BACKENDS, DeviceConfig, Dtype, Task};
use train::error::Error;

/// How far a backend's numbers may lie from those of ndarray, against the largest of them.
struct Band {
    /// Logits and gradients of a pass: sums have another order, and CUDA multiplies in tf32, which has 10 bits.
    pass: f32,
    /// Losses of a training: AdamW divides by gradients, small ones too, and so steps differ more than gradients do.
    curve: f32,
}

fn band(backend: &str) -> Band {
    let (pass, curve) = match backend {
        "cuda" => (5e-3, 5e-3),
        _ => (REORDERED, 3e-4),
    };
    Band { pass, curve }
}

/// The backends that are compiled in, but for ndarray.
fn others() -> impl Iterator<Item = &'static str> {
    let compiled = BACKENDS.iter().filter(|(_, compiled)| *compiled);
    compiled
        .map(|(name, _)| *name)
        .filter(|&name| name != "ndarray")
}

/// Logits and gradients of both models.
struct Passes;

impl Task for Passes {
    type Output = Vec<(String, Vec<f32>)>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<Self::Output, Error> {
        let sequences: Vec<Vec<i64>> = (0..3).map(|seed| sequence(seed, SEQ)).collect();
        let rows: Vec<_> = (0..3).map(row).collect();
        let input = TensorData::new(sequences.concat(), [sequences.len(), SEQ]);
        let input: Tensor<B, 2, Int> = Tensor::from_data(input, &device);
        let nats = |logits| language::token_losses(logits, input.clone()).mean();

        let mut found = Vec::new();
        for blocks in ["plain", "pretrained"] {
            let mut config = pool_of_three();
            if blocks == "pretrained" {
                as_pretrained(&mut config);
            }
            let of_baseline = BaselineConfig {
                n_kv_heads: config.n_kv_heads,
                d_head: config.d_head,
                attention_bias: config.attention_bias,
                query_key_norm: config.query_key_norm,
                untied_head: config.untied_head,
                logit_cap: config.logit_cap,
                rope_scaling: config.rope_scaling,
                residual_scale: config.residual_scale,
                width_transfer: config.width_transfer,
                ..small_baseline()
            };
            let baseline = of_baseline.init::<B>(VOCABULARY, 3, &device);
            let of_baseline = baseline.forward(input.clone());
            let backward = nats(of_baseline.clone()).backward();
            let baseline_gradients = gradients(&baseline, &backward);

            let brian = loud(config.init::<B>(VOCABULARY, 3, &device));
            let rules = walk(router(Select::Argmax), ExitObjective::StraightThrough);
            let (of_brian, _) = brian.forward(input.clone(), &rules, &rows);
            let backward = nats(of_brian.clone()).backward();
            let brian_gradients = gradients(&brian, &backward);
            found.extend([
                (
                    format!("logits of the baseline, {blocks}"),
                    values(of_baseline),
                ),
                (
                    format!("gradients of the baseline, {blocks}"),
                    baseline_gradients,
                ),
                (
                    format!("logits of the routed model, {blocks}"),
                    values(of_brian),
                ),
                (
                    format!("gradients of the routed model, {blocks}"),
                    brian_gradients,
                ),
            ]);
        }
        Ok(found)
    }
}

fn passes(backend: &str) -> Result<Vec<(String, Vec<f32>)>, Error> {
    let config = DeviceConfig {
        backend: backend.to_string(),
        index: 0,
        dtype: Dtype::F32,
    };
    device::run(&config, Passes)
}

#[test]
fn logits_and_gradients_agree() {
    let expected = passes("ndarray").unwrap();
    for backend in others() {
        let found = match passes(backend) {
            Ok(found) => found,
            Err(missing) => {
                println!("not run: {missing}");
                continue;
            }
        };
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            let difference = relative(found, expected);
            println!("{backend}: {name} differ by {difference:.1e}");
            assert!(
                difference < band(backend).pass,
                "{backend}: {name} differ by {difference:e}"
            );
        }
    }
}

/// The losses that a run logs, in order; nothing where there is no such device.
fn losses(workplace: &Workplace, fit: &str, backend: &str) -> Option<Vec<f32>> {
    let fit = workplace.nerve(&format!(
        "{fit} --device {backend} --set run.name=on-{backend}"
    ));
    if fit.code == 4 {
        println!("not run: {}", fit.stderr.trim());
        return None;
    }
    let fit = fit.expect(0);
    let metrics = lines(&workplace.path(fit.answer()).join("metrics.jsonl"));
    let of_losses = metrics.iter().flat_map(|line| {
        let numbers = line.as_object().expect("a line of numbers").iter();
        numbers.filter(|(name, _)| name.starts_with("loss/"))
    });
    let numbers = of_losses.map(|(_, loss)| loss.as_f64().unwrap() as f32);
    Some(numbers.collect())
}

/// Trains on every backend.
fn agree(workplace: &Workplace, fit: &str) {
    let expected = losses(workplace, fit, "ndarray").expect("ndarray is always there");
    assert!(expected.len() >= 8, "{expected:?}");
    for backend in others() {
        let Some(found) = losses(workplace, fit, backend) else {
            continue;
        };
        let difference = relative(&found, &expected);
        println!("{backend}: losses differ by {difference:.1e} in {fit}");
        assert!(
            difference < band(backend).curve,
            "{backend}: {found:?}\nndarray: {expected:?}"
        );
    }
}

#[test]
fn loss_curves_of_the_ladder_agree() {
    agree(&Workplace::with_routes(), "fit routes.toml --render none");
}

#[test]
fn loss_curves_of_signal_flow_agree() {
    let (workplace, fit) = counted();
    agree(&workplace, &fit);
}

/// Of 8 bits.
const BF16: f32 = 3e-2;

#[test]
fn a_loss_curve_in_bf16_is_that_of_f32_to_its_bits() {
    let workplace = Workplace::with_routes();
    let fit = "fit routes.toml --render none";
    let expected = losses(&workplace, fit, "ndarray").expect("ndarray is always there");
    for backend in others().filter(|name| ["flex", "cuda"].contains(name)) {
        let fit = format!("{fit} --set device.dtype=bf16");
        let Some(found) = losses(&workplace, &fit, backend) else {
            continue;
        };
        let difference = relative(&found, &expected);
        println!("{backend}: losses in bf16 differ by {difference:.1e}");
        assert!(
            difference < BF16 && difference > band("flex").curve,
            "{backend}: {found:?}\nndarray: {expected:?}"
        );
    }
}
