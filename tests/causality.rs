//! What comes later changes nothing: bitwise for a changed suffix, to rounding for a shorter sequence.

use crate::support::{
    REORDERED, TestAutodiff, TestBackend, difference, small_baseline, small_brian, tokens, values,
};
use brian::random;
use brian::route::policy::Policy;
use brian::{Exit, Layout};
use burn::tensor::{Int, Tensor};
use train::task::Decoder;

const VOCABULARY: usize = 31;
const SEQ: usize = 29;

/// Every model there is.
fn models() -> Vec<(String, Decoder<TestBackend>)> {
    let device = Default::default();
    let baseline = Decoder::Baseline(small_baseline().init(VOCABULARY, 3, &device));
    let mut models = vec![("baseline".to_string(), baseline)];
    for exit in [Exit::Residual, Exit::Projection] {
        for layout in [
            Layout::OpenArc,
            Layout::Circle,
            Layout::Random,
            Layout::None,
        ] {
            let brian = small_brian(exit, layout).init(VOCABULARY, 3, &device);
            models.push((
                format!("brian {exit:?} {layout:?}"),
                Decoder::Brian(loud(brian)),
            ));
        }
    }
    models
}

/// The same model with weights where it starts with zeros, so that nothing is causal only because it is silent.
fn loud(model: brian::Brian<TestBackend>) -> brian::Brian<TestBackend> {
    let shapes = brian::parameter::shapes(&model);
    let mut values = brian::parameter::collect(&model);
    assert_eq!(shapes.len(), values.len());
    brian::parameter::assign(model, |path, shape| {
        let value: Vec<f32> = values.remove(path).unwrap().iter().collect();
        let silent = path.ends_with("adapter.weight") || path == "exit.projection.weight";
        match silent {
            true => {
                let key = random::key(7, path, 0);
                (0..shape.iter().product::<usize>() as u64)
                    .map(|position| 0.3 * random::normal(key, position) as f32)
                    .collect()
            }
            false => value,
        }
    })
}

fn sequence(seed: u64, length: usize) -> Vec<i64> {
    let key = random::key(seed, "tokens", 0);
    (0..length as u64)
        .map(|t| (random::bits(key, t) % VOCABULARY as u64) as i64)
        .collect()
}

fn logits(model: &Decoder<TestBackend>, rows: &[Vec<i64>]) -> Vec<f32> {
    values(model.forward(tokens(rows), Policy::Sequential))
}

#[test]
fn a_changed_suffix_leaves_every_earlier_logit_the_same_to_the_bit() {
    for (name, model) in models() {
        let original = sequence(1, SEQ);
        let expected = logits(&model, std::slice::from_ref(&original));
        for kept in 1..SEQ {
            let mut changed = original.clone();
            changed[kept..].copy_from_slice(&sequence(2, SEQ)[kept..]);
            changed[kept] = (original[kept] + 1) % VOCABULARY as i64;
            let found = logits(&model, &[changed]);
            let bits = |values: &[f32]| -> Vec<u32> {
                values[..kept * VOCABULARY]
                    .iter()
                    .map(|value| value.to_bits())
                    .collect()
            };
            assert_eq!(bits(&found), bits(&expected), "{name}, {kept} tokens kept");
            let after = kept * VOCABULARY;
            assert_ne!(
                found[after..],
                expected[after..],
                "{name}: the change has no effect at all"
            );
        }
    }
}

#[test]
fn a_prefix_has_the_logits_of_the_whole_sequence() {
    for (name, model) in models() {
        let whole = sequence(1, SEQ);
        let expected = logits(&model, std::slice::from_ref(&whole));
        for length in 1..SEQ {
            let found = logits(&model, &[whole[..length].to_vec()]);
            let difference = difference(&found, &expected[..length * VOCABULARY]);
            assert!(
                difference < REORDERED,
                "{name}, {length} tokens: {difference:e}"
            );
        }
    }
}

#[test]
fn a_sequence_does_not_see_the_other_rows_of_its_batch() {
    for (name, model) in models() {
        let rows: Vec<_> = (0..3).map(|seed| sequence(seed, SEQ)).collect();
        let together = logits(&model, &rows);
        for (row, alone) in rows.iter().enumerate() {
            let alone = logits(&model, std::slice::from_ref(alone));
            let size = SEQ * VOCABULARY;
            let difference = difference(&alone, &together[row * size..][..size]);
            assert!(difference < REORDERED, "{name}, row {row}: {difference:e}");
        }
    }
}

#[test]
fn no_gradient_flows_from_a_logit_to_a_later_token() {
    let device = Default::default();
    let model = small_baseline().init::<TestAutodiff>(VOCABULARY, 3, &device);
    // Every token occurs once, so a row of the embedding's gradient is the gradient of one position. The tied head
    // also adds to it: only for the tokens whose logits are taken.
    let row: Vec<i64> = (0..SEQ as i64).collect();
    let input: Tensor<TestAutodiff, 2, Int> = tokens(&[row]);
    let position = 11;
    let logit = model
        .forward(input)
        .slice([0..1, position..position + 1, 0..1])
        .sum();
    let gradients = logit.backward();
    let gradient = values(model.embedding.weight.grad(&gradients).unwrap());
    let d_model = small_baseline().d_model;
    for token in 0..SEQ {
        let silent = gradient[token * d_model..][..d_model]
            .iter()
            .all(|&entry| entry == 0.0);
        assert_eq!(silent, token > position, "token {token}");
    }
}
