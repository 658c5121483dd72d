//! Tests of the GPU kernels: outputs and gradients of norm, gate, addition, attention, projection, loss and embedding against
//! their definitions on ndarray. Where no device starts, nothing is tested and it says so.
//!
//! `cargo test --release -p brian --features ndarray,wgpu --lib gpu -- --nocapture`

use crate::block::causal::{Rope, Rotary};
use crate::block::transformer::TransformerBlock;
use crate::block::{BlockSizes, Heads, transformer};
use crate::loss::language;
use crate::ops::embedding::embed;
use crate::ops::gpu;
use crate::ops::residual_add::residual_add;
use crate::ops::rms_norm::rms_norm;
use crate::ops::swiglu::gated;
use burn::backend::Autodiff;
use burn::module::Param;
use burn::nn::EmbeddingConfig;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_ndarray::NdArray;
use std::panic;

#[cfg(feature = "cuda")]
type Gpu = burn::backend::Cuda;
#[cfg(not(feature = "cuda"))]
type Gpu = burn::backend::Wgpu;

/// Something that dispatches by itself: kernels on a GPU, the definition elsewhere.
trait Case {
    /// Outputs and gradients. `products` are run in a type.
    fn run<B: AutodiffBackend>(&self, products: DType, device: &B::Device) -> Vec<Tensor<B, 1>>;
}

fn flat<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().to_vec().unwrap()
}

/// Numbers that no two places share.
fn values<B: AutodiffBackend, const D: usize>(
    dims: [usize; D],
    seed: usize,
    device: &B::Device,
) -> Tensor<B, D> {
    let value = |index: usize| ((index * 37 + seed * 101) as f32 * 0.61).sin() * 1.5;
    let values: Vec<f32> = (0..dims.iter().product()).map(value).collect();
    Tensor::from_data(TensorData::new(values, dims), device).require_grad()
}

fn tokens<B: Backend>(n: usize, below: usize, device: &B::Device) -> Tensor<B, 1, Int> {
    let values: Vec<i64> = (0..n)
        .map(|index| (index * index * 7 % below) as i64)
        .collect();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// An output, and the gradients of inputs behind a sum with weights that differ.
fn with_gradients<B: AutodiffBackend, const D: usize>(
    output: Tensor<B, D>,
    gradients: &mut [&mut dyn FnMut(&B::Gradients) -> Tensor<B, 1>],
) -> Vec<Tensor<B, 1>> {
    let weights = values(output.dims(), 99, &output.device()).set_require_grad(false);
    let output = output.cast(DType::F32);
    let backward = (output.clone() * weights).sum().backward();
    let n = output.shape().num_elements();
    let mut all = vec![output.reshape([n])];
    all.extend(gradients.iter_mut().map(|gradient| gradient(&backward)));
    all
}

fn gradient<B: AutodiffBackend, const D: usize>(
    of: &Tensor<B, D>,
    gradients: &B::Gradients,
) -> Tensor<B, 1> {
    let found = of.grad(gradients).expect("a gradient");
    let n = found.shape().num_elements();
    Tensor::from_inner(found.reshape([n]))
}

/// The largest difference from ndarray, against its largest number; `None` without a device.
fn difference(case: &(impl Case + Sync), products: DType) -> Option<f32> {
    let found = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        Tensor::<Gpu, 1>::ones([1], &Default::default()).into_data()
    }));
    if found.is_err() {
        println!("not run: no device");
        return None;
    }
    let found = case.run::<Autodiff<Gpu>>(products, &Default::default());
    let expected = case.run::<Autodiff<NdArray>>(DType::F32, &Default::default());
    assert_eq!(found.len(), expected.len());
    let pairs = found.into_iter().zip(expected);
    let differences = pairs.map(|(found, expected)| {
        let (found, expected) = (flat(found), flat(expected));
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().all(|value| value.is_finite()));
        let largest = expected.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
        let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        apart.fold(0.0, f32::max) / largest
    });
    Some(differences.fold(0.0, f32::max))
}

