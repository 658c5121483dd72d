//! Stand-in for `packed_gemm` on machines without its instructions: nothing applies.

use ndarray::{ArrayView2, ArrayViewMut2};

pub const NARROW: usize = usize::MAX;

#[derive(Debug)]
pub struct Packed;

impl Packed {
    pub fn new(_: ArrayView2<f32>) -> Option<Self> {
        None
    }
}

pub fn add_packed(_: ArrayView2<f32>, _: &Packed, _: &mut ArrayViewMut2<f32>) -> bool {
    false
}

pub fn add_product(_: ArrayView2<f32>, _: ArrayView2<f32>, _: &mut ArrayViewMut2<f32>) -> bool {
    false
}
