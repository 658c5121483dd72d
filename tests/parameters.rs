//! Tests of parameter counts of the published baselines and BRIANs, of equal logits of a baseline and its wrapping on the fixed
//! route, and of parameter ids and groups.

use crate::support::{
    REORDERED, TestBackend, as_pretrained, difference, small_baseline, small_brian, small_memories,
    tokens, values,
};
use brian::route::policy::SequenceInfo;
use brian::route::position::{Injection, StartPosition};
use brian::{BrianConfig, Exit, Layout, Rules, compat, parameter};
use std::collections::{BTreeMap, BTreeSet};
use train::learner::{PLAIN_GROUPS, ROUTED_GROUPS, group_of};

#[test]
fn the_published_baselines_have_their_published_sizes() {
    let published = [
        ("tiny", 64, 4, 4, 64, 260, 279_360),
        ("125m", 768, 12, 12, 2048, 32_000, 137_841_408),
        ("350m", 960, 16, 24, 4096, 32_000, 384_661_440),
        ("1b", 1536, 24, 32, 4096, 32_000, 1_257_211_392),
    ];
    for (name, d_model, n_heads, n_layers, context, vocabulary, expected) in published {
        let config = compat::baseline(d_model, n_heads, n_layers, context);
        let model = config.skeleton::<TestBackend>(vocabulary, &Default::default());
        assert_eq!(parameter::count(&model), expected, "{name}");
    }
}

#[test]
fn the_published_routed_models_have_their_published_sizes() {
    let r125 = |n_pool, d_position, max_steps| {
        let mut baseline = compat::baseline(768, 12, 12, 2048);
        baseline.n_layers = n_pool + 4;
        compat::brian(baseline, 2, n_pool, d_position, max_steps)
    };
    let tiny = compat::brian(compat::baseline(64, 4, 4, 64), 1, 2, 16, 3);
    let mut sphere16 = r125(8, 64, 16);
    let mut direct = r125(8, 768, 4);
    direct.position.injection = Injection::Direct;
    let mut fine_grained = r125(16, 64, 32);
    fine_grained.d_ff_pool = compat::d_ff(768, 1.25);
    fine_grained.position.start = StartPosition::Learned;
    let r350 = compat::brian(compat::baseline(960, 16, 24, 4096), 4, 16, 128, 8);
    let r1b = compat::brian(compat::baseline(1536, 24, 32, 4096), 6, 20, 256, 12);
    let check = |name: &str, config: &BrianConfig, vocabulary: usize, expected: u64| {
        let model = config.skeleton::<TestBackend>(vocabulary, &Default::default());
        assert_eq!(parameter::count(&model), expected, "{name}");
    };
    check("tiny", &tiny, 260, 292_019);
    check("r125", &r125(8, 64, 4), 32_000, 139_521_609);
    check("sphere16", &sphere16, 32_000, 139_521_609);
    sphere16.position.start = StartPosition::Learned;
    check("sphere16, learned start", &sphere16, 32_000, 139_521_673);
    check("fine-grained", &fine_grained, 32_000, 139_933_841);
    check("direct", &direct, 32_000, 139_626_249);
    check("r350", &r350, 32_000, 388_736_913);
    check("r1b", &r1b, 32_000, 1_270_621_461);
}

#[test]
fn a_fixed_route_around_a_baseline_has_the_baselines_logits() {
    let device = Default::default();
    let row = (0..40).map(|t| t * 7 % 31).collect();
    let input = tokens::<TestBackend>(&[row]);
    let layouts = [
        Layout::OpenArc,
        Layout::Circle,
        Layout::Random,
        Layout::None,
    ];
    for (layout, pretrained) in layouts
        .map(|layout| [(layout, false), (layout, true)])
        .concat()
    {
        let mut config = small_brian(Exit::Residual, layout);
        if pretrained {
            as_pretrained(&mut config);
        }
        let baseline = config.baseline().init::<TestBackend>(31, 5, &device);
        let expected = values(baseline.forward(input.clone()));
        let wrapped = config.wrap(baseline, 5);
        let (found, _) = wrapped.forward(
            input.clone(),
            &Rules::sequential(),
            &[SequenceInfo::default()],
        );
        let found = values(found);
        let difference = difference(&found, &expected);
        assert!(difference < REORDERED, "{layout:?}: {difference:e}");
    }
}

#[test]
fn ids_are_a_function_of_the_path_also_after_wrapping() {
    let device = Default::default();
    let config = small_brian(Exit::Residual, Layout::OpenArc);
    let fresh = config.init::<TestBackend>(31, 5, &device);
    let wrapped = config.wrap(small_baseline().init::<TestBackend>(31, 6, &device), 5);
    let ids = |model: &brian::Brian<TestBackend>| {
        let weights = [
            &model.embedding.weight,
            &model.pool[1].block.attention.output.weight,
        ];
        weights.map(|weight| weight.id)
    };
    assert_eq!(ids(&fresh), ids(&wrapped));
    assert_eq!(
        ids(&fresh)[1],
        parameter::id("pool.1.block.attention.output.weight")
    );
}

#[test]
fn the_groups_that_can_rest_are_those_the_models_have() {
    let device = Default::default();
    let groups = |shapes: BTreeMap<String, Vec<usize>>| -> BTreeSet<String> {
        shapes
            .keys()
            .map(|path| group_of(path).to_string())
            .collect()
    };
    let mut config = small_brian(Exit::Residual, Layout::OpenArc);
    as_pretrained(&mut config);
    let baseline = config.baseline().skeleton::<TestBackend>(31, &device);
    let found = groups(parameter::shapes(&baseline));
    assert_eq!(found, PLAIN_GROUPS.map(String::from).into());
    config.memory = small_memories()[0];
    let found = groups(parameter::shapes(
        &config.skeleton::<TestBackend>(31, &device),
    ));
    assert_eq!(found, ROUTED_GROUPS.map(String::from).into());
}
