//! The straight-through gain: a value of zero times what a block changed, and the gradient of that.

use super::gather::some;
use super::{Operation, host, run};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// `states + (after − before) ⊙ gain` where all of `gain` is zero: `states`, and the gradient of `gain`. That of the change is
/// cut. `which` says where the rows lie in `before` and in `gain`.
///
/// # Shapes
/// `[which, d_model]`, `[which, d_model]`, `[n, d_model]` and `[n, 1]` to `[which, d_model]`
pub(crate) fn straight_through<B: Backend>(
    states: Tensor<B, 2>,
    [after, before]: [&Tensor<B, 2>; 2],
    gain: &Tensor<B, 2>,
    which: &[usize],
) -> Tensor<B, 2> {
    run(StraightThrough {
        states,
        change: [after, before],
        gain,
        which,
    })
}

struct StraightThrough<'a, B: Backend> {
    states: Tensor<B, 2>,
    change: [&'a Tensor<B, 2>; 2],
    gain: &'a Tensor<B, 2>,
    which: &'a [usize],
}

impl<B: Backend> Operation for StraightThrough<'_, B> {
    type Output = Tensor<B, 2>;

    fn define(self) -> Tensor<B, 2> {
        let [after, before] = self.change.map(Clone::clone);
        let change = (after - some(before, self.which)).detach();
        self.states + change * some(self.gain.clone(), self.which)
    }

    fn on_host(&self) -> Option<Tensor<B, 2>> {
        host::straight_through::straight_through(&self.states, self.change, self.gain, self.which)
    }
}
