//! Estimates the least memory (`Needs`) and disk space (`Checkpoints`) of a training, and refuses it if they are not free.
//! This happens before anything is made, so that no process is killed and no checkpoint finds a full disk.

use super::build::Blueprint;
use super::inputs::Inputs;
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::learner::group_of;
use crate::model::Shapes;
use crate::recipe::nearest::{nearest, one_of};
use crate::recipe::{Freeze, Recipe, Stage};
use crate::run::Disk;
use burn::tensor::backend::AutodiffBackend;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// The size of a training.
pub struct Needs {
    /// Parameters of the largest stage.
    pub parameters: u64,
    weights: u64,
    gradients: u64,
    moments: u64,
    average: u64,
    activations: u64,
}

impl Needs {
    /// Counts without creating a parameter.
    ///
    /// # Errors
    /// `Resource` if the device does not start.
    pub fn of(recipe: &Recipe, inputs: &Inputs) -> Result<Self, Error> {
        let vocabulary = recipe.rows(inputs.tokenizer.vocabulary_size());
        let blueprint = Blueprint {
            recipe,
            vocabulary,
            counts: inputs.counts.as_ref(),
            ranks: None,
        };
        let parameters = device::run(&recipe.device, Count { blueprint })?;
        Ok(Self::of_sizes(recipe, vocabulary, parameters))
    }

    /// With so many parameters in the largest stage.
    pub fn of_sizes(recipe: &Recipe, vocabulary: usize, parameters: u64) -> Self {
        let window = recipe.data.window;
        let recompute = recipe.batch.recompute;
        let account = recipe.model.account(vocabulary, window, recompute);
        let tokens = recipe.batch.sequences as u64 * window as u64;
        let weights = account.bytes_per_parameter * parameters;
        Self {
            parameters,
            weights,
            gradients: if account.has_gradients { weights } else { 0 },
            moments: recipe.optimizer.moments().len() as u64 * weights,
            average: recipe.average.as_ref().map_or(0, |_| weights),
            activations: tokens.saturating_mul(account.activation_bytes_per_token),
        }
    }

    /// Bytes it cannot do without, by what they are for.
    pub fn by_kind(&self) -> [(&'static str, u64); 5] {
        [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("moments of the optimizer", self.moments),
            ("average of the weights", self.average),
            ("activations", self.activations),
        ]
    }

    /// Bytes it cannot do without. The truth is higher.
    pub fn bytes(&self) -> u64 {
        let bytes = self.by_kind().map(|(_, bytes)| bytes);
        bytes.into_iter().fold(0, u64::saturating_add)
    }

    /// Compares what one of so many ranks needs with the memory of this machine; a device with a memory of its own is not asked.
    ///
    /// # Errors
    /// `Resource` with both numbers and what to lower.
    pub fn check(&self, recipe: &Recipe, n_ranks: usize) -> Result<(), Error> {
        let shared_out = match recipe.model.family().tables.is_empty() {
            true => 0,
            false => self.weights.saturating_add(self.moments),
        };
        let elsewhere = shared_out - shared_out / n_ranks as u64;
        let needed = self.bytes().saturating_sub(elsewhere);
        let free = device::free_memory_bytes(&recipe.device);
        let Some(free) = free.filter(|free| *free < needed) else {
            return Ok(());
        };
        let cause = format!(
            "it needs at least {} MB and {} MB are free; lower batch.sequences (and raise batch.accumulate) or the \
             sizes in [model]",
            needed / 1_000_000,
            free / 1_000_000
        );
        Err(Error::resource(
            "memory",
            "hold this training",
            io::Error::other(cause),
        ))
    }
}

/// The checkpoints that a training will add to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    /// How many there are already.
    pub existing: u64,
    /// How often one will be saved.
    pub saves: u64,
    /// How many may be there at once, with the one that is being written.
    pub at_once: u64,
}

impl Checkpoints {
    /// Of a recipe with so many steps left in each stage that is still to be trained, and so many checkpoints there.
    pub fn of(recipe: &Recipe, steps_left: &[u64], existing: u64) -> Self {
        let (kept, watch) = (&recipe.checkpoint, &recipe.watch);
        let best = kept.keep_best && watch.valid_every_steps > 0;
        let saves = steps_left.iter().map(|steps| {
            let regular = steps.div_ceil(kept.every_steps);
            let validated = match best {
                true => steps.div_ceil(watch.valid_every_steps),
                false => 0,
            };
            regular + validated
        });
        Self {
            existing,
            saves: saves.fold(0, u64::saturating_add),
            at_once: kept.keep_last.max(2) as u64 + u64::from(best) + recipe.stage.len() as u64,
        }
    }

    /// How many more than now there will be at once.
    pub fn more(&self) -> u64 {
        let more = self.at_once.saturating_sub(self.existing).max(1);
        more.min(self.saves)
    }
}

