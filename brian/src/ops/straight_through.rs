//! The straight-through gain, `states + (after − before) ⊙ gain` with `gain = 0`: its value is `states`; the states and the
//! gain get a gradient, the block's change `after − before` gets none.

use super::gather::some;
use super::{fused, host};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// `states + (after − before) ⊙ gain` where all of `gain` is zero: the value is `states`, and `gain` gets its gradient. The
/// change gets none. `which` says where the rows lie in `before` and in `gain`.
///
/// # Shapes
/// `[which, d_model]`, `[which, d_model]`, `[n, d_model]` and `[n, 1]` to `[which, d_model]`
pub(crate) fn straight_through<B: Backend>(
    states: Tensor<B, 2>,
    change @ [after, before]: [&Tensor<B, 2>; 2],
    gain: &Tensor<B, 2>,
    which: &[usize],
) -> Tensor<B, 2> {
    fused(&[&|| host::straight_through::straight_through(&states, change, gain, which)])
        .unwrap_or_else(|| {
            let change = (after.clone() - some(before.clone(), which)).detach();
            states + change * some(gain.clone(), which)
        })
}
