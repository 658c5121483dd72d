//! `View`, the decisions of a trace as the route losses read them: per step the probabilities, executed blocks, weights and
//! survival of the tokens in a `Scope`, and weighted means over them.

use crate::route::rules::Rules;
use crate::route::trace::{Move, Origin, Trace};
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use serde::Deserialize;

/// Which decisions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Those of every valid token until it left; what comes later has no weight.
    Walking,
    /// Those of the last token of every sequence, also after it left: the reference's, for parity only.
    LastToken,
}

/// The decisions that count, in `n` rows.
#[derive(Clone, Debug)]
pub struct View<B: Backend> {
    /// Step by step.
    pub steps: Vec<ViewStep<B>>,
    /// Blocks to choose from.
    pub n_pool: usize,
    /// The most steps the walk could have had.
    pub max_steps: usize,
    /// `[n]`: 1 for a token that counts, else 0.
    pub counted: Tensor<B, 1>,
}

/// One step.
#[derive(Clone, Debug)]
pub struct ViewStep<B: Backend> {
    /// Logarithms of the probabilities, `[n, n_actions]`.
    pub log_probabilities: Tensor<B, 2>,
    /// `[n, n_actions]`.
    pub probabilities: Tensor<B, 2>,
    /// What was executed, one-hot over the blocks and zero for OUT, `[n, n_pool]`.
    pub executed: Tensor<B, 2>,
    /// The teacher's action, `[n]`.
    pub targets: Option<Tensor<B, 1, Int>>,
    /// The positions after the step.
    pub last_move: Move<B>,
    /// How much the decision counts, `[n]`; without a gradient.
    pub weight: Tensor<B, 1>,
    /// The probability that the token is still walking, `[n]`, with its gradient; 1 where the scope does not look.
    pub survival: Tensor<B, 1>,
}

impl<B: Backend> View<B> {
    /// The decisions of a trace; `valid` says which tokens count, `[batch * seq]`. `None` if the router was not asked.
    pub fn new(trace: &Trace<B>, rules: &Rules, scope: Scope, valid: &[bool]) -> Option<Self> {
        let device = trace.steps.first()?.logits.device();
        let walks = &trace.walks;
        let (n_pool, seq) = (walks.n_pool, walks.seq);
        let rows: Vec<usize> = match scope {
            Scope::Walking => (0..walks.batch * seq).collect(),
            Scope::LastToken => (1..=walks.batch).map(|row| row * seq - 1).collect(),
        };
        let n = rows.len();
        let vector =
            |values: Vec<f32>| Tensor::<B, 1>::from_data(TensorData::new(values, [n]), &device);
        let picked = |tensor: Tensor<B, 2>| match scope {
            Scope::Walking => tensor,
            Scope::LastToken => {
                let [_, width] = tensor.dims();
                let tensor = tensor.reshape([walks.batch, seq, width]);
                tensor.slice_dim(1, seq - 1..seq).reshape([n, width])
            }
        };
        let counts = |row: &usize| scope == Scope::LastToken || valid[*row];
        let counted = vector(rows.iter().map(|row| f32::from(counts(row))).collect());
        let mut survival = vector(vec![1.0; n]);
        let mut steps = Vec::new();
        for (step, decisions) in trace.steps.iter().zip(&walks.steps) {
            let logits = picked(step.logits.clone());
            let probabilities = softmax(logits.clone(), 1);
            let executed = rows.iter().flat_map(|&row| {
                let action = decisions.actions[row];
                (0..n_pool).map(move |block| f32::from(action == block))
            });
            let executed = TensorData::new(executed.collect::<Vec<f32>>(), [n, n_pool]);
            let targets = decisions.targets.as_ref().map(|targets| {
                let targets: Vec<i32> = rows.iter().map(|&row| targets[row] as i32).collect();
                Tensor::from_data(TensorData::new(targets, [n]), &device)
            });
            let walking =
                |row: &usize| scope == Scope::LastToken || decisions.origins[*row] != Origin::Left;
            let weight = vector(
                rows.iter()
                    .map(|row| f32::from(counts(row) && walking(row)))
                    .collect(),
            );
            let weight = match rules.mixes_states() && scope == Scope::Walking {
                true => weight * survival.clone().detach(),
                false => weight,
            };
            let stays = probabilities.clone().slice_dim(1, n_pool..n_pool + 1).neg() + 1.0;
            steps.push(ViewStep {
                log_probabilities: log_softmax(logits, 1),
                last_move: Move {
                    probabilities: picked(step.last_move.probabilities.clone()),
                    position: picked(step.last_move.position.clone()),
                    of_actions: step.last_move.of_actions.clone(),
                },
                executed: Tensor::from_data(executed, &device),
                probabilities,
                targets,
                weight,
                survival: survival.clone(),
            });
            if scope == Scope::Walking && rules.exit_objective.hard() {
                survival = survival * stays.squeeze_dim(1);
            }
        }
        Some(Self {
            steps,
            n_pool,
            max_steps: walks.max_steps,
            counted,
        })
    }

