//! Scales queries and rotates queries and keys to their positions; values stay as they are. All lie side by side.

use super::super::rotary::Angles;
use super::custom_op::{Back, Call, Kernel, input, run};
use super::launch::{address, empty, is_known, kind, len, rows, units};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

/// Rotates the first `turned` columns, divides the first `scaled` of them by the root of `d_head` and multiplies them by the factor of
/// queries.
///
/// # Shapes
/// - `packed`: `[n_tokens, d_out]`; the positions of `angles` are repeated over the tokens
/// - `angles`: cosines and sines, `[n_positions, d_head / 2]`
pub(crate) fn apply_rotary<B: Backend>(
    packed: &Tensor<B, 2>,
    angles: &Angles<B>,
    [scaled, turned]: [usize; 2],
) -> Option<Tensor<B, 2>> {
    let kernel = Turn {
        scaled,
        turned,
        query_factor: angles.query_factor as f32,
    };
    let [cos, sin] = angles.tables().map(|table| input(&table));
    run(kernel, [input(packed), cos, sin], None)
}

#[derive(Clone, Debug)]
struct Turn {
    scaled: usize,
    turned: usize,
    query_factor: f32,
}

impl Turn {
    fn launch<R: CubeRuntime>(
        &self,
        [packed, cos, sin]: &[CubeTensor<R>; 3],
        direction: f32,
    ) -> CubeTensor<R> {
        let output = empty(packed, rows(packed), packed.dtype);
        let [n_positions, half] = rows(cos);
        let [_, width] = rows(packed);
        let pairs = len(packed) / 2;
        let (count, dim) = units(packed, pairs);
        turned::launch::<R>(
            &packed.client,
            count,
            dim,
            address([packed]),
            packed.clone().into_array_arg(),
            cos.clone().into_array_arg(),
            sin.clone().into_array_arg(),
            output.clone().into_array_arg(),
            pairs,
            width / 2,
            n_positions,
            half,
            self.scaled,
            self.turned,
            (2.0 * half as f32).powf(-0.5) * self.query_factor,
            direction,
            kind(packed),
        );
        output
    }
}

impl Kernel<3> for Turn {
    fn forward<R: CubeRuntime>(&self, call: &mut Call<R, 3>) -> Option<CubeTensor<R>> {
        is_known(&call.inputs[0]).then(|| self.launch(&call.inputs, 1.0))
    }

    fn backward<R: CubeRuntime>(&self, call: &Call<R, 3>, gradient: CubeTensor<R>) -> Back<R, 3> {
        let [_, cos, sin] = &call.inputs;
        let back = self.launch(&[gradient, cos.clone(), sin.clone()], -1.0);
        [Some(back), None, None]
    }
}

/// A unit for each pair that is rotated together.
#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn turned<F: Float>(
    packed: &Array<F>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    output: &mut Array<F>,
    pairs: usize,
    pairs_of_row: usize,
    n_positions: usize,
    half: usize,
    scaled: usize,
    turned: usize,
    scale: f32,
    direction: f32,
    #[define(F)] _type: StorageType,
) {
    if ABSOLUTE_POS >= pairs {
        terminate!();
    }
    let row = ABSOLUTE_POS / pairs_of_row;
    let pair = ABSOLUTE_POS % pairs_of_row;
    let dimension = pair % half;
    let column = pair / half * (2 * half) + dimension;
    let first = row * (2 * pairs_of_row) + column;
    let second = first + half;
    let mut x = f32::cast_from(packed[first]);
    let mut y = f32::cast_from(packed[second]);
    if column < scaled {
        x *= scale;
        y *= scale;
    }
    if column < turned {
        let angle = row % n_positions * half + dimension;
        let cosine = cos[angle];
        let sine = sin[angle] * direction;
        let turned_x = x * cosine - y * sine;
        y = y * cosine + x * sine;
        x = turned_x;
    }
    output[first] = F::cast_from(x);
    output[second] = F::cast_from(y);
}
