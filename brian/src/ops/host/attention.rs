//! Fused attention on the host: `softmax(q kᵀ) v` in blocks of queries, over the keys that each query sees. The whole matrix of
//! scores is never in memory, forward or backward (after FlashAttention, Dao et al. 2022, without its blocks of keys).

use super::super::attention::{Among, Heads};
use super::super::attention_spans::AttentionSpans;
use super::super::gather::{Parts, RowPlace};
use super::custom_op::{Flow, input, most_inputs, run, run_many};
use super::head_products::{self as lines, Products};
use super::numeric::{Rows, exp, flat, flat_mut, part, vectorised};
use super::softmax::{to_probabilities, to_scores};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, CowArray, Ix2};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Queries that are scored at once.
const QUERIES: usize = 32;

/// See [`causal_attention`](super::super::attention::causal_attention).
pub(crate) fn causal_attention<B: Backend>(
    packed: &Tensor<B, 2>,
    of: Heads,
    spans: &Arc<AttentionSpans>,
) -> Option<Tensor<B, 2>> {
    let attend = Attend::new(of, spans);
    run([input(packed)], move |[packed]| {
        let (queries, keys_values) = packed.view().split_at(Axis(1), of.d_queries());
        let (found, sums) = attend.forward(queries, KeysValues::Whole(keys_values), &[]);
        let back = move |flow: Flow<'_>| {
            let (queries, keys_values) = packed.view().split_at(Axis(1), of.d_queries());
            let mut found = Array2::zeros(packed.dim());
            let (of_queries, mut of_keys_values) =
                found.view_mut().split_at(Axis(1), of.d_queries());
            let of_keys_values = of_keys_values.rows_mut().into_iter().map(whole_row);
            attend.backward(
                queries,
                KeysValues::Whole(keys_values),
                &[],
                &sums,
                flow.gradient.view(),
                of_queries,
                of_keys_values.collect(),
            );
            vec![Some(found.into())]
        };
        (found, Box::new(back))
    })
}

/// See [`attention_over_spans`](super::super::attention::attention_over_spans).
pub(crate) fn attention_over_spans<B: Backend>(
    queries: &Tensor<B, 2>,
    among: &Among<B>,
    of: Heads,
) -> Option<Tensor<B, 2>> {
    let Among {
        keys_values,
        bias,
        spans,
    } = among;
    let n_apart = 1 + usize::from(bias.is_some());
    if n_apart + keys_values.parts.len() > most_inputs::<B>() {
        let one = Among {
            keys_values: Parts::one(keys_values.clone().gather()),
            ..among.clone()
        };
        return attention_over_spans(queries, &one, of);
    }
    let attend = Attend::new(of, spans);
    let places = keys_values.places.clone();
    let parts = keys_values.parts.iter();
    let inputs = [queries].into_iter().chain(bias).chain(parts);
    run_many(inputs.map(input).collect(), move |inputs| {
        let (queries, bias, lines) = apart(&inputs, n_apart, &places, of);
        let (found, sums) = attend.forward(queries.view(), KeysValues::Apart(&lines), bias);
        let back = move |Flow {
                             gradient, so_far, ..
                         }: Flow<'_>| {
            let (queries, bias, lines) = apart(&inputs, n_apart, &places, of);
            let mut of_queries = Array2::zeros(queries.dim());
            // Many keys and values get something from few queries, so it is added to the sums of their gradients in place.
            let of_part =
                |index: usize| so_far(index).unwrap_or_else(|| Array2::zeros(inputs[index].dim()));
            let mut of_parts: Vec<Array2<f32>> = (n_apart..inputs.len()).map(of_part).collect();
            let of_bias = attend.backward(
                queries.view(),
                KeysValues::Apart(&lines),
                bias,
                &sums,
                gradient.view(),
                of_queries.view_mut(),
                apart_mut(&mut of_parts, &places),
            );
            let of_bias = (n_apart > 1).then(|| column(of_bias));
            let found = [of_queries].into_iter().chain(of_bias).chain(of_parts);
            found.map(|found| Some(found.into())).collect()
        };
        (found, Box::new(back))
    })
}

