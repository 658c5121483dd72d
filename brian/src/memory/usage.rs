//! `MemoryUse`, sums over memory reads and their means by metric name: attention by a slot's age, relative length of what was
//! added, how open the memory is. `Reads` sums on the device until a pass is over, and keeps single reads if they are asked for.

use super::record::{Measures, MemoryColumns, MemoryRead, ReadAt, reads};
use crate::ops::cat::cat;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Sums over all reads of one or more passes; a read is one token at one step.
///
/// Only tokens that were walking count; those of padding are among them.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct MemoryUse {
    /// How many reads.
    pub reads: f64,
    /// The attention that went to a slot, by its age: 0 is the newest slot there was.
    pub mass: Vec<f64>,
    /// The length of what was added to a hidden state over the length of that state; codes only.
    pub share: Option<f64>,
    /// How open the memory is: of codes the sigmoid of the gate; of keys and values `exp(bias)`, their weight against the
    /// block's own.
    pub open: f64,
}

impl MemoryUse {
    /// Adds the sums of another pass.
    pub fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.open += other.open;
        self.mass.resize(self.mass.len().max(other.mass.len()), 0.0);
        for (sum, mass) in self.mass.iter_mut().zip(&other.mass) {
            *sum += mass;
        }
        if let Some(share) = other.share {
            *self.share.get_or_insert_default() += share;
        }
    }

    /// The means, by metric name: `memory/mass/0` if `memory` is what the memory is called. Empty if nothing was read.
    pub fn named(&self, memory: &str) -> Vec<(String, f64)> {
        if self.reads == 0.0 {
            return Vec::new();
        }
        let mean = |name: &str, sum: f64| (format!("{memory}/{name}"), sum / self.reads);
        let by_age = self.mass.iter().enumerate();
        by_age
            .map(|(age, &sum)| mean(&format!("mass/{age}"), sum))
            .chain(self.share.map(|share| mean("share", share)))
            .chain([mean("open", self.open)])
            .collect()
    }
}

/// One read of many tokens.
pub(super) struct Read<B: Backend> {
    /// Attention to each slot, oldest first, `[batch, seq, n_slots]`.
    pub mass: Tensor<B, 3>,
    /// The ages of these slots.
    pub ages: Vec<usize>,
    /// Relative length of what was added, `[batch, seq, 1]`.
    pub share: Option<Tensor<B, 3>>,
    /// How far the memory is open, `[1]`.
    pub open: Tensor<B, 1>,
    /// 1 for tokens that read this, or their share of it, `[batch, seq, 1]`.
    pub readers: Tensor<B, 3>,
}

/// The reads of a pass, summed up.
pub(super) struct Reads<B: Backend> {
    sums: Vec<(Vec<usize>, Tensor<B, 1>)>,
    shares: bool,
    /// Every read, if they are asked for.
    record: Option<Vec<MemoryRead>>,
}

impl<B: Backend> Reads<B> {
    /// None yet; `None` if nothing is to be kept of them.
    pub fn asked(measures: Measures) -> Option<Self> {
        (measures != Measures::Nothing).then(|| Self {
            sums: Vec::new(),
            shares: false,
            record: (measures == Measures::Reads).then(Vec::new),
        })
    }

    /// Whether single reads are kept.
    pub fn records(&self) -> bool {
        self.record.is_some()
    }

    /// Keeps the reads at one place of the walks, if single reads are kept.
    ///
    /// # Shapes
    /// As [`reads`]
    pub fn record(
        &mut self,
        at: ReadAt,
        attention: &Tensor<B, 3>,
        readers: &Tensor<B, 3>,
        columns: MemoryColumns<'_>,
    ) {
        if let Some(record) = &mut self.record {
            record.extend(reads(at, attention, readers, columns));
        }
    }

    /// The reads that were kept.
    pub fn recorded(&mut self) -> Vec<MemoryRead> {
        self.record.take().unwrap_or_default()
    }

    /// Adds a read.
    pub fn add(&mut self, read: Read<B>) {
        let readers = read.readers.detach();
        let count: Tensor<B, 1> = readers.clone().sum();
        let [_, _, n_slots] = read.mass.dims();
        let mass = (read.mass.detach() * readers.clone()).sum_dim(0).sum_dim(1);
        self.shares = read.share.is_some();
        let share = match read.share {
            Some(share) => (share.detach() * readers).sum(),
            None => Tensor::zeros([1], &count.device()),
        };
        let open = read.open.detach() * count.clone();
        let sums = cat(vec![mass.reshape([n_slots]), share, open, count], 0);
        self.sums.push((read.ages, sums));
    }

    /// Everything on the host, by one transfer.
    pub fn finish(self) -> Option<MemoryUse> {
        let (ages, sums): (Vec<Vec<usize>>, Vec<Tensor<B, 1>>) = self.sums.into_iter().unzip();
        if sums.is_empty() {
            return None;
        }
        let values: Vec<f32> = cat(sums, 0).into_data().iter().collect();
        let mut rest = values.into_iter().map(f64::from);
        let mut next = || rest.next().expect("every read has its sums");
        let mut usage = MemoryUse::default();
        for ages in ages {
            let oldest = ages.iter().copied().max().map_or(0, |age| age + 1);
            let mut mass = vec![0.0; oldest];
            for age in ages {
                mass[age] = next();
            }
            let (share, open, reads) = (next(), next(), next());
            usage.add(&MemoryUse {
                reads,
                mass,
                share: self.shares.then_some(share),
                open,
            });
        }
        Some(usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_over_the_reads_of_all_passes() {
        let mut usage = MemoryUse {
            reads: 3.0,
            mass: vec![3.0],
            share: Some(0.3),
            open: 0.06,
        };
        usage.add(&MemoryUse {
            reads: 1.0,
            mass: vec![0.0, 1.0],
            share: Some(0.1),
            open: 0.02,
        });
        let named = usage.named("memory");
        let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "memory/mass/0",
            "memory/mass/1",
            "memory/share",
            "memory/open",
        ];
        assert_eq!(names, expected);
        for ((_, found), expected) in named.iter().zip([0.75, 0.25, 0.1, 0.02]) {
            assert!((found - expected).abs() < 1e-12, "{named:?}");
        }
        assert!(MemoryUse::default().named("memory").is_empty());
    }
}
