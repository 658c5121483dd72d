//! `Table`: edge weights or their moments in memory, a flat list of numbers stored as f32 or bf16 and read as f32; `Slice` is a
//! part of it that one thread may change.
//!
//! Arithmetic is in f32 either way. A bf16 has 8 bits of precision, and most training steps are smaller than its last bit:
//! rounded to the nearest they would be lost. So a number that is written is rounded up or down by chance, with the right mean
//! (stochastic rounding; Gupta et al. 2015). The chance is a hash of place and time, so the same step gives the same bits.

use half::bf16;
use serde::Deserialize;
use std::borrow::Cow;
use std::ops::Range;

/// How rows are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// 4 bytes per number.
    #[default]
    F32,
    /// 2 bytes per number.
    Bf16,
}

impl Storage {
    /// Bytes per number.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// Numbers in memory.
#[derive(Clone, Debug, PartialEq)]
pub enum Table {
    /// See [`Storage::F32`].
    F32(Vec<f32>),
    /// See [`Storage::Bf16`].
    Bf16(Vec<bf16>),
}

impl Default for Table {
    fn default() -> Self {
        Self::F32(Vec::new())
    }
}

impl From<Vec<f32>> for Table {
    fn from(values: Vec<f32>) -> Self {
        Self::F32(values)
    }
}

impl Table {
    /// Zeros. Pages that nobody writes take no memory.
    pub fn zeros(storage: Storage, n: usize) -> Self {
        match storage {
            Storage::F32 => Self::F32(vec![0.0; n]),
            Storage::Bf16 => Self::Bf16(vec![bf16::ZERO; n]),
        }
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How they are stored.
    pub fn storage(&self) -> Storage {
        match self {
            Self::F32(_) => Storage::F32,
            Self::Bf16(_) => Storage::Bf16,
        }
    }

    /// A range of numbers, as f32.
    pub fn part(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        match self {
            Self::F32(values) => Cow::Borrowed(&values[range]),
            Self::Bf16(values) => values[range].iter().map(|value| value.to_f32()).collect(),
        }
    }

    /// A range of numbers, widened into `scratch` where they are not f32.
    #[inline(always)]
    pub fn load<'a>(&'a self, range: Range<usize>, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        match self {
            Self::F32(values) => &values[range],
            Self::Bf16(values) => widened(&values[range], scratch),
        }
    }

    /// The same numbers in another storage, rounded to the nearest where they do not fit.
    pub fn stored_as(self, storage: Storage) -> Self {
        match (self, storage) {
            (Self::F32(values), Storage::Bf16) => {
                Self::Bf16(values.into_iter().map(bf16::from_f32).collect())
            }
            (Self::Bf16(values), Storage::F32) => {
                Self::F32(values.into_iter().map(bf16::to_f32).collect())
            }
            (same, _) => same,
        }
    }

    /// All numbers, mutable.
    pub fn slice(&mut self) -> Slice<'_> {
        match self {
            Self::F32(values) => Slice::F32(values),
            Self::Bf16(values) => Slice::Bf16(values),
        }
    }

    /// Writes numbers, each rounded to the nearest that can be stored.
    pub fn set(&mut self, start: usize, from: &[f32]) {
        match self {
            Self::F32(values) => values[start..][..from.len()].copy_from_slice(from),
            Self::Bf16(values) => {
                let places = values[start..].iter_mut().zip(from);
                places.for_each(|(to, from)| *to = bf16::from_f32(*from));
            }
        }
    }
}

#[inline(always)]
fn widened<'a>(values: &[bf16], scratch: &'a mut Vec<f32>) -> &'a [f32] {
    scratch.clear();
    scratch.extend(values.iter().map(|value| value.to_f32()));
    scratch
}

