//! Weight matrices that many products of a walk use: packed once, for as long as the walk holds them. The way back of an
//! operation holds none, so that packed copies do not wait for it in memory.

use super::gemm;
use super::numeric::Rows;
use super::packed_gemm::{self, Packed as Panels};
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use std::sync::{Arc, OnceLock, Weak};

/// Weight matrices that stay packed. Whoever runs operations on them again and again owns it and hands it to each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packed(pub(super) Vec<Arc<PackedMap>>);

/// A matrix and its transpose, each packed at its first product. While it holds the matrix, nobody can change it or reuse its
/// address, by which a product finds it.
#[derive(Debug)]
pub(super) struct PackedMap {
    map: Rows,
    plain: OnceLock<Option<Panels>>,
    transposed: OnceLock<Option<Panels>>,
}

impl PackedMap {
    /// A view of the matrix, packed; `None` if it is neither the whole matrix nor its transpose.
    fn panels(&self, view: ArrayView2<f32>) -> Option<&Panels> {
        let is = |whole: ArrayView2<f32>| {
            let lies = |map: &ArrayView2<f32>| (map.as_ptr(), map.dim());
            lies(&whole) == lies(&view) && whole.strides() == view.strides()
        };
        let side = match (is(self.map.view()), is(self.map.t())) {
            (true, _) => &self.plain,
            (_, true) => &self.transposed,
            _ => return None,
        };
        side.get_or_init(|| Panels::new(view)).as_ref()
    }
}

impl Packed {
    /// The same matrices for an operation, as long as their owner holds them.
    pub fn lend(&self) -> Lent {
        Lent(self.0.iter().map(Arc::downgrade).collect())
    }
}

/// Packed matrices that somebody else owns.
#[derive(Clone, Debug)]
pub(crate) struct Lent(Vec<Weak<PackedMap>>);

impl Lent {
    /// `out + a b`.
    pub fn add_product(&self, a: ArrayView2<f32>, b: ArrayView2<f32>, mut out: ArrayViewMut2<f32>) {
        let add = |map: Arc<PackedMap>| {
            let panels = map.panels(b)?;
            Some(packed_gemm::add_packed(a, panels, &mut out))
        };
        if self.0.iter().filter_map(Weak::upgrade).find_map(add) != Some(true) {
            gemm::add_product(a, b, out);
        }
    }

    /// `a b`.
    pub fn product(&self, a: ArrayView2<f32>, b: ArrayView2<f32>) -> Array2<f32> {
        let mut out = Array2::zeros([a.nrows(), b.ncols()]);
        self.add_product(a, b, out.view_mut());
        out
    }
}

impl FromIterator<Rows> for Packed {
    fn from_iter<I: IntoIterator<Item = Rows>>(maps: I) -> Self {
        let hold = |map| PackedMap {
            map,
            plain: OnceLock::new(),
            transposed: OnceLock::new(),
        };
        Self(maps.into_iter().map(|map| Arc::new(hold(map))).collect())
    }
}

impl<'a> FromIterator<&'a Packed> for Packed {
    fn from_iter<I: IntoIterator<Item = &'a Packed>>(all: I) -> Self {
        Self(
            all.into_iter()
                .flat_map(|packed| packed.0.clone())
                .collect(),
        )
    }
}
