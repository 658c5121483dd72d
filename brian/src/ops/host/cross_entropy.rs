//! Cross entropy as a fused operation on the host, `[n, vocabulary]` → `[n]`, and its gradient; `None` on other backends.

use super::custom_op::{Flow, input, rows_of, run};
use super::log_sum_exp::{ends, slopes};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

/// See [`cross_entropy`](super::super::cross_entropy::cross_entropy).
pub(crate) fn cross_entropy<B: Backend>(
    logits: &Tensor<B, 2>,
    targets: &Tensor<B, 1, Int>,
) -> Option<Tensor<B, 1>> {
    // On another backend targets would have to be waited for.
    rows_of::<B>(input(logits))?;
    let targets = targets.clone().into_data();
    let targets = targets.iter::<i64>().map(|target| target as usize);
    let targets: Vec<usize> = targets.collect();
    let nats = run([input(logits)], move |[logits]| {
        let ends = ends(&logits);
        let mut nats = ends.clone();
        for ((row, nats), &target) in nats.indexed_iter_mut().zip(&targets) {
            *nats -= logits[[row.0, target]];
        }
        let back = move |flow: Flow<'_>| {
            let mut found = slopes(&logits, &ends, &flow.gradient);
            for (row, &target) in targets.iter().enumerate() {
                found[[row, target]] -= flow.gradient[[row, 0]];
            }
            vec![Some(found.into())]
        };
        (nats, Box::new(back))
    })?;
    Some(nats.squeeze_dim(1))
}
