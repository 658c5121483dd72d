//! Projection to queries, keys and values: `norm(x) W`, queries scaled, queries and keys rotated to their positions.

use super::groups::{Group, by_group};
use super::linear::multiply;
use super::reuse::Packed;
use super::rms_norm::rms_norm;
use super::rotary::Angles;
use super::{fused, gpu, host};
use burn::nn::RmsNorm;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};

/// Which parts a weight matrix has: queries, keys and values, in this order, of `d_model` columns each.
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
    /// How many parts are scaled, how many rotated, and how many there are; scaled and rotated parts come first.
    pub fn parts(self) -> [usize; 3] {
        match self {
            Self::All => [1, 2, 3],
            Self::Queries => [1, 1, 1],
            Self::KeysValues => [0, 1, 2],
        }
    }
}

/// A norm and the weight matrix that follows it.
pub(crate) type NormedMap<'a, B> = (&'a RmsNorm<B>, &'a Tensor<B, 2>);

/// Queries, keys and values of tokens; each group of rows has its own norm and weight matrix. The result has the type of the
/// weights on a GPU, else that of `x`.
///
/// # Shapes
/// `[n, d_model]` and `[d_model, d_out]` to `[n, d_out]`
pub(crate) fn rotary_projection<B: Backend>(
    x: &Tensor<B, 2>,
    groups: &[Group<NormedMap<'_, B>>],
    columns: Columns,
    angles: &Angles<B>,
    packed: &Packed,
) -> Tensor<B, 2> {
    fused(&[&|| host::rotary_projection::rotary_projection(x, groups, columns, angles, packed)])
        .unwrap_or_else(|| {
            by_group([x.clone()], groups, |[x], (norm, map), which| {
                let packed = multiply(rms_norm(&x, norm, map.dtype()), (*map).clone());
                turned(packed, x.dtype(), columns, &angles.some(which))
            })
        })
}

/// Scales and rotates the products.
fn turned<B: Backend>(
    packed: Tensor<B, 2>,
    dtype: DType,
    columns: Columns,
    angles: &Angles<B>,
) -> Tensor<B, 2> {
    let [n_scaled, n_turned, n_parts] = columns.parts();
    fused(&[&|| gpu::apply_rotary(&packed, || angles.tables(), columns.parts())]).unwrap_or_else(
        || {
            let parts = packed.cast(dtype).chunk(n_parts, 1).into_iter().enumerate();
            let parts = parts.map(|(index, part)| {
                let part = match index < n_turned {
                    true => angles.rotate(part),
                    false => part,
                };
                match index < n_scaled {
                    true => part * (angles.d_head() as f64).powf(-0.5),
                    false => part,
                }
            });
            Tensor::cat(parts.collect(), 1)
        },
    )
}
