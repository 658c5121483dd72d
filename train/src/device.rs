//! Runs work on the Burn backend that a recipe or `--device` names. Only this file names backends; the rest is generic.
//! It also checks that a device starts, and reports threads, free memory and the speed of matrix products.

use crate::error::{Error, Problem};
use burn::backend::Autodiff;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, Tensor};
use serde::Deserialize;
use std::any::TypeId;
use std::io;
use std::panic;
use std::time::Instant;

/// All backends by name, and whether this program was built with them: each is a cargo feature of the same name.
pub const BACKENDS: [(&str, bool); 5] = [
    ("ndarray", cfg!(feature = "ndarray")),
    ("flex", cfg!(feature = "flex")),
    ("wgpu", cfg!(feature = "wgpu")),
    ("vulkan", cfg!(feature = "vulkan")),
    ("cuda", cfg!(feature = "cuda")),
];

/// The backends that compute on the CPU; they have a single device.
pub const ON_THE_CPU: [&str; 2] = ["ndarray", "flex"];

/// The backend that can compute again in the backward pass what it has not kept; see [`brian::Recompute`].
pub const RECOMPUTES: &str = "ndarray";

/// The device that a run computes on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DeviceConfig {
    /// `ndarray`, `flex`, `wgpu`, `vulkan` or `cuda`; it must be compiled in.
    pub backend: String,
    /// Which of several devices, from 0.
    pub index: usize,
    /// The type that products of matrices run in; weights and sums are f32.
    pub dtype: Dtype,
}

impl DeviceConfig {
    /// The first backend that is compiled in, for work that is the same on all.
    pub fn any() -> Self {
        let compiled = BACKENDS.iter().find(|(_, compiled)| *compiled);
        let (name, _) = compiled.expect("a program without a backend cannot be built");
        Self::first(name)
    }

    /// The first device of a backend, in f32 as all have it.
    pub fn first(backend: &str) -> Self {
        Self {
            backend: backend.to_string(),
            index: 0,
            dtype: Dtype::F32,
        }
    }
}

/// The number type of matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32 bits; on NVIDIA's tensor cores 10 of them count in a product (tf32).
    F32,
    /// 16 bits, 8 of which count; what is added up, norms and the softmax stay in 32.
    Bf16,
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::BF16,
        }
    }
}

/// Work on a backend that is known only at run time.
pub trait Task {
    /// The result of the work.
    type Output;

    /// Does the work.
    ///
    /// # Errors
    /// The errors of the task.
    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<Self::Output, Error>;
}

/// Runs a task on the backend and device that the recipe names.
///
/// # Errors
/// `Config` if the backend was not compiled in, `Resource` if the machine has no such device; else the task's errors.
pub fn run<T: Task<Output: Send> + Send>(
    config: &DeviceConfig,
    task: T,
) -> Result<T::Output, Error> {
    check_compiled("device.backend", &config.backend)?;
    match config.backend.as_str() {
        #[cfg(feature = "ndarray")]
        // On a thread of the pool: a pass shares its work with the others there, and need not wake them from outside.
        "ndarray" => {
            rayon::scope(|_| on::<burn_ndarray::NdArray, T>(Default::default(), config, task))
        }
        #[cfg(feature = "flex")]
        "flex" => on::<burn::backend::Flex, T>(Default::default(), config, task),
        #[cfg(feature = "wgpu")]
        "wgpu" => on::<burn::backend::Wgpu, T>(graphics(config.index), config, task),
        #[cfg(feature = "vulkan")]
        "vulkan" => on::<burn::backend::Vulkan, T>(graphics(config.index), config, task),
        #[cfg(feature = "cuda")]
        "cuda" => {
            let device = burn::backend::cuda::CudaDevice::new(config.index);
            on::<burn::backend::Cuda, T>(device, config, task)
        }
        _ => unreachable!("it is compiled in"),
    }
}

/// Work that needs the types of one backend, and no device.
pub trait ForBackend {
    /// The result of the work.
    type Output;

    /// Does the work.
    fn call<B: AutodiffBackend>(self) -> Self::Output;
}

/// Does the work with the backend of this type id, one of those that [`run`] knows, or with the one around it if it is an inner
/// one.
///
/// # Panics
/// If the id is that of another type.
pub fn for_backend<T: ForBackend>(backend: TypeId, call: T) -> T::Output {
    macro_rules! try_backend {
        ($backend:ty) => {
            if [TypeId::of::<Autodiff<$backend>>(), TypeId::of::<$backend>()].contains(&backend) {
                return call.call::<Autodiff<$backend>>();
            }
        };
    }
    #[cfg(feature = "ndarray")]
    try_backend!(burn_ndarray::NdArray);
    #[cfg(all(test, feature = "ndarray"))]
    try_backend!(burn_ndarray::NdArray<f64>);
    #[cfg(feature = "flex")]
    try_backend!(burn::backend::Flex);
    #[cfg(feature = "wgpu")]
    try_backend!(burn::backend::Wgpu);
    #[cfg(feature = "vulkan")]
    try_backend!(burn::backend::Vulkan);
    #[cfg(feature = "cuda")]
    try_backend!(burn::backend::Cuda);
    unreachable!("a backend that `run` does not know")
}

