//! Tests of a BriLLM built from a recipe: seed, micro-batches, a last edge that is left out, and drawn candidates.

use super::*;
use crate::data::HostBatch;
use crate::device::tests::Learning as B;
use crate::ladder::Blueprint;
use crate::model::OwnOptimizer;
use crate::recipe::bundled::BUNDLED;
use crate::recipe::load::from_text;
use crate::run::HostTensor;
use crate::task::{Batch, RoutePlan, StepPlan};
use brillm::counts::PairCounts;

/// `brillm/tiny` over all pairs of six tokens.
fn graph(sets: &[&str]) -> BriLlmTask<B> {
    let tiny = BUNDLED
        .iter()
        .find(|one| (one.kind, one.size) == ("brillm", "tiny"))
        .unwrap();
    let (model, rest) = tiny.text.split_once("[model.edges]").unwrap();
    let (_, flow) = rest.split_once("[model.flow]").unwrap();
    let text = format!("{model}[model.edges]\nkind = \"full\"\n\n[model.flow]{flow}");
    let own = ["model.d_node=2", "model.prior='none'"];
    let sets: Vec<String> = own.iter().chain(sets).map(|set| set.to_string()).collect();
    let recipe = from_text("r.toml", text, &sets).unwrap();
    let blueprint = Blueprint {
        recipe: &recipe,
        vocabulary: 6,
        counts: None,
        ranks: None,
    };
    let device = Default::default();
    // Six nodes of 2; 36 edges and a shared row of 2 by 2 and a bias; one number of the mix.
    assert_eq!(
        blueprint.n_parameters::<B>(&Policy::None, &device),
        12 + 37 * 6 + 1
    );
    let model = blueprint.fresh::<B>(&Policy::None, &device);
    let Ok(signal) = model.downcast::<BriLlmTask<B>>() else {
        panic!("a graph");
    };
    assert_eq!(signal.n_parameters(), 235);
    signal
}

/// Rows of three edges; the last target of the first row does not count.
fn rows(rows: &[[u32; 4]]) -> Batch {
    let valid = (0..3 * rows.len()).map(|place| place != 2 || rows[0][3] != 5);
    let host = HostBatch {
        inputs: rows.iter().flat_map(|row| row[..3].to_vec()).collect(),
        targets: rows.iter().flat_map(|row| row[1..].to_vec()).collect(),
        valid: valid.collect(),
        batch: rows.len(),
        seq: 3,
        sequences: vec![0; rows.len()],
        parts: Vec::new(),
        difficulty: vec![None; rows.len()],
        ids: vec![(0, 0); rows.len()],
        bytes: 4 * rows.len() as u64,
    };
    Batch {
        host,
        source: 0,
        plan: StepPlan::idle(RoutePlan::sequential()),
    }
}

const TWO: [[u32; 4]; 2] = [[0, 1, 2, 5], [3, 4, 4, 0]];

/// All numbers of a model.
fn weights(signal: &BriLlmTask<B>) -> Vec<f32> {
    let core = &mut *signal.write();
    tables::lend(&mut core.model, &mut core.optimizer, None, |weights, _| {
        let each = weights.values().map(HostTensor::floats);
        each.flat_map(|values| values.to_vec()).collect()
    })
}

#[test]
fn a_graph_begins_by_the_seed_of_its_run() {
    let [first, same, other] =
        [1, 1, 2].map(|seed| weights(&graph(&[&format!("run.seed={seed}")])));
    assert_eq!(first, same);
    assert_ne!(first, other);
}

#[test]
fn micro_batches_of_a_graph_are_one_batch() {
    let (whole, parts) = (graph(&[]), graph(&[]));
    for _ in 0..2 {
        let one = whole.learn(&[rows(&TWO)], 0.1);
        let two = parts.learn(&[rows(&TWO[..1]), rows(&TWO[1..])], 0.1);
        let numbers = [&one, &two].map(|learnt| (learnt.measured.targets, learnt.measured.bytes));
        assert_eq!(numbers, [(5, 8); 2]);
        assert_eq!(one.measured.nats, two.measured.nats);
        assert_eq!(one.gradient_norm, two.gradient_norm);
        assert!(one.gradient_norm > 0.0);
    }
    assert_eq!(weights(&whole), weights(&parts));
    assert_ne!(weights(&whole), weights(&graph(&[])));
}

#[test]
fn a_graph_that_leaves_its_last_edge_learns_from_one_target_less_a_row() {
    let left = graph(&["model.last_edge=left"]);
    let learnt = left.learn(&[rows(&TWO)], 0.0);
    assert_eq!(learnt.measured.targets, 4);
    // What is left is what the places but the last of each row lose.
    let (measured, nats) = left.measure(&rows(&TWO));
    let kept: f64 = [0, 1, 3, 4].map(|place| nats[place]).iter().sum();
    assert!((learnt.measured.nats - kept).abs() < 1e-5, "{kept}");
    assert_eq!((measured.targets, nats.len(), nats[2]), (5, 6, 0.0));
    assert!((measured.nats - nats.iter().sum::<f64>()).abs() < 1e-12);
}

#[test]
fn candidates_are_drawn_anew_at_every_step_and_by_the_seed() {
    let pairs = (0..36).map(|pair| [pair / 6, pair % 6]);
    let counts = Arc::new(PairCounts::of(6, pairs));
    let of = |candidates: &str, seed: &str| {
        let tiny = BUNDLED
            .iter()
            .find(|one| (one.kind, one.size) == ("brillm", "tiny"));
        let sets = ["model.d_node=2", "model.prior='none'", candidates, seed];
        let text = tiny.unwrap().text.to_string();
        let recipe = from_text("r.toml", text, &sets.map(str::to_string)).unwrap();
        let blueprint = Blueprint {
            recipe: &recipe,
            vocabulary: 6,
            counts: Some(&counts),
            ranks: None,
        };
        let model = blueprint.fresh::<B>(&Policy::None, &Default::default());
        model.downcast::<BriLlmTask<B>>().ok().unwrap()
    };
    let nats = |seed: &str| {
        let signal = of("model.candidates={kind='sampled',n=2}", seed);
        [(); 8].map(|()| signal.learn(&[rows(&TWO)], 0.0).measured.nats)
    };
    let of_one = nats("run.seed=1");
    assert_eq!(of_one, nats("run.seed=1"));
    // Nothing was learnt, so only the draws can make a difference; a few may be alike.
    let mut different = of_one.to_vec();
    different.sort_by(f64::total_cmp);
    different.dedup();
    assert!(different.len() >= 5, "{of_one:?}");
    let all = of("model.candidates='all'", "run.seed=1");
    let everybody = all.learn(&[rows(&TWO)], 0.0).measured.nats;
    assert_eq!(everybody, all.learn(&[rows(&TWO)], 0.0).measured.nats);
}
