//! Tests of decoding with a cache: token by token it gives the logits of a whole pass, for the baseline and BRIAN under every
//! policy, exit, memory and beam; also past the context and with several slots.

use crate::causality::{beam, bounded, exits, loud, memories_of_codes, policies, router, walk};
use crate::support::{
    EXACT, REORDERED, TestBackend, as_pretrained, difference, in_float64, relative, small_baseline,
    small_brian, small_memories, tokens, values,
};
use brian::generate::{Next, Sampling, generate};
use brian::random;
use brian::route::constraint::Constraint;
use brian::route::policy::{Select, SequenceInfo, Teacher};
use brian::route::position::{Injection, Reach};
use brian::route::rules::{Attends, ChoiceGradient, ExitObjective, Sees};
use brian::{Baseline, BrianConfig, Exit, Initial, Layout, Rules};
use burn::tensor::Tensor;
use train::model::{Model, Recomputed, Slots};

const VOCABULARY: usize = 31;
const CONTEXT: usize = 200;
fn baseline(context: usize) -> Model<TestBackend> {
    let mut config = small_baseline();
    config.context = context;
    Model::new(config.init(VOCABULARY, 3, &Default::default()))
}

fn pool_of_three() -> BrianConfig {
    let mut config = small_brian(Exit::Residual, Layout::OpenArc);
    config.n_pool = 3;
    config.context = CONTEXT;
    config
}

fn routed(config: &BrianConfig) -> Model<TestBackend> {
    Model::new(loud(config.init(VOCABULARY, 3, &Default::default())))
}

fn text(seed: u64, length: usize) -> Vec<u32> {
    let key = random::key(seed, "text", 0);
    let token = |place| (random::bits(key, place) % VOCABULARY as u64) as u32;
    (0..length as u64).map(token).collect()
}

/// Logits after every token of a text, by one pass.
fn whole(model: &Model<TestBackend>, rules: &Rules, text: &[u32]) -> Vec<f32> {
    let text = text.iter().map(|&token| i64::from(token)).collect();
    values(
        model
            .forward(tokens(&[text]), rules, &[SequenceInfo::default()])
            .0,
    )
}

/// Logits behind tokens that are added to a slot.
fn read(slots: &mut dyn Slots, slot: usize, tokens: &[u32]) -> Vec<f32> {
    slots.read(slot, tokens, 1).remove(0).logits
}

/// Reads some of a text at once and the rest token by token: what was found after each of those, and what a whole pass finds.
fn decode(model: &Model<TestBackend>, rules: &Rules, seed: u64) -> [Vec<f32>; 2] {
    let rules = rules.evaluation();
    let text = text(seed, CONTEXT);
    let key = random::key(seed, "prefill", 0);
    let prefill = 1 + (random::bits(key, 0) % (CONTEXT as u64 / 2)) as usize;
    let mut decoding = model.decoding(&rules);
    let mut found = Vec::new();
    for end in prefill..=text.len() {
        found.extend(values(decoding.follow(&text[..end])));
    }
    let expected = whole(model, &rules, &text);
    [found, expected[(prefill - 1) * VOCABULARY..].to_vec()]
}

fn assert_decodes(name: &str, model: &Model<TestBackend>, rules: &Rules, seed: u64) {
    let [found, expected] = decode(model, rules, seed);
    let difference = relative(&found, &expected);
    assert!(difference < EXACT, "{name}: {difference:e}");
}

/// With weights as training starts with, and in the precision that it has.
#[test]
fn float32_decodes_to_the_logits_of_a_whole_pass_too() {
    let assert_near = |name: &str, model: &Model<TestBackend>, rules: &Rules| {
        for seed in 0..3 {
            let [found, expected] = decode(model, rules, seed);
            let difference = difference(&found, &expected);
            assert!(
                difference < REORDERED,
                "{name}, text {seed}: {difference:e}"
            );
        }
    };
    let initial = Initial::Scaled { std: 0.02 };
    let device = Default::default();
    let mut config = small_baseline();
    (config.context, config.initial) = (CONTEXT, initial);
    let model = Model::new(config.init(VOCABULARY, 3, &device));
    assert_near("baseline", &model, &Rules::sequential());
    let mut config = pool_of_three();
    config.initial = initial;
    let model = Model::new(config.init(VOCABULARY, 3, &device));
    for exit_objective in exits() {
        let rules = walk(router(Select::Argmax), exit_objective);
        assert_near(&format!("{exit_objective:?}"), &model, &rules);
    }
}

