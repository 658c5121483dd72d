//! What the recipe describes, as a model: fresh, to load into, or made from the one before.

use crate::device::ON_THE_CPU;
use crate::error::{Error, Problem};
use crate::learner::{OptimizerConfig, load_model, tables};
use crate::recipe::{Edges, ModelConfig, Policy, Recipe, SignalConfig};
use crate::run::{TensorMap, require_finite};
use crate::task::{BriLlmState, BriLlmTask, Decoder};
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
    ) -> BriLlmTask<B> {
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
        let core = BriLlmState {
            optimizer: RowAdamW::new(&model, mode, self.recipe.optimizer.adamw(), clip),
            model,
            evaluation: training.evaluation(),
            training,
            counts: self.counts.cloned(),
            seed: self.recipe.run.seed,
            last_edge: config.last_edge,
            on_host: ON_THE_CPU.contains(&self.recipe.device.backend.as_str()),
        };
        BriLlmTask::new(core, device)
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

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::data::HostBatch;
    use crate::device::tests::Learning as B;
    use crate::learner::tables;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;
    use crate::run::HostTensor;
    use crate::task::{Batch, RoutePlan, StepPlan};

    /// `brillm/tiny` over all pairs of six tokens.
    fn graph(sets: &[&str]) -> BriLlmTask<B> {
        let tiny = BUNDLED
            .iter()
            .find(|one| (one.kind, one.size) == ("brillm", "tiny"))
            .unwrap();
        let (model, rest) = tiny.text.split_once("[model.edges]").unwrap();
        let (_, flow) = rest.split_once("[model.flow]").unwrap();
        let text = format!("{model}[model.edges]\nkind = \"full\"\n\n[model.flow]{flow}");
        let own = ["model.d_node=2", "model.prior='none'"];
        let sets: Vec<String> = own.iter().chain(sets).map(|set| set.to_string()).collect();
        let recipe = from_text("r.toml", text, &sets).unwrap();
        let blueprint = Blueprint {
            recipe: &recipe,
            vocabulary: 6,
            counts: None,
        };
        let device = Default::default();
        // Six nodes of 2; 36 edges and a shared row of 2 by 2 and a bias; one number of the mix.
        assert_eq!(
            blueprint.n_parameters::<B>(&Policy::None, &device),
            12 + 37 * 6 + 1
        );
        let Decoder::BriLlm(signal) = blueprint.fresh(&Policy::None, &device) else {
            panic!("a graph");
        };
        assert_eq!(signal.n_parameters(), 235);
        signal
    }

    /// Rows of three edges; the last target of the first row does not count.
    fn rows(rows: &[[u32; 4]]) -> Batch {
        let valid = (0..3 * rows.len()).map(|place| place != 2 || rows[0][3] != 5);
        let host = HostBatch {
            inputs: rows.iter().flat_map(|row| row[..3].to_vec()).collect(),
            targets: rows.iter().flat_map(|row| row[1..].to_vec()).collect(),
            valid: valid.collect(),
            batch: rows.len(),
            seq: 3,
            sequences: vec![0; rows.len()],
            difficulty: vec![None; rows.len()],
            ids: vec![(0, 0); rows.len()],
            bytes: 4 * rows.len() as u64,
        };
        Batch {
            host,
            source: 0,
            plan: StepPlan::idle(RoutePlan::sequential()),
        }
    }

    const TWO: [[u32; 4]; 2] = [[0, 1, 2, 5], [3, 4, 4, 0]];

    /// All numbers of a model.
    fn weights(signal: &BriLlmTask<B>) -> Vec<f32> {
        tables::lend(signal, |weights, _| {
            let each = weights.values().map(HostTensor::floats);
            each.flat_map(|values| values.to_vec()).collect()
        })
    }

    #[test]
    fn a_graph_begins_by_the_seed_of_its_run() {
        let [first, same, other] =
            [1, 1, 2].map(|seed| weights(&graph(&[&format!("run.seed={seed}")])));
        assert_eq!(first, same);
        assert_ne!(first, other);
    }

    #[test]
    fn micro_batches_of_a_graph_are_one_batch() {
        let (whole, parts) = (graph(&[]), graph(&[]));
        for _ in 0..2 {
            let one = whole.learn(&[rows(&TWO)], 0.1);
            let two = parts.learn(&[rows(&TWO[..1]), rows(&TWO[1..])], 0.1);
            let numbers =
                [&one, &two].map(|learnt| (learnt.measured.targets, learnt.measured.bytes));
            assert_eq!(numbers, [(5, 8); 2]);
            assert_eq!(one.measured.nats, two.measured.nats);
            assert_eq!(one.gradient_norm, two.gradient_norm);
            assert!(one.gradient_norm > 0.0);
        }
        assert_eq!(weights(&whole), weights(&parts));
        assert_ne!(weights(&whole), weights(&graph(&[])));
    }

    #[test]
    fn a_graph_that_leaves_its_last_edge_learns_from_one_target_less_a_row() {
        let left = graph(&["model.last_edge=left"]);
        let learnt = left.learn(&[rows(&TWO)], 0.0);
        assert_eq!(learnt.measured.targets, 4);
        // What is left is what the places but the last of each row lose.
        let (measured, nats) = left.measure(&rows(&TWO));
        let kept: f64 = [0, 1, 3, 4].map(|place| nats[place]).iter().sum();
        assert!((learnt.measured.nats - kept).abs() < 1e-5, "{kept}");
        assert_eq!((measured.targets, nats.len(), nats[2]), (5, 6, 0.0));
        assert!((measured.nats - nats.iter().sum::<f64>()).abs() < 1e-12);
    }

    #[test]
    fn candidates_are_drawn_anew_at_every_step_and_by_the_seed() {
        let pairs = (0..36).map(|pair| [pair / 6, pair % 6]);
        let counts = Arc::new(PairCounts::of(6, pairs));
        let of = |candidates: &str, seed: &str| {
            let tiny = BUNDLED
                .iter()
                .find(|one| (one.kind, one.size) == ("brillm", "tiny"));
            let sets = ["model.d_node=2", "model.prior='none'", candidates, seed];
            let text = tiny.unwrap().text.to_string();
            let recipe = from_text("r.toml", text, &sets.map(str::to_string)).unwrap();
            let blueprint = Blueprint {
                recipe: &recipe,
                vocabulary: 6,
                counts: Some(&counts),
            };
            match blueprint.fresh::<B>(&Policy::None, &Default::default()) {
                Decoder::BriLlm(signal) => signal,
                _ => panic!("a graph"),
            }
        };
        let nats = |seed: &str| {
            let signal = of("model.candidates={kind='sampled',n=2}", seed);
            [(); 8].map(|()| signal.learn(&[rows(&TWO)], 0.0).measured.nats)
        };
        let of_one = nats("run.seed=1");
        assert_eq!(of_one, nats("run.seed=1"));
        // Nothing was learnt, so only the draws can make a difference; a few may be alike.
        let mut different = of_one.to_vec();
        different.sort_by(f64::total_cmp);
        different.dedup();
        assert!(different.len() >= 5, "{of_one:?}");
        let all = of("model.candidates='all'", "run.seed=1");
        let everybody = all.learn(&[rows(&TWO)], 0.0).measured.nats;
        assert_eq!(everybody, all.learn(&[rows(&TWO)], 0.0).measured.nats);
    }
}