/// In single precision, and on CUDA in half precision too.
fn hold(name: &str, case: &(impl Case + Sync), band: f32) {
    let mut types = vec![(DType::F32, band)];
    if cfg!(feature = "cuda") {
        types.push((DType::BF16, 2e-2));
    }
    for (products, band) in types {
        if let Some(difference) = difference(case, products) {
            println!("{name}, {products:?}: {difference:.1e}");
            assert!(difference < band, "{name}, {products:?}: {difference:e}");
        }
    }
}

/// Sums in another order.
const REORDERED: f32 = 1e-5;
/// What tensor cores make of f32: they multiply 10 bits.
const PRODUCTS: f32 = if cfg!(feature = "cuda") { 5e-3 } else { 2e-5 };

struct Norm(usize, usize);

impl Case for Norm {
    fn run<B: AutodiffBackend>(&self, products: DType, device: &B::Device) -> Vec<Tensor<B, 1>> {
        let Self(n, width) = *self;
        let x: Tensor<B, 2> = values([n, width], 1, device);
        let mut norm = transformer::norm(&sizes(width, 1), device);
        norm.gamma = Param::from_tensor(values([width], 7, device));
        if B::name(device) != "autodiff<ndarray>" {
            assert!(gpu::rms_norm(&x, &norm, products).is_some());
        }
        let gain = norm.gamma.val();
        with_gradients(
            rms_norm(&x, &norm, products),
            &mut [&mut |found| gradient(&x, found), &mut |found| {
                gradient(&gain, found)
            }],
        )
    }
}

#[test]
fn norms() {
    for (n, width) in [(1, 2), (3, 24), (70, 300), (40000, 8)] {
        hold(
            &format!("norm of {n} x {width}"),
            &Norm(n, width),
            REORDERED,
        );
    }
}

struct Gated(usize, usize);

impl Case for Gated {
    fn run<B: AutodiffBackend>(&self, products: DType, device: &B::Device) -> Vec<Tensor<B, 1>> {
        let dims = [self.0, self.1];
        let [a, b]: [Tensor<B, 2>; 2] = [1, 2].map(|seed| values(dims, seed, device));
        let output = gated(a.clone().cast(products), b.clone().cast(products));
        with_gradients(
            output,
            &mut [&mut |found| gradient(&a, found), &mut |found| {
                gradient(&b, found)
            }],
        )
    }
}

#[test]
fn gates() {
    hold("gate", &Gated(70, 33), REORDERED);
}

struct Plus;

impl Case for Plus {
    fn run<B: AutodiffBackend>(&self, products: DType, device: &B::Device) -> Vec<Tensor<B, 1>> {
        let [a, b]: [Tensor<B, 2>; 2] = [1, 2].map(|seed| values([70, 33], seed, device));
        let output = residual_add(a.clone(), b.clone().cast(products));
        with_gradients(
            output,
            &mut [&mut |found| gradient(&a, found), &mut |found| {
                gradient(&b, found)
            }],
        )
    }
}

#[test]
fn additions() {
    hold("addition", &Plus, REORDERED);
}

const ROPE: Rope = Rope {
    base: 1e4,
    scaling: None,
};

fn of(n_heads: usize, d_head: usize) -> Heads {
    Heads {
        n_heads,
        n_kv_heads: n_heads,
        d_head,
    }
}

fn sizes(d_model: usize, n_heads: usize) -> BlockSizes {
    BlockSizes {
        d_model,
        heads: of(n_heads, d_model / n_heads),
        attention_bias: None,
        query_key_norm: false,
        d_ff: d_model,
        norm_epsilon: 1e-6,
        residual_factor: None,
    }
}

/// Attention among whole sequences.
struct Attention {
    batch: usize,
    seq: usize,
    n_heads: usize,
    d_head: usize,
}

impl Case for Attention {
    fn run<B: AutodiffBackend>(&self, products: DType, device: &B::Device) -> Vec<Tensor<B, 1>> {
        let Self {
            batch,
            seq,
            n_heads,
            d_head,
        } = *self;
        let d_model = n_heads * d_head;
        let block = TransformerBlock::<B>::new(&sizes(d_model, n_heads), device);
        let packed: Tensor<B, 2> = values([batch * seq, 3 * d_model], 1, device);
        // As if queries were scaled: scores of a few units.
        let scaled = packed.clone() * (d_head as f32).powf(-0.25);
        let causal = Rotary::new(seq, d_head, ROPE, device).causal(seq);
        let scaled = scaled.cast(products);
        if B::name(device) != "autodiff<ndarray>" {
            assert!(gpu::causal_attention(&scaled, n_heads, batch).is_some());
        }
        let found = block.attention.find_all(scaled, batch, &causal);
        with_gradients(found, &mut [&mut |found| gradient(&packed, found)])
    }
}