impl Needs {
    /// Bytes of one checkpoint: what it holds, and a tenth for names, headers and the state.
    pub fn checkpoint_bytes(&self) -> u64 {
        let held = self.weights.saturating_add(self.moments);
        let held = held.saturating_add(self.average);
        held.saturating_add(held / 10).saturating_add(128 << 10)
    }

    /// Compares the room that checkpoints and `copies` bytes beside them take with what is free at a place, which need
    /// not exist yet.
    ///
    /// # Errors
    /// `Resource` with both numbers and what to lower.
    pub fn check_space(
        &self,
        disk: &dyn Disk,
        place: &Path,
        checkpoints: Checkpoints,
        copies: u64,
    ) -> Result<(), Error> {
        let there = place.ancestors().find(|place| place.exists());
        let there = there.filter(|place| !place.as_os_str().is_empty());
        // A file system that does not tell is asked again when a checkpoint is written.
        let Ok(free) = disk.free_bytes(there.unwrap_or(Path::new("."))) else {
            return Ok(());
        };
        let (more, each) = (checkpoints.more(), self.checkpoint_bytes());
        let needed = more.saturating_mul(each).saturating_add(copies);
        if needed <= free {
            return Ok(());
        }
        let cause = format!(
            "{needed} bytes needed for {more} at once of {each} bytes each, {free} free; make room, or lower \
             checkpoint.keep_last or the sizes in [model]"
        );
        let doing = "hold the checkpoints of this training";
        let cause = io::Error::new(io::ErrorKind::StorageFull, cause);
        Err(Error::resource(place, doing, cause))
    }
}

struct Count<'a> {
    blueprint: Blueprint<'a>,
}

impl Task for Count<'_> {
    type Output = u64;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<u64, Error> {
        let blueprint = &self.blueprint;
        let mut most = 0;
        for stage in &blueprint.recipe.stage {
            most = most.max(blueprint.n_parameters::<B>(&stage.policy, &device));
            // What is not known by a list is known by the parameters.
            let listed = blueprint.recipe.model.groups(&stage.policy).is_some();
            if !listed && !stage.freeze.is_empty() {
                let shapes = blueprint.skeleton::<B>(&stage.policy, &device).shapes();
                check_groups(stage, &shapes)?;
            }
        }
        Ok(most)
    }
}

