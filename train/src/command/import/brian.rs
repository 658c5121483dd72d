//! Imports a state dict by the names of its tensors: a decoder of the reference, or a checkpoint of ours.

use super::account::Account;
use super::save::{Imported, save};
use super::{answer, option, require_fit, table};
use crate::cli;
use crate::data::Tokenizer;
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::family::brillm::SignalConfig;
use crate::import::brian::{EMBEDDING, HEAD, Target, target};
use crate::import::brillm::{kept, overflows};
use crate::import::checkpoint::{Entry, in_shape};
use crate::import::fit::{Fit, Theirs, What};
use crate::import::{Checkpoint, Doubled, Globals};
use crate::ladder::{self, Blueprint};
use crate::recipe::{Checked, ModelConfig};
use crate::run::{HostTensor, TensorMap, Values};
use brillm::counts::PairCounts;
use brillm::table::Storage;
use burn::tensor::backend::AutodiffBackend;
use half::bf16;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Shapes by parameter path.
type Shapes = BTreeMap<String, Vec<usize>>;

/// Our path of the embedding, which is the head too.
const OUR_EMBEDDING: &str = "embedding.weight";

/// Imports a decoder.
pub(super) fn run(arguments: &cli::Import, recipe: &Checked) -> Result<(), Error> {
    require_no_release(arguments, "the recipe's model is a decoder")?;
    let checkpoint = Checkpoint::open(&arguments.checkpoints, Globals::Any, Doubled::Refused)?;
    take_over(arguments, recipe, checkpoint)
}

/// Options that only a release of a graph has.
fn require_no_release(arguments: &cli::Import, why: &str) -> Result<(), Error> {
    let of_a_release = [
        ("--vocabulary", arguments.vocabulary.is_some()),
        ("--counts", arguments.counts.is_some()),
        ("--tokenizer", arguments.tokenizer.is_some()),
        ("--probe", arguments.probe.is_some()),
    ];
    match of_a_release.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(option(name, "a file", &format!("no such option, as {why}"))),
        None => Ok(()),
    }
}

/// Makes a run from a checkpoint, by the names of its tensors.
pub(super) fn take_over(
    arguments: &cli::Import,
    recipe: &Checked,
    mut checkpoint: Checkpoint,
) -> Result<(), Error> {
    require_no_release(arguments, "the checkpoint is no release of a graph")?;
    let tokenizer = Tokenizer::load(&recipe.tokenizer.file)?;
    let counts = ladder::counts(recipe, &tokenizer)?;
    let wanted = Wanted {
        recipe,
        vocabulary: tokenizer.vocabulary_size(),
        counts: counts.map(|(_, bigrams)| Arc::new(bigrams.counts)),
    };
    let shapes = device::run(&recipe.device, wanted)?;
    let mut fits = compare(&checkpoint, &shapes);
    if let Some(config) = recipe.model.get::<SignalConfig>() {
        for fit in &mut fits {
            fit.kept = kept(&fit.ours, config.storage);
        }
    }
    if arguments.dry_run {
        answer::print(&table(&fits))?;
    }
    require_fit(&checkpoint, &fits)?;
    let model = load(&mut checkpoint, &shapes, &recipe.model)?;
    let account = Account {
        checkpoint: &checkpoint,
        fits: &fits,
    };
    if arguments.dry_run {
        account.say_notes();
        return Ok(());
    }
    account.say();
    let imported = Imported {
        recipe,
        tokenizer: &tokenizer,
        account: account.to_json(),
        files: None,
    };
    let run = save(&imported, model)?;
    answer::print_text(&format!("{}\n", run.path().display()))
}

/// Where a tensor goes, by the reference's name for it or by ours. Of a tied pair one may be stored alone, under either name.
fn place(name: &str, shapes: &Shapes) -> Option<Target> {
    let ours = |path: &str| {
        shapes.contains_key(path).then(|| Target {
            path: path.to_string(),
            transposed: false,
        })
    };
    match name {
        HEAD => ours(OUR_EMBEDDING),
        _ => target(name).or_else(|| ours(name)),
    }
}

/// The name of the embedding that a head is stored beside.
fn embedding_of(checkpoint: &Checkpoint) -> Option<&'static str> {
    let names = [EMBEDDING, OUR_EMBEDDING].into_iter();
    let mut beside = names.filter(|name| checkpoint.tensors().contains_key(*name));
    beside
        .next()
        .filter(|_| checkpoint.tensors().contains_key(HEAD))
}

fn compare(checkpoint: &Checkpoint, shapes: &Shapes) -> Vec<Fit> {
    let mut missing: BTreeMap<&str, &Vec<usize>> = shapes
        .iter()
        .map(|(path, shape)| (path.as_str(), shape))
        .collect();
    let mut taken = BTreeSet::new();
    let mut fits = Vec::new();
    for (name, entry) in checkpoint.tensors() {
        let fit = match embedding_of(checkpoint) {
            Some(embedding) if name == HEAD => tied(entry, &checkpoint.tensors()[embedding]),
            _ => placed(name, entry, shapes, &mut taken),
        };
        if let Some((path, _)) = &fit.ours {
            missing.remove(path.as_str());
        }
        fits.push(fit);
    }
    for ignored in checkpoint.ignored() {
        let mut fit = Fit::ignored(ignored);
        let place = place(&ignored.name, shapes);
        if let Some((path, shape)) =
            place.and_then(|target| missing.remove_entry(target.path.as_str()))
        {
            (fit.ours, fit.what) = (Some((path.to_string(), shape.clone())), What::NoWeights);
        }
        fits.push(fit);
    }
    let missing = missing.into_iter();
    fits.extend(missing.map(|(path, shape)| Fit::missing(path.to_string(), shape.clone())));
    fits
}

