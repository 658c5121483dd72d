//! `Measured`: sums of losses, targets, bytes and route counts over batches, on the host; added up, and given as means under
//! their names in `metrics.jsonl`; also the standard error of a mean loss over documents.

use brian::stats::RouteCounts;
use burn::train::ItemLazy;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::f64::consts::LN_2;
use std::ops::AddAssign;

/// Sums over the counted targets of one or more batches.
///
/// The language-model loss and bits per byte are always there, apart from every other term.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Sum of `−ln p(target)`.
    pub nats: f64,
    /// How many targets.
    pub targets: u64,
    /// Bytes of the source they stand for.
    pub bytes: u64,
    /// Sums of the route terms of the loss, each times the targets of its batch.
    pub terms: BTreeMap<Cow<'static, str>, f64>,
    /// The weighted sum that these terms add to the loss, also times the targets.
    pub added: f64,
    /// Counts of the walks.
    pub route: RouteCounts,
    /// The same losses, grouped by how often their pair was seen in training, where that is known.
    pub coverage: Coverage,
    /// Means over targets that a model measures, by name: the sum, and the targets it is over.
    pub means: BTreeMap<String, (f64, u64)>,
    /// Norm of each parameter's gradient, by path: of the training step that hooks see, before clipping. Not logged.
    pub gradient_norms: BTreeMap<String, f64>,
    /// Everything else that is shown and logged, by its name in `metrics.jsonl`.
    pub numbers: BTreeMap<String, f64>,
}

/// The result of a step of a model with its own optimizer.
pub struct Learnt {
    /// Its losses.
    pub measured: Measured,
    /// Norm of the gradient.
    pub gradient_norm: f64,
}

/// Losses grouped by how often the pair of tokens was seen in training: never, up to 9 times, up to 99, more often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Sums of `−ln p(target)`.
    pub nats: [f64; 4],
    /// How many targets.
    pub targets: [u64; 4],
}

impl Coverage {
    /// The names of the groups.
    pub const NAMES: [&str; 4] = [
        "pairs never seen",
        "seen 1 to 9 times",
        "seen 10 to 99 times",
        "seen 100 times or more",
    ];

    /// Adds a target.
    pub fn add(&mut self, count: u32, nats: f64) {
        let part = match count {
            0 => 0,
            1..=9 => 1,
            10..=99 => 2,
            _ => 3,
        };
        self.nats[part] += nats;
        self.targets[part] += 1;
    }
}

impl AddAssign for Coverage {
    fn add_assign(&mut self, other: Self) {
        for part in 0..4 {
            self.nats[part] += other.nats[part];
            self.targets[part] += other.targets[part];
        }
    }
}

impl Measured {
    /// Mean nats per target.
    pub fn loss(&self) -> f64 {
        self.nats / self.targets as f64
    }

    /// Bits per UTF-8 byte; `None` if the targets stand for no byte.
    pub fn bits_per_byte(&self) -> Option<f64> {
        (self.bytes > 0).then(|| self.nats / LN_2 / self.bytes as f64)
    }

    /// Adds a mean over the targets so far: shown and logged by this name, over several batches as their mean.
    pub fn add_mean(&mut self, name: &str, mean: f64) {
        let targets = self.targets;
        let (sum, over) = self.means.entry(name.to_string()).or_default();
        *sum += mean * targets as f64;
        *over += targets;
    }

    /// All numbers under their names in `metrics.jsonl`.
    pub fn named(&self) -> BTreeMap<String, f64> {
        let mut named = self.numbers.clone();
        named.insert("loss/lm".to_string(), self.loss());
        let targets = self.targets as f64;
        named.insert("loss/total".to_string(), (self.nats + self.added) / targets);
        let terms = self.terms.iter();
        named.extend(terms.map(|(name, sum)| (format!("loss/{name}"), sum / targets)));
        let means = self.means.iter();
        named.extend(means.map(|(name, (sum, over))| (name.clone(), sum / *over as f64)));
        if let Some(bits) = self.bits_per_byte() {
            named.insert("bits_per_byte".to_string(), bits);
        }
        named
    }
}

