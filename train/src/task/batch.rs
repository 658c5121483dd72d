//! `Batch`: one micro-batch on the host, turned into tensors, with the plan of its step: `StepPlan` (frozen groups, targets,
//! rate) and `RoutePlan` (who leads the walks, which losses are added).
//!
//! Burn's `TrainStep::step` receives nothing but its input, so the plan travels with the data and never as a global.

use crate::data::HostBatch;
use crate::device::Dtype;
use brian::loss::route::RouteLosses;
use brian::route::policy::{Policy, SequenceInfo, Teacher};
use brian::route::rules::Rules;
use brian::{Recompute, Segments};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use std::any::{Any, TypeId};
use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::sync::Arc;

/// Windows of tokens, and how to treat them.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Inputs, targets and which targets count.
    pub host: HostBatch,
    /// Which validation split it comes from; 0 in training.
    pub source: usize,
    /// The plan of the step.
    pub plan: StepPlan,
}

impl Batch {
    /// The number of targets that count.
    pub fn targets(&self) -> u64 {
        self.host.valid.iter().filter(|&&valid| valid).count() as u64
    }

    /// `[batch, seq]` input tokens.
    pub fn inputs<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2, Int> {
        self.integers(&self.host.inputs, device)
    }

    /// `[batch, seq]` target tokens.
    pub fn target_tokens<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2, Int> {
        self.integers(&self.host.targets, device)
    }

    /// `[batch, seq]`, 1 where the target counts and 0 where it does not.
    pub fn counted<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2> {
        let values: Vec<f32> = self
            .host
            .valid
            .iter()
            .map(|&valid| f32::from(valid))
            .collect();
        Tensor::from_data(TensorData::new(values, self.shape()), device)
    }

    /// How texts lie in the rows, several in one where documents are packed.
    pub fn segments(&self) -> Segments {
        let [batch, seq] = self.shape();
        match self.host.parts.is_empty() {
            true => Segments::whole(batch, seq),
            false => Segments::new(seq, &self.host.parts),
        }
    }

    /// What teachers and random draws may know about each text: the number of its row, and how hard it is.
    pub fn rows(&self) -> Vec<SequenceInfo> {
        let segments = self.segments();
        let info = |(text, &difficulty): (usize, &Option<u8>)| SequenceInfo {
            sequence: self.host.sequences[segments.window(text)],
            difficulty,
        };
        let known = (0..segments.len()).zip(&self.host.difficulty);
        known.map(info).collect()
    }

    fn integers<B: Backend>(&self, tokens: &[u32], device: &B::Device) -> Tensor<B, 2, Int> {
        let values: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
        Tensor::from_data(TensorData::new(values, self.shape()), device)
    }

    fn shape(&self) -> [usize; 2] {
        [self.host.batch, self.host.seq]
    }
}

/// Who leads the walks of a pass, the losses of their route, the number type of products, and what is computed again.
#[derive(Clone, Debug, PartialEq)]
pub struct RoutePlan {
    /// The rules that decide a walk.
    pub rules: Rules,
    /// The losses that are added to the language-model loss.
    pub losses: RouteLosses,
    /// Those that the program adds.
    pub added: AddedLosses,
    /// The number type of products.
    pub products: Dtype,
    /// What is computed again in the backward pass.
    pub recompute: Option<Recompute>,
}

impl Default for RoutePlan {
    fn default() -> Self {
        Self::sequential()
    }
}

impl RoutePlan {
    /// The fixed route without route losses; also for a decoder without a pool.
    pub fn sequential() -> Self {
        Self {
            rules: Rules::sequential(),
            losses: RouteLosses::NONE,
            added: AddedLosses::default(),
            products: Dtype::F32,
            recompute: None,
        }
    }