/// That every group that rests is one of the model's.
fn check_groups(stage: &Stage, shapes: &Shapes) -> Result<(), Error> {
    let groups: BTreeSet<&str> = shapes.keys().map(|path| group_of(path)).collect();
    let wrong = |freeze: &&Freeze| !groups.contains(freeze.group.as_str());
    let Some(freeze) = stage.freeze.iter().find(wrong) else {
        return Ok(());
    };
    let names: Vec<&str> = groups.into_iter().collect();
    let place = format!("stage.{}.freeze", stage.name);
    let found = format!("the group {:?}", freeze.group);
    let problem = Problem::new("the recipe", place, found, one_of(&names));
    let meant = nearest(&freeze.group, names);
    let advice = meant.map(|meant| format!("did you mean {meant:?}?"));
    Err(Error::config(problem.advise(advice.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;
    use std::fs::File;

    /// A disk with a hundred million bytes.
    struct Small;

    impl Disk for Small {
        fn free_bytes(&self, _: &Path) -> io::Result<u64> {
            Ok(100_000_000)
        }
        fn create_directory(&self, _: &Path) -> io::Result<()> {
            unreachable!()
        }
        fn create(&self, _: &Path) -> io::Result<File> {
            unreachable!()
        }
        fn write(&self, _: &mut File, _: &[u8]) -> io::Result<usize> {
            unreachable!()
        }
        fn sync(&self, _: &File) -> io::Result<()> {
            unreachable!()
        }
        fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
            unreachable!()
        }
        fn remove(&self, _: &Path) -> io::Result<()> {
            unreachable!()
        }
    }

    #[test]
    fn room_is_asked_for_all_checkpoints_that_will_be_there_at_once() {
        let mut bundled = BUNDLED.iter();
        let tiny = bundled.find(|recipe| (recipe.kind, recipe.size) == ("brian", "tiny"));
        let sets = ["checkpoint.every_steps=50", "checkpoint.keep_last=2"].map(str::to_string);
        let recipe = from_text("r.toml", tiny.unwrap().text.to_string(), &sets).unwrap();
        // Two newest, the best, the end of the first stage, and the one that is being written.
        let whole = Checkpoints::of(&recipe, &[150, 150], 0);
        assert_eq!((whole.at_once, whole.more()), (5, 5));
        // A run that was resumed has three of them already; after its end it saves no more.
        assert_eq!(Checkpoints::of(&recipe, &[100], 3).more(), 2);
        assert_eq!(Checkpoints::of(&recipe, &[0], 3).more(), 0);
        assert_eq!(Checkpoints::of(&recipe, &[10], 9).more(), 1);

        // Two million parameters: 8 MB of weights, 16 MB of moments, a tenth, and 128 KiB.
        let needs = Needs::of_sizes(&recipe, 512, 2_000_000);
        assert_eq!(needs.checkpoint_bytes(), 26_531_072);
        let place = Path::new("nowhere/runs");
        let check = |checkpoints| needs.check_space(&Small, place, checkpoints, 1000);
        let three = Checkpoints {
            existing: 0,
            saves: 3,
            at_once: 3,
        };
        assert!(check(three).is_ok());
        let refused = check(whole).unwrap_err();
        assert_eq!(refused.exit_code(), 4);
        assert_eq!(
            refused.to_string(),
            "nowhere/runs: cannot hold the checkpoints of this training: 132656360 bytes needed for 5 at once of \
             26531072 bytes each, 100000000 free; make room, or lower checkpoint.keep_last or the sizes in [model]"
        );
    }

    fn of(kind: &str, size: &str, sets: &[&str]) -> Recipe {
        let found = BUNDLED
            .iter()
            .find(|one| (one.kind, one.size) == (kind, size))
            .unwrap();
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        let recipe = from_text("r.toml", found.text.to_string(), &sets).unwrap();
        Recipe::clone(&recipe)
    }

    #[test]
    fn a_training_needs_its_weights_four_times_and_its_activations() {
        let sizes = [
            "data.window=10",
            "batch.sequences=3",
            "model.d_model=8",
            "model.n_heads=2",
            "model.d_ff=12",
        ];
        let pool = ["model.d_ff_pool=12", "model.position.d_position=4"];
        let recipe = of("brian", "tiny", &[&sizes[..], &pool].concat());
        let needs = Needs::of_sizes(&recipe, 100, 1000);
        // A token has 3 · 100 logits, and in each of 4 blocks 8 · 8 + 3 · 12 + 2 · 2 · 10 = 140 numbers: 860 in all.
        let expected = [
            ("weights", 4000),
            ("gradients", 4000),
            ("moments of the optimizer", 8000),
            ("average of the weights", 0),
            ("activations", 4 * 860 * 30),
        ];
        assert_eq!((needs.parameters, needs.by_kind()), (1000, expected));
        assert_eq!(needs.bytes(), 16_000 + 103_200);
        let again = ["batch.recompute=blocks"];
        let recipe = of("brian", "tiny", &[&sizes[..], &pool, &again].concat());
        // The 300, the inputs of 4 blocks of width 8, and the 140 of one block.
        let [.., activations] = Needs::of_sizes(&recipe, 100, 1000).by_kind();
        assert_eq!(activations.1, 4 * 472 * 30);
        let average = "average={decay=0.9,every_steps=1}";
        let recipe = of("brian", "tiny", &[&sizes[..], &pool, &[average]].concat());
        let with = Needs::of_sizes(&recipe, 100, 1000);
        assert_eq!(with.bytes(), 20_000 + 103_200);
        assert!(with.checkpoint_bytes() > needs.checkpoint_bytes());
    }

    #[test]
    fn a_graph_has_no_gradient_of_its_size_and_stores_what_its_recipe_says() {
        let bytes = |sets: &[&str]| {
            Needs::of_sizes(&of("brillm", "tiny", sets), 100, 1000)
                .by_kind()
                .map(|kind| kind.1)
        };
        assert_eq!(bytes(&[]), [4000, 0, 8000, 0, 0]);
        let half = ["model.storage=bf16", "optimizer.mode=touched"];
        assert_eq!(bytes(&half), [2000, 0, 4000, 0, 0]);
    }

    #[test]
    fn checkpoints_are_counted_where_they_are_due_and_where_a_best_may_be() {
        let count =
            |sets: &[&str], left: &[u64]| Checkpoints::of(&of("brian", "tiny", sets), left, 0);
        let every = "checkpoint.every_steps=40";
        // Of 100 steps: after 40, 80 and 100, and at most two of the validations after 50 and 100.
        assert_eq!(
            count(&[every, "watch.valid_every_steps=50"], &[100]).saves,
            5
        );
        assert_eq!(
            count(&[every, "checkpoint.keep_best=false"], &[100]).saves,
            3
        );
        // The newest, and the end of each of two stages; the best is one more.
        let kept = |sets: &[&str]| count(sets, &[100]).at_once;
        assert_eq!(
            kept(&["checkpoint.keep_last=3", "checkpoint.keep_best=false"]),
            5
        );
        assert_eq!(kept(&["checkpoint.keep_last=3"]), 6);
        assert_eq!(kept(&[]), 5);
        let none = Checkpoints {
            existing: 9,
            saves: 4,
            at_once: 6,
        };
        // One is written before another goes.
        assert_eq!(
            (
                none.more(),
                Checkpoints {
                    existing: 4,
                    ..none
                }
                .more()
            ),
            (1, 2)
        );
        assert_eq!(
            Checkpoints {
                existing: 0,
                ..none
            }
            .more(),
            4
        );
    }
}
