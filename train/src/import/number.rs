//! Number types in foreign files. Floating-point numbers are converted to f32 here, and what that loses is counted.

use super::{PIECE_BYTES, Pieces};
use half::f16;
use std::io::{self, Read};

/// How the numbers of a tensor are stored, little-endian: a row of [`NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dtype {
    /// The floating-point type; `None` for whole numbers and truth values, which are counters and masks and no weights.
    number: Option<Number>,
    /// Bytes per number.
    pub size: usize,
    /// Its name in safetensors.
    safetensors: &'static str,
    /// The class of a storage in PyTorch; newer kinds have none.
    storage: &'static str,
    /// Its name in PyTorch.
    torch: &'static str,
}

/// A floating-point type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// IEEE 754, 2 bytes.
    F16,
    /// The upper half of an `F32`.
    Bf16,
    /// IEEE 754, 4 bytes.
    F32,
    /// IEEE 754, 8 bytes.
    F64,
}

const fn whole(size: usize, [safetensors, storage, torch]: [&'static str; 3]) -> Dtype {
    Dtype {
        number: None,
        size,
        safetensors,
        storage,
        torch,
    }
}

const fn float(number: Number, names: [&'static str; 3]) -> Dtype {
    Dtype {
        number: Some(number),
        ..whole(number.size(), names)
    }
}

/// All kinds that are understood.
const NAMES: [Dtype; 13] = [
    float(Number::F64, ["F64", "DoubleStorage", "float64"]),
    float(Number::F32, ["F32", "FloatStorage", "float32"]),
    float(Number::F16, ["F16", "HalfStorage", "float16"]),
    float(Number::Bf16, ["BF16", "BFloat16Storage", "bfloat16"]),
    whole(8, ["I64", "LongStorage", "int64"]),
    whole(4, ["I32", "IntStorage", "int32"]),
    whole(2, ["I16", "ShortStorage", "int16"]),
    whole(1, ["I8", "CharStorage", "int8"]),
    whole(8, ["U64", "", "uint64"]),
    whole(4, ["U32", "", "uint32"]),
    whole(2, ["U16", "", "uint16"]),
    whole(1, ["U8", "ByteStorage", "uint8"]),
    whole(1, ["BOOL", "BoolStorage", "bool"]),
];

/// The accepted number types, for messages.
pub const UNDERSTOOD: &str = "F64, F32, F16 or BF16, or whole numbers, which are left out";

impl Dtype {
    /// The type with this name in a header of safetensors.
    pub fn of_safetensors(name: &str) -> Option<Self> {
        NAMES.into_iter().find(|dtype| dtype.safetensors == name)
    }

    /// The type with this class of storage in PyTorch.
    pub fn of_storage(class: &str) -> Option<Self> {
        let mut named = NAMES.into_iter().filter(|dtype| !dtype.storage.is_empty());
        named.find(|dtype| dtype.storage == class)
    }

    /// The type with this name in PyTorch.
    pub fn of_torch(name: &str) -> Option<Self> {
        NAMES.into_iter().find(|dtype| dtype.torch == name)
    }

    /// Its name in safetensors.
    pub fn name(self) -> &'static str {
        self.safetensors
    }

    /// The floating-point type, if it is one.
    pub fn number(self) -> Option<Number> {
        self.number
    }
}

/// What was lost in converting numbers to f32; numbers that only lost digits are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cast {
    /// How many were too large.
    pub overflowed: u64,
    /// The first that was too large.
    pub first_overflow: Option<f64>,
    /// How many were too small, and are zero now.
    pub vanished: u64,
    /// How many are subnormal now, and so have fewer digits.
    pub subnormal: u64,
}

impl Cast {
    fn narrow(&mut self, wide: f64) -> f32 {
        let value = wide as f32;
        if value.is_infinite() && wide.is_finite() {
            self.overflowed += 1;
            self.first_overflow.get_or_insert(wide);
        }
        self.vanished += u64::from(value == 0.0 && wide != 0.0);
        self.subnormal += u64::from(value.is_subnormal());
        value
    }

    /// Adds the counts of another conversion.
    pub fn add(&mut self, other: Self) {
        self.overflowed += other.overflowed;
        self.first_overflow = self.first_overflow.or(other.first_overflow);
        self.vanished += other.vanished;
        self.subnormal += other.subnormal;
    }
}

