//! SVG picture of a coordinate check: the change of every place over the width, with the transfer and without it side by side.

use super::measure::Moved;
use super::report::TransferReport;
use crate::escape::xml;

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 320.0;
const MARGIN: f64 = 48.0;
const LINE: f64 = 16.0;

/// The plot as a standalone SVG: behind the last step, both axes logarithmic.
pub fn plot(report: &TransferReport) -> String {
    let places = report.places();
    let last = report.n_steps() - 1;
    let curve = |of: &[Vec<Vec<Moved>>], place| {
        let changes = TransferReport::sizes(of, last, place, |moved| moved.change);
        changes.into_iter().map(f64::log2).collect::<Vec<f64>>()
    };
    let panels = [
        ("with the transfer", &report.transfer),
        ("without it", &report.standard),
    ]
    .map(|(title, of)| {
        let curves = (0..places.len()).map(|place| curve(of, place));
        (title, curves.collect::<Vec<_>>())
    });
    let all = panels
        .iter()
        .flat_map(|(_, curves)| curves.iter().flatten());
    let known = all.copied().filter(|y| y.is_finite());
    let (low, high) = known.fold((f64::MAX, f64::MIN), |(low, high), y| {
        (low.min(y), high.max(y))
    });
    let (low, high) = match low <= high {
        true => (low.floor(), high.ceil().max(low.floor() + 1.0)),
        false => (0.0, 1.0),
    };
    let y = |value: f64| MARGIN + HEIGHT * (high - value) / (high - low);
    let first = (report.widths[0] as f64).log2();
    let range = (report.widths[report.widths.len() - 1] as f64).log2() - first;
    let x = |width: usize| WIDTH * ((width as f64).log2() - first) / range;
    let legend = 2.0 * (WIDTH + MARGIN) + MARGIN;
    let height = (HEIGHT + 2.0 * MARGIN).max(MARGIN + LINE * (places.len() + 1) as f64);
    let whole = legend + 200.0;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole:.0} {height:.0}" width="{whole:.0}" font-family="sans-serif" font-size="12">"#
    );
    for (index, (title, curves)) in panels.iter().enumerate() {
        let left = MARGIN + index as f64 * (WIDTH + MARGIN);
        svg += &format!(
            r##"<text x="{:.1}" y="20" text-anchor="middle" fill="#888">change, {title}</text><rect x="{left:.1}" y="{MARGIN}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#888"/>"##,
            left + WIDTH / 2.0
        );
        for &width in &report.widths {
            svg += &format!(
                r##"<text x="{:.1}" y="{:.1}" text-anchor="middle" fill="#888">{width}</text>"##,
                left + x(width),
                MARGIN + HEIGHT + LINE
            );
        }
        for power in [low, high] {
            svg += &format!(
                r##"<text x="{:.1}" y="{:.1}" text-anchor="end" fill="#888">2^{power}</text>"##,
                left - 4.0,
                y(power) + 4.0
            );
        }
        for (place, curve) in curves.iter().enumerate() {
            let points = report
                .widths
                .iter()
                .zip(curve)
                .filter(|(_, value)| value.is_finite());
            let points: Vec<String> = points
                .map(|(&width, &value)| format!("{:.1},{:.1}", left + x(width), y(value)))
                .collect();
            svg += &format!(
                r#"<polyline class="place" points="{}" fill="none" stroke="{}" stroke-width="1.5"><title>{}</title></polyline>"#,
                points.join(" "),
                colour(place, places.len()),
                xml(places[place]),
            );
        }
    }
    for (index, place) in places.iter().enumerate() {
        svg += &format!(
            r#"<text x="{legend:.1}" y="{:.1}" fill="{}">{}</text>"#,
            MARGIN + LINE * index as f64,
            colour(index, places.len()),
            xml(place),
        );
    }
    svg + "</svg>"
}

/// Around the circle of hues, so that neighbours in the model are neighbours in colour.
fn colour(index: usize, of: usize) -> String {
    format!("hsl({}, 65%, 45%)", 330 * index / of.max(1))
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;
    use crate::command::markup::tests::{HOSTILE, parsed};

    #[test]
    fn every_place_has_a_line_in_both_panels_and_a_name() {
        let svg = plot(&report());
        assert_eq!(svg.matches("class=\"place\"").count(), 4);
        assert!(parsed(&svg).unwrap().contains("logits"));
        // Changes of 1 to 8 from 2^0 to 2^3: half of the height is a factor of √8.
        let of_logits = svg.split("<polyline").nth(4).unwrap();
        let bottom = MARGIN + HEIGHT * 2.0 / 3.0;
        let expected = format!("points=\"{:.1},{bottom:.1} ", MARGIN + WIDTH + MARGIN);
        assert!(of_logits.contains(&expected), "{of_logits} {expected}");
    }

    #[test]
    fn it_is_xml_whatever_places_are_called_and_whatever_they_measure() {
        for name in HOSTILE {
            let mut report = report();
            for moved in report.transfer.iter_mut().flatten().flatten() {
                moved.place = name.to_string();
                moved.change = 0.0;
            }
            parsed(&plot(&report)).unwrap_or_else(|wrong| panic!("{name:?}: {wrong}"));
        }
    }
}
