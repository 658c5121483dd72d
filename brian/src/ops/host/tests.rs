//! Tests of the fused host operations: gradients of shared maps and rows; bits equal to matrixmultiply's, for any number of
//! rows or threads, and with packed maps; extreme scores; no unwanted gradient; no answer in double precision.

use super::super::cat::cat;
use super::super::groups::Group;
use super::super::tests::{Host, Learning};
use super::cross_entropy::cross_entropy;
use super::custom_op::{input, rows_of, shared};
use super::linear::{add_linear, linear, linear_transposed};
use super::numeric::part;
use super::packed::Packed;
use super::{gather, gemm, softmax};
use crate::block::matrix::matrix;
use burn::module::{Param, ParamId};
use burn::nn::{Linear, RmsNormConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use ndarray::Array2;
use ndarray::linalg::general_mat_mul;
use std::sync::Arc;

type Matrix = Tensor<Learning, 2>;

fn values<const D: usize>(dims: [usize; D], seed: usize) -> Tensor<Learning, D> {
    let value = |index: usize| ((index * 37 + seed * 101) as f32 * 0.61).sin() * 1.5;
    let values: Vec<f32> = (0..dims.iter().product()).map(value).collect();
    Tensor::from_data(TensorData::new(values, dims), &Default::default()).require_grad()
}

/// Holds outputs and the gradients of all inputs equal, behind a sum with weights that differ.
fn compare<const N: usize>(
    inputs: [&Matrix; N],
    pass: impl Fn([Matrix; N]) -> Option<Matrix>,
    composed: impl Fn([Matrix; N]) -> Matrix,
) {
    let found = |output: &dyn Fn([Matrix; N]) -> Matrix| {
        let fresh = |input: &Matrix| Tensor::from_inner(input.clone().inner()).require_grad();
        let inputs = inputs.map(fresh);
        let output = output(inputs.clone());
        let weights = values(output.dims(), 99).set_require_grad(false);
        let gradients = (output.clone() * weights).sum().backward();
        let mut found = vec![output.into_data()];
        for input in inputs {
            found.push(input.grad(&gradients).expect("a gradient").into_data());
        }
        found
    };
    let fast = found(&|inputs| pass(inputs).expect("the host"));
    let plain = found(&composed);
    assert_eq!(fast.len(), plain.len());
    for (fast, plain) in fast.iter().zip(&plain) {
        assert_eq!(fast.shape, plain.shape);
        let size =
            |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, |a: f32, b| a.max(b.abs()));
        let largest = size(&mut plain.iter::<f32>());
        let difference = size(
            &mut fast
                .iter::<f32>()
                .zip(plain.iter::<f32>())
                .map(|(a, b)| a - b),
        );
        assert!(difference < 5e-6 * largest, "{difference} of {largest}");
    }
}

fn map_of<B: Backend>(map: Tensor<B, 2>) -> Linear<B> {
    let [d_in, d_out] = map.dims();
    let mut linear = matrix(d_in, d_out, &Default::default());
    linear.weight = Param::from_mapped_value(ParamId::new(), map, Default::default());
    linear
}

/// By passes on few rows and on many, and by an operation that knows nothing of shared maps.
#[test]
fn a_shared_map_has_the_gradient_of_all_its_uses() {
    let [x, map] = [values([600, 26], 1), values([26, 30], 3)];
    let parts = [0..5, 5..9, 9..300, 300..301, 301..600];
    compare(
        [&x, &map],
        |[x, map]| {
            let map = shared(map);
            let part = |rows| linear(&x.clone().slice_dim(0, rows), &map).expect("the host");
            let passes = cat(parts.clone().map(part).to_vec(), 0);
            Some(passes + x.matmul(map))
        },
        |[x, map]| x.matmul(map) * 2.0,
    );
    compare(
        [&x, &map],
        |[x, map]| linear(&x, &shared(map)),
        |[x, map]| x.matmul(map),
    );
    compare(
        [&x, &map],
        |[x, map]| Some(x.matmul(shared(map))),
        |[x, map]| x.matmul(map),
    );
}

