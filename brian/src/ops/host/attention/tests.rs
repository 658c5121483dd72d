//! Tests of fused attention on the host: outputs and gradients against sums key by key in double precision, with this machine's
//! vector instructions and without.

use super::*;
use crate::random;
use ndarray::ArrayView1;

const HEADS: usize = 2;
/// Single precision over some tens of keys.
const SINGLE: f64 = 1e-5;

fn numbers(name: &str, dims: [usize; 2], size: f32) -> Array2<f32> {
    let key = random::key(1, name, 0);
    let number = |(row, column)| random::normal(key, (row * dims[1] + column) as u64) as f32;
    Array2::from_shape_fn(dims, number) * size
}

/// More queries than are scored at once and fewer, keys in no whole lanes, and any number of them seen.
fn spans() -> Arc<AttentionSpans> {
    let first = (0..35).map(|query| 1 + query * 17 % 41);
    Arc::new(AttentionSpans {
        n_queries: vec![35, 3, 1],
        n_keys: vec![41, 19, 1],
        visible: first.chain([19, 1, 8, 1]).collect(),
    })
}

/// Where the keys of each query begin, and how many it sees.
fn seen(spans: &AttentionSpans) -> Vec<Range<usize>> {
    let mut first = 0;
    let sizes = spans.n_queries.iter().zip(&spans.n_keys);
    let firsts: Vec<usize> = sizes
        .flat_map(|(&n_queries, &n_keys)| {
            let own = vec![first; n_queries];
            first += n_keys;
            own
        })
        .collect();
    let pairs = firsts.into_iter().zip(&spans.visible);
    pairs
        .map(|(first, visible)| first..first + visible)
        .collect()
}

/// What a query finds in one head, key by key, and the logarithm of its sum; the bias of keys is added to their scores.
fn found(
    query: ArrayView1<f64>,
    lines: &Array2<f64>,
    bias: &[f64],
    head: usize,
    keys: Range<usize>,
) -> (Vec<f64>, f64) {
    let (width, d_model) = (query.len(), lines.ncols() / 2);
    let score = |key: usize| {
        let line = lines.row(key);
        let product = |place: usize| query[place] * line[head * width + place];
        bias[key] + (0..width).map(product).sum::<f64>()
    };
    let scores: Vec<f64> = keys.clone().map(score).collect();
    let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let whole: f64 = scores.iter().map(|score| (score - peak).exp()).sum();
    let value = |place: usize| {
        let values = keys.clone().zip(&scores);
        let shares = values.map(|(key, score)| {
            (score - peak).exp() / whole * lines[[key, d_model + head * width + place]]
        });
        shares.sum()
    };
    ((0..width).map(value).collect(), peak + whole.ln())
}

fn of_head(x: &Array2<f64>, row: usize, head: usize) -> Vec<f64> {
    let width = x.ncols() / HEADS;
    x.row(row)
        .iter()
        .skip(head * width)
        .take(width)
        .copied()
        .collect()
}

fn weighed(
    spans: &AttentionSpans,
    queries: &Array2<f64>,
    lines: &Array2<f64>,
    bias: &[f64],
    weights: &Array2<f64>,
) -> f64 {
    let mut sum = 0.0;
    for (row, keys) in seen(spans).into_iter().enumerate() {
        for head in 0..HEADS {
            let query = of_head(queries, row, head);
            let (values, _) = found(ArrayView1::from(&query), lines, bias, head, keys.clone());
            let weights = of_head(weights, row, head);
            sum += values
                .iter()
                .zip(weights)
                .map(|(value, weight)| value * weight)
                .sum::<f64>();
        }
    }
    sum
}

/// As many heads of keys and values as of queries.
fn heads(n_heads: usize, d_head: usize) -> Heads {
    Heads {
        n_heads,
        n_kv_heads: n_heads,
        d_head,
    }
}

/// As this machine runs it, or as one without its instructions.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Here,
    Anywhere,
}

fn forward<'a>(
    way: Way,
    attend: &'a Attend,
    queries: &'a Array2<f32>,
    lines: KeysValues<'a>,
    bias: &'a [f32],
) -> (Array2<f32>, Array2<f32>) {
    if way == Way::Here {
        return attend.forward(queries.view(), lines, bias);
    }
    let mut out = Array2::zeros(queries.dim());
    let mut sums = Array2::zeros([queries.nrows(), attend.of.n_heads]);
    let sizes = &attend.spans.n_queries;
    let outputs = attend
        .cut(out.view_mut(), sizes)
        .into_iter()
        .zip(attend.cut(sums.view_mut(), sizes));
    let heads = attend.heads(queries.view(), lines, bias).into_iter();
    heads
        .zip(outputs)
        .for_each(|(head, (out, sums))| head.forward_packed(out, sums));
    (out, sums)
}

