//! `MetricInfo`: name in `metrics.jsonl`, unit, better direction, meaning and time of measurement of a number; and the list
//! of the numbers that every model has. Nothing is computed here.
//!
//! Dashboard, log, gates and sweeps know these numbers and no others. A family adds those of its models, a hook of a program
//! its own.

/// One number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricInfo {
    /// As in `metrics.jsonl`.
    pub name: String,
    /// What it counts in; empty for a share or a number without one.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// What it is.
    pub text: &'static str,
    /// When it is measured.
    pub measured: When,
    /// Whether the dashboard shows it.
    pub dashboard: bool,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Less.
    Lower,
    /// More.
    Higher,
    /// It depends.
    Neither,
}

/// When a number is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At training steps only.
    Training,
    /// At training steps and validations.
    Always,
    /// At validations only.
    Validation,
}

impl MetricInfo {
    /// A number without a unit that is measured at steps and validations and that only the log shows.
    pub fn new(name: impl Into<String>, text: &'static str) -> Self {
        Self {
            name: name.into(),
            unit: "",
            better: Better::Neither,
            text,
            measured: When::Always,
            dashboard: false,
        }
    }

    /// In a unit.
    pub fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    /// With a better end.
    pub fn better(self, better: Better) -> Self {
        Self { better, ..self }
    }

    /// Measured at these times only.
    pub fn at(self, measured: When) -> Self {
        Self { measured, ..self }
    }

    /// On the dashboard too.
    pub fn on_dashboard(self) -> Self {
        Self {
            dashboard: true,
            ..self
        }
    }
}

/// Those of every model.
pub fn of_all_models() -> Vec<MetricInfo> {
    let training = |name: &str, text| MetricInfo::new(name, text).at(When::Training);
    vec![
        MetricInfo::new("loss/lm", "the language-model loss")
            .unit("nats per token")
            .better(Better::Lower)
            .on_dashboard(),
        MetricInfo::new("loss/total", "the same with what the stage adds to it")
            .unit("nats per token")
            .better(Better::Lower),
        MetricInfo::new(
            "bits_per_byte",
            "the language-model loss over the bytes of the text",
        )
        .unit("bits per byte")
        .better(Better::Lower)
        .on_dashboard(),
        training("learning_rate", "the rate of the step").on_dashboard(),
        training(
            "gradient_norm",
            "length of the gradient before it is clipped",
        )
        .on_dashboard(),
        training("tokens_per_second", "speed since the line before")
            .unit("tokens per second")
            .better(Better::Higher)
            .on_dashboard(),
        training(
            "exchange_seconds",
            "time of the step in exchanges with other ranks, waiting included; none where there are no others",
        )
        .unit("seconds")
        .better(Better::Lower),
        training("peak_memory_mb", "the most memory that the process has had")
            .unit("MB")
            .better(Better::Lower),
    ]
}
