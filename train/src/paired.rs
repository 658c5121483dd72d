//! The mean of paired differences and its 95 % interval by Student's t.
//!
//! Two things are compared on the same units: two rows of a sweep on the same seeds, two models on the same documents. So
//! differences between the units cancel out. `mean ± t · s / √n`, with `t` so that a variable of Student's distribution with
//! `n − 1` degrees of freedom lies within `±t` in 95 of 100 cases.

use crate::task::ratio_standard_error;
use std::f64::consts::FRAC_2_PI;

/// How often the interval is to hold.
const CONFIDENCE: f64 = 0.95;

/// A mean of differences.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Paired {
    /// How many pairs.
    pub pairs: usize,
    /// Their mean difference.
    pub mean: f64,
    /// Its 95 % interval; a single pair has none.
    #[serde(rename = "interval_95")]
    pub interval: Option<[f64; 2]>,
}

impl Paired {
    /// The mean of equally weighted differences; `None` without any.
    pub fn of(differences: &[f64]) -> Option<Self> {
        let weighed: Vec<(f64, u64)> = differences.iter().map(|&of_one| (of_one, 1)).collect();
        Self::of_sums(&weighed)
    }

    /// The mean over units of different sizes, each a sum of differences and a size: `Σ dᵢ / Σ mᵢ`, as for documents and their
    /// targets. Units of size 0 do not count; `None` if there are no others.
    pub fn of_sums(units: &[(f64, u64)]) -> Option<Self> {
        let pairs = units.iter().filter(|unit| unit.1 > 0).count();
        let size: u64 = units.iter().map(|unit| unit.1).sum();
        if pairs == 0 {
            return None;
        }
        let mean = units.iter().map(|unit| unit.0).sum::<f64>() / size as f64;
        let interval = ratio_standard_error(units).map(|error| {
            let half = quantile(pairs - 1) * error;
            [mean - half, mean + half]
        });
        Some(Self {
            pairs,
            mean,
            interval,
        })
    }

    /// The cells of a table: the mean, its interval as `-0.0210 to -0.0036`, and the number of pairs.
    pub fn cells(&self) -> [String; 3] {
        let interval = match self.interval {
            Some([low, high]) => format!("{low:+.4} to {high:+.4}"),
            None => "none: one pair".to_string(),
        };
        [
            format!("{:+.4}", self.mean),
            interval,
            self.pairs.to_string(),
        ]
    }
}

/// The `t` within which a variable of Student's distribution lies in 95 of 100 cases.
fn quantile(freedom: usize) -> f64 {
    // Beyond that many it is the same to seven digits.
    let freedom = freedom.min(1_000_000);
    // With one degree of freedom it is 12.7, and it falls from there.
    let (mut low, mut high) = (0.0, 20.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        match within(middle, freedom) < CONFIDENCE {
            true => low = middle,
            false => high = middle,
        }
    }
    (low + high) / 2.0
}

