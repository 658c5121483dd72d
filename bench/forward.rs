//! How many tokens per second go through a model: the baseline, and the fixed route over the same blocks.
#![allow(missing_docs)]

use bench::{BenchBackend, Shape, timed};
use brian::Rules;
use brian::route::policy::Row;
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
        group.bench_function(format!("baseline/{}", shape.name()), |bencher| {
            timed::<BenchBackend>(bencher, &device, || drop(baseline.forward(input.clone())));
        });
        let (rules, rows) = (Rules::sequential(), vec![Row::default(); shape.batch]);
        let brian = shape.brian().wrap(baseline.clone(), 1);
        group.bench_function(format!("fixed_route/{}", shape.name()), |bencher| {
            let pass = || drop(brian.forward(input.clone(), &rules, &rows));
            timed::<BenchBackend>(bencher, &device, pass);
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
