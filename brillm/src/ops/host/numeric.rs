//! Arithmetic with a row `[W; b]`, in loops that compilers vectorise: products with `W` and its transpose, the outer product,
//! the norm, `exp`, and GELU with its slope; and the macro `vectorised`, which picks the machine's vector instructions.
//!
//! There is no fused multiply-add, and every sum has a fixed order: the bits are the same on every machine, whichever vector
//! instructions it has, and for every number of threads.

/// Runs an expression, and what is inlined into it, with the best vector instructions of this machine.
///
/// A macro, because only inlined code gets them, and the compiler keeps a large closure apart, with the instructions that every
/// machine has, which shows in the time alone. `Once` makes the closure callable only once; the call of any other closure goes
/// through a function that cannot be told to be inlined.
macro_rules! vectorised {
    ($work:expr) => {{
        struct Once;
        let once = Once;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let _once = once;
                $work
            },
        )
    }};
}
pub(crate) use vectorised;

/// `e^x` for `x` of at most 0, to 2 units in the last place; below −87 the value at −87.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding this number leaves the nearest integer in the last bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let x = x.max(-87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let x = x - whole * 0.693_359_4 + whole * 2.121_944_4e-4;
    let polynomial = 1.987_569_1e-4 * x + 1.398_199_9e-3;
    let polynomial = polynomial * x + 8.333_452e-3;
    let polynomial = polynomial * x + 4.166_579_6e-2;
    let polynomial = polynomial * x + 1.666_666_5e-1;
    let polynomial = polynomial * x + 0.5;
    let fraction = polynomial * x * x + x + 1.0;
    fraction * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// `z Φ(z)` and its derivative `Φ(z) + z φ(z)`, with the error function of Abramowitz and Stegun 7.1.26.
#[inline(always)]
pub fn gelu(z: f32) -> (f32, f32) {
    const INVERSE_ROOT_TAU: f32 = 0.398_942_3;
    let bell = exp(-0.5 * z * z);
    let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * z.abs());
    let polynomial = 1.061_405_4 * t - 1.453_152;
    let polynomial = polynomial * t + 1.421_413_7;
    let polynomial = polynomial * t - 0.284_496_74;
    let polynomial = polynomial * t + 0.254_829_6;
    let tail = 0.5 * polynomial * t * bell;
    let below = if z < 0.0 { tail } else { 1.0 - tail };
    (z * below, below + z * bell * INVERSE_ROOT_TAU)
}

/// `sums += part`.
#[inline(always)]
pub fn add(sums: &mut [f32], part: &[f32]) {
    sums.iter_mut()
        .zip(part)
        .for_each(|(sum, part)| *sum += part);
}

/// The widest block of columns that a loop over `width` columns can work on.
#[inline(always)]
fn block(width: usize) -> usize {
    [32, 16, 8]
        .into_iter()
        .find(|block| width.is_multiple_of(*block))
        .unwrap_or(1)
}

/// `z += h W` for the `width × width` matrix at the head of a row.
#[inline(always)]
pub fn matrix_vector(signal: &[f32], row: &[f32], z: &mut [f32]) {
    match block(signal.len()) {
        32 => matrix_vector_by::<32>(signal, row, z),
        16 => matrix_vector_by::<16>(signal, row, z),
        8 => matrix_vector_by::<8>(signal, row, z),
        _ => matrix_vector_by::<1>(signal, row, z),
    }
}

#[inline(always)]
fn matrix_vector_by<const BLOCK: usize>(signal: &[f32], row: &[f32], z: &mut [f32]) {
    let width = signal.len();
    for (index, z) in z.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let mut sums = *z;
        for (value, weights) in signal.iter().zip(row.chunks_exact(width)) {
            let weights = &weights.as_chunks::<BLOCK>().0[index];
            for lane in 0..BLOCK {
                sums[lane] += value * weights[lane];
            }
        }
        *z = sums;
    }
}

/// Lanes of a sum that is not yet added up; see [`vector_matrix`].
pub const LANES: usize = 8;

