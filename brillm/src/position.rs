//! Codes of positions: which kinds there are (`Encoding`), their values in a table, and adding a position's code to a signal.

use crate::ops::host::numeric;
use serde::Deserialize;

/// Which code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// The reference's: frequencies are multiplied where Transformers divide, so that neighbouring positions are nearly
    /// unrelated. Angles are rounded to f32 before the sine, as there.
    ReferenceMultiply,
    /// That of the first Transformer (Vaswani et al. 2017), with angles in f64.
    Standard,
    /// A learnt code per position, which begins as `Standard`; the last one holds for all positions beyond.
    Learnt {
        /// How many there are.
        max_length: usize,
    },
    /// Nothing.
    None,
}

impl Encoding {
    /// The initial learnt codes, `[positions, width]`; empty if none are learnt.
    pub fn initial(self, width: usize) -> Vec<f32> {
        match self {
            Self::Learnt { max_length } => table(Self::Standard, &[], max_length, width),
            _ => Vec::new(),
        }
    }
}

/// The index in the learnt codes where that of a position begins.
pub fn place(learnt: &[f32], position: usize, width: usize) -> usize {
    position.min(learnt.len() / width - 1) * width
}

/// Adds the code of a position to a signal of any even length; `learnt` are the codes of [`Encoding::Learnt`].
pub fn add(encoding: Encoding, learnt: &[f32], position: usize, signal: &mut [f32]) {
    if let Encoding::Learnt { .. } = encoding {
        let code = &learnt[place(learnt, position, signal.len())..];
        return numeric::add(signal, code);
    }
    let width = signal.len() as f64;
    for (pair, places) in signal.chunks_mut(2).enumerate() {
        let frequency = 10000f64.powf(2.0 * pair as f64 / width);
        let angle = match encoding {
            Encoding::ReferenceMultiply => f64::from(position as f32 * frequency as f32),
            Encoding::Standard => position as f64 / frequency,
            Encoding::None | Encoding::Learnt { .. } => return,
        };
        let codes = [angle.sin() as f32, angle.cos() as f32];
        numeric::add(places, &codes);
    }
}

/// The codes of the first positions, `[positions, width]`.
pub fn table(encoding: Encoding, learnt: &[f32], positions: usize, width: usize) -> Vec<f32> {
    let mut table = vec![0.0; positions * width];
    for (position, row) in table.chunks_exact_mut(width).enumerate() {
        add(encoding, learnt, position, row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_rounds_frequencies_and_angles_to_f32() {
        let bits: Vec<u32> = (0..16)
            .map(|pair| (10000f64.powf(2.0 * f64::from(pair) / 32.0) as f32).to_bits())
            .collect();
        let expected = [
            0x3f800000, 0x3fe39ea9, 0x404a62c2, 0x40b3f300, 0x41200000, 0x418e432a, 0x41fcfb72,
            0x4260efc0, 0x42c80000, 0x4331d3f4, 0x439e1d27, 0x440c95d8, 0x447a0000, 0x44de48f1,
            0x4545a471, 0x45afbb4e,
        ];
        assert_eq!(bits, expected);
        let row = &table(Encoding::ReferenceMultiply, &[], 2, 32)[32..40];
        let published = [
            0.841471, 0.540302, 0.978553, -0.205998, -0.020684, -0.999786, -0.612937, 0.790132,
        ];
        for (value, expected) in row.iter().zip(published) {
            assert!((value - expected).abs() < 1e-6, "{row:?}");
        }
        // 100 times the last frequency, 5623.413, is 562341.3125 to the nearest single number, of which they lie 1/16 apart.
        let far = &table(Encoding::ReferenceMultiply, &[], 101, 32)[100 * 32 + 30..][..2];
        for (value, expected) in far.iter().zip([0.589_871_7, -0.807_497]) {
            assert!((value - expected).abs() < 1e-6, "{far:?}");
        }
    }

    #[test]
    fn every_code_has_the_length_of_its_pairs() {
        for encoding in [Encoding::ReferenceMultiply, Encoding::Standard] {
            for row in table(encoding, &[], 700, 32).chunks(32) {
                let square: f32 = row.iter().map(|value| value * value).sum();
                assert!((square - 16.0).abs() < 1e-4);
            }
        }
        assert!(
            table(Encoding::None, &[], 3, 4)
                .iter()
                .all(|&value| value == 0.0)
        );
    }

    #[test]
    fn codes_are_sines_and_cosines_that_are_added() {
        // Width 4: frequencies 10000^0 = 1 and 10000^(2/4) = 100.
        let standard = [3.0, 0.03].map(|angle: f64| [angle.sin(), angle.cos()]);
        let reference = [3.0, 300.0].map(|angle: f64| [angle.sin(), angle.cos()]);
        for (encoding, expected) in [
            (Encoding::Standard, standard),
            (Encoding::ReferenceMultiply, reference),
            (Encoding::None, [[0.0; 2]; 2]),
        ] {
            let mut signal = [10.0; 4];
            add(encoding, &[], 3, &mut signal);
            for (found, expected) in signal.iter().zip(expected.as_flattened()) {
                assert!(
                    (f64::from(*found) - 10.0 - expected).abs() < 2e-6,
                    "{signal:?}"
                );
            }
        }
    }

    #[test]
    fn learnt_codes_begin_as_the_standard_and_the_last_holds_beyond() {
        let learnt = Encoding::Learnt { max_length: 3 };
        assert_eq!(learnt.initial(4), table(Encoding::Standard, &[], 3, 4));
        assert!(Encoding::Standard.initial(4).is_empty());
        let codes: Vec<f32> = (0u8..6).map(f32::from).collect();
        let rows = table(learnt, &codes, 5, 2);
        assert_eq!(rows, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 4.0, 5.0, 4.0, 5.0]);
    }
}
