//! Hooks called around each training step, one per file: freezing, route schedule, metrics, samples; and a program's own.

mod collapse_guard;
pub mod custom;
mod metrics_log;
mod route_schedule;
mod routing_metrics;
mod sample;
mod staged_unfreezing;
mod throughput;

pub use collapse_guard::CollapseGuard;
pub use metrics_log::{MetricsLog, metrics_line};
pub use route_schedule::RouteSchedule;
pub use routing_metrics::RoutingMetrics;
pub use sample::Sample;
pub use staged_unfreezing::StagedUnfreezing;
pub use throughput::Throughput;

#[cfg(all(test, feature = "ndarray"))]
mod tests;
