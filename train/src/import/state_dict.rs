//! State dicts: tensors by the reference's names or by ours, matched with a model of ours and read into its layout.
//!
//! An architecture is a function from its names to ours, such as [`target`].

use super::brian::{EMBEDDING, HEAD, target};
use super::brillm::{OUR_TABLE, overflows};
use super::checkpoint::Checkpoint;
use super::fit::{self, Fit, Target, Wanted};
use super::source::in_tensor;
use crate::error::{Error, Problem};
use crate::run::{HostTensor, TensorMap, Values};
use brillm::table::Storage;
use half::bf16;
use std::collections::BTreeMap;

/// Shapes by parameter path.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// Our path of the embedding, which is the head too.
const OUR_EMBEDDING: &str = "embedding.weight";

/// Where a tensor goes, by the reference's name for it or by ours. Of a tied pair one may be stored alone, under either name.
fn place(name: &str, shapes: &Shapes) -> Option<Target> {
    let ours = |path: &str| shapes.contains_key(path).then(|| Target::new(path, false));
    match name {
        HEAD => ours(OUR_EMBEDDING),
        _ => target(name).or_else(|| ours(name)),
    }
}

/// The head, and the embedding that it is stored beside.
fn tied(checkpoint: &Checkpoint) -> Option<(&'static str, &'static str)> {
    let has = |name: &&str| checkpoint.tensors().contains_key(*name);
    let embedding = [EMBEDDING, OUR_EMBEDDING].into_iter().find(has);
    embedding.filter(|_| has(&HEAD)).map(|first| (HEAD, first))
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
    fit::compare(checkpoint, &wanted.collect(), tied(checkpoint), target)
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
    let tied = tied(checkpoint);
    let names: Vec<String> = checkpoint.tensors().keys().cloned().collect();
    let mut model = TensorMap::new();
    for name in names.iter().filter(|name| tied.is_none() || *name != HEAD) {
        let target = place(name, shapes).expect("a tensor that fits has a place");
        let shape = checkpoint.tensors()[name].stored.shape.clone();
        let tensor = HostTensor::new(shape, checkpoint.values(name)?);
        model.insert(target.path.clone(), target.layout(tensor));
    }
    if let Some((_, embedding)) = tied {
        require_tied(checkpoint, embedding, &model[OUR_EMBEDDING])?;
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

/// Refuses a head with values of its own: there is no place for them, and without them the model would be another.
fn require_tied(
    checkpoint: &mut Checkpoint,
    embedding: &str,
    values: &HostTensor,
) -> Result<(), Error> {
    let Some(found) = checkpoint.difference(HEAD, embedding, &values.floats())? else {
        return Ok(());
    };
    let expected = "a head that is the embedding, to the bit";
    let place = format!("tensor {HEAD:?}");
    let problem = Problem::new(checkpoint.path(), place, found, expected);
    let advice = "a head of its own cannot be taken over yet";
    Err(Error::Invalid(problem.advise(advice)))
}
