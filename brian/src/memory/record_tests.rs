//! Tests of kept reads on walks of two tokens whose shares can be worked out on paper: one head, and scores of which all are known.

use super::pass::{Memory, MemoryPass};
use super::record::{Measures, MemoryRead, ReadAt, ReadShare};
use super::step::{MemoryStart, Written};
use super::{
    Adapters, Compression, HiddenCode, HiddenCodeConfig, KeyValuePrefix, KeyValuePrefixConfig,
    Lifecycle, SharedCode, SharedCodeConfig, SharedCodes,
};
use crate::block::routed::RoutedBlock;
use crate::block::tests::{Host, SIZES, alike, rotary};
use crate::block::{BlockSizes, Heads};
use crate::parameter;
use burn::module::Param;
use burn::tensor::{Tensor, TensorData};

const ONE_HEAD: BlockSizes = BlockSizes {
    d_model: 4,
    heads: Heads {
        n_heads: 1,
        n_kv_heads: 1,
        d_head: 4,
    },
    ..SIZES
};
const N_POOL: usize = 2;
const OUT: usize = N_POOL;

/// What two tokens do: step by step the action of each.
type Walk<'a> = &'a [[usize; 2]];

fn read(reader: usize, at: ReadAt, shares: &[(usize, usize, f32)], own: f32) -> MemoryRead {
    let share = |&(writer, step, share): &(usize, usize, f32)| ReadShare {
        writer,
        step,
        share,
    };
    MemoryRead {
        reader,
        at,
        weight: 1.0,
        shares: shares.iter().map(share).collect(),
        own,
    }
}

fn assert_reads(found: &[MemoryRead], expected: &[MemoryRead]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(
            (found.reader, found.at, found.weight),
            (expected.reader, expected.at, expected.weight)
        );
        let columns = |read: &MemoryRead| -> Vec<(usize, usize)> {
            let shares = read.shares.iter();
            shares.map(|share| (share.writer, share.step)).collect()
        };
        assert_eq!(columns(found), columns(expected), "{found:?}");
        for (share, expected) in found.shares.iter().zip(&expected.shares) {
            assert!(near(share.share, expected.share), "{found:?}");
        }
        assert!(near(found.own, expected.own), "{found:?}");
        assert!(near(found.mass() + found.own, 1.0), "{found:?}");
    }
}

/// The reads of a walk of blocks all of whose queries are 0, so that all scores are 0 but for the bias: that of block 0 lets a
/// column of an earlier step count three times as much as one of this step, that of block 1 as much.
fn reads_of_blocks(memory: &Memory<Host>, walk: Walk<'_>) -> Vec<MemoryRead> {
    let device = Default::default();
    let fresh = RoutedBlock::<Host>::new(&ONE_HEAD, None, alike(&device), &device);
    let block = parameter::assign(fresh, |_, shape| vec![0.0; shape.iter().product()]);
    let state = Tensor::<Host, 3>::ones([1, 2, ONE_HEAD.d_model], &device);
    let causal = rotary().causal(2);
    let start = MemoryStart {
        entered: &state,
        causal: &causal,
        out: OUT,
        measures: Measures::Reads,
        by_rows: false,
    };
    let pass = MemoryPass::start(Some(memory), start);
    for actions in walk {
        for index in (0..N_POOL).filter(|index| actions.contains(index)) {
            pass.execute(
                index,
                &block,
                state.clone(),
                state.zeros_like(),
                &causal,
                None,
            );
        }
        pass.write(&Written {
            hidden: &state,
            causal: &causal,
            actions: actions.to_vec(),
            walking: vec![true; 2],
            weights: None,
        });
    }
    pass.recorded()
}

fn three_times_as_much() -> Param<Tensor<Host, 1>> {
    Param::from_data([3.0f32.ln()], &Default::default())
}

fn in_block(step: usize, block: usize) -> ReadAt {
    ReadAt::Block { step, block }
}

const WALK: Walk<'static> = &[[0, 0], [OUT, 0], [1, 0]];

#[test]
fn a_read_of_keys_and_values_says_which_step_of_which_token_was_attended_to() {
    let config = KeyValuePrefixConfig {
        sink: 1,
        window: 3,
        bias: 0.0,
        compression: Compression::None,
        lifecycle: Lifecycle::Frozen,
    };
    let device = Default::default();
    let mut memory = KeyValuePrefix::<Host>::new(config, &ONE_HEAD, N_POOL, &device);
    memory.blocks[0].bias = three_times_as_much();
    let found = reads_of_blocks(&Memory::KeyValuePrefix(memory), WALK);
    let of_eleven = 3.0 / 11.0;
    assert_reads(
        &found,
        &[
            read(0, in_block(1, 0), &[], 1.0),
            read(1, in_block(1, 0), &[], 1.0),
            read(1, in_block(2, 0), &[(0, 1, 0.375), (1, 1, 0.375)], 0.25),
            // At the second step the first token wrote nothing.
            read(
                1,
                in_block(3, 0),
                &[(0, 1, of_eleven), (1, 1, of_eleven), (1, 2, of_eleven)],
                2.0 / 11.0,
            ),
            read(0, in_block(3, 1), &[(0, 1, 0.5)], 0.5),
        ],
    );
}

