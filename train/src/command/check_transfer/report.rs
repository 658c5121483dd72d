//! `TransferReport`: how the sizes of places grow with the width, as slopes per doubling; as a table and as JSON.

use super::measure::Moved;
use crate::command::answer::{maybe, table};
use brian::WidthTransfer;
use serde_json::{Value, json};

/// A slope per doubling within which a size counts as kept.
const KEPT: f64 = 0.1;

/// What was measured of all copies.
pub struct TransferReport {
    /// Rising.
    pub widths: Vec<usize>,
    pub base: WidthTransfer,
    pub seeds: u64,
    pub rate: f64,
    /// Of every width, behind every step, of every place; the mean over seeds.
    pub transfer: Vec<Vec<Vec<Moved>>>,
    /// The same without the transfer.
    pub standard: Vec<Vec<Vec<Moved>>>,
}

/// A size of a place.
type Size = fn(&Moved) -> f64;

const SIZES: [(&str, Size); 2] = [
    ("change", |moved| moved.change),
    ("value", |moved| moved.value),
];

impl TransferReport {
    /// How many steps were made.
    pub fn n_steps(&self) -> usize {
        self.transfer[0].len()
    }

    /// The places, in the order of a pass.
    pub fn places(&self) -> Vec<&str> {
        let first = &self.transfer[0][0];
        first.iter().map(|moved| moved.place.as_str()).collect()
    }

    /// A size of a place behind a step, from the smallest width to the largest.
    pub fn sizes(of: &[Vec<Vec<Moved>>], step: usize, place: usize, size: Size) -> Vec<f64> {
        of.iter().map(|width| size(&width[step][place])).collect()
    }

    fn slope(&self, of: &[Vec<Vec<Moved>>], step: usize, place: usize, size: Size) -> Option<f64> {
        slope(&self.widths, &Self::sizes(of, step, place, size))
    }

    /// The place whose change depends most on the width behind the last step, and its slope.
    fn steepest(&self, of: &[Vec<Vec<Moved>>]) -> Option<(&str, f64)> {
        let last = self.n_steps() - 1;
        let places = self.places().into_iter().enumerate();
        let slopes = places.filter_map(|(index, place)| {
            Some((place, self.slope(of, last, index, |moved| moved.change)?))
        });
        slopes.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))
    }

    /// One object: of every place the slopes behind every step, and the sizes from which they come.
    pub fn json(&self) -> Value {
        let of_step = |of: &[Vec<Vec<Moved>>], step: usize, place: usize| {
            let fields = SIZES.map(|(name, size)| {
                let slope = self.slope(of, step, place, size);
                let sizes = Self::sizes(of, step, place, size);
                (name.to_string(), json!({ "slope": slope, "sizes": sizes }))
            });
            Value::Object(fields.into_iter().collect())
        };
        let of_place = |(index, place): (usize, &str)| {
            let steps = |of: &[Vec<Vec<Moved>>]| -> Value {
                (0..self.n_steps())
                    .map(|step| of_step(of, step, index))
                    .collect()
            };
            json!({
                "place": place,
                "transfer": steps(&self.transfer),
                "standard": steps(&self.standard),
            })
        };
        let places = self.places().into_iter().enumerate();
        json!({
            "schema": 1,
            "widths": self.widths,
            "base_d_model": self.base.base_d_model,
            "base_d_head": self.base.base_d_head,
            "steps": self.n_steps(),
            "seeds": self.seeds,
            "learning_rate": self.rate,
            "places": places.map(of_place).collect::<Value>(),
        })
    }

    /// The slopes behind the last step, and what they mean.
    pub fn text(&self) -> String {
        let last = self.n_steps() - 1;
        let shown = |slope| maybe(slope, |slope: f64| format!("{slope:+.2}"));
        let row = |(index, place): (usize, &str)| {
            let slopes = SIZES.map(|(_, size)| {
                [&self.transfer, &self.standard].map(|of| shown(self.slope(of, last, index, size)))
            });
            let [[change, plain_change], [value, plain_value]] = slopes;
            [place.to_string(), change, plain_change, value, plain_value]
        };
        let head = "place | change, transfer | standard | value, transfer | standard";
        let table = table(head, self.places().into_iter().enumerate().map(row));
        let steepest = |of| match self.steepest(of) {
            Some((place, slope)) => format!("{slope:+.2} ({place})"),
            None => "unknown".to_string(),
        };
        let kept = self
            .steepest(&self.transfer)
            .is_some_and(|(_, slope)| slope.abs() <= KEPT);
        let verdict = match kept {
            true => format!("within ±{KEPT}, as it should be"),
            false => format!(
                "beyond ±{KEPT}: see the steps and widths in --json, or average more --seeds"
            ),
        };
        format!(
            "{table}\nSlopes per doubling of the width, of the logarithm of mean absolute values and of their changes since the \
             start, behind step {}.\nWidths {:?}, base {} with heads of {}, {} seeds, learning rate {}.\n\
             The steepest change: with the transfer {}, {verdict}; without it {}.\n",
            self.n_steps(),
            self.widths,
            self.base.base_d_model,
            self.base.base_d_head,
            self.seeds,
            self.rate,
            steepest(&self.transfer),
            steepest(&self.standard),
        )
    }
}

