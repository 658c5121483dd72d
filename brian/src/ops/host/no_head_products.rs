//! Stand-in for `head_products` on machines without its instructions: nothing applies.

pub const COMPARED: usize = 8;

pub type Row<const N: usize> = [[f32; 8]; N];

pub fn rows<'a, const N: usize>(_: impl Iterator<Item = &'a [f32]>) -> Vec<&'a Row<N>> {
    Vec::new()
}

#[derive(Clone, Copy)]
pub enum Products {}

impl Products {
    pub fn new() -> Option<Self> {
        None
    }

    pub fn compare<const N: usize>(
        self,
        _: &[&Row<N>],
        _: &[&Row<N>],
        _: &[usize],
        _: usize,
        _: &mut [f32],
    ) {
        match self {}
    }

    pub fn gather<const N: usize>(
        self,
        _: &[f32],
        _: &[&Row<N>],
        _: &[usize],
        _: usize,
        _: &mut [Row<N>],
    ) {
        match self {}
    }

    pub fn scatter<const N: usize>(
        self,
        _: &[f32],
        _: &[&Row<N>],
        _: &[usize],
        _: usize,
        _: &mut [&mut Row<N>],
    ) {
        match self {}
    }
}
