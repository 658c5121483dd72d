//! Tests of codes that blocks share against their equations, written out token by token in double precision, with gradients against
//! central differences.

use super::pass::{Memory, MemoryPass};
use super::record::{Measures, MemoryRead};
use super::shared_code::SharedCode;
use super::step::{MemoryStart, Written};
use super::{MemoryConfig, SharedCodeConfig, SharedCodes};
use crate::block::routed::RoutedBlock;
use crate::block::tests::{
    BATCH, Host, Passes, SEQ, SINGLE, SIZES, Values, alike, assert_gradients, assert_near,
    attended, cut, each_sequence, ended, found, gradients_of, loud, normed, rotary, rows_of,
    tensor, values_of, weighed, weighed_rows,
};
use crate::initial::{Initial, draw};
use crate::width_transfer::Ratios;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};
use ndarray::{Array2, Axis, concatenate};

const N_TOKENS: usize = BATCH * SEQ;
const N_POOL: usize = 2;
const OUT: usize = N_POOL;
const D_CODE: usize = 3;

/// Tokens that run one of two blocks, rest and go on, and one that never runs any.
const ACTIONS: [[usize; N_TOKENS]; 4] = [
    [0, 1, OUT, 0, OUT, 1, 1, OUT, 0, 0],
    [1, OUT, OUT, 0, OUT, 1, 0, 1, OUT, 0],
    [OUT; N_TOKENS],
    [0, 0, OUT, 1, OUT, 1, 1, 0, OUT, 1],
];

fn config(codes: SharedCodes) -> SharedCodeConfig {
    SharedCodeConfig {
        d_code: D_CODE,
        codes,
    }
}

/// Codes, number by number.
struct Plain<'a> {
    values: &'a Values,
    codes: SharedCodes,
    /// Of every token what its last block wrote: a key and a value.
    last: Vec<Option<[Array2<f64>; 2]>>,
}

impl Plain<'_> {
    fn written(&self, states: &Array2<f64>) -> [Array2<f64>; 2] {
        ["key", "value"].map(|of| states.dot(&self.values[&format!("memory.{of}_write.weight")]))
    }

    /// Head by head through maps that lie below each other.
    fn through(&self, block: usize, map: &str, x: &Array2<f64>) -> Array2<f64> {
        let map = &self.values[&format!("memory.blocks.{block}.{map}")];
        let n_heads = SIZES.heads.n_heads;
        let (from, width) = (map.nrows() / n_heads, x.ncols() / n_heads);
        let parts = (0..n_heads).map(|head| {
            let own = cut(x, 1, head * width..(head + 1) * width);
            own.dot(&cut(map, 0, head * from..(head + 1) * from))
        });
        let parts: Vec<_> = parts.collect();
        concatenate(Axis(1), &parts.iter().map(|x| x.view()).collect::<Vec<_>>()).expect("rows")
    }

    /// The input of a block behind its norm.
    fn normed(&self, block: usize, states: &Array2<f64>) -> Array2<f64> {
        let gain = &self.values[&format!("pool.{block}.block.attention_norm.gamma")];
        normed(states, gain, SIZES.norm_epsilon)
    }

    /// What a block makes of all tokens.
    fn execute(&self, block: usize, states: &Array2<f64>) -> Array2<f64> {
        let path = format!("pool.{block}.block.");
        each_sequence(states, SEQ, |sequence, x| {
            let n = self.normed(block, x);
            let map = &self.values[&format!("{path}attention.query_key_value.weight")];
            let queries = n.dot(&cut(map, 1, 0..SIZES.heads.d_queries()));
            let asked = self.through(block, "key_head_read", &queries) / (D_CODE as f64).sqrt();
            let [mut keys, mut of_values] = match self.codes {
                SharedCodes::Current => self.written(x),
                SharedCodes::CurrentAndLast { .. } => self.written(&n),
            };
            // Behind those of this step the last one of every token, zeros where it has none.
            let last = &self.last[sequence * SEQ..(sequence + 1) * SEQ];
            let has: Vec<bool> = last.iter().map(Option::is_some).collect();
            let sees_last = self.codes != SharedCodes::Current && has.contains(&true);
            if sees_last {
                for (which, all) in [&mut keys, &mut of_values].into_iter().enumerate() {
                    for of_token in last {
                        let none = Array2::zeros([1, D_CODE]);
                        let code = of_token.as_ref().map_or(none, |codes| codes[which].clone());
                        *all = concatenate(Axis(0), &[all.view(), code.view()]).expect("codes");
                    }
                }
            }
            let bias = self.values.get(&format!("memory.blocks.{block}.bias"));
            let sees = |query: usize, key: usize| match key < SEQ {
                true => (key <= query).then_some(0.0),
                false => (key - SEQ <= query && has[key - SEQ]).then(|| bias.unwrap()[[0, 0]]),
            };
            let found = attended([&asked, &keys, &of_values], SIZES.heads.n_heads, sees);
            ended(
                self.values,
                &path,
                x,
                &self.through(block, "value_head_read", &found),
            )
        })
    }

    fn write(
        &mut self,
        states: &Array2<f64>,
        actions: &[usize],
        share: impl Fn(usize, usize) -> f64,
    ) {
        for (token, _) in actions
            .iter()
            .enumerate()
            .filter(|(_, action)| **action < N_POOL)
        {
            let mut mixed = [(); 2].map(|()| Array2::zeros([1, D_CODE]));
            for block in 0..N_POOL {
                let state = cut(states, 0, token..token + 1);
                let codes = self.written(&self.normed(block, &state));
                for (mixed, code) in mixed.iter_mut().zip(&codes) {
                    mixed.scaled_add(share(token, block), code);
                }
            }
            self.last[token] = Some(mixed);
        }
    }
}

