//! What attention starts from: `norm(x) W`, queries scaled, queries and keys turned to their positions.

use super::groups::{Group, by_group};
use super::linear::multiply;
use super::rms_norm::rms_norm;
use super::rotary::Angles;
use super::{Operation, gpu, host, run};
use burn::nn::RmsNorm;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// What the columns of a map are: queries, then keys, then values, of `d_model` columns each where they are there.
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
    /// How many parts of `d_model` columns are scaled, turned, and there at all: each the first ones.
    pub fn parts(self) -> [usize; 3] {
        match self {
            Self::All => [1, 2, 3],
            Self::Queries => [1, 1, 1],
            Self::KeysValues => [0, 1, 2],
        }
    }
}

/// A norm and the map behind it.
pub(crate) type NormedMap<'a, B> = (&'a RmsNorm<B>, &'a Tensor<B, 2>);

/// Rows of queries, keys and values of tokens, those of each group behind a norm and a map of its own; on a GPU in the type of the
/// map, else in that of `x`.
///
/// # Shapes
/// `[n, d_model]` and `[d_model, d_out]` to `[n, d_out]`
pub(crate) fn rotary_projection<B: Backend>(
    x: &Tensor<B, 2>,
    groups: &[Group<NormedMap<'_, B>>],
    columns: Columns,
    angles: &Angles<B>,
) -> Tensor<B, 2> {
    run(Projection {
        x,
        groups,
        columns,
        angles,
    })
}

struct Projection<'a, B: Backend> {
    x: &'a Tensor<B, 2>,
    groups: &'a [Group<NormedMap<'a, B>>],
    columns: Columns,
    angles: &'a Angles<B>,
}

impl<B: Backend> Operation for Projection<'_, B> {
    type Output = Tensor<B, 2>;

    fn define(self) -> Tensor<B, 2> {
        by_group([self.x.clone()], self.groups, |[x], (norm, map), which| {
            run(Turned {
                packed: multiply(rms_norm(&x, norm, map.dtype()), (*map).clone()),
                dtype: x.dtype(),
                columns: self.columns,
                angles: &self.angles.some(which),
            })
        })
    }

    fn on_host(&self) -> Option<Tensor<B, 2>> {
        host::rotary_projection::rotary_projection(self.x, self.groups, self.columns, self.angles)
    }
}

/// Products, scaled and turned.
struct Turned<'a, B: Backend> {
    packed: Tensor<B, 2>,
    /// That of the stream.
    dtype: burn::tensor::DType,
    columns: Columns,
    angles: &'a Angles<B>,
}

impl<B: Backend> Operation for Turned<'_, B> {
    type Output = Tensor<B, 2>;

    fn define(self) -> Tensor<B, 2> {
        let [n_scaled, n_turned, n_parts] = self.columns.parts();
        let packed = self.packed.cast(self.dtype);
        let parts = packed.chunk(n_parts, 1).into_iter().enumerate();
        let parts = parts.map(|(index, part)| {
            let part = match index < n_turned {
                true => self.angles.rotate(part),
                false => part,
            };
            match index < n_scaled {
                true => part * (self.angles.d_head() as f64).powf(-0.5),
                false => part,
            }
        });
        Tensor::cat(parts.collect(), 1)
    }

    fn on_gpu(&self) -> Option<Tensor<B, 2>> {
        gpu::apply_rotary(&self.packed, || self.angles.tables(), self.columns.parts())
    }
}
