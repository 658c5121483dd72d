//! Trains a stage through burn-train: the training loop, hooks before and after every step, data loaders, AdamW, schedules.
//!
//! | file | what |
//! |---|---|
//! | `hook` | the hook interface: plans the next step, reads the last one |
//! | `strategy` | the learning strategy that burn-train calls |
//! | `trainable` | what the learner needs of a model, and what burn-train is told about it |
//! | `session` | the only training loop |
//! | `events` | numbers for the dashboard |
//! | `loader` | position in the data → micro-batch |
//! | `micro_batches` | step → number of micro-batches, and their place in the data |
//! | `schedule` | step → learning rate |
//! | `gradient` | global norm and clipping |
//! | `gpu` | update and norm as kernels |
//! | `optimizer` | AdamW that decays matrices only; its state by parameter path |
//! | `average` | a moving average of the weights |
//! | `freeze` | parameter groups, and which of them learn |
//! | `weights` | parameters of a model ↔ the tensors of a checkpoint |

/// The part of every visitor over paths that keeps the path.
macro_rules! keeps_path {
    () => {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _name: &str, container: &str) {
            self.path.exit(container);
        }
    };
}

mod accumulate;
pub mod average;
pub mod custom_optimizer;
mod events;
mod freeze;
#[cfg(feature = "cube")]
mod gpu;
#[cfg(not(feature = "cube"))]
#[path = "no_gpu.rs"]
mod gpu;
pub mod gradient;
mod hook;
mod loader;
pub mod micro_batches;
pub mod muon;
mod one_pass;
pub mod optimizer;
mod rate;
pub mod schedule;
mod session;
mod step;
mod strategy;
mod trainable;
mod weights;

pub use average::AverageConfig;
pub use custom_optimizer::{CustomOptimizer, Tensors, UpdateInfo};
pub use freeze::{PLAIN_GROUPS, ROUTED_GROUPS, group_of};
pub use hook::{Every, Hook, Hooks, StepInfo, Verdict};
pub use loader::{TrainingData, TrainingLoader, ValidationData, ValidationLoader, check_split};
pub use micro_batches::MicroBatches;
pub use muon::StepLength;
pub use optimizer::{Decay, OptimizerConfig, ParameterOptimizer, check_moments};
pub use rate::{DecayBy, Rate};
pub use schedule::Schedule;
pub use session::{Clock, Session, StageSettings, evaluate};
pub use strategy::{HookedStrategy, Outcome};
pub use trainable::{Components, Trainable, learner};
pub use weights::{load_model, store_model};

#[cfg(all(test, feature = "ndarray"))]
mod tests;
