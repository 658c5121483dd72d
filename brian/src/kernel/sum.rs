//! The gradient of what many passes use, in one place.
//!
//! A walk runs a block again and again on few tokens each time. Multiplied out each time, its maps' gradients `leftᵀ right` would
//! be written, read and added as whole matrices; here few rows wait until they are many, and what they make is added to what is
//! there. What only some rows get is added to these alone.

use super::node::{Gradient, Rows};
use super::numeric::{add, add_product};
use ndarray::{Array2, Axis, concatenate};

/// So many rows are worth the reading and writing of the whole sum.
const MANY: usize = 256;

/// A sum of products.
#[derive(Debug, Default)]
pub(super) struct Sum {
    sum: Option<Array2<f32>>,
    waiting: Vec<[Rows; 2]>,
}

impl Sum {
    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.sum.is_none() && self.waiting.is_empty()
    }

    /// Adds a part; `dims` are those of the whole.
    pub fn add(&mut self, part: Gradient, dims: (usize, usize)) {
        match part {
            Gradient::Whole(whole) => match &mut self.sum {
                Some(sum) => add(sum, &whole),
                None => self.sum = Some(whole.into_owned()),
            },
            Gradient::Product(left, right) => {
                self.waiting.push([left, right]);
                let n_rows: usize = self.waiting.iter().map(|[left, _]| left.nrows()).sum();
                if n_rows >= MANY {
                    self.multiply();
                }
            }
            Gradient::Some(some) => {
                some.add_to(self.sum.get_or_insert_with(|| Array2::zeros(dims)));
            }
        }
    }

    /// The sum, if anything was added.
    pub fn total(mut self) -> Option<Array2<f32>> {
        self.multiply();
        self.sum
    }

    fn multiply(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let [left, right] = match waiting.as_slice() {
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
        let sum = self.sum.get_or_insert_with(zeros);
        add_product(left.t(), right.view(), sum);
    }
}