/// What a token gets may not depend, to the bit, on how many others ask with it.
#[test]
fn a_row_has_the_same_bits_among_few_some_and_many() {
    const MANY: usize = 700;
    for (depth, width) in [(16, 256), (256, 600), (300, 40), (1024, 256), (1, 17)] {
        let inner = |x: Matrix| x.inner();
        let [x, y] =
            [(depth, 1), (width, 2)].map(|(width, seed)| inner(values([MANY, width], seed)));
        let map = inner(values([depth, width], 3));
        let turned = inner(values([width, depth], 4));
        let map_of = map_of(map.clone());
        let products = |x: &_, y: &_| {
            let all = [
                linear(x, &map),
                add_linear(y, None, x, &Group::only(&map_of, y), &Packed::default()),
                linear_transposed(x, &turned),
            ];
            all.map(|product| product.expect("the host"))
        };
        let many = products(&x, &y);
        for n in (1..9).chain([30, 49, 100, 383, 384, 600]) {
            let [x, y] = [&x, &y].map(|all| all.clone().slice_dim(0, 5..5 + n));
            for (few, many) in products(&x, &y).into_iter().zip(many.clone()) {
                let same = many.slice_dim(0, 5..5 + n).into_data();
                assert_eq!(few.into_data(), same, "{n} rows, {depth} x {width}");
            }
        }
    }
}

#[test]
fn gradients_of_maps_with_few_rows_have_the_bits_of_matrixmultiply() {
    for (n, height, width) in [
        (1, 1, 1),
        (5, 3, 15),
        (256, 4, 16),
        (300, 16, 257),
        (700, 31, 48),
    ] {
        let number =
            |(row, column): (usize, usize)| ((row * 37 + column * 101) as f32 * 0.61).sin();
        let [left, right] =
            [(n, height), (n, width)].map(|dims| Array2::from_shape_fn(dims, number));
        let mut expected = Array2::from_shape_fn((height, width), number);
        let mut found = expected.clone();
        general_mat_mul(1.0, &left.t(), &right, 1.0, &mut expected);
        gemm::add_product(left.t(), right.view(), found.view_mut());
        assert_eq!(found, expected, "{n} x {height} x {width}");
    }
}

/// By passes that use all of them and by passes that use some, and by an operation that knows nothing of shared rows.
#[test]
fn shared_rows_have_the_gradient_of_all_their_uses() {
    let which = [3, 0, 3, 6];
    compare(
        [&values([7, 26], 1), &values([26, 30], 3)],
        |[x, map]| {
            let x = shared(x);
            let some = gather::rows(&x, &which)?;
            let parts = [
                linear(&some, &map)?,
                linear(&x, &map)?,
                x.clone().matmul(map),
            ];
            Some(cat(parts.to_vec(), 0))
        },
        |[x, map]| {
            let all = x.matmul(map);
            let some = which.map(|row| all.clone().slice_dim(0, row..row + 1));
            cat([some.to_vec(), vec![all.clone(), all]].concat(), 0)
        },
    );
}

/// The gradient of a map is made by whichever thread is free; its bits do not tell by which.
#[test]
fn a_shared_map_has_the_same_gradient_for_every_number_of_threads() {
    let gradient = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads);
        pool.build().expect("threads").install(|| {
            // So wide that it is made beside the way back.
            let [x, map] = [values([3000, 300], 1), values([300, 90], 3)];
            let shared = shared(map.clone());
            let uses =
                (0..10).flat_map(|part| [part * 300..part * 300 + 7, part * 300..part * 300 + 300]);
            let sum = uses
                .map(|rows| {
                    let y = linear(&x.clone().slice_dim(0, rows), &shared).expect("the host");
                    (y.clone() * y).sum()
                })
                .reduce(|a, b| a + b);
            let gradients = sum.expect("some").backward();
            map.grad(&gradients).expect("a gradient").into_data()
        })
    };
    let alone = gradient(1);
    for n_threads in [2, 3, 8] {
        assert_eq!(gradient(n_threads), alone, "{n_threads} threads");
    }
}