#[test]
fn a_read_of_shared_codes_says_at_which_step_a_token_wrote_its_last() {
    let config = SharedCodeConfig {
        d_code: 3,
        codes: SharedCodes::CurrentAndLast { bias: 0.0 },
    };
    let device = Default::default();
    let memory = SharedCode::<Host>::new(config, &ONE_HEAD, N_POOL, &device);
    let mut memory = parameter::assign(memory, |_, shape| vec![0.0; shape.iter().product()]);
    memory.blocks[0].bias = Some(three_times_as_much());
    let found = reads_of_blocks(&Memory::SharedCode(memory), WALK);
    assert_reads(
        &found,
        &[
            read(0, in_block(1, 0), &[], 1.0),
            read(1, in_block(1, 0), &[], 1.0),
            read(1, in_block(2, 0), &[(0, 1, 0.375), (1, 1, 0.375)], 0.25),
            read(1, in_block(3, 0), &[(0, 1, 0.375), (1, 2, 0.375)], 0.25),
            read(0, in_block(3, 1), &[(0, 1, 0.5)], 0.5),
        ],
    );
}

#[test]
fn codes_of_one_step_are_no_reads_of_earlier_ones() {
    let config = SharedCodeConfig {
        d_code: 3,
        codes: SharedCodes::Current,
    };
    let memory = SharedCode::<Host>::new(config, &ONE_HEAD, N_POOL, &Default::default());
    assert_eq!(reads_of_blocks(&Memory::SharedCode(memory), WALK), []);
}

/// Codes are the states themselves, and a code counts three times as much for a token in whose state it is as one across it.
#[test]
fn a_read_of_codes_says_behind_which_step_of_which_token_they_were_written() {
    let config = HiddenCodeConfig {
        d_code: 2,
        sink: 1,
        window: 3,
        adapters: Adapters::Shared,
        head_rank: 0,
        lifecycle: Lifecycle::Frozen,
    };
    let sizes = BlockSizes {
        d_model: 2,
        ..ONE_HEAD
    };
    let fresh = HiddenCode::<Host>::new(config, &sizes, N_POOL + 1, &Default::default());
    let memory = parameter::assign(fresh, |path, shape| match path {
        "write.0.code.weight" => vec![1.0, 0.0, 0.0, 1.0],
        "read.0.query.weight" => [1.0, 0.0, 0.0, 1.0]
            .map(|number: f32| number * 2.0f32.sqrt() * 3.0f32.ln())
            .to_vec(),
        _ => vec![0.0; shape.iter().product()],
    });
    let memory = Memory::HiddenCode(memory);
    let state = |numbers: [f32; 4]| {
        Tensor::<Host, 3>::from_data(
            TensorData::new(numbers.to_vec(), [1, 2, 2]),
            &Default::default(),
        )
    };
    let entered = state([1.0, 0.0, 0.0, 1.0]);
    let causal = rotary().causal(2);
    let start = MemoryStart {
        entered: &entered,
        causal: &causal,
        out: OUT,
        measures: Measures::Reads,
        by_rows: false,
    };
    let pass = MemoryPass::start(Some(&memory), start);
    let write = |hidden: &Tensor<Host, 3>, actions: [usize; 2], walking: [bool; 2]| {
        pass.write(&Written {
            hidden,
            causal: &causal,
            actions: actions.to_vec(),
            walking: walking.to_vec(),
            weights: None,
        });
    };
    let _ = pass.read(entered.clone());
    let moved = state([1.0, 0.0, 1.0, 0.0]);
    write(&moved, [OUT, 0], [false, true]);
    let _ = pass.read(moved.clone());
    write(&moved, [OUT, OUT], [false, false]);
    let _ = pass.read_last(entered.clone());
    let before = |step| ReadAt::Decision { step };
    let of_seven = |times: f32| times / 7.0;
    assert_reads(
        &pass.recorded(),
        &[
            read(0, before(1), &[(0, 0, 1.0)], 0.0),
            read(1, before(1), &[(0, 0, 0.25), (1, 0, 0.75)], 0.0),
            read(
                1,
                before(2),
                &[
                    (0, 0, of_seven(3.0)),
                    (1, 0, of_seven(1.0)),
                    (1, 1, of_seven(3.0)),
                ],
                0.0,
            ),
            read(0, ReadAt::Exit, &[(0, 0, 1.0)], 0.0),
            read(
                1,
                ReadAt::Exit,
                &[(0, 0, 0.2), (1, 0, 0.6), (1, 1, 0.2)],
                0.0,
            ),
        ],
    );
    assert!(pass.usage().0.is_some(), "reads are counted too");
}
