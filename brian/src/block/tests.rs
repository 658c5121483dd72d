//! Tests of blocks, cache, masks, rotary angles and row copies: outputs against the equations in double precision, gradients
//! against central differences, with the host's fused operations and composed of tensor operations.

use super::cache::{Cache, execute};
use super::causal::{Causal, Rope, RopeScaling, Rotary, beside};
use super::matrix;
use super::routed::RoutedBlock;
use super::transformer::TransformerBlock;
use super::visits::{VisitScale, Visits, VisitsConfig};
use super::{AttentionBias, BlockSizes, Heads};
use crate::ops::attention::Among;
use crate::ops::attention_spans::{AttentionSpans, MASKED};
pub(crate) use crate::ops::composed::here::composed;
use crate::ops::gather::{self, Parts, RowPlace};
use crate::ops::groups::Group;
use crate::ops::linear::{add_linear, linear};
use crate::ops::recompute::Recompute;
use crate::ops::reshape::per_row;
use crate::ops::reuse::Packed;
use crate::ops::swiglu::gated;
pub(crate) use crate::ops::tests::{Host, Learning as Passes};
use crate::parameter::{self, Path};
use crate::precision::with_matmul_dtype;
use crate::random;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, Tensor, TensorData};
use ndarray::{Array, Array2, ArrayBase, Axis, Data, Dimension, concatenate};
use std::collections::BTreeMap;
use std::ops::Range;

/// Parameters and inputs by name; what has more than two dimensions as rows of the last one.
pub(crate) type Values = BTreeMap<String, Array2<f64>>;

/// An epsilon as large as a mean square, so that nobody can do without it.
pub(crate) const SIZES: BlockSizes = BlockSizes {
    d_model: 8,
    heads: Heads {
        n_heads: 2,
        n_kv_heads: 2,
        d_head: 4,
    },
    attention_bias: None,
    query_key_norm: false,
    d_ff: 6,
    norm_epsilon: 0.3,
    residual_factor: None,
};

/// Those of other blocks: shared keys and values, heads of a width of their own, biases, norms of heads, scaled residuals.
fn variants() -> [BlockSizes; 6] {
    let heads = |n_heads, n_kv_heads, d_head| Heads {
        n_heads,
        n_kv_heads,
        d_head,
    };
    let with = |heads, attention_bias, query_key_norm| BlockSizes {
        heads,
        attention_bias,
        query_key_norm,
        ..SIZES
    };
    [
        SIZES,
        with(heads(4, 2, 4), None, true),
        with(heads(3, 1, 8), Some(AttentionBias::QueryKeyValue), false),
        with(heads(2, 1, 2), Some(AttentionBias::All), true),
        BlockSizes {
            residual_factor: Some(0.3),
            ..SIZES
        },
        BlockSizes {
            residual_factor: Some(1.7),
            ..with(heads(2, 1, 2), Some(AttentionBias::All), true)
        },
    ]
}

/// So small that a few positions turn every pair by a visible angle.
pub(crate) const BASE: f64 = 50.0;

/// Rotary angles of a base, without a scaling.
pub(crate) fn rope(base: f64) -> Rope {
    Rope {
        base,
        scaling: None,
    }
}

/// Single precision behind some products, against the largest number of the same tensor.
pub(crate) const SINGLE: f64 = 2e-4;

/// Blocks all of whose visits are alike.
pub(crate) fn alike<B: Backend>(device: &B::Device) -> Visits<B> {
    Visits::new(None, [1, 1], device)
}

/// Standard normal numbers of a name, that single precision holds.
pub(crate) fn numbers(name: &str, n: usize) -> Vec<f32> {
    let key = random::key(11, name, 0);
    let number = |place| random::normal(key, place) as f32;
    (0..n as u64).map(number).collect()
}

pub(crate) fn tensor<B: Backend, const D: usize>(name: &str, dims: [usize; D]) -> Tensor<B, D> {
    let numbers = numbers(name, dims.iter().product());
    Tensor::from_data(TensorData::new(numbers, dims), &Default::default()).require_grad()
}

pub(crate) fn rows_of(data: &TensorData) -> Array2<f64> {
    let width = data.shape.as_slice().last().copied().unwrap_or(1);
    let numbers: Vec<f64> = data.iter().collect();
    Array2::from_shape_vec([numbers.len() / width, width], numbers).expect("whole rows")
}

pub(crate) fn found<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> Array2<f64> {
    rows_of(&tensor.clone().into_data())
}

/// A module whose parameters all matter: normal numbers, of `std` where that is not 0.4, and gains around 1.
pub(crate) fn loud<B: Backend, M: Module<B>>(module: M, std: impl Fn(&str) -> f32) -> M {
    parameter::assign(module, |path, shape| {
        let (first, std) = match path.ends_with("gamma") {
            true => (1.0, 0.3),
            false => (0.0, std(path)),
        };
        let numbers = numbers(path, shape.iter().product()).into_iter();
        numbers.map(|number| first + std * number).collect()
    })
}

/// The parameters of a module, their names behind a prefix.
pub(crate) fn values_of<B: Backend, M: Module<B>>(prefix: &str, module: &M) -> Values {
    let values = parameter::collect(module).into_iter();
    values
        .map(|(path, data)| (format!("{prefix}{path}"), rows_of(&data)))
        .collect()
}