/// `P(|T| < t)`, by the finite series for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4).
fn within(t: f64, freedom: usize) -> f64 {
    let angle = (t / (freedom as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let odd = freedom % 2;
    // Odd: cos + 2/3 cos³ + 2·4/(3·5) cos⁵ …; even: 1 + 1/2 cos² + 1·3/(2·4) cos⁴ …; up to the power freedom − 2.
    let mut term = if odd == 1 { cosine } else { 1.0 };
    let (mut sum, mut power) = (0.0, odd);
    while power + 2 <= freedom && term > 1e-18 {
        sum += term;
        term *= cosine * cosine * (power + 1) as f64 / (power + 2) as f64;
        power += 2;
    }
    match odd {
        1 => FRAC_2_PI * (angle + sine * sum),
        _ => sine * sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_published_table() {
        // NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, upper critical values, 0.975.
        let table = [
            (1, 12.706),
            (2, 4.303),
            (3, 3.182),
            (4, 2.776),
            (5, 2.571),
            (9, 2.262),
            (10, 2.228),
            (29, 2.045),
            (30, 2.042),
            (100, 1.984),
            // The normal distribution: 1.959964, and (z³ + z) / 4ν more.
            (1_000_000, 1.959_966),
        ];
        for (freedom, expected) in table {
            let found = quantile(freedom);
            assert!((found - expected).abs() < 6e-4, "{freedom}: {found}");
        }
        // One degree of freedom is Cauchy's distribution: tan(0.475 π). Two have a closed form: 0.95 √2 / √(1 − 0.95²).
        assert!((quantile(1) - 12.706_204_736_432_095).abs() < 1e-9);
        assert!((quantile(2) - 4.302_652_729_911_275).abs() < 1e-9);
    }

    #[test]
    fn an_interval_is_the_one_computed_by_hand() {
        // Differences 1, 2, 6: mean 3, deviations −2, −1, 3, s² = 14 / 2 = 7, s / √3 = 1.527525, t of 2 is 4.302653.
        let paired = Paired::of(&[1.0, 2.0, 6.0]).unwrap();
        assert_eq!((paired.pairs, paired.mean), (3, 3.0));
        let [low, high] = paired.interval.unwrap();
        assert!((high - 9.572_411).abs() < 1e-6, "{high}");
        assert!((low + 3.572_411).abs() < 1e-6, "{low}");
    }

    #[test]
    fn documents_count_by_their_targets() {
        // Nats 2, 6, 4 more on 1, 2, 3 targets: 12 / 6 = 2 per target. Residuals 0, 2, −2: s² = 8 / 2 = 4.
        // √(4 · 3) / 6 = 0.577350 times 4.302653 is 2.484138.
        let paired = Paired::of_sums(&[(2.0, 1), (6.0, 2), (0.0, 0), (4.0, 3)]).unwrap();
        assert_eq!(paired.mean, 2.0);
        let [low, high] = paired.interval.unwrap();
        assert!((high - 4.484_138).abs() < 1e-6, "{high}");
        assert!((low + 0.484_138).abs() < 1e-6, "{low}");
    }

    #[test]
    fn one_pair_has_no_interval_and_none_has_no_mean() {
        let one = Paired::of(&[0.5]).unwrap();
        assert_eq!((one.mean, one.interval), (0.5, None));
        assert_eq!(Paired::of(&[]), None);
        assert_eq!(Paired::of_sums(&[(0.0, 0)]), None);
        let equal = Paired::of(&[0.25, 0.25]).unwrap();
        assert_eq!(equal.interval, Some([0.25, 0.25]));
    }

    #[test]
    fn two_three_and_five_pairs_have_the_intervals_of_the_table() {
        // t of 1, 2 and 4 degrees of freedom: 12.706, 4.303, 2.776, to three places.
        let half = |differences: &[f64]| {
            let paired = Paired::of(differences).unwrap();
            let [low, high] = paired.interval.unwrap();
            assert!((low + high - 2.0 * paired.mean).abs() < 1e-9);
            (high - low) / 2.0
        };
        // Deviations ±1: s = √2, s / √2 = 1.
        assert!((half(&[3.0, 5.0]) - 12.706).abs() < 1e-3);
        // Deviations −1, 0, 1: s = 1, s / √3.
        assert!((half(&[7.0, 8.0, 9.0]) - 4.303 / 3f64.sqrt()).abs() < 1e-3);
        // Deviations −2 to 2: s² = 10 / 4, s / √5 = √0.5.
        assert!((half(&[1.0, 2.0, 3.0, 4.0, 5.0]) - 2.776 * 0.5f64.sqrt()).abs() < 1e-3);
    }

    #[test]
    fn intervals_hold_the_true_mean_in_95_of_100_cases() {
        for n in [2, 3, 5, 12] {
            let holds = |case: u64| {
                let key = brian::random::key(case, "paired", n);
                // Twelve uniform numbers have the variance of one normal one.
                let normal = |place: u64| {
                    let uniform = (0..12).map(|one| brian::random::uniform(key, 12 * place + one));
                    uniform.sum::<f64>() - 6.0
                };
                let differences: Vec<f64> = (0..n).map(|place| 0.3 + normal(place)).collect();
                let [low, high] = Paired::of(&differences).unwrap().interval.unwrap();
                u32::from((low..=high).contains(&0.3))
            };
            let held: u32 = (0..1000).map(holds).sum();
            // 950, give or take three times √(1000 · 0.95 · 0.05) = 6.9.
            assert!((929..=971).contains(&held), "{n}: {held}");
        }
    }

    #[test]
    fn cells_show_the_mean_its_interval_and_the_pairs_that_count() {
        let cells = Paired::of_sums(&[(2.0, 1), (6.0, 2), (0.0, 0), (4.0, 3)])
            .unwrap()
            .cells();
        assert_eq!(cells, ["+2.0000", "-0.4841 to +4.4841", "3"]);
        assert_eq!(
            Paired::of(&[-0.5]).unwrap().cells(),
            ["-0.5000", "none: one pair", "1"]
        );
    }
}
