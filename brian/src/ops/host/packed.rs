//! Maps that many products of a walk use: packed once, for as long as somebody holds on to them.
//!
//! Whoever multiplies knows a map only by where it lies. What is packed holds the map itself: nobody can change it or put
//! something else in its place meanwhile.

use super::numeric::Rows;
use super::packed_gemm::{self, Packed};
use ndarray::{ArrayBase, ArrayView2, ArrayViewMut2, Data, Ix2};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// A map as it is and transposed, each packed when it is first multiplied with.
#[derive(Debug)]
pub(crate) struct PackedMap {
    map: Rows,
    plain: OnceLock<Option<Packed>>,
    transposed: OnceLock<Option<Packed>>,
}

impl PackedMap {
    /// A view of the map, packed; none if it is neither the whole map nor its transpose.
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

/// All that are held, by their addresses.
static PACKED: Mutex<BTreeMap<usize, Weak<PackedMap>>> = Mutex::new(BTreeMap::new());

fn address<S: Data<Elem = f32>>(map: &ArrayBase<S, Ix2>) -> usize {
    map.as_ptr().addr()
}

/// Keeps a map packed, for as long as what this gives is held.
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

/// `out + a b`; says no, and does nothing, unless `b` is kept packed.
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

/// What is packed where a view begins.
pub(super) fn find(view: ArrayView2<f32>) -> Option<Arc<PackedMap>> {
    let all = PACKED.lock().unwrap_or_else(PoisonError::into_inner);
    all.get(&address(&view))?.upgrade()
}
