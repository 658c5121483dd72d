//! Tests of parts that run again: what they hold, how often their operations run, and what may happen in between.

use std::cell::Cell;

thread_local! {
    static ENTERED: Cell<usize> = const { Cell::new(0) };
}

/// Notes that an operation of this thread will run again.
pub(super) fn count_entered() {
    ENTERED.set(ENTERED.get() + 1);
}

/// How many were noted since the last time.
pub(crate) fn n_entered() -> usize {
    ENTERED.take()
}

#[cfg(feature = "ndarray")]
mod on_host {
    use super::super::super::custom_op::{Flow, input, rows_of, run, shared};
    use super::super::super::linear::linear;
    use super::super::{Arc, Part, Source, Stage, open, run_part};
    use crate::block::causal::{Rope, Rotary};
    use crate::block::tests::{SIZES, loud, tensor};
    use crate::block::transformer::TransformerBlock;
    use crate::ops::gather::some;
    use crate::ops::reshape::{per_row, reshape};
    use crate::ops::reuse::shared_module;
    use crate::ops::tests::Learning;
    use burn::tensor::Tensor;
    use std::panic;
    use std::sync::atomic::{AtomicUsize, Ordering};

    type Matrix = Tensor<Learning, 2>;

    /// Sequences and tokens of each: no parameter has as many rows as there are tokens.
    const DIMS: [usize; 2] = [3, 11];
    const N: usize = DIMS[0] * DIMS[1];

    /// Runs a part; gives back what it made, and the part.
    fn kept<T>(run: impl FnOnce() -> T) -> (T, Arc<Part>) {
        run_part(|| (run(), open().expect("it runs")))
    }

    /// Where the rows of tokens lie that a part holds; each once.
    fn held(part: &Part) -> Vec<*const f32> {
        let Stage::Entered { operations, .. } = &*part.stage() else {
            panic!("it ran again");
        };
        let inputs = operations.iter().flat_map(|operation| &operation.inputs);
        let mut places: Vec<_> = inputs
            .filter_map(|source| match source {
                Source::Outside(rows) if rows.nrows() == N => Some(rows.as_ptr()),
                _ => None,
            })
            .collect();
        places.sort();
        places.dedup();
        places
    }

    fn n_operations(part: &Part) -> usize {
        match &*part.stage() {
            Stage::Entered { operations, .. } => operations.len(),
            Stage::Again(backs) => backs.len(),
        }
    }

    fn place_of(x: &Matrix) -> *const f32 {
        rows_of::<Learning>(input(x)).expect("the host").as_ptr()
    }

    #[test]
    fn a_block_holds_nothing_of_its_tokens_but_its_input() {
        let rope = Rope {
            base: 100.0,
            scaling: None,
        };
        let rotary = Rotary::new(DIMS[1], SIZES.heads.d_head, rope, &Default::default());
        let causal = rotary.causal(DIMS[1]);
        let fresh = TransformerBlock::<Learning>::new(&SIZES, &Default::default());
        let block = shared_module(loud(fresh, |_| 0.4));
        let x = tensor("x", [DIMS[0], DIMS[1], SIZES.d_model]);
        let (_, part) = kept(|| block.forward(x.clone(), &causal));
        // Projection, attention, its output, and the feed-forward.
        assert_eq!(n_operations(&part), 4);
        assert_eq!(held(&part), [place_of(&per_row(x))]);
    }

    #[test]
    fn what_is_shared_or_reshaped_was_made_all_the_same() {
        let x: Matrix = tensor("x", [N, 5]);
        let map = tensor("map", [5, 5]);
        let times = |x: &Matrix| linear(x, &map).expect("the host");
        let chain = || {
            let y = shared(times(&x));
            let y = per_row(reshape(y, [DIMS[0], DIMS[1], 5]));
            let which: Vec<usize> = (0..N).rev().collect();
            some(times(&y), &which) + times(&y)
        };
        let (_, part) = kept(chain);
        assert_eq!(n_operations(&part), 4);
        assert_eq!(held(&part), [place_of(&x)]);
        let of_x = |y: Matrix| {
            let gradients = (y.clone() * y).sum().backward();
            x.grad(&gradients).expect("one").into_data()
        };
        assert_eq!(of_x(run_part(chain)), of_x(chain()));
    }

    /// One pass on the way there, and one on the way back; where nothing learns, or no part runs, one in all.
    #[test]
    fn an_operation_runs_again_once_and_only_for_a_gradient() {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let double = |x: &Matrix| -> Matrix {
            let doubled = run([input(x)], |[x]| {
                RUNS.fetch_add(1, Ordering::Relaxed);
                let back = |flow: Flow<'_>| {
                    let gradient = flow.gradient.mapv(|gradient| 2.0 * gradient);
                    vec![Some(gradient.into())]
                };
                (x.mapv(|x| 2.0 * x), Box::new(back))
            });
            doubled.expect("the host")
        };
        let runs = || RUNS.swap(0, Ordering::Relaxed);
        let x: Matrix = tensor("x", [2, 3]);
        let (y, part) = kept(|| double(&double(&x)));
        assert_eq!((n_operations(&part), runs()), (2, 2));
        let gradients = y.sum().backward();
        let of_x: Vec<f32> = x
            .grad(&gradients)
            .expect("one")
            .into_data()
            .iter()
            .collect();
        assert_eq!((of_x, runs()), (vec![4.0; 6], 2));
        let (_, part) = kept(|| double(&x.clone().detach().set_require_grad(false)));
        assert_eq!((n_operations(&part), runs()), (0, 1));
        let gradients = double(&x).sum().backward();
        assert!(x.grad(&gradients).is_some() && runs() == 1);
    }

    #[test]
    fn what_is_entered_behind_a_way_back_keeps_its_own() {
        let x: Matrix = tensor("x", [4, 5]);
        let map = tensor("map", [5, 5]);
        let of_x = |y: Matrix| {
            let gradients = y.sum().backward();
            x.grad(&gradients).expect("one").into_data()
        };
        let found = run_part(|| {
            let times = || linear(&x, &map).expect("the host");
            [of_x(times()), of_x(times())]
        });
        assert_eq!(found[0], found[1]);
        assert_eq!(found[0], of_x(x.clone().matmul(map.clone())));
    }

    #[test]
    fn a_part_ends_with_what_it_runs_and_one_inside_another_is_its_own() {
        assert!(open().is_none());
        let panicked = panic::catch_unwind(|| run_part(|| panic!("within")));
        assert!(panicked.is_err() && open().is_none());
        run_part(|| {
            let outer = open().expect("it runs");
            let inner = run_part(open).expect("it runs");
            assert!(!Arc::ptr_eq(&outer, &inner));
            assert!(Arc::ptr_eq(&outer, &open().expect("it goes on")));
        });
        assert!(open().is_none());
    }
}
