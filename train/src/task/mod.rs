//! What the learner sees: batches in, measured losses out.

mod batch;
mod decoder;
mod measured;
mod plan;

pub use batch::Batch;
pub use decoder::Decoder;
pub use measured::Measured;
pub use plan::{RoutePlan, StepPlan};
