//! Tests of ranks that are threads of one process.

use super::Facts;
use super::threads::on_ranks;
use crate::error::{Error, Problem};

#[test]
fn what_is_gathered_lies_in_the_order_of_ranks_on_all_of_them() {
    for size in 1..=4 {
        let all = on_ranks(size, |ranks| {
            let own: Vec<(String, f64)> =
                vec![(format!("of {}", ranks.rank()), -0.0); ranks.rank()];
            ranks.gather(&own)
        });
        for of_rank in all {
            let lengths: Vec<usize> = of_rank.iter().map(Vec::len).collect();
            assert_eq!(lengths, (0..size).collect::<Vec<_>>());
            let zeros = of_rank.iter().flatten().map(|(_, zero)| zero.to_bits());
            assert!(zeros.into_iter().all(|bits| bits == (-0.0f64).to_bits()));
        }
    }
}

#[test]
fn of_several_ranks_that_fail_the_lowest_says_why_and_all_stop() {
    let outcome = |failing: &'static [usize]| {
        on_ranks(3, |ranks| {
            let own = match failing.contains(&ranks.rank()) {
                true => Err(Error::config(Problem::new("r.toml", "", "a", "b"))),
                false => Ok(ranks.rank()),
            };
            let agreed = ranks.agree(own);
            agreed.map_err(|error| (error.exit_code(), error.lines().len()))
        })
    };
    assert_eq!(outcome(&[]), [Ok(0), Ok(1), Ok(2)]);
    assert_eq!(outcome(&[1]), [Err((2, 0)), Err((2, 1)), Err((2, 0))]);
    assert_eq!(outcome(&[2, 1]), [Err((2, 0)), Err((2, 1)), Err((2, 0))]);
}

#[test]
fn every_difference_is_named_by_rank_and_field_on_all_ranks() {
    let said = on_ranks(3, |ranks| {
        let same = Facts::default().with("recipe", "a").with("threads", 1);
        assert!(ranks.compare(&same).is_ok());
        let facts = match ranks.rank() {
            0 => same,
            1 => same.with("threads", 2),
            _ => Facts::default()
                .with("recipe", "b")
                .with("threads", 1)
                .with("counts", "c"),
        };
        ranks.compare(&facts).unwrap_err().to_string()
    });
    assert_eq!(said[0], said[1]);
    assert_eq!(said[0], said[2]);
    let lines: Vec<&str> = said[0].lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("rank 1: threads: found 2, expected that of rank 0: 1"));
    assert!(lines[1].starts_with("rank 2: recipe: found b, expected that of rank 0: a"));
    assert!(lines[2].starts_with("rank 2: counts: found c, expected that of rank 0: none"));
}
