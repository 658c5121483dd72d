//! The loop: choose → execute → move. The only loop over steps.

use super::position::Positions;
use crate::block::causal::Causal;
use crate::block::routed::RoutedBlock;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Where a walk stands.
#[derive(Clone, Debug)]
pub struct State<B: Backend> {
    /// `[batch, seq, d_model]`.
    pub hidden: Tensor<B, 3>,
    /// `[batch, seq, d_position]`.
    pub position: Tensor<B, 3>,
}

/// Takes every token along the same path; OUT, the action after the last block, moves but executes nothing.
///
/// # Panics
/// If the path names an action beyond OUT.
pub fn walk<B: Backend>(
    pool: &[RoutedBlock<B>],
    positions: &Positions<B>,
    hidden: Tensor<B, 3>,
    path: &[usize],
    causal: &Causal<B>,
) -> State<B> {
    let [batch, seq, _] = hidden.dims();
    let everywhere = |position: Tensor<B, 1>| {
        let [d_position] = position.dims();
        position
            .reshape([1, 1, d_position])
            .expand([batch, seq, d_position])
    };
    let mut state = State {
        hidden,
        position: everywhere(positions.start()),
    };
    for &action in path {
        assert!(
            action <= pool.len(),
            "action {action} of a pool of {}",
            pool.len()
        );
        if let Some(block) = pool.get(action) {
            state.hidden = block.forward(state.hidden, state.position, causal);
        }
        state.position = everywhere(positions.after(action));
    }
    state
}