/// See [`mass`](super::super::attention::mass). Nothing flows back.
pub(crate) fn mass<B: Backend>(
    queries: &Tensor<B, 2>,
    among: &Among<B>,
    of: Heads,
    groups: &[Option<usize>],
    n_groups: usize,
) -> Option<Tensor<B, 2>> {
    let Parts { parts, places } = &among.keys_values;
    let n_inputs = 1 + usize::from(among.bias.is_some()) + parts.len();
    if n_inputs > most_inputs::<B>() {
        return None;
    }
    let attend = Attend::new(of, &among.spans);
    let n_apart = n_inputs - parts.len();
    let (places, groups) = (places.clone(), groups.to_vec());
    let inputs = [queries].into_iter().chain(&among.bias).chain(parts);
    run_many(inputs.map(input).collect(), move |inputs| {
        let (queries, bias, lines) = apart(&inputs, n_apart, &places, of);
        let found = attend.mass(
            queries.view(),
            KeysValues::Apart(&lines),
            bias,
            &groups,
            n_groups,
        );
        let back = move |_: Flow<'_>| (0..n_inputs).map(|_| None).collect();
        (found, Box::new(back))
    })
}

fn column(numbers: Vec<f32>) -> Array2<f32> {
    Array2::from_shape_vec([numbers.len(), 1], numbers).expect("as many numbers")
}

/// The queries, what is added to the scores of keys, if `n_apart` says that there is such, and keys and values where they lie.
fn apart<'a>(
    inputs: &'a [Rows],
    n_apart: usize,
    places: &[RowPlace],
    of: Heads,
) -> (&'a Rows, &'a [f32], Vec<&'a [f32]>) {
    let (apart, parts) = inputs.split_at(n_apart);
    let width = 2 * of.d_keys();
    let parts: Vec<&[f32]> = parts.iter().map(flat).collect();
    let row = |at: &RowPlace| &parts[at.part][at.row * width..][..width];
    let bias = apart.get(1).map_or(&[][..], flat);
    (&apart[0], bias, places.iter().map(row).collect())
}

/// Where the gradients of keys and values lie, in those of the parts.
fn apart_mut<'a>(parts: &'a mut [Array2<f32>], places: &[RowPlace]) -> Vec<&'a mut [f32]> {
    let rows = |part: &'a mut Array2<f32>| {
        let width = part.ncols();
        let rows = flat_mut(part).chunks_exact_mut(width);
        rows.map(Some).collect()
    };
    let mut rows: Vec<Vec<Option<&mut [f32]>>> = parts.iter_mut().map(rows).collect();
    let row = |at: &RowPlace| rows[at.part][at.row].take().expect("no two in one place");
    places.iter().map(row).collect()
}

#[derive(Clone, Debug)]
struct Attend {
    of: Heads,
    spans: Arc<AttentionSpans>,
}

impl Attend {
    fn new(of: Heads, spans: &Arc<AttentionSpans>) -> Self {
        Self {
            of,
            spans: spans.clone(),
        }
    }

