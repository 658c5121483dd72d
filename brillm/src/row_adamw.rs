//! AdamW for single rows of the edge table: update of a row with a gradient, and catching up on steps without one. Holds the
//! settings (`AdamW`, `Mode`, `Clock`) and the moments (`Moments`, `Rows`), not the optimizer of the whole model.
//!
//! Dense AdamW goes on moving a row after its last gradient, because its moments fade slowly. `Exact` makes up for those
//! steps before the row is read again, one by one, so that the bits do not depend on when it does so;
//! `Touched` leaves them out.

use crate::table::{Slice, Storage, Table, round_by_chance};
use serde::Deserialize;

/// Steps without a gradient after which the first moment no longer moves anything.
pub const FADED: u32 = 176;

/// What happens to rows that a step did not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// What dense AdamW does, done when the row is needed next.
    Exact,
    /// Nothing; a row counts its own steps, so that its first one is as long as the learning rate.
    Touched,
    /// What dense AdamW does, at every step.
    Dense,
}

/// The settings of AdamW (Loshchilov and Hutter 2019), without its learning rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the two moments.
    pub betas: [f64; 2],
    /// Keeps the division finite.
    pub epsilon: f64,
    /// Share of a weight that is taken away per unit of learning rate.
    pub weight_decay: f64,
}

impl AdamW {
    /// Factors that correct the two moments for their start at zero, at a time counted from 1.
    pub fn corrections(&self, time: u32) -> [f64; 2] {
        self.betas
            .map(|beta| 1.0 / (1.0 - beta.powf(f64::from(time))))
    }

    /// Factors of the decay of the two moments over some steps without a gradient.
    pub fn fades(&self, steps: u32) -> [f64; 2] {
        self.betas.map(|beta| beta.powf(f64::from(steps)))
    }

    /// One update of any number of values; `corrections` are those of AdamW's time. `fades` are the decay of the moments since
    /// their last update: with no step in between, the betas.
    #[inline(always)]
    pub fn update(
        &self,
        rate: f64,
        corrections: [f64; 2],
        fades: [f64; 2],
        values: &mut [f32],
        moments: [&mut [f32]; 2],
        gradient: &[f32],
    ) {
        let [first, second] = moments;
        let [beta_1, beta_2] = self.betas.map(|beta| beta as f32);
        let [left_1, left_2] = fades.map(|left| left as f32);
        let step = self.step(rate, corrections, [1.0; 2]);
        let places = values.iter_mut().zip(first).zip(second).zip(gradient);
        for (((value, first), second), gradient) in places {
            *first = left_1 * *first + (1.0 - beta_1) * gradient;
            *second = left_2 * *second + (1.0 - beta_2) * gradient * gradient;
            *value = step.apply(*value, *first, second.sqrt());
        }
    }

    /// A step for moments of which `fades` is left.
    pub(crate) fn step(&self, rate: f64, corrections: [f64; 2], fades: [f64; 2]) -> RowStep {
        RowStep {
            keep: (1.0 - rate * self.weight_decay) as f32,
            rate: (rate * corrections[0] * fades[0]) as f32,
            root: (corrections[1] * fades[1]).sqrt() as f32,
            epsilon: self.epsilon as f32,
        }
    }
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowStep {
    /// What weight decay keeps of a value.
    pub keep: f32,
    /// The learning rate, with what corrects the first moment.
    pub rate: f32,
    /// The root of what corrects the second moment.
    pub root: f32,
    /// Keeps the division finite.
    pub epsilon: f32,
}

impl RowStep {
    #[inline(always)]
    fn apply(self, value: f32, first: f32, root_of_second: f32) -> f32 {
        value * self.keep - self.rate * first / (root_of_second * self.root + self.epsilon)
    }
}

/// The steps that the last row has caught up with, kept because the rows of a group mostly share them.
#[derive(Debug, Default)]
pub struct Replay {
    /// After which step, up to which one, and the time of the last gradient.
    times: [u32; 3],
    steps: Vec<RowStep>,
}

impl Replay {
    #[inline(always)]
    fn steps(&mut self, after: u32, last: u32, touched: u32, clock: &Clock<'_>) -> &[RowStep] {
        let times = [after, last, touched];
        if self.times != times {
            self.times = times;
            self.steps.clear();
            self.steps.extend((after + 1..=last).map(|step| {
                let at = step as usize - 1;
                let fades = clock.fades[(step - touched) as usize];
                let rate = f64::from(clock.rates[at]);
                clock.adamw.step(rate, clock.corrections[at], fades)
            }));
        }
        &self.steps
    }
}

/// AdamW's moments of the edge table, row by row, as they were at the row's last gradient: their decay since then follows from
/// the time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Mean of the gradients, of the table's shape.
    pub first: Table,
    /// Mean of their squares.
    pub second: Table,
    /// Per row: the time of its last gradient, or with `Touched` how many it had; 0 for none.
    pub touched: Vec<u32>,
    /// Per row: the step up to which its values are updated.
    pub current: Vec<u32>,
}

