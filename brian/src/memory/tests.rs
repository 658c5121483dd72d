//! Tests of both memories against their equations, written out token by token in double precision, with gradients against
//! central differences: which slots are kept, who sees them, what is read and counted, beams, initial values.

use super::codes::Codes;
use super::hidden_code::HiddenCode;
use super::key_value_prefix::KeyValuePrefix;
use super::pass::{Memory, MemoryPass};
use super::record::{Measures, MemoryRead, ReadAt};
use super::step::{MemoryStart, Written};
use super::usage::MemoryUse;
use super::window::Window;
use super::{
    Adapters, AttendedConfig, BothConfig, Compression, HiddenCodeConfig, KeyValuePrefixConfig,
    Lifecycle, MemoryConfig, SharedCodeConfig, SharedCodes,
};
use crate::block::causal::Causal;
use crate::block::routed::RoutedBlock;
use crate::block::tests::{
    BATCH, Host, Passes, SEQ, SINGLE, SIZES, Values, alike, assert_gradients, assert_near,
    attended, composed, cut, each_sequence, ended, found, gradients_of, loud, projected, rotary,
    rows_of, shares, sigmoid, tensor, values_of, weighed, weighed_rows,
};
use crate::block::{BlockSizes, Heads};
use crate::initial::{Initial, draw};
use crate::width_transfer::Ratios;
use crate::{parameter, random};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use ndarray::{Array1, Array2, ArrayView1, Axis};
use std::collections::BTreeMap;

const N_TOKENS: usize = BATCH * SEQ;
const D_MODEL: usize = SIZES.d_model;
const D_HEAD: usize = SIZES.heads.d_head;
const N_POOL: usize = 2;
const OUT: usize = N_POOL;
const D_CODE: usize = 3;

/// What one step does: the action of every row, and who goes on.
#[derive(Clone)]
struct Step {
    actions: Vec<usize>,
    walking: Vec<bool>,
}

/// Steps of a walk of so many rows: who has left takes OUT and is over.
fn steps(name: &str, n_rows: usize, n_steps: usize) -> Vec<Step> {
    let key = random::key(3, name, 0);
    let mut walking = vec![true; n_rows];
    let step = |step: usize| {
        let action = |row: usize| {
            let draw = random::bits(key, (step * n_rows + row) as u64) % 7;
            match walking[row] {
                true => [0, 0, 0, 1, 1, 1, OUT][draw as usize],
                false => OUT,
            }
        };
        let actions: Vec<usize> = (0..n_rows).map(action).collect();
        walking
            .iter_mut()
            .zip(&actions)
            .for_each(|(walking, &action)| *walking &= action != OUT);
        Step {
            actions,
            walking: walking.clone(),
        }
    };
    let steps: Vec<Step> = (0..n_steps).map(step).collect();
    let left = |step: &Step| step.walking.iter().filter(|&&walking| !walking).count();
    assert!(
        left(&steps[n_steps - 1]) > 0 && left(&steps[0]) < n_rows,
        "{name} is no walk to test with"
    );
    steps
}

fn codes_config(
    adapters: Adapters,
    head_rank: usize,
    window: Window,
    lifecycle: Lifecycle,
) -> HiddenCodeConfig {
    HiddenCodeConfig {
        d_code: D_CODE,
        sink: window.sink,
        window: window.window,
        adapters,
        head_rank,
        lifecycle,
    }
}

/// Which slots of so many are there: the first ones stay, of the others the last ones.
fn kept(window: Window, n_slots: usize) -> Vec<usize> {
    let others = window.sink.min(n_slots)..n_slots;
    let first_kept = others.end.saturating_sub(window.window).max(others.start);
    (0..others.start).chain(first_kept..others.end).collect()
}

#[test]
fn what_is_kept_is_the_first_slots_and_the_last_of_the_others() {
    for (sink, window, n_written) in
        (0..4).flat_map(|a| (0..4).flat_map(move |b| (0..9).map(move |c| (a, b, c))))
    {
        let window = Window { sink, window };
        let found: Vec<usize> = window.kept(n_written).collect();
        assert_eq!(found, kept(window, n_written), "{window:?} of {n_written}");
    }
}

/// A memory of codes, number by number. Rows are tokens, and behind them those of other branches.
struct PlainCodes<'a> {
    values: &'a Values,
    config: HiddenCodeConfig,
    window: Window,
    slots: Vec<PlainSlot>,
    last: Vec<usize>,
    walking: Vec<bool>,
    seen: Vec<usize>,
}

#[derive(Clone)]
struct PlainSlot {
    /// Of every token the code that later tokens find, if it was walking.
    found: Vec<Option<Array1<f64>>>,
    /// Of every row its own.
    own: Vec<(Array1<f64>, bool)>,
}

/// What one token read.
struct PlainRead {
    after: Array1<f64>,
    /// Of every code that it sees the slot, who wrote it, and its share.
    of_columns: Vec<(usize, usize, f64)>,
    /// Of every slot that is there.
    mass: Vec<f64>,
    share: f64,
    open: f64,
}

impl<'a> PlainCodes<'a> {
    fn new(values: &'a Values, config: HiddenCodeConfig, entered: &Array2<f64>) -> Self {
        let n_tokens = entered.nrows();
        let mut codes = Self {
            values,
            config,
            window: config.retention(),
            slots: Vec::new(),
            last: vec![OUT; n_tokens],
            walking: vec![true; n_tokens],
            seen: vec![0; n_tokens],
        };
        codes.append(entered);
        codes
    }

    fn adapter(&self, row: usize) -> usize {
        match self.config.adapters {
            Adapters::Shared => 0,
            Adapters::PerBlock => self.last[row],
        }
    }

    /// The map of a head, from its rows of all.
    fn of_head(&self, path: &str, head: usize, n_rows: usize) -> Option<Array2<f64>> {
        let all = self.values.get(path)?;
        Some(cut(all, 0, head * n_rows..(head + 1) * n_rows))
    }

