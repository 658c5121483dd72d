//! Benchmark of BriLLM: training steps with exact and with touched-row AdamW, over some candidates or all; steps in graphs with
//! many edges that no walk touches; and decoding, token by token.
//!
//! The first two shapes are those of the published code's step, which was measured in PyTorch 2.15 on two cores at 99 and
//! 20 positions per second, and 1.6 and 5.6 ms per decoded token; the positions per second here are to be divided by them.
#![allow(missing_docs)]

use bench::{BenchAutodiff, BenchBackend, Work};
use brian::random;
use brillm::candidate::{Candidates, Competition, Group, Paths};
use brillm::compat;
use brillm::counts::PairCounts;
use brillm::generate::{Decoding, SignalState, strongest};
use brillm::graph::{BackOff, Graph};
use brillm::model::{BackOffRows, Initial};
use brillm::ops::gather::rows_of;
use brillm::prior::Weights;
use brillm::row_adamw::{AdamW, Mode};
use brillm::table::Storage;
use brillm::training::RowAdamW;
use brillm::{BriLlm, BriLlmConfig};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::sync::Arc;
use std::time::Instant;

const ADAMW: AdamW = AdamW {
    betas: [0.9, 0.999],
    epsilon: 1e-8,
    weight_decay: 0.0,
};
const BATCH: usize = 16;
const EDGES: usize = 30;

/// A graph of random counts, with walks over it.
struct World {
    counts: PairCounts,
    graph: Arc<Graph>,
    nodes: u32,
}

impl World {
    /// `share` of all pairs have an edge; in a graph of 1 all of them.
    fn new(nodes: usize, share: f64) -> Self {
        let key = random::key(7, "world", 0);
        let mut first = vec![0];
        let (mut targets, mut counts) = (Vec::new(), Vec::new());
        for source in 0..nodes {
            for target in 0..nodes {
                let place = (source * nodes + target) as u64;
                if random::uniform(key, place) < share {
                    targets.push(target as u32);
                    counts.push(1 + (random::bits(key, place) % 1000) as u32);
                }
            }
            first.push(targets.len() as u64);
        }
        let counts = PairCounts {
            first,
            targets,
            counts,
            tokens: vec![1; nodes],
        };
        let graph = Arc::new(counts.graph(1, BackOff::SharedRow));
        Self {
            counts,
            graph,
            nodes: nodes as u32,
        }
    }

    /// Uniformly random paths over existing edges, among the first `sources` nodes.
    fn batch(&self, seed: u64, sources: u32) -> (Vec<u32>, Vec<u32>) {
        let key = random::key(seed, "paths", 0);
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for row in 0..BATCH as u64 {
            let mut node = (random::bits(key, row << 32) % u64::from(sources)) as u32;
            for edge in 0..EDGES as u64 {
                let near: Vec<u32> = self
                    .graph
                    .targets(node)
                    .iter()
                    .copied()
                    .filter(|&target| target < sources)
                    .collect();
                let next = match near.is_empty() {
                    true => (node + 1) % sources,
                    false => {
                        near[(random::bits(key, row << 32 | edge) % near.len() as u64) as usize]
                    }
                };
                from.push(node);
                to.push(next);
                node = next;
            }
        }
        (from, to)
    }

    /// A batch as a step wants it, with who competes.
    fn prepared<'a>(
        &self,
        competition: &Competition,
        (sources, targets): &'a (Vec<u32>, Vec<u32>),
        valid: &'a [bool],
    ) -> (Paths<'a>, Vec<Group>) {
        let paths = Paths {
            sources,
            targets,
            valid,
            seq: EDGES,
        };
        let groups = competition.groups(&self.graph, &paths, &|_| 0.0);
        (paths, groups)
    }

    fn model(&self, d: usize) -> BriLlm {
        let config = BriLlmConfig {
            d_node: d,
            flow: compat::REFERENCE,
            initial: Initial::Uniform { half_range: 0.5 },
            back_off_rows: BackOffRows::Trained,
            storage: Storage::F32,
            decoding: Decoding::REFERENCE,
        };
        let uniform = |stream: &str, place: u64| random::uniform(random::key(1, stream, 0), place);
        let parameters = config.init(self.graph.nodes(), self.graph.rows(), &uniform);
        BriLlm {
            config,
            graph: self.graph.clone(),
            parameters,
        }
    }

    fn competition(&self, candidates: Candidates) -> Competition {
        let bias = compat::REFERENCE.bias;
        Competition::new(candidates, Weights::One, bias, Some(&self.counts))
    }
}

