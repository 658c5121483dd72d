//! `Trained`: opens a run's newest or best checkpoint with recipe, tokenizer and pair counts, for commands that use a run.
//! It builds the model on a device and opens data splits for evaluation.

use crate::cli;
use crate::data::{SpelledSpecials, TokenSource, Tokenizer};
use crate::device::{self, DeviceConfig};
use crate::error::{Error, Problem};
use crate::ladder::{self, Blueprint};
use crate::learner::ValidationData;
use crate::model::Model;
use crate::recipe::{Checked, Stage, load_run};
use crate::run::checkpoint::{self, Loaded};
use crate::run::{Extension, RunDirectory, TensorMap, find};
use crate::say::note;
use crate::task::RoutePlan;
use brillm::counts::PairCounts;
use burn::tensor::backend::AutodiffBackend;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// A run that has a checkpoint, and everything needed to rebuild its model.
pub struct Trained {
    /// The run's recipe.
    pub recipe: Checked,
    /// The run's tokenizer.
    pub tokenizer: Tokenizer,
    /// Counts of token pairs, if the recipe names a file of them.
    pub counts: Option<Arc<PairCounts>>,
    /// The checkpoint.
    pub loaded: Loaded,
    /// Which of its weights are used.
    pub weights: cli::Weights,
    /// The device to compute on.
    pub device: DeviceConfig,
}

impl Trained {
    /// Finds the run and loads its newest or best checkpoint.
    ///
    /// # Errors
    /// `Invalid` if there is no such run or no checkpoint that verifies, or if the tokenizer has changed.
    pub fn open(source: &cli::Source) -> Result<Self, Error> {
        let (run, recipe) = found(source)?;
        let newest = checkpoint::latest(&run)?;
        let mut loaded = newest.ok_or_else(|| {
            let problem = Problem::new(run.checkpoints(), "", "no checkpoint", "at least one");
            Error::Invalid(problem.advise("let `nerve fit` reach its first checkpoint"))
        })?;
        for problem in &loaded.skipped {
            note(&format!("{problem}; it is passed over"));
        }
        if let (true, Some(best)) = (source.best, loaded.snapshot.state.best) {
            let path = run.checkpoints().join(format!("step-{:08}", best.step));
            loaded.snapshot = checkpoint::load(&path)?;
            loaded.path = path;
        }
        if source.weights == cli::Weights::Average {
            take_average(&mut loaded, &recipe)?;
        }
        let tokenizer = ladder::tokenizer(&recipe)?;
        if tokenizer.sha256() != loaded.snapshot.state.tokenizer_sha256 {
            let found = "another tokenizer than the run was trained with";
            let problem = Problem::new(&recipe.tokenizer.file, "", found, "the same file");
            return Err(Error::Invalid(problem.advise("put the old tokenizer back")));
        }
        let extensions = Extension::read(&run)?;
        let state = &loaded.snapshot.state;
        ladder::check_position(&recipe, &extensions, state, &loaded.path)?;
        let counted = ladder::counts(&recipe, &tokenizer)?;
        if let Some((path, bigrams)) = &counted {
            let hashes = [(path.clone(), bigrams.sha256())].into();
            let mut now = recipe.elsewhere().as_written(&hashes).into_iter();
            let known = &loaded.snapshot.state.data_sha256;
            if now.any(|(path, sha256)| known.get(&path).is_some_and(|known| *known != sha256)) {
                let found = "other counts than the run was trained with";
                let problem = Problem::new(path, "", found, "the same file");
                return Err(Error::Invalid(problem.advise("put the old counts back")));
            }
        }
        Ok(Self {
            device: recipe.device.clone(),
            weights: source.weights,
            recipe,
            tokenizer,
            counts: counted.map(|(_, bigrams)| Arc::new(bigrams.counts)),
            loaded,
        })
    }

