//! The bias-free linear map that everything in a block is made of.

use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

/// A map `[d_in, d_out]`; its values come from [`crate::initial`].
pub(crate) fn matrix<B: Backend>(d_in: usize, d_out: usize, device: &B::Device) -> Linear<B> {
    LinearConfig::new(d_in, d_out)
        .with_bias(false)
        .with_initializer(Initializer::Zeros)
        .init(device)
}

/// Applies a map to every token as one matrix product.
///
/// On `[batch, seq, d_in]` Burn makes one product and one weight gradient per sequence and then adds those up.
///
/// # Shapes
/// `[batch, seq, d_in]` to `[batch, seq, d_out]`
pub(crate) fn per_token<B: Backend>(map: &Linear<B>, x: Tensor<B, 3>) -> Tensor<B, 3> {
    let [batch, seq, d_in] = x.dims();
    let y = map.forward(x.reshape([batch * seq, d_in]));
    let [_, d_out] = y.dims();
    y.reshape([batch, seq, d_out])
}

/// What a position adds to the stream: through an adapter, or as it is.
///
/// # Shapes
/// `[batch, seq, d_position]` to `[batch, seq, d_model]`
pub(crate) fn inject<B: Backend>(
    adapter: Option<&Linear<B>>,
    position: Tensor<B, 3>,
) -> Tensor<B, 3> {
    match adapter {
        Some(adapter) => per_token(adapter, position),
        None => position,
    }
}

/// Indices on the device.
pub(crate) fn indices<B: Backend>(rows: &[usize], device: &B::Device) -> Tensor<B, 1, Int> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let n_rows = rows.len();
    Tensor::from_data(TensorData::new(rows, [n_rows]), device)
}

/// Some rows, in the order given.
pub(crate) fn rows<B: Backend>(from: Tensor<B, 2>, which: &[usize]) -> Tensor<B, 2> {
    let which = indices(which, &from.device());
    from.select(0, which)
}
