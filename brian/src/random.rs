//! Counter-based randomness: every draw is a pure function of a key and a position.
//!
//! No random state exists, so none can be lost on resume and no draw depends on the order of the others.
//! `SplitMix64` (Steele, Lea, Flood 2014) used as a hash: the position-th output of the stream that the key names.

/// The key of a stream of draws, from the run's seed, the stream's name and a step or index.
pub fn key(seed: u64, stream: &str, step: u64) -> u64 {
    // FNV-1a turns the name into a number; mixing after every part keeps neighbouring parts apart.
    let name = stream
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    mix(mix(mix(seed) ^ name) ^ step)
}

/// The 64 random bits at a position of a stream.
pub fn bits(key: u64, position: u64) -> u64 {
    mix(key.wrapping_add(position.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// A uniform draw in `[0, 1)`.
pub fn uniform(key: u64, position: u64) -> f64 {
    (bits(key, position) >> 11) as f64 / (1u64 << 53) as f64
}

/// A standard normal draw (Box and Muller).
pub fn normal(key: u64, position: u64) -> f64 {
    let radius = (-2.0 * (1.0 - uniform(key, 2 * position)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(key, 2 * position + 1)).cos()
}

fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_moments_of_their_distribution() {
        let key = key(1, "moments", 0);
        let n = 100_000;
        let mean = |f: &dyn Fn(u64) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
        assert!((mean(&|i| uniform(key, i)) - 0.5).abs() < 0.005);
        assert!(mean(&|i| normal(key, i)).abs() < 0.01);
        assert!((mean(&|i| normal(key, i).powi(2)) - 1.0).abs() < 0.02);
    }

    #[test]
    fn streams_differ_by_seed_name_and_step() {
        let base = bits(key(1, "a", 0), 0);
        for other in [key(2, "a", 0), key(1, "b", 0), key(1, "a", 1)] {
            assert_ne!(base, bits(other, 0));
        }
    }
}
