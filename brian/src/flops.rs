//! FLOPs of a forward pass: two for every product in a matrix multiplication. For a routed model they are counted from its
//! recorded walks, by the tokens that each block really ran on, keys, values and the router included. Norms, softmax and other
//! elementwise operations are left out. A training step costs [`TRAINING`] times as much.

use crate::baseline::BaselineConfig;
use crate::block::Heads;
use crate::memory::custom::CodeFlops;
use crate::memory::slots::Seen;
use crate::memory::window::Window;
use crate::memory::{
    Adapters, AttendedConfig, Compression, KeyValuePrefixConfig, Lifecycle, MemoryConfig,
    SharedCodeConfig, SharedCodes,
};
use crate::model::BrianConfig;
use crate::route::parallel::Parallel;
use crate::route::position::Injection;
use crate::route::rules::{Attends, Execution, Sees};
use crate::route::trace::{Decisions, Origin, Walks};
use crate::segments::Segments;
use std::collections::BTreeSet;

/// FLOPs of forward and backward relative to forward alone: backward costs twice as much as forward.
pub const TRAINING: f64 = 3.0;

/// FLOPs of a block per token.
#[derive(Clone, Copy, Debug)]
struct BlockFlops {
    keys_values: f64,
    /// Queries, output and feed-forward.
    rest: f64,
    /// Attention to one key.
    per_key: f64,
}

impl BlockFlops {
    fn new(d_model: usize, d_ff: usize, heads: Heads) -> Self {
        let (d_model, d_ff) = (d_model as f64, d_ff as f64);
        let (d_queries, d_keys) = (heads.d_queries() as f64, heads.d_keys() as f64);
        Self {
            keys_values: 4.0 * d_model * d_keys,
            rest: 4.0 * d_model * d_queries + 6.0 * d_model * d_ff,
            per_key: 4.0 * d_queries,
        }
    }

    fn whole(&self, n_keys: f64) -> f64 {
        self.keys_values + self.rest + self.per_key * n_keys
    }
}

impl BaselineConfig {
    /// FLOPs of one token in sequences of `seq` tokens.
    pub fn flops(&self, vocabulary: usize, seq: usize) -> f64 {
        self.flops_beside(vocabulary, seq as f64)
    }

    /// FLOPs of one token in windows that may hold several texts, the mean over tokens.
    pub fn flops_of(&self, vocabulary: usize, segments: &Segments) -> f64 {
        self.flops_beside(vocabulary, segments.mean_length())
    }

    fn flops_beside(&self, vocabulary: usize, n_keys: f64) -> f64 {
        let block = BlockFlops::new(self.d_model, self.d_ff, self.heads());
        self.n_layers as f64 * block.whole(n_keys) + head(self.d_model, vocabulary)
    }
}

fn head(d_model: usize, vocabulary: usize) -> f64 {
    2.0 * d_model as f64 * vocabulary as f64
}

impl BrianConfig {
    /// FLOPs of a pass, counted from its walks. `None` with a beam, of whose paths the walks record only one.
    pub fn flops(&self, vocabulary: usize, walks: &Walks) -> Option<f64> {
        if self.route.parallel != Parallel::None {
            return None;
        }
        let n_tokens = walks.batch * walks.seq;
        let heads = self.baseline().heads();
        let texts = walks.texts();
        let around = BlockFlops::new(self.d_model, self.d_ff, heads).whole(texts.mean_length());
        let exit = 2.0 * (self.d_model * self.d_model) as f64 + self.position();
        let fixed =
            (self.n_pre + self.n_post) as f64 * around + exit + head(self.d_model, vocabulary);
        let mut total = fixed * n_tokens as f64;
        let mut rests = Rests::new(n_tokens, self.n_pool);
        for (index, step) in walks.steps.iter().enumerate() {
            rests.earlier = self.earlier(index, &rests.wrote, n_tokens);
            total += self.asking(step, &mut rests) + self.current_codes(step, &mut rests);
            for block in 0..self.n_pool {
                total += self.block(index, step, block, &texts, &mut rests);
            }
            let wrote = step.actions.iter().map(|&action| action < self.n_pool);
            rests.wrote.push(wrote.collect());
        }
        Some(total + self.codes(walks, &texts))
    }

    /// Walks of `max_steps` steps: at each step all tokens run the same block (`together`), or neighbours run different ones.
    pub fn longest_walks(&self, seq: usize, together: bool) -> Walks {
        let step = |index: usize| Decisions {
            actions: (0..seq)
                .map(|token| (index + if together { 0 } else { token }) % self.n_pool)
                .collect(),
            origins: vec![Origin::Router; seq],
            fused: vec![false; seq],
            probabilities: vec![0.0; seq * (self.n_pool + 1)],
            ..Decisions::default()
        };
        Walks {
            batch: 1,
            seq,
            n_pool: self.n_pool,
            max_steps: self.route.max_steps,
            steps: (0..self.route.max_steps).map(step).collect(),
            ..Walks::default()
        }
    }

    /// FLOPs of adding the position to a block's input, per token.
    fn position(&self) -> f64 {
        match self.position.injection {
            Injection::Adapter => 2.0 * (self.position.d_position * self.d_model) as f64,
            Injection::Direct => 0.0,
        }
    }

