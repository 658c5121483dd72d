//! Autoregressive sampling on the host: `logits / temperature`, one keyed draw per token.

use crate::random;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// How the next token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token, the lowest id among equals.
    pub temperature: f64,
    /// The smallest set of likeliest tokens with at least this probability competes; 1 keeps all.
    pub top_p: f64,
    /// Key of the draws.
    pub seed: u64,
}

/// Continues a prompt by `n_tokens` tokens, which are returned without the prompt.
///
/// `logits` maps the tokens so far, of which it gets at most the last `context`, to the logits of the next one,
/// `[vocabulary]`: [`crate::Decoding::follow`], or the last row of a whole pass.
///
/// # Panics
/// If the prompt is empty.
pub fn generate<B: Backend>(
    mut logits: impl FnMut(&[u32]) -> Tensor<B, 1>,
    prompt: &[u32],
    n_tokens: usize,
    context: usize,
    sampling: Sampling,
) -> Vec<u32> {
    assert!(!prompt.is_empty(), "a prompt needs a token to start from");
    let mut tokens = prompt.to_vec();
    for step in 0..n_tokens {
        let seen = &tokens[tokens.len().saturating_sub(context)..];
        let scores: Vec<f32> = logits(seen).into_data().iter::<f32>().collect();
        let draw = random::uniform(random::key(sampling.seed, "sample", step as u64), 0);
        tokens.push(choose(&scores, sampling, draw));
    }
    tokens.split_off(prompt.len())
}

/// The token at the uniform draw `draw`, tokens ordered by falling score and rising id.
fn choose(scores: &[f32], sampling: Sampling, draw: f64) -> u32 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    if sampling.temperature == 0.0 {
        return order[0] as u32;
    }
    let best = f64::from(scores[order[0]]);
    let weight = |token: usize| ((f64::from(scores[token]) - best) / sampling.temperature).exp();
    let total: f64 = order.iter().map(|&token| weight(token)).sum();
    let mut kept = 0;
    let mut mass = 0.0;
    while kept < order.len() && (kept == 0 || mass < sampling.top_p * total) {
        mass += weight(order[kept]);
        kept += 1;
    }
    let mut rest = draw * mass;
    for &token in &order[..kept] {
        rest -= weight(token);
        if rest < 0.0 {
            return token as u32;
        }
    }
    order[kept - 1] as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f32; 4] = [0.0, 3.0, 3.0, 1.0];

    fn sampling(temperature: f64, top_p: f64) -> Sampling {
        Sampling {
            temperature,
            top_p,
            seed: 1,
        }
    }

    #[test]
    fn temperature_zero_takes_the_lowest_id_among_the_likeliest() {
        assert_eq!(choose(&SCORES, sampling(0.0, 1.0), 0.999), 1);
    }

    #[test]
    fn draws_follow_the_softmax_of_the_scaled_scores() {
        let n = 20_000;
        let mut counts = [0.0f64; 4];
        for step in 0..n {
            let draw = random::uniform(random::key(7, "test", step), 0);
            counts[choose(&SCORES, sampling(2.0, 1.0), draw) as usize] += 1.0 / n as f64;
        }
        let weights = SCORES.map(|score| (f64::from(score) / 2.0).exp());
        let total: f64 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            assert!((count - weight / total).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn top_p_leaves_only_the_likeliest() {
        for step in 0..1000 {
            let draw = random::uniform(random::key(7, "test", step), 0);
            assert!([1, 2].contains(&choose(&SCORES, sampling(1.0, 0.8), draw)));
        }
    }
}
