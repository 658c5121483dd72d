//! `MicroBatches`: how many micro-batches each step of a stage takes.
//!
//! A pure function of the step, so that the place in the data after any number of steps is known without having been there.

/// How many micro-batches each step of a stage takes. Steps count from 0 in the stage, and go on after its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MicroBatches {
    /// From which step on there are how many; the first row begins at 0.
    rows: Vec<(u64, usize)>,
}

impl MicroBatches {
    /// So many in every step.
    pub fn always(number: usize) -> Self {
        Self {
            rows: vec![(0, number)],
        }
    }

    /// So many at first, and others from the step of a row on; rows in the order of their steps.
    pub fn new(first: usize, rows: impl IntoIterator<Item = (u64, usize)>) -> Self {
        let mut all = Self::always(first);
        all.rows.extend(rows);
        all
    }

    /// Those of a step.
    pub fn at(&self, step: u64) -> usize {
        let begun = self.rows.iter().rev().find(|(from, _)| *from <= step);
        begun.expect("the first row begins at 0").1
    }

    /// Those of all steps before a step.
    pub fn before(&self, step: u64) -> u64 {
        let ends = self.rows.iter().skip(1).map(|(from, _)| *from);
        let ends = ends.chain([u64::MAX]).map(|end| end.min(step));
        let of_row = |(&(from, number), end): (&(u64, usize), u64)| {
            end.saturating_sub(from).saturating_mul(number as u64)
        };
        let rows = self.rows.iter().zip(ends).map(of_row);
        rows.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_steps_before_a_step_take_is_the_sum_of_what_each_takes() {
        let ramps = [
            MicroBatches::always(3),
            MicroBatches::new(2, [(4, 3), (7, 10)]),
            MicroBatches::new(5, [(0, 1), (2, 4)]),
            MicroBatches::new(1, [(3, 2), (3, 8), (50, 9)]),
        ];
        for ramp in ramps {
            let mut sum = 0;
            for step in 0..60 {
                assert_eq!(ramp.before(step), sum, "{ramp:?} {step}");
                sum += ramp.at(step) as u64;
            }
        }
    }

    #[test]
    fn a_row_holds_from_its_step_on_and_the_last_one_for_ever() {
        let ramp = MicroBatches::new(2, [(4, 3), (7, 10)]);
        let of = [0, 3, 4, 6, 7, 1 << 50].map(|step| ramp.at(step));
        assert_eq!(of, [2, 2, 3, 3, 10, 10]);
        // 4 · 2, and 3 · 3, and 2 · 10.
        assert_eq!([4, 7, 9].map(|step| ramp.before(step)), [8, 17, 37]);
        assert_eq!(ramp.before(u64::MAX), u64::MAX);
    }
}
