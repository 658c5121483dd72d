//! Tests that every bundled recipe and sweep loads and describes models that can be built, and that those of published models
//! have their parameter counts and settings.

use crate::support::TestAutodiff;
use brillm::compat::{self, Published};
use std::fs;
use std::path::{Path, PathBuf};
use train::family::brillm::{Edges, SignalConfig};
use train::ladder::Blueprint;
use train::learner::OptimizerConfig;
use train::recipe::sweep::Sweep;
use train::recipe::{Recipe, load};

fn recipes(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let mut found: Vec<PathBuf> = folders.iter().flat_map(|folder| recipes(folder)).collect();
    found.extend(
        files
            .into_iter()
            .filter(|file| file.extension().is_some_and(|end| end == "toml")),
    );
    found.sort();
    found
}

#[test]
fn every_bundled_recipe_describes_models_that_can_be_built() {
    let all = recipes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/recipes"));
    assert!(all.len() >= 9, "{all:?}");
    for file in all {
        let recipe = load(&file, &[]).unwrap_or_else(|error| panic!("{error}"));
        for stage in &recipe.stage {
            let blueprint = Blueprint {
                recipe: &recipe,
                vocabulary: 300,
                counts: None,
                ranks: None,
            };
            let device = Default::default();
            assert!(
                blueprint.n_parameters::<TestAutodiff>(&stage.policy, &device) > 0,
                "{}: {}",
                file.display(),
                stage.name
            );
        }
    }
}

#[test]
fn every_bundled_sweep_resolves_to_recipes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let all = recipes(&root.join("assets/sweeps"));
    assert!(all.len() >= 5, "{all:?}");
    for file in all {
        let mut sweep = Sweep::load(&file).unwrap_or_else(|error| panic!("{error}"));
        // The paths in it are those of somebody who stands in the project.
        sweep.recipe = root.join(&sweep.recipe);
        for row in &mut sweep.row {
            row.recipe = row.recipe.as_ref().map(|path| root.join(path));
        }
        let variants = sweep
            .variants("s")
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            variants.len(),
            sweep.row.len() * sweep.seeds.len(),
            "{}",
            file.display()
        );
        let compared = sweep.check_compare(&file, &variants);
        compared.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_recipes_of_published_sizes_have_their_parameters() {
    let published = [
        ("baseline/r125", 137_841_408),
        ("baseline/r350", 384_661_440),
        ("baseline/r1b", 1_257_211_392),
        ("brian/r125", 139_521_609),
        ("brian/r350", 388_736_913),
        ("brian/r1b", 1_270_621_461),
    ];
    for (name, expected) in published {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../assets/recipes/{name}.toml"));
        let recipe = load(&file, &[]).unwrap_or_else(|error| panic!("{error}"));
        let last = recipe.stage.last().unwrap();
        let blueprint = Blueprint {
            recipe: &recipe,
            vocabulary: 32_000,
            counts: None,
            ranks: None,
        };
        let found = blueprint.n_parameters::<TestAutodiff>(&last.policy, &Default::default());
        assert_eq!(found, expected, "{name}");
    }
}

/// What a recipe says of everything in which the published descriptions differ.
fn described(recipe: &Recipe) -> Published {
    let Some(config) = recipe.model.get::<SignalConfig>() else {
        panic!("{:?}", recipe.model);
    };
    let OptimizerConfig::RowAdamw { mode, .. } = recipe.optimizer else {
        panic!("{:?}", recipe.optimizer);
    };
    Published {
        flow: config.flow,
        back_off: match config.edges {
            Edges::Full => None,
            Edges::Counted { back_off, .. } => Some(back_off),
        },
        back_off_rows: config.model().back_off_rows,
        candidates: config.candidates,
        last_edge: config.last_edge,
        mode,
        decoding: config.decode,
    }
}

#[test]
fn recipes_of_published_graphs_say_what_the_published_modes_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for size in ["zh_4k", "en_4k"] {
        let file = root.join(format!("assets/recipes/brillm/{size}.toml"));
        let recipe = load(&file, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(described(&recipe), compat::REF_SPARSE, "{size}");
    }
    let mut sweep = Sweep::load(&root.join("assets/sweeps/signal_modes.toml")).unwrap();
    sweep.recipe = root.join(&sweep.recipe);
    let variants = sweep.variants("s").unwrap();
    let of = |row: &str| {
        let variant = variants.iter().find(|variant| variant.row == row).unwrap();
        described(&variant.recipe)
    };
    assert_eq!(of("paper"), compat::PAPER_MODE);
    assert_eq!(of("ref-sparse"), compat::REF_SPARSE);
}