/// The gradients of a module's parameters, named the same; nothing for those that none reaches.
pub(crate) fn gradients_of<B: AutodiffBackend, M: Module<B>>(
    prefix: &str,
    module: &M,
    gradients: &B::Gradients,
) -> Values {
    struct Collect<'a, B: AutodiffBackend>(Path, &'a B::Gradients, Values);

    impl<B: AutodiffBackend> ModuleVisitor<B> for Collect<'_, B> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }

        fn exit_module(&mut self, _name: &str, container: &str) {
            self.0.exit(container);
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            if let Some(gradient) = param.val().grad(self.1) {
                self.2.insert(self.0.join(), rows_of(&gradient.into_data()));
            }
        }
    }

    let mut collect = Collect::<B>(Path::default(), gradients, Values::new());
    module.visit(&mut collect);
    let found = collect.2.into_iter();
    found
        .map(|(path, rows)| (format!("{prefix}{path}"), rows))
        .collect()
}

/// A sum in which every number of an output has a weight of its own.
pub(crate) fn weighed<B: Backend, const D: usize>(name: &str, of: Tensor<B, D>) -> Tensor<B, 1> {
    let dims = of.dims();
    let weights = numbers(&format!("weights of {name}"), dims.iter().product());
    (of * Tensor::from_data(TensorData::new(weights, dims), &Default::default())).sum()
}

/// The same sum.
pub(crate) fn weighed_rows(name: &str, of: &Array2<f64>) -> f64 {
    let weights = numbers(&format!("weights of {name}"), of.len());
    let pairs = weights.into_iter().zip(of);
    pairs.map(|(weight, value)| f64::from(weight) * value).sum()
}

/// Some rows (`axis` 0) or columns (1), or numbers of a row (0).
pub(crate) fn cut<D: Dimension>(
    from: &ArrayBase<impl Data<Elem = f64>, D>,
    axis: usize,
    which: Range<usize>,
) -> Array<f64, D> {
    from.slice_axis(Axis(axis), which.into()).to_owned()
}

fn largest(of: &Array2<f64>) -> f64 {
    of.iter().fold(0.0, |a: f64, b| a.max(b.abs()))
}

/// Holds numbers equal, against the largest one expected.
pub(crate) fn assert_near(what: &str, found: &Array2<f64>, expected: &Array2<f64>, tolerance: f64) {
    assert_eq!(found.dim(), expected.dim(), "{what}");
    let difference = largest(&(found - expected)) / largest(expected).max(1e-3);
    assert!(difference < tolerance, "{what} is off by {difference:e}");
}

/// Holds gradients to central differences of a sum, of every tensor at some places anywhere.
pub(crate) fn assert_gradients(
    what: &str,
    found: &Values,
    at: &Values,
    tolerance: f64,
    sum: impl Fn(&Values) -> f64,
) {
    /// The error of a difference is of the order of its square, rounding of double precision over it.
    const STEP: f64 = 1e-5;
    const PLACES: u64 = 8;
    let mut at = at.clone();
    for (name, found) in found {
        let key = random::key(5, name, 0);
        let scale = largest(found).max(1e-3);
        for draw in 0..PLACES.min(found.len() as u64) {
            let index = (random::bits(key, draw) % found.len() as u64) as usize;
            let place = [index / found.ncols(), index % found.ncols()];
            let mut moved = |by: f64| {
                let before = at[name][place];
                at.get_mut(name).expect("a name")[place] = before + by;
                let sum = sum(&at);
                at.get_mut(name).expect("a name")[place] = before;
                sum
            };
            let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let difference = (found[place] - expected).abs() / scale;
            assert!(
                difference < tolerance,
                "{what}: gradient of {name} at {place:?} is {}, not {expected}",
                found[place]
            );
        }
    }
}

/// `x / sqrt(mean(x²) + ε) ⊙ gain`
pub(crate) fn normed(x: &Array2<f64>, gain: &Array2<f64>, epsilon: f64) -> Array2<f64> {
    let squares = x.mapv(|x| x * x).mean_axis(Axis(1)).expect("a width");
    let lengths = squares.mapv(|square| (square + epsilon).sqrt());
    x / &lengths.insert_axis(Axis(1)) * gain
}

/// Head by head `[x1 cos − x2 sin, x2 cos + x1 sin]`, the first row at a position.
fn turned(x: &Array2<f64>, first: usize, d_head: usize) -> Array2<f64> {
    let half = d_head / 2;
    Array2::from_shape_fn(x.dim(), |(row, column)| {
        let place = column % d_head;
        let pair = place % half;
        let angle = (first + row) as f64 * BASE.powf(-2.0 * pair as f64 / d_head as f64);
        let start = column - place + pair;
        let [one, two] = [x[[row, start]], x[[row, start + half]]];
        match place < half {
            true => one * angle.cos() - two * angle.sin(),
            false => two * angle.cos() + one * angle.sin(),
        }
    })
}

/// Queries, scaled and turned, keys, turned, and values of rows behind their norm.
pub(crate) fn projected(
    values: &Values,
    block: &str,
    x: &Array2<f64>,
    first: usize,
) -> [Array2<f64>; 3] {
    projected_by(values, block, x, first, SIZES.heads)
}

