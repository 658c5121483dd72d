//! Each pass is what its composition of tensor operations is, and so is its gradient.

use super::attend::{attend, attend_all};
use super::feed_forward::feed_forward;
use super::groups::{Group, each};
use super::node::{reshape, shared};
use super::norm::normed;
use super::numeric;
use super::pin::pin;
use super::product::{add_times, times, times_transposed};
use super::project::{Columns, project};
use super::rows::{Parts, Place};
use super::sight::Sight;
use super::softmax;
use super::straight::straight;
use crate::block::causal::Rotary;
use crate::block::feed_forward::FeedForward;
use crate::block::matrix::{by_group, indices, matrix, rows};
use crate::block::{BlockSizes, transformer};
use burn::backend::Autodiff;
use burn::module::{Param, ParamId};
use burn::nn::{Linear, RmsNorm};
use burn::tensor::activation::{log_softmax, silu, softmax as burn_softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use burn_ndarray::NdArray;
use ndarray::Array2;
use ndarray::linalg::general_mat_mul;
use std::sync::Arc;

/// The host.
pub(crate) type Host = NdArray;
/// With gradients: passes over its memory apply.
pub(crate) type Learning = Autodiff<NdArray>;
type Matrix = Tensor<Learning, 2>;

const SIZES: BlockSizes = BlockSizes {
    d_model: 24,
    n_heads: 3,
    d_ff: 40,
    norm_epsilon: 1e-6,
};

fn values<const D: usize>(dims: [usize; D], seed: usize) -> Tensor<Learning, D> {
    let value = |index: usize| ((index * 37 + seed * 101) as f32 * 0.61).sin() * 1.5;
    let values: Vec<f32> = (0..dims.iter().product()).map(value).collect();
    Tensor::from_data(TensorData::new(values, dims), &Default::default()).require_grad()
}

/// Holds outputs and the gradients of all inputs and of the norm equal, behind a sum with weights that differ.
fn compare<const N: usize>(
    inputs: [&Matrix; N],
    pass: impl Fn([Matrix; N], &RmsNorm<Learning>) -> Option<Matrix>,
    composed: impl Fn([Matrix; N], &RmsNorm<Learning>) -> Matrix,
) {
    let found = |output: &dyn Fn([Matrix; N], &RmsNorm<Learning>) -> Matrix| {
        let fresh = |input: &Matrix| Tensor::from_inner(input.clone().inner()).require_grad();
        let (inputs, norm) = (inputs.map(fresh), norm());
        let output = output(inputs.clone(), &norm);
        let weights = values(output.dims(), 99).set_require_grad(false);
        let gradients = (output.clone() * weights).sum().backward();
        let mut found = vec![output.into_data()];
        for input in inputs {
            found.push(input.grad(&gradients).expect("a gradient").into_data());
        }
        if let Some(gain) = norm.gamma.val().grad(&gradients) {
            found.push(gain.into_data());
        }
        found
    };
    let fast = found(&|inputs, norm| pass(inputs, norm).expect("the host"));
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

fn norm() -> RmsNorm<Learning> {
    let mut norm = transformer::norm(&SIZES, &Default::default());
    norm.gamma = Param::from_tensor(values([SIZES.d_model], 7));
    norm
}

/// 70 rows: more than one task works on, and no multiple of it.
const N: usize = 70;

#[test]
fn products() {
    for n in [1, 3, N] {
        products_of(n);
    }
}

/// Few rows go another way, and 600 columns are more than one of its tasks works on.
fn products_of(n: usize) {
    let [x, y] = [values([n, 26], 1), values([n, 600], 2)];
    let [map, transposed] = [values([26, 600], 3), values([600, 26], 4)];
    compare(
        [&x, &map],
        |[x, map], _| times(&x, &map),
        |[x, map], _| x.matmul(map),
    );
    compare(
        [&x, &transposed],
        |[x, map], _| times_transposed(&x, &map),
        |[x, map], _| x.matmul(map.transpose()),
    );
    compare(
        [&y, &x, &map],
        |[y, x, map], _| add_times(&y, None, &x, &Group::only(&linear(map), &y)),
        |[y, x, map], _| y + x.matmul(map),
    );
}

fn linear<B: Backend>(map: Tensor<B, 2>) -> Linear<B> {
    let [d_in, d_out] = map.dims();
    let mut linear = matrix(d_in, d_out, &Default::default());
    linear.weight = Param::from_mapped_value(ParamId::new(), map, Default::default());
    linear
}

/// Groups of few rows, of many and of one.
const GROUPS: [usize; 4] = [7, 40, 1, 22];

/// [`GROUPS`], each with a part of a tensor that has as many.
fn groups(of: Matrix) -> Vec<Group<Matrix>> {
    let of = of.chunk(GROUPS.len(), 0).into_iter();
    of.zip(GROUPS)
        .map(|(of, n_rows)| Group { of, n_rows })
        .collect()
}

#[test]
fn groups_have_maps_of_their_own() {
    let [y, x] = [values([N, 9], 1), values([N, 26], 2)];
    let maps = values([GROUPS.len() * 26, 9], 3);
    // A third of them, again and again.
    let some: Vec<usize> = (0..N).map(|row| row * 3 % 69).collect();
    for which in [None, Some(&some[..])] {
        compare(
            [&y, &x, &maps],
            |[y, x, maps], _| {
                let maps = groups(maps);
                let maps = each(&maps, |map| linear(map.clone()));
                add_times(&y, which, &x, &each(&maps, |map| map))
            },
            |[y, x, maps], _| {
                let y = match which {
                    Some(which) => y.select(0, indices(which, &Default::default())),
                    None => y,
                };
                by_group([y, x], &groups(maps), |[y, x], map, _| {
                    y + x.matmul(map.clone())
                })
            },
        );
    }
}

/// By passes on few rows and on many, and by an operation that knows nothing of shared maps.
#[test]
fn a_shared_map_has_the_gradient_of_all_its_uses() {
    let [x, map] = [values([600, 26], 1), values([26, 30], 3)];
    let parts = [0..5, 5..9, 9..300, 300..301, 301..600];
    compare(
        [&x, &map],
        |[x, map], _| {
            let map = shared(map);
            let part = |rows| times(&x.clone().slice_dim(0, rows), &map).expect("the host");
            let passes = Tensor::cat(parts.clone().map(part).to_vec(), 0);
            Some(passes + x.matmul(map))
        },
        |[x, map], _| x.matmul(map) * 2.0,
    );
    compare(
        [&x, &map],
        |[x, map], _| times(&x, &shared(map)),
        |[x, map], _| x.matmul(map),
    );
    compare(
        [&x, &map],
        |[x, map], _| Some(x.matmul(shared(map))),
        |[x, map], _| x.matmul(map),
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
        let linear = linear(map.clone());
        let products = |x: &_, y: &_| {
            let all = [
                times(x, &map),
                add_times(y, None, x, &Group::only(&linear, y)),
                times_transposed(x, &turned),
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
        numeric::add_product(left.t(), right.view(), found.view_mut());
        assert_eq!(found, expected, "{n} x {height} x {width}");
    }
}

#[test]
fn rows_once_twice_and_never() {
    let x = values([7, 5], 1);
    let which = [3, 0, 3, 6, 3, 1];
    let one_hot = |row: usize| (0..7).map(move |column| f32::from(u8::from(row == column)));
    let chosen: Vec<f32> = which.iter().flat_map(|&row| one_hot(row)).collect();
    let chosen = Matrix::from_data(TensorData::new(chosen, [6, 7]), &Default::default());
    compare(
        [&x],
        |[x], _| super::rows::rows(&x, &which),
        |[x], _| chosen.clone().matmul(x),
    );
}

/// By passes that use all of them and by passes that use some, and by an operation that knows nothing of shared rows.
#[test]
fn shared_rows_have_the_gradient_of_all_their_uses() {
    let which = [3, 0, 3, 6];
    compare(
        [&values([7, 26], 1), &values([26, 30], 3)],
        |[x, map], _| {
            let x = shared(x);
            let some = super::rows::rows(&x, &which)?;
            let parts = [times(&some, &map)?, times(&x, &map)?, x.clone().matmul(map)];
            Some(Tensor::cat(parts.to_vec(), 0))
        },
        |[x, map], _| {
            let all = x.matmul(map);
            let some = which.map(|row| all.clone().slice_dim(0, row..row + 1));
            Tensor::cat([some.to_vec(), vec![all.clone(), all]].concat(), 0)
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
                    let y = times(&x.clone().slice_dim(0, rows), &shared).expect("the host");
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
        let [x, y] = [values([n, 300], 1), values([n, 40], 2)];
        let map = values([300, 40], 3);
        let products = || {
            let [right, back] = [times(&x, &map), times_transposed(&y, &map)];
            let parts = (0..2).map(|part| {
                let rows = part * 150..part * 150 + 150;
                let [x, map] = [
                    x.clone().slice_dim(1, rows.clone()),
                    map.clone().slice_dim(0, rows),
                ];
                times(&x, &map)
            });
            let all: Vec<_> = [right, back].into_iter().chain(parts).collect();
            all.into_iter()
                .map(|found| found.expect("the host").into_data())
                .collect::<Vec<_>>()
        };
        let plain = products();
        let pinned = pin(&map).expect("the host");
        assert_eq!(products(), plain, "{n} rows");
        assert_eq!(products(), plain, "{n} rows, once more");
        drop(pinned);
        assert_eq!(products(), plain, "{n} rows, behind");
    }
    assert!(pin(&values([300], 1)).is_none(), "a vector is no map");
}

#[test]
fn other_rows_in_some_places() {
    const ROWS: usize = 90;
    for n_parts in [1, 2, 3, 5, 10, 40] {
        // The second part has a place of the first one too.
        let which: Vec<usize> = (0..2 * n_parts)
            .map(|row| (row * 7 + row / 3) % ROWS)
            .collect();
        let rows = |parts: Matrix| parts.chunk(n_parts, 0);
        compare(
            [&values([ROWS, 5], 1), &values([2 * n_parts, 5], 2)],
            |[into, parts], _| super::rows::replace(&into, &which, &rows(parts)),
            |[into, parts], _| {
                let stays = (0..ROWS).map(|row| f32::from(u8::from(!which.contains(&row))));
                let stays = TensorData::new(stays.collect::<Vec<_>>(), [ROWS, 1]);
                let one_hot = (0..ROWS).flat_map(|row| which.iter().map(move |&at| at == row));
                let one_hot: Vec<f32> = one_hot.map(|is| f32::from(u8::from(is))).collect();
                let one_hot = TensorData::new(one_hot, [ROWS, which.len()]);
                let [stays, one_hot] =
                    [stays, one_hot].map(|data| Matrix::from_data(data, &Default::default()));
                into * stays + one_hot.matmul(parts)
            },
        );
    }
}

#[test]
fn columns_of_a_map() {
    let twice = |map: &Matrix, [first, second]: [Matrix; 2]| {
        Tensor::cat(vec![first, second, map.clone()], 1)
    };
    for is_shared in [false, true] {
        compare(
            [&values([7, 12], 1)],
            |[map], _| {
                let map = if is_shared { shared(map) } else { map };
                let parts = [
                    super::rows::columns(&map, 2, 5)?,
                    super::rows::columns(&map, 4, 8)?,
                ];
                Some(twice(&map, parts))
            },
            |[map], _| {
                let parts = [2..7, 4..12].map(|columns| map.clone().slice_dim(1, columns));
                twice(&map, parts)
            },
        );
    }
}

#[test]
fn a_gain_of_zero_with_its_gradient() {
    let which = [3, 0, 6, 5];
    let gains = |gain: Matrix| gain.clone() - gain.detach();
    compare(
        [&values([4, 24], 1), &values([7, 1], 3)],
        |[after, gain], _| {
            let change = [after.clone(), values([7, 24], 2)];
            straight(&after, change, &gains(gain), &which)
        },
        |[after, gain], _| {
            let before = rows(values([7, 24], 2), &which);
            let change = (after.clone() - before).detach();
            after + change * rows(gains(gain), &which)
        },
    );
}

#[test]
fn probabilities_and_nats() {
    for width in [2, 5, 300] {
        let scores = values([7, width], 3);
        compare(
            [&scores],
            |[scores], _| softmax::softmax(&(scores * 4.0)),
            |[scores], _| burn_softmax(scores * 4.0, 1),
        );
        let n = (width - 1).max(2);
        let chosen: Vec<Option<usize>> = (0..7).map(|row| (row != 3).then_some(row % n)).collect();
        compare(
            [&scores],
            |[scores], _| softmax::share(&(scores * 4.0), &chosen, n),
            |[scores], _| {
                let shares = burn_softmax((scores * 4.0).slice_dim(1, 0..n), 1);
                let rows = chosen.iter().enumerate().map(|(row, chosen)| match chosen {
                    Some(chosen) => shares.clone().slice([row..row + 1, *chosen..chosen + 1]),
                    None => Tensor::ones([1, 1], &Default::default()),
                });
                Tensor::cat(rows.collect(), 0)
            },
        );
        let targets: Vec<i64> = (0..7).map(|row| row * 5 % width as i64).collect();
        let targets = Tensor::from_data(TensorData::new(targets, [7]), &Default::default());
        compare(
            [&scores],
            |[scores], _| softmax::nats(&(scores * 4.0), &targets),
            |[scores], _| {
                let of_targets = targets.clone().reshape([7, 1]);
                log_softmax(scores * 4.0, 1).gather(1, of_targets).neg()
            },
        );
    }
}

#[test]
fn another_shape() {
    compare(
        [&values([6, 4], 1)],
        |[x], _| Some(reshape(reshape(x.transpose(), [2, 3, 4]), [8, 3])),
        |[x], _| x.transpose().reshape([8, 3]),
    );
}

#[test]
fn the_router() {
    let (hidden, position) = (values([N, 12], 1), values([N, 5], 2));
    let [first, second] = [values([17, 12], 3), values([12, 4], 4)];
    // Biases as a row, so that all inputs are of one kind.
    let [first_bias, second_bias] = [values([1, 12], 5), values([1, 4], 6)];
    compare(
        [
            &hidden,
            &position,
            &first,
            &first_bias,
            &second,
            &second_bias,
        ],
        |[hidden, position, first, first_bias, second, second_bias], _| {
            let linear = |weight: Matrix, bias: Matrix| {
                let mut linear = linear(weight);
                linear.bias = Some(Param::from_mapped_value(
                    ParamId::new(),
                    bias.squeeze_dim(0),
                    Default::default(),
                ));
                linear
            };
            let (first, second) = (linear(first, first_bias), linear(second, second_bias));
            super::router::score(&hidden, &position, &first, &second)
        },
        |[hidden, position, first, first_bias, second, second_bias], _| {
            let state = Tensor::cat(vec![hidden, position], 1);
            silu(state.matmul(first) + first_bias).matmul(second) + second_bias
        },
    );
}

#[test]
fn rows_behind_a_norm() {
    compare(
        [&values([N, SIZES.d_model], 1)],
        |[x], norm| normed(&x, norm),
        |[x], norm| norm.forward(x),
    );
}

/// With an epsilon that no result can do without.
#[test]
fn rows_behind_a_norm_with_a_large_epsilon() {
    let wide = |norm: &RmsNorm<Learning>| {
        let mut wide = norm.clone();
        wide.epsilon = 0.5;
        wide
    };
    compare(
        [&values([N, SIZES.d_model], 1)],
        |[x], norm| normed(&x, &wide(norm)),
        |[x], norm| {
            let mean = x.clone().square().mean_dim(1);
            x / (mean + 0.5).sqrt() * norm.gamma.val().unsqueeze()
        },
    );
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
    let nats = softmax::nats(&asked, &targets).expect("the host");
    near(
        &list(nats.clone()),
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
    let share = softmax::share(&asked, &[Some(0), Some(1), None], 2).expect("the host");
    near(&list(share.clone()), &[likely, other, 1.0]);
    let gradients = share.sum().backward();
    let gradient = asked.grad(&gradients).expect("a gradient").into_data();
    // p (1 − p) towards the chosen one.
    let slope = likely * other;
    let expected = [slope, -slope, 0.0, -slope, slope, 0.0, 0.0, 0.0, 0.0];
    near(&gradient.iter::<f32>().collect::<Vec<_>>(), &expected);
}

#[test]
fn the_feed_forward_half() {
    let d_model = SIZES.d_model;
    let (x, down) = (
        values([N, d_model], 1),
        values([GROUPS.len() * 40, d_model], 4),
    );
    let [gate, up] = [2, 3].map(|seed| values([GROUPS.len() * d_model, 40], seed) * 0.2);
    compare(
        [&x, &gate, &up, &down],
        |[x, gate, up, down], norm| {
            let maps = [gate, up, down].map(groups);
            let halves: Vec<Group<FeedForward<Learning>>> = (0..GROUPS.len())
                .map(|group| {
                    let [gate, up, down] =
                        maps.each_ref().map(|maps| linear(maps[group].of.clone()));
                    Group {
                        of: FeedForward { gate, up, down },
                        n_rows: GROUPS[group],
                    }
                })
                .collect();
            feed_forward(&x, &each(&halves, |half| (norm, half.all())))
        },
        |[x, gate, up, down], norm| {
            let [gate, up, down] = [gate, up, down].map(groups);
            let maps = (gate.iter().zip(&up).zip(&down)).map(|((gate, up), down)| Group {
                of: [gate, up, down].map(|map| map.of.clone()),
                n_rows: gate.n_rows,
            });
            let maps: Vec<_> = maps.collect();
            by_group([x], &maps, |[x], [gate, up, down], _| {
                let normed = norm.forward(x.clone());
                let hidden = silu(normed.clone().matmul(gate.clone())) * normed.matmul(up.clone());
                x + hidden.matmul(down.clone())
            })
        },
    );
}

#[test]
fn queries_keys_and_values() {
    let x = values([N, SIZES.d_model], 1);
    let rotary = Rotary::<Learning>::new(N, 8, 10_000.0, &Default::default());
    let causal = rotary.causal(N / 2);
    let every: Vec<usize> = (0..N).map(|row| row % (N / 2)).collect();
    let some: Vec<usize> = (0..N).map(|row| row * 3 % (N / 2)).collect();
    for (columns, n_parts, n_turned, n_scaled) in [
        (Columns::All, 3, 2, 1),
        (Columns::Queries, 1, 1, 1),
        (Columns::KeysValues, 2, 1, 0),
    ] {
        let maps = values([GROUPS.len() * SIZES.d_model, n_parts * SIZES.d_model], 5);
        for places in [&every, &some] {
            let angles = match places == &every {
                true => causal.all_angles(),
                false => causal.angles(places.clone()),
            };
            compare(
                [&x, &maps],
                |[x, maps], norm| {
                    let maps = groups(maps);
                    let maps = each(&maps, |map| (norm, map));
                    project(&x, &maps, columns, angles.parts())
                },
                |[x, maps], norm| {
                    let packed = by_group([x], &groups(maps), |[x], map, _| {
                        norm.forward(x).matmul(map.clone())
                    });
                    let parts = packed.chunk(n_parts, 1).into_iter().enumerate();
                    let turned = parts.map(|(index, part)| {
                        let part = match index < n_turned {
                            true => causal.angles(places.clone()).rotate(part),
                            false => part,
                        };
                        match index < n_scaled {
                            true => part / 8f32.sqrt(),
                            false => part,
                        }
                    });
                    Tensor::cat(turned.collect(), 1)
                },
            );
        }
    }
}

/// Attention query by query.
fn seen(queries: &Matrix, keys_values: &Matrix, sight: &Sight) -> Matrix {
    let width = SIZES.d_model / SIZES.n_heads;
    let (mut first_query, mut first_key) = (0, 0);
    let mut found = Vec::new();
    for (&n_queries, &n_keys) in sight.n_queries.iter().zip(&sight.n_keys) {
        for query in first_query..first_query + n_queries {
            let keys: Vec<usize> = (first_key..first_key + sight.visible[query]).collect();
            let among = rows(keys_values.clone(), &keys);
            let query = queries.clone().slice_dim(0, query..query + 1);
            let heads = (0..SIZES.n_heads).map(|head| {
                let part = |x: &Matrix, first: usize| {
                    let first = first + head * width;
                    x.clone().slice_dim(1, first..first + width)
                };
                let scores = part(&query, 0).matmul(part(&among, 0).transpose());
                burn_softmax(scores, 1).matmul(part(&among, SIZES.d_model))
            });
            found.push(Tensor::cat(heads.collect(), 1));
        }
        first_query += n_queries;
        first_key += n_keys;
    }
    Tensor::cat(found, 0)
}

#[test]
fn attention_of_whole_sequences() {
    // Longer than the queries scored at once.
    let packed = values([140, 3 * SIZES.d_model], 1);
    let sight = Arc::new(Sight::whole(2, 70));
    compare(
        [&packed],
        |[packed], _| attend_all(&packed, SIZES.n_heads, &sight),
        |[packed], _| {
            let queries = packed.clone().slice_dim(1, 0..SIZES.d_model);
            let keys_values = packed
                .clone()
                .slice_dim(1, SIZES.d_model..3 * SIZES.d_model);
            seen(&queries, &keys_values, &sight)
        },
    );
}

#[test]
fn attention_of_tokens_apart() {
    let sight = Arc::new(Sight {
        n_queries: vec![3, 1, 2],
        n_keys: vec![9, 5, 2],
        visible: vec![1, 4, 9, 5, 1, 2],
    });
    let queries = values([6, SIZES.d_model], 1);
    let [first, second] = [(5, 2), (13, 3)].map(|(n, seed)| values([n, 2 * SIZES.d_model], seed));
    // 16 of 18 rows, in an order of their own.
    let order: Vec<usize> = (0..16).map(|key| (key * 7 + 3) % 18).collect();
    let place = |row: &usize| match row.checked_sub(5) {
        Some(row) => Place { part: 1, row },
        None => Place { part: 0, row: *row },
    };
    let gather = |first: Matrix, second: Matrix| Parts {
        parts: vec![first, second],
        places: order.iter().map(place).collect(),
    };
    compare(
        [&queries, &first, &second],
        |[queries, first, second], _| {
            attend(&queries, &gather(first, second), SIZES.n_heads, &sight)
        },
        |[queries, first, second], _| seen(&queries, &gather(first, second).gather(), &sight),
    );
    // In more parts, and in more than one pass takes.
    for n_parts in [3, 5, 8, 12, 40] {
        let place = |key: usize| Place {
            part: key % n_parts,
            row: key / n_parts,
        };
        let gather = |parts: Matrix| Parts {
            parts: parts.chunk(n_parts, 0).into_iter().map(shared).collect(),
            places: (0..16).map(place).collect(),
        };
        let rows_of_part = 16usize.div_ceil(n_parts);
        compare(
            [
                &queries,
                &values([n_parts * rows_of_part, 2 * SIZES.d_model], 4),
            ],
            |[queries, parts], _| attend(&queries, &gather(parts), SIZES.n_heads, &sight),
            |[queries, parts], _| seen(&queries, &gather(parts).gather(), &sight),
        );
    }
    let keys_values = values([16, 2 * SIZES.d_model], 2);
    let heads = |x: Tensor<Learning, 3>| {
        let [n_sequences, n_rows, _] = x.dims();
        let x = x.reshape([n_sequences, n_rows, SIZES.n_heads, 8]);
        x.swap_dims(1, 2)
    };
    compare(
        [&queries, &keys_values],
        |[queries, keys_values], _| {
            attend(&queries, &Parts::one(keys_values), SIZES.n_heads, &sight)
        },
        |[queries, keys_values], _| {
            sight.on_rectangles(queries, keys_values, |queries, among, mask| {
                let dims = queries.dims();
                let keys = heads(among.clone().slice_dim(2, 0..SIZES.d_model));
                let values = heads(among.slice_dim(2, SIZES.d_model..2 * SIZES.d_model));
                let scores = heads(queries).matmul(keys.swap_dims(2, 3)) + mask;
                burn_softmax(scores, 3)
                    .matmul(values)
                    .swap_dims(1, 2)
                    .reshape(dims)
            })
        },
    );
}

#[test]
fn what_is_not_wanted_gets_no_gradient_and_what_is_does() {
    let (x, map) = (values([5, 4], 1).set_require_grad(false), values([4, 3], 2));
    let gradients = times(&x, &map).expect("the host").sum().backward();
    assert!(x.grad(&gradients).is_none());
    assert!(map.grad(&gradients).is_some());
}

#[test]
fn the_host_in_single_precision_only() {
    let x = Tensor::<NdArray, 2>::ones([2, 2], &Default::default());
    assert!(times(&x, &x).is_some());
    let double = x.cast(burn::tensor::FloatDType::F64);
    assert!(times(&double, &double).is_none());
}