/// The gradients of queries, of keys and values added to ones, and of the bias.
fn backward<'a>(
    way: Way,
    attend: &'a Attend,
    queries: &'a Array2<f32>,
    (lines, bias): (KeysValues<'a>, &'a [f32]),
    n_keys: usize,
    sums: &Array2<f32>,
    weights: &Array2<f32>,
) -> [Array2<f32>; 3] {
    let mut of_queries = Array2::zeros(queries.dim());
    let mut of_lines = Array2::ones([n_keys, 2 * queries.ncols()]);
    let to: Vec<&mut [f32]> = of_lines.rows_mut().into_iter().map(whole_row).collect();
    if way == Way::Here {
        let of_bias = attend.backward(
            queries.view(),
            lines,
            bias,
            sums,
            weights.view(),
            of_queries.view_mut(),
            to,
        );
        return [of_queries, of_lines, column(of_bias)];
    }
    let width = queries.ncols() / attend.of.n_heads;
    let of = attend.cut(of_queries.view_mut(), &attend.spans.n_queries);
    let outputs = of.into_iter().zip(attend.cut_lines(to));
    let mut of_bias = vec![0.0; bias.len()];
    let heads = attend.heads(queries.view(), lines, bias).into_iter();
    for (index, (head, (of_queries, mut of_keys_values))) in heads.zip(outputs).enumerate() {
        let [first, column] = head.place;
        let rows = first..first + head.queries.nrows();
        let weights = part(weights.view(), 0, rows.clone());
        let weights = part(weights, 1, column * width..(column + 1) * width);
        let sums: Vec<f32> = rows.map(|row| sums[[row, column]]).collect();
        let before = &attend.spans.n_keys[..index / attend.of.n_heads];
        let first_key: usize = before.iter().sum();
        let to = Gradients {
            of_queries,
            of_keys_values: &mut of_keys_values,
            of_bias: of_bias
                .get_mut(first_key..first_key + head.bias.len())
                .unwrap_or_default(),
        };
        head.backward_packed(&sums, weights, to);
    }
    [of_queries, of_lines, column(of_bias)]
}

