//! Kinds of floating-point numbers in foreign files, all of which become single precision here.

/// A kind, little-endian.
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

impl Number {
    /// Bytes per number.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// One number.
    ///
    /// # Panics
    /// If there are not as many bytes as it takes.
    pub fn read(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::F16, &[a, b]) => from_half(u16::from_le_bytes([a, b])),
            (Self::Bf16, &[a, b]) => f32::from_le_bytes([0, 0, a, b]),
            (Self::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (_, bytes) => f64::from_le_bytes(bytes.try_into().expect("eight bytes")) as f32,
        }
    }

    /// Appends the numbers that stand in some bytes.
    pub fn read_all(self, bytes: &[u8], to: &mut Vec<f32>) {
        let numbers = bytes.chunks_exact(self.size());
        to.extend(numbers.map(|bytes| self.read(bytes)));
    }
}

/// IEEE 754 half precision.
fn from_half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
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
        for (bits, expected) in cases {
            assert_eq!(from_half(bits), expected);
        }
        assert_eq!(Number::Bf16.read(&0x3fc0u16.to_le_bytes()), 1.5);
        let mut all = vec![0.0];
        Number::F64.read_all(&[1.5f64, -2.0].map(f64::to_le_bytes).concat(), &mut all);
        assert_eq!(all, [0.0, 1.5, -2.0]);
    }
}