/// The same with heads of any number and width, biases and norms of heads where there are some.
fn projected_by(
    values: &Values,
    block: &str,
    x: &Array2<f64>,
    first: usize,
    heads: Heads,
) -> [Array2<f64>; 3] {
    let of = |name: &str| values.get(&format!("{block}attention{name}"));
    let map = of(".query_key_value.weight").expect("a map");
    let gain = of("_norm.gamma").expect("a gain");
    let mut packed = normed(x, gain, SIZES.norm_epsilon).dot(map);
    if let Some(bias) = of(".query_key_value.bias") {
        packed += bias;
    }
    let (d_queries, d_keys) = (heads.d_queries(), heads.d_keys());
    let part = |start: usize, width: usize| cut(&packed, 1, start..start + width);
    let by_head = |part: Array2<f64>, name: &str| {
        let Some(gain) = of(name) else { return part };
        let dim = part.dim();
        let rows = part.into_shape_with_order([dim.0 * dim.1 / heads.d_head, heads.d_head]);
        let rows = normed(&rows.expect("heads"), gain, SIZES.norm_epsilon);
        rows.into_shape_with_order(dim).expect("rows")
    };
    let queries = by_head(part(0, d_queries), ".query_norm.gamma");
    let keys = by_head(part(d_queries, d_keys), ".key_norm.gamma");
    let scale = (heads.d_head as f64).sqrt();
    [
        turned(&queries, first, heads.d_head) / scale,
        turned(&keys, first, heads.d_head),
        part(d_queries + d_keys, d_keys),
    ]
}

/// What each query finds, head by head; `sees` gives what is added to a score, or nothing where a key is hidden.
pub(crate) fn attended(
    [queries, keys, of_values]: [&Array2<f64>; 3],
    n_heads: usize,
    sees: impl Fn(usize, usize) -> Option<f64>,
) -> Array2<f64> {
    let width = queries.ncols() / n_heads;
    let n_kv_heads = keys.ncols() / width;
    let mut out = Array2::zeros(queries.dim());
    for query in 0..queries.nrows() {
        for head in 0..n_heads {
            let own = head * width..(head + 1) * width;
            let of_query = cut(&queries.row(query), 0, own.clone());
            let shared = head * n_kv_heads / n_heads;
            let columns = shared * width..(shared + 1) * width;
            let seen = (0..keys.nrows()).filter_map(|key| Some((key, sees(query, key)?)));
            let scores: Vec<(usize, f64)> = seen
                .map(|(key, bias)| {
                    (
                        key,
                        of_query.dot(&cut(&keys.row(key), 0, columns.clone())) + bias,
                    )
                })
                .collect();
            let shares = shares(&scores);
            for (key, share) in shares {
                let value = cut(&of_values.row(key), 0, columns.clone());
                let mut row = out.row_mut(query);
                row.slice_axis_mut(Axis(0), own.clone().into())
                    .scaled_add(share, &value);
            }
        }
    }
    out
}

/// Scores, each with what it belongs to, to probabilities.
pub(crate) fn shares<T: Copy>(scores: &[(T, f64)]) -> Vec<(T, f64)> {
    let peak = scores
        .iter()
        .fold(f64::NEG_INFINITY, |peak, score| peak.max(score.1));
    let whole: f64 = scores.iter().map(|score| (score.1 - peak).exp()).sum();
    let share = |&(of, score): &(T, f64)| (of, (score - peak).exp() / whole);
    scores.iter().map(share).collect()
}

pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A block behind its attention.
pub(crate) fn ended(
    values: &Values,
    block: &str,
    x: &Array2<f64>,
    found: &Array2<f64>,
) -> Array2<f64> {
    ended_by(values, block, x, found, 1.0)
}

/// The same with what it adds to the stream times a factor.
fn ended_by(
    values: &Values,
    block: &str,
    x: &Array2<f64>,
    found: &Array2<f64>,
    factor: f64,
) -> Array2<f64> {
    let factors = Array2::from_elem([1, SIZES.d_model], factor);
    ended_by_each(values, block, x, found, &factors)
}

/// The same with a factor of every number, `[1, d_model]`.
fn ended_by_each(
    values: &Values,
    block: &str,
    x: &Array2<f64>,
    found: &Array2<f64>,
    factor: &Array2<f64>,
) -> Array2<f64> {
    let map = |name: &str| &values[&format!("{block}{name}")];
    let mut of_attention = found.dot(map("attention.output.weight"));
    if let Some(bias) = values.get(&format!("{block}attention.output.bias")) {
        of_attention += bias;
    }
    let x = x + of_attention * factor;
    let n = normed(&x, map("feed_forward_norm.gamma"), SIZES.norm_epsilon);
    let gate = n.dot(map("feed_forward.gate.weight"));
    let hidden = gate.mapv(|x| x * sigmoid(x)) * n.dot(map("feed_forward.up.weight"));
    x + hidden.dot(map("feed_forward.down.weight")) * factor
}

/// A block on one sequence.
fn executed(values: &Values, block: &str, x: &Array2<f64>, sizes: &BlockSizes) -> Array2<f64> {
    let heads = sizes.heads;
    let [queries, keys, of_values] = projected_by(values, block, x, 0, heads);
    let causal = |query: usize, key: usize| (key <= query).then_some(0.0);
    let found = attended([&queries, &keys, &of_values], heads.n_heads, causal);
    let factor = sizes.residual_factor.unwrap_or(1.0);
    ended_by(values, block, x, &found, factor)
}

