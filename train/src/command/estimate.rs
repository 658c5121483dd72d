//! `nerve estimate`: predicts parameters, operations, memory and time of a recipe, before any data exist.

mod graph;

use super::answer::{self, aligned, maybe, readable_bytes, readable_seconds, table};
use crate::cli;
use crate::device::{self, DeviceConfig, MatrixProduct, Task};
use crate::error::{Error, Problem};
use crate::family::brillm::SignalConfig;
use crate::ladder::{self, Blueprint, Needs};
use crate::model::n_numbers;
use crate::recipe::{Checked, Recipe, Stage, load};
use brian::flops::TRAINING;
use burn::tensor::backend::AutodiffBackend;
use graph::GraphCost;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Prints sizes, operations, memory and time.
///
/// # Errors
/// `Config` for the recipe, and for a graph without counts; `Invalid` for the tokenizer and the counts; `Resource` if the device
/// does not start.
pub fn run(arguments: &cli::Estimate) -> Result<(), Error> {
    let recipe = load(&arguments.recipe, &arguments.sets)?;
    let vocabulary = || match arguments.vocabulary {
        Some(vocabulary) => Ok(vocabulary),
        None => ladder::tokenizer(&recipe).map(|found| recipe.rows(found.vocabulary_size())),
    };
    let graph = match (recipe.model.get::<SignalConfig>(), &arguments.counts) {
        (Some(config), _) => Some(GraphCost::of(config, arguments, vocabulary)?),
        (_, Some(_)) => {
            let found = "a file of counts for a model of blocks";
            let problem = Problem::typed("--counts", found, "a recipe of a brillm");
            return Err(Error::config(problem.advise("leave --counts away")));
        }
        _ => None,
    };
    let vocabulary = match &graph {
        Some(graph) => graph.nodes as usize,
        None => vocabulary()?,
    };
    // Shapes are the same everywhere; only the speed needs the recipe's own device.
    let here = device::check_compiled("", &recipe.device.backend).is_ok();
    let counting = match here {
        true => recipe.device.clone(),
        false => DeviceConfig::any(),
    };
    let sizes = match &graph {
        Some(graph) => {
            let (parameters, active) = (graph.parameters, graph.active);
            vec![Size { parameters, active }; recipe.stage.len()]
        }
        None => {
            let sizes = Sizes {
                recipe: &recipe,
                vocabulary,
            };
            device::run(&counting, sizes)?
        }
    };
    let largest = sizes.iter().map(|size| size.parameters).max();
    let gflops = match (arguments.gflops, here) {
        (Some(gflops), _) => Some(gflops),
        (None, true) => Some(device::run(&recipe.device, MatrixProduct)?),
        (None, false) => None,
    };
    let cost = |(stage, size)| {
        let mut cost = StageCost::new(&recipe, stage, size, vocabulary);
        if let Some(graph) = &graph {
            cost.flops = Some([graph.flops[0]; 2]);
        }
        cost
    };
    let estimate = Estimate {
        needs: Needs::of_sizes(&recipe, vocabulary, largest.unwrap_or(0)),
        stages: recipe.stage.iter().zip(sizes).map(cost).collect(),
        vocabulary,
        gflops,
        graph,
    };
    let object = || estimate.json(&recipe);
    answer::give(arguments.json, object, || estimate.text(&recipe))
}

/// Parameters of a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Size {
    parameters: u64,
    /// Those that a token can use on its walk.
    active: u64,
}

struct Sizes<'a> {
    recipe: &'a Recipe,
    vocabulary: usize,
}

impl Task for Sizes<'_> {
    type Output = Vec<Size>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<Vec<Size>, Error> {
        let blueprint = Blueprint {
            recipe: self.recipe,
            vocabulary: self.vocabulary,
            counts: None,
            ranks: None,
        };
        let size = |stage: &Stage| {
            let shapes = blueprint.skeleton::<B>(&stage.policy, &device).shapes();
            let parameters = n_numbers(shapes.values());
            let unused = self.recipe.model.unused(stage, &shapes);
            Size {
                parameters,
                active: parameters - unused,
            }
        };
        Ok(self.recipe.stage.iter().map(size).collect())
    }
}

