//! A table of how much each earlier position contributed to an energy.

use super::names::Names;
use super::table::{Table, bar, columns, number};
use crate::command::answer::maybe;
use brillm::explain::{Attribution, Split, TracedStep};

/// The table: the `top` strongest positions, and the rest together.
pub fn table(
    step: &TracedStep,
    attribution: &Attribution,
    tokens: &[u32],
    names: &Names<'_>,
    top: usize,
) -> Table {
    let Attribution {
        target,
        energy,
        gradient,
        integrated,
    } = attribution;
    let (energy, target) = (number(*energy), names.of(*target));
    let title = format!("the energy {energy} of {target}, position by position");
    let heads = "at> | token~ | share> | gradient> | integrated> |";
    let mut table = Table::new(title, &columns(heads));
    let parts = integrated.positions.iter();
    let largest = parts.chain([&integrated.bias, &integrated.code]);
    let largest = largest.fold(0.0, |largest: f64, part| largest.max(part.abs()));
    let (shown, rest) = strongest(integrated, &step.shares, top);
    let mut row = |at: &str, token: &str, share: Option<f64>, by: [f64; 2]| {
        table.row([
            at.to_string(),
            token.to_string(),
            maybe(share, |share| format!("{share:.3}")),
            number(by[0]),
            number(by[1]),
            bar(by[1], largest, 20),
        ]);
    };
    let by = |position: usize| [gradient.positions[position], integrated.positions[position]];
    for position in shown {
        let token = tokens.get(position).map_or("", |&token| names.of(token));
        let (at, share) = ((position + 1).to_string(), step.shares[position]);
        row(&at, token, Some(share), by(position));
    }
    if !rest.is_empty() {
        let sum = |list: &[f64]| rest.iter().map(|&position| list[position]).sum::<f64>();
        let sums = [sum(&gradient.positions), sum(&integrated.positions)];
        let others = format!("{} others", rest.len());
        row("", &others, Some(sum(&step.shares)), sums);
    }
    row("", "edge bias", None, [gradient.bias, integrated.bias]);
    row("", "place code", None, [gradient.code, integrated.code]);
    row("", "unexplained", None, [gradient.gap, integrated.gap]);
    table
}

/// The positions that contribute most, in the order of the text, and the others that are in the mix.
fn strongest(split: &Split, shares: &[f64], top: usize) -> (Vec<usize>, Vec<usize>) {
    let mut mixed: Vec<usize> = (0..shares.len()).filter(|&p| shares[p] != 0.0).collect();
    let strength = |&p: &usize| split.positions[p].abs();
    mixed.sort_by(|a, b| strength(b).total_cmp(&strength(a)));
    let mut rest = mixed.split_off(top.min(mixed.len()));
    mixed.sort_unstable();
    rest.sort_unstable();
    (mixed, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_positions_stand_in_the_order_of_the_text_and_the_rest_together() {
        let split = Split {
            positions: vec![0.5, -3.0, 9.0, 1.0, -2.0],
            bias: 0.0,
            code: 0.0,
            gap: 0.0,
        };
        // Position 2 is in no mix, however strong it would be.
        let shares = [0.1, 0.2, 0.0, 0.3, 0.4];
        assert_eq!(strongest(&split, &shares, 2), (vec![1, 4], vec![0, 3]));
        assert_eq!(strongest(&split, &shares, 3), (vec![1, 3, 4], vec![0]));
        assert_eq!(strongest(&split, &shares, 0), (vec![], vec![0, 1, 3, 4]));
        assert_eq!(strongest(&split, &shares, 9), (vec![0, 1, 3, 4], vec![]));
    }
}
