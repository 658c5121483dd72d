//! Causal attention of whole sequences, `softmax(q kᵀ) v`, with no matrix of scores in memory (Dao et al. 2022).
//!
//! Scores are made a few at a time; only the logarithm of each row's sum of exponentials is kept. The backward pass makes them
//! again: once for the gradients of queries, and once, from the keys' side, for those of keys and values.
//!
//! Numbers are read in pairs: a head has an even number of them, since rotary positions rotate it pair by pair.

mod cores;
mod place;
mod tile;
mod units;

use super::custom_op::{Back, Call, Kernel, input, run};
use super::launch::{address, empty, is_known, kind, rows};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;
use tile::Tile;

/// The longest sequence for the kernels without tensor cores. Beyond it Burn's products are faster, although all scores lie in
/// memory then.
const LONGEST_WITHOUT_CORES: usize = 256;

/// Below every score.
const LOWEST: f32 = -3.0e38;

/// See [`causal_attention`](super::super::super::attention::causal_attention).
pub(crate) fn causal_attention<B: Backend>(
    packed: &Tensor<B, 2>,
    n_heads: usize,
    batch: usize,
) -> Option<Tensor<B, 2>> {
    run(Attend { n_heads, batch }, [input(packed)], None)
}

#[derive(Clone, Debug)]
struct Attend {
    n_heads: usize,
    batch: usize,
}

/// Calls a kernel of [`cores`] or of [`units`] for all rows of all heads of all sequences.
macro_rules! launch {
    ($self:ident, $kernel:ident, $packed:ident, $($tensor:expr),+) => {{
        let (seq, d_head) = $self.sizes($packed);
        let client = &$packed.client;
        let count = |n_rows: usize| {
            let blocks = seq.div_ceil(n_rows) as u32;
            CubeCount::Static($self.n_heads as u32, blocks, $self.batch as u32)
        };
        let address = address([$packed]);
        match Tile::of($packed, d_head) {
            Some((tile, core)) => cores::$kernel::launch::<R>(
                client,
                count(tile.rows()),
                tile.dim(),
                address,
                $($tensor.clone().into_array_arg(),)+
                seq,
                $self.n_heads,
                tile,
                [kind($packed), core],
            ),
            None => units::$kernel::launch::<R>(
                client,
                count(units::ROWS),
                units::dim(),
                address,
                $($tensor.clone().into_array_arg(),)+
                seq,
                $self.n_heads,
                d_head / 2,
                kind($packed),
            ),
        }
    }};
}

impl Attend {
    /// Tokens of a sequence, numbers of a head.
    fn sizes<R: CubeRuntime>(&self, packed: &CubeTensor<R>) -> (usize, usize) {
        let [n_tokens, width] = rows(packed);
        (n_tokens / self.batch, width / 3 / self.n_heads)
    }
}

impl Kernel<1> for Attend {
    fn forward<R: CubeRuntime>(&self, call: &mut Call<R, 1>) -> Option<CubeTensor<R>> {
        let [packed] = &call.inputs;
        let (seq, d_head) = self.sizes(packed);
        let on_cores = Tile::of(packed, d_head).is_some();
        if !is_known(packed) || d_head % 2 == 1 || !on_cores && seq > LONGEST_WITHOUT_CORES {
            return None;
        }
        let [n_tokens, width] = rows(packed);
        let found = empty(packed, [n_tokens, width / 3], packed.dtype);
        let ends = empty(packed, [n_tokens, self.n_heads], DType::F32);
        launch!(self, forward, packed, packed, found, ends);
        call.kept = vec![found.clone(), ends];
        Some(found)
    }

    fn backward<R: CubeRuntime>(&self, call: &Call<R, 1>, gradient: CubeTensor<R>) -> Back<R, 1> {
        let ([packed], [found, ends]) = (&call.inputs, &call.kept[..]) else {
            unreachable!("as forward")
        };
        let n = rows(packed)[0] * self.n_heads;
        let along = empty(packed, [n], DType::F32);
        let (count, dim) = super::launch::units(packed, n);
        products::launch::<R>(
            &packed.client,
            count,
            dim,
            address([packed]),
            found.clone().into_array_arg(),
            gradient.clone().into_array_arg(),
            along.clone().into_array_arg(),
            n,
            rows(found)[1] / self.n_heads,
            kind(packed),
        );
        let of_packed = empty(packed, rows(packed), packed.dtype);
        launch!(
            self,
            back_queries,
            packed,
            packed,
            gradient,
            ends,
            along,
            of_packed
        );
        launch!(
            self, back_keys, packed, packed, gradient, ends, along, of_packed
        );
        [Some(of_packed)]
    }
}

/// What each row's gradient and output have along each other, head by head: `[n]`.
#[cube(launch, address_type = "dynamic")]
fn products<F: Float>(
    found: &Array<F>,
    gradient: &Array<F>,
    along: &mut Array<f32>,
    n: usize,
    d_head: usize,
    #[define(F)] _type: StorageType,
) {
    if ABSOLUTE_POS >= n {
        terminate!();
    }
    let begin = ABSOLUTE_POS * d_head;
    let mut sum = 0.0f32;
    for place in begin..begin + d_head {
        sum += f32::cast_from(found[place]) * f32::cast_from(gradient[place]);
    }
    along[ABSOLUTE_POS] = sum;
}
