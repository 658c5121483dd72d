//! The gradient of a tensor that many operations use, summed in one place.
//!
//! A walk runs a block again and again on few tokens each time. Multiplied out each time, the gradients `leftᵀ right` of its
//! weights would be written, read and added as whole matrices. Here rows are collected until they are many, and their product
//! is added to the sum. Only the end of the backward pass needs the sum, so any idle thread does this work meanwhile. Gradients
//! of some rows are added to these rows alone.
//!
//! Which rows are multiplied together, and in which order they are added, is settled when they come: the bits do not depend on
//! which thread does the work, and when.

use super::gemm::add_product;
use super::gradient::Gradient;
use super::numeric::Rows;
use super::packed_gemm::NARROW;
use super::skinny_gemm;
use ndarray::{Array2, Axis, concatenate};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// From this many rows on, a product is worth reading and writing the whole sum.
const MANY: usize = 256;
/// The most batches that wait: if there are more, no thread is idle.
const BACKLOG: usize = 2;

/// A sum of products, or of rows, that is the gradient of one tensor.
#[derive(Debug, Default)]
pub(super) struct GradientSum {
    has_any: AtomicBool,
    waiting: Mutex<Waiting>,
    /// Whoever holds it multiplies.
    sum: Mutex<Option<Array2<f32>>>,
}

/// Left and right sides.
type Batch = Vec<[Rows; 2]>;

#[derive(Debug, Default)]
struct Waiting {
    few: Batch,
    many: VecDeque<Batch>,
}

impl Waiting {
    fn push(&mut self, left: Rows, right: Rows) -> bool {
        self.few.push([left, right]);
        let n_rows: usize = self.few.iter().map(|[left, _]| left.nrows()).sum();
        if n_rows >= MANY {
            self.many.push_back(std::mem::take(&mut self.few));
        }
        n_rows >= MANY
    }
}

impl GradientSum {
    /// Adds a part to a sum of shape `dims`. Returns whether it is the first part.
    pub fn add(self: &Arc<Self>, part: Gradient, dims: (usize, usize)) -> bool {
        match part {
            Gradient::Product(left, right) => {
                let mut waiting = self.waiting();
                // What is multiplied by threads of its own is not done beside something else.
                let n_columns = left.ncols();
                let is_apart = n_columns < NARROW && !skinny_gemm::applies(n_columns);
                let is_batch = waiting.push(left, right);
                let backlog = waiting.many.len();
                drop(waiting);
                if is_batch && (is_apart || backlog > BACKLOG) {
                    self.multiply();
                } else if is_batch {
                    let sum = self.clone();
                    rayon::spawn(move || sum.multiply());
                }
            }
            part => {
                let mut sum = self.settled();
                match (&mut *sum, part) {
                    (None, Gradient::Whole(whole)) => *sum = Some(whole.into_owned()),
                    (_, part) => part.add_to(sum.get_or_insert_with(|| Array2::zeros(dims))),
                }
            }
        }
        !self.has_any.swap(true, Ordering::Relaxed)
    }

    /// The sum, if anything was added.
    pub fn total(&self) -> Option<Array2<f32>> {
        self.settled().take()
    }

    /// The sum of all that came.
    fn settled(&self) -> MutexGuard<'_, Option<Array2<f32>>> {
        let mut sum = loop {
            if let Some(sum) = self.free() {
                break sum;
            }
            // What is being multiplied may need this thread.
            if rayon::yield_now().is_none() {
                std::thread::yield_now();
            }
        };
        self.work_off(&mut sum);
        let few = std::mem::take(&mut self.waiting().few);
        multiply(few, &mut sum);
        sum
    }

    /// Multiplies the batches that wait, unless somebody does already: a thread that waits for a part of its own product may
    /// come by here again.
    pub fn multiply(&self) {
        if let Some(mut sum) = self.free() {
            self.work_off(&mut sum);
        }
    }

    fn work_off(&self, sum: &mut Option<Array2<f32>>) {
        let next = || self.waiting().many.pop_front();
        while let Some(batch) = next() {
            multiply(batch, sum);
        }
    }

    fn free(&self) -> Option<MutexGuard<'_, Option<Array2<f32>>>> {
        match self.sum.try_lock() {
            Ok(sum) => Some(sum),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn multiply(batch: Batch, sum: &mut Option<Array2<f32>>) {
    let [left, right] = match batch.as_slice() {
        [] => return,
        [only] => only.clone(),
        many => [0, 1].map(|side| {
            let parts: Vec<_> = many.iter().map(|sides| sides[side].view()).collect();
            concatenate(Axis(0), &parts)
                .expect("one width")
                .into_shared()
        }),
    };
    let zeros = || Array2::zeros([left.ncols(), right.ncols()]);
    let sum = sum.get_or_insert_with(zeros);
    add_product(left.t(), right.view(), sum.view_mut());
}
