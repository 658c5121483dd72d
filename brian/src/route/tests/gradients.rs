//! Tests of `StraightThrough`, `Mixture`, squared distances and unit vectors: values and gradients against formulas by hand.

use super::*;
use crate::route::action::Action;
use crate::route::choose::Chosen;
use crate::route::context::WalkState;
use crate::route::leave::{Mixture, StraightThrough};
use crate::route::position::{distances, normalize};
use crate::route::trace::Origin;

const OUT: usize = 2;

/// A column with a gradient.
fn column(values: &[f64]) -> Tensor<Learning, 2> {
    let data = TensorData::new(values.to_vec(), [values.len(), 1]);
    Tensor::from_data(data, &Default::default()).require_grad()
}

fn share(seed: u64, name: &str) -> f64 {
    0.05 + 0.9 * random::uniform(random::key(seed, name, 0), 0)
}

/// Whoever decides has a gradient only if it is the router. With factors `g_r` of 0 or 1, and `λ_r` the probability to leave:
/// `d Π g / d λ_r = −Π_{q ≠ r} g_q`.
#[test]
fn still_walking_falls_with_every_probability_to_leave() {
    let origins = [
        Origin::Router,
        Origin::Router,
        Origin::Teacher,
        Origin::Random,
        Origin::Cap,
    ];
    for seed in 0..60 {
        let (n, n_steps) = (4, 1 + drawn(seed, "steps", 4));
        let mut straight = StraightThrough::default();
        // Of every token and step, the factor and whether it has a gradient.
        let mut factors: Vec<Vec<(f64, bool)>> = vec![Vec::new(); n];
        let mut leaving = Vec::new();
        let mut alive = None;
        for step in 0..n_steps {
            let of = |token: usize| {
                let name = format!("{token} at {step}");
                let action = pick(seed, &name, &[0, 1, 1, 0, OUT]);
                Chosen::alone(
                    Action::from_index(action, OUT),
                    pick(seed, &format!("who, {name}"), &origins),
                )
            };
            let chosen: Vec<Chosen> = (0..n).map(of).collect();
            let lambda: Vec<f64> = (0..n)
                .map(|token| share(seed, &format!("λ {token} {step}")))
                .collect();
            leaving.push(column(&lambda));
            for (factors, chosen) in factors.iter_mut().zip(&chosen) {
                factors.push((
                    f64::from(chosen.action != Action::Out),
                    chosen.origin == Origin::Router,
                ));
            }
            alive = Some(straight.alive(leaving[step].clone(), &chosen));
        }
        let alive = alive.expect("a step");
        let product = |factors: &Vec<(f64, bool)>| factors.iter().map(|(g, _)| g).product();
        assert_eq!(
            host(&alive),
            factors.iter().map(product).collect::<Vec<f64>>()
        );
        let found = alive.sum().backward();
        for (step, leaving) in leaving.iter().enumerate() {
            let expected = factors.iter().map(|factors| {
                let others = factors
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != step);
                let others: f64 = others.map(|(_, (g, _))| g).product();
                if factors[step].1 { 0.0 - others } else { 0.0 }
            });
            let gradient = leaving.grad(&found).expect("it depends on all");
            let gradient: Vec<f64> = gradient.into_data().iter().collect();
            assert_eq!(
                gradient,
                expected.collect::<Vec<f64>>(),
                "{seed}: {step} of {n_steps}"
            );
        }
    }
}

/// Three steps and an end, each with a state of its own direction, so that what leaves is the list of shares:
/// `λ = ¼, ½, ⅓`: `¼`, `¾ · ½`, `¾ · ½ · ⅓`, and `¼` that never left.
#[test]
fn a_mixture_has_the_shares_of_the_halting_distribution() {
    let lambda = [0.25, 0.5, 1.0 / 3.0];
    let state = |direction: usize| {
        let hot: Vec<f64> = (0..4).map(|index| f64::from(index == direction)).collect();
        Tensor::<Learning, 3>::from_data(TensorData::new(hot, [1, 1, 4]), &Default::default())
    };
    let mixed = |origin: Origin, second: usize| {
        let mut mixture = Mixture::new(&state(0));
        for (step, &lambda) in lambda.iter().enumerate() {
            let action = if step == 1 { second } else { 0 };
            let action = Action::from_index(action, OUT);
            let chosen = Chosen::alone(action, if step == 1 { origin } else { Origin::Router });
            mixture.leave(&state(step), column(&[lambda]), &[chosen]);
        }
        let last = WalkState {
            hidden: state(3),
            position: column(&[5.0]),
        };
        let WalkState { hidden, position } = mixture.end(last, column(&[1.0]));
        [host(&hidden), host(&position)].concat()
    };
    let near = |found: Vec<f64>, expected: [f64; 5]| {
        assert!(
            relative(&found, &expected) < 1e-6,
            "{found:?} and not {expected:?}"
        );
    };
    // Where it stands: `¼ · 5 + ¾ · 1`.
    near(mixed(Origin::Router, 0), [0.25, 0.375, 0.125, 0.25, 2.0]);
    // Where another chose the block the router's probability does not count.
    near(mixed(Origin::Random, 1), [0.25, 0.0, 0.25, 0.5, 3.0]);
    // And who is put out leaves whole.
    near(mixed(Origin::Last, OUT), [0.25, 0.75, 0.0, 0.0, 1.0]);
}

#[test]
fn a_distance_is_squared_and_a_direction_has_length_one() {
    let matrix = |values: &[f64], n: usize| {
        let data = TensorData::new(values.to_vec(), [n, values.len() / n]);
        Tensor::<Learning, 2>::from_data(data, &Default::default()).require_grad()
    };
    let places = matrix(&[1.0, 0.0, 0.0, 3.0, -2.0, 1.0], 3);
    let position = matrix(&[1.0, 2.0], 1);
    let found = distances(position.clone(), places.clone());
    assert!(relative(&host(&found), &[4.0, 2.0, 10.0]) < 1e-6);
    // d |P − E|² / dP = 2 (P − E), and the opposite of it by E.
    let gradients = found.slice([0..1, 2..3]).sum().backward();
    let of_position: Vec<f64> = position
        .grad(&gradients)
        .expect("one")
        .into_data()
        .iter()
        .collect();
    assert!(relative(&of_position, &[6.0, 2.0]) < 1e-6);
    let of_places: Vec<f64> = places
        .grad(&gradients)
        .expect("one")
        .into_data()
        .iter()
        .collect();
    assert!(relative(&of_places, &[0.0, 0.0, 0.0, 0.0, -6.0, -2.0]) < 1e-6);
    let row = matrix(&[3.0, 4.0, 0.0, 0.0], 2);
    let unit = normalize(row.clone());
    assert!(relative(&host(&unit), &[0.6, 0.8, 0.0, 0.0]) < 1e-6);
    // d (x / |x|) / dx = (1 − u uᵀ) / |x|, here of its first entry; a row of zeros stays where it is.
    let gradients = unit.slice([0..2, 0..1]).sum().backward();
    let of_row: Vec<f64> = row
        .grad(&gradients)
        .expect("one")
        .into_data()
        .iter()
        .collect();
    let expected = [(1.0 - 0.36) / 5.0, -0.48 / 5.0];
    assert!(relative(&of_row[..2], &expected) < 1e-6, "{of_row:?}");
    assert!(of_row[2..].iter().all(|entry| entry.is_finite()));
}