    fn code(&self, row: usize, hidden: ArrayView1<f64>) -> Array1<f64> {
        let path = format!("write.{}", self.adapter(row));
        let rank = self.config.head_rank;
        let mut code = hidden.dot(&self.values[&format!("{path}.code.weight")]);
        for head in 0..SIZES.heads.n_heads {
            let part = cut(&hidden, 0, head * D_HEAD..(head + 1) * D_HEAD);
            if let Some(down) = self.of_head(&format!("{path}.heads.down"), head, D_HEAD) {
                let up = self
                    .of_head(&format!("{path}.heads.up"), head, rank)
                    .expect("both");
                code = code + part.dot(&down).dot(&up) / (SIZES.heads.n_heads as f64).sqrt();
            }
        }
        let length = code.dot(&code).sqrt();
        code / length
    }

    fn append(&mut self, hidden: &Array2<f64>) {
        let n_tokens = self
            .slots
            .first()
            .map_or(hidden.nrows(), |slot| slot.found.len());
        let codes: Vec<Array1<f64>> = (0..hidden.nrows())
            .map(|row| self.code(row, hidden.row(row)))
            .collect();
        let found = (0..n_tokens).map(|row| self.walking[row].then(|| codes[row].clone()));
        self.slots.push(PlainSlot {
            found: found.collect(),
            own: codes
                .iter()
                .cloned()
                .zip(self.walking.iter().copied())
                .collect(),
        });
        for (row, seen) in self.seen.iter_mut().enumerate() {
            if self.walking[row] {
                *seen = self.slots.len();
            }
        }
    }

    fn write(&mut self, step: &Step, hidden: &Array2<f64>) {
        self.last.clone_from(&step.actions);
        if self.config.lifecycle == Lifecycle::Frozen {
            self.walking.clone_from(&step.walking);
        }
        self.append(hidden);
    }

    /// What a row reads of the slots that were kept when there were so many.
    fn look(&self, row: usize, hidden: ArrayView1<f64>, n_slots: usize) -> PlainRead {
        let path = format!("read.{}", self.adapter(row));
        let query = hidden.dot(&self.values[&format!("{path}.query.weight")]);
        let query = query / (self.config.d_code as f64).sqrt();
        let kept = kept(self.window, n_slots);
        let token = row % self.slots[0].found.len();
        let first = token - token % SEQ;
        let mut codes = Vec::new();
        for (place, &slot) in kept.iter().enumerate() {
            let slot = &self.slots[slot];
            let earlier =
                (first..token).filter_map(|token| Some((token, slot.found[token].as_ref()?)));
            codes.extend(earlier.map(|(token, code)| ((place, token), code)));
            codes.push(((place, token), &slot.own[row].0));
        }
        let scores: Vec<_> = codes
            .iter()
            .map(|&(column, code)| ((column, code), query.dot(code)))
            .collect();
        let mut mass = vec![0.0; kept.len()];
        let mut read = Array1::zeros(self.config.d_code);
        let mut of_columns = Vec::new();
        for (((place, writer), code), share) in shares(&scores) {
            mass[place] += share;
            of_columns.push((kept[place], writer, share));
            read.scaled_add(share, code);
        }
        let mut out = read.dot(&self.values[&format!("{path}.output.weight")]);
        for head in 0..SIZES.heads.n_heads {
            if let Some(down) =
                self.of_head(&format!("{path}.heads.down"), head, self.config.d_code)
            {
                let up = self.of_head(&format!("{path}.heads.up"), head, self.config.head_rank);
                let added = read.dot(&down).dot(&up.expect("both"));
                let mut part =
                    out.slice_axis_mut(Axis(0), (head * D_HEAD..(head + 1) * D_HEAD).into());
                part += &added;
            }
        }
        let open = sigmoid(self.values[&format!("{path}.gate")][[0, 0]]);
        let change = out * open;
        let length = |x: ArrayView1<f64>| x.dot(&x).sqrt();
        PlainRead {
            share: length(change.view()) / length(hidden),
            after: &hidden + &change,
            of_columns,
            mass,
            open,
        }
    }

    /// The shares of what some rows read.
    fn shares(
        &self,
        at: ReadAt,
        hidden: &Array2<f64>,
        n_slots: impl Fn(usize) -> Option<usize>,
    ) -> Shares {
        let mut shares = Shares::new();
        for (row, state) in hidden.rows().into_iter().enumerate() {
            let Some(n_slots) = n_slots(row) else {
                continue;
            };
            for (slot, writer, share) in self.look(row, state, n_slots).of_columns {
                shares.insert((row, at, Some((slot, writer))), share);
            }
        }
        shares
    }

    /// What all rows of a kind read; others stay as they are.
    fn read_by(
        &self,
        hidden: &Array2<f64>,
        n_slots: impl Fn(usize) -> Option<usize>,
        usage: &mut MemoryUse,
    ) -> Array2<f64> {
        let mut after = hidden.clone();
        for (row, mut to) in after.rows_mut().into_iter().enumerate() {
            let Some(n_slots) = n_slots(row) else {
                continue;
            };
            let read = self.look(row, hidden.row(row), n_slots);
            to.assign(&read.after);
            let mut mass = vec![0.0; n_slots];
            for (&slot, of_slot) in kept(self.window, n_slots).iter().zip(read.mass) {
                mass[n_slots - 1 - slot] += of_slot;
            }
            usage.add(&MemoryUse {
                reads: 1.0,
                mass,
                share: Some(read.share),
                open: read.open,
            });
        }
        after
    }

    fn read(&self, hidden: &Array2<f64>, usage: &mut MemoryUse) -> Array2<f64> {
        let n_slots = self.slots.len();
        self.read_by(hidden, |row| self.walking[row].then_some(n_slots), usage)
    }

    fn read_last(&self, hidden: &Array2<f64>, usage: &mut MemoryUse) -> Array2<f64> {
        self.read_by(hidden, |row| Some(self.seen[row]), usage)
    }

    fn follow(&mut self, parents: &[usize]) {
        self.last = parents.iter().map(|&row| self.last[row]).collect();
        self.walking = parents.iter().map(|&row| self.walking[row]).collect();
        self.seen = parents.iter().map(|&row| self.seen[row]).collect();
        for slot in &mut self.slots {
            slot.own = parents.iter().map(|&row| slot.own[row].clone()).collect();
        }
    }

