//! `CheckpointState`: the content of `state.json`, counters, hook state, best validation and hashes, and checks of its numbers;
//! `Snapshot`: this state with weights and optimizer moments, all that a checkpoint holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::keys::distinct;
use crate::run::tensors::TensorMap;

/// The version of `state.json` this program writes and reads.
pub const STATE_FORMAT: u32 = 1;
/// No counter of a run is larger: up to here every JSON reader knows whole numbers.
const MOST: u64 = 1 << 53;

/// Everything a checkpoint holds, in the memory of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Counters, hook state and hashes.
    pub state: CheckpointState,
    /// The weights by parameter path.
    pub model: TensorMap,
    /// The optimizer's moments by parameter path.
    pub optimizer: TensorMap,
    /// The moving average of the weights by parameter path; empty where none is kept.
    pub average: TensorMap,
}

/// The content of `state.json`. Float fields must be finite, as JSON has no other numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointState {
    /// [`STATE_FORMAT`].
    pub format: u32,
    /// Optimizer steps done, over all stages; it names the checkpoint's directory.
    pub step: u64,
    /// Position in the ladder of the stage that did this step, from 0.
    pub stage_index: usize,
    /// Name of that stage.
    pub stage: String,
    /// Optimizer steps done in that stage.
    pub stage_step: u64,
    /// Micro-batches drawn: the position in the data.
    pub micro_batches: u64,
    /// Targets that training has seen.
    pub tokens: u64,
    /// What another run did before this one's first step, where its optimizer is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<Earlier>,
    /// How often the optimizer has updated each parameter, by path.
    #[serde(deserialize_with = "distinct")]
    pub optimizer_times: BTreeMap<String, u64>,
    /// What each hook wants to find again, by its name.
    #[serde(deserialize_with = "distinct")]
    pub hooks: BTreeMap<String, Value>,
    /// The best validation so far; its checkpoint is kept.
    pub best: Option<Best>,
    /// The last validation's numbers of this stage.
    #[serde(deserialize_with = "distinct")]
    pub stage_valid: BTreeMap<String, f64>,
    /// Time spent training, in seconds, over all sittings.
    pub wall_s: f64,
    /// Hash of the resolved recipe.
    pub recipe_sha256: String,
    /// Hash of the tokenizer's file.
    pub tokenizer_sha256: String,
    /// Hash of each data file, by the path in the recipe.
    #[serde(deserialize_with = "distinct")]
    pub data_sha256: BTreeMap<String, String>,
    /// The program that wrote this.
    pub nerve_version: String,
    /// The backend it ran on.
    pub backend: String,
    /// How many threads it ran on: bitwise resume is promised for the same number only.
    pub threads: usize,
}

/// What another run did before this one's first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Earlier {
    /// Its optimizer steps, with those before it in turn: no parameter was updated more often.
    pub steps: u64,
    /// Micro-batches drawn; those of this run are counted on from here.
    pub micro_batches: u64,
}

/// The best validation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// The step it was measured after.
    pub step: u64,
    /// The number the recipe chooses by.
    pub value: f64,
}

impl CheckpointState {
    /// The first number that no training of ours could have written: its name, its value and what it should be.
    pub(super) fn impossible(&self) -> Option<(&'static str, String, String)> {
        let counters = [
            ("step", self.step),
            ("stage_step", self.stage_step),
            ("micro_batches", self.micro_batches),
            ("tokens", self.tokens),
            ("earlier.steps", self.earlier_steps()),
        ];
        if let Some((name, value)) = counters.iter().find(|(_, value)| *value > MOST) {
            return Some((name, value.to_string(), format!("at most {MOST}")));
        }
        let updates = self.optimizer_times.values().max().copied();
        let steps = self.step + self.earlier_steps();
        if let Some(updates) = updates.filter(|updates| *updates > steps) {
            let expected = match self.earlier {
                None => format!("at most {steps}, the step"),
                Some(_) => format!("at most {steps}, the step and those of the run before"),
            };
            return Some(("optimizer_times", updates.to_string(), expected));
        }
        let is_time = self.wall_s >= 0.0;
        (!is_time).then(|| {
            let expected = "seconds, at least 0".to_string();
            ("wall_s", self.wall_s.to_string(), expected)
        })
    }

    /// Optimizer steps of another run before this one's first.
    pub fn earlier_steps(&self) -> u64 {
        self.earlier.map_or(0, |earlier| earlier.steps)
    }

    /// The name of the first number that is not finite, which JSON cannot hold.
    pub(super) fn not_finite(&self) -> Option<String> {
        let best = self.best.map_or(0.0, |best| best.value);
        let named = [("wall_s", self.wall_s), ("best.value", best)];
        let named = named.map(|(name, value)| (name.to_string(), value));
        let valid = |(name, value): (&String, &f64)| (format!("stage_valid.{name}"), *value);
        let mut all = named.into_iter().chain(self.stage_valid.iter().map(valid));
        all.find(|(_, value)| !value.is_finite())
            .map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_to_the_bit() {
        let mut state = CheckpointState::default();
        for index in 0..20_000u64 {
            let mantissa = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12;
            state.wall_s = f64::from_bits((1000 + index % 40) << 52 | mantissa);
            let text = serde_json::to_string(&state).unwrap();
            let read: CheckpointState = serde_json::from_str(&text).unwrap();
            assert_eq!(
                read.wall_s.to_bits(),
                state.wall_s.to_bits(),
                "{}",
                state.wall_s
            );
        }
    }

    #[test]
    fn a_number_that_json_would_lose_is_named() {
        let mut state = CheckpointState::default();
        assert_eq!(state.not_finite(), None);
        state.stage_valid.insert("loss/lm".to_string(), f64::NAN);
        assert_eq!(state.not_finite().unwrap(), "stage_valid.loss/lm");
    }

    #[test]
    fn counters_beyond_what_a_training_can_reach_are_named() {
        let name = |change: fn(&mut CheckpointState)| {
            let mut state = CheckpointState {
                step: 7,
                ..CheckpointState::default()
            };
            change(&mut state);
            state.impossible().map(|(name, ..)| name)
        };
        assert_eq!(name(|_| ()), None);
        assert_eq!(name(|state| state.tokens = MOST), None);
        assert_eq!(name(|state| state.tokens = MOST + 1), Some("tokens"));
        assert_eq!(
            name(|state| state.stage_step = MOST + 1),
            Some("stage_step")
        );
        assert_eq!(
            name(|state| state.micro_batches = u64::MAX),
            Some("micro_batches")
        );
        assert_eq!(
            name(
                |state| state.optimizer_times = [("a".to_string(), 7), ("b".to_string(), 3)].into()
            ),
            None
        );
        assert_eq!(
            name(
                |state| state.optimizer_times = [("a".to_string(), 3), ("b".to_string(), 8)].into()
            ),
            Some("optimizer_times")
        );
        let after_five = |updates: u64| {
            let state = CheckpointState {
                step: 7,
                earlier: Some(Earlier {
                    steps: 5,
                    micro_batches: 0,
                }),
                optimizer_times: [("a".to_string(), updates)].into(),
                ..CheckpointState::default()
            };
            state.impossible().map(|(name, ..)| name)
        };
        let expected = [None, Some("optimizer_times")];
        assert_eq!([12, 13].map(after_five), expected);
        assert_eq!(name(|state| state.wall_s = 0.0), None);
        assert_eq!(name(|state| state.wall_s = -1e-9), Some("wall_s"));
        assert_eq!(name(|state| state.wall_s = f64::NAN), Some("wall_s"));
    }
}