    /// Checks that the data recorded by the run were found for these paths of the recipe.
    ///
    /// # Errors
    /// `Invalid` with the hash of the first that are not, and how to name a folder that holds them.
    pub fn check_data<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) -> Result<(), Error> {
        self.recipe.elsewhere().check(paths)
    }

    /// The longest text in tokens: the context, or so many for a model without one.
    pub fn longest_text(&self, without_context: usize) -> usize {
        match self.recipe.model.context() {
            usize::MAX => without_context,
            context => context,
        }
    }

    /// The run's tokenizer once more, for another reading of special tokens that are spelled out.
    ///
    /// # Errors
    /// None that [`Self::open`] has not met.
    pub fn tokenizer_with(&self, rule: SpelledSpecials) -> Result<Tokenizer, Error> {
        let file = self.tokenizer.file().to_vec();
        let tokenizer = Tokenizer::from_bytes(&self.recipe.tokenizer.file, file)?;
        Ok(tokenizer.with_spelled_specials(rule))
    }

    /// Splits by name, read as by [`ValidationData::open`] for the run's model in evaluation.
    ///
    /// # Errors
    /// `Invalid` if one is broken, was made with another tokenizer or has nothing to predict.
    pub fn splits(
        &self,
        splits: &[(String, TokenSource<'_>)],
        tokens: u64,
        stride: Option<usize>,
    ) -> Result<ValidationData, Error> {
        let (data, sequences) = (&self.recipe.data, self.recipe.batch.sequences);
        ValidationData::open(splits, data, sequences, tokens, stride, &self.tokenizer)
            .map(|opened| opened.on(self.route()))
    }

    /// So many tokens of the recipe's first validation split, rounded up to whole windows; 0 for all.
    ///
    /// # Errors
    /// As [`Self::splits`]; `Invalid` if the data are not found.
    pub fn first_split(&self, tokens: u64) -> Result<ValidationData, Error> {
        let first = &self.recipe.data.valid[0];
        self.check_data([first.path.as_path()])?;
        self.splits(&[(first.name.clone(), first.tokens())], tokens, None)
    }

    /// The stage the checkpoint was saved in.
    pub fn stage(&self) -> &Stage {
        &self.recipe.stage[self.loaded.snapshot.state.stage_index]
    }

    /// The route plan of its walks in evaluation.
    pub fn route(&self) -> RoutePlan {
        ladder::route(self.stage(), &self.recipe).evaluation()
    }

    /// Checks that a value computed with its weights is finite: products of finite weights need not be.
    ///
    /// # Errors
    /// `Invalid`, naming the checkpoint and `what` it is.
    pub fn require_finite(&self, what: &str, value: f64) -> Result<(), Error> {
        if value.is_finite() {
            return Ok(());
        }
        let found = value.to_string();
        let problem = Problem::new(&self.loaded.path, what, found, "a finite number");
        let advice = "the weights are finite and too large: the training has diverged; try --best or an earlier checkpoint";
        Err(Error::Invalid(problem.advise(advice)))
    }

    /// The model on a device.
    ///
    /// # Errors
    /// `Invalid` if checkpoint and recipe do not belong together.
    pub fn model<B: AutodiffBackend>(&self, device: &B::Device) -> Result<Model<B>, Error> {
        self.filled(self.loaded.snapshot.model.clone(), device)
    }

    /// The same with the tensors of the checkpoint themselves: weights lie in memory once, and no second model can be made.
    ///
    /// # Errors
    /// As [`Self::model`].
    pub fn only_model<B: AutodiffBackend>(
        &mut self,
        device: &B::Device,
    ) -> Result<Model<B>, Error> {
        let tensors = std::mem::take(&mut self.loaded.snapshot.model);
        self.filled(tensors, device)
    }

    fn filled<B: AutodiffBackend>(
        &self,
        tensors: TensorMap,
        device: &B::Device,
    ) -> Result<Model<B>, Error> {
        let blueprint = Blueprint {
            recipe: &self.recipe,
            vocabulary: self.tokenizer.vocabulary_size(),
            counts: self.counts.as_ref(),
            ranks: None,
        };
        blueprint.load(&self.stage().policy, tensors, &self.loaded.path, device)
    }
}

impl Trained {
    /// The checkpoint, and its weights where they are not those that were trained, in a title.
    pub fn place(&self) -> String {
        let path = self.loaded.path.display();
        match self.weights {
            cli::Weights::Trained => path.to_string(),
            cli::Weights::Average => format!("{path}, averaged weights"),
        }
    }

    /// Says in an answer which weights it is about, where they are not those that were trained.
    pub fn say_weights(&self, mut answer: Value) -> Value {
        if self.weights == cli::Weights::Average {
            answer["weights"] = "average".into();
        }
        answer
    }
}

/// Puts the averaged weights of a checkpoint in the place of those that were trained.
fn take_average(loaded: &mut Loaded, recipe: &Checked) -> Result<(), Error> {
    let average = std::mem::take(&mut loaded.snapshot.average);
    if average.is_empty() {
        let advice = match &recipe.average {
            None => "leave --weights out; runs with a table [average] keep an average",
            Some(_) => "leave --weights out, or let the run come to average.from_step",
        };
        let found = "no averaged weights";
        let problem = Problem::new(&loaded.path, "--weights", found, "averaged weights");
        return Err(Error::Invalid(problem.advise(advice)));
    }
    loaded.snapshot.model = average;
    Ok(())
}

/// A run and its recipe, whose files were looked for in the folders that were named too.
///
/// # Errors
/// `Config` if the backend was not compiled in; `Invalid` if there is no such run or recipe.
pub fn found(source: &cli::Source) -> Result<(RunDirectory, Checked), Error> {
    let run = find(&source.run, &source.root)?;
    let mut recipe = recipe_of(&run, source)?;
    ladder::find_inputs(&mut recipe, &run, &source.data)?;
    Ok((run, recipe))
}

/// The recipe of a run, for another backend if one is requested, which then computes in f32, as all backends can.
fn recipe_of(run: &RunDirectory, source: &cli::Source) -> Result<Checked, Error> {
    let recipe = load_run(&run.recipe(), &[])?;
    let asked = source.device.as_ref();
    let Some(backend) = asked.filter(|backend| **backend != recipe.device.backend) else {
        device::check_compiled("device.backend", &recipe.device.backend)?;
        return Ok(recipe);
    };
    device::check_compiled("command line: --device", backend)?;
    let sets = [
        format!("device.backend={backend}"),
        "device.index=0".to_string(),
        "device.dtype=f32".to_string(),
    ];
    load_run(&run.recipe(), &sets)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::fs;

    /// One of two small runs that are kept: `ladder`, a routed decoder in its third stage, or `brillm`, a graph.
    pub fn kept(run: &str) -> Trained {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/runs");
        let place = tempfile::tempdir().unwrap();
        copy(&kept.join(run), &place.path().join(run));
        // Counts that are not where they were are looked for in the run alone.
        let own = place.path().join(run).join("bigrams.safetensors");
        fs::copy(kept.join("stories/bigrams.safetensors"), own).unwrap();
        let source = cli::Source {
            run: place.path().join(run).display().to_string(),
            root: place.path().to_path_buf(),
            best: false,
            weights: cli::Weights::Trained,
            device: None,
            data: vec![kept.join("data"), kept.join("stories")],
            json: false,
        };
        Trained::open(&source).unwrap()
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
}