    fn execution(&self) -> Execution {
        let codes = self.memory.codes();
        let rests = codes.is_none_or(|codes| codes.lifecycle == Lifecycle::Frozen)
            && self.memory.attended().is_none_or(|of| of.is_frozen());
        match rests {
            true => self.route.execution,
            false => Execution::Dense,
        }
    }

    fn asking(&self, step: &Decisions, rests: &mut Rests) -> f64 {
        if step.probabilities.is_empty() {
            return 0.0;
        }
        let (d_model, d_position) = (self.d_model, self.position.d_position);
        let ask = 2 * (d_model + d_position) * d_model + 2 * d_model * (self.n_pool + 1);
        let grouped = self.execution() == Execution::Grouped && self.route.sees == Sees::Token;
        let mut n_asked = 0;
        for (token, rests) in rests.asked.iter_mut().enumerate() {
            n_asked += usize::from(!(grouped && *rests));
            *rests = step.origins[token] == Origin::Left;
        }
        (n_asked * ask) as f64
    }

    /// One block at one step.
    fn block(
        &self,
        index: usize,
        step: &Decisions,
        block: usize,
        texts: &Segments,
        rests: &mut Rests,
    ) -> f64 {
        let n_tokens = step.actions.len();
        let top_k = step.likeliest.len() / n_tokens;
        let runs = |token: usize| match step.fused[token] {
            true => step.likeliest[token * top_k..][..top_k].contains(&block),
            false => step.actions[token] == block,
        };
        let runners: Vec<usize> = (0..n_tokens).filter(|&token| runs(token)).collect();
        if runners.is_empty() {
            return 0.0;
        }
        let cost = self.block_flops();
        let position = self.position();
        let everywhere = runners.len() == n_tokens;
        let n_keys = texts.mean_length();
        let in_one = |a: &usize, b: &usize| texts.of_token(*a) == texts.of_token(*b);
        match (self.execution(), self.route.attends) {
            (Execution::Dense, _) if let Some(memory) = self.shared_code() => {
                let some_wrote = rests.wrote.iter().flatten().any(|&wrote| wrote);
                let n_codes = match memory.codes {
                    SharedCodes::CurrentAndLast { .. } if some_wrote => 2.0 * n_keys,
                    _ => n_keys,
                };
                n_tokens as f64 * (cost.whole(n_codes) + position)
            }
            (Execution::Dense, _) => {
                let n_slots = self.kept(index).count();
                let whole = cost.whole(n_keys + n_slots as f64 * n_keys) + self.decoding(n_slots);
                n_tokens as f64 * (whole + position + self.prefix_write())
            }
            (Execution::Grouped, Attends::All)
                if everywhere && self.memory.attended().is_none() =>
            {
                n_tokens as f64 * (cost.whole(n_keys) + position)
            }
            (Execution::Grouped, Attends::Selected) => {
                let of_sequences = runners.chunk_by(in_one);
                let of = |n_runners: f64| n_runners * cost.whole(n_runners);
                let of = |runners: &[usize]| of(runners.len() as f64);
                runners.len() as f64 * position + of_sequences.map(of).sum::<f64>()
            }
            (Execution::Grouped, Attends::All) => {
                let (mut n_made, mut n_scores) = (0, 0);
                for of_sequence in runners.chunk_by(in_one) {
                    let last = of_sequence[of_sequence.len() - 1];
                    let attended = last - texts.place(last)..last + 1;
                    let n_earlier: usize = rests.earlier[attended.clone()].iter().sum();
                    n_scores += of_sequence.len() * (attended.len() + n_earlier);
                    let resting = &mut rests.blocks[block];
                    for token in attended {
                        n_made += usize::from(!resting[token]);
                        resting[token] = step.origins[token] == Origin::Left;
                    }
                }
                // Who runs is among those whose columns are made, unless these are those of states: then it alone is told its place.
                let n_told = match cost.keys_values > 0.0 {
                    true => n_made,
                    false => runners.len(),
                };
                let some_wrote = |slot: &usize| rests.wrote[*slot].contains(&true);
                let decoding = self.decoding(self.kept(index).filter(some_wrote).count());
                runners.len() as f64 * (cost.rest + self.prefix_write())
                    + n_scores as f64 * cost.per_key
                    + n_made as f64 * cost.keys_values
                    + n_told as f64 * position
                    + n_tokens as f64 * decoding
            }
        }
    }

    /// A block of the pool on one token, with the columns that it makes.
    fn block_flops(&self) -> BlockFlops {
        let heads = self.baseline().heads();
        let block = BlockFlops::new(self.d_model, self.d_ff_pool, heads);
        let Some(memory) = self.shared_code() else {
            return block;
        };
        let own = match memory.codes {
            SharedCodes::Current => 0,
            SharedCodes::CurrentAndLast { .. } => 4 * self.d_model * memory.d_code,
        };
        BlockFlops {
            keys_values: own as f64,
            // A head's query to a code, a code to a head's output; a score and a sum for each code.
            rest: block.rest + (4 * heads.d_queries() * memory.d_code) as f64,
            per_key: (4 * heads.n_heads * memory.d_code) as f64,
        }
    }