/// The least-squares slope of `log2(size)` over `log2(width)`; none where a size has no logarithm.
fn slope(widths: &[usize], sizes: &[f64]) -> Option<f64> {
    let y: Vec<f64> = sizes.iter().map(|size| size.log2()).collect();
    if !y.iter().all(|y| y.is_finite()) {
        return None;
    }
    let x: Vec<f64> = widths.iter().map(|&width| (width as f64).log2()).collect();
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let (x_mean, y_mean) = (mean(&x), mean(&y));
    let products = x.iter().zip(&y).map(|(x, y)| (x - x_mean) * (y - y_mean));
    let squares = x.iter().map(|x| (x - x_mean).powi(2));
    Some(products.sum::<f64>() / squares.sum::<f64>())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Two widths, two steps, two places: the logits of the standard one move as the width, the rest keep their size.
    pub fn report() -> TransferReport {
        let moved = |place: &str, value, change| Moved {
            place: place.to_string(),
            value,
            change,
        };
        let at = |logits: f64| {
            let step = |factor: f64| {
                vec![
                    moved("blocks.0", 1.0, 0.5 * factor),
                    moved("logits", 4.0, logits * factor),
                ]
            };
            vec![step(1.0), step(2.0)]
        };
        TransferReport {
            widths: vec![64, 256],
            base: WidthTransfer {
                base_d_model: 64,
                base_d_head: 16,
            },
            seeds: 3,
            rate: 0.01,
            transfer: vec![at(1.0), at(1.0)],
            standard: vec![at(1.0), at(4.0)],
        }
    }

    #[test]
    fn a_slope_is_that_of_logarithms_over_doublings() {
        assert_eq!(slope(&[64, 128, 256], &[3.0, 6.0, 12.0]), Some(1.0));
        assert_eq!(slope(&[64, 256], &[1.0, 0.25]), Some(-1.0));
        // Least squares: 0, 0, 1 over 0, 1, 2.
        assert_eq!(slope(&[1, 2, 4], &[1.0, 1.0, 2.0]), Some(0.5));
        assert_eq!(slope(&[64, 128], &[0.0, 1.0]), None);
    }

    #[test]
    fn the_table_has_the_slopes_of_the_last_step_and_says_which_is_the_steepest() {
        let text = report().text();
        let expected = [
            "place     change, transfer  standard  value, transfer  standard",
            "blocks.0  +0.00             +0.00     +0.00            +0.00",
            "logits    +0.00             +1.00     +0.00            +0.00",
        ];
        assert_eq!(text.lines().take(3).collect::<Vec<_>>(), expected);
        assert!(text.contains("within ±0.1"), "{text}");
        assert!(text.ends_with("without it +1.00 (logits).\n"), "{text}");
        let mut wrong = report();
        wrong.transfer = wrong.standard.clone();
        assert!(wrong.text().contains("beyond ±0.1"));
    }

    #[test]
    fn the_object_has_every_step() {
        let object = report().json();
        let logits = &object["places"][1];
        assert_eq!(logits["standard"][1]["change"]["slope"], 1.0);
        assert_eq!(logits["standard"][1]["change"]["sizes"], json!([2.0, 8.0]));
        assert_eq!(logits["transfer"][0]["value"]["sizes"], json!([4.0, 4.0]));
        assert_eq!(object["widths"], json!([64, 256]));
    }
}
