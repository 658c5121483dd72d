//! `Action`, what a token does at a step: it runs a block of the pool or takes OUT; with the conversion to and from an index.
//!
//! Tensors, and rows of numbers beside them, hold an action as its index: the blocks in their order, and behind them
//! OUT = `n_pool`.

/// What a token does at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It runs this block of the pool.
    Block(usize),
    /// It leaves the walk, or passes the step where OUT does not end a walk.
    Out,
}

impl Action {
    /// The action of an index.
    ///
    /// # Panics
    /// If there is none in a pool of `n_pool` blocks.
    pub fn from_index(index: usize, n_pool: usize) -> Self {
        assert!(index <= n_pool, "action {index} of a pool of {n_pool}");
        match index == n_pool {
            true => Self::Out,
            false => Self::Block(index),
        }
    }

    /// Its index.
    pub fn index(self, n_pool: usize) -> usize {
        self.block().unwrap_or(n_pool)
    }

    /// The block that it runs, if it runs one.
    pub fn block(self) -> Option<usize> {
        match self {
            Self::Block(block) => Some(block),
            Self::Out => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_that_of_a_block_or_the_one_behind_the_last() {
        let actions = [0, 1, 2].map(|index| Action::from_index(index, 2));
        assert_eq!(actions, [Action::Block(0), Action::Block(1), Action::Out]);
        assert_eq!(actions.map(|action| action.index(2)), [0, 1, 2]);
        assert_eq!(actions.map(Action::block), [Some(0), Some(1), None]);
        assert!(actions.is_sorted(), "OUT comes last");
    }

    #[test]
    #[should_panic(expected = "action 3 of a pool of 2")]
    fn what_lies_behind_out_is_a_mistake() {
        let _ = Action::from_index(3, 2);
    }
}