    fn shared_code(&self) -> Option<SharedCodeConfig> {
        match self.memory.attended()? {
            AttendedConfig::SharedCode(memory) => Some(memory),
            AttendedConfig::KeyValuePrefix(_) => None,
        }
    }

    fn key_value_prefix(&self) -> Option<KeyValuePrefixConfig> {
        match self.memory.attended()? {
            AttendedConfig::KeyValuePrefix(memory) => Some(memory),
            AttendedConfig::SharedCode(_) => None,
        }
    }

    /// How many columns of the memory blocks see of every token at a step, where tokens `wrote` at earlier ones.
    fn earlier(&self, index: usize, wrote: &[Vec<bool>], n_tokens: usize) -> Vec<usize> {
        let seen = match self.memory.attended() {
            Some(AttendedConfig::KeyValuePrefix(memory)) => Seen::Window(memory.retention()),
            Some(AttendedConfig::SharedCode(memory)) if memory.codes.bias().is_some() => Seen::Last,
            _ => return vec![0; n_tokens],
        };
        let slots = seen.slots(index);
        let of_token = |token| seen.of_token(&slots, |slot| wrote[slot][token]).count();
        (0..n_tokens).map(of_token).collect()
    }

    /// FLOPs of the codes of states at a step, which its blocks share; those of tokens that have left are cached.
    fn current_codes(&self, step: &Decisions, rests: &mut Rests) -> f64 {
        let Some(memory) = self.shared_code() else {
            return 0.0;
        };
        let some_run = step.actions.iter().any(|&action| action < self.n_pool);
        if memory.codes != SharedCodes::Current || !some_run {
            return 0.0;
        }
        let grouped = self.execution() == Execution::Grouped;
        let mut n_made = 0;
        for (token, rests) in rests.states.iter_mut().enumerate() {
            n_made += usize::from(!(grouped && *rests));
            *rests = step.origins[token] == Origin::Left;
        }
        (4 * self.d_model * memory.d_code * n_made) as f64
    }

    /// The slots of keys and values that blocks see at a step.
    fn kept(&self, index: usize) -> impl Iterator<Item = usize> {
        let memory = self.key_value_prefix();
        memory
            .into_iter()
            .flat_map(move |memory| memory.retention().kept(index))
    }

    /// FLOPs of decoding the codes of so many slots, per token.
    fn decoding(&self, n_slots: usize) -> f64 {
        match self.key_value_prefix().map(|memory| memory.compression) {
            // Two maps of d_head x d_code for each head of a key and its value.
            Some(Compression::Code { d_code }) => {
                (4 * self.baseline().heads().d_keys() * d_code * n_slots) as f64
            }
            Some(Compression::None) | None => 0.0,
        }
    }

    /// FLOPs of encoding the key and the value of one token.
    fn prefix_write(&self) -> f64 {
        match self.key_value_prefix().map(|memory| memory.compression) {
            Some(Compression::Code { d_code }) => {
                (4 * self.baseline().heads().d_keys() * d_code) as f64
            }
            Some(Compression::None) | None => 0.0,
        }
    }

    /// FLOPs of a memory of codes: a write before the walk and after every step, a read before every step and behind the exit.
    /// Each set of maps in use runs on all tokens.
    fn codes(&self, walks: &Walks, texts: &Segments) -> f64 {
        let Some(memory) = self.kept_codes() else {
            return 0.0;
        };
        let n_tokens = walks.batch * walks.seq;
        let (write, n_keys) = (memory.flops.write as f64, texts.mean_length());
        let read = |n_slots: usize| {
            let n_columns = memory.retention.kept(n_slots).count() as f64 * n_keys;
            memory.flops.read as f64 + memory.flops.per_code as f64 * n_columns
        };
        let mut last = vec![self.n_pool; n_tokens];
        let mut walking = vec![true; n_tokens];
        // How many slots there were when each token was walking.
        let mut seen = vec![1; n_tokens];
        let n_maps = |last: &[usize], tokens: &dyn Fn(usize) -> bool| {
            let map = |token: usize| match memory.adapters {
                Adapters::Shared => 0,
                Adapters::PerBlock => last[token],
            };
            let tokens = (0..n_tokens).filter(|&token| tokens(token));
            tokens.map(map).collect::<BTreeSet<usize>>().len() as f64
        };
        let mut per_token = write;
        for (index, step) in walks.steps.iter().enumerate() {
            let n_slots = index + 1;
            per_token += n_maps(&last, &|token| walking[token]) * read(n_slots);
            last.clone_from(&step.actions);
            per_token += n_maps(&last, &|_| true) * write;
            for token in 0..n_tokens {
                let leaves = walks.hard_exit && step.actions[token] == self.n_pool;
                walking[token] &= !(leaves && memory.lifecycle == Lifecycle::Frozen);
                if walking[token] {
                    seen[token] = n_slots + 1;
                }
            }
        }
        for n_slots in seen.iter().copied().collect::<BTreeSet<usize>>() {
            per_token += n_maps(&last, &|token| seen[token] == n_slots) * read(n_slots);
        }
        n_tokens as f64 * per_token
    }