/// A walk in which the blocks that anybody takes run on all tokens: outputs, and gradients.
fn assert_shared<B: AutodiffBackend>(codes: SharedCodes, fused: bool, with_gradients: bool) {
    let what = format!("{codes:?}, fused {fused}");
    let device = Default::default();
    let memory = SharedCode::<B>::new(config(codes), &SIZES, N_POOL, &device);
    let memory = Memory::SharedCode(loud(memory, |_| 0.6));
    let pool: Vec<RoutedBlock<B>> = (0..N_POOL)
        .map(|_| {
            loud(
                RoutedBlock::new(&SIZES, None, alike(&device), &device),
                |_| 0.4,
            )
        })
        .collect();
    let dims = [BATCH, SEQ, SIZES.d_model];
    let states = (0..ACTIONS.len()).map(|index| tensor(&format!("state {index}"), dims));
    let states: Vec<Tensor<B, 3>> = states.collect();
    let causal = rotary().causal(SEQ);
    let share = |token: usize, block: usize| match block {
        0 => 0.3 + 0.05 * token as f32,
        _ => 0.7 - 0.05 * token as f32,
    };
    let weights = (0..N_TOKENS).flat_map(|token| (0..N_POOL).map(move |block| share(token, block)));
    let weights = TensorData::new(weights.collect::<Vec<_>>(), [N_TOKENS, N_POOL]);
    let weights = Tensor::<B, 2>::from_data(weights, &device);
    let runs = |actions: &[usize], block: usize| match fused {
        true => actions.iter().any(|&action| action < N_POOL),
        false => actions.contains(&block),
    };
    let start = MemoryStart {
        entered: &states[0],
        causal: &causal,
        out: OUT,
        measures: Measures::Reads,
        by_rows: false,
    };
    let pass = MemoryPass::start(Some(&memory), start);
    let mut outputs = Vec::new();
    for (state, actions) in states.iter().zip(&ACTIONS) {
        assert_eq!(found(&pass.read(state.clone())), found(state));
        for block in (0..N_POOL).filter(|&block| runs(actions, block)) {
            let nowhere = state.zeros_like();
            outputs.push(pass.execute(block, &pool[block], state.clone(), nowhere, &causal, None));
        }
        pass.write(&Written {
            hidden: state,
            causal: &causal,
            actions: actions.to_vec(),
            walking: vec![true; N_TOKENS],
            weights: fused.then_some(&weights),
        });
    }
    let reads = pass.recorded();
    let whole = |read: &MemoryRead| read.mass() + read.own;
    assert!(
        reads.iter().all(|read| (whole(read) - 1.0).abs() < 1e-5),
        "{what}: {reads:?}"
    );
    let usage = pass.usage();
    if let Some(counted) = &usage.0 {
        let mass = reads
            .iter()
            .map(|read| f64::from(read.weight * read.mass()));
        let mass: f64 = mass.sum();
        assert!((mass - counted.mass[0]).abs() < 1e-3 * mass, "{what}");
    }
    assert_eq!(usage.0.is_some(), codes != SharedCodes::Current);
    let plain = |values: &Values| {
        let mut plain = Plain {
            values,
            codes,
            last: vec![None; N_TOKENS],
        };
        let mut outputs = Vec::new();
        for (index, actions) in ACTIONS.iter().enumerate() {
            let state = &values[&format!("state {index}")];
            for block in (0..N_POOL).filter(|&block| runs(actions, block)) {
                outputs.push(plain.execute(block, state));
            }
            plain.write(state, actions, |token, block| match fused {
                true => f64::from(share(token, block)),
                false => f64::from(u8::from(actions[token] == block)),
            });
        }
        outputs
    };
    let mut at = values_of("memory.", &memory);
    for (index, block) in pool.iter().enumerate() {
        at.extend(values_of(&format!("pool.{index}."), block));
    }
    at.extend(
        (0..)
            .zip(&states)
            .map(|(index, state): (usize, _)| (format!("state {index}"), found(state))),
    );
    let expected = plain(&at);
    assert_eq!(outputs.len(), expected.len());
    for (index, (output, expected)) in outputs.iter().zip(&expected).enumerate() {
        assert_near(
            &format!("{what}: output {index}"),
            &found(output),
            expected,
            SINGLE,
        );
    }
    if !with_gradients {
        return;
    }
    let names: Vec<String> = (0..outputs.len())
        .map(|index| format!("output {index}"))
        .collect();
    let sums = names
        .iter()
        .zip(outputs)
        .map(|(name, output)| weighed(name, output));
    let gradients = sums.reduce(|a, b| a + b).expect("outputs").backward();
    let mut of = gradients_of("memory.", &memory, &gradients);
    of.extend(gradients_of("pool.1.", &pool[1], &gradients));
    for (index, state) in states.iter().enumerate() {
        if let Some(gradient) = state.grad(&gradients) {
            of.insert(format!("state {index}"), rows_of(&gradient.into_data()));
        }
    }
    of.retain(|name, _| {
        name.starts_with("memory.")
            || name.starts_with("state")
            || name.ends_with("query_key_value.weight")
    });
    let sum = |values: &Values| {
        let outputs = plain(values);
        names
            .iter()
            .zip(&outputs)
            .map(|(name, output)| weighed_rows(name, output))
            .sum()
    };
    assert_gradients(&what, &of, &at, 5.0 * SINGLE, sum);
}