    fn settle(&mut self) {
        let n_tokens = self.slots[0].found.len();
        self.follow(&(0..n_tokens).collect::<Vec<_>>());
        for slot in &mut self.slots {
            let found = slot
                .own
                .iter()
                .map(|(code, walking)| walking.then(|| code.clone()));
            slot.found = found.collect();
        }
    }
}

fn codes_memory<B: Backend>(config: HiddenCodeConfig) -> HiddenCode<B> {
    let fresh = HiddenCode::new(config, &SIZES, N_POOL + 1, &Default::default());
    loud(fresh, |path| match path.ends_with("query.weight") {
        true => 1.5,
        false => 0.6,
    })
}

fn start<'a, B: Backend>(
    entered: &'a Tensor<B, 3>,
    causal: &'a Causal<B>,
    measures: Measures,
) -> MemoryStart<'a, B> {
    MemoryStart {
        entered,
        causal,
        out: OUT,
        measures,
        by_rows: false,
    }
}

fn states<B: Backend>(n: usize, n_sequences: usize) -> Vec<Tensor<B, 3>> {
    let state = |index| tensor(&format!("state {index}"), [n_sequences, SEQ, D_MODEL]);
    (0..n).map(state).collect()
}

fn with_states<B: Backend>(mut values: Values, states: &[Tensor<B, 3>]) -> Values {
    let states = states.iter().enumerate();
    values.extend(states.map(|(index, state)| (format!("state {index}"), found(state))));
    values
}

/// A walk that reads before and writes after every step, and reads once more behind it: outputs, gradients, and what was counted.
fn assert_codes<B: AutodiffBackend>(config: HiddenCodeConfig, with_gradients: bool) {
    const N_STEPS: usize = 4;
    let what = format!("{config:?}");
    let memory: HiddenCode<B> = codes_memory(config);
    let states: Vec<Tensor<B, 3>> = states(N_STEPS + 1, BATCH);
    let steps = steps("codes", N_TOKENS, N_STEPS);
    let causal = rotary().causal(SEQ);
    let pass = |measures: Measures| {
        let mut codes = Codes::new(&memory, start(&states[0], &causal, measures));
        assert_eq!(codes.rests(), config.lifecycle == Lifecycle::Frozen);
        let mut outputs = Vec::new();
        for (state, step) in states.iter().zip(&steps) {
            outputs.push(codes.read(state.clone()));
            let next = &states[outputs.len()];
            codes.write(&Written {
                hidden: next,
                causal: &causal,
                actions: step.actions.clone(),
                walking: step.walking.clone(),
                weights: None,
            });
        }
        outputs.push(codes.read_last(states[N_STEPS].clone()));
        (outputs, codes.recorded(), codes.usage())
    };
    let plain = |values: &Values| {
        let state = |index: usize| &values[&format!("state {index}")];
        let mut usage = MemoryUse::default();
        let mut codes = PlainCodes::new(values, config, state(0));
        let (mut outputs, mut shares) = (Vec::new(), Shares::new());
        for (index, step) in steps.iter().enumerate() {
            let n_slots = codes.slots.len();
            let walks = |row: usize| codes.walking[row].then_some(n_slots);
            let at = ReadAt::Decision { step: index + 1 };
            shares.extend(codes.shares(at, state(index), walks));
            outputs.push(codes.read(state(index), &mut usage));
            codes.write(step, state(index + 1));
        }
        let seen = |row: usize| Some(codes.seen[row]);
        shares.extend(codes.shares(ReadAt::Exit, state(N_STEPS), seen));
        outputs.push(codes.read_last(state(N_STEPS), &mut usage));
        (outputs, shares, usage)
    };
    let at = with_states(values_of("", &memory), &states);
    let (outputs, unkept, uncounted) = pass(Measures::Nothing);
    assert!(uncounted.is_none() && unkept.is_empty());
    let (expected, shares, usage) = plain(&at);
    for (index, (output, expected)) in outputs.iter().zip(&expected).enumerate() {
        assert_near(
            &format!("{what}: read {index}"),
            &found(output),
            expected,
            SINGLE,
        );
    }
    let counted = |reads: Option<super::usage::Reads<B>>| {
        let counted = reads.and_then(super::usage::Reads::finish);
        counted.expect("reads")
    };
    let (_, unkept, sums) = pass(Measures::Sums);
    assert!(unkept.is_empty());
    let sums = counted(sums);
    assert_usage(&sums, &usage);
    let (same, reads, kept) = pass(Measures::Reads);
    for (output, same) in outputs.iter().zip(&same) {
        assert_eq!(output.to_data(), same.to_data(), "{what}");
    }
    assert_eq!(counted(kept), sums, "{what}");
    assert_shares(&what, &reads, &shares);
    if !with_gradients {
        return;
    }
    let names: Vec<String> = (0..outputs.len())
        .map(|index| format!("read {index}"))
        .collect();
    let sums = names
        .iter()
        .zip(outputs)
        .map(|(name, output)| weighed(name, output));
    let gradients = sums.reduce(|a, b| a + b).expect("outputs").backward();
    let mut of = gradients_of("", &memory, &gradients);
    for (index, state) in states.iter().enumerate() {
        let gradient = state.grad(&gradients).expect("a state is read");
        of.insert(format!("state {index}"), rows_of(&gradient.into_data()));
    }
    let at = at
        .into_iter()
        .filter(|(name, _)| of.contains_key(name))
        .collect();
    assert_gradients(&what, &of, &at, 5.0 * SINGLE, |at| {
        let outputs = plain(at).0;
        names
            .iter()
            .zip(&outputs)
            .map(|(name, output)| weighed_rows(name, output))
            .sum()
    });
}

/// The step and the token that wrote; none for what a block makes itself.
type Column = Option<(usize, usize)>;

/// Shares of attention by reader, place of the walk, and what was read.
type Shares = BTreeMap<(usize, ReadAt, Column), f64>;