    fn kept_codes(&self) -> Option<KeptCodes> {
        if let MemoryConfig::Custom(memory) = self.memory {
            return Some(KeptCodes {
                retention: memory.rule().retention(),
                adapters: Adapters::Shared,
                lifecycle: Lifecycle::Frozen,
                flops: memory.rule().flops(self.d_model),
            });
        }
        let memory = self.memory.codes()?;
        let (d_model, d_code) = (self.d_model, memory.d_code);
        let map = 2 * d_model * d_code;
        let heads = 2 * memory.head_rank * (d_model + self.n_heads * d_code);
        Some(KeptCodes {
            retention: memory.retention(),
            adapters: memory.adapters,
            lifecycle: memory.lifecycle,
            flops: CodeFlops {
                write: map + heads,
                read: 2 * map + heads,
                per_code: 4 * d_code,
            },
        })
    }
}

/// A memory of codes as far as it is counted.
struct KeptCodes {
    retention: Window,
    adapters: Adapters,
    lifecycle: Lifecycle,
    flops: CodeFlops,
}

/// Which tokens had left, so that their rows are cached.
struct Rests {
    asked: Vec<bool>,
    /// Per block, their keys and values.
    blocks: Vec<Vec<bool>>,
    /// Their codes, where all blocks share them.
    states: Vec<bool>,
    /// Which tokens wrote into a memory, step by step.
    wrote: Vec<Vec<bool>>,
    /// How many columns of the memory blocks see of each at this step.
    earlier: Vec<usize>,
}

