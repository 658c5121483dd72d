//! What the recipe describes, as a model: fresh, to load into, or made from the one before.

use crate::device::ON_THE_CPU;
use crate::error::{Error, Problem};
use crate::learner::{OptimizerConfig, load_model, tables};
use crate::recipe::{Edges, ModelConfig, Policy, Recipe, SignalConfig};
use crate::run::{TensorMap, require_finite};
use crate::task::{Core, Decoder, Signal};
use brian::random;
use brillm::BriLlm;
use brillm::candidate::Competition;
use brillm::counts::PairCounts;
use brillm::graph::Graph;
use brillm::model::Parameters;
use brillm::prior::Weights;
use brillm::row_adamw::Mode;
use brillm::training::RowAdamW;
use burn::tensor::backend::Backend;
use std::path::Path;
use std::sync::Arc;

/// What a model is built from.
#[derive(Clone, Copy)]
pub struct Blueprint<'a> {
    /// Sizes, rules, seed.
    pub recipe: &'a Recipe,
    /// Size of the tokenizer's vocabulary.
    pub vocabulary: usize,
    /// How often each pair of tokens was seen, where the recipe names a file of it.
    pub counts: Option<&'a Arc<PairCounts>>,
}

impl Blueprint<'_> {
    /// A model with the recipe's initial values.
    pub fn fresh<B: Backend>(&self, policy: &Policy, device: &B::Device) -> Decoder<B> {
        let (vocabulary, seed) = (self.vocabulary, self.recipe.run.seed);
        match self.recipe.model.under(policy) {
            ModelConfig::Baseline(config) => {
                Decoder::Baseline(config.init(vocabulary, seed, device))
            }
            ModelConfig::Brian(config) => Decoder::Brian(config.init(vocabulary, seed, device)),
            ModelConfig::BriLlm(config) => {
                let graph = self.graph(&config);
                let uniform =
                    |stream: &str, place: u64| random::uniform(random::key(seed, stream, 0), place);
                let parameters = config.model().init(graph.nodes(), graph.rows(), &uniform);
                Decoder::BriLlm(self.signal(&config, graph, parameters, device))
            }
        }
    }

    /// A model to load into.
    pub fn skeleton<B: Backend>(&self, policy: &Policy, device: &B::Device) -> Decoder<B> {
        let vocabulary = self.vocabulary;
        match self.recipe.model.under(policy) {
            ModelConfig::Baseline(config) => Decoder::Baseline(config.skeleton(vocabulary, device)),
            ModelConfig::Brian(config) => Decoder::Brian(config.skeleton(vocabulary, device)),
            ModelConfig::BriLlm(config) => {
                let graph = self.graph(&config);
                let model = config.model();
                let parameters = model.skeleton(graph.nodes(), graph.rows());
                Decoder::BriLlm(self.signal(&config, graph, parameters, device))
            }
        }
    }

    /// The model of the stage before, as this stage needs it.
    pub(super) fn adapt<B: Backend>(&self, policy: &Policy, carried: Decoder<B>) -> Decoder<B> {
        match (&self.recipe.model, policy, carried) {
            (_, Policy::None, carried) => carried,
            (ModelConfig::Brian(config), _, Decoder::Baseline(baseline)) => {
                Decoder::Brian(config.wrap(baseline, self.recipe.run.seed))
            }
            (_, _, carried) => carried,
        }
    }

    /// The number of parameters of a stage.
    pub fn n_parameters<B: Backend>(&self, policy: &Policy, device: &B::Device) -> u64 {
        match &self.recipe.model {
            ModelConfig::BriLlm(config) => config
                .model()
                .n_parameters(self.vocabulary, self.rows(config)),
            _ => self.skeleton::<B>(policy, device).n_parameters(),
        }
    }

    /// A model with the parameters of a checkpoint.
    ///
    /// # Errors
    /// `Invalid`, naming `file`, for the first parameter that is missing, superfluous, of another shape or not finite.
    pub fn load<B: Backend>(
        &self,
        policy: &Policy,
        tensors: TensorMap,
        file: &Path,
        device: &B::Device,
    ) -> Result<Decoder<B>, Error> {
        require_finite(&tensors, file).map_err(Error::Invalid)?;
        if let ModelConfig::BriLlm(config) = self.recipe.model.under(policy) {
            // Before a graph and tables of the recipe's size are made: a file may be smaller by any factor.
            self.require_edges(&config, &tensors, file)?;
        }
        load_into(self.skeleton(policy, device), tensors, file)
    }

    fn require_edges(
        &self,
        config: &SignalConfig,
        tensors: &TensorMap,
        file: &Path,
    ) -> Result<(), Error> {
        let d = config.d_node;
        let expected = vec![self.rows(config), d + 1, d];
        let found = tensors.get("edges").map(|edges| &edges.shape);
        if found == Some(&expected) {
            return Ok(());
        }
        let found = found.map_or("nothing".to_string(), |found| format!("shape {found:?}"));
        let problem = Problem::new(file, "tensor edges", found, format!("shape {expected:?}"));
        Err(Error::Invalid(problem.advise(
            "recipe, counts and checkpoint do not belong together",
        )))
    }

    /// Rows of the edge table, counted without a graph.
    fn rows(&self, config: &SignalConfig) -> usize {
        match (&config.edges, self.counts) {
            (
                Edges::Counted {
                    min_count,
                    back_off,
                    ..
                },
                Some(counts),
            ) => counts.rows(*min_count, *back_off),
            _ => self
                .vocabulary
                .saturating_mul(self.vocabulary)
                .saturating_add(1),
        }
    }

    fn graph(&self, config: &SignalConfig) -> Graph {
        match (&config.edges, self.counts) {
            (
                Edges::Counted {
                    min_count,
                    back_off,
                    ..
                },
                Some(counts),
            ) => counts.graph(*min_count, *back_off),
            _ => Graph::full(self.vocabulary),
        }
    }

    fn signal<B: Backend>(
        &self,
        config: &SignalConfig,
        graph: Graph,
        parameters: Parameters,
        device: &B::Device,
    ) -> Signal<B> {
        let counts = self.counts.map(Arc::as_ref);
        let weights = Weights::new(config.prior, counts, &graph);
        let training = Competition::new(config.candidates, weights, config.flow.bias, counts);
        let model = BriLlm {
            config: config.model(),
            graph: Arc::new(graph),
            parameters,
        };
        let (mode, clip) = match &self.recipe.optimizer {
            OptimizerConfig::RowAdamw { mode, clip_row, .. } => (*mode, Some(*clip_row as f32)),
            OptimizerConfig::Adamw { .. } => (Mode::Exact, None),
        };
        let core = Core {
            optimizer: RowAdamW::new(&model, mode, self.recipe.optimizer.adamw(), clip),
            model,
            evaluation: training.evaluation(),
            training,
            counts: self.counts.cloned(),
            seed: self.recipe.run.seed,
            last_edge: config.last_edge,
            on_host: ON_THE_CPU.contains(&self.recipe.device.backend.as_str()),
        };
        Signal::new(core, device)
    }
}

/// Fills a model, which may be a skeleton, with parameters from a file.
///
/// # Errors
/// `Invalid` for the first parameter that is missing, superfluous or of another shape.
pub fn load_into<B: Backend>(
    model: Decoder<B>,
    tensors: TensorMap,
    file: &Path,
) -> Result<Decoder<B>, Error> {
    let Decoder::BriLlm(signal) = &model else {
        return load_model(model, tensors, file);
    };
    let found = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.shape.clone()))
        .collect();
    let shapes = tables::shapes(signal);
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
    tables::set_parameters(signal, tensors);
    Ok(model)
}