fn assert_shares(what: &str, reads: &[MemoryRead], expected: &Shares) {
    let mut found = Shares::new();
    for read in reads {
        for share in &read.shares {
            let column = (read.reader, read.at, Some((share.step, share.writer)));
            let before = found.insert(column, f64::from(share.share));
            assert!(before.is_none(), "{what}: {column:?} twice");
        }
        if matches!(read.at, ReadAt::Block { .. }) {
            found.insert((read.reader, read.at, None), f64::from(read.own));
        }
        let whole = read.mass() + read.own;
        assert!((whole - 1.0).abs() < 1e-5, "{what}: {read:?}");
    }
    let columns = |shares: &Shares| shares.keys().copied().collect::<Vec<_>>();
    assert_eq!(columns(&found), columns(expected), "{what}");
    for (column, expected) in expected {
        let found = found[column];
        assert!(
            (found - expected).abs() < SINGLE,
            "{what}: {column:?}: {found} for {expected}"
        );
    }
}

fn assert_usage(found: &MemoryUse, expected: &MemoryUse) {
    let near = |a: f64, b: f64| (a - b).abs() < 1e-3 * b.abs().max(1.0);
    assert!(
        near(found.reads, expected.reads),
        "{found:?} for {expected:?}"
    );
    assert!(
        near(found.open, expected.open),
        "{found:?} for {expected:?}"
    );
    // Nothing is said of ages at which nothing can be.
    let mut mass = found.mass.clone();
    assert!(
        mass.len() <= expected.mass.len(),
        "{found:?} for {expected:?}"
    );
    mass.resize(expected.mass.len(), 0.0);
    for (found_mass, mass) in mass.iter().zip(&expected.mass) {
        assert!(near(*found_mass, *mass), "{found:?} for {expected:?}");
    }
    match (found.share, expected.share) {
        (Some(a), Some(b)) => assert!(near(a, b), "{found:?} for {expected:?}"),
        (a, b) => assert_eq!(a, b),
    }
}

#[test]
fn codes_are_written_and_read_as_their_equations_say() {
    let window = |sink, window| Window { sink, window };
    for lifecycle in [Lifecycle::Frozen, Lifecycle::Reference] {
        for adapters in [Adapters::Shared, Adapters::PerBlock] {
            for (head_rank, window) in [
                (0, window(1, 2)),
                (2, window(0, 1)),
                (0, window(2, 0)),
                (2, window(4, 32)),
            ] {
                let config = codes_config(adapters, head_rank, window, lifecycle);
                assert_codes::<Passes>(config, false);
            }
        }
    }
}

#[test]
fn codes_have_the_gradients_of_their_equations() {
    let frozen = |adapters, head_rank, sink, window| {
        codes_config(
            adapters,
            head_rank,
            Window { sink, window },
            Lifecycle::Frozen,
        )
    };
    assert_codes::<Passes>(frozen(Adapters::PerBlock, 2, 1, 2), true);
    composed(|| assert_codes::<Passes>(frozen(Adapters::Shared, 0, 1, 1), true));
}

/// Branches read the best branch of earlier tokens and, of their own token, what lay on the way that led to them.
#[test]
fn a_branch_reads_the_codes_along_its_own_way() {
    for lifecycle in [Lifecycle::Frozen, Lifecycle::Reference] {
        let config = codes_config(
            Adapters::PerBlock,
            2,
            Window { sink: 1, window: 2 },
            lifecycle,
        );
        let memory: HiddenCode<Host> = codes_memory(config);
        let entered: Tensor<Host, 3> = tensor("entered", [BATCH, SEQ, D_MODEL]);
        let states: Vec<Tensor<Host, 3>> = states(5, 2 * BATCH);
        let causal = rotary().causal(SEQ);
        let values = values_of("", &memory);
        let mut codes = Codes::new(&memory, start(&entered, &causal, Measures::Nothing));
        let mut plain = PlainCodes::new(&values, config, &found(&entered));
        let mut uncounted = MemoryUse::default();
        // First two branches of each token's only one, then the branches of some tokens change places or have one parent.
        let twice = (0..2 * N_TOKENS).map(|row| row % N_TOKENS).collect();
        let crossed = (0..2 * N_TOKENS).map(|row| match row % 3 {
            0 => (row + N_TOKENS) % (2 * N_TOKENS),
            1 => row % N_TOKENS,
            _ => row,
        });
        let ways: [Vec<usize>; 3] = [twice, crossed.clone().collect(), crossed.collect()];
        let steps = steps("branches", 2 * N_TOKENS, ways.len());
        for (index, (parents, step)) in ways.iter().zip(&steps).enumerate() {
            codes.follow(parents);
            plain.follow(parents);
            // Who has left stays so, whatever the steps say of its new place.
            let walking = |row: usize| step.walking[row] && plain.walking[row];
            let step = Step {
                actions: step.actions.clone(),
                walking: (0..2 * N_TOKENS).map(walking).collect(),
            };
            let state = &states[index];
            codes.write(&Written {
                hidden: state,
                causal: &causal,
                actions: step.actions.clone(),
                walking: step.walking.clone(),
                weights: None,
            });
            plain.write(&step, &found(state));
            let read = codes.read(states[index + 1].clone());
            let expected = plain.read(&found(&states[index + 1]), &mut uncounted);
            assert_near(
                &format!("{lifecycle:?}, read {index}"),
                &found(&read),
                &expected,
                SINGLE,
            );
        }
        codes.settle();
        plain.settle();
        let left = codes.read_last(entered.clone());
        let expected = plain.read_last(&found(&entered), &mut uncounted);
        assert_near(
            &format!("{lifecycle:?}, behind"),
            &found(&left),
            &expected,
            SINGLE,
        );
    }
}

