//! Python's `random.Random`: the Mersenne Twister MT19937 (Matsumoto, Nishimura 1998) as CPython seeds and reads it.
//!
//! Only for data that must equal data made in Python; everything else draws from `brian::random`.

const N: usize = 624;
const M: usize = 397;

/// The generator of `random.Random(seed)` for a seed that is not negative.
pub struct PythonRandom {
    state: [u32; N],
    next: usize,
}

impl PythonRandom {
    /// `random.Random(seed)`.
    pub fn new(seed: u64) -> Self {
        // CPython seeds by the 32-bit digits of the number, lowest first, at least one.
        match (seed as u32, (seed >> 32) as u32) {
            (low, 0) => Self::from_digits(&[low]),
            (low, high) => Self::from_digits(&[low, high]),
        }
    }

    /// `random()`: uniform in `[0, 1)` with 53 bits.
    pub fn random(&mut self) -> f64 {
        let high = f64::from(self.draw() >> 5);
        let low = f64::from(self.draw() >> 6);
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }

    /// `_randbelow(n)`: uniform in `0..n`.
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn randbelow(&mut self, n: u32) -> u32 {
        assert!(n > 0, "randbelow needs at least one value, got {n}");
        let shift = n.leading_zeros();
        loop {
            let draw = self.draw() >> shift;
            if draw < n {
                return draw;
            }
        }
    }

    /// `randint(low, high)`: uniform, both ends included.
    pub fn randint(&mut self, low: i64, high: i64) -> i64 {
        low + i64::from(self.randbelow((high - low + 1) as u32))
    }

    /// `choice(items)`.
    ///
    /// # Panics
    /// If there is nothing to choose from.
    pub fn choice<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.randbelow(items.len() as u32) as usize]
    }

    fn from_digits(digits: &[u32]) -> Self {
        let mut state = [0u32; N];
        state[0] = 19_650_218;
        for i in 1..N {
            state[i] = scrambled(state[i - 1])
                .wrapping_mul(1_812_433_253)
                .wrapping_add(i as u32);
        }
        let mut i = 1;
        let wrap = |state: &mut [u32; N], i: &mut usize| {
            *i += 1;
            if *i == N {
                state[0] = state[N - 1];
                *i = 1;
            }
        };
        for round in 0..N {
            let j = round % digits.len();
            state[i] = (state[i] ^ scrambled(state[i - 1]).wrapping_mul(1_664_525))
                .wrapping_add(digits[j])
                .wrapping_add(j as u32);
            wrap(&mut state, &mut i);
        }
        for _ in 1..N {
            state[i] = (state[i] ^ scrambled(state[i - 1]).wrapping_mul(1_566_083_941))
                .wrapping_sub(i as u32);
            wrap(&mut state, &mut i);
        }
        state[0] = 0x8000_0000;
        Self { state, next: N }
    }

    fn draw(&mut self) -> u32 {
        if self.next == N {
            self.refill();
        }
        let mut value = self.state[self.next];
        self.next += 1;
        value ^= value >> 11;
        value ^= (value << 7) & 0x9d2c_5680;
        value ^= (value << 15) & 0xefc6_0000;
        value ^ (value >> 18)
    }

    fn refill(&mut self) {
        for i in 0..N {
            let joined = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (joined >> 1) ^ twist;
        }
        self.next = 0;
    }
}

fn scrambled(word: u32) -> u32 {
    word ^ (word >> 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_equal_those_of_python() {
        // r = random.Random(1); r.random(); [r.randint(0, 20) for _ in range(6)]; random.Random(1 << 40).random()
        let mut random = PythonRandom::new(1);
        assert_eq!(random.random(), 0.13436424411240122);
        let draws: Vec<i64> = (0..6).map(|_| random.randint(0, 20)).collect();
        assert_eq!(draws, PYTHON_DRAWS);
        let mut large = PythonRandom::new(1 << 40);
        assert_eq!(large.random(), PYTHON_LARGE);
    }

    const PYTHON_DRAWS: [i64; 6] = [2, 8, 3, 15, 14, 15];
    const PYTHON_LARGE: f64 = 0.1036394562812375;

    #[test]
    fn the_state_can_be_refilled_many_times() {
        let mut random = PythonRandom::new(7);
        let mean = (0..100_000).map(|_| random.random()).sum::<f64>() / 100_000.0;
        assert!((mean - 0.5).abs() < 0.005);
    }
}
