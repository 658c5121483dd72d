//! Benchmark of the parts of a baseline's pass (block, attention, feed-forward, embedding, head with loss), mostly with
//! backward, and, as the best the device can do, of matrix products and a large copy.
#![allow(missing_docs)]

use bench::{BenchAutodiff, BenchBackend, Shape, drawn, timed};
use brian::block::attention::KeysValues;
use brian::block::causal::{Causal, Rotary};
use brian::loss::language;
use brian::{Baseline, BaselineConfig};
use burn::tensor::{DType, Device, Tensor};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;

/// What the device reaches: elements are FLOPs, bytes are read and written.
fn peaks(group: &mut BenchmarkGroup<WallTime>, shape: &Shape, device: &Device<BenchBackend>) {
    let rows = shape.batch * shape.seq;
    let products = [
        (shape.d_model, 3 * shape.d_model),
        (shape.d_model, 4 * shape.d_model),
        (shape.d_model, shape.vocabulary),
    ];
    for (inner, columns) in products {
        group.throughput(Throughput::Elements((2 * rows * inner * columns) as u64));
        let dtypes: &[DType] = match cfg!(feature = "cuda") {
            true => &[DType::F32, DType::BF16],
            false => &[DType::F32],
        };
        for &dtype in dtypes {
            let a = drawn::<BenchBackend, 2>([rows, inner], device).cast(dtype);
            let b = drawn::<BenchBackend, 2>([inner, columns], device).cast(dtype);
            let name = format!("product_{dtype:?}/{rows}x{inner}x{columns}").to_lowercase();
            group.bench_function(name, |bencher| {
                timed::<BenchBackend>(bencher, device, || drop(a.clone().matmul(b.clone())));
            });
        }
    }
    let large = drawn::<BenchBackend, 2>([64, 1 << 20], device);
    group.throughput(Throughput::Bytes((2 * 4 * 64) << 20));
    group.bench_function("copy_and_add", |bencher| {
        timed::<BenchBackend>(bencher, device, || drop(large.clone() + 1.0));
    });
}

fn parts(criterion: &mut Criterion) {
    let device = Default::default();
    for shape in Shape::all() {
        let mut group = criterion.benchmark_group(format!("parts/{}", shape.name()));
        peaks(&mut group, &shape, &device);
        group.throughput(Throughput::Elements(shape.tokens()));
        let model: Baseline<BenchAutodiff> = shape.baseline().init(shape.vocabulary, 1, &device);
        let base = shape.baseline();
        let d_head = base.d_model / base.n_heads;
        let rotary = Rotary::new(base.context, d_head, base.rope(), &device);
        let causal: Causal<BenchAutodiff> = rotary.causal(shape.seq);
        let stream = || {
            drawn::<BenchAutodiff, 3>([shape.batch, shape.seq, shape.d_model], &device)
                .require_grad()
        };
        let (block, x) = (&model.blocks[0], stream());
        let backward = |loss: Tensor<BenchAutodiff, 1>| drop(loss.backward());
        group.bench_function("block/forward", |bencher| {
            let pass = || drop(block.forward(x.clone(), &causal));
            timed::<BenchBackend>(bencher, &device, pass);
        });
        group.bench_function("block/and_backward", |bencher| {
            let pass = || backward(block.forward(x.clone(), &causal).sum());
            timed::<BenchBackend>(bencher, &device, pass);
        });
        let by_head = [shape.batch, shape.seq, base.n_heads, d_head];
        let heads = [0, 1, 2].map(|_| stream().reshape(by_head).swap_dims(1, 2));
        let attend = || {
            let [queries, keys, values] = heads.clone();
            let among = KeysValues { keys, values };
            block.attention.find(queries, among, causal.mask())
        };
        group.bench_function("attention/forward", |bencher| {
            timed::<BenchBackend>(bencher, &device, || drop(attend()));
        });
        group.bench_function("attention/and_backward", |bencher| {
            timed::<BenchBackend>(bencher, &device, || backward(attend().sum()));
        });
        let rows = stream().reshape([shape.batch * shape.seq, shape.d_model]);
        group.bench_function("feed_forward/and_backward", |bencher| {
            let pass = || backward(block.feed_forward.forward(rows.clone()).sum());
            timed::<BenchBackend>(bencher, &device, pass);
        });
        let targets = shape.input::<BenchAutodiff>(&device);
        group.bench_function("embedding/and_backward", |bencher| {
            let pass = || backward(model.embedding.forward(targets.clone()).sum());
            timed::<BenchBackend>(bencher, &device, pass);
        });
        let without_blocks = BaselineConfig {
            n_layers: 0,
            ..base
        };
        let ends: Baseline<BenchAutodiff> = without_blocks.init(shape.vocabulary, 1, &device);
        let nats = |model: &Baseline<BenchAutodiff>| {
            language::token_losses(model.forward(targets.clone()), targets.clone()).mean()
        };
        group.bench_function("embedding_head_and_loss/and_backward", |bencher| {
            timed::<BenchBackend>(bencher, &device, || backward(nats(&ends)));
        });
        group.bench_function("all/and_backward", |bencher| {
            timed::<BenchBackend>(bencher, &device, || backward(nats(&model)));
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1));
    targets = parts
}
criterion_main!(benches);