    /// The teacher that still leads at times, or is still imitated.
    pub fn teacher(&self) -> Option<&Teacher> {
        let imitates = self.losses.imitation > 0.0;
        match &self.rules.policy {
            Policy::Teacher(teacher) => Some(teacher),
            Policy::Blend {
                teacher,
                router_probability,
                ..
            } => (*router_probability < 1.0 || imitates).then_some(teacher),
            Policy::Router { teacher, .. } => teacher.as_ref().filter(|_| imitates),
        }
    }

    /// The same, without what only training does.
    pub fn evaluation(&self) -> Self {
        Self {
            rules: self.rules.evaluation(),
            ..self.clone()
        }
    }
}

/// A loss that a program adds, whatever its type.
pub trait AddedLoss: Send + Sync {
    /// A `Term<B>` for a `Pass<B>` of the backend with this id, where the pass has what it reads.
    fn term(&self, pass: &dyn Any, batch: &Batch, backend: TypeId) -> Option<Box<dyn Any>>;
}

/// The losses that a program adds to a recipe's.
#[derive(Clone, Default)]
pub struct AddedLosses(pub Vec<Arc<dyn AddedLoss>>);

impl PartialEq for AddedLosses {
    fn eq(&self, other: &Self) -> bool {
        let mut pairs = self.0.iter().zip(&other.0);
        self.0.len() == other.0.len() && pairs.all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

impl Debug for AddedLosses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} losses of the program", self.0.len())
    }
}

/// The plan of the coming step. The strategy fills it, hooks may change it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepPlan {
    /// Optimizer steps done in this stage so far: the coming step's index.
    pub stage_step: u64,
    /// Optimizer steps of the stage in its recipe; after them, schedules keep their last value.
    pub stage_steps: u64,
    /// The route plan: who leads the walks.
    pub route: RoutePlan,
    /// Parameter groups that do not learn; their gradients are not computed.
    pub frozen: BTreeSet<String>,
    /// Targets that count in all micro-batches of the step.
    pub targets: u64,
    /// The learning rate: that of the stage's schedule, unless a hook writes another.
    pub learning_rate: f64,
}

impl StepPlan {
    /// The plan of a pass that is not a training step.
    pub fn idle(route: RoutePlan) -> Self {
        Self {
            route,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brian::route::policy::Select;

    #[test]
    fn documents_of_one_row_share_its_number_and_have_a_difficulty_each() {
        let host = HostBatch {
            batch: 2,
            seq: 4,
            parts: vec![1, 3, 4],
            difficulty: vec![Some(0), Some(2), None],
            sequences: vec![7, 9],
            ..HostBatch::default()
        };
        let batch = Batch {
            host,
            source: 0,
            plan: StepPlan::default(),
        };
        assert_eq!(batch.segments(), Segments::new(4, &[1, 3, 4]));
        let info = |sequence, difficulty| SequenceInfo {
            sequence,
            difficulty,
        };
        assert_eq!(
            batch.rows(),
            [info(7, Some(0)), info(7, Some(2)), info(9, None)]
        );
    }

    #[test]
    fn a_teacher_counts_as_long_as_it_leads_or_is_imitated() {
        let plan = |router_probability, imitation| {
            let mut plan = RoutePlan::sequential();
            plan.rules.policy = Policy::Blend {
                teacher: Teacher::Sequential,
                router_probability,
                select: Select::Argmax,
            };
            plan.losses.imitation = imitation;
            plan
        };
        let teacher = Some(&Teacher::Sequential);
        assert_eq!(RoutePlan::sequential().teacher(), teacher);
        assert_eq!(plan(0.5, 0.0).teacher(), teacher);
        assert_eq!(plan(1.0, 0.1).teacher(), teacher);
        assert_eq!(plan(1.0, 0.0).teacher(), None);
        let led = |imitation| {
            let mut plan = plan(1.0, imitation);
            plan.rules.policy = Policy::Router {
                teacher: Some(Teacher::Sequential),
                select: Select::Argmax,
            };
            plan
        };
        assert_eq!(led(0.1).teacher(), teacher);
        assert_eq!(led(0.0).teacher(), None);
    }
}