    /// The attention output, and per query and head the logarithm of the sum of its exponentials. `bias` is added to the scores of
    /// keys, or is empty.
    fn forward<'a>(
        &'a self,
        queries: ArrayView2<'a, f32>,
        keys_values: KeysValues<'a>,
        bias: &'a [f32],
    ) -> (Array2<f32>, Array2<f32>) {
        let mut found = Array2::zeros(queries.dim());
        let mut sums = Array2::zeros([queries.nrows(), self.of.n_heads]);
        let heads = self.heads(queries, keys_values, bias);
        let out = self.cut(found.view_mut(), &self.spans.n_queries);
        let out_sums = self.cut(sums.view_mut(), &self.spans.n_queries);
        heads
            .into_par_iter()
            .zip(out.into_par_iter().zip(out_sums))
            .for_each(|(head, (out, sums))| head.forward(out, sums));
        (found, sums)
    }

    /// The attention of every query to groups of keys, the mean over heads.
    fn mass<'a>(
        &'a self,
        queries: ArrayView2<'a, f32>,
        keys_values: KeysValues<'a>,
        bias: &'a [f32],
        groups: &[Option<usize>],
        n_groups: usize,
    ) -> Array2<f32> {
        let n_queries = queries.nrows();
        let first = |first: &mut usize, n: &usize| Some(std::mem::replace(first, *first + n));
        let first_keys: Vec<usize> = self.spans.n_keys.iter().scan(0, first).collect();
        let heads = self.heads(queries, keys_values, bias);
        let of_heads = heads.par_iter().enumerate().map(|(index, head)| {
            let groups = &groups[first_keys[index / self.of.n_heads]..];
            head.mass(groups, n_groups)
        });
        let of_heads: Vec<Array2<f32>> = of_heads.collect();
        let mut mass = Array2::zeros([n_queries, n_groups]);
        for (head, found) in heads.iter().zip(of_heads) {
            let [first, _] = head.place;
            let rows = first..first + found.nrows();
            let mut sum = mass.slice_axis_mut(Axis(0), rows.into());
            sum.scaled_add(1.0 / self.of.n_heads as f32, &found);
        }
        mass
    }

    /// Adds the gradients of keys and values to what is there; returns that of the bias.
    #[allow(clippy::too_many_arguments)]
    fn backward<'a>(
        &'a self,
        queries: ArrayView2<'a, f32>,
        keys_values: KeysValues<'a>,
        bias: &'a [f32],
        sums: &Array2<f32>,
        gradient: ArrayView2<f32>,
        of_queries: ArrayViewMut2<f32>,
        of_keys_values: Vec<&mut [f32]>,
    ) -> Vec<f32> {
        let heads = self.heads(queries, keys_values, bias);
        let mut of_queries = self.cut(of_queries, &self.spans.n_queries);
        let of_keys_values = self.cut_lines(of_keys_values);
        let n_biases = |n_keys: &usize| if bias.is_empty() { 0 } else { *n_keys };
        let n_biases = self.spans.n_keys.iter().map(n_biases);
        let of_every_head = n_biases.clone().flat_map(|n| vec![n; self.of.n_kv_heads]);
        let mut of_biases: Vec<Vec<f32>> = of_every_head.map(|n| vec![0.0; n]).collect();
        // Heads that share keys and values add to the same gradients, so one thread runs them, one behind the other.
        let n_sharing = self.of.n_sharing();
        let of_queries = of_queries.par_chunks_mut(n_sharing);
        heads
            .par_chunks(n_sharing)
            .zip(of_queries.zip(of_keys_values).zip(&mut of_biases))
            .for_each(|(heads, ((of_queries, mut of_keys_values), of_bias))| {
                for (head, of_queries) in heads.iter().zip(of_queries) {
                    let [first, column] = head.place;
                    let rows = first..first + head.queries.nrows();
                    let width = head.queries.ncols();
                    let gradient = part(gradient, 0, rows.clone());
                    let gradient = part(gradient, 1, column * width..(column + 1) * width);
                    let sums: Vec<f32> = rows.map(|row| sums[[row, column]]).collect();
                    let to = Gradients {
                        of_queries: of_queries.view_mut(),
                        of_keys_values: &mut of_keys_values,
                        of_bias,
                    };
                    head.backward(&sums, gradient, to);
                }
            });
        let mut sums = Vec::with_capacity(bias.len());
        for (of_heads, n) in of_biases.chunks(self.of.n_kv_heads).zip(n_biases) {
            let sum = |key: usize| of_heads.iter().map(|of_head| of_head[key]).sum::<f32>();
            sums.extend((0..n).map(sum));
        }
        sums
    }

    /// Sequence by sequence, head by head.
    fn heads<'a>(
        &'a self,
        queries: ArrayView2<'a, f32>,
        keys_values: KeysValues<'a>,
        bias: &'a [f32],
    ) -> Vec<Head<'a>> {
        let Heads {
            n_heads, d_head, ..
        } = self.of;
        let (mut first_query, mut first_key) = (0, 0);
        let mut heads = Vec::with_capacity(self.spans.n_queries.len() * n_heads);
        for (&n_queries, &n_keys) in self.spans.n_queries.iter().zip(&self.spans.n_keys) {
            let rows = first_query..first_query + n_queries;
            let keys = first_key..first_key + n_keys;
            for head in 0..n_heads {
                let of_head = |head: usize| head * d_head..(head + 1) * d_head;
                let columns = of_head(head / self.of.n_sharing());
                let behind = of_head(self.of.n_kv_heads + head / self.of.n_sharing());
                heads.push(Head {
                    queries: part(part(queries, 0, rows.clone()), 1, of_head(head)),
                    keys: keys_values.part(keys.clone(), columns),
                    values: keys_values.part(keys.clone(), behind),
                    bias: bias.get(keys.clone()).unwrap_or_default(),
                    visible: &self.spans.visible[rows.clone()],
                    place: [first_query, head],
                });
            }
            first_query += n_queries;
            first_key += n_keys;
        }
        heads
    }

    /// The same parts of rows that are to be written.
    fn cut<'a>(
        &self,
        mut rows: ArrayViewMut2<'a, f32>,
        sizes: &[usize],
    ) -> Vec<ArrayViewMut2<'a, f32>> {
        let n_heads = self.of.n_heads;
        let width = rows.ncols() / n_heads;
        let mut parts = Vec::with_capacity(sizes.len() * n_heads);
        for &size in sizes {
            let (mut sequence, rest) = rows.split_at(Axis(0), size);
            rows = rest;
            for _ in 0..n_heads {
                let (head, rest) = sequence.split_at(Axis(1), width);
                sequence = rest;
                parts.push(head);
            }
        }
        parts
    }

    /// Keys and values that are to be written, of each sequence and each of their heads.
    fn cut_lines<'a>(&self, lines: Vec<&'a mut [f32]>) -> Vec<[Lines<'a>; 2]> {
        let n_heads = self.of.n_kv_heads;
        let mut parts = Vec::with_capacity(self.spans.n_keys.len() * n_heads);
        let mut lines = lines.into_iter();
        for &size in &self.spans.n_keys {
            let first = parts.len();
            parts.resize_with(first + n_heads, || {
                [(); 2].map(|()| Vec::with_capacity(size))
            });
            for line in lines.by_ref().take(size) {
                let (keys, values) = line.split_at_mut(line.len() / 2);
                let width = keys.len() / n_heads;
                let pairs = keys
                    .chunks_exact_mut(width)
                    .zip(values.chunks_exact_mut(width));
                for (part, (keys, values)) in parts[first..].iter_mut().zip(pairs) {
                    part[0].push(keys);
                    part[1].push(values);
                }
            }
        }
        parts
    }
}

