//! Tests of every fused operation on the host against its definition: values and gradients on random inputs, and that the fused
//! version answers. Also the backends that other tests use.

use std::cell::Cell;

thread_local! {
    static FUSED: Cell<usize> = const { Cell::new(0) };
}

/// Notes that this thread was answered by a fused version.
pub(super) fn count_fused() {
    FUSED.set(FUSED.get() + 1);
}

#[cfg(feature = "ndarray")]
pub(crate) use on_host::{Host, Learning, beside_other_passes};

#[cfg(feature = "ndarray")]
mod on_host {
    use super::super::attention::{Among, Heads, attention_over_spans, causal_attention, mass};
    use super::super::attention_spans::AttentionSpans;
    use super::super::cat::cat;
    use super::super::composed::here::composed;
    use super::super::cross_entropy::cross_entropy;
    use super::super::gather::{Parts, RowPlace, columns, replace, rows};
    use super::super::groups::{Group, each};
    use super::super::linear::{add_linear, add_linear_each, linear, linear_transposed};
    use super::super::log_sum_exp::log_sum_exp;
    use super::super::reshape::reshape;
    use super::super::reuse::{Packed, shared};
    use super::super::rms_norm::rms_norm;
    use super::super::rotary::Angles;
    use super::super::rotary_projection::{Columns, Projection, rotary_projection};
    use super::super::router_scores::router_scores;
    use super::super::soft_cap::soft_cap;
    use super::super::softmax::{chosen_probability, softmax};
    use super::super::straight_through::straight_through;
    use super::super::swiglu::swiglu_residual;
    use super::FUSED;
    use crate::block::causal::{Rope, Rotary};
    use crate::random;
    use crate::segments::Segments;
    use burn::backend::Autodiff;
    use burn::module::{Param, ParamId};
    use burn::nn::{Linear, LinearConfig, RmsNorm, RmsNormConfig};
    use burn::tensor::backend::Backend;
    use burn::tensor::{DType, Tensor, TensorData};
    use burn_ndarray::NdArray;
    use std::panic::{self, AssertUnwindSafe};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    /// The host.
    pub(crate) type Host = NdArray;
    /// With gradients.
    pub(crate) type Learning = Autodiff<NdArray>;
    type Matrix = Tensor<Learning, 2>;