/// What a stage costs.
struct StageCost {
    name: String,
    size: Size,
    tokens: u64,
    /// Forward FLOPs per token: of one path that all tokens walk, and where neighbours run different blocks at every step. None
    /// where several paths are walked at once.
    flops: Option<[f64; 2]>,
}

impl StageCost {
    fn new(recipe: &Recipe, stage: &Stage, size: Size, vocabulary: usize) -> Self {
        let window = recipe.data.window;
        let micro_batches = stage.micro_batches(recipe.batch.accumulate);
        let of_each = (recipe.batch.sequences * window) as u64;
        Self {
            name: stage.name.clone(),
            size,
            tokens: micro_batches.before(stage.steps).saturating_mul(of_each),
            flops: recipe.model.stage_flops(vocabulary, stage, window),
        }
    }

    fn seconds(&self, gflops: Option<f64>) -> Option<f64> {
        let [_, most] = self.flops?;
        Some(TRAINING * most * self.tokens as f64 / (gflops? * 1e9))
    }
}

/// What a recipe costs.
struct Estimate {
    stages: Vec<StageCost>,
    needs: Needs,
    vocabulary: usize,
    /// GFLOP/s of a large product of matrices; unknown where the device is not.
    gflops: Option<f64>,
    /// The graph, if it is one.
    graph: Option<GraphCost>,
}

impl Estimate {
    fn text(&self, recipe: &Checked) -> String {
        let of_stage = |stage: &StageCost| {
            let flops = match stage.flops {
                Some([path, most]) if path == most => format!("{path:.3e}"),
                Some([path, most]) => format!("{path:.3e} to {most:.3e}"),
                None => "not counted: several paths".to_string(),
            };
            [
                stage.name.clone(),
                stage.size.parameters.to_string(),
                stage.size.active.to_string(),
                stage.tokens.to_string(),
                flops,
                maybe(stage.seconds(self.gflops), readable_seconds),
            ]
        };
        let stages = table(
            "stage | parameters | active | tokens | forward FLOPs per token | time",
            self.stages.iter().map(of_stage),
        );
        let memory = self.needs.by_kind();
        let memory = memory.map(|(kind, bytes)| [kind.to_string(), readable_bytes(bytes)]);
        let device = match self.gflops {
            Some(gflops) => format!("{gflops:.0} GFLOP/s"),
            None => "which is not here: --gflops gives times".to_string(),
        };
        let device = format!("{}, {device}", recipe.device.backend);
        let mut head = vec![
            ["recipe".to_string(), recipe.run.name.clone()],
            ["vocabulary".to_string(), self.vocabulary.to_string()],
            ["device".to_string(), device],
        ];
        head.extend(self.graph.iter().flat_map(GraphCost::rows));
        let walks = match self.graph {
            Some(_) => "",
            None => {
                "A walk that leaves early costs less: nerve route RUN counts the FLOPs of real walks. "
            }
        };
        format!(
            "{}\n{stages}\nmemory, at least\n{}\n{walks}Times are those of the products alone, at the speed of a large one: \
             the truth is longer.\n",
            aligned(&head),
            aligned(&memory)
        )
    }