/// Another map in its place, and views that are neither it nor its transpose, are not taken for it.
#[test]
fn a_map_that_stays_packed_gives_the_same_bits() {
    for n in [1, 30, 700] {
        let array = |x: Matrix| rows_of::<Learning>(input(&x)).expect("the host");
        let [x, y] = [values([n, 300], 1), values([n, 40], 2)].map(array);
        let whole = values([300, 40], 3);
        let held = Packed::maps([&whole]);
        let map = array(whole.clone());
        let products = |packed: &Packed| {
            let packed = packed.lend();
            let [right, back] = [(&x, map.view()), (&y, map.t())];
            let whole = [right, back].map(|(rows, map)| packed.product(rows.view(), map));
            let parts = [0..150, 150..300].map(|rows| {
                let x = part(x.view(), 1, rows.clone());
                let x = x.as_standard_layout();
                packed.product(x.view(), part(map.view(), 0, rows))
            });
            whole.into_iter().chain(parts).collect::<Vec<_>>()
        };
        let plain = products(&Packed::default());
        assert_eq!(products(&held), plain, "{n} rows");
        assert_eq!(products(&held), plain, "{n} rows, once more");
        // Where an operation multiplies, too, and on its way back.
        let found = |packed: Packed| {
            let [x, y] = [values([n, 300], 1), values([n, 40], 2)];
            let map = map_of(whole.clone());
            let sum = add_linear(&y, None, &x, &Group::only(&map, &y), &packed).expect("the host");
            let copies: Vec<_> = packed.0.iter().map(Arc::downgrade).collect();
            drop(packed);
            let freed = copies.iter().all(|copy| copy.upgrade().is_none());
            assert!(freed, "the way back holds no packed copy");
            let gradients = (sum.clone() * y).sum().backward();
            let of_x = x.grad(&gradients).expect("a gradient");
            [sum.into_data(), of_x.into_data()]
        };
        let plain = found(Packed::default());
        assert_eq!(found(held), plain, "{n} rows, in an operation");
        let every = Packed::of(&map_of(whole.clone()));
        assert_eq!(found(every), plain, "{n} rows, in an operation");
    }
    let norm = RmsNormConfig::new(300).init::<Host>(&Default::default());
    let is_empty = Packed::of(&norm).0.is_empty();
    assert!(is_empty, "a vector is no map");
}

/// Scores a thousand apart: `e / (1 + e)`, 0.731059, and the rest; the nats of the first are `ln(1 + 1/e)`, 0.313262, and those
/// of the last 2000 more. Single precision knows a number of a thousand to a ten thousandth.
#[test]
fn probabilities_and_nats_of_scores_that_no_exponential_holds() {
    let row = [1000.0, 999.0, -1000.0];
    let scores = || Matrix::from_floats([row; 3], &Default::default()).require_grad();
    let near = |found: &[f32], expected: &[f32]| {
        let pairs = found.iter().zip(expected);
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * b.abs().max(1.0);
        assert!(
            found.len() == expected.len() && pairs.clone().all(near),
            "{found:?} for {expected:?}"
        );
    };
    let list = |x: Matrix| x.into_data().iter::<f32>().collect::<Vec<_>>();
    let [likely, other] = [0.731_058_6, 0.268_941_4];
    let found = softmax::softmax(&scores()).expect("the host");
    near(&list(found), &[likely, other, 0.0].repeat(3));
    let targets = Tensor::from_data([0, 1, 2], &Default::default());
    let asked = scores();
    let nats = cross_entropy(&asked, &targets).expect("the host");
    near(
        &list(nats.clone().unsqueeze_dim(1)),
        &[0.313_261_7, 1.313_261_7, 2_000.313_2],
    );
    let gradients = nats.sum().backward();
    let gradient = asked.grad(&gradients).expect("a gradient").into_data();
    let expected = [
        likely - 1.0,
        other,
        0.0,
        likely,
        other - 1.0,
        0.0,
        likely,
        other,
        -1.0,
    ];
    near(&gradient.iter::<f32>().collect::<Vec<_>>(), &expected);
    // The last score is not among the first two.
    let asked = scores();
    let share =
        softmax::chosen_probability(&asked, &[Some(0), Some(1), None], 2).expect("the host");
    near(&list(share.clone()), &[likely, other, 1.0]);
    let gradients = share.sum().backward();
    let gradient = asked.grad(&gradients).expect("a gradient").into_data();
    // p (1 − p) towards the chosen one.
    let slope = likely * other;
    let expected = [slope, -slope, 0.0, -slope, slope, 0.0, 0.0, 0.0, 0.0];
    near(&gradient.iter::<f32>().collect::<Vec<_>>(), &expected);
}

#[test]
fn what_is_not_wanted_gets_no_gradient_and_what_is_does() {
    let (x, map) = (values([5, 4], 1).set_require_grad(false), values([4, 3], 2));
    let gradients = linear(&x, &map).expect("the host").sum().backward();
    assert!(x.grad(&gradients).is_none());
    assert!(map.grad(&gradients).is_some());
}

#[test]
fn the_host_in_single_precision_only() {
    let x = Tensor::<Host, 2>::ones([2, 2], &Default::default());
    assert!(linear(&x, &x).is_some());
    let double = x.cast(burn::tensor::FloatDType::F64);
    assert!(linear(&double, &double).is_none());
}
