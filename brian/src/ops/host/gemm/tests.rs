//! Tests of matrix products of many shapes and layouts against double precision, and of the stand-ins for machines without
//! vector instructions, which refuse and change nothing.

use super::*;
use crate::random;

fn number(name: &str, place: usize) -> f32 {
    random::normal(random::key(1, name, 0), place as u64) as f32
}

/// For every way that a product can take: few rows and deep ones, some, many that are turned first, slim gradients, sides
/// that lie by columns, and edges that fill no register. What is there stays and is added to.
#[test]
fn products_are_sums_of_products_whichever_way_they_go() {
    for (n, depth, width, turned) in [
        (1, 5, 7, [false, false]),
        (4, 257, 300, [false, false]),
        (5, 9, 17, [false, false]),
        (8, 300, 1030, [false, false]),
        (9, 300, 1030, [false, false]),
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
        let expected = a.mapv(f64::from).dot(&b.mapv(f64::from)) + before.mapv(f64::from);
        let off = (found.mapv(f64::from) - &expected)
            .iter()
            .fold(0.0, |a: f64, b| a.max(b.abs()));
        assert!(
            off < 2e-5 * (depth as f64).sqrt(),
            "{n} x {depth} x {width} {turned:?}: {off:e}"
        );
        let alone = product(a.view(), b.view()).mapv(f64::from);
        let off = (alone - (expected - before.mapv(f64::from)))
            .iter()
            .fold(0.0, |a: f64, b| a.max(b.abs()));
        assert!(
            off < 2e-5 * (depth as f64).sqrt(),
            "alone {n} x {depth} x {width}: {off:e}"
        );
    }
}

/// Another machine does without these products, and says so, for whoever asks to go another way.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_machine_without_the_instructions_says_no_and_touches_nothing() {
    use super::super::{head_products, packed_gemm, portable_head_products, portable_packed_gemm};
    let [a, b] = [Array2::<f32>::ones([50, 40]), Array2::ones([40, 30])];
    let mut out = Array2::zeros([50, 30]);
    let mut to = out.view_mut();
    assert!(!portable_packed_gemm::add_product(
        a.view(),
        b.view(),
        &mut to
    ));
    assert!(!portable_packed_gemm::add_packed(
        a.view(),
        &portable_packed_gemm::Packed,
        &mut to
    ));
    assert!(portable_packed_gemm::Packed::new(b.view()).is_none());
    assert!(out.iter().all(|&number| number == 0.0));
    assert!(portable_head_products::Products::new().is_none());
    assert!(portable_head_products::rows::<1>([&[0.0; 8][..]].into_iter()).is_empty());
    assert_eq!(portable_head_products::COMPARED, head_products::COMPARED);
    // Whose gradients are never made beside the way back.
    const { assert!(portable_packed_gemm::NARROW > packed_gemm::NARROW) };
}
