//! `Slots`, what the tokens of a pass have written into a memory that blocks attend to, as rows, for grouped execution; `Seen`, which
//! of it blocks see, there and in decoding.

use super::window::Window;
use crate::ops::cat::cat;
use crate::ops::gather::replace;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Which slots of a token blocks see; every step is a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Those in a window of steps.
    Window(Window),
    /// The last one that the token wrote.
    Last,
}

impl Seen {
    /// The slots from before a step that blocks see there of any token, oldest first.
    pub fn slots(self, step: usize) -> Vec<usize> {
        match self {
            Self::Window(window) => window.kept(step).collect(),
            Self::Last => (0..step).collect(),
        }
    }

    /// Those of these slots that blocks see of one token, which `wrote` some of them.
    pub fn of_token<'s>(
        self,
        slots: &'s [usize],
        wrote: impl Fn(usize) -> bool + 's,
    ) -> impl Iterator<Item = usize> + 's {
        let newest_first = slots.iter().rev().copied().filter(move |&slot| wrote(slot));
        let mut seen: Vec<usize> = match self {
            Self::Window(_) => newest_first.collect(),
            Self::Last => newest_first.take(1).collect(),
        };
        seen.reverse();
        seen.into_iter()
    }
}

/// What tokens have written.
pub(crate) struct Slots<B: Backend> {
    n_tokens: usize,
    /// Step by step, nothing for one at which nobody wrote; where the last one of each token is seen, that alone.
    steps: Vec<Option<Slot<B>>>,
}

struct Slot<B: Backend> {
    /// `[n_tokens, width]`, zeros where a token wrote nothing.
    rows: Tensor<B, 2>,
    wrote: Vec<bool>,
}

/// What blocks see of it at a step.
pub(crate) struct Kept<B: Backend> {
    /// How many slots are newer than each of these, oldest first.
    pub ages: Vec<usize>,
    /// `[slots * n_tokens, width]`
    pub rows: Tensor<B, 2>,
    /// The rows of each token.
    pub of_token: Vec<Vec<usize>>,
}

impl<B: Backend> Slots<B> {
    pub fn new(n_tokens: usize) -> Self {
        Self {
            n_tokens,
            steps: Vec::new(),
        }
    }

    /// Adds the slot of a step: rows of tokens, in parts. A token with several gets their sum.
    ///
    /// # Shapes
    /// `rows`: `[tokens, width]` in all
    pub fn write(&mut self, seen: Seen, tokens: &[usize], rows: Vec<Tensor<B, 2>>) {
        let before = match seen {
            Seen::Window(_) => None,
            Seen::Last => self.steps.pop().flatten(),
        };
        let Some(first) = rows.first() else {
            self.steps.push(before);
            return;
        };
        let ([_, width], device) = (first.dims(), first.device());
        let Slot {
            rows: others,
            mut wrote,
        } = before.unwrap_or_else(|| Slot {
            rows: Tensor::zeros([self.n_tokens, width], &device),
            wrote: vec![false; self.n_tokens],
        });
        tokens.iter().for_each(|&token| wrote[token] = true);
        let rows = replace(others, tokens, rows);
        self.steps.push(Some(Slot { rows, wrote }));
    }

    /// What blocks see at the next step; `None` if there is nothing.
    pub fn kept(&self, seen: Seen) -> Option<Kept<B>> {
        let n_written = self.steps.len();
        let mut slots = seen.slots(n_written);
        slots.retain(|&slot| self.steps[slot].is_some());
        if slots.is_empty() {
            return None;
        }
        let of_slots = slots.iter().filter_map(|&slot| self.steps[slot].as_ref());
        let of_slots: Vec<&Slot<B>> = of_slots.collect();
        let places: Vec<usize> = (0..slots.len()).collect();
        let of_token = |token: usize| {
            let seen = seen.of_token(&places, |place| of_slots[place].wrote[token]);
            seen.map(|place| place * self.n_tokens + token).collect()
        };
        let rows = of_slots.iter().map(|slot| slot.rows.clone());
        Some(Kept {
            rows: cat(rows.collect(), 0),
            of_token: (0..self.n_tokens).map(of_token).collect(),
            ages: match seen {
                Seen::Window(_) => slots.iter().map(|slot| n_written - 1 - slot).collect(),
                Seen::Last => vec![0],
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_see_of_a_token_what_it_wrote_in_the_window_or_what_it_wrote_last() {
        let wrote = |slot: usize| [0, 2, 3].contains(&slot);
        let window = Seen::Window(Window { sink: 1, window: 2 });
        for (seen, step, expected) in [
            (window, 0, vec![]),
            (window, 2, vec![0]),
            (window, 4, vec![0, 2, 3]),
            (window, 6, vec![0]),
            (Seen::Last, 0, vec![]),
            (Seen::Last, 2, vec![0]),
            (Seen::Last, 6, vec![3]),
        ] {
            let slots = seen.slots(step);
            let found: Vec<usize> = seen.of_token(&slots, wrote).collect();
            assert_eq!(found, expected, "{seen:?} at step {step}");
        }
        let nothing = Seen::Last.of_token(&[0, 1], |_| false).count();
        assert_eq!(nothing, 0);
    }
}