/// One sequence after another.
pub(crate) fn each_sequence(
    x: &Array2<f64>,
    seq: usize,
    run: impl Fn(usize, &Array2<f64>) -> Array2<f64>,
) -> Array2<f64> {
    let sequences = x.axis_chunks_iter(Axis(0), seq).enumerate();
    let outputs: Vec<_> = sequences
        .map(|(index, x)| run(index, &x.to_owned()))
        .collect();
    let views: Vec<_> = outputs.iter().map(|output| output.view()).collect();
    concatenate(Axis(0), &views).expect("one width")
}

pub(crate) const BATCH: usize = 2;
pub(crate) const SEQ: usize = 5;

pub(crate) fn rotary<B: Backend>() -> Rotary<B> {
    rotary_of(SIZES.heads)
}

fn rotary_of<B: Backend>(heads: Heads) -> Rotary<B> {
    Rotary::new(16, heads.d_head, rope(BASE), &Default::default())
}

fn block_of<B: Backend>(sizes: &BlockSizes, of_attention: f32) -> TransformerBlock<B> {
    let fresh = TransformerBlock::new(sizes, &Default::default());
    loud(fresh, |path| {
        match path.ends_with("query_key_value.weight") {
            true => of_attention,
            false => 0.4,
        }
    })
}

/// By whole sequences, also run again for the gradient, and by queries among given keys and values.
fn assert_block<B: AutodiffBackend>(backend: &str) {
    // Scores around 1, and so far apart that one key gets nearly all.
    let scores = [(0.6, SINGLE), (5.0, 10.0 * SINGLE)];
    let cases = variants().map(|sizes| scores.map(|(size, tolerance)| (sizes, size, tolerance)));
    for (sizes, of_attention, tolerance) in cases.concat() {
        let (block, heads) = (block_of::<B>(&sizes, of_attention), sizes.heads);
        let x: Tensor<B, 3> = tensor("x", [BATCH, SEQ, SIZES.d_model]);
        let mut at = values_of("", &block);
        at.insert("x".to_string(), found(&x));
        let expected =
            |at: &Values| each_sequence(&at["x"], SEQ, |_, x| executed(at, "", x, &sizes));
        let causal = rotary_of(heads).causal(SEQ);
        let whole = block.forward(x.clone(), &causal);
        let again = || block.forward(x.clone(), &causal);
        let again = Recompute::block(Some(Recompute::Blocks), again);
        let (queries, own) = block.project(x.clone(), &causal);
        let among = block.finish(x.clone(), queries, own, causal.mask(), None);
        for (way, output) in [("whole", whole), ("again", again), ("among", among)] {
            let factor = sizes.residual_factor;
            let what = format!("{backend}, {way}, {of_attention}, {heads:?}, {factor:?}");
            assert_near(&what, &found(&output), &expected(&at), tolerance);
            let gradients = weighed("output", output).backward();
            let mut of = gradients_of("", &block, &gradients);
            of.insert(
                "x".to_string(),
                rows_of(&x.grad(&gradients).expect("one").into_data()),
            );
            assert_eq!(of.len(), at.len(), "{what}: something has no gradient");
            assert_gradients(&what, &of, &at, tolerance, |at| {
                weighed_rows("output", &expected(at))
            });
        }
    }
}

#[test]
fn a_block_is_its_equations_and_so_is_its_gradient_by_passes() {
    assert_block::<Passes>("passes");
}

#[test]
fn a_block_is_its_equations_and_so_is_its_gradient_by_tensor_operations() {
    composed(|| assert_block::<Passes>("tensor operations"));
}

/// Some tokens at a time.
#[test]
fn what_a_cache_keeps_is_what_a_whole_sequence_has() {
    fn assert_kept<B: Backend>() {
        variants().iter().for_each(assert_kept_by::<B>);
    }
    fn assert_kept_by<B: Backend>(sizes: &BlockSizes) {
        let block: TransformerBlock<B> = block_of(sizes, 0.6);
        let x: Tensor<B, 3> = tensor("x", [BATCH, SEQ, SIZES.d_model]);
        let expected = each_sequence(&found(&x), SEQ, |_, x| {
            executed(&values_of("", &block), "", x, sizes)
        });
        let mut caches = vec![Cache::default(); BATCH];
        assert!(caches.iter().all(|cache| cache.n_tokens() == 0));
        for (first, n_new) in [(0, 1), (1, 3), (4, 1)] {
            let end = first + n_new;
            let new = per_row(x.clone().slice_dim(1, first..end));
            let places = (0..BATCH).flat_map(|_| first..end);
            let angles = rotary_of(sizes.heads).angles(places.collect());
            let output = execute(
                &block,
                new,
                &angles,
                &[n_new; BATCH],
                &mut caches,
                &Packed::default(),
            );
            assert!(caches.iter().all(|cache| cache.n_tokens() == end));
            let rows = (0..BATCH).flat_map(|row| row * SEQ + first..row * SEQ + end);
            let rows: Vec<usize> = rows.collect();
            let expected = expected.select(Axis(0), &rows);
            assert_near("kept", &found(&output), &expected, SINGLE);
        }
    }
    assert_kept::<Host>();
    composed(assert_kept::<Host>);
}

