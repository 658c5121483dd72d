//! `AverageConfig`, the `[average]` table of a recipe: the exponential moving average of a stage's weights (Polyak and Juditsky 1992;
//! with this recurrence Tarvainen and Valpola 2017), which evaluation may take in their place. With the weights `W` and a share `d`:
//!
//! ```text
//! A ← W                      after step `from_step` of the stage
//! A ← A + (1 − d) (W − A)    after every `every_steps`-th step behind it
//! ```
//!
//! Training never reads `A`: a run with it has the weights of one without. Numbers are those of the weights, f32.

use brian::parameter::{Change, Path, change};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};
use serde::Deserialize;
use std::collections::HashMap;

/// A moving average of the weights, kept beside them in checkpoints. It begins anew in every stage.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct AverageConfig {
    /// The share of the average that an update leaves: 0.999 averages over about 1000 updates.
    pub decay: f64,
    /// Steps between two updates; at least 1.
    pub every_steps: u64,
    /// The step of a stage, from 1, with whose weights the average begins; those that the stage starts with if it is left out.
    pub from_step: Option<u64>,
}

/// What becomes of the average after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AverageStep {
    /// Nothing.
    Rest,
    /// It becomes the weights.
    Begin,
    /// It moves towards the weights.
    Move,
}

impl AverageConfig {
    /// What is due after so many steps of a stage.
    pub fn after(&self, stage_step: u64) -> AverageStep {
        let behind = stage_step.checked_sub(self.from_step.unwrap_or(0));
        match behind {
            Some(0) => AverageStep::Begin,
            Some(behind) if behind.is_multiple_of(self.every_steps) => AverageStep::Move,
            _ => AverageStep::Rest,
        }
    }

    /// Whether there is an average after so many steps of a stage.
    pub fn has_begun(&self, stage_step: u64) -> bool {
        stage_step >= self.from_step.unwrap_or(0)
    }
}

/// An average that moved towards weights of the same shapes: `decay` of it is left.
///
/// # Panics
/// If they have not the same parameters.
pub fn moved<B: Backend, M: Module<B>>(average: M, weights: &M, decay: f64) -> M {
    let mut visitor = Values {
        path: Path::default(),
        found: HashMap::new(),
    };
    weights.visit(&mut visitor);
    let weights = visitor.found;
    change(average, Towards { weights, decay })
}

/// The parameters by path, where they are.
struct Values<B: Backend> {
    path: Path,
    found: HashMap<String, FloatTensor<B>>,
}

impl<B: Backend> ModuleVisitor<B> for Values<B> {
    keeps_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let value = param.val().into_primitive().tensor();
        self.found.insert(self.path.join(), value);
    }
}

struct Towards<B: Backend> {
    weights: HashMap<String, FloatTensor<B>>,
    decay: f64,
}

impl<B: Backend> Change<B> for Towards<B> {
    fn change<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<B, D>>,
    ) -> Param<Tensor<B, D>> {
        let weights = self.weights.remove(path).expect("the same parameters");
        let weights: Tensor<B, D> = Tensor::from_primitive(TensorPrimitive::Float(weights));
        // As a difference: two factors rounded to f32 would not add up to 1, and weights that rest would change.
        let share = 1.0 - self.decay;
        param.map(|average| average.clone() + (weights - average) * share)
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::device::tests::Host;

    #[derive(Module, Debug)]
    struct Toy<B: Backend> {
        matrix: Param<Tensor<B, 2>>,
        gain: Param<Tensor<B, 1>>,
    }

    fn toy(matrix: [f32; 2], gain: f32) -> Toy<Host> {
        let device = Default::default();
        Toy {
            matrix: Param::from_tensor(Tensor::from_floats([matrix], &device)),
            gain: Param::from_tensor(Tensor::from_floats([gain], &device)),
        }
    }

    #[test]
    fn an_average_moves_by_the_recurrence_number_by_number() {
        // 0.75 · 8 + 0.25 · 4 = 7, 0.75 · 0 + 0.25 · −2 = −0.5, 0.75 · 1 + 0.25 · 1 = 1; then 0.75 · 7 + 0.25 · 1 = 5.5 and so on.
        let begun = toy([8.0, 0.0], 1.0);
        let once = moved(begun, &toy([4.0, -2.0], 1.0), 0.75);
        let values = |toy: &Toy<Host>| -> Vec<f32> {
            let matrix = toy.matrix.val().into_data().iter().collect::<Vec<f32>>();
            let gain = toy.gain.val().into_data().iter().collect::<Vec<f32>>();
            [matrix, gain].concat()
        };
        assert_eq!(values(&once), [7.0, -0.5, 1.0]);
        let id = once.gain.id;
        let twice = moved(once, &toy([1.0, 1.5], 5.0), 0.75);
        assert_eq!(values(&twice), [5.5, 0.0, 2.0]);
        assert_eq!(twice.gain.id, id);
    }

    #[test]
    fn an_average_of_weights_that_rest_is_these_to_the_bit() {
        let weights = toy([0.1, -3.7], 1.0);
        let mut average = weights.clone();
        for _ in 0..1000 {
            average = moved(average, &weights, 0.9999);
        }
        assert_eq!(
            average.matrix.val().into_data(),
            weights.matrix.val().into_data()
        );
        assert_eq!(
            average.gain.val().into_data(),
            weights.gain.val().into_data()
        );
    }

    #[test]
    fn an_average_begins_at_its_step_and_moves_every_so_many_steps_behind_it() {
        use AverageStep::{Begin, Move, Rest};
        let config = |every_steps, from_step| AverageConfig {
            decay: 0.9,
            every_steps,
            from_step,
        };
        let of = |config: AverageConfig| [0, 1, 2, 3, 4, 5, 6, 7].map(|step| config.after(step));
        let at_once = [Begin, Move, Move, Move, Move, Move, Move, Move];
        assert_eq!(of(config(1, None)), at_once);
        let later = [Rest, Rest, Rest, Begin, Rest, Move, Rest, Move];
        assert_eq!(of(config(2, Some(3))), later);
        assert!(!config(2, Some(3)).has_begun(2) && config(2, Some(3)).has_begun(3));
    }
}
