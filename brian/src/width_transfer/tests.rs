//! Tests of a width transfer: every factor on a base of round ratios, what every parameter says it sums over, that a base of the own
//! width changes no bit, and the places of a pass.

use super::*;
use crate::block::AttentionBias;
use crate::block::tests::{Host, SINGLE, assert_near, composed, found, loud, numbers};
use crate::block::visits::{VisitScale, VisitsConfig};
use crate::memory::{
    Adapters, AttendedConfig, BothConfig, Compression, HiddenCodeConfig, KeyValuePrefixConfig,
    Lifecycle, MemoryConfig, SharedCodeConfig, SharedCodes,
};
use crate::parameter;
use crate::places::Place;
use crate::route::policy::SequenceInfo;
use crate::route::rules::Rules;
use crate::{Baseline, BaselineConfig, Brian, BrianConfig, Exit};
use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use std::collections::BTreeMap;

const VOCABULARY: usize = 7;

/// Four times as wide as the base, with heads four times as wide: all factors are powers of two, and exact.
const FOURTH: WidthTransfer = WidthTransfer {
    base_d_model: 4,
    base_d_head: 2,
};

/// The model's own width and head.
const OWN: WidthTransfer = WidthTransfer {
    base_d_model: 16,
    base_d_head: 8,
};

fn codes(head_rank: usize) -> HiddenCodeConfig {
    HiddenCodeConfig {
        d_code: 3,
        sink: 1,
        window: 2,
        adapters: Adapters::PerBlock,
        head_rank,
        lifecycle: Lifecycle::Frozen,
    }
}

/// Every kind of memory.
fn memories() -> [MemoryConfig; 4] {
    let prefix = KeyValuePrefixConfig {
        sink: 1,
        window: 2,
        bias: -1.0,
        compression: Compression::Code { d_code: 3 },
        lifecycle: Lifecycle::Frozen,
    };
    let shared = SharedCodeConfig {
        d_code: 3,
        codes: SharedCodes::CurrentAndLast { bias: -1.0 },
    };
    let both = |attended| {
        MemoryConfig::Both(BothConfig {
            codes: codes(2),
            attended,
        })
    };
    [
        MemoryConfig::None,
        MemoryConfig::HiddenCode(codes(0)),
        both(AttendedConfig::KeyValuePrefix(prefix)),
        both(AttendedConfig::SharedCode(shared)),
    ]
}

fn row(width_transfer: Option<WidthTransfer>) -> BaselineConfig {
    BaselineConfig {
        width_transfer,
        n_layers: 2,
        ..BaselineConfig::small()
    }
}

/// A routed model with everything that has parameters.
fn routed(memory: MemoryConfig, width_transfer: Option<WidthTransfer>) -> BrianConfig {
    BrianConfig {
        width_transfer,
        memory,
        attention_bias: Some(AttentionBias::All),
        query_key_norm: Some(true),
        untied_head: Some(true),
        visits: Some(VisitsConfig {
            scale: Some(VisitScale::Inverse),
            gains: Some(true),
        }),
        exit: Exit::Projection,
        ..BrianConfig::small()
    }
}

fn tokens() -> Tensor<Host, 2, Int> {
    let ids = [3, 1, 4, 1, 5, 6, 2, 6, 5, 3];
    Tensor::from_data(TensorData::from([ids.map(i32::from)]), &Default::default())
}

fn values<M: Module<Host>>(model: &M) -> BTreeMap<String, Vec<f32>> {
    let all = parameter::collect(model).into_iter();
    all.map(|(path, data)| (path, data.iter().collect()))
        .collect()
}

#[test]
fn every_factor_is_that_of_the_table() {
    let ratios = Ratios {
        width: 4.0,
        head: 16.0,
    };
    let factors = [FanIn::Fixed, FanIn::Width, FanIn::Scores, FanIn::Head]
        .map(|of| [ratios.initial(of), ratios.rate(of)]);
    assert_eq!(
        factors,
        [[1.0, 1.0], [0.5, 0.25], [0.25, 0.25], [0.25, 0.0625]]
    );
    assert_eq!(
        [ratios.epsilon(), ratios.logits(), ratios.queries()],
        [0.25, 0.25, 0.25]
    );
    assert_eq!(
        FOURTH.ratios(16, 8),
        Ratios {
            width: 4.0,
            head: 4.0
        }
    );
    let own = OWN.ratios(16, 8);
    assert_eq!(own, Ratios::default());
    let of = |fan_in| [own.initial(fan_in), own.rate(fan_in)];
    assert_eq!(of(FanIn::Width), [1.0; 2]);
    assert_eq!([own.epsilon(), own.logits(), own.queries()], [1.0; 3]);
}

