//! Imitation loss (behaviour cloning): `mean −ln p(teacher's action)`. There is none without a teacher.

use super::view::View;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// The loss in nats per decision; `None` without a teacher.
///
/// # Shapes
/// Returns `[1]`
pub fn imitation<B: Backend>(view: &View<B>) -> Option<Tensor<B, 1>> {
    view.steps
        .iter()
        .all(|step| step.targets.is_some())
        .then(|| {
            view.mean(|_, step| {
                let targets = step.targets.clone().expect("there are some");
                let of_target = step
                    .log_probabilities
                    .clone()
                    .gather(1, targets.unsqueeze_dim(1));
                of_target.neg().squeeze_dim(1)
            })
        })
}