impl Number {
    /// Bytes per number.
    pub const fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Reads one number.
    ///
    /// # Panics
    /// If there are not as many bytes as it takes.
    pub fn read(self, bytes: &[u8], cast: &mut Cast) -> f32 {
        match (self, bytes) {
            (Self::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
            (Self::Bf16, &[a, b]) => f32::from_le_bytes([0, 0, a, b]),
            (Self::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (_, bytes) => cast.narrow(f64::from_le_bytes(bytes.try_into().expect("eight bytes"))),
        }
    }

    /// Appends the numbers that stand in some bytes.
    pub fn read_all(self, bytes: &[u8], to: &mut Vec<f32>, cast: &mut Cast) {
        let numbers = bytes.chunks_exact(self.size());
        to.extend(numbers.map(|bytes| self.read(bytes, cast)));
    }

    /// Hands over the next numbers of a file, piece by piece; returns what was lost.
    ///
    /// # Errors
    /// The system's error if the file does not hold as many.
    pub fn stream(self, file: &mut dyn Read, n: usize, pieces: Pieces<'_>) -> io::Result<Cast> {
        let mut left = n * self.size();
        let mut bytes = vec![0; PIECE_BYTES.min(left)];
        let mut values = Vec::with_capacity(bytes.len() / self.size());
        let mut cast = Cast::default();
        while left > 0 {
            let piece = bytes.len().min(left);
            file.read_exact(&mut bytes[..piece])?;
            values.clear();
            self.read_all(&bytes[..piece], &mut values, &mut cast);
            pieces(&values);
            left -= piece;
        }
        Ok(cast)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_what_they_stand_for() {
        let cases = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x0001, 5.960_464_5e-8),
        ];
        let mut cast = Cast::default();
        for (bits, expected) in cases {
            let half = Number::F16.read(&u16::to_le_bytes(bits), &mut cast);
            assert_eq!(half, expected);
        }
        let half = Number::Bf16.read(&0x3fc0u16.to_le_bytes(), &mut cast);
        assert_eq!(half, 1.5);
        let mut all = vec![0.0];
        let doubles = [1.5f64, -2.0].map(f64::to_le_bytes).concat();
        Number::F64.read_all(&doubles, &mut all, &mut cast);
        assert_eq!((all, cast), (vec![0.0, 1.5, -2.0], Cast::default()));
    }

    #[test]
    fn doubles_that_single_precision_cannot_hold_are_counted() {
        let doubles = [1e39, -1e300, 1e-40, -1e-46, 0.0, f64::INFINITY, 3e38];
        let mut cast = Cast::default();
        let mut all = Vec::new();
        Number::F64.read_all(&doubles.map(f64::to_le_bytes).concat(), &mut all, &mut cast);
        let expected = Cast {
            overflowed: 2,
            first_overflow: Some(1e39),
            vanished: 1,
            subnormal: 1,
        };
        assert_eq!(cast, expected);
        assert_eq!(all[1..4], [f32::NEG_INFINITY, 1e-40, -0.0]);
    }

    #[test]
    fn a_kind_is_the_same_under_its_three_names() {
        for names in NAMES {
            let dtype = Some(names);
            assert_eq!(Dtype::of_safetensors(names.safetensors), dtype);
            assert_eq!(Dtype::of_torch(names.torch), dtype);
            assert_eq!(names.name(), names.safetensors);
            if !names.storage.is_empty() {
                assert_eq!(Dtype::of_storage(names.storage), dtype);
            }
        }
        assert_eq!(Dtype::of_storage(""), None);
        assert_eq!(Dtype::of_safetensors("F8_E4M3"), None);
    }

    #[test]
    fn every_short_number_is_what_the_library_says() {
        let mut cast = Cast::default();
        for bits in 0..=u16::MAX {
            let half = half::f16::from_bits(bits).to_f32();
            let brain = half::bf16::from_bits(bits).to_f32();
            for (number, expected) in [(Number::F16, half), (Number::Bf16, brain)] {
                let found = number.read(&bits.to_le_bytes(), &mut cast);
                let is_same = found.to_bits() == expected.to_bits();
                assert!(
                    is_same || found.is_nan() && expected.is_nan(),
                    "{number:?} {bits:#06x}: {found}"
                );
            }
        }
        assert_eq!(cast, Cast::default());
    }

    #[test]
    fn costs_add_up_and_the_first_overflow_stays_the_first() {
        let of = |overflowed, first_overflow, vanished, subnormal| Cast {
            overflowed,
            first_overflow,
            vanished,
            subnormal,
        };
        let mut sum = of(0, None, 1, 2);
        sum.add(of(2, Some(1e39), 10, 20));
        sum.add(of(1, Some(1e40), 100, 200));
        assert_eq!(sum, of(3, Some(1e39), 111, 222));
        // Infinity was there before, and a number that only lost digits cost nothing that is counted.
        let mut cast = Cast::default();
        for wide in [
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            0.1,
            -0.0,
            3.4e38,
        ] {
            cast.narrow(wide);
        }
        assert_eq!(cast, Cast::default());
    }
}