/// One code for a sequence, of which the first stays; a window of 0 keeps all, one of 1 the last one besides.
#[test]
fn a_memory_of_sequences_keeps_the_first_code_and_its_window() {
    for (window, kept_window) in [(0, 9), (1, 1), (2, 2)] {
        let config = codes_config(
            Adapters::Shared,
            0,
            Window { sink: 3, window },
            Lifecycle::Reference,
        );
        let memory: HiddenCode<Host> = codes_memory(config);
        let entered: Tensor<Host, 3> = tensor("entered", [BATCH, 1, D_MODEL]);
        let causal = rotary().causal(1);
        let pass = MemoryPass::start(None, start(&entered, &causal, Measures::Nothing));
        assert!(
            pass.of_sequences(tensor("mean", [BATCH, D_MODEL]), OUT)
                .is_none()
        );
        let memory = Memory::HiddenCode(memory);
        let pass = MemoryPass::start(Some(&memory), start(&entered, &causal, Measures::Nothing));
        let mean: Tensor<Host, 2> = tensor("mean", [BATCH, D_MODEL]);
        let mut codes = pass.of_sequences(mean.clone(), OUT).expect("codes");
        assert!(
            pass.of_sequences(mean.clone(), OUT).is_none(),
            "nothing is left of the tokens"
        );
        let values = values_of("", &memory);
        // Every sequence is as one token: no other is before it.
        let apart = |row: usize| cut(&found(&mean), 0, row..row + 1);
        let mut plain: Vec<_> = (0..BATCH)
            .map(|row| PlainCodes::new(&values, config, &apart(row)))
            .collect();
        plain.iter_mut().for_each(|plain| {
            plain.window = Window {
                sink: 1,
                window: kept_window,
            }
        });
        for index in 0..4 {
            let state: Tensor<Host, 3> = tensor(&format!("state {index}"), [BATCH, 1, D_MODEL]);
            let step = |n| Step {
                actions: vec![index % 2; n],
                walking: vec![true; n],
            };
            codes.write(&Written {
                hidden: &state,
                causal: &causal,
                actions: step(BATCH).actions,
                walking: step(BATCH).walking,
                weights: None,
            });
            let read = found(&codes.read(state.clone()));
            for (row, plain) in plain.iter_mut().enumerate() {
                let state = cut(&found(&state), 0, row..row + 1);
                plain.write(&step(1), &state);
                let expected = plain.read(&state, &mut MemoryUse::default());
                let read = cut(&read, 0, row..row + 1);
                assert_near(
                    &format!("window {window}, read {index}"),
                    &read,
                    &expected,
                    SINGLE,
                );
            }
        }
    }
}

/// A memory of keys and values, number by number.
struct PlainPrefix<'a> {
    values: &'a Values,
    config: KeyValuePrefixConfig,
    /// Keys and values of every token, head by head, and which there are.
    slots: Vec<([Array2<f64>; 2], Vec<bool>)>,
}

impl PlainPrefix<'_> {
    fn through(&self, block: usize, map: &str, x: &Array2<f64>) -> Array2<f64> {
        let Some(map) = self
            .values
            .get(&format!("memory.blocks.{block}.maps.{map}.weight"))
        else {
            return x.clone();
        };
        let mut out = Array2::zeros([x.nrows(), SIZES.heads.n_heads * map.ncols()]);
        let [from, to] = [map.nrows(), map.ncols()];
        for head in 0..SIZES.heads.n_heads {
            let made = cut(x, 1, head * from..(head + 1) * from).dot(map);
            out.slice_axis_mut(Axis(1), (head * to..(head + 1) * to).into())
                .assign(&made);
        }
        out
    }

    /// What a block makes of all tokens of a state, and how much attention each token gives to each slot there is.
    fn execute(&self, block: usize, placed: &Array2<f64>) -> (Array2<f64>, Vec<Array1<f64>>) {
        let path = format!("pool.{block}.block.");
        let bias = self.values[&format!("memory.blocks.{block}.bias")][[0, 0]];
        let kept = kept(self.config.retention(), self.slots.len());
        let output = each_sequence(placed, SEQ, |sequence, x| {
            let own = projected(self.values, &path, x, 0);
            let rows = sequence * SEQ..(sequence + 1) * SEQ;
            let mut among = Vec::new();
            for &slot in &kept {
                let ([keys, of_values], there) = &self.slots[slot];
                let part = |x: &Array2<f64>| cut(x, 0, rows.clone());
                let keys = self.through(block, "key_read", &part(keys));
                let of_values = self.through(block, "value_read", &part(of_values));
                among.push((keys, of_values, there[rows.clone()].to_vec()));
            }
            among.push((own[1].clone(), own[2].clone(), vec![true; SEQ]));
            let join = |parts: Vec<_>| ndarray::concatenate(Axis(0), &parts).expect("one width");
            let keys = join(among.iter().map(|part| part.0.view()).collect());
            let of_values = join(among.iter().map(|part| part.1.view()).collect());
            let sees = |query: usize, key: usize| {
                let (slot, token) = (key / SEQ, key % SEQ);
                let added = if slot < kept.len() { bias } else { 0.0 };
                (among[slot].2[token] && token <= query).then_some(added)
            };
            let attended = attended([&own[0], &keys, &of_values], SIZES.heads.n_heads, sees);
            ended(self.values, &path, x, &attended)
        });
        // Attention to a slot is what is found where values are 1 in that slot and 0 elsewhere.
        let mass = |place| self.mass(block, placed, &kept, bias, |key| key / SEQ == place);
        (output, (0..kept.len()).map(mass).collect())
    }

    /// How much attention each token gives to each place of each slot there is, by the step at which it was `written`, and to what
    /// the block makes itself.
    fn shares(
        &self,
        block: usize,
        placed: &Array2<f64>,
        written: &[usize],
    ) -> Vec<(Column, Array1<f64>)> {
        let bias = self.values[&format!("memory.blocks.{block}.bias")][[0, 0]];
        let kept = kept(self.config.retention(), self.slots.len());
        let share = |column: usize| {
            let share = self.mass(block, placed, &kept, bias, |key| key == column);
            (Some((written[kept[column / SEQ]], column % SEQ)), share)
        };
        let own = self.mass(block, placed, &kept, bias, |key| key >= kept.len() * SEQ);
        let columns = (0..kept.len() * SEQ).map(share);
        columns.chain([(None, own)]).collect()
    }

    fn mass(
        &self,
        block: usize,
        placed: &Array2<f64>,
        kept: &[usize],
        bias: f64,
        counts: impl Fn(usize) -> bool,
    ) -> Array1<f64> {
        let path = format!("pool.{block}.block.");
        let found = each_sequence(placed, SEQ, |sequence, x| {
            let own = projected(self.values, &path, x, 0);
            let rows = sequence * SEQ..(sequence + 1) * SEQ;
            let slots = kept.iter().map(|&slot| &self.slots[slot]);
            let mut keys: Vec<Array2<f64>> = slots
                .map(|([keys, _], _)| self.through(block, "key_read", &cut(keys, 0, rows.clone())))
                .collect();
            keys.push(own[1].clone());
            let views: Vec<_> = keys.iter().map(|x| x.view()).collect();
            let keys = ndarray::concatenate(Axis(0), &views).expect("one width");
            let ones =
                Array2::from_shape_fn(keys.dim(), |(key, _)| f64::from(u8::from(counts(key))));
            attended(
                [&own[0], &keys, &ones],
                SIZES.heads.n_heads,
                |query, key| {
                    let (slot, token) = (key / SEQ, key % SEQ);
                    let there = slot == kept.len() || self.slots[kept[slot]].1[rows.start + token];
                    let added = if slot < kept.len() { bias } else { 0.0 };
                    (there && token <= query).then_some(added)
                },
            )
        });
        found.mean_axis(Axis(1)).expect("a width")
    }

    /// A slot of what the blocks made; `share` says how much of a token is of a block.
    fn write(
        &mut self,
        placed: &[Option<Array2<f64>>],
        actions: &[usize],
        share: impl Fn(usize, usize) -> f64,
    ) {
        let there: Vec<bool> = actions.iter().map(|&action| action < N_POOL).collect();
        if self.config.lifecycle == Lifecycle::Reference && there.iter().all(|&there| !there) {
            return;
        }
        let width = SIZES.heads.n_heads * kept_width(self.config.compression);
        let mut sums = [(); 2].map(|()| Array2::zeros([N_TOKENS, width]));
        for (block, placed) in placed.iter().enumerate() {
            let Some(placed) = placed else { continue };
            let path = format!("pool.{block}.block.");
            for (index, map) in ["key_write", "value_write"].into_iter().enumerate() {
                let own = each_sequence(placed, SEQ, |_, x| {
                    projected(self.values, &path, x, 0)[index + 1].clone()
                });
                let written = self.through(block, map, &own);
                for token in 0..N_TOKENS {
                    let mut sum = sums[index].row_mut(token);
                    sum.scaled_add(share(token, block), &written.row(token));
                }
            }
        }
        self.slots.push((sums, there));
    }
}

