//! Scores of a beam's branches on the device: computed after every step from the router's logits, with a gradient, and turned
//! by a softmax into the weights that mix the branches.

use super::branch::Child;
use crate::ops::attention_spans::MASKED;
use crate::ops::gather::rows;
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

/// The row of each child's parent, in rows `[n_parents * n_units]`; children are `[n_branches * n_units]`.
pub(crate) fn parent_rows(children: &[Child], n_units: usize) -> Vec<usize> {
    let row = |(index, child): (usize, &Child)| child.parent * n_units + index % n_units;
    children.iter().enumerate().map(row).collect()
}

/// Scores of all branches of all units: tokens, or sequences.
#[derive(Clone, Debug)]
pub(crate) struct Scores<B: Backend> {
    /// `[n_branches, n_units]`.
    values: Tensor<B, 2>,
    /// The same on the host, as branches are chosen by, `[n_branches * n_units]`.
    pub on_host: Vec<f64>,
}

impl<B: Backend> Scores<B> {
    /// One branch of every unit, with score 0.
    pub fn start(n_units: usize, device: &B::Device) -> Self {
        Self {
            values: Tensor::zeros([1, n_units], device),
            on_host: vec![0.0; n_units],
        }
    }

    /// The scores after a step: what [`super::branch::Search::follow`] computed, with a gradient.
    ///
    /// # Shapes
    /// - `logits`: `[n_parents * n_units, n_actions]`
    /// - `children`: `[n_branches * n_units]`
    pub fn follow(&self, logits: Tensor<B, 2>, children: &[Child]) -> Self {
        let [n_parents, n_units] = self.values.dims();
        let n_children = children.len();
        let device = logits.device();
        let column = |of: &dyn Fn(&Child) -> f64| -> Tensor<B, 2> {
            let values: Vec<f32> = children.iter().map(|child| of(child) as f32).collect();
            Tensor::from_data(TensorData::new(values, [n_children, 1]), &device)
        };
        let parents = parent_rows(children, n_units);
        let before = self.values.clone().reshape([n_parents * n_units, 1]);
        let [_, n_actions] = logits.dims();
        let index = |child: &Child| child.action.index(n_actions - 1) as i32;
        let actions: Vec<i32> = children.iter().map(index).collect();
        let actions = TensorData::new(actions, [n_children, 1]);
        let actions = Tensor::<B, 2, Int>::from_data(actions, &device);
        let chosen = rows(log_softmax(logits, 1), &parents).gather(1, actions);
        let added = column(&|child| match child.is_empty() {
            true => f64::from(MASKED),
            false => -child.cost,
        });
        let after = rows(before, &parents) * column(&|child| child.decay)
            + chosen * column(&|child| child.choices)
            + added;
        Self {
            values: after.reshape([n_children / n_units, n_units]),
            on_host: children.iter().map(|child| child.score).collect(),
        }
    }

    /// The weights of a unit's branches: they sum to 1, and an empty branch has none.
    ///
    /// # Shapes
    /// Returns `[n_branches, n_units]`
    pub fn weights(&self) -> Tensor<B, 2> {
        softmax(self.values.clone(), 0)
    }

    /// The branches mixed by their weights.
    ///
    /// # Shapes
    /// `[n_branches * n_units, width]` to `[n_units, width]`
    pub fn mix(&self, of_branches: Tensor<B, 2>) -> Tensor<B, 2> {
        let [n_branches, n_units] = self.values.dims();
        let [_, width] = of_branches.dims();
        if n_branches == 1 {
            return of_branches;
        }
        let weights = self.weights().unsqueeze_dim::<3>(2);
        let weighted = of_branches.reshape([n_branches, n_units, width]) * weights;
        weighted.sum_dim(0).squeeze_dim(0)
    }
}