/// Tokens apart: queries of some, keys and values of others, that lie in two tensors.
#[test]
fn tokens_apart_find_what_they_find_in_their_sequence() {
    fn assert_found<B: Backend>() {
        variants().iter().for_each(assert_found_by::<B>);
    }
    fn assert_found_by<B: Backend>(sizes: &BlockSizes) {
        let block: TransformerBlock<B> = block_of(sizes, 0.6);
        let x: Tensor<B, 2> = tensor("x", [2 * SEQ, SIZES.d_model]);
        let values = values_of("", &block);
        let causal = rotary_of(sizes.heads).causal(SEQ);
        let maps = block.attention.maps();
        // The first sequence whole, of the second three tokens; its last one and its first one ask.
        let (places, asking) = ([0, 1, 2, 3, 4, 0, 1, 2], [1, 4, 7]);
        let kept = x.clone().slice_dim(0, 0..8);
        let made = |rows: Range<usize>| {
            let rows_of = kept.clone().slice_dim(0, rows.clone());
            let groups = Group::only((&block.attention_norm, &maps), &rows_of);
            super::attention::Maps::keys_values(
                &groups,
                &rows_of,
                &causal.angles(places[rows].to_vec()),
            )
        };
        let parts = Parts {
            parts: vec![made(0..3), made(3..8)],
            places: (0..8)
                .map(|row| match row < 3 {
                    true => RowPlace { part: 0, row },
                    false => RowPlace {
                        part: 1,
                        row: row - 3,
                    },
                })
                .collect(),
        };
        let asked = gather::rows(x.clone(), &asking);
        let groups = Group::only((&block.attention_norm, &maps), &asked);
        let angles = causal.angles(asking.map(|row| places[row]).to_vec());
        let queries = super::attention::Maps::queries(&groups, &asked, &angles);
        let spans = AttentionSpans {
            n_queries: vec![2, 1],
            n_keys: vec![5, 3],
            visible: vec![2, 5, 3],
        };
        let output = block
            .attention
            .find_rows(queries, &Among::plain(parts, spans));
        let all = each_sequence(&found(&x), SEQ, |_, x| {
            let [queries, keys, of_values] = projected_by(&values, "", x, 0, sizes.heads);
            let causal = |query: usize, key: usize| (key <= query).then_some(0.0);
            attended([&queries, &keys, &of_values], sizes.heads.n_heads, causal)
        });
        let expected = all.select(Axis(0), &asking);
        assert_near("apart", &found(&output), &expected, SINGLE);
    }
    assert_found::<Host>();
    composed(assert_found::<Host>);
}

/// With four numbers per head and a base of 100 the second pair turns a tenth as fast: `100^(−2/4)`.
#[test]
fn positions_turn_pairs_by_their_angles() {
    let device = Default::default();
    let rotary = Rotary::<Host>::new(8, 4, rope(100.0), &device);
    assert_eq!(rotary.context(), 8);
    let x = Tensor::<Host, 2>::from_floats([[1.0, 1.0, 0.0, 0.0]; 2], &device);
    let expected = |position: f64| {
        let [fast, slow] = [position, position / 10.0];
        [fast.cos(), slow.cos(), fast.sin(), slow.sin()]
    };
    let assert_turned = |what: &str, turned: Array2<f64>, positions: [f64; 2]| {
        let expected = ndarray::arr2(&positions.map(expected));
        assert_near(what, &turned, &expected, 1e-6);
    };
    let whole = rotary.causal(2);
    assert_turned(
        "in order",
        found(&whole.all_angles().rotate(x.clone())),
        [0.0, 1.0],
    );
    let apart = rotary.causal(8).angles(vec![7, 3]);
    assert_turned("apart", found(&apart.rotate(x.clone())), [7.0, 3.0]);
    assert_turned(
        "some",
        found(&apart.some(1..2).rotate(x.clone())),
        [3.0, 3.0],
    );
    let behind = rotary.causal_after(5, 2);
    assert_turned(
        "behind",
        found(&behind.all_angles().rotate(x.clone())),
        [5.0, 6.0],
    );
    let heads = x.reshape([1, 1, 2, 4]);
    assert_turned("by heads", found(&behind.rotate(heads)), [5.0, 6.0]);
}

/// Of four pairs with a base of 10,000, which turn by 1, 0.1, 0.01 and 0.001 per place, and a context of 300 in training: 47.7,
/// 4.77, 0.477 and 0.0477 turns. At least 8 turns stay, at most 1 turn is slowed down four times, and 4.77 lies
/// `(4.7746 − 1) / 7 = 0.53924` between: `0.1 · (0.53924 + 0.46076 / 4) = 0.065443`.
#[test]
fn a_longer_context_turns_slow_pairs_more_slowly() {
    let device = Default::default();
    let turned = |scaling| {
        let rope = Rope {
            base: 10_000.0,
            scaling,
        };
        let rotary = Rotary::<Host>::new(8, 8, rope, &device);
        let x = Tensor::<Host, 2>::from_floats([[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]], &device);
        found(&rotary.causal(8).angles(vec![1]).rotate(x))
    };
    let expected = |angles: [f64; 4]| {
        let [cos, sin] = [angles.map(f64::cos), angles.map(f64::sin)];
        Array2::from_shape_vec([1, 8], [cos, sin].concat()).expect("eight")
    };
    let llama3 = RopeScaling::Llama3 {
        factor: 4.0,
        low_freq_factor: 1.0,
        high_freq_factor: 8.0,
        original_context: 300,
    };
    let linear = RopeScaling::Linear { factor: 4.0 };
    for (scaling, angles) in [
        (None, [1.0, 0.1, 0.01, 0.001]),
        (Some(linear), [0.25, 0.025, 0.0025, 0.00025]),
        (Some(llama3), [1.0, 0.065_443, 0.0025, 0.00025]),
    ] {
        let what = format!("{scaling:?}");
        assert_near(&what, &turned(scaling), &expected(angles), 1e-6);
    }
}

