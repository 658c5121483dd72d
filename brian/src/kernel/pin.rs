//! Maps that many products of a walk use: packed once, for as long as somebody holds on to them.
//!
//! Whoever multiplies knows a map only by where it lies. What is pinned holds the map itself: nobody can change it or put
//! something else in its place meanwhile.

use super::node::{Rows, input, rows_of};
use super::panels::Packed;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::{ArrayBase, ArrayView2, Data, Ix2};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// A map as it is and transposed, each packed when it is first multiplied with.
#[derive(Debug)]
pub(crate) struct Pinned {
    map: Rows,
    plain: OnceLock<Option<Packed>>,
    transposed: OnceLock<Option<Packed>>,
}

impl Pinned {
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
static PINNED: Mutex<BTreeMap<usize, Weak<Pinned>>> = Mutex::new(BTreeMap::new());

fn address<S: Data<Elem = f32>>(map: &ArrayBase<S, Ix2>) -> usize {
    map.as_ptr().addr()
}

/// Pins a map, if it is one and lies in the memory of the host in single precision.
pub(crate) fn pin<B: Backend, const D: usize>(map: &Tensor<B, D>) -> Option<Arc<Pinned>> {
    if D != 2 {
        return None;
    }
    let map = rows_of::<B>(input(map))?;
    if let Some(pinned) = find(map.view()) {
        return Some(pinned);
    }
    let address = address(&map);
    let pinned = Arc::new(Pinned {
        map,
        plain: OnceLock::new(),
        transposed: OnceLock::new(),
    });
    let mut all = PINNED.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|_, pinned| pinned.strong_count() > 0);
    all.insert(address, Arc::downgrade(&pinned));
    Some(pinned)
}

/// What is pinned where a view begins.
pub(super) fn find(view: ArrayView2<f32>) -> Option<Arc<Pinned>> {
    let all = PINNED.lock().unwrap_or_else(PoisonError::into_inner);
    all.get(&address(&view))?.upgrade()
}
