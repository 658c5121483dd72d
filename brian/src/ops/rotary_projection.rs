//! Projection to queries, keys and values: `norm(x) W + b`, queries and keys normed head by head, queries scaled, queries and
//! keys rotated to their positions. Bias and norms of heads are optional.

use super::attention::Heads;
use super::cat::cat;
use super::groups::{Group, by_group};
use super::linear::multiply;
use super::reuse::Packed;
use super::rms_norm::rms_norm;
use super::rotary::Angles;
use super::{fused, gpu, host};
use burn::nn::RmsNorm;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};
use std::ops::Range;

/// Which parts a weight matrix has: queries, keys and values, in this order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Columns {
    /// All three.
    All,
    /// Queries.
    Queries,
    /// Keys and values.
    KeysValues,
}

impl Columns {
    /// How many columns are scaled and how many rotated, which come first, and how many there are.
    pub fn widths(self, heads: Heads) -> [usize; 3] {
        let (queries, keys) = (heads.d_queries(), heads.d_keys());
        match self {
            Self::All => [queries, queries + keys, queries + 2 * keys],
            Self::Queries => [queries; 3],
            Self::KeysValues => [0, keys, 2 * keys],
        }
    }

    /// The columns that are rotated: those of queries, those of keys.
    pub fn rotated(self, heads: Heads) -> Vec<Range<usize>> {
        let [scaled, rotated, _] = self.widths(heads);
        let parts = [0..scaled, scaled..rotated];
        parts.into_iter().filter(|part| !part.is_empty()).collect()
    }
}

/// A norm, the weight matrix that follows it, and what is done to its products before they are rotated.
#[derive(Clone, Debug)]
pub(crate) struct Projection<'a, B: Backend> {
    pub norm: &'a RmsNorm<B>,
    /// `[d_model, d_out]`.
    pub map: &'a Tensor<B, 2>,
    /// `[d_out]`.
    pub bias: Option<&'a Tensor<B, 1>>,
    /// Norms of single heads, of width `d_head`: one for each part of [`Columns::rotated`], or none.
    pub head_norms: Vec<&'a RmsNorm<B>>,
}

/// Queries, keys and values of tokens; each group of rows has its own norm and weight matrix. The result has the type of the
/// weights on a GPU, else that of `x`.
///
/// # Shapes
/// `[n, d_model]` to `[n, d_out]`
pub(crate) fn rotary_projection<B: Backend>(
    x: &Tensor<B, 2>,
    groups: &[Group<Projection<'_, B>>],
    (columns, heads): (Columns, Heads),
    angles: &Angles<B>,
    packed: &Packed,
) -> Tensor<B, 2> {
    let widths = columns.widths(heads);
    fused(&[&|| {
        let parts = (columns, heads);
        host::rotary_projection::rotary_projection(x, groups, parts, angles, packed)
    }])
    .unwrap_or_else(|| {
        by_group([x.clone()], groups, |[x], of, which| {
            let packed = multiply(rms_norm(&x, of.norm, of.map.dtype()), of.map.clone());
            let packed =
                biased_and_normed(packed, of.bias, &columns.rotated(heads), &of.head_norms);
            scaled_and_rotated(packed, x.dtype(), widths, &angles.some(which))
        })
    })
}

/// Adds the bias, if there is one, and norms the heads in some columns, which come first, if they are normed; each range of
/// columns has a norm of its own.
///
/// # Shapes
/// `[n, d_out]` to the same
pub(crate) fn biased_and_normed<B: Backend>(
    mut packed: Tensor<B, 2>,
    bias: Option<&Tensor<B, 1>>,
    columns: &[Range<usize>],
    norms: &[&RmsNorm<B>],
) -> Tensor<B, 2> {
    if let Some(bias) = bias {
        packed = packed.clone() + bias.clone().cast(packed.dtype()).unsqueeze();
    }
    if norms.is_empty() {
        return packed;
    }
    let [n_tokens, width] = packed.dims();
    let mut parts = Vec::with_capacity(columns.len() + 1);
    let mut end = 0;
    for (columns, norm) in columns.iter().zip(norms) {
        let [d_head] = norm.gamma.dims();
        let part = packed.clone().slice_dim(1, columns.clone());
        let rows = part.reshape([n_tokens * columns.len() / d_head, d_head]);
        let normed = rms_norm(&rows, norm, packed.dtype());
        parts.push(normed.reshape([n_tokens, columns.len()]));
        end = columns.end;
    }
    if end < width {
        parts.push(packed.slice_dim(1, end..width));
    }
    cat(parts, 1)
}

/// Scales and rotates the products: the first `widths[0]` columns are scaled, the first `widths[1]` rotated.
fn scaled_and_rotated<B: Backend>(
    packed: Tensor<B, 2>,
    dtype: DType,
    widths: [usize; 3],
    angles: &Angles<B>,
) -> Tensor<B, 2> {
    let [scaled, rotated, width] = widths;
    fused(&[&|| gpu::apply_rotary(&packed, angles, [scaled, rotated])]).unwrap_or_else(|| {
        let packed = packed.cast(dtype);
        let part = |part: Range<usize>| packed.clone().slice_dim(1, part);
        let scale = (angles.d_head() as f64).powf(-0.5) * angles.query_factor;
        let mut parts = Vec::with_capacity(3);
        if scaled > 0 {
            parts.push(angles.rotate(part(0..scaled)) * scale);
        }
        if rotated > scaled {
            parts.push(angles.rotate(part(scaled..rotated)));
        }
        if width > rotated {
            parts.push(part(rotated..width));
        }
        cat(parts, 1)
    })
}