#[test]
fn a_baseline_decodes_to_the_logits_of_a_whole_pass() {
    in_float64(|| {
        for seed in 0..3 {
            let model = baseline(CONTEXT);
            assert_decodes("baseline", &model, &Rules::sequential(), seed);
            let mut config = pool_of_three();
            as_pretrained(&mut config);
            let rules = walk(router(Select::Argmax), ExitObjective::StraightThrough);
            assert_decodes("as pretrained, routed", &routed(&config), &rules, seed);
            let model = config.baseline().init(VOCABULARY, 3, &Default::default());
            let model: Model<TestBackend> = Model::new(model);
            assert_decodes("as pretrained", &model, &Rules::sequential(), seed);
        }
    });
}

#[test]
fn a_routed_model_decodes_to_the_logits_of_a_whole_pass() {
    in_float64(|| {
        let mut seed = 0;
        for (policy_name, policy) in policies() {
            for exit_objective in exits() {
                for top_k in [1, 2] {
                    seed += 1;
                    let mut config = pool_of_three();
                    config.route.top_k = top_k;
                    let rules = walk(policy.clone(), exit_objective);
                    let name = format!("{policy_name} {exit_objective:?} top {top_k}");
                    assert_decodes(&name, &routed(&config), &rules, seed);
                }
            }
        }
    });
}

#[test]
fn what_bounds_a_walk_or_tells_it_where_it_is_decodes_too() {
    in_float64(|| {
        let rules = walk(router(Select::Argmax), ExitObjective::StraightThrough);
        let config = pool_of_three();
        for constraint in [bounded(), Constraint::NONE] {
            for choice_gradient in [ChoiceGradient::Gated, ChoiceGradient::StraightThrough] {
                let rules = Rules {
                    constraint,
                    choice_gradient,
                    ..rules.clone()
                };
                let name = format!("{choice_gradient:?} {constraint:?}");
                assert_decodes(&name, &routed(&config), &rules, 1);
            }
        }
        for into in [Reach::Router, Reach::Blocks, Reach::Neither] {
            let mut config = config;
            config.position.into = into;
            assert_decodes(&format!("{into:?}"), &routed(&config), &rules, 2);
        }
        let mut direct = config;
        direct.position.injection = Injection::Direct;
        direct.position.d_position = direct.d_model;
        assert_decodes("direct", &routed(&direct), &rules, 3);
        let path = brian::route::policy::Policy::Teacher(Teacher::Path {
            blocks: vec![2, 2, 0, 1, 2, 0],
        });
        let rules = walk(path, ExitObjective::Legacy { hard: true });
        assert_decodes("path", &routed(&config), &rules, 4);
    });
}

#[test]
fn what_blocks_attend_to_beside_all_tokens_decodes_too() {
    in_float64(|| {
        let mut configs: Vec<BrianConfig> = Vec::new();
        // Codes of hidden states are read anew for every token, which is a whole pass.
        let kept = small_memories().into_iter();
        let kept = kept.filter(|memory| memory.attended().is_some() && memory.codes().is_none());
        for memory in kept {
            configs.push(BrianConfig {
                memory,
                ..pool_of_three()
            });
        }
        let mut selected = pool_of_three();
        selected.route.attends = Attends::Selected;
        configs.push(selected);
        for (seed, config) in (0..).zip(configs) {
            for exit_objective in exits() {
                for top_k in [1, 2] {
                    let mut config = config;
                    config.route.top_k = top_k;
                    let rules = walk(router(Select::Argmax), exit_objective);
                    let (memory, attends) = (config.memory, config.route.attends);
                    let name = format!("{memory:?} {attends:?} {exit_objective:?} top {top_k}");
                    assert_decodes(&name, &routed(&config), &rules, seed);
                }
            }
        }
    });
}

/// What a stage leaves out, decoding need not keep; what it walks with is computed anew.
#[test]
fn a_model_with_a_memory_and_several_paths_decodes_with_and_without_them() {
    in_float64(|| {
        let mut config = beam(2);
        config.context = CONTEXT;
        config.memory = memories_of_codes()[1];
        for without in [true, false] {
            let rules = Rules {
                without_memory: without,
                without_beam: without,
                ..walk(router(Select::Argmax), ExitObjective::Legacy { hard: true })
            };
            assert_decodes(&format!("without {without}"), &routed(&config), &rules, 6);
        }
    });
}

/// Forty tokens behind a prompt.
fn continued(
    logits: impl FnMut(&[u32]) -> Tensor<TestBackend, 1>,
    prompt: &[u32],
    context: usize,
    sampling: Sampling,
) -> Vec<u32> {
    let mut tokens = Vec::new();
    let each = |token| {
        tokens.push(token);
        Next::GoOn
    };
    generate(logits, prompt, 40, context, sampling, &[], each).unwrap();
    tokens
}

