//! SVG map of reads: a row per read, a column per token, in it a bar per step at which the token wrote, coloured by the block.

use super::super::picture::colour;
use super::report::{ReadSequence, ShownRead, ShownShare, percent};
use crate::command::answer::fitted;
use crate::escape::xml;
use brian::route::action::Action;

/// The most tokens that are drawn.
const MOST_TOKENS: usize = 40;

const BAR: usize = 6;
const GAP: usize = 6;
const ROW: usize = 14;
const LEFT: usize = 230;
const TOP: usize = 96;
const RIGHT: usize = 60;
/// A line of the legend.
const LINE: usize = 16;

/// What the first tokens of a sequence read, as a standalone SVG. A row without anything to read is left out.
pub fn map(sequence: &ReadSequence) -> String {
    let rows = drawn(sequence);
    let sheet = Sheet::new(sequence, &rows);
    let mut legend = sheet.legend(&rows);
    legend.extend(left_out(sequence));
    let (width, height) = sheet.size(rows.len(), legend.len());
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="11">"#
    );
    for token in 0..sheet.n_tokens {
        let (x, y) = (sheet.x(token, sheet.steps[0]) + BAR, TOP - 6);
        let name = xml(&fitted(&sequence.name(token), 10));
        svg += &format!(
            r##"<text transform="translate({x} {y}) rotate(-60)" fill="#888">{name}</text>"##
        );
    }
    for (row, read) in rows.iter().enumerate() {
        let (x, y) = (LEFT - 8, TOP + row * ROW + 11);
        let name = fitted(&sequence.name(read.token), 14);
        let name = xml(&format!("{name}, {}", read.place()));
        svg += &format!(r##"<text x="{x}" y="{y}" text-anchor="end" fill="#888">{name}</text>"##);
        let bars = read.shares.iter();
        svg.extend(bars.map(|share| sheet.bar(sequence, row, share)));
        let (x, mass) = (sheet.right() + 4, percent(read.of_memory));
        svg += &format!(r##"<text x="{x}" y="{y}" fill="#888">{mass}</text>"##);
    }
    for (line, text) in legend.iter().enumerate() {
        let (y, text) = (TOP + rows.len() * ROW + (line + 1) * LINE, xml(text));
        svg += &format!(r##"<text x="8" y="{y}" fill="#888">{text}</text>"##);
    }
    svg + "</svg>"
}

/// What is said of tokens that are not drawn.
fn left_out(sequence: &ReadSequence) -> Option<String> {
    let n = sequence.tokens.len().saturating_sub(MOST_TOKENS);
    (n > 0).then(|| format!("tokens that are not drawn, but whose reads --json lists: {n}"))
}

fn drawn(sequence: &ReadSequence) -> Vec<&ShownRead> {
    let reads = sequence.of_something();
    reads.filter(|read| read.token < MOST_TOKENS).collect()
}

/// Where things lie on a map, and how strong they are drawn.
struct Sheet {
    n_tokens: usize,
    /// The first and the last step at which something was written that was read.
    steps: [usize; 2],
    /// The largest share, which is drawn in full colour.
    largest: f32,
}

impl Sheet {
    fn new(sequence: &ReadSequence, rows: &[&ShownRead]) -> Self {
        let shares = || rows.iter().flat_map(|read| &read.shares);
        let steps = || shares().map(|share| share.step);
        Self {
            n_tokens: sequence.tokens.len().min(MOST_TOKENS),
            steps: [steps().min(), steps().max()].map(Option::unwrap_or_default),
            largest: shares().fold(f32::MIN_POSITIVE, |largest, share| largest.max(share.share)),
        }
    }

    fn of_token(&self) -> usize {
        let [first, last] = self.steps;
        (last - first + 1) * BAR + GAP
    }

    fn x(&self, token: usize, step: usize) -> usize {
        LEFT + token * self.of_token() + (step - self.steps[0]) * BAR
    }

    /// Where the columns end.
    fn right(&self) -> usize {
        LEFT + self.n_tokens * self.of_token()
    }

    fn size(&self, n_rows: usize, n_lines: usize) -> (usize, usize) {
        let width = self.right() + RIGHT;
        // The legend needs so much.
        (width.max(760), TOP + n_rows * ROW + (n_lines + 1) * LINE)
    }

    fn bar(&self, sequence: &ReadSequence, row: usize, share: &ShownShare) -> String {
        let (x, y) = (self.x(share.token, share.step), TOP + row * ROW);
        let (width, height, strength) = (BAR - 1, ROW - 2, share.share / self.largest);
        // Of a mixture the likeliest block.
        let block = share.blocks.first();
        let colour = colour(block.map_or(Action::Out, |&block| Action::Block(block)));
        let hint = format!("{} of {}", percent(share.share), sequence.source(share));
        let hint = xml(&hint);
        format!(
            r##"<rect class="share" x="{x}" y="{y}" width="{width}" height="{height}" fill="{colour}" fill-opacity="{strength:.3}" stroke="#888" stroke-opacity="0.25"><title>{hint}</title></rect>"##
        )
    }

    fn legend(&self, rows: &[&ShownRead]) -> Vec<String> {
        if rows.is_empty() {
            return vec!["nothing was read".to_string()];
        }
        let ([first, last], largest) = (self.steps, percent(self.largest));
        let mut lines = vec![
            format!(
                "a bar: what a token wrote behind a step, {first} to {last} from left to right; its colour: the block that the token \
                 ran there, grey for none"
            ),
            format!("full colour: a share of {largest}; on the right: all of the memory"),
        ];
        let n_more: usize = rows.iter().map(|read| read.n_left_out).sum();
        if n_more > 0 {
            lines.push(format!("smaller shares that are not drawn: {n_more}"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;
    use crate::command::markup::tests::{HOSTILE, parsed};

    #[test]
    fn every_listed_share_is_a_bar_in_the_column_of_its_token_and_step() {
        let report = report(["a", "b", "c"], 9);
        let svg = report.svg();
        assert_eq!(svg.matches("class=\"share\"").count(), 7);
        // From before the walk to the second step: three bars and a gap for each token.
        let sheet = Sheet::new(&report.sequences[0], &drawn(&report.sequences[0]));
        assert_eq!(
            (sheet.steps, sheet.n_tokens, sheet.largest),
            ([0, 2], 3, 0.5)
        );
        assert_eq!(sheet.x(0, 0), LEFT);
        assert_eq!(sheet.x(2, 1), LEFT + 2 * (3 * BAR + GAP) + BAR);
        assert!(svg.contains("12.5 % of 1 b (step 1, block 1 + 0)"), "{svg}");
    }

    #[test]
    fn a_map_is_xml_whatever_tokens_say_and_if_there_are_none() {
        let [a, b, c, _] = HOSTILE;
        let mut report = report([a, b, c], 9);
        for document in [report.svg(), report.html()] {
            parsed(&document).unwrap_or_else(|wrong| panic!("{wrong}: {document}"));
        }
        report.sequences.clear();
        for document in [report.svg(), report.html()] {
            parsed(&document).unwrap_or_else(|wrong| panic!("{wrong}: {document}"));
        }
    }

    #[test]
    fn tokens_that_are_not_drawn_are_counted() {
        let mut sequence = report(["a", "b", "c"], 9).sequences.remove(0);
        assert_eq!(left_out(&sequence), None);
        sequence.tokens.resize(MOST_TOKENS + 2, String::new());
        sequence.reads[3].token = MOST_TOKENS;
        let said = left_out(&sequence).unwrap();
        assert!(said.ends_with("lists: 2"), "{said}");
        assert_eq!(drawn(&sequence).len(), 2);
        parsed(&map(&sequence)).unwrap();
    }
}
