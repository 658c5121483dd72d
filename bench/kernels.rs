//! Benchmark of the operations of blocks, loss and embedding (forward and backward), of the gradient norm and of AdamW: each by
//! our kernels or fused versions, and composed of Burn's operations.
#![allow(missing_docs)]

use bench::{
    ADAMW, BenchAutodiff, BenchBackend, Composed, Shape, clocked_here, drawn, products, timed,
};
use brian::Baseline;
use brian::block::causal::Rotary;
use brian::loss::language;
use brian::ops::embedding::embed;
use brian::ops::residual_add::residual_add;
use brian::ops::rms_norm::rms_norm;
use brian::ops::swiglu::gated;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{DType, Device, Tensor};
use criterion::measurement::WallTime;
use criterion::{Bencher, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use train::learner::{ParameterOptimizer, Rate, gradient};

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// What blocks and losses are made of.
fn passes<B: AutodiffBackend<Device = Device<BenchBackend>>>(
    group: &mut Group,
    whose: &str,
    shape: &Shape,
    device: &Device<BenchBackend>,
) {
    let products = DType::from(products());
    let base = shape.baseline();
    let (n, d_head) = (shape.batch * shape.seq, base.d_model / base.n_heads);
    let leaf = |width: usize| drawn::<B, 2>([n, width], device).require_grad();
    let mut bench = |name: &str, pass: &mut (dyn FnMut() + Send)| {
        group.bench_function(format!("{name}/{whose}"), |bencher| {
            timed::<BenchBackend>(bencher, device, &mut *pass);
        });
    };
    fn back<B: AutodiffBackend, const D: usize>(output: Tensor<B, D>) {
        drop(output.sum().backward());
    }

    let model: Baseline<B> = base.init(shape.vocabulary, 1, device);
    let block = brian::precision::with_matmul_dtype(model.blocks[0].clone(), products);
    let causal = Rotary::new(shape.seq, d_head, base.rope(), device).causal(shape.seq);
    let x = leaf(base.d_model);
    bench("norm", &mut || {
        back(rms_norm(&x, &block.attention_norm, products))
    });
    let product = leaf(base.d_model).cast(products);
    bench("addition", &mut || {
        back(residual_add(x.clone(), product.clone()))
    });
    bench("norm_projection_and_positions", &mut || {
        back(
            block
                .attention
                .project_rows(&x, &block.attention_norm, &causal.all_angles()),
        )
    });
    let packed = (leaf(3 * base.d_model) * (d_head as f64).powf(-0.25)).cast(products);
    bench("attention", &mut || {
        back(
            block
                .attention
                .find_all(packed.clone(), shape.batch, &causal),
        )
    });
    let [gate, up] = [0, 1].map(|_| leaf(base.d_ff).cast(products));
    bench("gate", &mut || back(gated(gate.clone(), up.clone())));
    let tokens = shape.input::<B>(device);
    let logits = leaf(shape.vocabulary).reshape([shape.batch, shape.seq, shape.vocabulary]);
    bench("loss", &mut || {
        back(language::token_losses(logits.clone(), tokens.clone()))
    });
    bench("embedding", &mut || {
        back(embed(&model.embedding, tokens.clone()))
    });
}

/// What a step does with gradients.
fn steps(group: &mut Group, shape: &Shape, device: &Device<BenchBackend>) {
    let model: Baseline<BenchAutodiff> = shape.baseline().init(shape.vocabulary, 1, device);
    let mut squares = Squares(None);
    model.visit(&mut squares);
    let backward = squares.0.expect("parameters").backward();
    let gradients = GradientsParams::from_grads(backward, &model);
    group.bench_function("global_norm/ours", |bencher| {
        let norm = || drop(gradient::norm(&model, &gradients));
        timed_here(bencher, device, norm);
    });
    group.bench_function("global_norm/composed", |bencher| {
        timed_here(bencher, device, || {
            let mut all = Parts(&gradients, Vec::new());
            model.visit(&mut all);
            drop(Tensor::cat(all.1, 0).into_data());
        });
    });
    let mut adamw = |whose: &str, step: &mut dyn FnMut(GradientsParams)| {
        group.bench_function(format!("adamw/{whose}"), |bencher| {
            timed_here(bencher, device, || {
                let mut given = Copied(&gradients, GradientsParams::new());
                model.visit(&mut given);
                step(given.1);
            });
        });
    };
    let mut ours = (Some(model.clone()), ParameterOptimizer::new(&ADAMW));
    adamw("ours", &mut |given| {
        let before = ours.0.take().expect("it is put back");
        ours.0 = Some(ours.1.step(Rate::at_peak(1e-9), before, given));
    });
    let burns = AdamWConfig::new().init::<BenchAutodiff, Baseline<BenchAutodiff>>();
    let mut burns = (Some(model.clone()), burns);
    adamw("composed", &mut |given| {
        let before = burns.0.take().expect("it is put back");
        burns.0 = Some(burns.1.step(1e-9, before, given));
    });
}

/// Times an action on this thread: gradients stay where they were made.
fn timed_here(bencher: &mut Bencher, device: &Device<BenchBackend>, mut action: impl FnMut()) {
    action();
    bencher.iter_custom(|iterations| clocked_here::<BenchBackend>(device, iterations, &mut action));
}

/// The sum of the squares of all parameters: a loss with a gradient everywhere.
struct Squares(Option<Tensor<BenchAutodiff, 1>>);

impl ModuleVisitor<BenchAutodiff> for Squares {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<BenchAutodiff, D>>) {
        let square = parameter.val().square().sum();
        self.0 = Some(match self.0.take() {
            Some(sum) => sum + square,
            None => square,
        });
    }
}

/// The same of gradients, tensor by tensor.
struct Parts<'a>(&'a GradientsParams, Vec<Tensor<BenchBackend, 1>>);

impl ModuleVisitor<BenchAutodiff> for Parts<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<BenchAutodiff, D>>) {
        if let Some(gradient) = self.0.get::<BenchBackend, D>(parameter.id) {
            self.1.push(gradient.square().sum());
        }
    }
}

/// Gradients given once more, since a step takes them.
struct Copied<'a>(&'a GradientsParams, GradientsParams);

impl ModuleVisitor<BenchAutodiff> for Copied<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<BenchAutodiff, D>>) {
        if let Some(gradient) = self.0.get::<BenchBackend, D>(parameter.id) {
            self.1.register::<BenchBackend, D>(parameter.id, gradient);
        }
    }
}

fn kernels(criterion: &mut Criterion) {
    let device = Default::default();
    for shape in Shape::all() {
        let mut group = criterion.benchmark_group(format!("kernels/{}", shape.name()));
        group.throughput(Throughput::Elements(shape.tokens()));
        passes::<BenchAutodiff>(&mut group, "ours", &shape, &device);
        steps(&mut group, &shape, &device);
        passes::<Composed>(&mut group, "composed", &shape, &device);
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(500));
    targets = kernels
}
criterion_main!(benches);