/// Keys and values that are shared, and the same once for every head of queries.
#[test]
fn shared_keys_and_values_are_repeated_ones() {
    let heads = |n_kv_heads| Heads {
        n_heads: 6,
        n_kv_heads,
        d_head: 4,
    };
    let sizes = |n_kv_heads| BlockSizes {
        heads: heads(n_kv_heads),
        attention_bias: Some(AttentionBias::QueryKeyValue),
        ..SIZES
    };
    let shared: TransformerBlock<Host> = block_of(&sizes(2), 0.6);
    let values = values_of("", &shared);
    let repeated = TransformerBlock::<Host>::new(&sizes(6), &Default::default());
    let repeated = parameter::assign(repeated, |path, _| {
        let of = &values[path];
        // A column of the one is which column of the other.
        let column = |column: usize| match (column / 24, column % 24) {
            (0, column) => column,
            (part, column) => 24 + 8 * (part - 1) + column / 12 * 4 + column % 4,
        };
        let columns: Vec<usize> = match path.contains("query_key_value") {
            true => (0..72).map(column).collect(),
            false => (0..of.ncols()).collect(),
        };
        let rows = of.rows().into_iter();
        rows.flat_map(|row| {
            columns
                .iter()
                .map(move |&at| row[at] as f32)
                .collect::<Vec<_>>()
        })
        .collect()
    });
    let x: Tensor<Host, 3> = tensor("x", [BATCH, SEQ, SIZES.d_model]);
    let run = |block: &TransformerBlock<Host>| {
        let causal = rotary_of(heads(6)).causal(SEQ);
        found(&block.forward(x.clone(), &causal))
    };
    assert_near("repeated", &run(&repeated), &run(&shared), 1e-6);
}