/// Rows that lie apart.
type Lines<'a> = Vec<&'a mut [f32]>;

/// Keys and values, side by side.
#[derive(Clone, Copy)]
enum KeysValues<'a> {
    /// Row after row.
    Whole(ArrayView2<'a, f32>),
    /// Rows that lie apart.
    Apart(&'a [&'a [f32]]),
}

impl<'a> KeysValues<'a> {
    fn part(self, rows: Range<usize>, columns: Range<usize>) -> Columns<'a> {
        let lines = match self {
            Self::Whole(lines) => Self::Whole(part(part(lines, 0, rows), 1, columns.clone())),
            Self::Apart(lines) => Self::Apart(&lines[rows]),
        };
        Columns { lines, columns }
    }
}

/// Those of one head of one sequence.
struct Columns<'a> {
    lines: KeysValues<'a>,
    columns: Range<usize>,
}

impl<'a> Columns<'a> {
    /// As one matrix.
    fn load(&self) -> CowArray<'a, f32, Ix2> {
        let lines = match self.lines {
            KeysValues::Whole(view) => return view.into(),
            KeysValues::Apart(lines) => lines,
        };
        let mut loaded = Vec::with_capacity(lines.len() * self.columns.len());
        for line in lines {
            loaded.extend_from_slice(&line[self.columns.clone()]);
        }
        let loaded = Array2::from_shape_vec([lines.len(), self.columns.len()], loaded);
        loaded.expect("so many rows").into()
    }

    /// Row by row, where they lie.
    fn rows<const N: usize>(&self) -> Vec<&lines::Row<N>> {
        match &self.lines {
            KeysValues::Whole(view) => rows_of(view),
            KeysValues::Apart(rows) => {
                lines::rows(rows.iter().map(|row| &row[self.columns.clone()]))
            }
        }
    }
}

/// One head of one sequence.
struct Head<'a> {
    queries: ArrayView2<'a, f32>,
    keys: Columns<'a>,
    values: Columns<'a>,
    /// Added to the scores of keys, or empty.
    bias: &'a [f32],
    /// How many keys each query sees: the first ones.
    visible: &'a [usize],
    /// First row of the queries, and which head.
    place: [usize; 2],
}