/// Standard error of the mean loss per target, `sum(nats) / sum(targets)`, with documents as sampling units; `None` for
/// fewer than two.
///
/// The mean is a ratio of two sums over documents; linearised, its variance is that of the residuals
/// `nats − mean · targets` (Cochran, Sampling Techniques, section 6.4).
pub fn ratio_standard_error(documents: &[(f64, u64)]) -> Option<f64> {
    let drawn: Vec<(f64, f64)> = documents
        .iter()
        .filter(|(_, targets)| *targets > 0)
        .map(|&(nats, targets)| (nats, targets as f64))
        .collect();
    let n = drawn.len() as f64;
    if n < 2.0 {
        return None;
    }
    let targets: f64 = drawn.iter().map(|(_, targets)| targets).sum();
    let mean = drawn.iter().map(|(nats, _)| nats).sum::<f64>() / targets;
    let residual = |(nats, targets): &(f64, f64)| (nats - mean * targets).powi(2);
    let squares: f64 = drawn.iter().map(residual).sum();
    Some((n / (n - 1.0) * squares).sqrt() / targets)
}

impl AddAssign<&Measured> for Measured {
    fn add_assign(&mut self, other: &Measured) {
        self.nats += other.nats;
        self.targets += other.targets;
        self.bytes += other.bytes;
        self.added += other.added;
        for (name, sum) in &other.terms {
            *self.terms.entry(name.clone()).or_default() += sum;
        }
        for (name, (sum, over)) in &other.means {
            let (all, targets) = self.means.entry(name.clone()).or_default();
            *all += sum;
            *targets += over;
        }
        self.route += &other.route;
        self.coverage += other.coverage;
    }
}

// Already on the host: nothing is left to synchronise.
impl ItemLazy for Measured {
    type ItemSync = Measured;

    fn sync(self) -> Measured {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_error_is_that_of_a_ratio_over_documents() {
        // 12 nats on 6 targets: 2 each. Residuals 4 - 4, 5 - 2 and 3 - 6; 3/2 (0 + 9 + 9) = 27; sqrt(27) / 6.
        let documents = [(4.0, 2), (5.0, 1), (3.0, 3), (0.0, 0)];
        let error = ratio_standard_error(&documents).unwrap();
        assert!((error - 27f64.sqrt() / 6.0).abs() < 1e-12, "{error}");
        // Documents of one length: the usual standard error of a mean, sqrt(sum of squares / (n (n - 1))).
        let even = ratio_standard_error(&[(1.0, 1), (2.0, 1), (6.0, 1)]).unwrap();
        assert!((even - (14f64 / 6.0).sqrt()).abs() < 1e-12, "{even}");
        assert_eq!(ratio_standard_error(&[(1.0, 4), (0.0, 0)]), None);
    }

    #[test]
    fn sums_are_means_over_targets_and_bits_over_bytes() {
        let mut measured = Measured {
            nats: 6.0,
            targets: 3,
            bytes: 4,
            terms: [("cost".into(), 9.0)].into(),
            added: 1.5,
            numbers: [("learning_rate".to_string(), 0.1)].into(),
            ..Measured::default()
        };
        let named = measured.named();
        let of = |name: &str| named[name];
        assert_eq!(
            (of("loss/lm"), of("loss/total"), of("loss/cost")),
            (2.0, 2.5, 3.0)
        );
        assert_eq!(
            (of("bits_per_byte"), of("learning_rate")),
            (1.5 / LN_2, 0.1)
        );
        let other = Measured {
            nats: 12.0,
            targets: 1,
            bytes: 2,
            terms: [("cost".into(), 1.0), ("balance".into(), 4.0)].into(),
            added: 0.5,
            numbers: [("learning_rate".to_string(), 9.0)].into(),
            ..Measured::default()
        };
        measured += &other;
        let named = measured.named();
        let of = |name: &str| named[name];
        // 18 nats on 4 targets, 2 added, 10 and 4 of the terms; what is no sum stays.
        assert_eq!((of("loss/lm"), of("loss/total")), (4.5, 5.0));
        assert_eq!((of("loss/cost"), of("loss/balance")), (2.5, 1.0));
        assert_eq!(
            (of("bits_per_byte"), of("learning_rate")),
            (3.0 / LN_2, 0.1)
        );
        measured.bytes = 0;
        assert!(!measured.named().contains_key("bits_per_byte"));
    }

    #[test]
    fn pairs_are_told_apart_by_how_often_they_were_seen() {
        let mut coverage = Coverage::default();
        for (count, nats) in [
            (0, 1.0),
            (1, 2.0),
            (9, 4.0),
            (10, 8.0),
            (99, 16.0),
            (100, 32.0),
            (9999, 64.0),
        ] {
            coverage.add(count, nats);
        }
        assert_eq!(coverage.nats, [1.0, 6.0, 24.0, 96.0]);
        assert_eq!(coverage.targets, [1, 2, 2, 2]);
        let mut all = Measured {
            coverage,
            ..Measured::default()
        };
        all += &all.clone();
        assert_eq!((all.coverage.nats[3], all.coverage.targets[0]), (192.0, 2));
    }
}
