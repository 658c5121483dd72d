//! State dicts: tensors by the reference's names or by ours, matched with a model of ours and read into its layout.
//!
//! An architecture is a function from its names to ours, such as [`target`].

use super::brian::{EMBEDDING, HEAD, shared_map, target};
use super::brillm::{OUR_TABLE, overflows};
use super::checkpoint::Checkpoint;
use super::fit::{self, Again, Fit, Target, Wanted, What};
use super::source::in_tensor;
use crate::error::{Error, Problem};
use crate::run::{HostTensor, TensorMap, Values};
use brillm::table::Storage;
use half::bf16;
use std::collections::BTreeMap;

/// Shapes by parameter path.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// Our path of the embedding, which is the head too where it is tied.
const OUR_EMBEDDING: &str = "embedding.weight";
/// Our path of a head of its own.
const OUR_HEAD: &str = "unembedding.weight";
/// Our path of the map to the keys of codes that all blocks share.
const SHARED_KEYS: &str = "memory.key_write.weight";

/// Where a tensor goes, by the reference's name for it or by ours. Of a tied pair one may be stored alone, under either name.
fn place(name: &str, shapes: &Shapes) -> Option<Target> {
    let ours = |path: &str| shapes.contains_key(path).then(|| Target::new(path, false));
    match (name, shared_map(name)) {
        (HEAD, _) => ours(OUR_HEAD).or_else(|| ours(OUR_EMBEDDING)),
        (_, Some((_, path))) if shapes.contains_key(path) => Some(Target::new(path, true)),
        _ => target(name).or_else(|| ours(name)),
    }
}

/// What is stored a second time: a tied head beside the embedding, and under every block the maps that all of them share.
fn again(checkpoint: &Checkpoint, shapes: &Shapes) -> BTreeMap<String, Again> {
    let has = |name: &&str| checkpoint.tensors().contains_key(*name);
    let embedding = [EMBEDDING, OUR_EMBEDDING].into_iter().find(has);
    let head = embedding.filter(|_| has(&HEAD) && !shapes.contains_key(OUR_HEAD));
    let head = head.map(|first| (HEAD.to_string(), Again::tied(first)));
    let copies = checkpoint.tensors().keys().filter_map(|name| {
        let (first, path) = shared_map(name)?;
        let is_copy = name != first && shapes.contains_key(path) && has(&first);
        let again = Again {
            first: first.to_string(),
            what: What::Copy,
        };
        is_copy.then(|| (name.clone(), again))
    });
    head.into_iter().chain(copies).collect()
}

/// Matches every tensor of a checkpoint with those of our model.
pub fn compare(checkpoint: &Checkpoint, shapes: &Shapes) -> Vec<Fit> {
    let wanted = shapes.iter().map(|(path, shape)| {
        let wanted = Wanted {
            name: path.clone(),
            ours: (path.clone(), shape.clone()),
            shape: shape.clone(),
        };
        (path.clone(), wanted)
    });
    let target = |name: &str| place(name, shapes);
    let again = again(checkpoint, shapes);
    let mut fits = fit::compare(checkpoint, &wanted.collect(), &again, target);
    for (name, fit) in checkpoint.tensors().keys().zip(&mut fits) {
        if fit.what == What::NoPlace && cancels(name, shapes) {
            fit.what = What::Ignored("a bias of all scores, which changes none".to_string());
        }
    }
    fits
}

/// Whether a tensor is the bias of a block whose codes are all those of the states at a step: added to all scores, it cancels.
fn cancels(name: &str, shapes: &Shapes) -> bool {
    let is_bias = target(name).is_some_and(|target| is_bias_of_memory(&target.path));
    let has_codes = shapes.contains_key(SHARED_KEYS);
    is_bias && has_codes && !shapes.keys().any(|path| is_bias_of_memory(path))
}

fn is_bias_of_memory(path: &str) -> bool {
    path.starts_with("memory.blocks.") && path.ends_with(".bias")
}

/// Reads all values into our layout, an edge table as it is stored; the caller has compared the shapes.
///
/// # Errors
/// `Invalid` if a file does not hold them or they are not finite, or if a head has values of its own.
pub fn load(
    checkpoint: &mut Checkpoint,
    shapes: &Shapes,
    storage: Storage,
) -> Result<TensorMap, Error> {
    let again = again(checkpoint, shapes);
    let names: Vec<String> = checkpoint.tensors().keys().cloned().collect();
    let mut model = TensorMap::new();
    for name in names.iter().filter(|name| !cancels(name, shapes)) {
        if let Some(Again { first, .. }) = again.get(name) {
            require_same(checkpoint, name, first)?;
            continue;
        }
        let target = place(name, shapes).expect("a tensor that fits has a place");
        let shape = checkpoint.tensors()[name].stored.shape.clone();
        let tensor = HostTensor::new(shape, checkpoint.values(name)?);
        model.insert(target.path.clone(), target.layout(tensor));
    }
    if storage == Storage::Bf16
        && let Some(edges) = model.remove(OUR_TABLE)
    {
        // As a training would have saved it.
        let (shape, values) = (edges.shape.clone(), edges.into_values());
        if let Some(index) = values.iter().position(|value| overflows(*value)) {
            let found = format!("{:e} at index {index}", values[index]);
            let expected = "numbers up to 3.38e38, as the recipe stores them as bf16";
            return Err(in_tensor(checkpoint.path(), OUR_TABLE, found, expected));
        }
        let halves = values.into_iter().map(bf16::from_f32).collect();
        let tensor = HostTensor::of(shape, Values::Bf16(halves));
        model.insert(OUR_TABLE.to_string(), tensor);
    }
    Ok(model)
}

/// Refuses what is stored a second time with other values: there is no place for them, and without them the model would be another.
fn require_same(checkpoint: &mut Checkpoint, name: &str, first: &str) -> Result<(), Error> {
    let values = checkpoint.values(first)?;
    let Some(found) = checkpoint.difference(name, first, &values)? else {
        return Ok(());
    };
    let (expected, advice) = match name {
        HEAD => (
            "a head that is the embedding, to the bit".to_string(),
            "a head of its own needs model.untied_head = true",
        ),
        _ => (
            format!("{first}, to the bit"),
            "blocks that share codes share the maps that make them",
        ),
    };
    let place = format!("tensor {name:?}");
    let problem = Problem::new(checkpoint.path(), place, found, expected);
    Err(Error::Invalid(problem.advise(advice)))
}