/// Ends of paths, the longest one that fits; whatever fits none sums over nothing that grows.
const SUMS: [(&str, FanIn); 14] = [
    ("query_key_value.weight", FanIn::Width),
    ("attention.output.weight", FanIn::Width),
    ("gate.weight", FanIn::Width),
    ("up.weight", FanIn::Width),
    ("down.weight", FanIn::Width),
    ("exit.projection.weight", FanIn::Width),
    ("router.input.weight", FanIn::Width),
    ("router.output.weight", FanIn::Scores),
    ("code.weight", FanIn::Width),
    ("query.weight", FanIn::Scores),
    ("key_write.weight", FanIn::Width),
    ("value_write.weight", FanIn::Width),
    ("key_head_read", FanIn::Head),
    ("maps.key_write.weight", FanIn::Head),
];

fn expected(path: &str) -> FanIn {
    if path.ends_with("maps.value_write.weight") {
        return FanIn::Head;
    }
    // Maps of heads of writers go from the stream; those of readers do not.
    if path.contains("write.") && path.contains(".heads.") {
        return FanIn::Width;
    }
    let fits = SUMS.iter().filter(|(end, _)| path.ends_with(end));
    fits.max_by_key(|(end, _)| end.len())
        .map_or(FanIn::Fixed, |(_, of)| *of)
}

#[test]
fn every_parameter_says_what_it_sums_over() {
    for memory in memories() {
        let model = routed(memory, None).skeleton::<Host>(VOCABULARY, &Default::default());
        let model = parameter::identify(model);
        let description = Description::of(&model);
        for path in parameter::shapes(&model).keys() {
            let found = description.fan_in(parameter::id(path));
            assert_eq!(found, expected(path), "{path}");
        }
    }
}

/// What a parameter starts with that is no constant and has no values of its own is multiplied; all else stays.
#[test]
fn maps_start_smaller_by_what_they_sum_over() {
    let config = BrianConfig::small();
    for memory in memories() {
        let init =
            |base| values(&routed(memory, base).init::<Host>(VOCABULARY, 5, &Default::default()));
        let (plain, transferred) = (init(None), init(Some(FOURTH)));
        let mut smaller = 0;
        for (path, plain) in &plain {
            let own = path.ends_with("key_head_read");
            let factor = match expected(path) {
                FanIn::Width if !own => 0.5,
                FanIn::Scores => 0.25,
                FanIn::Head if !own => 0.5,
                _ => 1.0,
            };
            let mut scaled: Vec<f32> = plain.iter().map(|value| value * factor).collect();
            if path == "router.input.weight" {
                // Rows of the position, behind those of the stream.
                let of_position = &mut scaled[config.d_model * config.d_model..];
                of_position.iter_mut().for_each(|value| *value *= 0.5);
            }
            assert_eq!(scaled, transferred[path], "{path}");
            smaller += usize::from(scaled != *plain);
        }
        assert!(smaller > 10, "{smaller}");
    }
}

#[test]
fn the_rates_of_a_model_are_those_of_what_its_parameters_sum_over() {
    for memory in memories() {
        let config = routed(memory, Some(FOURTH));
        let model = config.init::<Host>(VOCABULARY, 5, &Default::default());
        let scales = model.update_scales();
        assert_eq!(scales.epsilon, 0.25);
        for path in parameter::shapes(&model).keys() {
            let factor = if expected(path) == FanIn::Fixed {
                1.0
            } else {
                0.25
            };
            assert_eq!(scales.rate(parameter::id(path)), factor, "{path}");
        }
    }
    let model = row(Some(FOURTH)).init::<Host>(VOCABULARY, 5, &Default::default());
    let rate = |path| model.update_scales().rate(parameter::id(path));
    assert_eq!([rate("embedding.weight"), rate("norm.gamma")], [1.0; 2]);
    assert_eq!(rate("blocks.1.feed_forward.down.weight"), 0.25);
}

/// With a head and blocks without weights, so that the stream is the embedding: a quarter of the logits, to the bit.
#[test]
fn logits_are_divided_by_the_width_and_queries_by_the_root_of_the_heads() {
    let check = || {
        let model = |base| {
            loud(
                row(base).skeleton::<Host>(VOCABULARY, &Default::default()),
                |_| 0.4,
            )
        };
        let hidden = || {
            Tensor::from_data(
                TensorData::new(numbers("hidden", 48), [1, 3, 16]),
                &Default::default(),
            )
        };
        let (plain, wide) = (model(None), model(Some(FOURTH)));
        assert_eq!(
            found(&wide.head(hidden())),
            found(&plain.head(hidden())) * 0.25
        );
        let project = |model: &Baseline<Host>| {
            let causal = model.rotary.causal(3);
            let block = &model.blocks[0];
            let rows = hidden().reshape([3, 16]);
            let angles = causal.all_angles();
            let packed = block
                .attention
                .project_rows(&rows, &block.attention_norm, &angles);
            (found(&packed), found(&block.project(hidden(), &causal).0))
        };
        let ((plain, queries), (wide, wide_queries)) = (project(&plain), project(&wide));
        assert_eq!(queries * 0.5, wide_queries);
        for (column, (plain, wide)) in plain.columns().into_iter().zip(wide.columns()).enumerate() {
            let factor = if column < 16 { 0.5 } else { 1.0 };
            assert_eq!(plain.mapv(|value| value * factor), wide, "{column}");
        }
    };
    check();
    composed(check);
}

