//! How many tokens per second go through a model: the baseline, and the fixed route over the same blocks.
#![allow(missing_docs)]

use bench::{BenchBackend, Shape, Work, measured, products};
use brian::Rules;
use brian::precision::with_matmul_dtype;
use brian::route::policy::SequenceInfo;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn forward(criterion: &mut Criterion) {
    let device = Default::default();
    let mut group = criterion.benchmark_group("forward");
    for shape in Shape::all() {
        group.throughput(Throughput::Elements(shape.tokens()));
        let input = shape.input::<BenchBackend>(&device);
        let baseline = shape
            .baseline()
            .init::<BenchBackend>(shape.vocabulary, 1, &device);
        let brian = with_matmul_dtype(shape.brian().wrap(baseline.clone(), 1), products().into());
        let baseline = with_matmul_dtype(baseline, products().into());
        let work = Work::Flops(shape.flops());
        let name = format!("baseline/{}", shape.name());
        measured::<BenchBackend>(&mut group, name, &device, work, || {
            drop(baseline.forward(input.clone()));
        });
        let (rules, rows) = (
            Rules::sequential(),
            vec![SequenceInfo::default(); shape.batch],
        );
        let name = format!("fixed_route/{}", shape.name());
        measured::<BenchBackend>(&mut group, name, &device, work, || {
            drop(brian.forward(input.clone(), &rules, &rows));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = forward
}
criterion_main!(benches);
