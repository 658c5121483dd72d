//! How many tokens per second are learned: forward, backward and AdamW, baseline and fixed route over the same blocks.
#![allow(missing_docs)]

use bench::{ADAMW, BenchAutodiff, BenchBackend, Shape, Work, measured, products};
use brian::Rules;
use brian::flops::TRAINING;
use brian::loss::language;
use brian::route::policy::SequenceInfo;
use burn::optim::GradientsParams;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use train::learner::{ParameterOptimizer, Rate, gradient};
use train::model::Model;

fn train_step(criterion: &mut Criterion) {
    let device = Default::default();
    let mut group = criterion.benchmark_group("train_step");
    for shape in Shape::all() {
        group.throughput(Throughput::Elements(shape.tokens()));
        let baseline = shape
            .baseline()
            .init::<BenchAutodiff>(shape.vocabulary, 1, &device);
        let fixed = shape.brian().wrap(baseline.clone(), 1);
        let models = [
            ("baseline", Model::trainable(baseline)),
            ("fixed_route", Model::trainable(fixed)),
        ];
        let (rules, rows) = (
            Rules::sequential(),
            vec![SequenceInfo::default(); shape.batch],
        );
        for (name, model) in models {
            let input = shape.input::<BenchAutodiff>(&device);
            let mut optimizer = ParameterOptimizer::new(&ADAMW);
            let mut model = Some(model);
            let mut step = || {
                let before = model.take().expect("it is put back below");
                let computing = before.with_matmul_dtype(products());
                let logits = computing.forward(input.clone(), &rules, &rows).0;
                let loss = language::token_losses(logits, input.clone()).mean();
                let gradients = GradientsParams::from_grads(loss.backward(), &before);
                drop(computing);
                let norm = gradient::norm(&before, &gradients).length;
                let gradients = gradient::clip(&before, gradients, norm, ADAMW.clip_norm());
                model = Some(optimizer.step(Rate::at_peak(1e-4), before, gradients));
            };
            let name = format!("{name}/{}", shape.name());
            let work = Work::Flops(TRAINING * shape.flops());
            measured::<BenchBackend>(&mut group, name, &device, work, &mut step);
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = train_step
}
criterion_main!(benches);
