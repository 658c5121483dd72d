//! `Blueprint`: builds the model of a recipe: fresh, empty to load into, from a checkpoint, or from the stage before.

use crate::collective::Ranks;
use crate::device::ON_THE_CPU;
use crate::error::{Error, Problem};
use crate::learner::load_model;
use crate::model::{Given, Model, Start};
use crate::recipe::{Policy, Recipe};
use crate::run::{TensorMap, require_finite};
use brillm::counts::PairCounts;
use burn::tensor::backend::{AutodiffBackend, Backend};
use std::path::Path;
use std::sync::Arc;

/// What a model is built from.
#[derive(Clone, Copy)]
pub struct Blueprint<'a> {
    /// Sizes, rules, seed.
    pub recipe: &'a Recipe,
    /// Size of the tokenizer's vocabulary; the model may have more rows, by the recipe.
    pub vocabulary: usize,
    /// How often each pair of tokens was seen, where the recipe names a file of it.
    pub counts: Option<&'a Arc<PairCounts>>,
    /// The ranks that train together, where there may be several.
    pub ranks: Option<&'a Ranks>,
}

impl Blueprint<'_> {
    fn given<'a>(&'a self, policy: &'a Policy) -> Given<'a> {
        let recipe = self.recipe;
        Given {
            policy,
            optimizer: &recipe.optimizer,
            vocabulary: recipe.rows(self.vocabulary),
            seed: recipe.run.seed,
            counts: self.counts,
            ranks: self.ranks,
            on_cpu: ON_THE_CPU.contains(&recipe.device.backend.as_str()),
        }
    }

    /// A model with the recipe's initial values.
    pub fn fresh<B: AutodiffBackend>(&self, policy: &Policy, device: &B::Device) -> Model<B> {
        let given = self.given(policy);
        self.recipe.model.make(&given, Start::Fresh, device)
    }

    /// A model to load into.
    pub fn skeleton<B: AutodiffBackend>(&self, policy: &Policy, device: &B::Device) -> Model<B> {
        let given = self.given(policy);
        self.recipe.model.make(&given, Start::Skeleton, device)
    }

    /// The model of the stage before, as this stage needs it.
    pub(super) fn adapt<B: AutodiffBackend>(&self, policy: &Policy, carried: Model<B>) -> Model<B> {
        self.recipe.model.adapt(&self.given(policy), carried)
    }

    /// The number of parameters of a stage.
    pub fn n_parameters<B: AutodiffBackend>(&self, policy: &Policy, device: &B::Device) -> u64 {
        let given = self.given(policy);
        self.recipe.model.n_parameters::<B>(&given, device)
    }

    /// A model with the parameters of a checkpoint.
    ///
    /// # Errors
    /// `Invalid`, naming `file`, for the first parameter that is missing, superfluous, of another shape or not finite.
    pub fn load<B: AutodiffBackend>(
        &self,
        policy: &Policy,
        tensors: TensorMap,
        file: &Path,
        device: &B::Device,
    ) -> Result<Model<B>, Error> {
        require_finite(&tensors, file).map_err(Error::Invalid)?;
        let given = self.given(policy);
        self.recipe.model.check_tensors(&given, &tensors, file)?;
        load_into(self.skeleton(policy, device), tensors, file)
    }
}

/// Fills a model, which may be a skeleton, with parameters from a file.
///
/// # Errors
/// `Invalid` for the first parameter that is missing, superfluous or of another shape.
pub fn load_into<B: Backend>(
    model: Model<B>,
    tensors: TensorMap,
    file: &Path,
) -> Result<Model<B>, Error> {
    let Some(own) = model.own_optimizer() else {
        return load_model(model, tensors, file);
    };
    let found = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.shape.clone()))
        .collect();
    let shapes = own.shapes();
    if shapes != found {
        let problem = Problem::new(
            file,
            "the model's tensors",
            format!("{found:?}"),
            format!("{shapes:?}"),
        );
        return Err(Error::Invalid(
            problem.advise("recipe, counts and checkpoint do not belong together"),
        ));
    }
    own.set_parameters(tensors).map_err(Error::Invalid)?;
    Ok(model)
}
