//! How many tokens per second are learned: forward, backward and AdamW, baseline and fixed route over the same blocks. Then, for short
//! documents, how many of theirs in windows that run on, that several share, and that each has alone: `-- documents` for these alone.
#![allow(missing_docs)]

use bench::{
    ADAMW, BenchAutodiff, BenchBackend, Shape, VOCABULARY, Work, in_place, measured, products,
};
use brian::flops::TRAINING;
use brian::loss::language;
use brian::route::policy::SequenceInfo;
use brian::{Rules, random};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::Instant;
use train::data::HostBatch;
use train::data::packing::Packing;
use train::learner::{ParameterOptimizer, Rate, gradient};
use train::model::Model;
use train::task::{Batch, RoutePlan, StepPlan};

/// Windows of short documents.
const DOCUMENTS: Shape = Shape::small(128, 4, 8, 512);
const ROUNDS: usize = 9;

/// A model as it is before and after a step.
type Learnt = Option<Model<BenchAutodiff>>;

/// A plain decoder, and the fixed route over its blocks.
fn models(shape: &Shape) -> [(&'static str, Learnt); 2] {
    let baseline = shape.baseline();
    let baseline = baseline.init::<BenchAutodiff>(shape.vocabulary, 1, &Default::default());
    let fixed = shape.brian().wrap(baseline.clone(), 1);
    [
        ("baseline", Some(Model::trainable(baseline))),
        ("fixed_route", Some(Model::trainable(fixed))),
    ]
}

/// One step by the gradient of a loss.
fn learn(
    model: &mut Learnt,
    optimizer: &mut ParameterOptimizer<BenchAutodiff>,
    loss: impl FnOnce(&Model<BenchAutodiff>) -> Tensor<BenchAutodiff, 1>,
) {
    let before = model.take().expect("it is put back below");
    let computing = before.with_matmul_dtype(products());
    let gradients = GradientsParams::from_grads(loss(&computing).backward(), &before);
    drop(computing);
    let norm = gradient::norm(&before, &gradients).length;
    let gradients = gradient::clip(&before, gradients, norm, ADAMW.clip_norm());
    *model = Some(optimizer.step(Rate::at_peak(1e-4), before, gradients));
}

/// Whether the command line names the documents.
fn documents_alone() -> bool {
    std::env::args().any(|argument| argument == "documents")
}

fn train_step(criterion: &mut Criterion) {
    if documents_alone() {
        return;
    }
    let device = Default::default();
    let mut group = criterion.benchmark_group("train_step");
    for shape in Shape::all() {
        group.throughput(Throughput::Elements(shape.tokens()));
        let (rules, rows) = (
            Rules::sequential(),
            vec![SequenceInfo::default(); shape.batch],
        );
        for (name, mut model) in models(&shape) {
            let input = shape.input::<BenchAutodiff>(&device);
            let mut optimizer = ParameterOptimizer::new(&ADAMW);
            let mut step = || {
                learn(&mut model, &mut optimizer, |computing| {
                    let logits = computing.forward(input.clone(), &rules, &rows).0;
                    language::token_losses(logits, input.clone()).mean()
                });
            };
            let name = format!("{name}/{}", shape.name());
            let work = Work::Flops(TRAINING * shape.flops());
            measured::<BenchBackend>(&mut group, name, &device, work, &mut step);
        }
    }
    group.finish();
}

/// Windows that hold documents of these lengths, row by row; the rest of a row is padding.
fn windows(rows: &[Vec<usize>]) -> Batch {
    let Shape { batch, seq, .. } = DOCUMENTS;
    let tokens: Vec<u32> = (0..batch * seq)
        .map(|place| (place * 7919 % VOCABULARY) as u32)
        .collect();
    let mut host = HostBatch {
        inputs: tokens.clone(),
        targets: tokens,
        batch,
        seq,
        sequences: (0..batch as u64).collect(),
        ..HostBatch::default()
    };
    for lengths in rows {
        let filled: usize = lengths.iter().sum();
        host.valid.extend((0..seq).map(|place| place < filled));
        host.parts.extend(lengths);
        *host.parts.last_mut().expect("no row is empty") += seq - filled;
    }
    host.difficulty = vec![None; host.parts.len()];
    if host.parts.len() == batch {
        host.parts.clear();
    }
    Batch {
        host,
        source: 0,
        plan: StepPlan::idle(RoutePlan::sequential()),
    }
}

/// The same documents in windows of every kind.
fn kinds() -> [(&'static str, Batch); 3] {
    let Shape { batch, seq, .. } = DOCUMENTS;
    let key = random::key(1, "documents", 0);
    let length = |document| 20 + (random::bits(key, document) % 180) as usize;
    let lengths: Vec<usize> = (0..10 * batch as u64).map(length).collect();
    let packing = Packing::best_fit(lengths.iter().copied(), seq);
    let of_window = |window| {
        let documents = packing.pieces(window).iter();
        documents.map(|&piece| lengths[piece as usize]).collect()
    };
    let packed: Vec<Vec<usize>> = (0..batch as u64).map(of_window).collect();
    let separate: Vec<Vec<usize>> = lengths[..batch].iter().map(|&one| vec![one]).collect();
    [
        ("run_on", windows(&vec![vec![seq]; batch])),
        ("packed", windows(&packed)),
        ("separate", windows(&separate)),
    ]
}

/// Steps in turns, so that what else the machine does meets all kinds alike; medians.
fn documents(_: &mut Criterion) {
    let (device, rules) = (Default::default(), Rules::sequential());
    for (index, (name, _)) in models(&DOCUMENTS).into_iter().enumerate() {
        let mut kinds = kinds().map(|(kind, batch)| {
            let [(_, first), (_, second)] = models(&DOCUMENTS);
            let model = if index == 0 { first } else { second };
            let optimizer = ParameterOptimizer::<BenchAutodiff>::new(&ADAMW);
            (kind, batch, model, optimizer, Vec::new())
        });
        for round in 0..=ROUNDS {
            for (_, batch, model, optimizer, seconds) in &mut kinds {
                let started = Instant::now();
                in_place(|| {
                    learn(model, optimizer, |computing| {
                        let logits = computing.forward_batch(batch, &rules).0;
                        let targets = batch.target_tokens(&device);
                        let nats = language::token_losses(logits, targets) * batch.counted(&device);
                        nats.sum() / batch.targets() as f64
                    });
                    BenchBackend::sync(&device).expect("the device answers");
                });
                if round > 0 {
                    seconds.push(started.elapsed().as_secs_f64());
                }
            }
        }
        let speeds = kinds.map(|(kind, batch, _, _, mut seconds)| {
            seconds.sort_by(f64::total_cmp);
            (kind, batch.targets() as f64 / seconds[ROUNDS / 2])
        });
        let (_, first) = speeds[0];
        for (kind, speed) in speeds {
            let ratio = speed / first;
            println!(
                "documents/{name}/{kind}: {speed:.0} tokens of documents per second, {ratio:.3} of run_on"
            );
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = train_step, documents
}
criterion_main!(benches);
