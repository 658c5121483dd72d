//! Runs the optimizer's CubeCL kernels on a GPU (`adamw`, `squares`): many tensors per launch, or none on other backends.

mod adamw;
mod squares;

pub use adamw::{launch, update};
pub use squares::squares;

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;
use std::any::Any;

/// Units of a cube.
const UNITS: usize = 256;
/// Numbers of a tensor that a cube works on.
const CHUNK: usize = 16 * UNITS;
/// As many tensors at most go into a kernel: each is some code of it.
const MOST: usize = 96;

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

/// As many cubes, and how many units they have. There may be some more than asked for.
fn cubes(n: usize) -> (CubeCount, CubeDim) {
    let across = n.clamp(1, 1 << 15);
    let count = CubeCount::Static(across as u32, n.div_ceil(across) as u32, 1);
    let dim = CubeDim {
        x: UNITS as u32,
        y: 1,
        z: 1,
    };
    (count, dim)
}

/// Calls a launch for some after some, as many as the device takes, if each has so many tensors and a kernel one more.
fn in_turn<R: CubeRuntime, T>(
    all: &[T],
    tensors: usize,
    tensor: impl Fn(&T) -> &CubeTensor<R>,
    mut launch: impl FnMut(&ComputeClient<R>, AddressType, &[T]),
) {
    let Some(first) = all.first() else {
        return;
    };
    let client = &tensor(first).client;
    // One is for the numbers that go along.
    let bindings = client.properties().hardware.max_bindings as usize - 1;
    let most = MOST.min(bindings.saturating_sub(1)) / tensors;
    for some in all.chunks(most.max(1)) {
        let address = some.iter().map(|one| tensor(one).required_address_type());
        launch(client, address.max().unwrap_or_default(), some);
    }
}
