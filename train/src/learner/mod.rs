//! burn-train's learner, extended: hooks before and after every step, a ladder of stages, exact resume.
//!
//! | file | what |
//! |---|---|
//! | `hook` | what can be plugged in: plans the next step, reads the last one |
//! | `strategy` | the only training loop |
//! | `ladder` | stage after stage: where each starts, whether its gate lets the next one begin |
//! | `loader` | position in the data → micro-batch |
//! | `schedule` | step → learning rate |
//! | `gradient` | global norm and clipping |
//! | `optimizer` | AdamW that decays matrices only; its state by parameter path |
//! | `freeze` | parameter groups, and which of them learn |
//! | `weights` | model and optimizer ↔ the tensors of a checkpoint |

mod freeze;
mod gradient;
mod hook;
mod ladder;
mod loader;
mod optimizer;
pub mod schedule;
mod strategy;
mod weights;

pub use freeze::{GROUPS, group_of};
pub use hook::{Every, Hook, StepInfo, StepPlan, Verdict};
pub use ladder::{Ladder, fresh_model, skeleton};
pub use loader::{TrainingData, ValidationData};
pub use strategy::{Components, Trainable, evaluate};
pub use weights::load_model;