const LAST: SharedCodes = SharedCodes::CurrentAndLast { bias: -1.0 };

#[test]
fn blocks_attend_to_codes_that_they_share_as_their_equations_say() {
    for codes in [SharedCodes::Current, LAST] {
        for fused in [false, true] {
            assert_shared::<Passes>(codes, fused, false);
        }
    }
}

#[test]
fn shared_codes_have_the_gradients_of_their_equations() {
    assert_shared::<Passes>(SharedCodes::Current, false, true);
    assert_shared::<Passes>(LAST, true, true);
}

#[test]
fn every_head_of_a_shared_code_starts_as_a_map_of_its_own_and_the_bias_as_the_recipe_says() {
    let fresh = |seed| {
        let memory = SharedCode::<Host>::new(config(LAST), &SIZES, N_POOL, &Default::default());
        draw(
            memory,
            Initial::Scaled { std: 0.02 },
            1,
            Ratios::default(),
            seed,
        )
    };
    let [one, same, other] = [3, 3, 4].map(fresh);
    let values = |memory: &SharedCode<Host>, block: usize| {
        let block = &memory.blocks[block];
        [
            found(&block.key_head_read.val()),
            found(&block.value_head_read.val()),
        ]
    };
    assert_eq!(values(&one, 0), values(&same, 0));
    assert!(values(&one, 0) != values(&other, 0) && values(&one, 0) != values(&one, 1));
    let bound = (6.0 / (SIZES.heads.d_head + D_CODE) as f64).sqrt();
    for map in values(&one, 0) {
        let largest = map.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
        assert!(
            largest <= bound && largest > 0.8 * bound,
            "{largest} {bound}"
        );
    }
    let bias = one.blocks[1].bias.as_ref().expect("one per block").val();
    assert_eq!(found(&bias)[[0, 0]], -1.0);
    let current = SharedCode::<Host>::new(
        config(SharedCodes::Current),
        &SIZES,
        N_POOL,
        &Default::default(),
    );
    assert!(current.blocks.iter().all(|block| block.bias.is_none()));
}

#[test]
fn a_code_without_width_or_with_a_bias_that_is_no_number_is_refused_by_its_name() {
    let wrong = MemoryConfig::SharedCode(SharedCodeConfig {
        d_code: 0,
        codes: SharedCodes::CurrentAndLast { bias: f64::NAN },
    });
    let problems: Vec<String> = wrong.check().iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("memory.d_code") && problems[1].contains("memory.codes.bias"));
    assert!(MemoryConfig::SharedCode(config(LAST)).check().is_empty());
}