/// A part of a table that one owner may change.
#[derive(Debug)]
pub enum Slice<'a> {
    /// See [`Storage::F32`].
    F32(&'a mut [f32]),
    /// See [`Storage::Bf16`].
    Bf16(&'a mut [bf16]),
}

impl<'a> Slice<'a> {
    /// The first `n` numbers, and the others.
    pub fn split(self, n: usize) -> (Self, Self) {
        match self {
            Self::F32(values) => {
                let (a, b) = values.split_at_mut(n);
                (Self::F32(a), Self::F32(b))
            }
            Self::Bf16(values) => {
                let (a, b) = values.split_at_mut(n);
                (Self::Bf16(a), Self::Bf16(b))
            }
        }
    }

    /// A range of numbers, widened into `scratch` where they are not f32.
    #[inline(always)]
    pub fn load<'b>(&'b self, range: Range<usize>, scratch: &'b mut Vec<f32>) -> &'b [f32] {
        match self {
            Self::F32(values) => &values[range],
            Self::Bf16(values) => widened(&values[range], scratch),
        }
    }
}

/// Writes numbers as bf16, with stochastic rounding by the seed `key`.
#[inline(always)]
pub fn round_by_chance(from: &[f32], to: &mut [bf16], key: u32) {
    for (place, (from, to)) in from.iter().zip(to).enumerate() {
        // The finaliser of MurmurHash3 (Appleby 2011).
        let hash = key ^ (place as u32).wrapping_mul(0x9e37_79b9);
        let hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
        let hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
        let chance = (hash ^ hash >> 16) & 0xffff;
        let bits = from.to_bits();
        let rounded = if from.is_finite() {
            bits.wrapping_add(chance)
        } else {
            bits
        };
        *to = bf16::from_bits((rounded >> 16) as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_by_chance_has_the_right_mean_and_keeps_what_fits() {
        for value in [0.3f32, -1.7, 1e-3, 12345.6] {
            let mut sum = 0.0;
            let n = 4000;
            for key in 0..n {
                let mut to = [bf16::ZERO; 3];
                round_by_chance(&[0.0, 0.0, value], &mut to, key * 7919);
                sum += f64::from(to[2].to_f32());
                let error = (to[2].to_f32() - value).abs();
                assert!(error <= value.abs() / 128.0, "{value}: {error}");
            }
            let mean = sum / f64::from(n);
            let relative = mean / f64::from(value) - 1.0;
            // The standard error of the mean is below a hundredth of a bit.
            assert!(relative.abs() < 2e-4, "{value}: {mean}");
        }
        let exact = [0.0, -0.5, 3.0, f32::INFINITY, f32::NEG_INFINITY];
        let mut to = [bf16::ONE; 5];
        round_by_chance(&exact, &mut to, 12345);
        assert_eq!(to.map(bf16::to_f32), exact);
        round_by_chance(&[f32::NAN; 5], &mut to, 1);
        assert!(to.iter().all(|value| value.is_nan()));
    }

    #[test]
    fn a_table_reads_what_was_set_in_both_storages() {
        for storage in [Storage::F32, Storage::Bf16] {
            let mut table = Table::zeros(storage, 6);
            table.set(2, &[1.5, -0.25]);
            assert_eq!(table.part(1..5).to_vec(), [0.0, 1.5, -0.25, 0.0]);
            let mut scratch = Vec::new();
            assert_eq!(table.load(2..4, &mut scratch), [1.5, -0.25]);
            let (_, right) = table.slice().split(3);
            assert_eq!(right.load(0..2, &mut scratch), [-0.25, 0.0]);
            assert_eq!(table.storage(), storage);
        }
    }

    #[test]
    fn a_table_is_stored_anew_with_the_nearest_numbers() {
        // A bf16 has 8 bits: 1 + 2⁻⁸ lies between 1 and 1 + 2⁻⁷, and the even one is 1.
        let wide = Table::F32(vec![1.0 + 1.0 / 256.0, 1.0 + 3.0 / 512.0, -2.5]);
        let narrow = wide.clone().stored_as(Storage::Bf16);
        let rounded = [1.0, 1.0 + 1.0 / 128.0, -2.5];
        assert_eq!(narrow.storage(), Storage::Bf16);
        assert_eq!(narrow.part(0..3).to_vec(), rounded);
        let back = narrow.stored_as(Storage::F32);
        assert_eq!(back, Table::F32(rounded.to_vec()));
        assert_eq!(back.clone().stored_as(Storage::F32), back);
        assert_eq!((Storage::F32.bytes(), Storage::Bf16.bytes()), (4, 2));
        let mut narrow = Table::zeros(Storage::Bf16, 3);
        narrow.set(1, &[1.0 + 3.0 / 512.0]);
        assert_eq!(narrow.part(0..3).to_vec(), [0.0, rounded[1], 0.0]);
        assert!(narrow.len() == 3 && !narrow.is_empty());
    }
}