impl Moments {
    /// The moments of a table that was never updated.
    pub fn new(storage: Storage, rows: usize, row_len: usize) -> Self {
        Self {
            first: Table::zeros(storage, rows * row_len),
            second: Table::zeros(storage, rows * row_len),
            touched: vec![0; rows],
            current: vec![0; rows],
        }
    }
}

/// How rows are updated at a step.
#[derive(Clone, Copy, Debug)]
pub struct Clock<'a> {
    /// What happens to rows that are not used.
    pub mode: Mode,
    /// The settings.
    pub adamw: AdamW,
    /// The learning rate of every step so far, the coming one included.
    pub rates: &'a [f32],
    /// [`AdamW::corrections`] of every time so far: to compute a power for every row would be expensive.
    pub corrections: &'a [[f64; 2]],
    /// [`AdamW::fades`] of up to [`FADED`] steps.
    pub fades: &'a [[f64; 2]],
    /// The longest gradient of a row; longer ones are scaled to it.
    pub clip: Option<f32>,
    /// Rows before this one are not trained.
    pub frozen: usize,
}

impl Clock<'_> {
    /// The time of the coming step, counted from 1.
    #[inline(always)]
    pub(crate) fn time(&self) -> u32 {
        self.rates.len() as u32
    }

    /// The learning rate of the coming step.
    #[inline(always)]
    pub(crate) fn rate(&self) -> f64 {
        f64::from(self.rates[self.rates.len() - 1])
    }

    /// What a row that was touched so before remembers of the coming step; see [`Moments::touched`].
    #[inline(always)]
    pub(crate) fn touch(&self, touched: u32) -> u32 {
        match self.mode {
            Mode::Touched => touched + 1,
            _ => self.time(),
        }
    }

    /// What decides the step of such a row: the steps since its last gradient, or with `Touched` its own time. A row without a
    /// gradient has nothing that could fade.
    #[inline(always)]
    pub(crate) fn key(&self, touched: u32) -> u32 {
        match (self.mode, touched) {
            (Mode::Touched, _) => touched + 1,
            (_, 0) => 1,
            _ => self.time() - touched,
        }
    }

    /// The corrections and the fades of rows with a key.
    #[inline(always)]
    pub(crate) fn of_key(&self, key: u32) -> ([f64; 2], [f64; 2]) {
        let (since, own_time) = match self.mode {
            Mode::Touched => (1, key),
            _ => (key, self.time()),
        };
        let fades = match self.fades.get(since as usize) {
            Some(fades) => *fades,
            None => self.adamw.fades(since),
        };
        (self.corrections[own_time as usize - 1], fades)
    }
}

/// Some rows of the table, with their moments.
#[derive(Debug)]
pub struct Rows<'a> {
    /// The first row's number.
    pub start: usize,
    /// Values of a row.
    pub row_len: usize,
    /// Values, and the two [`Moments`].
    tables: [Slice<'a>; 3],
    /// See [`Moments`].
    pub touched: &'a mut [u32],
    /// See [`Moments`].
    pub current: &'a mut [u32],
}

impl<'a> Rows<'a> {
    /// All rows of a table.
    pub fn all(values: &'a mut Table, moments: &'a mut Moments, row_len: usize) -> Self {
        let Moments {
            first,
            second,
            touched,
            current,
        } = moments;
        Self {
            start: 0,
            row_len,
            tables: [values.slice(), first.slice(), second.slice()],
            touched,
            current,
        }
    }

    /// The rows before `row`, and the others.
    pub fn split(self, row: usize) -> (Self, Self) {
        let (rows, row_len) = (row - self.start, self.row_len);
        let tables = self.tables.map(|table| table.split(rows * row_len));
        let [values, first, second] = tables;
        let touched = self.touched.split_at_mut(rows);
        let current = self.current.split_at_mut(rows);
        let part = |start, tables, touched, current| Self {
            start,
            row_len,
            tables,
            touched,
            current,
        };
        let before = [values.0, first.0, second.0];
        let others = [values.1, first.1, second.1];
        (
            part(self.start, before, touched.0, current.0),
            part(row, others, touched.1, current.1),
        )
    }