/// Adds `W δ` to sums of [`LANES`] lanes per component, `[width, LANES]`.
#[inline(always)]
pub fn vector_matrix(delta: &[f32], row: &[f32], lanes: &mut [f32]) {
    let width = delta.len();
    let lanes = lanes.as_chunks_mut::<LANES>().0;
    for (weights, lanes) in row.chunks_exact(width).zip(lanes) {
        let (weights, rest) = weights.as_chunks::<LANES>();
        let (delta, delta_rest) = delta.as_chunks::<LANES>();
        let mut sums = *lanes;
        for (weights, delta) in weights.iter().zip(delta) {
            for lane in 0..LANES {
                sums[lane] += weights[lane] * delta[lane];
            }
        }
        for lane in 0..rest.len() {
            sums[lane] += rest[lane] * delta_rest[lane];
        }
        *lanes = sums;
    }
}

/// Adds up the lanes of [`vector_matrix`].
#[inline(always)]
pub fn add_lanes(lanes: &[f32], to: &mut [f32]) {
    for (lanes, to) in lanes.as_chunks::<LANES>().0.iter().zip(to) {
        *to += lanes.iter().sum::<f32>();
    }
}

/// `G += h δᵀ`, and `δ` to the bias behind the matrix.
#[inline(always)]
pub fn outer(signal: &[f32], delta: &[f32], gradient: &mut [f32]) {
    let width = delta.len();
    let (matrix, bias) = gradient.split_at_mut(width * width);
    for (value, row) in signal.iter().zip(matrix.chunks_exact_mut(width)) {
        for (sum, delta) in row.iter_mut().zip(delta) {
            *sum += value * delta;
        }
    }
    add(bias, delta);
}

/// Euclidean length.
#[inline(always)]
pub fn norm(values: &[f32]) -> f32 {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for block in blocks {
        for lane in 0..LANES {
            sums[lane] += block[lane] * block[lane];
        }
    }
    let rest: f32 = rest.iter().map(|value| value * value).sum();
    (sums.iter().sum::<f32>() + rest).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Φ` by Simpson's rule, in f64.
    fn normal(z: f64) -> f64 {
        let n = 20_000;
        let step = z / f64::from(n);
        let bell = |x: f64| (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
        let inner = (1..n).map(|i| f64::from(2 + 2 * (i % 2)) * bell(f64::from(i) * step));
        0.5 + step / 3.0 * (bell(0.0) + bell(z) + inner.sum::<f64>())
    }

    #[test]
    fn gelu_and_its_slope_are_those_of_the_error_function() {
        for place in -80..=80 {
            let z = f64::from(place) / 10.0;
            let (value, slope) = gelu(z as f32);
            let bell = (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
            assert!(
                (f64::from(value) - z * normal(z)).abs() < 1e-6,
                "{z}: {value}"
            );
            assert!(
                (f64::from(slope) - normal(z) - z * bell).abs() < 1e-6,
                "{z}: {slope}"
            );
        }
        assert!(gelu(-40.0).0.abs() < 1e-30);
        assert_eq!(gelu(40.0), (40.0, 1.0));
    }

    #[test]
    fn the_exponential_is_exact_to_a_few_units() {
        for place in 0..870 {
            let x = -f64::from(place) / 10.0;
            let relative = f64::from(exp(x as f32)) / f64::from(x as f32).exp() - 1.0;
            assert!(relative.abs() < 3e-7, "{x}: {relative}");
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn products_are_those_of_plain_loops_at_every_width() {
        for width in [2, 6, 8, 10, 16, 24, 32, 48] {
            let value = |n: usize| (n as f32 * 0.7).sin();
            let signal: Vec<f32> = (0..width).map(value).collect();
            let row: Vec<f32> = (0..width * (width + 1)).map(value).collect();
            let mut z = vec![0.5; width];
            matrix_vector(&signal, &row, &mut z);
            let mut lanes = vec![0.0; width * LANES];
            vector_matrix(&signal, &row, &mut lanes);
            let mut back = vec![0.0; width];
            add_lanes(&lanes, &mut back);
            for i in 0..width {
                let forward: f32 = (0..width).map(|k| signal[k] * row[k * width + i]).sum();
                let backward: f32 = (0..width).map(|k| signal[k] * row[i * width + k]).sum();
                assert!((z[i] - 0.5 - forward).abs() < 1e-5, "{width}");
                assert!((back[i] - backward).abs() < 1e-5, "{width}");
            }
        }
    }
}