/// Where the gradients of a head go.
struct Gradients<'a, 'l> {
    of_queries: ArrayViewMut2<'a, f32>,
    of_keys_values: &'a mut [Lines<'l>; 2],
    of_bias: &'a mut [f32],
}

impl Head<'_> {
    /// Blocks of queries, and how many keys any query of the block sees.
    fn blocks(&self) -> impl Iterator<Item = (Range<usize>, usize)> {
        let n_queries = self.visible.len();
        (0..n_queries).step_by(QUERIES).map(move |start| {
            let block = start..(start + QUERIES).min(n_queries);
            let n_keys = self.visible[block.clone()].iter().copied().max();
            (block, n_keys.unwrap_or(0))
        })
    }

    /// Scores of a block, `[queries, n_keys]`.
    fn scores(&self, block: &Range<usize>, keys: ArrayView2<f32>) -> Array2<f32> {
        let mut scores = Array2::zeros([block.len(), keys.nrows()]);
        let queries = part(self.queries, 0, block.clone());
        general_mat_mul(1.0, &queries, &keys.t(), 0.0, &mut scores);
        scores
    }

    fn forward(&self, mut out: ArrayViewMut2<f32>, mut sums: ArrayViewMut2<f32>) {
        let (to, ends) = (&mut out, &mut sums);
        let done = match self.queries.ncols() {
            8 => self.forward_lines::<1>(to, ends),
            16 => self.forward_lines::<2>(to, ends),
            24 => self.forward_lines::<3>(to, ends),
            32 => self.forward_lines::<4>(to, ends),
            48 => self.forward_lines::<6>(to, ends),
            64 => self.forward_lines::<8>(to, ends),
            80 => self.forward_lines::<10>(to, ends),
            96 => self.forward_lines::<12>(to, ends),
            128 => self.forward_lines::<16>(to, ends),
            _ => None,
        };
        done.unwrap_or_else(|| self.forward_packed(out, sums));
    }

    /// The attention of every query to groups of keys.
    fn mass(&self, groups: &[Option<usize>], n_groups: usize) -> Array2<f32> {
        let keys = self.keys.load();
        let mut mass = Array2::zeros([self.visible.len(), n_groups]);
        for (block, n_keys) in self.blocks() {
            let mut scores = self.scores(&block, part(keys.view(), 0, 0..n_keys));
            let rows = flat_mut(&mut scores).chunks_exact_mut(n_keys);
            for (row, shares) in block.zip(rows) {
                vectorised!({
                    add_to(shares, self.bias);
                    softmax(shares, self.visible[row]);
                });
                for (share, group) in shares.iter().zip(groups) {
                    if let Some(group) = group {
                        mass[[row, *group]] += share;
                    }
                }
            }
        }
        mass
    }

    fn backward(&self, sums: &[f32], gradient: ArrayView2<f32>, mut to: Gradients<'_, '_>) {
        let done = match self.queries.ncols() {
            8 => self.backward_lines::<1>(sums, gradient, &mut to),
            16 => self.backward_lines::<2>(sums, gradient, &mut to),
            24 => self.backward_lines::<3>(sums, gradient, &mut to),
            32 => self.backward_lines::<4>(sums, gradient, &mut to),
            48 => self.backward_lines::<6>(sums, gradient, &mut to),
            64 => self.backward_lines::<8>(sums, gradient, &mut to),
            80 => self.backward_lines::<10>(sums, gradient, &mut to),
            96 => self.backward_lines::<12>(sums, gradient, &mut to),
            128 => self.backward_lines::<16>(sums, gradient, &mut to),
            _ => None,
        };
        done.unwrap_or_else(|| self.backward_packed(sums, gradient, to));
    }

    /// With keys and values in place; `None` if this machine lacks the instructions.
    fn forward_lines<const N: usize>(
        &self,
        out: &mut ArrayViewMut2<f32>,
        sums: &mut ArrayViewMut2<f32>,
    ) -> Option<()> {
        let products = Products::new()?;
        let (keys, values) = (self.keys.rows::<N>(), self.values.rows());
        let queries = rows_of(&self.queries);
        for (block, n_keys) in self.blocks() {
            let (queries, visible) = (&queries[block.clone()], &self.visible[block.clone()]);
            let stride = n_keys.next_multiple_of(lines::COMPARED);
            let mut scores = vec![0.0; stride * queries.len()];
            let mut found = [[[0.0; 8]; N]; QUERIES];
            let mut ends = [0.0; QUERIES];
            vectorised!({
                products.compare(queries, &keys[..n_keys], visible, stride, &mut scores);
                let rows = scores.chunks_exact_mut(stride);
                for ((row, &visible), end) in rows.zip(visible).zip(&mut ends) {
                    add_to(row, self.bias);
                    *end = softmax(row, visible);
                }
                let found = &mut found[..queries.len()];
                products.gather(&scores, &values[..n_keys], visible, stride, found);
            });
            for (row, (found, end)) in block.zip(found.iter().zip(ends)) {
                whole_row(out.row_mut(row)).copy_from_slice(found.as_flattened());
                sums[[row, 0]] = end;
            }
        }
        Some(())
    }

    fn backward_lines<const N: usize>(
        &self,
        sums: &[f32],
        gradient: ArrayView2<f32>,
        to: &mut Gradients<'_, '_>,
    ) -> Option<()> {
        let products = Products::new()?;
        let (keys, values) = (self.keys.rows::<N>(), self.values.rows());
        let (queries, gradient) = (rows_of(&self.queries), rows_of(&gradient));
        let [mut of_keys, mut of_values] = to.of_keys_values.each_mut().map(rows_to);
        for (block, n_keys) in self.blocks() {
            let [keys, values] = [&keys, &values].map(|rows| &rows[..n_keys]);
            let [queries, gradient] = [&queries, &gradient].map(|rows| &rows[block.clone()]);
            let visible = &self.visible[block.clone()];
            let stride = n_keys.next_multiple_of(lines::COMPARED);
            // First scores, then probabilities; first the gradient of those, then that of scores.
            let mut shares = vec![0.0; stride * queries.len()];
            let mut of_scores = shares.clone();
            let mut found = [[[0.0; 8]; N]; QUERIES];
            vectorised!({
                products.compare(queries, keys, visible, stride, &mut shares);
                products.compare(gradient, values, visible, stride, &mut of_scores);
                let rows = shares.chunks_exact_mut(stride);
                let rows = rows.zip(of_scores.chunks_exact_mut(stride));
                let sums = &sums[block.clone()];
                for (((shares, of_scores), &visible), &sum) in rows.zip(visible).zip(sums) {
                    add_to(shares, self.bias);
                    softmax_back(shares, of_scores, visible, sum);
                    add_to(to.of_bias, of_scores);
                }
                let found = &mut found[..queries.len()];
                products.gather(&of_scores, keys, visible, stride, found);
                let of_keys = &mut of_keys[..n_keys];
                products.scatter(&of_scores, queries, visible, stride, of_keys);
                let of_values = &mut of_values[..n_keys];
                products.scatter(&shares, gradient, visible, stride, of_values);
            });
            for (row, found) in block.zip(&found) {
                whole_row(to.of_queries.row_mut(row)).copy_from_slice(found.as_flattened());
            }
        }
        Some(())
    }

    fn forward_packed(&self, mut out: ArrayViewMut2<f32>, mut sums: ArrayViewMut2<f32>) {
        let (keys, values) = (self.keys.load(), self.values.load());
        for (block, n_keys) in self.blocks() {
            let mut scores = self.scores(&block, part(keys.view(), 0, 0..n_keys));
            let visible = &self.visible[block.clone()];
            let mut found = vec![0.0; block.len()];
            vectorised!({
                let rows = flat_mut(&mut scores).chunks_exact_mut(n_keys);
                for ((row, &visible), found) in rows.zip(visible).zip(&mut found) {
                    add_to(row, self.bias);
                    *found = softmax(row, visible);
                }
            });
            for (row, found) in block.clone().zip(found) {
                sums[[row, 0]] = found;
            }
            let values = part(values.view(), 0, 0..n_keys);
            let mut out = part(out.view_mut(), 0, block);
            general_mat_mul(1.0, &scores, &values, 0.0, &mut out);
        }
    }

    fn backward_packed(&self, sums: &[f32], gradient: ArrayView2<f32>, to: Gradients<'_, '_>) {
        let Gradients {
            mut of_queries,
            of_keys_values,
            of_bias,
        } = to;
        let (keys, values) = (self.keys.load(), self.values.load());
        let [mut of_keys, mut of_values] = [&keys, &values].map(|all| Array2::zeros(all.dim()));
        for (block, n_keys) in self.blocks() {
            let [keys, values] = [&keys, &values].map(|all| part(all.view(), 0, 0..n_keys));
            // First scores, then probabilities.
            let mut shares = self.scores(&block, keys);
            let queries = part(self.queries, 0, block.clone());
            let gradient = part(gradient, 0, block.clone());
            // First the gradient of the probabilities, then that of the scores.
            let mut of_scores = Array2::zeros([block.len(), n_keys]);
            general_mat_mul(1.0, &gradient, &values.t(), 0.0, &mut of_scores);
            let visible = &self.visible[block.clone()];
            let sums = &sums[block.clone()];
            vectorised!({
                let rows = flat_mut(&mut shares).chunks_exact_mut(n_keys);
                let rows = rows.zip(flat_mut(&mut of_scores).chunks_exact_mut(n_keys));
                for (((shares, of_scores), &visible), &sum) in rows.zip(visible).zip(sums) {
                    add_to(shares, self.bias);
                    softmax_back(shares, of_scores, visible, sum);
                    add_to(of_bias, of_scores);
                }
            });
            let mut of_queries = part(of_queries.view_mut(), 0, block);
            general_mat_mul(1.0, &of_scores, &keys, 0.0, &mut of_queries);
            let mut of_keys = part(of_keys.view_mut(), 0, 0..n_keys);
            general_mat_mul(1.0, &of_scores.t(), &queries, 1.0, &mut of_keys);
            let mut of_values = part(of_values.view_mut(), 0, 0..n_keys);
            general_mat_mul(1.0, &shares.t(), &gradient, 1.0, &mut of_values);
        }
        for (to, found) in of_keys_values.iter_mut().zip([of_keys, of_values]) {
            for (to, found) in to.iter_mut().zip(found.rows()) {
                let pairs = to.iter_mut().zip(found);
                pairs.for_each(|(to, found)| *to += found);
            }
        }
    }
}

