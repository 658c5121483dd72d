//! Opens the edge table on a CUDA or wgpu device, if it has room; the only file of this crate that names CubeCL's runtimes.

use super::on_device::OnDevice;
use super::table::ResidentTable;
use crate::model::BriLlm;
use crate::row_adamw::Moments;
use std::any::Any;

/// Brings a table to a device, if that is one of CubeCL's and has room for it.
pub fn open(device: &dyn Any, model: &BriLlm, moments: &Moments) -> Option<Box<dyn OnDevice>> {
    #[cfg(feature = "cuda")]
    if let Some(device) = device.downcast_ref::<burn::backend::cuda::CudaDevice>() {
        // A fourth of the device's memory.
        let room = |page: u64| 4 * page;
        return on::<burn_cubecl::cubecl::cuda::CudaRuntime>(device, model, moments, room);
    }
    #[cfg(any(feature = "wgpu", feature = "vulkan"))]
    if let Some(device) = device.downcast_ref::<burn::backend::wgpu::WgpuDevice>() {
        return on::<burn_cubecl::cubecl::wgpu::WgpuRuntime>(device, model, moments, |_| u64::MAX);
    }
    let _ = (device, model, moments);
    None
}

/// `room` is the memory of a device, from the largest allocation it allows.
#[cfg(any(feature = "cuda", feature = "wgpu", feature = "vulkan"))]
fn on<R: burn_cubecl::CubeRuntime>(
    device: &R::CubeDevice,
    model: &BriLlm,
    moments: &Moments,
    room: impl Fn(u64) -> u64,
) -> Option<Box<dyn OnDevice>> {
    let table = ResidentTable::<R>::open(device, model, moments, room)?;
    Some(Box::new(table))
}
