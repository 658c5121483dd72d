//! `CustomLoss`: the trait of a loss term that recipes add to any model by a table `[loss.NAME]`, one of ours or of a program using
//! this crate; `LossEntry`: its registry entry, without its type. Ours are below `loss/`.

pub mod z;

use super::pass::Pass;
use crate::device::{self, ForBackend};
use crate::metric::table::{Better, MetricInfo};
use crate::recipe::section::Section;
use crate::recipe::table::{AnyConfig, Entry, table};
use crate::task::{AddedLoss, Batch};
use brian::loss::route::Term;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use serde::de::DeserializeOwned;
use std::any::{Any, TypeId};
use std::fmt::Debug;
use std::sync::Arc;

/// A term of the loss that recipes can name.
pub trait CustomLoss: Send + Sync + 'static {
    /// The word behind `loss.` in recipes and `loss/` in metrics.
    const NAME: &'static str;

    /// What it is, in the table of metrics.
    const TEXT: &'static str;

    /// The keys of its table.
    type Config: DeserializeOwned + Clone + PartialEq + Debug + Send + Sync;

    /// Reports every rule that the table breaks.
    fn check(_config: &Self::Config, _section: &Section<'_>) {}

    /// How much it adds to the language-model loss; 0 leaves it out.
    fn weight(config: &Self::Config) -> f64;

    /// Its mean over the targets of a batch, `[1]`; `None` where the pass does not have what it reads. [`Pass::logits`] are
    /// there.
    fn value<B: Backend>(
        config: &Self::Config,
        pass: &Pass<B>,
        batch: &Batch,
    ) -> Option<Tensor<B, 1>>;
}

/// [`CustomLoss`], whatever its type.
pub struct LossEntry {
    /// Its table.
    pub entry: Entry,
    /// The loss with its table.
    pub with: fn(&dyn AnyConfig) -> Arc<dyn AddedLoss>,
}

impl LossEntry {
    pub(crate) fn of<L: CustomLoss>() -> Self {
        Self {
            entry: Entry {
                name: L::NAME,
                read: |reader| Some(Box::new(reader.read::<L::Config>()?)),
                check: |config, section| L::check(table(config), section),
                metrics: |config| {
                    let named = MetricInfo::new(format!("loss/{}", L::NAME), L::TEXT);
                    let counts = L::weight(table(config)) > 0.0;
                    counts
                        .then(|| named.better(Better::Lower))
                        .into_iter()
                        .collect()
                },
            },
            with: |config| Arc::new(Added::<L>(table::<L::Config>(config).clone())),
        }
    }
}

/// A loss with its table.
struct Added<L: CustomLoss>(L::Config);

impl<L: CustomLoss> Added<L> {
    /// A term, if the pass is one of this backend.
    fn of<B: Backend>(&self, pass: &dyn Any, batch: &Batch) -> Option<Box<dyn Any>> {
        let weight = L::weight(&self.0);
        let value = L::value::<B>(&self.0, pass.downcast_ref()?, batch)?;
        Some(Box::new(Term {
            name: L::NAME,
            weight,
            value,
        }))
    }
}

impl<L: CustomLoss> AddedLoss for Added<L> {
    fn term(&self, pass: &dyn Any, batch: &Batch, backend: TypeId) -> Option<Box<dyn Any>> {
        struct Of<'a, L: CustomLoss>(&'a Added<L>, &'a dyn Any, &'a Batch);

        impl<L: CustomLoss> ForBackend for Of<'_, L> {
            type Output = Option<Box<dyn Any>>;

            fn call<B: AutodiffBackend>(self) -> Option<Box<dyn Any>> {
                let Self(loss, pass, batch) = self;
                match pass.is::<Pass<B>>() {
                    true => loss.of::<B>(pass, batch),
                    false => loss.of::<B::InnerBackend>(pass, batch),
                }
            }
        }

        if L::weight(&self.0) <= 0.0 {
            return None;
        }
        device::for_backend(backend, Of(self, pass, batch))
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::data::HostBatch;
    use crate::device::tests::{Host, Learning};
    use crate::task::{AddedLosses, StepPlan};
    use serde::Deserialize;

    /// Pulls all logits towards zero.
    struct Small;

    #[derive(Clone, Debug, PartialEq, Deserialize)]
    struct SmallConfig {
        weight: f64,
    }

    impl CustomLoss for Small {
        const NAME: &'static str = "small";
        const TEXT: &'static str = "mean square of the logits";
        type Config = SmallConfig;

        fn weight(config: &SmallConfig) -> f64 {
            config.weight
        }

        fn value<B: Backend>(_: &SmallConfig, pass: &Pass<B>, _: &Batch) -> Option<Tensor<B, 1>> {
            let logits = pass.logits.clone()?;
            Some(logits.square().mean())
        }
    }

    /// The terms of a pass with the logits 1, −1 and 3, 1 at two places, as name, weight and value.
    fn terms<B: Backend>(weight: f64) -> Vec<(&'static str, f64, f64)> {
        let mut batch = Batch {
            host: HostBatch {
                inputs: vec![0, 1],
                targets: vec![1, 0],
                valid: vec![true, true],
                batch: 1,
                seq: 2,
                ..HostBatch::default()
            },
            source: 0,
            plan: StepPlan::default(),
        };
        let loss = (LossEntry::of::<Small>().with)(&SmallConfig { weight });
        batch.plan.route.added = AddedLosses(vec![loss]);
        let logits =
            Tensor::<B, 3>::from_floats([[[1.0, -1.0], [3.0, 1.0]]], &B::Device::default());
        let pass = Pass::of_logits(logits, &batch).with_added(&batch);
        let value = |value: &Tensor<B, 1>| value.clone().into_data().iter::<f64>().sum();
        let terms = pass.terms.iter();
        terms
            .map(|term| (term.name, term.weight, value(&term.value)))
            .collect()
    }

    #[test]
    fn a_loss_of_a_program_is_a_term_in_training_and_evaluation_and_none_at_weight_0() {
        assert_eq!(terms::<Learning>(0.5), [("small", 0.5, 3.0)]);
        assert_eq!(terms::<Host>(0.5), [("small", 0.5, 3.0)]);
        assert_eq!(terms::<Host>(0.0), []);
        let named = |weight| (LossEntry::of::<Small>().entry.metrics)(&SmallConfig { weight });
        assert_eq!(named(0.5)[0].name, "loss/small");
        assert!(named(0.0).is_empty());
    }
}