    fn json(&self, recipe: &Checked) -> Value {
        let stage = |stage: &StageCost| {
            json!({
                "name": stage.name,
                "parameters": stage.size.parameters,
                "active_parameters": stage.size.active,
                "tokens": stage.tokens,
                "flops_per_token": stage.flops.map(|[path, _]| path),
                "flops_per_token_most": stage.flops.map(|[_, most]| most),
                "seconds": stage.seconds(self.gflops),
            })
        };
        let seconds: Option<f64> = self
            .stages
            .iter()
            .map(|stage| stage.seconds(self.gflops))
            .sum();
        json!({
            "schema": 1,
            "recipe": recipe.run.name,
            "vocabulary": self.vocabulary,
            "gflops": self.gflops,
            "stages": self.stages.iter().map(stage).collect::<Value>(),
            "graph": self.graph.as_ref().map(GraphCost::json),
            "memory_bytes": BTreeMap::from(self.needs.by_kind()),
            "seconds": seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;
    use brian::BaselineConfig;
    #[cfg(feature = "ndarray")]
    use brian::BrianConfig;

    fn recipe(kind: &str, size: &str, sets: &[&str]) -> Checked {
        let found = BUNDLED
            .iter()
            .find(|one| (one.kind, one.size) == (kind, size))
            .unwrap();
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        from_text("r.toml", found.text.to_string(), &sets).unwrap()
    }

    fn size() -> Size {
        Size {
            parameters: 10,
            active: 7,
        }
    }

    #[test]
    fn a_stage_sees_its_tokens_and_takes_three_forward_passes_for_each() {
        let sets = [
            "data.window=32",
            "batch.sequences=3",
            "batch.accumulate=5",
            "stage.0.steps=7",
            "stage.0.learning_rate.warmup_steps=0",
        ];
        let recipe = recipe("baseline", "tiny", &sets);
        let cost = StageCost::new(&recipe, &recipe.stage[0], size(), 100);
        assert_eq!(cost.tokens, 7 * 5 * 3 * 32);
        let config = recipe.model.get::<BaselineConfig>().unwrap();
        let ramp = "stage.0.batch_ramp=[{from_step=2,accumulate=6},{from_share=0.5,accumulate=9}]";
        let ramped = self::recipe("baseline", "tiny", &[&sets[..], &[ramp]].concat());
        // Two steps of 5, two of 6, and from step 4 on three of 9.
        let of_ramp = StageCost::new(&ramped, &ramped.stage[0], size(), 100).tokens;
        assert_eq!(of_ramp, (2 * 5 + 2 * 6 + 3 * 9) * 3 * 32);
        let flops = config.flops(100, 32);
        assert_eq!(cost.flops, Some([flops; 2]));
        let known = StageCost {
            flops: Some([1e6, 2e6]),
            ..cost
        };
        // 3360 tokens of 3 times 2e6 at 4e9 a second: the dearer of the two counts.
        assert!((known.seconds(Some(4.0)).unwrap() - 5.04).abs() < 1e-9);
        assert_eq!(known.seconds(None), None);
        let unknown = StageCost {
            flops: None,
            ..known
        };
        assert_eq!(unknown.seconds(Some(4.0)), None);
    }

    #[cfg(feature = "ndarray")]
    #[test]
    fn blocks_that_a_walk_cannot_reach_are_not_active() {
        let sets = ["model.route.max_steps=2", "model.n_pool=5"];
        let recipe = recipe("brian", "ladder", &sets);
        let sizes = Sizes {
            recipe: &recipe,
            vocabulary: 100,
        };
        let sizes = device::run(&recipe.device, sizes).unwrap();
        let config = recipe.model.get::<BrianConfig>().unwrap();
        let d = config.d_model as u64;
        // A block of the pool: two norms, four square matrices, three of the feed-forward, and the adapter of the position.
        let block = 2 * d + 4 * d * d + 3 * d * config.d_ff_pool as u64 + 16 * d;
        for (stage, size) in recipe.stage.iter().zip(&sizes) {
            let knows = stage.policy.knows_router();
            // The router leads two steps of one block; whoever follows the pool in order runs all five.
            let unused = if knows { 3 * block } else { 0 };
            assert_eq!(size.parameters - size.active, unused, "{}", stage.name);
        }
        // Two blocks in each of two steps.
        let recipe = self::recipe(
            "brian",
            "ladder",
            &[sets[0], sets[1], "model.route.top_k=2"],
        );
        let sizes = Sizes {
            recipe: &recipe,
            vocabulary: 100,
        };
        let last = &device::run(&recipe.device, sizes).unwrap()[recipe.stage.len() - 1];
        assert_eq!(last.parameters - last.active, block);
    }

    #[test]
    fn a_route_costs_most_where_neighbours_part_and_a_fixed_one_always_the_same() {
        let recipe = recipe("brian", "ladder", &[]);
        let of = |name: &str| {
            let stage = recipe
                .stage
                .iter()
                .find(|stage| stage.name == name)
                .unwrap();
            recipe.model.stage_flops(100, stage, 16).unwrap()
        };
        let [plain, fixed, led] = ["baseline", "fixed", "exit"].map(of);
        assert_eq!((plain[0], fixed[0]), (plain[1], fixed[1]));
        assert!(led[0] < led[1], "{led:?}");
        // The same blocks in a row, with and without the pool's exit around them.
        assert!(
            fixed[0] >= plain[0] && fixed[0] < 1.5 * plain[0],
            "{fixed:?} {plain:?}"
        );
    }
}
