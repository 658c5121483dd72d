//! What the learner sees: batches in, measured losses out.

mod batch;
mod brillm_task;
mod continuation;
mod decoder;
mod measured;
mod plan;
#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use brillm_task::{BriLlmState, BriLlmTask, Learnt};
pub use continuation::{
    AtEnd, Continuation, Drawn, StopReason, begun, ends, not_finite, opening, prompt_tokens,
};
pub use decoder::Decoder;
pub use measured::{Coverage, Measured, ratio_standard_error};
pub use plan::{RoutePlan, StepPlan};