/// Steps over eight batches in turn; grouping the candidates is part of a step.
fn steps(
    criterion: &mut Criterion,
    name: &str,
    world: &World,
    candidates: Candidates,
    mode: Mode,
    sources: u32,
) {
    let mut model = world.model(32);
    let competition = world.competition(candidates);
    let batches: Vec<_> = (0..8).map(|seed| world.batch(seed, sources)).collect();
    let valid = vec![true; BATCH * EDGES];
    let mut optimizer = RowAdamW::new(&model, mode, ADAMW, None);
    let mut group = criterion.benchmark_group("signal_step");
    group.throughput(Throughput::Elements((BATCH * EDGES) as u64));
    let device = Default::default();
    let rows = batches.iter().map(|batch| {
        let (paths, groups) = world.prepared(&competition, batch, &valid);
        rows_of(&world.graph, &paths, &groups).len()
    });
    let rows: usize = rows.sum();
    let mut index = 0;
    let mut step = || {
        let batch = &batches[index % batches.len()];
        let (paths, groups) = world.prepared(&competition, batch, &valid);
        index += 1;
        match cfg!(any(feature = "cuda", feature = "vulkan")) {
            true => {
                optimizer.step_on::<BenchAutodiff>(&mut model, &paths, &groups, 1e-3, &device);
            }
            false => drop(optimizer.step(&mut model, &paths, &groups, 1e-3)),
        }
    };
    // The first use of a row of moments is a page fault.
    for _ in 0..4 * batches.len() {
        step();
    }
    let mut samples = Vec::new();
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|steps| {
            let clock = Instant::now();
            (0..steps).for_each(|_| step());
            samples.push(clock.elapsed().as_secs_f64() / steps as f64);
            clock.elapsed()
        });
    });
    samples.sort_by(f64::total_cmp);
    if let Some(&median) = samples.get(samples.len() / 2) {
        // A row's values and its two moments, read and written.
        let numbers = 6 * rows / batches.len() * model.config.row_len();
        Work::Bytes(4.0 * numbers as f64).report::<BenchBackend>(&device, median);
    }
    group.finish();
}

/// A graph of another size than the published ones: `NERVE_BENCH_GRAPH="v4000_13%/k400"`.
fn asked() -> Option<(usize, f64, usize)> {
    let name = std::env::var("NERVE_BENCH_GRAPH").ok()?;
    let read = || {
        let (nodes, rest) = name.strip_prefix('v')?.split_once('_')?;
        let (percent, n) = rest.split_once("%/k")?;
        let share = percent.parse::<f64>().ok()? / 100.0;
        Some((nodes.parse().ok()?, share, n.parse().ok()?))
    };
    let expected = "as in NERVE_BENCH_GRAPH=\"v4000_13%/k400\"";
    Some(read().unwrap_or_else(|| panic!("{name:?} is no graph: {expected}")))
}

fn training(criterion: &mut Criterion) {
    if let Some((nodes, share, n)) = asked() {
        let world = World::new(nodes, share);
        let candidates = Candidates::Frequent { n };
        for (name, mode) in [("exact", Mode::Exact), ("touched", Mode::Touched)] {
            steps(criterion, name, &world, candidates, mode, world.nodes);
        }
        return;
    }
    let (small, large) = (World::new(256, 1.0), World::new(1000, 0.2));
    let exact = Mode::Exact;
    steps(
        criterion,
        "v256_full/k100/exact",
        &small,
        Candidates::Frequent { n: 100 },
        exact,
        small.nodes,
    );
    steps(
        criterion,
        "v256_full/k100/touched",
        &small,
        Candidates::Frequent { n: 100 },
        Mode::Touched,
        small.nodes,
    );
    steps(
        criterion,
        "v256_full/all/exact",
        &small,
        Candidates::All,
        exact,
        small.nodes,
    );
    steps(
        criterion,
        "v1000_20%/k400/exact",
        &large,
        Candidates::Frequent { n: 400 },
        exact,
        large.nodes,
    );
    steps(
        criterion,
        "v1000_20%/k400/touched",
        &large,
        Candidates::Frequent { n: 400 },
        Mode::Touched,
        large.nodes,
    );
    steps(
        criterion,
        "v1000_20%/all/exact",
        &large,
        Candidates::All,
        exact,
        large.nodes,
    );
}

/// The same walks among the first 200 nodes of a graph, and of one with ten times as many edges.
fn untouched(criterion: &mut Criterion) {
    for edges in [80_000, 800_000] {
        let World { counts, .. } = World::new(200, 0.5);
        let world = World {
            counts,
            graph: grown(edges),
            nodes: 200,
        };
        let name = format!("untouched/{}_edges", world.graph.edges());
        steps(criterion, &name, &world, Candidates::All, Mode::Exact, 200);
    }
}

/// A graph of 200 nodes that walks stay in, with as many more nodes and edges as it takes; nothing leads there.
fn grown(edges: usize) -> Arc<Graph> {
    let small = World::new(200, 0.5).graph;
    let more = edges.saturating_sub(small.edges());
    let per_node = 500;
    let nodes = 200 + more.div_ceil(per_node).max(per_node);
    let own = |source: u32| small.targets(source).to_vec();
    let far = |index: usize| -> Vec<u32> {
        let n = more.saturating_sub(index * per_node).min(per_node);
        (0..n as u32).map(|target| 200 + target).collect()
    };
    let rows = (0..nodes).map(|node| {
        if node < 200 {
            own(node as u32)
        } else {
            far(node - 200)
        }
    });
    Arc::new(Graph::new(nodes, rows))
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("signal_decode");
    group.throughput(Throughput::Elements(1));
    for (name, nodes, share) in [("v256_full", 256, 1.0), ("v1000_20%", 1000, 0.2)] {
        let world = World::new(nodes, share);
        let model = world.model(32);
        let competition = world.competition(Candidates::All);
        let mut state = SignalState::start(&model, 3);
        let mut next = || {
            let candidates = state.candidates(&model, &competition, Decoding::REFERENCE);
            let next = strongest(&candidates).expect("somebody competes").target;
            state.advance(&model, Decoding::REFERENCE, next);
        };
        group.bench_function(name, |bencher| {
            // As `nerve sample` does it: many tokens inside the pool, whose threads stay awake.
            bencher.iter_custom(|tokens| {
                let clock = Instant::now();
                rayon::scope(|_| (0..tokens).for_each(|_| next()));
                clock.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = training, untouched, decoding
}
criterion_main!(benches);
