//! Tensors one behind the other along a dimension.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// `Tensor::cat` whose inputs stay alive until the output stands in the graph.
///
/// Burn 0.21 lets go of them before. The end of any backward pass, also on another thread, clears away what no tensor holds, and the
/// gradients of inputs that nothing else holds would be lost without a word (<https://github.com/tracel-ai/burn/issues/5573>).
///
/// # Shapes
/// Equal in all dimensions but `dim`.
pub(crate) fn cat<B: Backend, const D: usize>(
    parts: Vec<Tensor<B, D>>,
    dim: usize,
) -> Tensor<B, D> {
    let held = parts.clone();
    let joined = Tensor::cat(parts, dim);
    drop(held);
    joined
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::super::tests::{Learning, beside_other_passes};
    use super::cat;
    use burn::tensor::Tensor;

    /// Nothing but `cat` holds its inputs, and of the leaf, which a first backward pass has used, the graph knows nothing any more.
    #[test]
    fn a_backward_pass_elsewhere_takes_no_gradient_away() {
        let x = Tensor::<Learning, 1>::from_floats([1.0], &Default::default()).require_grad();
        let is_whole = |_: &i32| {
            let joined = cat(vec![x.clone() * 2, x.clone() * 3], 0);
            let of_x = x.grad(&joined.sum().backward());
            of_x.is_some_and(|of_x| of_x.into_scalar() == 5.0)
        };
        let n_whole = beside_other_passes(|| (0..20_000).filter(is_whole).count());
        assert_eq!(n_whole, 20_000);
    }
}