/// Adds the first numbers of `more`, or none if it is empty.
#[inline(always)]
fn add_to(sums: &mut [f32], more: &[f32]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}

/// Scores of the first keys to probabilities, zero behind; gives the logarithm of the sum of their exponentials.
#[inline(always)]
fn softmax(row: &mut [f32], visible: usize) -> f32 {
    let (row, hidden) = row.split_at_mut(visible);
    hidden.fill(0.0);
    to_probabilities(row)
}

/// Scores to probabilities, by that logarithm, and the gradient of these to that of scores.
#[inline(always)]
fn softmax_back(shares: &mut [f32], of_scores: &mut [f32], visible: usize, sum: f32) {
    let (shares, hidden) = shares.split_at_mut(visible);
    hidden.fill(0.0);
    let (of_scores, hidden) = of_scores.split_at_mut(visible);
    hidden.fill(0.0);
    for share in shares.iter_mut() {
        *share = exp((*share - sum).min(0.0));
    }
    to_scores(shares, of_scores);
}

fn rows_of<'a, const N: usize>(view: &'a ArrayView2<'_, f32>) -> Vec<&'a lines::Row<N>> {
    let rows = view.outer_iter();
    lines::rows(rows.map(|row| row.to_slice().expect("a row without gaps")))
}

fn rows_to<'a, const N: usize>(lines: &'a mut Lines<'_>) -> Vec<&'a mut lines::Row<N>> {
    let lanes = |row: &'a mut &mut [f32]| row.as_chunks_mut().0.first_chunk_mut();
    let rows = lines.iter_mut();
    rows.map(|row| lanes(row).expect("a head's numbers"))
        .collect()
}

fn whole_row(row: ArrayViewMut1<'_, f32>) -> &mut [f32] {
    row.into_slice().expect("a row without gaps")
}

#[cfg(test)]
mod tests;