    /// Runs something while backward passes end on another thread, one after the other.
    pub(crate) fn beside_other_passes<T>(run: impl FnOnce() -> T) -> T {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let leaf = Tensor::<Learning, 1>::ones([1], &Default::default());
                    let _ = leaf.require_grad().sum().backward();
                }
            });
            // A test that fails ends the thread too.
            let found = panic::catch_unwind(AssertUnwindSafe(run));
            is_over.store(true, Ordering::Relaxed);
            found.unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        })
    }

    /// 70 rows: more than one task works on, and no multiple of it.
    const N: usize = 70;
    const D_MODEL: usize = 24;
    const N_HEADS: usize = 3;

    /// No maps that stay packed.
    fn none() -> Packed {
        Packed::default()
    }

    fn random<const D: usize>(name: &str, dims: [usize; D]) -> Tensor<Learning, D> {
        let key = random::key(7, name, 0);
        let numbers = (0..dims.iter().product::<usize>() as u64)
            .map(|place| random::normal(key, place) as f32);
        Tensor::from_data(
            TensorData::new(numbers.collect::<Vec<_>>(), dims),
            &Default::default(),
        )
    }

    fn largest(data: &TensorData) -> f32 {
        data.iter::<f32>().fold(0.0, |a: f32, b| a.max(b.abs()))
    }

    /// Holds what an operation makes of random inputs, and the gradients of all of them behind a sum with weights that differ, to
    /// its definition, and sees to it that a fused version answers.
    fn agrees<const N: usize, const D: usize>(
        name: &str,
        dims: [[usize; 2]; N],
        operation: impl Fn([Matrix; N]) -> Tensor<Learning, D>,
    ) {
        let found = || {
            let inputs: [Matrix; N] = std::array::from_fn(|index| {
                random(&format!("{index}"), dims[index]).require_grad()
            });
            let before = FUSED.get();
            let output = operation(inputs.clone());
            let n_fused = FUSED.get() - before;
            let weights = random("weights", output.dims());
            let gradients = (output.clone() * weights).sum().backward();
            let of_inputs = inputs.map(|input| {
                let gradient = input.grad(&gradients).expect("a gradient");
                gradient.into_data()
            });
            (output.into_data(), of_inputs, n_fused)
        };
        let (fused, of_fused, n_fused) = found();
        assert!(n_fused > 0, "{name}: nothing is fused");
        composed(|| {
            let (defined, of_defined, n_fused) = found();
            assert_eq!(n_fused, 0, "{name}: something is fused");
            let pairs = of_fused.iter().zip(&of_defined);
            for (index, (fused, defined)) in
                [(&fused, &defined)].into_iter().chain(pairs).enumerate()
            {
                assert_eq!(fused.shape, defined.shape);
                let differences = fused.iter::<f32>().zip(defined.iter::<f32>());
                let difference = differences.fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
                let bound = 5e-6 * largest(defined);
                assert!(
                    difference <= bound,
                    "{name}, {index}: {difference} for {bound}"
                );
            }
        });
    }

    fn map_of<B: Backend>(weight: Tensor<B, 2>) -> Linear<B> {
        let [d_in, d_out] = weight.dims();
        let mut linear = LinearConfig::new(d_in, d_out)
            .with_bias(false)
            .init(&weight.device());
        linear.weight = Param::from_mapped_value(ParamId::new(), weight, Default::default());
        linear
    }

    /// A norm with an epsilon that no result can do without, and this gain `[1, d_model]`.
    fn norm_of(gain: Matrix) -> RmsNorm<Learning> {
        let [_, width] = gain.dims();
        let mut norm = RmsNormConfig::new(width)
            .with_epsilon(0.5)
            .init(&gain.device());
        let gain = gain.squeeze_dim(0);
        norm.gamma = Param::from_mapped_value(ParamId::new(), gain, Default::default());
        norm
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
    fn norms() {
        for n in [1, N] {
            agrees("rms_norm", [[n, D_MODEL], [1, D_MODEL]], |[x, gain]| {
                rms_norm(&x, &norm_of(gain), DType::F32)
            });
        }
    }

    /// Few rows go another way, and 600 columns are more than one of its tasks works on.
    #[test]
    fn linear_maps() {
        for n in [1, 3, N] {
            agrees("linear", [[n, 26], [26, 600]], |[x, map]| {
                linear(x, &map_of(map))
            });
            agrees("transposed", [[n, 26], [600, 26]], |[x, map]| {
                linear_transposed(x, map)
            });
            agrees("add", [[n, 600], [n, 26], [26, 600]], |[y, x, map]| {
                add_linear(y, x, &map_of(map))
            });
        }
        // A third of them, again and again.
        let some: Vec<usize> = (0..N).map(|row| row * 3 % 69).collect();
        for which in [None, Some(&some[..])] {
            agrees(
                "groups",
                [[N, 9], [N, 26], [GROUPS.len() * 26, 9]],
                |[y, x, maps]| {
                    let maps = groups(maps);
                    let maps = each(&maps, |map| map_of(map.clone()));
                    add_linear_each(y, which, x, &each(&maps, |map| map), &none())
                },
            );
        }
    }

    #[test]
    fn gated_feed_forwards() {
        let maps = [GROUPS.len() * D_MODEL, 40];
        let dims = [
            [N, D_MODEL],
            [1, D_MODEL],
            maps,
            maps,
            [GROUPS.len() * 40, D_MODEL],
        ];
        agrees("swiglu_residual", dims, |[x, gain, gate, up, down]| {
            let norm = norm_of(gain);
            let maps = [gate * 0.2, up * 0.2, down].map(groups);
            let halves: Vec<Group<[Linear<Learning>; 3]>> = (0..GROUPS.len())
                .map(|group| Group {
                    of: maps.each_ref().map(|maps| map_of(maps[group].of.clone())),
                    n_rows: GROUPS[group],
                })
                .collect();
            swiglu_residual(x, &each(&halves, |maps| (&norm, maps.each_ref())), &none())
        });
    }

    /// So many that tasks share them.
    #[test]
    fn rows_of_several_tasks() {
        let norm = || norm_of(random("gain", [1, D_MODEL]));
        let map = |name: &str, d_in, d_out| map_of(random(name, [d_in, d_out]) * 0.2);
        agrees("swiglu_residual of many", [[3000, D_MODEL]], |[x]| {
            let norm = norm();
            let maps = [
                map("gate", D_MODEL, 5),
                map("up", D_MODEL, 5),
                map("down", 5, D_MODEL),
            ];
            let groups = Group::only((&norm, maps.each_ref()), &x);
            swiglu_residual(x, &groups, &none())
        });
        let angles = rotary(350, D_MODEL / N_HEADS).causal(350).all_angles();
        agrees("rotary_projection of many", [[1050, D_MODEL]], |[x]| {
            let (norm, map) = (norm(), random("map", [D_MODEL, 3 * D_MODEL]));
            let groups = Group::only(plain(&norm, &map), &x);
            let parts = (Columns::All, of(N_HEADS, N_HEADS, D_MODEL / N_HEADS));
            rotary_projection(&x, &groups, parts, &angles, &none())
        });
    }

    fn rotary(context: usize, d_head: usize) -> Rotary<Learning> {
        let rope = Rope {
            base: 10_000.0,
            scaling: None,
        };
        Rotary::new(context, d_head, rope, &Default::default())
    }

    /// Heads of queries, of keys and values, and their width.
    fn of(n_heads: usize, n_kv_heads: usize, d_head: usize) -> Heads {
        Heads {
            n_heads,
            n_kv_heads,
            d_head,
        }
    }

    /// Without biases and norms of heads.
    fn plain<'a, B: Backend>(norm: &'a RmsNorm<B>, map: &'a Tensor<B, 2>) -> Projection<'a, B> {
        Projection {
            norm,
            map,
            bias: None,
            head_norms: Vec::new(),
        }
    }

    #[test]
    fn projections_turned_to_their_positions() {
        let causal = rotary(N, D_MODEL / N_HEADS).causal(N / 2);
        let some = causal.angles((0..N).map(|row| row * 3 % (N / 2)).collect());
        let d_head = D_MODEL / N_HEADS;
        for columns in [Columns::All, Columns::Queries, Columns::KeysValues] {
            for heads in [of(N_HEADS, N_HEADS, d_head), of(6, 2, d_head)] {
                let (parts, [_, _, d_out]) = ((columns, heads), columns.widths(heads));
                let dims = [[N, D_MODEL], [1, D_MODEL], [GROUPS.len() * D_MODEL, d_out]];
                agrees("rotary_projection, some", dims, |[x, gain, maps]| {
                    let (norm, maps) = (norm_of(gain), groups(maps));
                    let maps = each(&maps, |map| plain(&norm, map));
                    rotary_projection(&x, &maps, parts, &some, &none())
                });
                let dims = [[N, D_MODEL], [1, D_MODEL], [D_MODEL, d_out]];
                agrees("rotary_projection, all", dims, |[x, gain, map]| {
                    let norm = norm_of(gain);
                    let groups = Group::only(plain(&norm, &map), &x);
                    rotary_projection(&x, &groups, parts, &causal.all_angles(), &none())
                });
                with_biases_and_norms(parts, &some);
            }
        }
    }

    /// Biases of groups of their own; norms of heads that they share.
    fn with_biases_and_norms(parts: (Columns, Heads), angles: &Angles<Learning>) {
        let ((columns, heads), n) = (parts, GROUPS.len());
        let [_, _, d_out] = columns.widths(heads);
        let dims = [
            [N, D_MODEL],
            [1, D_MODEL],
            [n * D_MODEL, d_out],
            [n, d_out],
            [2, heads.d_head],
        ];
        let name = "rotary_projection, biases and norms of heads";
        agrees(name, dims, |[x, gain, maps, biases, gains]| {
            let (norm, maps) = (norm_of(gain), groups(maps));
            let row = |rows: &Tensor<Learning, 2>, row| rows.clone().slice_dim(0, row..row + 1);
            let norms = [0, 1].map(|index| norm_of(row(&gains, index)));
            let biases: Vec<_> = (0..n)
                .map(|group| row(&biases, group).squeeze_dim(0))
                .collect();
            let groups = maps.iter().zip(&biases).map(|(map, bias)| Group {
                of: Projection {
                    bias: Some(bias),
                    head_norms: norms.iter().take(columns.rotated(heads).len()).collect(),
                    ..plain(&norm, &map.of)
                },
                n_rows: map.n_rows,
            });
            let groups: Vec<_> = groups.collect();
            rotary_projection(&x, &groups, parts, angles, &none())
        });
    }

    /// Longer than the queries scored at once; heads of widths that are read where they lie, and of others.
    #[test]
    fn attention_of_whole_sequences() {
        let widths = [8, 6, 16, 24, 32, 48, 64, 80, 96, 128, 20];
        let shared = [of(6, 2, 8), of(4, 1, 20), of(3, 1, 24)];
        let heads = widths.map(|d_head| of(N_HEADS, N_HEADS, d_head));
        for heads in heads.into_iter().chain(shared) {
            let (d_head, [_, _, width]) = (heads.d_head, Columns::All.widths(heads));
            let causal = rotary(N, d_head).causal(N);
            agrees("causal_attention", [[2 * N, width]], |[packed]| {
                let scale = (d_head as f64).powf(-0.5);
                let mask = || causal.mask();
                causal_attention(packed * scale, heads, 2, causal.spans(), mask, DType::F32)
            });
        }
    }

    /// Windows of several texts: the passes take spans, what they are compared with a mask.
    #[test]
    fn attention_of_texts_in_windows() {
        let segments = Segments::new(N, &[N - 40, 33, 1, 6, N]);
        for heads in [of(N_HEADS, N_HEADS, 8), of(2, 2, 6), of(6, 2, 16)] {
            let (d_head, [_, _, width]) = (heads.d_head, Columns::All.widths(heads));
            let causal = rotary(N, d_head).causal_of(N, &segments);
            assert!(causal.spans().is_some());
            agrees("causal_attention", [[2 * N, width]], |[packed]| {
                let (scale, mask) = ((d_head as f64).powf(-0.5), || causal.mask());
                causal_attention(packed * scale, heads, 2, causal.spans(), mask, DType::F32)
            });
        }
    }

    /// Rows in an order of their own, in few parts and in more than one pass takes.
    #[test]
    fn attention_of_tokens_apart() {
        let spans = AttentionSpans {
            n_queries: vec![3, 1, 2],
            n_keys: vec![9, 5, 2],
            visible: vec![1, 4, 9, 5, 1, 2],
        };
        for n_parts in [1, 2, 3, 5, 8, 12, 40] {
            let rows_of_part = 18usize.div_ceil(n_parts);
            let place = |key: usize| {
                let row = (key * 7 + 3) % 18;
                RowPlace {
                    part: row % n_parts,
                    row: row / n_parts,
                }
            };
            let d_head = D_MODEL / N_HEADS;
            for heads in [of(N_HEADS, N_HEADS, d_head), of(6, 2, d_head)] {
                let n_rows = n_parts * rows_of_part;
                let of_keys = [n_rows, 2 * heads.d_keys()];
                let among = |parts: Matrix| {
                    let keys_values = Parts {
                        parts: parts.chunk(n_parts, 0).into_iter().map(shared).collect(),
                        places: (0..16).map(place).collect(),
                    };
                    Among::plain(keys_values, spans.clone())
                };
                let dims = [[6, heads.d_queries()], of_keys];
                agrees("attention_over_spans", dims, |[queries, parts]| {
                    attention_over_spans(queries, &among(parts), heads, DType::F32)
                });
                let dims = [[6, heads.d_queries()], of_keys, [16, 1]];
                agrees("attention_over_spans", dims, |[queries, parts, bias]| {
                    let among = Among {
                        bias: Some(bias),
                        ..among(parts)
                    };
                    attention_over_spans(queries, &among, heads, DType::F32)
                });
            }
        }
    }

    /// Some keys belong to no group, and one group has none.
    #[test]
    fn attention_to_groups_of_keys() {
        let spans = AttentionSpans {
            n_queries: vec![3, 1, 2],
            n_keys: vec![9, 5, 2],
            visible: vec![1, 4, 9, 5, 1, 2],
        };
        let groups: Vec<Option<usize>> = (0..16)
            .map(|key| [None, Some(0), Some(2)][key % 3])
            .collect();
        for heads in [of(2, 2, 8), of(6, 2, 5)] {
            let dims = [[6, heads.d_queries()], [16, 2 * heads.d_keys()], [16, 1]];
            let [queries, keys_values, bias] =
                std::array::from_fn(|index| random(&format!("{index}"), dims[index]));
            let among = Among {
                bias: Some(bias),
                ..Among::plain(Parts::one(keys_values), spans.clone())
            };
            let found = || -> Vec<f32> {
                let found = mass(queries.clone(), &among, heads, &groups, 3);
                found.into_data().iter().collect()
            };
            let before = FUSED.get();
            let fused = found();
            assert!(FUSED.get() > before, "nothing is fused");
            let mut defined = Vec::new();
            composed(|| defined = found());
            for (index, (fused, defined)) in fused.iter().zip(&defined).enumerate() {
                assert!((fused - defined).abs() < 1e-6, "{index}: {fused} {defined}");
                assert!(index % 3 != 1 || *fused == 0.0, "{index}: {fused}");
            }
            // The first query sees one key, which belongs to nobody; others see more than none.
            assert_eq!(fused[..3], [0.0; 3]);
            assert!(fused[3..].iter().any(|&mass| mass > 0.1 && mass < 1.0));
        }
    }

    #[test]
    fn probabilities_and_losses() {
        for width in [2, 5, 300] {
            agrees("softmax", [[7, width]], |[scores]| softmax(&(scores * 4.0)));
            let n = (width - 1).max(2);
            let chosen: Vec<Option<usize>> =
                (0..7).map(|row| (row != 3).then_some(row % n)).collect();
            agrees("chosen_probability", [[7, width]], |[scores]| {
                chosen_probability(&(scores * 4.0), &chosen, n)
            });
            let targets: Vec<i64> = (0..7).map(|row| row * 5 % width as i64).collect();
            let targets = Tensor::from_data(TensorData::new(targets, [7]), &Default::default());
            // Some numbers far beyond the cap.
            agrees("soft_cap", [[70, width]], |[x]| soft_cap(x * 4.0, 5.0));
            agrees("log_sum_exp", [[7, width]], |[x]| log_sum_exp(x * 4.0));
            agrees("cross_entropy", [[7, width]], |[scores]| {
                cross_entropy(scores * 4.0, targets.clone())
            });
        }
    }

    #[test]
    fn routers() {
        // Biases as a row, so that all inputs are of one kind.
        let dims = [[N, 12], [N, 5], [17, 12], [1, 12], [12, 4], [1, 4]];
        agrees(
            "router_scores",
            dims,
            |[hidden, position, first, first_bias, second, second_bias]| {
                let linear = |weight: Matrix, bias: Matrix| {
                    let mut linear = map_of(weight);
                    let bias = bias.squeeze_dim(0);
                    let bias = Param::from_mapped_value(ParamId::new(), bias, Default::default());
                    linear.bias = Some(bias);
                    linear
                };
                let (first, second) = (linear(first, first_bias), linear(second, second_bias));
                router_scores(hidden, position, &first, &second, &none())
            },
        );
    }

    #[test]
    fn gains_of_zero() {
        let which = [3, 0, 6, 5];
        agrees(
            "straight_through",
            [[4, D_MODEL], [7, 1]],
            |[after, gain]| {
                let before = random("before", [7, D_MODEL]);
                let gain = gain.clone() - gain.detach();
                straight_through(after.clone(), [&after, &before], &gain, &which)
            },
        );
    }

    #[test]
    fn rows_columns_and_shapes() {
        agrees("rows", [[7, 5]], |[x]| rows(x, &[3, 0, 3, 6, 3, 1]));
        for n_parts in [1, 2, 3, 5, 10, 40] {
            // The second part has a place of the first one too.
            let which: Vec<usize> = (0..2 * n_parts)
                .map(|row| (row * 7 + row / 3) % 90)
                .collect();
            agrees("replace", [[90, 5], [2 * n_parts, 5]], |[into, parts]| {
                replace(into, &which, parts.chunk(n_parts, 0))
            });
        }
        for is_shared in [false, true] {
            agrees("columns", [[7, 12]], |[map]| {
                let map = if is_shared { shared(map) } else { map };
                cat(vec![columns(&map, 2..7), columns(&map, 4..12), map], 1)
            });
        }
        agrees("reshape", [[6, 4]], |[x]| {
            let there: Tensor<Learning, 3> = reshape(x.transpose(), [2, 3, 4]);
            reshape::<_, 3, 2>(there, [8, 3])
        });
    }
}