#[test]
fn a_token_sees_all_before_it_and_itself() {
    let rotary = Rotary::<Host>::new(8, 4, rope(BASE), &Default::default());
    let visible = |causal: &Causal<Host>| -> Vec<Vec<bool>> {
        let mask = found(&causal.mask());
        let low = f64::from(MASKED);
        assert!(
            mask.iter().all(|&added| added == 0.0 || added == low),
            "{mask}"
        );
        mask.rows()
            .into_iter()
            .map(|row| row.map(|&added| added == 0.0).to_vec())
            .collect()
    };
    assert_eq!(visible(&rotary.causal(2)), [[true, false], [true, true]]);
    let behind = [[true, true, true, false], [true; 4]];
    assert_eq!(visible(&rotary.causal_after(2, 2)), behind);
    // Earlier ones of the best branch, and the token itself in its own.
    let [earlier, own] = beside(rotary.causal(3).mask().squeeze_dim::<3>(1));
    let hidden = |mask: Tensor<Host, 3>| found(&mask).mapv(|added| u8::from(added < -1e29));
    assert_eq!(
        hidden(earlier),
        ndarray::arr2(&[[1, 1, 1], [0, 1, 1], [0, 0, 1]])
    );
    assert_eq!(
        hidden(own),
        ndarray::arr2(&[[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    );
    let absent = Tensor::from_floats([[[[0.0, MASKED, 0.0]]]], &Default::default());
    let mask = rotary.causal(3).mask_beside(absent);
    assert_eq!(mask.dims(), [1, 1, 3, 6]);
    let last = found(&mask).row(2).map(|&added| u8::from(added < -1e29));
    assert_eq!(last, ndarray::arr1(&[0, 1, 1, 1, 1, 0]));
}

#[test]
#[should_panic(expected = "a sequence of 9 in a context of 8")]
fn no_position_lies_beyond_the_context() {
    let rotary = Rotary::<Host>::new(8, 4, rope(BASE), &Default::default());
    drop(rotary.causal_after(8, 0));
    drop(rotary.causal_after(7, 2));
}

/// Far to the left a gate is closed, far to the right it is its input: 0 and `30 · 2`; in between `silu(1) = 0.731059`.
#[test]
fn a_gate_is_open_to_the_right_and_closed_to_the_left() {
    let row = |numbers: [f32; 5]| Tensor::<Passes, 2>::from_floats([numbers], &Default::default());
    let gate = row([-300.0, -30.0, 0.0, 1.0, 30.0]).require_grad();
    let up = row([5.0, 5.0, 5.0, 3.0, 2.0]).require_grad();
    let output = gated(gate.clone(), up.clone());
    let expected = [[0.0, 0.0, 0.0, 2.193_176, 60.0]];
    assert_near("gated", &found(&output), &ndarray::arr2(&expected), 1e-6);
    let gradients = output.sum().backward();
    let grad = |x: &Tensor<Passes, 2>| rows_of(&x.grad(&gradients).expect("one").into_data());
    // silu'(1) = σ(1) (1 + 1 − σ(1)) = 0.927671.
    let of_gate = [[0.0, 0.0, 2.5, 2.783_012, 2.0]];
    assert_near("of the gate", &grad(&gate), &ndarray::arr2(&of_gate), 1e-6);
    let of_up = [[0.0, 0.0, 0.0, 0.731_059, 30.0]];
    assert_near(
        "of what it lets through",
        &grad(&up),
        &ndarray::arr2(&of_up),
        1e-6,
    );
}

/// Through an adapter, and as it is; of all tokens and of some, each group with an adapter of its own.
#[test]
fn a_routed_block_starts_from_the_stream_with_a_position_in_it() {
    fn assert_placed<B: Backend>() {
        const D_POSITION: usize = 3;
        let device = Default::default();
        let hidden: Tensor<B, 2> = tensor("hidden", [4, SIZES.d_model]);
        let tokens = [2, 0, 1];
        for d_position in [Some(D_POSITION), None] {
            let width = d_position.unwrap_or(SIZES.d_model);
            let position: Tensor<B, 2> = tensor("position", [4, width]);
            let routed = [0.4, 0.9].map(|std| {
                let fresh = RoutedBlock::<B>::new(&SIZES, d_position, alike(&device), &device);
                loud(fresh, |_| std)
            });
            let placed = |block: usize, token: usize| {
                let [hidden, position] = [found(&hidden), found(&position)];
                let position = cut(&position, 0, token..token + 1);
                let position = match d_position {
                    Some(_) => position.dot(&values_of("", &routed[block])["adapter.weight"]),
                    None => position,
                };
                (cut(&hidden, 0, token..token + 1) + &position)
                    .row(0)
                    .to_owned()
            };
            let whole = routed[1].add_position(
                hidden.clone().reshape([2, 2, SIZES.d_model]),
                position.clone().reshape([2, 2, width]),
            );
            for (token, row) in found(&whole).rows().into_iter().enumerate() {
                let expected = placed(1, token).insert_axis(Axis(0));
                assert_near("all", &row.to_owned().insert_axis(Axis(0)), &expected, 1e-6);
            }
            let groups = [(0, 1), (1, 2)].map(|(block, n_rows)| Group {
                of: &routed[block],
                n_rows,
            });
            let packed = Packed::default();
            let some =
                RoutedBlock::add_position_each(&groups, &tokens, &hidden, &position, &packed);
            for ((row, token), block) in found(&some).rows().into_iter().zip(tokens).zip([0, 1, 1])
            {
                let expected = placed(block, token).insert_axis(Axis(0));
                assert_near(
                    "some",
                    &row.to_owned().insert_axis(Axis(0)),
                    &expected,
                    1e-6,
                );
            }
            let causal = rotary().causal(2);
            let position = position.clone().reshape([2, 2, width]);
            let output = routed[1].forward(
                hidden.clone().reshape([2, 2, SIZES.d_model]),
                position,
                &causal,
                None,
            );
            let body = routed[1].block.forward(whole, &causal);
            assert_near("output", &found(&output), &found(&body), 1e-6);
        }
    }
    assert_placed::<Host>();
    composed(assert_placed::<Host>);
}

/// Rows, some in the place of others where two meet, columns, and products added to the stream.
#[test]
fn copies_lie_one_behind_the_other_and_each_has_its_part_of_the_gradient() {
    let x: Tensor<Passes, 2> = tensor("x", [2, 3]);
    let weights: Tensor<Passes, 2> = tensor("weights", [6, 3]);
    let copies = gather::copies(x.clone(), 3);
    let of_x = found(&x);
    let expected = concatenate(Axis(0), &[of_x.view(); 3]).unwrap();
    assert_near("copies", &found(&copies), &expected, 1e-7);
    let gradients = (copies * weights.clone()).sum().backward();
    let of_x = rows_of(&x.grad(&gradients).expect("one").into_data());
    let [first, second, third] = [0, 2, 4].map(|row| cut(&found(&weights), 0, row..row + 2));
    assert_near("gradient", &of_x, &(first + second + third), 1e-6);
}

#[test]
fn rows_and_columns_are_those_meant() {
    fn assert_meant<B: Backend>() {
        let x: Tensor<B, 2> = tensor("x", [5, 4]);
        let parts = [("first", 2), ("second", 1)].map(|(name, n)| tensor::<B, 2>(name, [n, 4]));
        let [of_x, first, second] = [&x, &parts[0], &parts[1]].map(found);
        assert_near(
            "rows",
            &found(&gather::rows(x.clone(), &[3, 3, 0])),
            &of_x.select(Axis(0), &[3, 3, 0]),
            1e-7,
        );
        let columns = gather::columns(&x, 1..3);
        assert_near("columns", &found(&columns), &cut(&of_x, 1, 1..3), 1e-7);
        let replaced = gather::replace(x.clone(), &[4, 1, 4], parts.to_vec());
        let mut expected = of_x.clone();
        expected.row_mut(1).assign(&first.row(1));
        expected
            .row_mut(4)
            .assign(&(&first.row(0) + &second.row(0)));
        assert_near("replaced", &found(&replaced), &expected, 1e-6);
        let map = loud(matrix::matrix::<B>(4, 4, &Default::default()), |_| 0.4);
        let of_map = &values_of("", &map)["weight"];
        let sum = add_linear(x.clone(), x.clone(), &map);
        assert_near("added", &found(&sum), &(&of_x + &of_x.dot(of_map)), 1e-6);
        assert_near(
            "times",
            &found(&linear(x.clone(), &map)),
            &of_x.dot(of_map),
            1e-6,
        );
        let per_token = matrix::per_token(&map, x.clone().reshape([1, 5, 4]));
        assert_near("per token", &found(&per_token), &of_x.dot(of_map), 1e-6);
        let order = [RowPlace { part: 1, row: 0 }, RowPlace { part: 0, row: 1 }];
        let gathered = Parts {
            parts: parts.to_vec(),
            places: order.to_vec(),
        }
        .gather();
        assert_near(
            "gathered",
            &found(&gathered.slice_dim(0, 0..1)),
            &second,
            1e-7,
        );
    }
    assert_meant::<Host>();
    composed(assert_meant::<Host>);
}

/// Products in double precision, which the host can multiply in: maps of attention and feed-forward become double, norms and all
/// else stay, the output is in the type of the stream, and gradients reach the numbers that were cast.
#[test]
fn products_in_another_type_are_cast_from_parameters_that_learn() {
    let device = Default::default();
    let routed = RoutedBlock::<Passes>::new(&SIZES, Some(3), alike(&device), &device);
    let routed = loud(routed, |_| 0.4);
    let double = with_matmul_dtype(routed.clone(), DType::F64);
    assert_eq!(double.block.products(), DType::F64);
    let [adapter, gain] = [
        double.adapter.as_ref().expect("one").weight.val().dtype(),
        double.block.feed_forward_norm.gamma.val().dtype(),
    ];
    assert_eq!([adapter, gain], [DType::F32; 2]);
    for map in double.block.feed_forward.all() {
        assert_eq!(map.weight.val().dtype(), DType::F64);
    }
    let ids = |routed: &RoutedBlock<Passes>| {
        let block = &routed.block;
        [
            block.attention.query_key_value.weight.id,
            block.feed_forward.down.weight.id,
        ]
    };
    assert_eq!(ids(&double), ids(&routed));
    let x: Tensor<Passes, 3> = tensor("x", [BATCH, SEQ, SIZES.d_model]);
    let position: Tensor<Passes, 3> = tensor("position", [BATCH, SEQ, 3]);
    let causal = rotary().causal(SEQ);
    let outputs =
        [&routed, &double].map(|routed| routed.forward(x.clone(), position.clone(), &causal, None));
    assert_eq!(outputs[1].dtype(), DType::F32);
    assert_near(
        "in double",
        &found(&outputs[1]),
        &found(&outputs[0]),
        SINGLE,
    );
    let [plain, cast] =
        outputs.map(|output| gradients_of("", &routed, &weighed("output", output).backward()));
    assert_eq!(cast.len(), plain.len());
    for (path, expected) in plain {
        assert_near(&path, &cast[&path], &expected, SINGLE);
    }
}

/// What a block adds is multiplied by the number of the visit, and by gains that it learns for each; later visits have the last gain.
#[test]
fn a_visit_scales_what_a_block_adds_by_its_number_and_its_own_gains() {
    let (scale, gains) = (Some(VisitScale::InverseSqrt), Some(true));
    for (scale, gains) in [(scale, None), (None, gains), (scale, gains)] {
        let device = Default::default();
        let visits = Visits::new(
            Some(VisitsConfig { scale, gains }),
            [2, SIZES.d_model],
            &device,
        );
        let block = RoutedBlock::<Passes>::new(&SIZES, None, visits, &device);
        let block = loud(block, |_| 0.4);
        let x: Tensor<Passes, 2> = tensor("x", [4, SIZES.d_model]);
        let of_heads: Tensor<Passes, 2> = tensor("found", [4, SIZES.heads.d_queries()]);
        let numbers = [1, 4, 2, 9];
        let factors = block
            .visits
            .factors(&numbers, &device)
            .expect("visits differ");
        let output = block.block.end(x.clone(), of_heads.clone(), Some(&factors));
        let mut at = values_of("", &block);
        at.insert("x".to_string(), found(&x));
        at.insert("found".to_string(), found(&of_heads));
        let expected = |at: &Values| {
            let of_row = |(row, number): (usize, usize)| {
                let part = |name: &str| at[name].row(row).to_owned().insert_axis(Axis(0));
                let by_number = scale.map_or(1.0, |_| 1.0 / (number as f64).sqrt());
                let mut factor = Array2::from_elem([1, SIZES.d_model], by_number);
                if gains.is_some() {
                    let gain = at["visits.gains"].row((number - 1).min(1)).to_owned();
                    factor = factor * (gain + 1.0);
                }
                ended_by_each(at, "block.", &part("x"), &part("found"), &factor)
            };
            let rows: Vec<Array2<f64>> = numbers.into_iter().enumerate().map(of_row).collect();
            let rows: Vec<_> = rows.iter().map(|row| row.view()).collect();
            concatenate(Axis(0), &rows).expect("rows of one width")
        };
        assert_near("visits", &found(&output), &expected(&at), SINGLE);
        let gradients = weighed("output", output).backward();
        let of = gradients_of("", &block, &gradients);
        assert_eq!(of.contains_key("visits.gains"), gains.is_some());
        assert_gradients("visits", &of, &at, SINGLE, |at| {
            weighed_rows("output", &expected(at))
        });
    }
    let factor = |scale: VisitScale| [1, 4].map(|number| scale.factor(number));
    assert_eq!(factor(VisitScale::Inverse), [1.0, 0.25]);
    assert_eq!(factor(VisitScale::InverseSqrt), [1.0, 0.5]);
    let none = Visits::<Host>::new(None, [2, 8], &Default::default());
    assert!(none.factors(&[1, 2], &Default::default()).is_none());
}
