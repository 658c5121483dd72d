//! `Probabilities`: natural logarithms of the probabilities that logits stand for, summed up in double precision.

/// The distribution of a token.
#[derive(Clone, Copy, Debug)]
pub struct Probabilities<'a> {
    logits: &'a [f32],
    /// `ln Σ exp(logit)`
    normaliser: f64,
}

impl<'a> Probabilities<'a> {
    /// That of logits; `-inf` is no probability at all.
    ///
    /// # Shapes
    /// `logits`: `[vocabulary]`
    ///
    /// # Errors
    /// The first id whose logit is `NaN` or `+inf`, or 0 if no token has a probability.
    pub fn of(logits: &'a [f32]) -> Result<Self, usize> {
        let largest = f64::from(largest(logits)?);
        let shares = logits
            .iter()
            .map(|&logit| (f64::from(logit) - largest).exp());
        let normaliser = largest + shares.sum::<f64>().ln();
        Ok(Self { logits, normaliser })
    }

    /// The logarithm of a token's probability.
    pub fn ln(&self, id: u32) -> f64 {
        f64::from(self.logits[id as usize]) - self.normaliser
    }

    /// The `n` likeliest tokens and their logarithms, falling; among equals the lowest id comes first.
    pub fn likeliest(&self, n: usize) -> Vec<(u32, f64)> {
        let mut ids: Vec<u32> = (0..self.logits.len() as u32).collect();
        let logit = |id: u32| self.logits[id as usize];
        let falling = |a: &u32, b: &u32| logit(*b).total_cmp(&logit(*a)).then(a.cmp(b));
        if n < ids.len() && n > 0 {
            ids.select_nth_unstable_by(n - 1, falling);
        }
        ids.truncate(n);
        ids.sort_unstable_by(falling);
        ids.into_iter().map(|id| (id, self.ln(id))).collect()
    }
}

/// The largest of logits that have a distribution.
///
/// # Errors
/// As [`Probabilities::of`].
pub fn largest(logits: &[f32]) -> Result<f32, usize> {
    let wrong = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
    if let Some(id) = logits.iter().position(wrong) {
        return Err(id);
    }
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    match largest > f32::NEG_INFINITY {
        true => Ok(largest),
        false => Err(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_are_those_of_the_logits() {
        // 1, 2, 4 and 1 of 8, whatever is added to all of them.
        for added in [-300.0, 0.0, 50.0] {
            let logits = [0.0, 2f32.ln(), 4f32.ln(), 0.0].map(|logit| logit + added);
            let of = Probabilities::of(&logits).unwrap();
            let found = [0, 1, 2, 3].map(|id| of.ln(id).exp());
            for (found, expected) in found.into_iter().zip([0.125, 0.25, 0.5, 0.125]) {
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
            assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn the_likeliest_come_first_and_the_lowest_id_among_equals() {
        let logits = [0.0, 2.0, f32::NEG_INFINITY, 1.0, 2.0];
        let of = Probabilities::of(&logits).unwrap();
        let ids = |n| -> Vec<u32> { of.likeliest(n).into_iter().map(|(id, _)| id).collect() };
        assert_eq!(ids(0), [0; 0]);
        assert_eq!(ids(1), [1]);
        assert_eq!(ids(3), [1, 4, 3]);
        assert_eq!(ids(9), [1, 4, 3, 0, 2]);
        // The same number to the bit as by its id.
        assert_eq!(of.likeliest(1)[0].1.to_bits(), of.ln(1).to_bits());
        assert_eq!(of.ln(2), f64::NEG_INFINITY);
    }

    #[test]
    fn logits_without_a_distribution_are_named() {
        assert_eq!(Probabilities::of(&[0.0, f32::NAN]).unwrap_err(), 1);
        assert_eq!(Probabilities::of(&[f32::INFINITY, 0.0]).unwrap_err(), 0);
        assert_eq!(Probabilities::of(&[f32::NEG_INFINITY; 2]).unwrap_err(), 0);
    }
}
