//! Types between learner and models: micro-batches with their plan in, measured losses out, and how texts are continued.

mod batch;
mod continuation;
mod measured;
#[cfg(test)]
mod tests;

pub use batch::{AddedLoss, AddedLosses, Batch, RoutePlan, StepPlan};
pub use continuation::{
    AtEnd, Continuation, Drawn, LONGEST, StopReason, begun, not_finite, opening, prompt_tokens,
};
pub use measured::{Coverage, Learnt, Measured, ratio_standard_error};