/// For widths of a head with lanes of their own and without, scores around 1, and some far above all others.
#[test]
fn attention_finds_what_it_finds_key_by_key_and_so_does_its_gradient() {
    let spans = spans();
    let [n_queries, n_keys] = [&spans.n_queries, &spans.n_keys].map(|sizes| sizes.iter().sum());
    for (width, size) in [
        (4, 1.0),
        (8, 0.6),
        (8, 4.0),
        (12, 4.0),
        (16, 0.5),
        (32, 0.4),
        (64, 3.0),
    ] {
        let d_model = HEADS * width;
        let queries = numbers("queries", [n_queries, d_model], size);
        let lines = numbers("lines", [n_keys, 2 * d_model], size);
        let weights = numbers("weights", [n_queries, d_model], 1.0);
        let of_keys = numbers("bias", [n_keys, 1], size)
            .into_raw_vec_and_offset()
            .0;
        let [in_double, lines_in_double, weights_in_double] =
            [&queries, &lines, &weights].map(|numbers| numbers.mapv(f64::from));
        let attend = Attend::new(heads(HEADS, width), &spans);
        // A score of hundreds is known to so much less.
        let tolerance = SINGLE * f64::from(1.0 + 10.0 * size * size);
        let apart: Vec<&[f32]> = lines
            .rows()
            .into_iter()
            .map(|row| row.to_slice().expect("whole"))
            .collect();
        for (way, lie) in [Way::Here, Way::Anywhere]
            .into_iter()
            .flat_map(|way| [(way, true), (way, false)])
        {
            let what = format!("{way:?}, whole {lie}, width {width}, size {size}");
            let lies = || match lie {
                true => KeysValues::Whole(lines.view()),
                false => KeysValues::Apart(&apart),
            };
            // Only keys that lie apart can have one.
            let bias = if lie { &[][..] } else { &of_keys };
            let mut bias_in_double = vec![0.0; n_keys];
            let pairs = bias_in_double.iter_mut().zip(bias);
            pairs.for_each(|(to, &bias)| *to = f64::from(bias));
            let (out, sums) = forward(way, &attend, &queries, lies(), bias);
            for (row, keys) in seen(&spans).into_iter().enumerate() {
                for head in 0..HEADS {
                    let query = of_head(&in_double, row, head);
                    let (values, sum) = found(
                        ArrayView1::from(&query),
                        &lines_in_double,
                        &bias_in_double,
                        head,
                        keys.clone(),
                    );
                    let off = (f64::from(sums[[row, head]]) - sum).abs();
                    assert!(off < tolerance * (1.0 + sum.abs()), "{what}: sum {sum}");
                    for (place, value) in values.into_iter().enumerate() {
                        let off = f64::from(out[[row, head * width + place]]) - value;
                        assert!(
                            off.abs() < tolerance * f64::from(4.0 * size),
                            "{what}, row {row}: {off:e}"
                        );
                    }
                }
            }
            let among = (lies(), bias);
            let [of_queries, of_lines, of_bias] =
                backward(way, &attend, &queries, among, n_keys, &sums, &weights);
            let of_lines = of_lines - 1.0;
            let largest = |x: &Array2<f32>| x.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
            let key = random::key(2, &what, 0);
            for draw in 0..9 {
                let index = random::bits(key, draw) as usize;
                let of = [&of_queries, &of_lines, &of_bias][draw as usize % 3];
                if of.is_empty() {
                    continue;
                }
                let place = [index / 7 % of.nrows(), index % of.ncols()];
                let moved = |by: f64| {
                    let [mut queries, mut lines] = [in_double.clone(), lines_in_double.clone()];
                    let mut bias = bias_in_double.clone();
                    match draw % 3 {
                        0 => queries[place] += by,
                        1 => lines[place] += by,
                        _ => bias[place[0]] += by,
                    }
                    weighed(&spans, &queries, &lines, &bias, &weights_in_double)
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                let off = (f64::from(of[place]) - slope).abs() / f64::from(largest(of));
                assert!(
                    off < 4.0 * tolerance,
                    "{what}: {place:?} of input {}: {off:e}",
                    draw % 3
                );
            }
        }
    }
}

/// A key a thousand above another gets all: its value is found, to the bit, and only that value has a gradient. What
/// is left of the others is the least exponential, `e^−87`.
#[test]
fn a_key_far_above_the_others_gets_all() {
    let spans = Arc::new(AttentionSpans {
        n_queries: vec![1],
        n_keys: vec![3],
        visible: vec![2],
    });
    for (width, sign) in [(8, 1.0), (8, -1.0), (4, 1.0), (4, -1.0)] {
        let attend = Attend::new(heads(1, width), &spans);
        let queries = Array2::from_elem([1, width], 1.0);
        // Scores of 0 or -2000 and of 1000 or -1000; a third key, as high as a number can be, is not seen.
        let score =
            |key: usize| [500.0 * (sign - 1.0) * 2.0, 1000.0 * sign, 1e30][key] / width as f32;
        let values = Array2::from_shape_fn([3, width], |(key, place)| (key * 10 + place) as f32);
        let lines = Array2::from_shape_fn([3, 2 * width], |(key, column)| {
            match column.checked_sub(width) {
                Some(place) => values[[key, place]],
                None => score(key),
            }
        });
        for way in [Way::Here, Way::Anywhere] {
            let (out, sums) = forward(way, &attend, &queries, KeysValues::Whole(lines.view()), &[]);
            assert_eq!(out.row(0), values.row(1), "{way:?}, {width}, {sign}");
            assert_eq!(sums[[0, 0]], 1000.0 * sign);
            let weights = Array2::ones([1, width]);
            let whole = (KeysValues::Whole(lines.view()), &[][..]);
            let [of_queries, of_lines, _] =
                backward(way, &attend, &queries, whole, 3, &sums, &weights);
            assert!(
                of_queries.iter().all(|gradient| gradient.abs() < 1e-30),
                "{way:?}: {of_queries}"
            );
            let expected = Array2::from_shape_fn([3, 2 * width], |(key, column)| {
                if key == 1 && column >= width {
                    2.0
                } else {
                    1.0
                }
            });
            let off = (&of_lines - &expected)
                .iter()
                .fold(0.0, |a: f32, b| a.max(b.abs()));
            assert!(off < 1e-30, "{way:?}: {of_lines}");
        }
    }
}