/// A head beside an embedding.
fn tied(head: &Entry, embedding: &Entry) -> Fit {
    Fit {
        theirs: Some(Theirs::from(head)),
        ours: None,
        transposed: false,
        kept: "F32",
        what: match head.stored.shape == embedding.stored.shape {
            true => What::Tied,
            false => What::OtherShape(embedding.stored.shape.clone()),
        },
    }
}

fn placed(name: &str, entry: &Entry, shapes: &Shapes, taken: &mut BTreeSet<String>) -> Fit {
    let fit = |ours, transposed, what| Fit {
        theirs: Some(Theirs::from(entry)),
        ours,
        transposed,
        kept: "F32",
        what,
    };
    let Some(target) = place(name, shapes) else {
        return fit(None, false, What::NoPlace);
    };
    let Target { path, transposed } = &target;
    let shape = target.shape(entry.stored.shape.clone());
    let what = match shapes.get(path) {
        None => What::NoPlace,
        Some(_) if !taken.insert(path.clone()) => What::Taken,
        Some(wanted) if *wanted == shape => What::Fits,
        Some(wanted) => What::OtherShape(target.theirs(wanted.clone())),
    };
    let shape = shapes.get(path).cloned().unwrap_or(shape);
    fit(Some((path.clone(), shape)), *transposed, what)
}

/// Reads all values into our layout; the caller has compared the shapes.
fn load(
    checkpoint: &mut Checkpoint,
    shapes: &Shapes,
    config: &ModelConfig,
) -> Result<TensorMap, Error> {
    let embedding = embedding_of(checkpoint);
    let names: Vec<String> = checkpoint.tensors().keys().cloned().collect();
    let mut model = TensorMap::new();
    for name in names
        .iter()
        .filter(|name| *name != HEAD || embedding.is_none())
    {
        let target = place(name, shapes).expect("a tensor that fits has a place");
        let shape = checkpoint.tensors()[name].stored.shape.clone();
        let tensor = HostTensor::new(shape, checkpoint.values(name)?);
        model.insert(target.path.clone(), target.layout(tensor));
    }
    if let Some(embedding) = embedding {
        require_tied(checkpoint, embedding, &model[OUR_EMBEDDING])?;
    }
    if let Some(config) = config.get::<SignalConfig>()
        && config.storage == Storage::Bf16
        && let Some(edges) = model.remove("edges")
    {
        // As a training would have saved it.
        let (shape, values) = (edges.shape.clone(), edges.into_values());
        if let Some(index) = values.iter().position(|value| overflows(*value)) {
            let found = format!("{:e} at index {index}", values[index]);
            let expected = "numbers up to 3.38e38, as the recipe stores them as bf16";
            let problem = Problem::new(checkpoint.path(), "tensor \"edges\"", found, expected);
            return Err(Error::Invalid(problem));
        }
        let halves = values.into_iter().map(bf16::from_f32).collect();
        let tensor = HostTensor::of(shape, Values::Bf16(halves));
        model.insert("edges".to_string(), tensor);
    }
    Ok(model)
}

/// Refuses a head with values of its own: there is no place for them, and without them the model would be another.
fn require_tied(
    checkpoint: &mut Checkpoint,
    embedding: &str,
    values: &HostTensor,
) -> Result<(), Error> {
    let values = values.floats();
    let (mut at, mut different, mut first) = (0, 0u64, None);
    checkpoint.read(HEAD, &mut |piece| {
        for (head, embedding) in piece.iter().zip(&values[at..]) {
            if head.to_bits() != embedding.to_bits() {
                different += 1;
                first.get_or_insert((at, *head, *embedding));
            }
            at += 1;
        }
    })?;
    let Some((index, head, other)) = first else {
        return Ok(());
    };
    let place = in_shape(index as u64, &checkpoint.tensors()[HEAD].stored.shape);
    let found = format!(
        "{different} of {at} numbers that differ from those of {embedding}, the first at index {index}, {place}: {head} and {other}"
    );
    let expected = "a head that is the embedding, to the bit";
    let problem = Problem::new(
        checkpoint.path(),
        format!("tensor {HEAD:?}"),
        found,
        expected,
    );
    let advice = "a head of its own cannot be taken over yet";
    Err(Error::Invalid(problem.advise(advice)))
}

/// The shapes of the model of the recipe's last stage.
struct Wanted<'a> {
    recipe: &'a Checked,
    vocabulary: usize,
    counts: Option<Arc<PairCounts>>,
}

impl Task for Wanted<'_> {
    type Output = Shapes;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<Shapes, Error> {
        let policy = &self.recipe.stage[self.recipe.stage.len() - 1].policy;
        let blueprint = Blueprint {
            recipe: self.recipe,
            vocabulary: self.vocabulary,
            counts: self.counts.as_ref(),
        };
        Ok(blueprint.skeleton::<B>(policy, &device).shapes())
    }
}
