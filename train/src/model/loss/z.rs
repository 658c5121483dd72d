//! `[loss.z]`: the z-loss of [`brian::loss::z_loss`], for every model whose gradients the learner takes.

use super::CustomLoss;
use crate::model::pass::Pass;
use crate::recipe::section::Section;
use crate::task::Batch;
use brian::loss::z_loss::z_loss;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use serde::Deserialize;

/// `[loss.z]`.
pub struct ZLoss;

/// Its table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ZConfig {
    /// How much it adds to the language-model loss; 0 leaves it out.
    pub weight: f64,
}

impl CustomLoss for ZLoss {
    const NAME: &'static str = "z";
    const TEXT: &'static str = "mean square of the logarithm of the softmax's normaliser";
    type Config = ZConfig;

    fn check(config: &ZConfig, section: &Section<'_>) {
        section.least("weight", config.weight, 0.0);
    }

    fn weight(config: &ZConfig) -> f64 {
        config.weight
    }

    fn value<B: Backend>(_: &ZConfig, pass: &Pass<B>, batch: &Batch) -> Option<Tensor<B, 1>> {
        let logits = pass.logits.clone()?;
        let counted = batch.counted(&logits.device());
        Some(z_loss(logits, counted))
    }
}
