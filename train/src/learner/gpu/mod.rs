//! What an update does where tensors lie in the memory of a GPU: kernels in CubeCL, where Burn's operations would be a dozen for
//! every tensor.

mod adamw;
mod squares;

pub use adamw::update;
pub use squares::squares;

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn_cubecl::CubeRuntime;
#[cfg(any(feature = "cuda", feature = "wgpu", feature = "vulkan"))]
use burn_cubecl::cubecl;
use burn_cubecl::tensor::CubeTensor;
use std::any::Any;

/// Something to be done with tensors on a GPU.
trait OnGpu {
    fn run<R: CubeRuntime>(self, given: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>>;
}

/// Does it, where the backend is one for GPUs; else gives back what was given.
#[allow(unused_mut, unused_variables)]
fn anywhere<B: Backend>(
    mut given: Vec<FloatTensor<B>>,
    task: impl OnGpu,
) -> Result<Vec<FloatTensor<B>>, Vec<FloatTensor<B>>> {
    #[cfg(feature = "cuda")]
    match same::<_, Vec<CubeTensor<cubecl::cuda::CudaRuntime>>>(given) {
        Ok(given) => return Ok(back(task.run(given))),
        Err(other) => given = other,
    }
    #[cfg(any(feature = "wgpu", feature = "vulkan"))]
    match same::<_, Vec<CubeTensor<cubecl::wgpu::WgpuRuntime>>>(given) {
        Ok(given) => return Ok(back(task.run(given))),
        Err(other) => given = other,
    }
    Err(given)
}

fn back<From: 'static, To: 'static>(found: From) -> To {
    same(found).unwrap_or_else(|_| unreachable!("as they came"))
}

/// A value under the type that it has.
fn same<From: 'static, To: 'static>(value: From) -> Result<To, From> {
    let mut value = Some(value);
    match (&mut value as &mut dyn Any).downcast_mut::<Option<To>>() {
        Some(found) => Ok(found.take().expect("it was put in above")),
        None => Err(value.expect("it was put in above")),
    }
}