/// Also where the window slides, and where the router sees the mean of the sequence and nothing can be kept.
#[test]
fn a_continuation_is_the_same_with_and_without_what_is_kept() {
    let context = 24;
    let mut config = pool_of_three();
    config.context = context;
    let mut mean = config;
    mean.route.sees = Sees::SequenceMean;
    let rules = walk(router(Select::Argmax), ExitObjective::StraightThrough).evaluation();
    for model in [baseline(context), routed(&config), routed(&mean)] {
        for (length, temperature) in [(3, 0.0), (20, 1.0), (40, 1.0)] {
            let sampling = Sampling {
                temperature,
                top_p: 0.9,
                ..Sampling::plain(5)
            };
            let prompt = text(length, length as usize);
            let mut decoding = model.decoding(&rules);
            let kept = |seen: &[u32]| decoding.follow(seen);
            let anew = |seen: &[u32]| {
                let logits = whole(&model, &rules, seen);
                let last = &logits[logits.len() - VOCABULARY..];
                Tensor::<TestBackend, 1>::from_floats(last, &Default::default())
            };
            assert_eq!(
                continued(kept, &prompt, context, sampling),
                continued(anew, &prompt, context, sampling),
                "a prompt of {length}"
            );
        }
    }
}

#[test]
fn beyond_the_context_the_first_token_is_no_longer_seen() {
    let model = baseline(8);
    let text = text(1, 12);
    let rules = Rules::sequential();
    let mut decoding = model.decoding(&rules);
    decoding.follow(&text[..6]);
    for end in 7..=text.len() {
        let seen = &text[end.saturating_sub(8)..end];
        let found = values(decoding.follow(seen));
        let expected = whole(&model, &Rules::sequential(), seen);
        let last = &expected[expected.len() - VOCABULARY..];
        assert!(difference(&found, last) < REORDERED, "{end} tokens");
    }
}

/// Whether caches apply or not, and for a model that nobody has given any.
#[test]
fn slots_read_side_by_side_are_cut_back_and_freed_as_if_each_were_alone() {
    let config = pool_of_three();
    let mut mean = config;
    mean.route.sees = Sees::SequenceMean;
    let rules = walk(router(Select::Argmax), ExitObjective::StraightThrough).evaluation();
    let attending = small_memories().into_iter().map(|memory| {
        let config = BrianConfig { memory, ..config };
        routed(&config)
    });
    let attending: Vec<Model<TestBackend>> = attending.collect();
    let (routed, mean) = (routed(&config), routed(&mean));
    let plain = baseline(CONTEXT);
    let own = plain.get::<Baseline<TestBackend>>().unwrap();
    let mut models: Vec<(&Model<TestBackend>, Box<dyn Slots>)> = vec![
        (&plain, plain.slots(&rules)),
        (&plain, Box::new(Recomputed::new(own, &rules))),
        (&routed, routed.slots(&rules)),
        (&mean, mean.slots(&rules)),
    ];
    models.extend(attending.iter().map(|model| (model, model.slots(&rules))));
    for (model, mut slots) in models {
        let slots = &mut *slots;
        let assert_near = |found: &[f32], text: &[u32]| {
            let expected = whole(model, &rules, text);
            let last = &expected[expected.len() - found.len()..];
            assert!(relative(found, last) < EXACT, "behind {text:?}");
        };
        let texts = [text(1, 6), text(2, 9)];
        let (one, two) = (slots.open(), slots.open());
        assert_near(&read(slots, one, &texts[0]), &texts[0]);
        let said = slots.read(two, &texts[1], 3);
        let all: Vec<f32> = said.into_iter().flat_map(|said| said.logits).collect();
        assert_near(&all, &texts[1]);
        // Another end for the first text; the second goes on undisturbed.
        slots.truncate(one, 4);
        let found = read(slots, one, &[3, 5]);
        let changed = [&texts[0][..4], &[3, 5]].concat();
        assert_eq!(slots.tokens(one), changed);
        assert_near(&found, &changed);
        // Both at once, until one is freed in the middle of its token.
        slots.begin(one, 8);
        slots.begin(two, 7);
        let longer = [&texts[1][..], &[7]].concat();
        slots.close(one);
        let mut through = Vec::new();
        while through.is_empty() {
            through = slots.round();
        }
        assert_eq!((through.len(), through[0].0), (1, two));
        assert_near(&through[0].1.logits, &longer);
        // A freed slot begins anew.
        assert_eq!(slots.open(), one);
        assert_eq!(slots.tokens(one), [0; 0]);
        assert_near(&read(slots, one, &texts[1]), &texts[1]);
    }
}
