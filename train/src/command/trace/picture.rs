//! SVG heat map of the contribution of each earlier position at every step.

use super::names::Names;
use crate::command::answer::fitted;
use crate::escape::xml;
use brillm::explain::{Attribution, TracedStep};

/// The most steps that are drawn.
pub const MOST_STEPS: usize = 128;

const CELL: usize = 20;
const LEFT: usize = 190;
const TOP: usize = 96;
/// Told apart also by people who do not see all colours.
const RAISES: &str = "#0072B2";
const LOWERS: &str = "#D55E00";

/// A standalone SVG: a row per step, a column per position, then the bias of the edge and the code of the position.
pub fn map(steps: &[TracedStep], names: &Names<'_>) -> String {
    let steps = &steps[..steps.len().min(MOST_STEPS)];
    let columns = steps.len() + 2;
    let (width, height) = (LEFT + columns * CELL + 60, TOP + (steps.len() + 2) * CELL);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="12">"#
    );
    let tokens = steps.iter().map(|step| names.of(step.token));
    for (column, name) in tokens.chain(["bias", "code"]).enumerate() {
        let x = LEFT + column * CELL + CELL / 2 + gap(column, steps.len());
        let (y, name) = (TOP - 6, xml(&fitted(name, 10)));
        svg += &format!(
            r##"<text transform="translate({x} {y}) rotate(-60)" fill="#888">{name}</text>"##
        );
    }
    for (row, step) in steps.iter().enumerate() {
        let Some(attribution) = step.attributions.first() else {
            continue;
        };
        let [name, next] =
            [step.token, attribution.target].map(|token| xml(&fitted(names.of(token), 11)));
        let (x, y, number) = (LEFT - 6, TOP + row * CELL + 14, row + 1);
        svg += &format!(
            r##"<text x="{x}" y="{y}" text-anchor="end" fill="#888">{number} {name} → {next}</text>"##
        );
        cells(&mut svg, row, step, attribution, steps, names);
    }
    legend(&mut svg, steps.len());
    svg + "</svg>"
}

fn cells(
    svg: &mut String,
    row: usize,
    step: &TracedStep,
    attribution: &Attribution,
    steps: &[TracedStep],
    names: &Names<'_>,
) {
    let largest = largest(steps);
    let parts = &attribution.integrated;
    let mixed = (0..parts.positions.len()).filter(|&position| step.shares[position] != 0.0);
    let of_position = |position: usize| {
        let name = format!("{} {}", position + 1, names.of(steps[position].token));
        (position, parts.positions[position], name)
    };
    let rest = [
        (steps.len(), parts.bias, "bias of the edge".to_string()),
        (steps.len() + 1, parts.code, "code of the place".to_string()),
    ];
    for (column, value, name) in mixed.map(of_position).chain(rest) {
        let strength = (value.abs() / largest).min(1.0);
        let strength = if strength.is_finite() { strength } else { 0.0 };
        let (x, y) = (
            LEFT + column * CELL + gap(column, steps.len()),
            TOP + row * CELL,
        );
        let (side, colour) = (CELL - 1, if value < 0.0 { LOWERS } else { RAISES });
        let (name, energy) = (xml(&name), attribution.energy);
        *svg += &format!(
            r##"<rect class="cell" x="{x}" y="{y}" width="{side}" height="{side}" fill="{colour}" fill-opacity="{strength:.3}" stroke="#888" stroke-opacity="0.3"><title>{name}: {value:+.3} of {energy:.3}</title></rect>"##
        );
    }
}

/// The longest contribution of a position; bias and code may exceed it and are drawn as strong.
fn largest(steps: &[TracedStep]) -> f64 {
    let first = steps.iter().filter_map(|step| step.attributions.first());
    let parts = first.flat_map(|attribution| &attribution.integrated.positions);
    let largest = parts.fold(0.0, |largest: f64, part| largest.max(part.abs()));
    largest.max(f64::MIN_POSITIVE)
}

/// Bias and code stand apart.
fn gap(column: usize, n_steps: usize) -> usize {
    if column < n_steps { 0 } else { CELL / 2 }
}

fn legend(svg: &mut String, rows: usize) {
    let y = TOP + rows * CELL + 12;
    for (x, colour, text) in [
        (10, RAISES, "raises the energy"),
        (160, LOWERS, "lowers it"),
    ] {
        let [text_x, text_y] = [x + 18, y + 11];
        *svg += &format!(
            r##"<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/><text x="{text_x}" y="{text_y}" fill="#888">{text}</text>"##
        );
    }
}