fn kept_width(compression: Compression) -> usize {
    match compression {
        Compression::None => D_HEAD,
        Compression::Code { d_code } => d_code,
    }
}

struct PrefixCase {
    config: KeyValuePrefixConfig,
    steps: Vec<Step>,
    /// Whether outputs of blocks are mixed.
    fused: bool,
}

/// A walk in which the blocks that anybody takes run on all tokens; outputs, gradients, and what was counted.
fn assert_prefix<B: AutodiffBackend>(case: &PrefixCase, with_gradients: bool) {
    let PrefixCase {
        config,
        steps,
        fused,
    } = case;
    let what = format!("{config:?}, fused {fused}");
    let device = Default::default();
    let memory = KeyValuePrefix::<B>::new(*config, &SIZES, N_POOL, &device);
    let memory = Memory::KeyValuePrefix(loud(memory, |_| 0.7));
    let pool: Vec<RoutedBlock<B>> = (0..N_POOL)
        .map(|index| {
            loud(
                RoutedBlock::new(&SIZES, None, alike(&device), &device),
                |_| 0.4 + 0.2 * index as f32,
            )
        })
        .collect();
    let states: Vec<Tensor<B, 3>> = states(steps.len(), BATCH);
    let causal = rotary().causal(SEQ);
    let share = |token: usize, block: usize| match (fused, block) {
        (true, 0) => 0.3 + 0.05 * token as f32,
        (true, _) => 0.7 - 0.05 * token as f32,
        (false, _) => f32::NAN,
    };
    let weights = (0..N_TOKENS).flat_map(|token| (0..N_POOL).map(move |block| share(token, block)));
    let weights = TensorData::new(weights.collect::<Vec<_>>(), [N_TOKENS, N_POOL]);
    let weights = Tensor::<B, 2>::from_data(weights, &device);
    let runs = |step: &Step, block: usize| *fused || step.actions.contains(&block);
    let run = |measures: Measures| {
        let pass = MemoryPass::start(Some(&memory), start(&states[0], &causal, measures));
        assert!(!pass.rests());
        let mut outputs = Vec::new();
        for (state, step) in states.iter().zip(steps) {
            for block in (0..N_POOL).filter(|&block| runs(step, block)) {
                let nowhere = state.zeros_like();
                outputs.push(pass.execute(
                    block,
                    &pool[block],
                    state.clone(),
                    nowhere,
                    &causal,
                    None,
                ));
            }
            pass.write(&Written {
                hidden: state,
                causal: &causal,
                actions: step.actions.clone(),
                walking: step.walking.clone(),
                weights: fused.then_some(&weights),
            });
        }
        (outputs, pass.recorded(), pass.usage())
    };
    let plain = |values: &Values| {
        let mut prefix = PlainPrefix {
            values,
            config: *config,
            slots: Vec::new(),
        };
        let (mut outputs, mut usage) = (Vec::new(), MemoryUse::default());
        let (mut shares, mut written) = (Shares::new(), Vec::new());
        for (index, step) in steps.iter().enumerate() {
            let state = &values[&format!("state {index}")];
            let of = |token: usize, block: usize| match (step.actions[token], fused) {
                (OUT, _) => 0.0,
                (_, true) => f64::from(share(token, block)),
                (action, false) => f64::from(u8::from(action == block)),
            };
            let mut placed = vec![None; N_POOL];
            for block in (0..N_POOL).filter(|&block| runs(step, block)) {
                let (output, masses) = prefix.execute(block, state);
                outputs.push(output);
                placed[block] = Some(state.clone());
                let n_slots = prefix.slots.len();
                let mut mass = vec![0.0; n_slots.max(1)];
                for (&slot, of_tokens) in kept(config.retention(), n_slots).iter().zip(&masses) {
                    mass[n_slots - 1 - slot] += (0..N_TOKENS)
                        .map(|token| of(token, block) * of_tokens[token])
                        .sum::<f64>();
                }
                let at = ReadAt::Block {
                    step: index + 1,
                    block,
                };
                for (column, of_tokens) in prefix.shares(block, state, &written) {
                    let readers = (0..N_TOKENS).filter(|&token| of(token, block) > 0.0);
                    for token in readers.filter(|&token| of_tokens[token] > 0.0) {
                        let writer = |(step, place)| (step, token - token % SEQ + place);
                        shares.insert((token, at, column.map(writer)), of_tokens[token]);
                    }
                }
                let reads: f64 = (0..N_TOKENS).map(|token| of(token, block)).sum();
                let bias = values[&format!("memory.blocks.{block}.bias")][[0, 0]];
                usage.add(&MemoryUse {
                    reads,
                    mass,
                    share: None,
                    open: reads * bias.exp(),
                });
            }
            prefix.write(&placed, &step.actions, of);
            written.resize(prefix.slots.len(), index + 1);
        }
        (outputs, shares, usage)
    };
    let mut values = values_of("memory.", &memory);
    for (index, block) in pool.iter().enumerate() {
        values.extend(values_of(&format!("pool.{index}."), block));
    }
    let at = with_states(values, &states);
    let (outputs, unkept, uncounted) = run(Measures::Nothing);
    assert!(uncounted.0.is_none() && unkept.is_empty());
    let (expected, shares, usage) = plain(&at);
    assert_eq!(outputs.len(), expected.len());
    for (index, (output, expected)) in outputs.iter().zip(&expected).enumerate() {
        assert_near(
            &format!("{what}: output {index}"),
            &found(output),
            expected,
            SINGLE,
        );
    }
    let (_, unkept, sums) = run(Measures::Sums);
    assert!(unkept.is_empty());
    assert_usage(sums.0.as_ref().expect("reads"), &usage);
    let (same, reads, kept) = run(Measures::Reads);
    for (output, same) in outputs.iter().zip(&same) {
        assert_eq!(output.to_data(), same.to_data(), "{what}");
    }
    assert_eq!(kept, sums, "{what}");
    assert_shares(&what, &reads, &shares);
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
    of.extend(gradients_of("pool.0.", &pool[0], &gradients));
    for (index, state) in states.iter().enumerate() {
        if let Some(gradient) = state.grad(&gradients) {
            of.insert(format!("state {index}"), rows_of(&gradient.into_data()));
        }
    }
    // What lies behind attention is held elsewhere.
    of.retain(|name, _| {
        name.starts_with("memory.")
            || name.starts_with("state")
            || name.ends_with("query_key_value.weight")
    });
    let sum = |values: &Values| {
        let outputs = plain(values).0;
        names
            .iter()
            .zip(&outputs)
            .map(|(name, output)| weighed_rows(name, output))
            .sum()
    };
    assert_gradients(&what, &of, &at, 5.0 * SINGLE, sum);
}

