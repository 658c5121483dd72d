//! Parts of a pass whose operations run again on the way back; see [`recompute`](super::super::recompute).
//!
//! While a part runs, every fused operation enters how it is run and from where its inputs come: what an operation of the same
//! part made is not held. The first one whose gradients are asked for runs all of the part again, in its order, and each then finds its
//! own way back. So Burn's graph stays what it is. A second graph would not do: Burn 0.21 cannot walk one inside the backward pass
//! of another, as every backward pass ends by locking all graphs there are.

use super::custom_op::Back;
use super::numeric::Rows;
use ndarray::Array2;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// From an operation's inputs to its output and its way back.
pub(super) type Pass = Box<dyn FnOnce(Vec<Rows>) -> (Array2<f32>, Back) + Send>;

/// A part of a pass.
pub(super) struct Part(Mutex<Stage>);

enum Stage {
    /// The way there.
    Entered {
        operations: Vec<Operation>,
        /// Which operation made a tensor, by its node.
        makers: BTreeMap<u64, usize>,
    },
    /// The ways back, each until it is gone.
    Again(Vec<Option<Back>>),
}

struct Operation {
    pass: Pass,
    inputs: Vec<Source>,
}

/// Where an input comes from.
enum Source {
    Outside(Rows),
    Made { by: usize, dims: (usize, usize) },
}

thread_local! {
    /// The part that runs on this thread.
    static OPEN: RefCell<Option<Arc<Part>>> = const { RefCell::new(None) };
}

/// Runs a part of a pass.
pub(in super::super) fn run_part<T>(run: impl FnOnce() -> T) -> T {
    struct Reopen(Option<Arc<Part>>);

    impl Drop for Reopen {
        fn drop(&mut self) {
            OPEN.set(self.0.take());
        }
    }

    let _outer = Reopen(OPEN.replace(Some(Arc::new(Part::new()))));
    run()
}

/// The part that runs, if one does.
pub(super) fn open() -> Option<Arc<Part>> {
    OPEN.with_borrow(Option::clone)
}

/// Says that a node holds what another one does.
pub(super) fn renamed(from: u64, to: u64) {
    if let Some(part) = open()
        && let Stage::Entered { makers, .. } = &mut *part.stage()
        && let Some(&maker) = makers.get(&from)
    {
        makers.insert(to, maker);
    }
}

impl Part {
    fn new() -> Self {
        Self(Mutex::new(Stage::Entered {
            operations: Vec::new(),
            makers: BTreeMap::new(),
        }))
    }

    /// Enters an operation whose inputs have these nodes; returns its number, or nothing if the part ran again already.
    pub fn enter(&self, pass: Pass, nodes: &[u64], inputs: &[Rows]) -> Option<usize> {
        let mut stage = self.stage();
        let Stage::Entered { operations, makers } = &mut *stage else {
            return None;
        };
        let source = |(node, rows): (&u64, &Rows)| match makers.get(node) {
            Some(&by) => Source::Made {
                by,
                dims: rows.dim(),
            },
            None => Source::Outside(rows.clone()),
        };
        let inputs = nodes.iter().zip(inputs).map(source).collect();
        operations.push(Operation { pass, inputs });
        #[cfg(test)]
        tests::count_entered();
        Some(operations.len() - 1)
    }

    /// Says which node the output of an operation has.
    pub fn made(&self, number: usize, node: u64) {
        if let Stage::Entered { makers, .. } = &mut *self.stage() {
            makers.insert(node, number);
        }
    }

    /// The way back of an operation.
    pub fn back(&self, number: usize) -> Back {
        let mut stage = self.stage();
        if let Stage::Entered { operations, .. } = &mut *stage {
            *stage = Stage::Again(run_again(std::mem::take(operations)));
        }
        match &mut *stage {
            Stage::Again(backs) => backs[number].take().expect("one way back"),
            Stage::Entered { .. } => unreachable!("it ran again above"),
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run_again(operations: Vec<Operation>) -> Vec<Option<Back>> {
    let mut outputs: Vec<Rows> = Vec::with_capacity(operations.len());
    let mut backs = Vec::with_capacity(operations.len());
    for Operation { pass, inputs } in operations {
        let input = |source| match source {
            Source::Outside(rows) => rows,
            Source::Made { by, dims } => {
                let made = outputs[by].clone().into_shape_with_order(dims);
                made.expect("as many numbers")
            }
        };
        let (output, back) = pass(inputs.into_iter().map(input).collect());
        outputs.push(output.into_shared());
        backs.push(Some(back));
    }
    backs
}

#[cfg(test)]
pub(in super::super) mod tests;
