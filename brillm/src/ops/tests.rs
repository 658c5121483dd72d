//! Tests of the host's versions against the definitions: losses, values after steps and gradients, parameter by parameter; and
//! that the definition runs where no version applies.

use super::host::tests::{ADAMW, NODES, Text, competition, groups, models};
use super::pass::token_losses;
use crate::candidate::{Candidates, Group};
use crate::model::BriLlm;
use crate::prior::Prior;
use crate::row_adamw::Mode;
use crate::training::RowAdamW;
use burn::backend::Autodiff;
use burn_ndarray::NdArray;
use std::cell::Cell;

type Learning = Autodiff<NdArray>;

thread_local! {
    static FUSED: Cell<usize> = const { Cell::new(0) };
    static DEFINED: Cell<bool> = const { Cell::new(false) };
}

/// Notes that this thread was answered by a fused version.
pub(super) fn count_fused() {
    FUSED.set(FUSED.get() + 1);
}

/// Whether this thread is to be answered by definitions alone.
pub(super) fn asks_for_definitions() -> bool {
    DEFINED.get()
}

/// What an operation gives, and how often a fused version answered; then the same by definitions alone.
fn both<T>(operation: impl Fn() -> T) -> [(T, usize); 2] {
    [false, true].map(|defined| {
        DEFINED.set(defined);
        let before = FUSED.get();
        let found = operation();
        DEFINED.set(false);
        (found, FUSED.get() - before)
    })
}

/// Holds two lists to each other, by the largest number of the second. A gradient may be a sum of larger numbers that cancel: they
/// leave their rounding behind.
fn close(name: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    for (found, expected) in found.iter().zip(expected) {
        let far = (found - expected).abs();
        assert!(
            far <= 2e-6 * largest + 1e-7,
            "{name}: {found} {expected}, up to {largest}"
        );
    }
}

/// Every list of numbers that a step changes, by its name: parameters, and what AdamW remembers of gradients.
fn numbers(model: &BriLlm, optimizer: &RowAdamW) -> Vec<(&'static str, Vec<f64>)> {
    let (parameters, moments) = (&model.parameters, &optimizer.edges);
    let all = |table: &crate::table::Table| table.part(0..table.len()).into_owned();
    let lists = [
        ("edges", all(&parameters.edges)),
        ("mix", parameters.mix.clone()),
        ("node_bias", parameters.node_bias.clone()),
        ("codes", parameters.codes.clone()),
        ("gradient of edges", all(&moments.first)),
        ("gradient of mix", optimizer.mix[0].clone()),
        ("gradient of node_bias", optimizer.node_bias[0].clone()),
        ("gradient of codes", optimizer.codes[0].clone()),
    ];
    let wide = |list: Vec<f32>| list.into_iter().map(f64::from).collect();
    lists.map(|(name, list)| (name, wide(list))).into()
}

/// Every model, with every kind of competition.
fn each(test: impl Fn(&BriLlm, &Text, &[Group])) {
    let text = Text::new(3, 4, 7, NODES);
    let every = [
        Candidates::All,
        Candidates::Frequent { n: 4 },
        Candidates::Sampled { n: 6 },
    ];
    for model in models() {
        for candidates in every {
            let competition = competition(&model, candidates, Prior::Bigram, &[]);
            test(&model, &text, &groups(&model, &text, &competition));
        }
    }
}

#[test]
fn losses_on_the_host_are_those_of_the_definition() {
    each(|model, text, groups| {
        let losses =
            || token_losses::<NdArray>(model, &text.paths(), groups, true, &Default::default());
        let [(fused, n_fused), (defined, n_defined)] = both(losses);
        assert_eq!((n_fused, n_defined), (1, 0));
        assert!(defined.iter().any(|nats| *nats > 0.1));
        close(&format!("{:?}", model.config.flow), &fused, &defined);
    });
}

#[test]
fn steps_on_the_host_have_the_values_and_gradients_of_the_definition() {
    each(|model, text, groups| {
        // What AdamW remembers of a gradient after one step is a tenth of it. With an epsilon this large a value moves with its
        // gradient, and not with the sign of it.
        let adamw = crate::row_adamw::AdamW {
            epsilon: 0.1,
            ..ADAMW
        };
        let step = || {
            let mut model = model.clone();
            let mut optimizer = RowAdamW::new(&model, Mode::Touched, adamw, Some(0.3));
            let device = Default::default();
            let paths = text.paths();
            let learnt =
                optimizer.learn::<Learning>(&mut model, &paths, groups, 0.01, true, &device);
            (numbers(&model, &optimizer), learnt)
        };
        let [((fused, learnt), n_fused), ((defined, expected), n_defined)] = both(step);
        assert_eq!((n_fused, n_defined), (1, 0));
        let flow = format!("{:?}", model.config.flow);
        close(&flow, &learnt.nats, &expected.nats);
        close(&flow, &[learnt.gradient_norm], &[expected.gradient_norm]);
        for ((name, fused), (_, defined)) in fused.iter().zip(&defined) {
            close(&format!("{flow}: {name}"), fused, defined);
        }
    });
}

#[test]
fn a_definition_runs_where_no_version_applies() {
    each(|model, text, groups| {
        let losses = |on_host: bool| {
            token_losses::<NdArray>(model, &text.paths(), groups, on_host, &Default::default())
        };
        let [_, (defined, _)] = both(|| losses(true));
        let before = FUSED.get();
        assert_eq!(losses(false), defined);
        assert_eq!(FUSED.get(), before);
    });
}
