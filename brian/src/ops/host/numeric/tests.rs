//! Tests of exponential, sigmoid, tangent, and sum, dot product and maximum of rows of every length against double precision, and of
//! fill, copy, addition and sum of rows that several tasks share.

use super::*;
use crate::random;

fn number(name: &str, place: usize) -> f32 {
    random::normal(random::key(1, name, 0), place as u64) as f32
}

/// Near 0, at both ends of every octave, and where an exponential has no more numbers.
#[test]
fn exponentials_are_right_to_two_units_in_the_last_place() {
    let numbers = (0..2000).map(|index| -87.0 * (index as f32 / 2000.0).powi(3));
    for x in numbers.chain([0.0, -0.0, -1e-30, -std::f32::consts::LN_2, -86.999]) {
        let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
        let off = (found / expected - 1.0).abs();
        assert!(
            off < 2.0 * f64::from(f32::EPSILON),
            "{x}: {found} for {expected}"
        );
    }
    for x in [-87.0, -88.0, -1e30, f32::NEG_INFINITY] {
        assert_eq!(exp(x), exp(-87.0), "{x}");
    }
}

#[test]
fn a_sigmoid_is_right_on_both_sides() {
    for index in -400..=400 {
        let x = index as f32 * 0.2;
        let expected = 1.0 / (1.0 + (-f64::from(x)).exp());
        let off = (f64::from(sigmoid(x)) / expected - 1.0).abs();
        assert!(off < 4.0 * f64::from(f32::EPSILON), "{x}: {off:e}");
    }
    assert_eq!([sigmoid(1e30), sigmoid(0.0)], [1.0, 0.5]);
    assert!(sigmoid(-1e30) < 1e-37);
}

/// Where the polynomial ends too, and of what is no number.
#[test]
fn a_tangent_is_right_near_nothing_and_far_away() {
    let numbers = (-400..=400).map(|index| (index as f32 / 400.0).powi(3) * 12.0);
    for x in numbers.chain([0.624_999, 0.625, -0.625, 1e-20, -1e-7]) {
        let (found, expected) = (f64::from(tanh(x)), f64::from(x).tanh());
        let off = (found - expected).abs() / expected.abs().max(1e-30);
        assert!(off < 4.0 * f64::from(f32::EPSILON), "{x}: {off:e}");
    }
    let ends = [0.0, 1e30, -1e30, f32::INFINITY].map(tanh);
    assert_eq!(ends, [0.0, 1.0, -1.0, 1.0]);
    assert!(tanh(f32::NAN).is_nan());
}

/// In whole lanes and beside them; the largest in every place.
#[test]
fn sums_products_and_the_largest_of_a_row_take_every_number() {
    for n in 0..35 {
        let [a, b] =
            ["a", "b"].map(|name| (0..n).map(|place| number(name, place)).collect::<Vec<_>>());
        let products = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        assert!(
            (f64::from(dot(&a, &b)) - products.sum::<f64>()).abs() < 1e-5,
            "{n}"
        );
        let whole: f64 = a.iter().map(|&a| f64::from(a)).sum();
        assert!((f64::from(sum(&a)) - whole).abs() < 1e-5, "{n}");
        for place in 0..n {
            let mut row: Vec<f32> = a.iter().map(|a| -10.0 - a.abs()).collect();
            row[place] = -9.5;
            assert_eq!(largest(&row), -9.5, "{place} of {n}");
        }
    }
    assert_eq!(largest(&[]), f32::NEG_INFINITY);
}

/// More rows than one task works on.
#[test]
fn rows_of_several_tasks_are_all_there() {
    let dims = [500, 300];
    let number = |row: usize, column: usize| (row * 7 % 64) as f32 - column as f32;
    let rows = filled(dims, |row, to| {
        to.iter_mut()
            .enumerate()
            .for_each(|(column, to)| *to = number(row, column));
    });
    let expected = Array2::from_shape_fn(dims, |(row, column)| number(row, column));
    assert_eq!(rows, expected);
    assert_eq!(copied(&rows), expected);
    let mut sums = expected.clone();
    add(flat_mut(&mut sums), flat(&rows));
    assert_eq!(sums, &expected * 2.0);
    // Whole numbers that single precision adds without rounding.
    assert_eq!(sum_rows(&rows).row(0), expected.sum_axis(Axis(0)));
    assert_eq!(rows_per_task(0), 1 << 16);
    assert_eq!(rows_per_task(1 << 20), 1);
}
