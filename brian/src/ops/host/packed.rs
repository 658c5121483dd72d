//! Weight matrices that many products of a walk use: packed once, and kept for as long as somebody holds them.
//!
//! A product finds a packed matrix by its address. The packed copy holds the matrix itself, so that nobody can change it or
//! reuse its address meanwhile.

use super::numeric::Rows;
use super::packed_gemm::{self, Packed};
use ndarray::{ArrayBase, ArrayView2, ArrayViewMut2, Data, Ix2};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// A matrix and its transpose, each packed at its first product.
#[derive(Debug)]
pub(crate) struct PackedMap {
    map: Rows,
    plain: OnceLock<Option<Packed>>,
    transposed: OnceLock<Option<Packed>>,
}

impl PackedMap {
    /// A view of the matrix, packed; `None` if it is neither the whole matrix nor its transpose.
    pub fn packed(&self, view: ArrayView2<f32>) -> Option<&Packed> {
        let is =
            |whole: ArrayView2<f32>| whole.dim() == view.dim() && whole.strides() == view.strides();
        let side = match (is(self.map.view()), is(self.map.t())) {
            (true, _) => &self.plain,
            (_, true) => &self.transposed,
            _ => return None,
        };
        side.get_or_init(|| Packed::new(view)).as_ref()
    }
}

/// All matrices that are held, by address.
static PACKED: Mutex<BTreeMap<usize, Weak<PackedMap>>> = Mutex::new(BTreeMap::new());

fn address<S: Data<Elem = f32>>(map: &ArrayBase<S, Ix2>) -> usize {
    map.as_ptr().addr()
}

/// Keeps a matrix packed for as long as the result lives.
pub(super) fn hold(map: Rows) -> Arc<PackedMap> {
    if let Some(packed) = find(map.view()) {
        return packed;
    }
    let address = address(&map);
    let packed = Arc::new(PackedMap {
        map,
        plain: OnceLock::new(),
        transposed: OnceLock::new(),
    });
    let mut all = PACKED.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|_, packed| packed.strong_count() > 0);
    all.insert(address, Arc::downgrade(&packed));
    packed
}

/// `out + a b`; returns false, and does nothing, unless `b` is kept packed.
pub(super) fn add_product(
    a: ArrayView2<f32>,
    b: ArrayView2<f32>,
    out: &mut ArrayViewMut2<f32>,
) -> bool {
    let Some(packed) = find(b) else {
        return false;
    };
    let packed = packed.packed(b);
    packed.is_some_and(|packed| packed_gemm::add_packed(a, packed, out))
}

/// The packed matrix at the address of a view.
pub(super) fn find(view: ArrayView2<f32>) -> Option<Arc<PackedMap>> {
    let all = PACKED.lock().unwrap_or_else(PoisonError::into_inner);
    all.get(&address(&view))?.upgrade()
}
