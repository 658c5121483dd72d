//! A share of validation (f64) as its exact decimal fraction: which documents it takes, and whether a count is exactly it.

/// A share of validation as a fraction of whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    part: u128,
    of: u128,
}

impl Share {
    /// The shortest decimal fraction that is read as `value`, up to 18 places.
    pub fn new(value: f64) -> Self {
        let text = format!("{value:.18}");
        let shortest = format!("{value}");
        let text = if shortest.len() < text.len() {
            shortest
        } else {
            text
        };
        let (whole, places) = text.split_once('.').unwrap_or((&text, ""));
        // A share is below 1 and has at most 18 places, so neither number is long.
        let part = format!("{whole}{places}").parse().unwrap_or(0);
        let of = 10u128.pow(places.len() as u32);
        Self { part, of }
    }

    /// How many of the first `documents` go to validation: the share, rounded up, so that the first is one of them.
    pub fn of(self, documents: u64) -> u64 {
        (u128::from(documents) * self.part).div_ceil(self.of) as u64
    }

    /// Whether `taken` of `documents` documents are exactly this share.
    pub fn is_exactly(self, taken: u64, documents: u64) -> bool {
        u128::from(taken) * self.of == u128::from(documents) * self.part
    }

    /// Whether the document with this number goes to validation.
    pub fn takes(self, number: u64) -> bool {
        self.of(number + 1) > self.of(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_the_one_that_was_asked_for() {
        for (value, of_120, of_7) in [
            (0.05, 6, 1),
            (0.25, 30, 2),
            (0.4, 48, 3),
            (0.6, 72, 5),
            (0.7, 84, 5),
            (0.999, 120, 7),
            (0.0, 0, 0),
        ] {
            let share = Share::new(value);
            let taken = |n: u64| (0..n).filter(|number| share.takes(*number)).count();
            assert_eq!((taken(120), taken(7)), (of_120, of_7), "{value}");
        }
        // Smaller than any share of documents: none, and no overflow.
        assert_eq!(Share::new(1e-300).of(u64::MAX), 0);
        // Where the inverse is whole, every n-th and the first.
        for n in [2u64, 4, 5, 10, 20, 100] {
            let share = Share::new(1.0 / n as f64);
            assert!((0..1000).all(|number| share.takes(number) == number.is_multiple_of(n)));
        }
        assert!(Share::new(0.1).takes(3_000_000_000_000_000_000));
        assert!(Share::new(0.4).is_exactly(48, 120) && !Share::new(0.4).is_exactly(3, 7));
    }
}
