//! SVG picture of the flow of tokens through the blocks: at each step, ribbons from block to block, as wide as their share.

use super::report::name;
use brian::route::action::Action;
use brian::stats::RouteCounts;
use std::collections::BTreeMap;

const STEP_WIDTH: f64 = 130.0;
const NODE_WIDTH: f64 = 14.0;
const HEIGHT: f64 = 360.0;
const GAP: f64 = 10.0;
const MARGIN: f64 = 28.0;

/// The colour of an action, from a palette for colour-blind readers as far as it goes; OUT is grey.
pub fn colour(action: Action) -> String {
    const OKABE_ITO: [&str; 7] = [
        "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442",
    ];
    let Action::Block(block) = action else {
        return "#888888".to_string();
    };
    match OKABE_ITO.get(block) {
        Some(colour) => colour.to_string(),
        None => {
            let (hue, lightness) = (block * 137 % 360, 40 + 10 * (block % 4));
            format!("hsl({hue}, 60%, {lightness}%)")
        }
    }
}

/// The flow as a standalone SVG.
pub fn flow(counts: &RouteCounts) -> String {
    let links = links(counts);
    let action = |index| Action::from_index(index, counts.n_pool);
    let n_actions = counts.n_pool + 1;
    let last = links.keys().map(|&(step, _, _)| step + 1).max();
    let n_columns = 1 + last.unwrap_or(0);
    let total = counts.tokens.max(1) as f64;
    let scale = (HEIGHT - GAP * counts.n_pool as f64) / total;
    let mut sizes = vec![vec![0.0; n_actions]; n_columns];
    for (&(step, from, to), &n) in &links {
        sizes[step + 1][to] += n as f64;
        if step == 0 {
            sizes[0][from] += n as f64;
        }
    }
    let tops: Vec<Vec<f64>> = sizes.iter().map(|column| tops(column, scale)).collect();
    let width = MARGIN * 2.0 + STEP_WIDTH * (n_columns.max(1) - 1) as f64 + NODE_WIDTH;
    let x = |column: usize| MARGIN + STEP_WIDTH * column as f64;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {:.0}" width="{width:.0}" font-family="sans-serif" font-size="12">"#,
        HEIGHT + 2.0 * MARGIN
    );
    let (mut used_from, mut used_to) = (tops.clone(), tops.clone());
    for (&(step, from, to), &n) in &links {
        let thick = n as f64 * scale;
        let y0 = used_from[step][from] + thick / 2.0;
        let y1 = used_to[step + 1][to] + thick / 2.0;
        used_from[step][from] += thick;
        used_to[step + 1][to] += thick;
        let (x0, x1) = (x(step) + NODE_WIDTH, x(step + 1));
        let middle = (x0 + x1) / 2.0;
        let (colour, thick, share) = (colour(action(to)), thick.max(0.2), 100.0 * n as f64 / total);
        let (from, to) = (name(action(from)), name(action(to)));
        svg += &format!(
            r#"<path class="link" d="M{x0:.1} {y0:.1}C{middle:.1} {y0:.1} {middle:.1} {y1:.1} {x1:.1} {y1:.1}" fill="none" stroke="{colour}" stroke-opacity="0.45" stroke-width="{thick:.2}"><title>{from} to {to}: {share:.1} %</title></path>"#
        );
    }
    for (column, sizes) in sizes.iter().enumerate() {
        let (x, step) = (x(column), column + 1);
        let middle = x + NODE_WIDTH / 2.0;
        svg += &format!(
            r##"<text x="{middle:.1}" y="16" text-anchor="middle" fill="#888">step {step}</text>"##
        );
        for (index, &n) in sizes.iter().enumerate().filter(|(_, n)| **n > 0.0) {
            let (y, height) = (tops[column][index], n * scale);
            let (text_x, text_y, shown) = (x - 3.0, y + height / 2.0 + 4.0, height.max(0.5));
            let (colour, name) = (colour(action(index)), name(action(index)));
            svg += &format!(
                r##"<rect class="node" x="{x:.1}" y="{y:.1}" width="{NODE_WIDTH}" height="{shown:.2}" fill="{colour}"/><text x="{text_x:.1}" y="{text_y:.1}" text-anchor="end" fill="#888">{name}</text>"##
            );
        }
    }
    svg + "</svg>"
}

/// How many tokens went from which action to which at each step. Who left stays at OUT.
fn links(counts: &RouteCounts) -> BTreeMap<(usize, usize, usize), u64> {
    let out = counts.n_pool;
    let mut links = BTreeMap::new();
    for (path, &n) in &counts.paths {
        if path.iter().any(|&action| action > out) {
            continue;
        }
        let at = |step: usize| path.get(step).copied().unwrap_or(out);
        for step in 0..counts.max_steps.saturating_sub(1) {
            *links.entry((step, at(step), at(step + 1))).or_default() += n;
        }
    }
    links
}

/// Where each node of a column begins, top to bottom.
fn tops(sizes: &[f64], scale: f64) -> Vec<f64> {
    let mut top = MARGIN;
    let place = |size: &f64| {
        let here = top;
        top += size * scale + GAP;
        here
    };
    sizes.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn every_token_flows_through_every_column() {
        let report = report(["a", "b", "c", "d"]);
        let links = links(&report.counts);
        for step in 0..2 {
            let through: u64 = links
                .iter()
                .filter(|((at, _, _), _)| *at == step)
                .map(|(_, n)| n)
                .sum();
            assert_eq!(through, 4);
        }
        let svg = report.svg();
        assert_eq!(svg.matches("class=\"link\"").count(), links.len());
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
    }

    #[test]
    fn nodes_stand_below_each_other_with_a_gap() {
        assert_eq!(
            tops(&[1.0, 0.0, 2.0], 10.0),
            [MARGIN, MARGIN + 20.0, MARGIN + 30.0]
        );
    }
}
