//! The arithmetic of rows against double precision, for every length and every way that a product goes.

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

/// For every way that a product can take: few rows and deep ones, some, many that are turned first, slim gradients, sides
/// that lie by columns, and edges that fill no register. What is there stays and is added to.
#[test]
fn products_are_sums_of_products_whichever_way_they_go() {
    for (n, depth, width, turned) in [
        (1, 5, 7, [false, false]),
        (4, 257, 300, [false, false]),
        (5, 9, 17, [false, false]),
        (7, 300, 1030, [false, false]),
        (49, 20, 33, [false, false]),
        (3, 40, 19, [true, false]),
        (33, 70, 40, [true, false]),
        (260, 270, 18, [true, false]),
        (9, 260, 35, [false, true]),
        (2, 20, 5, [false, true]),
        (6, 11, 13, [true, true]),
    ] {
        let matrix = |name: &str, dims: [usize; 2]| {
            Array2::from_shape_fn(dims, |(row, column)| number(name, row * dims[1] + column))
        };
        let [a, b] = [
            ("left", [n, depth], turned[0]),
            ("right", [depth, width], turned[1]),
        ]
        .map(|(name, dims, turned)| match turned {
            true => matrix(name, [dims[1], dims[0]]).reversed_axes(),
            false => matrix(name, dims),
        });
        let before = matrix("before", [n, width]);
        let mut found = before.clone();
        add_product(a.view(), b.view(), found.view_mut());
        let product = a.mapv(f64::from).dot(&b.mapv(f64::from)) + before.mapv(f64::from);
        let off = (found.mapv(f64::from) - &product)
            .iter()
            .fold(0.0, |a: f64, b| a.max(b.abs()));
        assert!(
            off < 2e-5 * (depth as f64).sqrt(),
            "{n} x {depth} x {width} {turned:?}: {off:e}"
        );
        let alone = super::product(a.view(), b.view()).mapv(f64::from);
        let off = (alone - (product - before.mapv(f64::from)))
            .iter()
            .fold(0.0, |a: f64, b| a.max(b.abs()));
        assert!(
            off < 2e-5 * (depth as f64).sqrt(),
            "alone {n} x {depth} x {width}: {off:e}"
        );
    }
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

/// Another machine does without these products, and says so, for whoever asks to go another way.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_machine_without_the_instructions_says_no_and_touches_nothing() {
    use super::super::{lines, panels, portable_lines, portable_panels};
    let [a, b] = [Array2::<f32>::ones([50, 40]), Array2::ones([40, 30])];
    let mut out = Array2::zeros([50, 30]);
    let mut to = out.view_mut();
    assert!(!portable_panels::add_product(a.view(), b.view(), &mut to));
    assert!(!portable_panels::add_pinned(a.view(), b.view(), &mut to));
    assert!(portable_panels::Packed::new(b.view()).is_none());
    assert!(out.iter().all(|&number| number == 0.0));
    assert!(portable_lines::Products::new().is_none());
    assert!(portable_lines::rows::<1>([&[0.0; 8][..]].into_iter()).is_empty());
    assert_eq!(portable_lines::COMPARED, lines::COMPARED);
    // Whose gradients are never made beside the way back.
    const { assert!(portable_panels::NARROW > panels::NARROW) };
}