fn prefix_config(
    sink: usize,
    window: usize,
    compression: Compression,
    lifecycle: Lifecycle,
) -> KeyValuePrefixConfig {
    KeyValuePrefixConfig {
        sink,
        window,
        bias: -1.0,
        compression,
        lifecycle,
    }
}

/// A walk in whose second step nobody runs a block, although all go on.
fn with_a_rest() -> Vec<Step> {
    let mut steps = steps("prefix", N_TOKENS, 5);
    steps[1] = Step {
        actions: vec![OUT; N_TOKENS],
        walking: vec![true; N_TOKENS],
    };
    steps
}

#[test]
fn blocks_attend_to_the_keys_and_values_that_are_kept_as_their_equations_say() {
    let code = Compression::Code { d_code: 3 };
    for (sink, window) in [(1, 1), (0, 2), (2, 0), (4, 32)] {
        for (compression, fused) in [(Compression::None, false), (code, true)] {
            for lifecycle in [Lifecycle::Frozen, Lifecycle::Reference] {
                let config = prefix_config(sink, window, compression, lifecycle);
                let steps = with_a_rest();
                assert_prefix::<Passes>(
                    &PrefixCase {
                        config,
                        steps,
                        fused,
                    },
                    false,
                );
            }
        }
    }
}

#[test]
fn kept_keys_and_values_have_the_gradients_of_their_equations() {
    let config = prefix_config(1, 1, Compression::Code { d_code: 3 }, Lifecycle::Frozen);
    let steps = steps("prefix", N_TOKENS, 4);
    assert_prefix::<Passes>(
        &PrefixCase {
            config,
            steps,
            fused: false,
        },
        true,
    );
}

/// To the bit: the states as they are, blocks as they run, and nothing to count.
#[test]
fn without_a_memory_nothing_is_read_and_blocks_run_as_they_are() {
    let states: Vec<Tensor<Host, 3>> = states(2, BATCH);
    let causal = rotary().causal(SEQ);
    let routed = loud(
        RoutedBlock::<Host>::new(
            &SIZES,
            Some(3),
            alike(&Default::default()),
            &Default::default(),
        ),
        |_| 0.4,
    );
    let position: Tensor<Host, 3> = tensor("position", [BATCH, SEQ, 3]);
    let pass = MemoryPass::start(None, start(&states[0], &causal, Measures::Sums));
    assert!(pass.rests());
    for state in &states {
        assert_eq!(pass.read(state.clone()).into_data(), state.to_data());
        let output = pass.execute(0, &routed, state.clone(), position.clone(), &causal, None);
        let alone = routed.forward(state.clone(), position.clone(), &causal, None);
        assert_eq!(output.into_data(), alone.into_data());
        pass.write(&Written {
            hidden: state,
            causal: &causal,
            actions: vec![0; N_TOKENS],
            walking: vec![true; N_TOKENS],
            weights: None,
        });
    }
    assert_eq!(
        pass.read_last(states[1].clone()).into_data(),
        states[1].to_data()
    );
    assert!(pass.usage().0.is_none());
}

