//! `Number`: a measured number as a burn-train metric, registered for its dashboard; `NoLog`: a metric logger that keeps
//! nothing. Names get `.` for `/`, which would hang burn-train's event store.

pub mod table;

use self::table::{Better, MetricInfo, When};
use crate::learner::Components;
use crate::task::Measured;
use burn::tensor::backend::AutodiffBackend;
use burn::train::SupervisedTraining;
use burn::train::logger::MetricLogger;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Adaptor, Metric, MetricAttributes, MetricDefinition, MetricMetadata, MetricName, Numeric,
    NumericAttributes, NumericEntry, SerializedEntry,
    store::{EpochSummary, MetricsUpdate, Split},
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Registers what the dashboard shows of a stage.
pub fn register<B, M>(
    training: SupervisedTraining<Components<B, M>>,
    metrics: &[MetricInfo],
) -> SupervisedTraining<Components<B, M>>
where
    B: AutodiffBackend,
    M: crate::learner::Trainable<B>,
{
    let shown = metrics.iter().filter(|metric| metric.dashboard);
    shown.fold(training, |training, metric| {
        let number = || Number::new(metric);
        match metric.measured {
            When::Training => training.metric_train_numeric(number()),
            When::Validation => training.metric_valid_numeric(number()),
            When::Always => training
                .metric_train_numeric(number())
                .metric_valid_numeric(number()),
        }
    })
}

/// One number of [`Measured`].
#[derive(Clone)]
pub struct Number {
    metric: MetricInfo,
    name: MetricName,
    state: NumericMetricState,
}

impl Number {
    fn new(metric: &MetricInfo) -> Self {
        Self {
            metric: metric.clone(),
            name: Arc::new(metric.name.replace('/', ".")),
            state: NumericMetricState::default(),
        }
    }
}

/// The numbers of one item, and the targets they are means over.
pub struct Numbers {
    named: BTreeMap<String, f64>,
    targets: usize,
}

impl Adaptor<Numbers> for Measured {
    fn adapt(&self) -> Numbers {
        Numbers {
            named: self.named(),
            targets: self.targets as usize,
        }
    }
}

impl Metric for Number {
    type Input = Numbers;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn update(&mut self, numbers: &Numbers, _metadata: &MetricMetadata) -> SerializedEntry {
        let format = FormatOptions::new(self.name()).precision(4);
        match numbers.named.get(&self.metric.name) {
            Some(&value) => self.state.update(value, numbers.targets, format),
            // What this step did not measure keeps its last value on the screen and adds nothing to the mean.
            None => {
                let last = self.state.current_value().current();
                let shown = if last.is_finite() { last } else { 0.0 };
                self.state.update(shown, 0, format)
            }
        }
    }

    fn clear(&mut self) {
        self.state.reset();
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: Some(self.metric.unit.to_string()).filter(|unit| !unit.is_empty()),
            higher_is_better: self.metric.better == Better::Higher,
        }
        .into()
    }
}

impl Numeric for Number {
    fn value(&self) -> NumericEntry {
        self.state.current_value()
    }

    fn running_value(&self) -> NumericEntry {
        self.state.running_value()
    }
}

/// Keeps nothing: the run's log is `metrics.jsonl`. burn-train would write files of its own without a logger, and its
/// logger in memory grows for ever.
pub struct NoLog;

impl MetricLogger for NoLog {
    fn log(&mut self, _update: MetricsUpdate, _epoch: usize, _split: &Split) {}

    fn read_numeric(
        &mut self,
        _name: &str,
        _epoch: usize,
        _split: &Split,
    ) -> Result<Vec<NumericEntry>, String> {
        Ok(Vec::new())
    }

    fn log_metric_definition(&mut self, _definition: MetricDefinition) {}

    fn log_epoch_summary(&mut self, _summary: EpochSummary) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(number: &mut Number, nats: f64, targets: u64) -> [f64; 2] {
        let measured = Measured {
            nats,
            targets,
            ..Measured::default()
        };
        update(number, &measured)
    }

    fn update(number: &mut Number, measured: &Measured) -> [f64; 2] {
        let metadata = MetricMetadata {
            progress: burn::data::dataloader::Progress::new(1, 1),
            global_progress: burn::data::dataloader::Progress::new(1, 1),
            iteration: Some(1),
            lr: None,
        };
        number.update(&measured.adapt(), &metadata);
        [number.value(), number.running_value()].map(|entry| entry.current())
    }

    #[test]
    fn the_mean_of_a_number_is_over_targets_and_what_was_not_measured_adds_nothing() {
        let table = table::of_all_models();
        let number =
            |name: &str| Number::new(table.iter().find(|metric| metric.name == name).unwrap());
        let mut loss = number("loss/lm");
        assert_eq!(loss.name().as_str(), "loss.lm");
        assert_eq!(shown(&mut loss, 6.0, 3), [2.0, 2.0]);
        // 6 + 12 nats on 3 + 1 targets.
        assert_eq!(shown(&mut loss, 12.0, 1), [12.0, 4.5]);
        let mut rate = number("learning_rate");
        let with = |value| Measured {
            targets: 2,
            numbers: [("learning_rate".to_string(), value)].into(),
            ..Measured::default()
        };
        assert_eq!(update(&mut rate, &Measured::default())[0], 0.0);
        assert_eq!(update(&mut rate, &with(0.5)), [0.5, 0.5]);
        let without = Measured {
            targets: 9,
            ..Measured::default()
        };
        assert_eq!(update(&mut rate, &without), [0.5, 0.5]);
        rate.clear();
        assert_eq!(update(&mut rate, &with(0.25)), [0.25, 0.25]);
    }

    #[test]
    fn only_speed_is_better_when_it_is_higher() {
        for metric in table::of_all_models() {
            let MetricAttributes::Numeric(attributes) = Number::new(&metric).attributes() else {
                panic!("a number");
            };
            let name = &metric.name;
            assert_eq!(
                attributes.higher_is_better,
                name == "tokens_per_second",
                "{name}"
            );
        }
    }
}
