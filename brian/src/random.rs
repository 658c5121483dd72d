//! Counter-based randomness: keys of streams, and bits, uniform and normal draws, each a pure function of a key and an index.
//!
//! No random state exists, so none can be lost on resume and no draw depends on the order of the others.
//! `SplitMix64` (Steele, Lea, Flood 2014) used as a hash: the index-th output of the stream that the key names.

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

/// The 64 random bits at a index of a stream.
pub fn bits(key: u64, index: u64) -> u64 {
    mix(key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// A uniform draw in `[0, 1)`.
pub fn uniform(key: u64, index: u64) -> f64 {
    (bits(key, index) >> 11) as f64 / (1u64 << 53) as f64
}

/// A standard normal draw (Box and Muller).
pub fn normal(key: u64, index: u64) -> f64 {
    let radius = (-2.0 * (1.0 - uniform(key, 2 * index)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(key, 2 * index + 1)).cos()
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

    /// The published outputs of `SplitMix64` for the seed 1234567, and a key made of `FNV-1a` by another program: a run of today
    /// draws what a run of yesterday drew.
    #[test]
    fn streams_are_those_of_the_publication() {
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!([0, 1, 2].map(|index| bits(1_234_567, index)), published);
        assert_eq!(key(1, "route", 2), 0x6fe0_4641_e171_2a6c);
        let eleven = bits(5, 7) >> 11;
        assert_eq!(uniform(5, 7) * 2f64.powi(53), eleven as f64);
    }

    /// Shares of a normal distribution below its quartiles and beyond 1.96, and none of the dependence that a pair of neighbours
    /// would have who share a number.
    #[test]
    fn normal_draws_have_quartiles_tails_and_no_memory() {
        let key = key(2, "shape", 0);
        let n = 100_000;
        let draws: Vec<f64> = (0..n).map(|index| normal(key, index)).collect();
        let share = |holds: &dyn Fn(f64) -> bool| {
            draws.iter().filter(|&&x| holds(x)).count() as f64 / n as f64
        };
        assert!((share(&|x| x < -0.6745) - 0.25).abs() < 0.006);
        assert!((share(&|x| x > 0.6745) - 0.25).abs() < 0.006);
        assert!((share(&|x| x.abs() > 1.96) - 0.05).abs() < 0.003);
        let product: f64 = draws.windows(2).map(|pair| pair[0] * pair[1]).sum();
        assert!((product / n as f64).abs() < 0.015);
        assert!(draws.iter().all(|x| x.is_finite()));
        let uniforms = (0..n).map(|index| uniform(key, index));
        let (low, high) =
            uniforms.fold((1.0f64, 0.0f64), |(low, high), x| (low.min(x), high.max(x)));
        assert!(
            (0.0..1e-3).contains(&low) && (1.0 - 1e-3..1.0).contains(&high),
            "{low} to {high}"
        );
    }
}