/// A gate far to the left lets nothing through, and a code that is zero stays zero: nothing is divided by its length.
#[test]
fn a_closed_gate_changes_nothing_and_a_code_of_nothing_is_nothing() {
    let config = codes_config(
        Adapters::Shared,
        0,
        Window { sink: 1, window: 1 },
        Lifecycle::Frozen,
    );
    let mut memory: HiddenCode<Host> = codes_memory(config);
    memory.read[0].gate = burn::module::Param::from_data([-200.0], &Default::default());
    let state: Tensor<Host, 3> = tensor("state", [BATCH, SEQ, D_MODEL]);
    let causal = rotary().causal(SEQ);
    let mut codes = Codes::new(&memory, start(&state, &causal, Measures::Nothing));
    assert_eq!(codes.read(state.clone()).into_data(), state.to_data());
    let code = found(&memory.write[0].forward(state.zeros_like()));
    assert!(code.iter().all(|&number| number == 0.0), "{code}");
    let code = found(&memory.write[0].forward(state * 1e-3));
    assert!(
        code.rows()
            .into_iter()
            .all(|code| (code.dot(&code) - 1.0).abs() < 1e-5),
        "{code}"
    );
}

/// A gate lets `σ(−4)`, 1.8 %, through; what heads add is nothing at first, from small numbers that differ by map and seed.
#[test]
fn a_memory_starts_nearly_closed() {
    let window = Window { sink: 1, window: 1 };
    let codes = HiddenCodeConfig {
        d_code: 50,
        ..codes_config(Adapters::Shared, 1, window, Lifecycle::Frozen)
    };
    let prefix = prefix_config(1, 1, Compression::None, Lifecycle::Frozen);
    // Twenty heads, each of them as wide as a code.
    let sizes = BlockSizes {
        d_model: 1000,
        heads: Heads {
            n_heads: 20,
            n_kv_heads: 20,
            d_head: 50,
        },
        ..SIZES
    };
    let scaled = Initial::Scaled { std: 0.3 };
    let device = Default::default();
    let of_codes = |seed| {
        let memory = Memory::HiddenCode(HiddenCode::<Host>::new(codes, &sizes, 3, &device));
        parameter::collect(&draw(memory, scaled, 1, Ratios::default(), seed))
    };
    let memory = Memory::KeyValuePrefix(KeyValuePrefix::<Host>::new(prefix, &sizes, 2, &device));
    let of_prefix = parameter::collect(&draw(memory, scaled, 1, Ratios::default(), 1));
    let numbers =
        |all: &BTreeMap<String, TensorData>, path: &str| -> Vec<f32> { all[path].iter().collect() };
    assert_eq!(numbers(&of_codes(1), "read.0.gate"), [-4.0]);
    assert_eq!(numbers(&of_prefix, "blocks.1.bias"), [-1.0]);
    assert_eq!(numbers(&of_codes(1), "write.0.heads.up"), [0.0; 20 * 50]);
    let code = numbers(&of_codes(1), "write.0.code.weight");
    assert_eq!(
        code[0],
        (0.3 * random::normal(random::key(1, "write.0.code.weight", 0), 0)) as f32,
        "a map like any other"
    );
    let down = |path: &str, seed| numbers(&of_codes(seed), path);
    let numbers = down("write.0.heads.down", 1);
    let square: f64 = numbers
        .iter()
        .map(|&number| f64::from(number).powi(2))
        .sum();
    // Of a thousand draws the deviation is known to a fortieth.
    assert!(
        ((square / 1000.0).sqrt() / 0.02 - 1.0).abs() < 0.1,
        "{square}"
    );
    assert_ne!(down("read.0.heads.down", 1), numbers);
    assert_ne!(down("write.0.heads.down", 2), numbers);
    assert_eq!(down("write.0.heads.down", 1), numbers);
}

#[test]
fn a_memory_that_can_hold_nothing_is_refused_by_the_name_of_its_field() {
    let codes = codes_config(
        Adapters::Shared,
        0,
        Window { sink: 1, window: 0 },
        Lifecycle::Frozen,
    );
    let prefix = prefix_config(0, 1, Compression::Code { d_code: 1 }, Lifecycle::Frozen);
    let refused = |memory: MemoryConfig| -> Vec<String> {
        let errors = memory.check().into_iter();
        errors.map(|error| error.field.to_string()).collect()
    };
    let of_codes = |config| refused(MemoryConfig::HiddenCode(config));
    let of_prefix = |config| refused(MemoryConfig::KeyValuePrefix(config));
    assert_eq!(refused(MemoryConfig::None), [""; 0]);
    assert_eq!(of_codes(codes), [""; 0]);
    assert_eq!(of_prefix(prefix), [""; 0]);
    assert_eq!(
        of_codes(HiddenCodeConfig { d_code: 0, ..codes }),
        ["memory.d_code"]
    );
    assert_eq!(
        of_codes(HiddenCodeConfig { sink: 0, ..codes }),
        ["memory.window"]
    );
    assert_eq!(
        of_prefix(KeyValuePrefixConfig {
            window: 0,
            ..prefix
        }),
        ["memory.window"]
    );
    let compression = Compression::Code { d_code: 0 };
    assert_eq!(
        of_prefix(KeyValuePrefixConfig {
            compression,
            ..prefix
        }),
        ["memory.compression.d_code"]
    );
    for bias in [f64::NAN, f64::INFINITY] {
        assert_eq!(
            of_prefix(KeyValuePrefixConfig { bias, ..prefix }),
            ["memory.bias"]
        );
    }
    let shared = |codes| AttendedConfig::SharedCode(SharedCodeConfig { d_code: 1, codes });
    let both = |codes, attended| refused(MemoryConfig::Both(BothConfig { codes, attended }));
    let last = shared(SharedCodes::CurrentAndLast { bias: 0.0 });
    assert_eq!(both(codes, last), [""; 0]);
    assert_eq!(both(codes, AttendedConfig::KeyValuePrefix(prefix)), [""; 0]);
    assert_eq!(
        both(codes, shared(SharedCodes::Current)),
        ["memory.attended.codes"]
    );
    let reference = HiddenCodeConfig {
        lifecycle: Lifecycle::Reference,
        d_code: 0,
        ..codes
    };
    assert_eq!(
        both(reference, last),
        ["memory.codes.d_code", "memory.codes.lifecycle"]
    );
    let nothing = KeyValuePrefixConfig {
        window: 0,
        ..prefix
    };
    assert_eq!(
        both(reference, AttendedConfig::KeyValuePrefix(nothing)),
        [
            "memory.codes.d_code",
            "memory.attended.window",
            "memory.attended.lifecycle"
        ]
    );
}