#[test]
fn the_router_is_told_positions_as_many_times_as_the_stream_is_wider() {
    let router = |base| {
        let model = routed(MemoryConfig::None, base);
        let model = model.skeleton::<Host>(VOCABULARY, &Default::default());
        loud(model, |_| 0.4).router
    };
    let (plain, wide) = (router(None), router(Some(FOURTH)));
    let config = BrianConfig::small();
    let rows = |name, width| {
        let data = TensorData::new(numbers(name, 3 * width), [3, width]);
        Tensor::<Host, 2>::from_data(data, &Default::default())
    };
    let hidden = rows("hidden", config.d_model);
    let position = rows("position", config.position.d_position);
    assert_eq!(
        found(&wide.forward(hidden.clone(), position.clone())),
        found(&plain.forward(hidden, position * 4.0))
    );
}

#[test]
fn a_base_of_the_own_width_changes_no_bit() {
    let device = Default::default();
    let [none, own] = [None, Some(OWN)].map(|base| row(base).init::<Host>(VOCABULARY, 5, &device));
    assert_eq!(values(&none), values(&own));
    assert_eq!(
        found(&none.forward(tokens())),
        found(&own.forward(tokens()))
    );
    assert_eq!(own.update_scales(), UpdateScales::default());
    let rows = [SequenceInfo::default()];
    let rules = Rules::sequential();
    for memory in memories() {
        let models =
            [None, Some(OWN)].map(|base| routed(memory, base).init::<Host>(VOCABULARY, 5, &device));
        let [none, own] = models.each_ref().map(values);
        assert_eq!(none, own);
        let [none, own] = models
            .each_ref()
            .map(|model| found(&model.forward(tokens(), &rules, &rows).0));
        assert_eq!(none, own, "{memory:?}");
        assert_eq!(models[1].update_scales(), UpdateScales::default());
    }
}

#[test]
fn the_places_of_a_pass_end_in_its_logits() {
    let names = |places: &[Place<Host>]| {
        places
            .iter()
            .map(|place| place.name.clone())
            .collect::<Vec<_>>()
    };
    let model = loud(
        row(Some(FOURTH)).skeleton::<Host>(VOCABULARY, &Default::default()),
        |_| 0.4,
    );
    let places = model.places(tokens());
    let expected = [
        "blocks.0.attention",
        "blocks.0.feed_forward",
        "blocks.0",
        "blocks.1.attention",
        "blocks.1.feed_forward",
        "blocks.1",
        "hidden",
        "logits",
    ];
    assert_eq!(names(&places), expected);
    let at = |name| {
        found(
            &places
                .iter()
                .find(|place| place.name == name)
                .unwrap()
                .values,
        )
    };
    assert_near(
        "logits",
        &at("logits"),
        &found(&model.forward(tokens())),
        SINGLE,
    );
    let added = at("blocks.1.attention") + at("blocks.1.feed_forward");
    assert_near("stream", &at("blocks.1"), &(at("blocks.0") + added), SINGLE);
    let rows = [SequenceInfo::default()];
    let rules = Rules::sequential();
    for (memory, n_of_pool) in memories().into_iter().zip([9, 9, 9, 0]) {
        let config = routed(memory, Some(FOURTH));
        let model: Brian<Host> = loud(config.skeleton(VOCABULARY, &Default::default()), |_| 0.4);
        let places = model.places(tokens(), &rules, &rows);
        let of_pool = places
            .iter()
            .filter(|place| place.name.starts_with("pool."));
        assert_eq!(of_pool.count(), n_of_pool, "{memory:?}");
        assert_eq!(names(&places)[3 + n_of_pool..][..2], ["router", "walk"]);
        let logits = &places.last().unwrap().values;
        let (passed, _) = model.forward(tokens(), &rules, &rows);
        assert_near("logits", &found(logits), &found(&passed), SINGLE);
    }
}

#[test]
fn what_is_no_base_is_named() {
    let problems = |config: BaselineConfig| {
        config
            .check()
            .into_iter()
            .map(|error| error.field)
            .collect::<Vec<_>>()
    };
    let nothing = WidthTransfer {
        base_d_model: 0,
        base_d_head: 0,
    };
    let fields = ["width_transfer.base_d_model", "width_transfer.base_d_head"];
    assert_eq!(problems(row(Some(nothing))), fields);
    let initial = crate::Initial::TorchDefault;
    let torch = BaselineConfig {
        initial,
        ..row(Some(FOURTH))
    };
    assert_eq!(problems(torch), ["initial"]);
    assert!(problems(row(Some(FOURTH))).is_empty());
}