    /// Weighted mean over all decisions; `of` gives one number per decision.
    ///
    /// # Shapes
    /// `of` returns `[n]` for a step; the mean is `[1]`
    pub fn mean(&self, of: impl Fn(usize, &ViewStep<B>) -> Tensor<B, 1>) -> Tensor<B, 1> {
        let terms = self.steps.iter().enumerate();
        let sum = terms.map(|(index, step)| (of(index, step) * step.weight.clone()).sum());
        let weight = self.steps.iter().map(|step| step.weight.clone().sum());
        total(sum) / total(weight).clamp_min(1e-9)
    }

    /// Weighted mean over all decisions; `of` gives one row per decision.
    ///
    /// # Shapes
    /// `of` returns `[n, width]` for a step; the mean is `[width]`
    pub fn mean_rows(&self, of: impl Fn(&ViewStep<B>) -> Tensor<B, 2>) -> Tensor<B, 1> {
        let sums = self.steps.iter().map(|step| {
            let weighted = of(step) * step.weight.clone().unsqueeze_dim(1);
            weighted.sum_dim(0).squeeze_dim(0)
        });
        let weight = self.steps.iter().map(|step| step.weight.clone().sum());
        total(sums) / total(weight).clamp_min(1e-9)
    }

    /// Mean over the tokens that count.
    ///
    /// # Shapes
    /// `[n]` to `[1]`
    pub fn mean_over_tokens(&self, of_token: Tensor<B, 1>) -> Tensor<B, 1> {
        let sum = (of_token * self.counted.clone()).sum();
        sum / self.counted.clone().sum().clamp_min(1.0)
    }
}

impl<B: Backend> ViewStep<B> {
    /// Probabilities of the blocks, without OUT.
    ///
    /// # Shapes
    /// Returns `[n, n_pool]`
    pub fn of_blocks(&self) -> Tensor<B, 2> {
        let n_actions = self.probabilities.dims()[1];
        self.probabilities.clone().slice_dim(1, 0..n_actions - 1)
    }

    /// Probability of OUT.
    ///
    /// # Shapes
    /// Returns `[n]`
    pub fn of_out(&self) -> Tensor<B, 1> {
        let n_actions = self.probabilities.dims()[1];
        let column = self
            .probabilities
            .clone()
            .slice_dim(1, n_actions - 1..n_actions);
        column.squeeze_dim(1)
    }
}

fn total<B: Backend>(terms: impl Iterator<Item = Tensor<B, 1>>) -> Tensor<B, 1> {
    let sum = terms.reduce(|sum, term| sum + term);
    sum.expect("a walk that asked the router has a step")
}

/// `hard` in value, `soft` in gradient.
pub(super) fn straight_through<B: Backend, const D: usize>(
    hard: Tensor<B, D>,
    soft: Tensor<B, D>,
) -> Tensor<B, D> {
    // Grouped so that the soft part is exactly zero.
    hard + (soft.clone() - soft.detach())
}
