//! Blocks that run again in the backward pass change no bit: logits, walks and gradients of models of any kind, on all tokens or on
//! some, with any memory, over one path and over branches, whatever other threads do; also where gradients are summed over many
//! rows, and some blocks rest.

use super::*;
use crate::block::tests::gradients_of;
use crate::memory::{
    Adapters, Compression, HiddenCodeConfig, KeyValuePrefixConfig, Lifecycle, SharedCodeConfig,
    SharedCodes,
};
use crate::ops::recompute::n_entered;
use crate::ops::tests::beside_other_passes;
use crate::{BaselineConfig, Recompute};
use burn::module::Module;
use std::collections::BTreeSet;

const AGAIN: Option<Recompute> = Some(Recompute::Blocks);

fn memory(seed: u64) -> MemoryConfig {
    let codes = MemoryConfig::HiddenCode(HiddenCodeConfig {
        d_code: 3,
        sink: 1,
        window: 2,
        adapters: Adapters::PerBlock,
        head_rank: 2,
        lifecycle: Lifecycle::Frozen,
    });
    let prefix = |compression| {
        MemoryConfig::KeyValuePrefix(KeyValuePrefixConfig {
            sink: 1,
            window: 1,
            bias: -0.5,
            compression,
            lifecycle: Lifecycle::Frozen,
        })
    };
    let shared = |codes| MemoryConfig::SharedCode(SharedCodeConfig { d_code: 4, codes });
    let all = [
        MemoryConfig::None,
        codes,
        prefix(Compression::None),
        prefix(Compression::Code { d_code: 3 }),
        shared(SharedCodes::Current),
        shared(SharedCodes::CurrentAndLast { bias: -0.5 }),
    ];
    pick(seed, "memory", &all)
}

fn bits(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

#[test]
fn blocks_that_run_again_change_no_bit() {
    let mut n_grouped = 0;
    let mut kinds = BTreeSet::new();
    for seed in 0..150 {
        let mut config = config(seed);
        config.memory = memory(seed);
        if drawn(seed, "branches", 5) == 0 {
            config.route.parallel = Parallel::Beam {
                width: 2,
                children: 2,
                branch_cost: 0.1,
                score_decay: 0.9,
            };
        }
        if !config.check().is_empty() {
            continue;
        }
        let rules = rules(seed, config.n_pool);
        let model = loud::<Learning>(&config, seed);
        let pass = |recompute| {
            let model = model.clone().recomputing(recompute);
            let (logits, trace) = model.forward(tokens(seed), &rules, &rows(seed));
            let gradients = gradients(&model, &logits);
            let steps = trace.walks.steps.into_iter();
            let actions: Vec<_> = steps.map(|step| step.actions).collect();
            (bits(&host(&logits)), bits(&gradients), actions)
        };
        let kept = pass(None);
        let again = beside_other_passes(|| pass(AGAIN));
        assert!(again == kept, "{seed}: {config:?}");
        n_grouped += usize::from(config.route.execution == Execution::Grouped);
        kinds.insert(format!("{:?}", std::mem::discriminant(&config.memory)));
    }
    assert!(n_grouped > 30 && kinds.len() == 4, "{n_grouped}, {kinds:?}");
}

/// Of every block that a walk runs and of those around it: projection, attention, its output, and the feed-forward; on some tokens also
/// what selects them.
#[test]
fn every_visit_runs_again() {
    for (execution, learns) in [
        (Execution::Dense, true),
        (Execution::Grouped, true),
        (Execution::Grouped, false),
    ] {
        let mut config = BrianConfig::small();
        config.route.execution = execution;
        let model = config.init::<Learning>(VOCABULARY, 3, &Default::default());
        let entered = |blocks: Vec<usize>, recompute| {
            let rules = Rules {
                policy: Policy::Teacher(Teacher::Path { blocks }),
                with_gradients: learns,
                ..Rules::sequential()
            };
            let model = model.clone().recomputing(recompute);
            n_entered();
            let _ = model.forward(tokens(1), &rules, &rows(1));
            n_entered()
        };
        assert_eq!(entered(vec![0, 0], None), 0);
        // With the adapter's product, and with another one where some tokens run.
        let [one, two] = [1, 2].map(|visits| entered(vec![0; visits], AGAIN));
        assert_eq!((one, two), (2 * 4 + 5, 2 * 4 + 10), "{execution:?}");
        assert_eq!(entered(vec![2, 1], AGAIN), two, "{execution:?}");
    }
}

/// 640 rows: gradients of maps are summed batch by batch. Some of what runs again wants no gradient.
#[test]
fn many_rows_and_blocks_that_rest_change_no_bit_either() {
    let seq = 160;
    let config = BaselineConfig {
        context: seq,
        ..BaselineConfig::small()
    };
    let token = |at: usize| (at * 7919 % VOCABULARY) as i64;
    let tokens: Vec<i64> = (0..4 * seq).map(token).collect();
    let tokens = || {
        let data = TensorData::new(tokens.clone(), [4, seq]);
        Tensor::<Learning, 2, Int>::from_data(data, &Default::default())
    };
    for resting in [0..0, 1..3, 0..5] {
        let mut model = config.init::<Learning>(VOCABULARY, 3, &Default::default());
        for block in resting.clone() {
            model.blocks[block] = model.blocks[block].clone().no_grad();
        }
        let pass = |recompute| {
            let model = model.clone().recomputing(recompute);
            let logits = model.forward(tokens());
            let found = (logits.clone() * logits.clone()).sum().backward();
            let of = gradients_of("", &model, &found);
            let of: Vec<_> = of
                .values()
                .map(|of| bits(&of.clone().into_raw_vec_and_offset().0))
                .collect();
            (bits(&host(&logits)), of)
        };
        let [kept, again] = [None, AGAIN].map(pass);
        assert!(kept == again, "{resting:?}");
        assert_eq!(kept.1.len(), 2 + 7 * (5 - resting.len()), "{resting:?}");
    }
}
