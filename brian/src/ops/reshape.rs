//! Reshapes without a copy on the host, and reading a tensor's values to the host.

use super::{fused, host};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// The tensor in another shape. On the host Burn's own reshape copies the values.
pub(crate) fn reshape<B: Backend, const D: usize, const E: usize>(
    tensor: Tensor<B, D>,
    dims: [usize; E],
) -> Tensor<B, E> {
    fused(&[&|| host::custom_op::reshape(&tensor, dims)]).unwrap_or_else(|| tensor.reshape(dims))
}

/// `[batch, seq, width]` to `[batch * seq, width]`.
pub(crate) fn per_row<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 2> {
    let [batch, seq, width] = x.dims();
    reshape(x, [batch * seq, width])
}

/// The values of a tensor, on the host.
pub(crate) fn values<B: Backend>(tensor: &Tensor<B, 2>) -> Vec<f32> {
    fused(&[&|| host::custom_op::values(tensor)])
        .unwrap_or_else(|| tensor.clone().into_data().iter::<f32>().collect())
}

/// All numbers of a tensor that somebody else holds too. On the host Burn copies such a tensor number by number, some twenty times as
/// slowly.
pub fn numbers<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> TensorData {
    match host::custom_op::values(&tensor) {
        Some(numbers) => TensorData::new(numbers, tensor.shape()),
        None => tensor.into_data(),
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::super::tests::{Host, Learning};
    use super::numbers;
    use burn::tensor::{DType, Tensor};

    #[test]
    fn the_numbers_of_a_tensor_are_those_of_its_data_in_its_shape() {
        let device = Default::default();
        let matrix = Tensor::<Host, 2>::from_floats([[1.0, -0.0, 3.5], [4.0, 5.0, 6.25]], &device);
        let turned = matrix.clone().transpose();
        let wide = matrix.clone().cast(DType::F64);
        for tensor in [matrix.clone(), turned, wide] {
            assert_eq!(numbers(tensor.clone()), tensor.into_data());
        }
        let learning = Tensor::<Learning, 2>::from_inner(matrix.clone()).require_grad();
        assert_eq!(numbers(learning), matrix.clone().into_data());
        let (row, cube) = (matrix.clone().reshape([6]), matrix.reshape([1, 3, 2]));
        assert_eq!(numbers(row.clone()), row.into_data());
        assert_eq!(numbers(cube.clone()), cube.into_data());
    }
}