impl Rests {
    fn new(n_tokens: usize, n_pool: usize) -> Self {
        Self {
            asked: vec![false; n_tokens],
            blocks: vec![vec![false; n_tokens]; n_pool],
            states: vec![false; n_tokens],
            wrote: Vec::new(),
            earlier: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compat;
    use crate::initial::Initial;
    use crate::memory::HiddenCodeConfig;

    const VOCABULARY: usize = 50;
    const SEQ: usize = 12;

    fn config() -> BrianConfig {
        let baseline = BaselineConfig {
            d_model: 16,
            n_heads: 2,
            d_ff: 40,
            n_layers: 5,
            context: SEQ,
            rope_base: 10_000.0,
            norm_epsilon: 1e-6,
            initial: Initial::Scaled { std: 0.02 },
            ..BaselineConfig::small()
        };
        let mut config = compat::brian(baseline, 1, 3, 4, 3);
        config.route.top_k = 1;
        config.route.execution = Execution::Grouped;
        config
    }

    fn counted(config: &BrianConfig, walks: &Walks) -> f64 {
        config.flops(VOCABULARY, walks).expect("one path")
    }

    #[test]
    fn a_path_that_all_tokens_walk_costs_its_blocks_the_exit_and_the_router() {
        let config = config();
        let walks = config.longest_walks(SEQ, true);
        let baseline = config.baseline().flops(VOCABULARY, SEQ);
        let (d_model, d_position) = (16.0, 4.0);
        let place = 2.0 * d_position * d_model;
        let router = 2.0 * (d_model + d_position) * d_model + 2.0 * d_model * 4.0;
        let exit = 2.0 * d_model * d_model + place;
        let expected = baseline + exit + 3.0 * (router + place);
        let found = counted(&config, &walks) / SEQ as f64;
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }

    #[test]
    fn tokens_apart_cost_keys_and_values_of_every_block_and_dense_execution_every_block() {
        let mut config = config();
        let together = counted(&config, &config.longest_walks(SEQ, true));
        let walks = config.longest_walks(SEQ, false);
        let apart = counted(&config, &walks);
        let (d_model, place) = (16.0, 128.0);
        let (keys_values, per_key) = (4.0 * d_model * d_model, 4.0 * d_model);
        // At each of three steps each block makes keys up to its last token, 12, 11 and 10 of them, not 12 once, and of twelve
        // tokens four see each of these.
        let seen = 12.0 + 11.0 + 10.0;
        let more = 3.0 * ((seen - 12.0) * (keys_values + place) + (4.0 * seen - 144.0) * per_key);
        assert!((apart - together - more).abs() < 1e-6, "{apart} {together}");
        config.route.execution = Execution::Dense;
        let whole =
            4.0 * d_model * d_model * 2.0 + 6.0 * d_model * 40.0 + 4.0 * d_model * SEQ as f64;
        let more = 3.0 * SEQ as f64 * 2.0 * (whole + place);
        let dense = counted(&config, &walks);
        assert!((dense - together - more).abs() < 1e-6, "{dense} {together}");
        config.route.execution = Execution::Grouped;
        config.route.attends = Attends::Selected;
        assert!(counted(&config, &walks) < together);
    }

    #[test]
    fn texts_of_one_window_cost_what_each_costs_alone() {
        use crate::segments::Segments;
        use std::sync::Arc;
        let lengths = [5, 1, 6];
        let mut config = config();
        for execution in [Execution::Dense, Execution::Grouped] {
            config.route.execution = execution;
            let alone = lengths.map(|length| counted(&config, &config.longest_walks(length, true)));
            let mut walks = config.longest_walks(SEQ, true);
            walks.segments = Some(Arc::new(Segments::new(SEQ, &lengths)));
            let together = counted(&config, &walks);
            assert!((together - alone.iter().sum::<f64>()).abs() < 1e-6);
            // Neighbours that run different blocks: keys of a text's own tokens alone.
            let mut walks = config.longest_walks(SEQ, false);
            let whole = counted(&config, &walks);
            walks.segments = Some(Arc::new(Segments::new(SEQ, &lengths)));
            assert!(counted(&config, &walks) < whole);
        }
        let baseline = config.baseline();
        let alone = lengths.map(|length| length as f64 * baseline.flops(VOCABULARY, length));
        let segments = Segments::new(SEQ, &lengths);
        let together = SEQ as f64 * baseline.flops_of(VOCABULARY, &segments);
        assert!((together - alone.iter().sum::<f64>()).abs() < 1e-6);
    }

    #[test]
    fn who_has_left_costs_no_more() {
        let config = config();
        let mut walks = config.longest_walks(SEQ, false);
        let all = counted(&config, &walks);
        for step in &mut walks.steps {
            step.actions[5] = config.n_pool;
            step.origins[5] = Origin::Left;
        }
        let without = counted(&config, &walks);
        assert!(without < all);
        walks.steps.push(Decisions {
            actions: vec![config.n_pool; SEQ],
            origins: vec![Origin::Left; SEQ],
            fused: vec![false; SEQ],
            ..Decisions::default()
        });
        assert_eq!(counted(&config, &walks), without);
    }

    #[test]
    fn several_paths_are_not_counted() {
        let mut config = config();
        config.route.parallel = Parallel::Beam {
            width: 2,
            children: 2,
            branch_cost: 0.0,
            score_decay: 1.0,
        };
        assert_eq!(config.flops(VOCABULARY, &Walks::default()), None);
    }

    /// A model small enough for paper: two FLOPs for every product of two numbers, counted map by map.
    ///
    /// | of one token | FLOPs |
    /// |---|---|
    /// | a map 2 × 2: queries, keys, values, output, the exit | 8 |
    /// | the feed-forward: three maps 2 × 3; in the pool 2 × 5 | 36; 60 |
    /// | a key: its score and its value, 2 numbers each | 8 |
    /// | telling a place: 3 × 2 | 12 |
    /// | the router: 5 × 2 and 2 × 3 | 20 + 12 |
    /// | the head: 2 × 7 | 28 |
    fn on_paper() -> BrianConfig {
        let baseline = BaselineConfig {
            d_model: 2,
            n_heads: 1,
            d_ff: 3,
            n_layers: 4,
            ..config().baseline()
        };
        let mut config = compat::brian(baseline, 1, 2, 3, 2);
        config.d_ff_pool = 5;
        config.route.execution = Execution::Grouped;
        config
    }

    /// Two blocks around the walk with two keys each, the exit with its place, and the head.
    const AROUND: f64 = 2.0 * (4.0 * 8.0 + 36.0 + 2.0 * 8.0) + (8.0 + 12.0) + 28.0;
    const ASKED: f64 = 20.0 + 12.0;
    const PLACE: f64 = 12.0;
    const KEY: f64 = 8.0;
    const KEYS_VALUES: f64 = 2.0 * 8.0;
    const REST: f64 = 2.0 * 8.0 + 60.0;
    /// A block of the pool that sees two keys.
    const BLOCK: f64 = PLACE + KEYS_VALUES + REST + 2.0 * KEY;

    /// Two tokens of one sequence; `None` for one that had left.
    fn decided(steps: &[[Option<usize>; 2]]) -> Walks {
        let step = |tokens: &[Option<usize>; 2]| Decisions {
            actions: tokens.map(|action| action.unwrap_or(2)).to_vec(),
            origins: tokens
                .map(|action| {
                    if action.is_some() {
                        Origin::Router
                    } else {
                        Origin::Left
                    }
                })
                .to_vec(),
            fused: vec![false; 2],
            probabilities: vec![0.0; 6],
            ..Decisions::default()
        };
        Walks {
            batch: 1,
            seq: 2,
            n_pool: 2,
            max_steps: steps.len(),
            steps: steps.iter().map(step).collect(),
            ..Walks::default()
        }
    }

    fn paper(config: &BrianConfig, walks: &Walks, expected: f64) {
        let found = config.flops(7, walks).expect("one path");
        assert!(
            (found - expected).abs() < 1e-9,
            "{found} and not {expected}"
        );
    }

    const TOGETHER: [[Option<usize>; 2]; 2] = [[Some(0); 2], [Some(1); 2]];
    const APART: [[Option<usize>; 2]; 2] = [[Some(0), Some(1)]; 2];

    #[test]
    fn a_baseline_counts_every_map_of_every_block_every_key_and_the_head() {
        let config = on_paper().baseline();
        // Four blocks with three keys each.
        let expected = 4.0 * (4.0 * 8.0 + 36.0 + 3.0 * 8.0) + 28.0;
        assert_eq!(config.flops(7, 3), expected);
        assert_eq!(TRAINING, 3.0);
        // Eight numbers of queries, four of keys: maps of 2 × 8, twice, and 2 × 4, twice; every key is met by all queries.
        let shared = BaselineConfig {
            n_heads: 4,
            n_kv_heads: Some(2),
            d_head: Some(2),
            ..config
        };
        let of_block = 4.0 * 2.0 * 8.0 + 4.0 * 2.0 * 4.0 + 36.0 + 3.0 * 4.0 * 8.0;
        assert_eq!(shared.flops(7, 3), 4.0 * of_block + 28.0);
    }

    #[test]
    fn a_walk_counts_its_blocks_its_questions_and_what_is_around_it() {
        let mut config = on_paper();
        let both = |of_token: f64| 2.0 * of_token;
        let walked = both(AROUND + 2.0 * (ASKED + BLOCK));
        paper(&config, &decided(&TOGETHER), walked);
        // Nobody is asked about a path that a teacher leads.
        let mut taught = decided(&TOGETHER);
        taught
            .steps
            .iter_mut()
            .for_each(|step| step.probabilities.clear());
        paper(&config, &taught, both(AROUND + 2.0 * BLOCK));
        // The exit and two blocks are told a place.
        config.position.injection = Injection::Direct;
        paper(&config, &decided(&TOGETHER), walked - both(3.0 * PLACE));
    }

    #[test]
    fn tokens_apart_count_what_each_block_makes_of_those_before_them() {
        let mut config = on_paper();
        let around = 2.0 * (AROUND + 2.0 * ASKED);
        // The first token sees one key and the second two; keys are placed and made anew at every step, those of who runs too.
        let step = 2.0 * REST + (1.0 + 2.0) * (KEY + KEYS_VALUES + PLACE);
        paper(&config, &decided(&APART), around + 2.0 * step);
        config.route.attends = Attends::Selected;
        paper(&config, &decided(&APART), around + 4.0 * (BLOCK - KEY));
        config.route.execution = Execution::Dense;
        paper(&config, &decided(&APART), around + 2.0 * 4.0 * BLOCK);
        config.route.attends = Attends::All;
        paper(&config, &decided(&APART), around + 2.0 * 4.0 * BLOCK);
    }

    #[test]
    fn a_token_that_is_fused_counts_each_of_its_likeliest_blocks() {
        let config = on_paper();
        let mut walks = decided(&[[Some(0), Some(0)]]);
        walks.steps[0].likeliest = vec![0, 1, 1, 2];
        let around = 2.0 * (AROUND + ASKED);
        // Not fused, both run what they chose.
        paper(&config, &walks, around + 2.0 * BLOCK);
        // Fused, block 0 runs on the first and block 1 on both; OUT is none.
        walks.steps[0].fused = vec![true; 2];
        let first = REST + KEY + KEYS_VALUES + PLACE;
        paper(&config, &walks, around + first + 2.0 * BLOCK);
    }

    #[test]
    fn a_token_that_left_is_asked_and_made_keys_of_once_more() {
        let mut config = on_paper();
        let walks = decided(&[[Some(2), Some(0)], [None, Some(0)], [None, Some(0)]]);
        // Asked: both, both, one. Keys of block 0: both, both, one; scores with both at each step.
        let block = 3.0 * (REST + 2.0 * KEY) + 5.0 * (KEYS_VALUES + PLACE);
        paper(&config, &walks, 2.0 * AROUND + 5.0 * ASKED + block);
        // What looks at the mean of a sequence is asked about all.
        config.route.sees = Sees::SequenceMean;
        paper(&config, &walks, 2.0 * AROUND + 6.0 * ASKED + block);
        config.route.execution = Execution::Dense;
        paper(&config, &walks, 2.0 * AROUND + 6.0 * ASKED + 6.0 * BLOCK);
    }

    #[test]
    fn a_memory_of_codes_counts_a_write_and_a_read_per_step_and_one_more() {
        let mut config = on_paper();
        let codes = HiddenCodeConfig {
            d_code: 3,
            sink: 1,
            window: 5,
            adapters: Adapters::Shared,
            head_rank: 0,
            lifecycle: Lifecycle::Frozen,
        };
        let around = 2.0 * (AROUND + 2.0 * ASKED);
        let mut holds = |codes: HiddenCodeConfig, walk: &[[Option<usize>; 2]], expected: f64| {
            config.memory = MemoryConfig::HiddenCode(codes);
            paper(&config, &decided(walk), around + expected);
        };
        let blocks = 4.0 * BLOCK;
        // A code, a query and what is read are maps 2 × 3; a column is a score and a value of 3 numbers each.
        let (maps, column) = (3.0 * 12.0, 12.0);
        // Before both steps and behind the exit there are one, two and three slots of two tokens.
        let memory = |n_slots: f64| 2.0 * (3.0 * maps + 2.0 * n_slots * column);
        holds(codes, &TOGETHER, blocks + memory(1.0 + 2.0 + 3.0));
        let short = HiddenCodeConfig {
            sink: 0,
            window: 2,
            ..codes
        };
        holds(short, &TOGETHER, blocks + memory(1.0 + 2.0 + 2.0));
        // Of rank 1 a head adds 2 × 1 and 1 × 3 to a write, 3 × 1 and 1 × 2 to a read.
        let ranked = HiddenCodeConfig {
            head_rank: 1,
            ..codes
        };
        holds(
            ranked,
            &TOGETHER,
            blocks + memory(6.0) + 2.0 * 3.0 * 2.0 * 10.0,
        );
        // Two blocks that were taken last are two adapters, each run on all tokens; before the first step there is one.
        let apart = 2.0 * 2.0 * REST + 2.0 * 3.0 * (KEY + KEYS_VALUES + PLACE);
        holds(codes, &APART, apart + memory(6.0));
        let each = HiddenCodeConfig {
            adapters: Adapters::PerBlock,
            ..codes
        };
        holds(each, &TOGETHER, blocks + memory(6.0));
        let twice = 2.0 * (maps + 2.0 * column + 2.0 * (2.0 * maps + (4.0 + 6.0) * column));
        holds(each, &APART, apart + twice);
        // With the reference's memory who has left is no longer passed over: every block on every token.
        let reference = HiddenCodeConfig {
            lifecycle: Lifecycle::Reference,
            ..codes
        };
        holds(reference, &APART, 2.0 * blocks + memory(6.0));
    }

    /// Two tokens, of which the first leaves at once: maps 2 × 3 and columns of 3 numbers as above.
    #[test]
    fn a_memory_of_codes_counts_reads_of_those_who_walk_and_one_behind_the_exit_per_number_of_slots()
     {
        let mut walks = decided(&[[Some(2), Some(0)], [None, Some(1)]]);
        walks.hard_exit = true;
        let holds = |adapters, lifecycle, [n_writes, n_reads, n_columns]: [f64; 3]| {
            let mut config = on_paper();
            if lifecycle == Lifecycle::Reference {
                config.route.execution = Execution::Dense;
            }
            let without = config.flops(7, &walks).expect("one path");
            config.memory = MemoryConfig::HiddenCode(HiddenCodeConfig {
                d_code: 3,
                sink: 1,
                window: 5,
                adapters,
                head_rank: 0,
                lifecycle,
            });
            let of_token = n_writes * 12.0 + n_reads * 24.0 + n_columns * 12.0;
            paper(&config, &walks, without + 2.0 * of_token);
        };
        // Reads: both one slot, the second two; behind the exit the first one, the second three. Each slot is two columns.
        let columns = 2.0 * (1.0 + 2.0 + 1.0 + 3.0);
        holds(Adapters::Shared, Lifecycle::Frozen, [3.0, 4.0, columns]);
        // Behind each step one has taken OUT last and the other a block: two maps write, and each read is one's own.
        holds(Adapters::PerBlock, Lifecycle::Frozen, [5.0, 4.0, columns]);
        // The reference reads for both, at each step with the maps of both.
        let columns = 2.0 * (1.0 + 2.0 * 2.0 + 2.0 * 3.0);
        holds(
            Adapters::PerBlock,
            Lifecycle::Reference,
            [5.0, 5.0, columns],
        );
    }

    #[test]
    fn a_memory_of_keys_and_values_counts_the_keys_it_kept() {
        let mut config = on_paper();
        let mut prefix = crate::memory::KeyValuePrefixConfig {
            sink: 0,
            window: 1,
            bias: 0.0,
            compression: Compression::None,
            lifecycle: Lifecycle::Frozen,
        };
        let walk = [[Some(0); 2], [Some(1); 2], [Some(0); 2]];
        let around = 2.0 * (AROUND + 3.0 * ASKED + 3.0 * BLOCK);
        config.memory = MemoryConfig::KeyValuePrefix(prefix);
        // One slot of two keys at the second step and, of two that were written, one at the third.
        paper(&config, &decided(&walk), around + 2.0 * (2.0 + 2.0) * KEY);
        prefix.window = 2;
        config.memory = MemoryConfig::KeyValuePrefix(prefix);
        paper(&config, &decided(&walk), around + 2.0 * (2.0 + 4.0) * KEY);
        // To undo a code of a key and one of a value is twice 3 × 2, once per key and not per query.
        prefix.compression = Compression::Code { d_code: 3 };
        config.memory = MemoryConfig::KeyValuePrefix(prefix);
        let undone = (2.0 + 4.0) * 2.0 * 12.0;
        // To make them, the same of each token that a block runs on.
        let made = 3.0 * 2.0 * 2.0 * 12.0;
        paper(
            &config,
            &decided(&walk),
            around + 2.0 * (2.0 + 4.0) * KEY + undone + made,
        );
        // Apart, the first token sees one key and, at the second step, one that it wrote; the second sees two and two. The codes of
        // both are undone for each block, and each token makes one of its own per step.
        let step = 2.0 * REST + (1.0 + 2.0) * (KEY + KEYS_VALUES + PLACE);
        let codes = (2.0 * 2.0 + 2.0 * 2.0) * 2.0 * 12.0;
        paper(
            &config,
            &decided(&APART),
            2.0 * (AROUND + 2.0 * ASKED) + 2.0 * step + (1.0 + 2.0) * KEY + codes,
        );
        // Dense, all blocks run on both, with two slots of two keys each at most.
        config.route.execution = Execution::Dense;
        let dense = 2.0 * 4.0 * BLOCK + 2.0 * 2.0 * 2.0 * KEY;
        let codes = (2.0 * 2.0 + 4.0 * 2.0) * 2.0 * 12.0;
        paper(
            &config,
            &decided(&APART),
            2.0 * (AROUND + 2.0 * ASKED) + dense + codes,
        );
    }

    #[test]
    fn shared_codes_count_what_blocks_share_once_and_what_they_make_for_each() {
        let mut config = on_paper();
        let d_code = 3;
        // A score and a sum of three; queries and heads of two numbers to three and back; two maps from states to codes.
        let (per_code, readers, codes) = (
            2.0 * 2.0 * 3.0,
            2.0 * 2.0 * 2.0 * 3.0,
            2.0 * 2.0 * 2.0 * 3.0,
        );
        let around = 2.0 * (AROUND + 2.0 * ASKED);
        let shared =
            |codes| MemoryConfig::SharedCode(crate::memory::SharedCodeConfig { d_code, codes });
        config.memory = shared(SharedCodes::Current);
        let runs = 2.0 * (REST + PLACE + readers) + (1.0 + 2.0) * per_code;
        paper(
            &config,
            &decided(&APART),
            around + 2.0 * (2.0 * codes + runs),
        );
        config.memory = shared(SharedCodes::CurrentAndLast { bias: 0.0 });
        let runs = 2.0 * (REST + readers) + (1.0 + 2.0) * (per_code + codes + PLACE);
        // At the second step each token shows what it wrote at the first.
        let last = (1.0 + 2.0) * per_code;
        paper(&config, &decided(&APART), around + 2.0 * runs + last);
        // The second token leaves at once: it writes nothing, and its codes at the second step are those of the first.
        let leaving = [[Some(0), None], [Some(0), None]];
        let asked = 2.0 * AROUND + 3.0 * ASKED;
        let run = REST + readers + per_code + codes + PLACE;
        paper(&config, &decided(&leaving), asked + 2.0 * run + per_code);
        config.memory = shared(SharedCodes::Current);
        let run = REST + PLACE + readers + per_code;
        paper(&config, &decided(&leaving), asked + 3.0 * codes + 2.0 * run);
    }

    #[test]
    fn two_sequences_are_twice_one_whatever_they_do() {
        let twice = |walks: &Walks| {
            let mut twice = walks.clone();
            twice.batch = 2;
            for step in &mut twice.steps {
                step.actions = step.actions.repeat(2);
                step.origins = step.origins.repeat(2);
                step.fused = step.fused.repeat(2);
                step.likeliest = step.likeliest.repeat(2);
                step.probabilities = step.probabilities.repeat(2);
            }
            twice
        };
        let codes = HiddenCodeConfig {
            d_code: 3,
            sink: 0,
            window: 2,
            adapters: Adapters::PerBlock,
            head_rank: 1,
            lifecycle: Lifecycle::Frozen,
        };
        let prefix = crate::memory::KeyValuePrefixConfig {
            sink: 0,
            window: 1,
            bias: 0.0,
            compression: Compression::Code { d_code: 4 },
            lifecycle: Lifecycle::Frozen,
        };
        let memories = [
            MemoryConfig::None,
            MemoryConfig::HiddenCode(codes),
            MemoryConfig::KeyValuePrefix(prefix),
        ];
        let leaving = [[Some(2), Some(0)], [None, Some(1)], [None, Some(0)]];
        let mut fused = decided(&[[Some(0), Some(1)]; 2]);
        for step in &mut fused.steps {
            (step.fused, step.likeliest) = (vec![true, false], vec![0, 1, 1, 2]);
        }
        let all = [
            decided(&TOGETHER),
            decided(&APART),
            decided(&leaving),
            fused,
        ];
        for (memory, walks) in memories
            .iter()
            .flat_map(|m| all.iter().map(move |walks| (m, walks)))
        {
            for execution in [Execution::Grouped, Execution::Dense] {
                for attends in [Attends::All, Attends::Selected] {
                    let mut config = BrianConfig {
                        memory: *memory,
                        ..on_paper()
                    };
                    (config.route.execution, config.route.attends) = (execution, attends);
                    let one = config.flops(7, walks).expect("one path");
                    paper(&config, &twice(walks), 2.0 * one);
                }
            }
        }
    }

    #[test]
    fn a_beam_that_is_left_out_is_one_path() {
        let mut config = on_paper();
        let expected = config.flops(7, &decided(&TOGETHER));
        config.route.parallel = Parallel::SequenceBeam {
            width: 2,
            branch_cost: 0.0,
            score_decay: 1.0,
            parent_exit: crate::route::parallel::ParentExit::Branch,
        };
        assert_eq!(config.flops(7, &decided(&TOGETHER)), None);
        let rules = crate::Rules {
            without_beam: true,
            ..crate::Rules::sequential()
        };
        assert_eq!(config.under(&rules).flops(7, &decided(&TOGETHER)), expected);
    }

    #[test]
    fn the_longest_walks_run_every_step_and_never_leave() {
        let mut config = on_paper();
        config.route.max_steps = 3;
        let actions = |together| {
            let walks = config.longest_walks(4, together);
            assert_eq!(
                (walks.batch, walks.seq, walks.n_pool, walks.max_steps),
                (1, 4, 2, 3)
            );
            assert!(
                walks
                    .steps
                    .iter()
                    .all(|step| step.origins == [Origin::Router; 4])
            );
            walks
                .steps
                .into_iter()
                .map(|step| step.actions)
                .collect::<Vec<_>>()
        };
        assert_eq!(actions(true), [[0; 4], [1; 4], [0; 4]]);
        assert_eq!(actions(false), [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]);
    }
}
