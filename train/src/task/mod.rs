//! What the learner sees: batches in, measured losses out.

mod batch;
mod decoder;
mod measured;
mod plan;
mod signal;

pub use batch::Batch;
pub use decoder::Decoder;
pub use measured::{Coverage, Measured};
pub use plan::{RoutePlan, StepPlan};
pub use signal::{Core, Learnt, Signal};
