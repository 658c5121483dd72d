//! The shares with which signals enter the mix, and the gradient of the mix's parameters from those of the shares.

use crate::flow::{Mix, Mixer};

/// `a = take / Z` of every step, with `Z` behind it: `h ← (1 − a) h + a e`; the first one is 1.
pub struct Shares {
    mix: Mix,
    shares: Vec<f64>,
    /// For `Decay`, the derivatives by its parameter.
    slopes: Vec<f64>,
}

impl Shares {
    /// The shares of the first `steps` steps.
    pub fn new(mix: Mix, weights: &[f32], steps: usize) -> Self {
        let mut mixer = Mixer::new(mix, 0);
        let (mut shares, mut slopes) = (Vec::new(), Vec::new());
        let mut of_total = 0.0;
        for _ in 0..steps {
            let before = mixer.total;
            let step = mixer.add(weights, &[]);
            shares.push(step.take / mixer.total);
            if let Mix::Decay { .. } = mix {
                of_total = step.keep * ((1.0 - step.keep) * before + of_total);
                slopes.push(-of_total / (mixer.total * mixer.total));
            }
        }
        Self {
            mix,
            shares,
            slopes,
        }
    }

    /// The shares as f32, for the device.
    pub fn narrow(&self) -> impl Iterator<Item = f32> {
        self.shares.iter().map(|&share| share as f32)
    }

    /// The gradient of `n` parameters, from those of the shares summed over all sequences.
    pub fn gradient(&self, of_shares: &[f64], n: usize) -> Vec<f64> {
        let mut gradient = vec![0.0; n];
        match self.mix {
            Mix::Decay { .. } => {
                let products = of_shares.iter().zip(&self.slopes);
                gradient[0] = products.map(|(of_share, slope)| of_share * slope).sum();
            }
            Mix::Absolute { .. } => {
                // What later steps want of this one's weight: they take from what is left of it.
                let mut later = 0.0;
                for (place, (of_share, share)) in
                    of_shares.iter().zip(&self.shares).enumerate().rev()
                {
                    gradient[place.min(n - 1)] += share * (of_share * (1.0 - share) - later);
                    later = (1.0 - share) * (of_share * share + later);
                }
            }
        }
        gradient
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_finite_differences() {
        let absolute: Vec<f32> = (0..4).map(|place| (place as f32 * 1.7).sin()).collect();
        for (mix, weights) in [
            (Mix::Absolute { max_length: 4 }, absolute),
            (Mix::Decay { initial: 0.7 }, vec![0.3]),
        ] {
            let wanted: Vec<f64> = (0..7).map(|place| f64::from(place).cos()).collect();
            let value = |weights: &[f32]| -> f64 {
                let shares = Shares::new(mix, weights, 7).shares;
                shares.iter().zip(&wanted).map(|(a, b)| a * b).sum()
            };
            let found = Shares::new(mix, &weights, 7).gradient(&wanted, weights.len());
            for (place, found) in found.iter().enumerate() {
                let moved = |by: f32| {
                    let mut weights = weights.clone();
                    weights[place] += by;
                    (value(&weights), f64::from(weights[place]))
                };
                let ((up, right), (down, left)) = (moved(0.01), moved(-0.01));
                let expected = (up - down) / (right - left);
                assert!(
                    (found - expected).abs() < 1e-4,
                    "{mix:?} {place}: {found} {expected}"
                );
            }
        }
    }
}