    /// One part per range of rows; ranges rise and do not overlap.
    pub fn parts(self, ranges: impl IntoIterator<Item = std::ops::Range<usize>>) -> Vec<Self> {
        let mut rest = self;
        let mut parts = Vec::new();
        for range in ranges {
            let (part, after) = rest.split(range.start).1.split(range.end);
            parts.push(part);
            rest = after;
        }
        parts
    }

    /// The same rows, of which the first has this number.
    pub fn numbered(self, start: usize) -> Self {
        Self { start, ..self }
    }

    /// The values of a row, widened into `scratch` where they are not f32.
    #[inline(always)]
    pub fn row<'b>(&'b self, row: usize, scratch: &'b mut Vec<f32>) -> &'b [f32] {
        self.tables[0].load(self.places(row), scratch)
    }

    fn places(&self, row: usize) -> std::ops::Range<usize> {
        let index = row - self.start;
        index * self.row_len..(index + 1) * self.row_len
    }

    /// Brings a row to its values after step `time`; the caller keeps `replay` from one row to the next.
    #[inline(always)]
    pub fn catch_up(&mut self, row: usize, time: u32, clock: &Clock<'_>, replay: &mut Replay) {
        let index = row - self.start;
        let rests = clock.mode == Mode::Touched || row < clock.frozen;
        if rests || self.current[index] >= time {
            return;
        }
        let places = self.places(row);
        let touched = self.touched[index];
        let moving = match touched {
            0 => 0,
            touched => touched.saturating_add(FADED).min(time),
        };
        let [Slice::F32(values), Slice::F32(first), Slice::F32(second)] = &mut self.tables else {
            panic!("bf16 cannot hold the small steps of catching up: only `Touched` goes with it");
        };
        let values = &mut values[places.clone()];
        let steps = replay.steps(self.current[index], moving, touched, clock);
        if !steps.is_empty() {
            fade(
                steps,
                values,
                &first[places.clone()],
                &second[places.clone()],
            );
        }
        if clock.adamw.weight_decay != 0.0 {
            for step in self.current[index].max(moving) + 1..=time {
                let rate = f64::from(clock.rates[step as usize - 1]);
                let keep = (1.0 - rate * clock.adamw.weight_decay) as f32;
                values.iter_mut().for_each(|value| *value *= keep);
            }
        }
        self.current[index] = time;
    }

    /// The update of a row at the last step of the clock; the row has caught up with the step before.
    ///
    /// Returns the square of the gradient's length before it was clipped.
    #[inline(always)]
    pub fn update(&mut self, row: usize, gradient: &mut [f32], clock: &Clock<'_>) -> f64 {
        if row < clock.frozen {
            return 0.0;
        }
        let index = row - self.start;
        let places = self.places(row);
        let norm = crate::ops::host::numeric::norm(gradient);
        if let Some(clip) = clock.clip.filter(|&clip| norm > clip) {
            gradient.iter_mut().for_each(|value| *value *= clip / norm);
        }
        let (time, rate) = (clock.time(), clock.rate());
        let (corrections, fades) = clock.of_key(clock.key(self.touched[index]));
        self.touched[index] = clock.touch(self.touched[index]);
        // No closure for the two calls below: what is not inlined would not be vectorised.
        let adamw = clock.adamw;
        match &mut self.tables {
            [Slice::F32(values), Slice::F32(first), Slice::F32(second)] => {
                let moments = [&mut first[places.clone()], &mut second[places.clone()]];
                let values = &mut values[places];
                adamw.update(rate, corrections, fades, values, moments, gradient);
            }
            [Slice::Bf16(values), Slice::Bf16(first), Slice::Bf16(second)] => {
                let mut tables = [values, first, second].map(|table| &mut table[places.clone()]);
                let widened = tables.each_ref().map(|table| {
                    let values = table.iter().map(|value| value.to_f32());
                    values.collect::<Vec<f32>>()
                });
                let [mut values, mut first, mut second] = widened;
                let moments = [&mut first[..], &mut second[..]];
                adamw.update(rate, corrections, fades, &mut values, moments, gradient);
                // A hash of the row and the time, another one for every table.
                let key = (row as u32).wrapping_mul(0x85eb_ca6b) ^ time.wrapping_mul(0xc2b2_ae3d);
                let rounded = tables.iter_mut().zip([values, first, second]);
                for (which, (table, values)) in (1..).zip(rounded) {
                    round_by_chance(&values, table, key.rotate_left(11 * which));
                }
            }
            _ => unreachable!("a table and its moments have one storage"),
        }
        self.current[index] = time;
        f64::from(norm) * f64::from(norm)
    }
}

