//! What is plugged into the learner, one hook per file.

mod metrics_log;
mod sample;
mod staged_unfreezing;
mod throughput;

pub use metrics_log::MetricsLog;
pub use sample::{Sample, continue_text};
pub use staged_unfreezing::StagedUnfreezing;
pub use throughput::Throughput;