/// Checks that a device starts and supports the requested number type.
///
/// # Errors
/// As [`run`].
pub fn check(config: &DeviceConfig) -> Result<(), Error> {
    struct Start;

    impl Task for Start {
        type Output = ();

        fn run<B: AutodiffBackend>(self, _: B::Device) -> Result<(), Error> {
            Ok(())
        }
    }

    run(config, Start)
}

/// Checks that a backend exists and was compiled in; `asked` says where it was requested.
///
/// # Errors
/// `Config`, naming the cargo feature that adds it.
pub fn check_compiled(asked: &str, backend: &str) -> Result<(), Error> {
    let compiled = compiled();
    if compiled.contains(&backend) {
        return Ok(());
    }
    let expected = format!("one of those compiled in: {}", compiled.join(", "));
    let problem = Problem::new(asked, "", format!("the backend {backend:?}"), expected);
    let known = BACKENDS.iter().any(|(name, _)| *name == backend);
    let advice = known.then(|| format!("build with --features {backend} to add it"));
    Err(Error::config(problem.advise(advice.unwrap_or_default())))
}

/// The names of the backends that are compiled in.
pub fn compiled() -> Vec<&'static str> {
    let compiled = BACKENDS.iter().filter(|(_, compiled)| *compiled);
    compiled.map(|(name, _)| *name).collect()
}

/// The number of threads the CPU backends use.
pub fn threads() -> usize {
    let wanted = std::env::var("RAYON_NUM_THREADS").ok();
    let wanted = wanted.and_then(|threads| threads.parse().ok());
    let wanted = wanted.filter(|&threads| threads > 0);
    wanted.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Memory that is still available to a CPU backend: the system's free memory, or the process's own limit.
pub fn free_memory_bytes(config: &DeviceConfig) -> Option<u64> {
    match ON_THE_CPU.contains(&config.backend.as_str()) {
        true => free_host_bytes(),
        false => None,
    }
}

/// Host memory that is still available to this process.
pub fn free_host_bytes() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current;
    let free = memory_bytes("/proc/meminfo", "MemAvailable:");
    free.into_iter().chain(limit).min()
}

/// A size from `/proc/meminfo` or `/proc/self/status`, where the system has them.
pub fn memory_bytes(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(any(feature = "wgpu", feature = "vulkan"))]
fn graphics(index: usize) -> burn::backend::wgpu::WgpuDevice {
    match index {
        0 => burn::backend::wgpu::WgpuDevice::DefaultDevice,
        index => burn::backend::wgpu::WgpuDevice::DiscreteGpu(index),
    }
}

fn on<B: Backend, T: Task>(
    device: B::Device,
    config: &DeviceConfig,
    task: T,
) -> Result<T::Output, Error> {
    let start = || drop((Tensor::<B, 1>::ones([1], &device) + 1.0).into_data());
    if let Err(cause) = quietly(start) {
        let place = format!("device {} {}", config.backend, config.index);
        return Err(Error::resource(place, "start", io::Error::other(cause)));
    }
    if !B::supports_dtype(&device, config.dtype.into()) {
        let found = format!("products in {:?} on {}", config.dtype, config.backend).to_lowercase();
        let problem = Problem::new("device.dtype", "", found, "\"f32\"");
        let advice = "bf16 is for cuda, and to try it on a CPU, flex";
        return Err(Error::config(problem.advise(advice)));
    }
    task.run::<Autodiff<B>>(device)
}

/// Burn's GPU backends panic where a driver or device is missing.
fn quietly(action: impl FnOnce()) -> Result<(), String> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(panic::AssertUnwindSafe(action));
    panic::set_hook(hook);
    result.map_err(|_| "no such device, or no driver for it".to_string())
}

/// How fast a device multiplies matrices, for `nerve doctor`: GFLOP/s in f32.
pub struct MatrixProduct;

impl Task for MatrixProduct {
    type Output = f64;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<f64, Error> {
        const SIDE: usize = 512;
        let a = Tensor::<B::InnerBackend, 2>::ones([SIDE, SIDE], &device);
        let multiply = || {
            let _ = a.clone().matmul(a.clone()).slice([0..1, 0..1]).into_data();
        };
        multiply();
        let start = Instant::now();
        let mut products = 0;
        while start.elapsed().as_secs_f64() < 1.0 {
            multiply();
            products += 1;
        }
        let operations = 2.0 * (SIDE as f64).powi(3) * f64::from(products);
        Ok(operations / start.elapsed().as_secs_f64() / 1e9)
    }
}

/// What the tests of this crate compute on.
#[cfg(all(test, feature = "ndarray"))]
pub(crate) mod tests {
    use super::Autodiff;

    pub type Host = burn_ndarray::NdArray;
    pub type Learning = Autodiff<Host>;
    pub type LearningInDouble = Autodiff<burn_ndarray::NdArray<f64>>;
}