/// Steps without a gradient, one after the other, value by value in blocks: the square root is taken once for all of them.
#[inline(always)]
fn fade(steps: &[RowStep], values: &mut [f32], first: &[f32], second: &[f32]) {
    const BLOCK: usize = 8;
    let apply = |values: &mut [f32], first: &[f32], second: &[f32]| {
        let places = values.iter_mut().zip(first).zip(second);
        for ((value, first), second) in places {
            let root = second.sqrt();
            *value = steps
                .iter()
                .fold(*value, |value, step| step.apply(value, *first, root));
        }
    };
    let (blocks, rest) = values.as_chunks_mut::<BLOCK>();
    let done = blocks.len() * BLOCK;
    let (firsts, seconds) = (first.as_chunks::<BLOCK>().0, second.as_chunks::<BLOCK>().0);
    for ((values, first), second) in blocks.iter_mut().zip(firsts).zip(seconds) {
        let roots = second.map(f32::sqrt);
        let mut sums = *values;
        for step in steps {
            for lane in 0..BLOCK {
                sums[lane] = step.apply(sums[lane], first[lane], roots[lane]);
            }
        }
        *values = sums;
    }
    apply(rest, &first[done..], &second[done..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAMW: AdamW = AdamW {
        betas: [0.9, 0.99],
        epsilon: 1e-8,
        weight_decay: 0.1,
    };
    const RATE: f32 = 0.01;

    /// Two rows of three ones, and what is remembered of them.
    struct World {
        values: Table,
        moments: Moments,
        corrections: Vec<[f64; 2]>,
        fades: Vec<[f64; 2]>,
    }

    impl World {
        fn new() -> Self {
            Self {
                values: vec![1.0; 6].into(),
                moments: Moments::new(Storage::F32, 2, 3),
                corrections: (1..=400).map(|time| ADAMW.corrections(time)).collect(),
                fades: (0..=FADED).map(|steps| ADAMW.fades(steps)).collect(),
            }
        }

        /// Does something to the rows at a time, every step of which had the same rate.
        fn at<R>(
            &mut self,
            time: usize,
            (mode, clip, frozen): (Mode, Option<f32>, usize),
            work: impl FnOnce(&mut Rows<'_>, &Clock<'_>) -> R,
        ) -> R {
            let clock = Clock {
                mode,
                adamw: ADAMW,
                rates: &vec![RATE; time],
                corrections: &self.corrections,
                fades: &self.fades,
                clip,
                frozen,
            };
            let mut rows = Rows::all(&mut self.values, &mut self.moments, 3);
            work(&mut rows, &clock)
        }

        fn values(&self) -> Vec<f32> {
            self.values.part(0..6).into_owned()
        }
    }

    fn close(found: f32, expected: f64) {
        assert!(
            (f64::from(found) - expected).abs() < 1e-6,
            "{found} {expected}"
        );
    }

    #[test]
    fn corrections_and_what_is_left_are_powers_of_the_betas() {
        let near = |found: [f64; 2], expected: [f64; 2]| {
            let far = |(a, b): (&f64, &f64)| (a / b - 1.0).abs() > 1e-12;
            assert!(
                !found.iter().zip(&expected).any(far),
                "{found:?} {expected:?}"
            );
        };
        near(ADAMW.corrections(1), [10.0, 100.0]);
        near(ADAMW.corrections(2), [1.0 / 0.19, 1.0 / 0.0199]);
        near(ADAMW.fades(0), [1.0, 1.0]);
        near(ADAMW.fades(3), [0.729, 0.970_299]);
    }

    #[test]
    fn the_first_step_of_a_touched_row_is_as_long_as_the_rate_whenever_it_comes() {
        let mut world = World::new();
        let touched = (Mode::Touched, None, 0);
        world.at(40, touched, |rows, clock| {
            rows.update(1, &mut [0.5, -0.2, 0.0], clock)
        });
        // Decay takes rate · 0.1 of 1; then the rate, along the sign.
        let after = world.values();
        assert_eq!(after[..3], [1.0; 3]);
        close(after[3], 0.999 - 0.01);
        close(after[4], 0.999 + 0.01);
        close(after[5], 0.999);
        // Its second step, far later: m = 0.9 · 0.05 − 0.1 · 0.3, by 1 − 0.81; v = 0.99 · 0.0025 + 0.01 · 0.09, by 1 − 0.9801.
        world.at(300, touched, |rows, clock| {
            rows.update(1, &mut [-0.3, 0.0, 0.0], clock)
        });
        let step = 0.015 / 0.19 / (0.003_375f64 / 0.0199).sqrt();
        close(world.values()[3], 0.989 * 0.999 - 0.01 * step);
        assert_eq!(
            (&world.moments.touched[..], &world.moments.current[..]),
            (&[0, 2][..], &[0, 300][..])
        );
        world.at(350, touched, |rows, clock| {
            rows.catch_up(1, 350, clock, &mut Replay::default());
        });
        close(world.values()[3], 0.989 * 0.999 - 0.01 * step);
    }

    #[test]
    fn an_exact_row_is_corrected_by_the_time_of_all_and_fades_while_it_rests() {
        let mut world = World::new();
        let exact = (Mode::Exact, None, 0);
        world.at(3, exact, |rows, clock| {
            rows.catch_up(0, 2, clock, &mut Replay::default());
            rows.update(0, &mut [0.5, 0.5, 0.5], clock);
        });
        // Two steps of decay, and a third with m = 0.05 and v = 0.0025 at time 3.
        let mut value = 0.999f64.powi(3) - 0.01 * (0.05 / 0.271) / (0.0025f64 / 0.029_701).sqrt();
        close(world.values()[0], value);
        assert_eq!((world.moments.touched[0], world.moments.current[0]), (3, 3));
        for time in 4..=120 {
            let m = 0.05 * 0.9f64.powi(time - 3) / (1.0 - 0.9f64.powi(time));
            let v = 0.0025 * 0.99f64.powi(time - 3) / (1.0 - 0.99f64.powi(time));
            value = value * 0.999 - 0.01 * m / v.sqrt();
        }
        // In two parts.
        for time in [5, 120] {
            world.at(time, exact, |rows, clock| {
                rows.catch_up(0, time as u32, clock, &mut Replay::default());
            });
        }
        // 120 roundings of f32.
        assert!((f64::from(world.values()[2]) - value).abs() < 1e-5);
        // A row that never had a gradient only decays.
        world.at(200, exact, |rows, clock| {
            rows.catch_up(1, 200, clock, &mut Replay::default());
        });
        // 200 roundings of f32.
        assert!((f64::from(world.values()[3]) - 0.999f64.powi(200)).abs() < 1e-5);
    }

    #[test]
    fn a_gradient_is_cut_to_the_clip_and_its_own_length_is_told() {
        let plain = |clip| {
            let mut world = World::new();
            let mut gradient = [3.0, -4.0, 0.0];
            let square = world.at(1, (Mode::Touched, clip, 0), |rows, clock| {
                rows.update(0, &mut gradient, clock)
            });
            // Of the length 5; AdamW remembers a tenth.
            assert!((square - 25.0).abs() < 1e-4, "{square}");
            let first = world.moments.first.part(0..3).into_owned();
            first.iter().map(|m| m * 10.0).collect::<Vec<f32>>()
        };
        let near = |found: Vec<f32>, expected: [f64; 3]| {
            found.iter().zip(expected).for_each(|(a, b)| close(*a, b));
        };
        near(plain(None), [3.0, -4.0, 0.0]);
        near(plain(Some(5.5)), [3.0, -4.0, 0.0]);
        near(plain(Some(2.0)), [1.2, -1.6, 0.0]);
    }

    #[test]
    fn a_frozen_row_keeps_everything_and_counts_for_nothing() {
        let mut world = World::new();
        for mode in [Mode::Exact, Mode::Touched, Mode::Dense] {
            let square = world.at(7, (mode, None, 1), |rows, clock| {
                rows.catch_up(0, 6, clock, &mut Replay::default());
                rows.update(0, &mut [1.0, 2.0, 2.0], clock)
            });
            assert_eq!(square, 0.0);
        }
        assert_eq!(world.values(), [1.0; 6]);
        assert!(world.moments == World::new().moments);
        let square = world.at(7, (Mode::Touched, None, 1), |rows, clock| {
            rows.update(1, &mut [1.0, 2.0, 2.0], clock)
        });
        assert!((square - 9.0).abs() < 1e-5);
    }
}