#[test]
fn attention() {
    let shapes = [
        (1, 1, 1, 2),
        (2, 7, 3, 8),
        (2, 33, 3, 10),
        (1, 64, 2, 16),
        (2, 128, 3, 64),
        (1, 192, 1, 128),
        (2, 100, 2, 32),
    ];
    for (batch, seq, n_heads, d_head) in shapes {
        let case = Attention {
            batch,
            seq,
            n_heads,
            d_head,
        };
        let name = format!("attention b{batch} s{seq} h{n_heads} d{d_head}");
        hold(&name, &case, PRODUCTS);
    }
}

/// Queries, keys and values of one sequence more than there are positions: positions come again.
struct Projected;

impl Case for Projected {
    fn run<B: AutodiffBackend>(&self, products: DType, device: &B::Device) -> Vec<Tensor<B, 1>> {
        let (seq, n_heads, d_head) = (7, 3, 10);
        let d_model = n_heads * d_head;
        let mut block = TransformerBlock::<B>::new(&sizes(d_model, n_heads), device);
        let map: Tensor<B, 2> = values([d_model, 3 * d_model], 5, device);
        let weight = &mut block.attention.query_key_value.weight;
        let (id, _, mapper) = weight.clone().consume();
        *weight = Param::from_mapped_value(id, map.clone().cast(products), mapper);
        let x: Tensor<B, 2> = values([2 * seq, d_model], 1, device);
        let causal = Rotary::new(seq + 3, d_head, ROPE, device).causal(seq);
        let attention = &block.attention;
        let packed = attention.project_rows(&x, &block.attention_norm, &causal.all_angles());
        with_gradients(
            packed,
            &mut [&mut |found| gradient(&x, found), &mut |found| {
                gradient(&map, found)
            }],
        )
    }
}

#[test]
fn projections() {
    hold("projection", &Projected, PRODUCTS);
}

struct Nats(usize, usize);

impl Case for Nats {
    fn run<B: AutodiffBackend>(&self, _: DType, device: &B::Device) -> Vec<Tensor<B, 1>> {
        let Self(n, vocabulary) = *self;
        let logits: Tensor<B, 3> = values([1, n, vocabulary], 3, device) * 8.0;
        let targets = tokens::<B>(n, vocabulary, device).reshape([1, n]);
        let leaf = Tensor::from_inner(logits.inner()).require_grad();
        let nats = language::token_losses(leaf.clone(), targets);
        with_gradients(nats, &mut [&mut |found| gradient(&leaf, found)])
    }
}

#[test]
fn losses() {
    for (n, vocabulary) in [(1, 1), (5, 3), (33, 1000)] {
        hold(
            &format!("nats of {n} in {vocabulary}"),
            &Nats(n, vocabulary),
            REORDERED,
        );
    }
}

struct Embedded(usize, usize, usize);

impl Case for Embedded {
    fn run<B: AutodiffBackend>(&self, _: DType, device: &B::Device) -> Vec<Tensor<B, 1>> {
        let Self(n, vocabulary, width) = *self;
        let mut embedding = EmbeddingConfig::new(vocabulary, width).init::<B>(device);
        embedding.weight = Param::from_tensor(values([vocabulary, width], 3, device));
        let table = embedding.weight.val();
        let rows = embed(
            &embedding,
            tokens::<B>(n, vocabulary, device).reshape([1, n]),
        );
        with_gradients(rows, &mut [&mut |found| gradient(&table, found)])
    }
}

#[test]
fn embeddings() {
    for (n, vocabulary, width) in [(1, 1, 1), (70, 11, 300), (3000, 50, 33)] {
        let name = format!("embedding of {n} in {vocabulary} x {width}");
        hold(&name, &Embedded(n, vocabulary, width), REORDERED);
    }
}
