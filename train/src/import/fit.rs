//! Matches tensors of a foreign checkpoint with those of our model, and says why some do not fit.

use super::checkpoint::{Checkpoint, Entry, Ignored};
use super::source::dimensions;
use crate::run::HostTensor;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The parameter of ours that a tensor of a checkpoint becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Our parameter path.
    pub path: String,
    /// Whether the matrix is transposed.
    pub transposed: bool,
}

impl Target {
    /// A parameter by its path.
    pub fn new(path: impl Into<String>, transposed: bool) -> Self {
        let path = path.into();
        Self { path, transposed }
    }

    /// The shape of a tensor in our layout.
    pub fn shape(&self, shape: Vec<usize>) -> Vec<usize> {
        match shape.is_empty() {
            // A single number has no shape in PyTorch, and one dimension here.
            true => vec![1],
            false => self.theirs(shape),
        }
    }

    /// The shape in the checkpoint of a tensor with our shape.
    pub fn theirs(&self, mut shape: Vec<usize>) -> Vec<usize> {
        if self.transposed {
            shape.reverse();
        }
        shape
    }

    /// A tensor in our layout.
    ///
    /// # Panics
    /// If a tensor to be transposed is no matrix.
    pub fn layout(&self, tensor: HostTensor) -> HostTensor {
        if tensor.shape.is_empty() {
            return HostTensor::new(self.shape(Vec::new()), tensor.into_values());
        }
        if !self.transposed {
            return tensor;
        }
        let [rows, columns] = tensor.shape[..] else {
            panic!("{} has shape {:?}", self.path, tensor.shape);
        };
        let values = tensor.floats();
        let value = |index: usize| values[index % rows * columns + index / rows];
        HostTensor::new(
            vec![columns, rows],
            (0..rows * columns).map(value).collect(),
        )
    }
}

/// A tensor that a checkpoint must hold.
pub struct Wanted {
    /// The name and shape of the parameter that it becomes, or becomes a part of.
    pub ours: (String, Vec<usize>),
    /// Its shape, turned if it will be.
    pub shape: Vec<usize>,
    /// Its name where it is missing.
    pub name: String,
}

/// Matches every tensor of a checkpoint with those that are wanted, by the paths of their targets.
///
/// `again` names tensors that are stored a second time, each with the one that counts.
pub fn compare(
    checkpoint: &Checkpoint,
    wanted: &BTreeMap<String, Wanted>,
    again: &BTreeMap<String, Again>,
    target: impl Fn(&str) -> Option<Target>,
) -> Vec<Fit> {
    let (mut fits, mut taken) = (Vec::new(), BTreeSet::new());
    for (name, entry) in checkpoint.tensors() {
        let shape = &entry.stored.shape;
        let mut fit = Fit::placeless(entry);
        if let Some(Again { first, what }) = again.get(name) {
            let wanted = &checkpoint.tensors()[first].stored.shape;
            fit.what = match shape == wanted {
                true => what.clone(),
                false => What::OtherShape(wanted.clone()),
            };
        } else if let Some(target) = target(name) {
            let shape = target.shape(shape.clone());
            fit.transposed = target.transposed;
            fit.ours = Some((target.path.clone(), shape.clone()));
            if let Some(wanted) = wanted.get(&target.path) {
                fit.ours = Some(wanted.ours.clone());
                fit.what = match wanted.shape == shape {
                    _ if !taken.insert(target.path.clone()) => What::Taken,
                    true => What::Fits,
                    false => What::OtherShape(target.theirs(wanted.shape.clone())),
                };
            }
        }
        fits.push(fit);
    }
    for ignored in checkpoint.ignored() {
        let mut fit = Fit::ignored(ignored);
        if let Some(Target { path, .. }) = target(&ignored.name)
            && let Some(wanted) = wanted.get(&path)
            && taken.insert(path)
        {
            (fit.ours, fit.what) = (Some(wanted.ours.clone()), What::NoWeights);
        }
        fits.push(fit);
    }
    let missing = wanted.iter().filter(|(path, _)| !taken.contains(*path));
    fits.extend(
        missing.map(|(_, wanted)| Fit::missing(wanted.name.clone(), wanted.ours.1.clone())),
    );
    fits
}

/// A tensor that is stored a second time.
pub struct Again {
    /// The name of the one that counts.
    pub first: String,
    /// What to say of it.
    pub what: What,
}

impl Again {
    /// The head, beside the embedding.
    pub fn tied(embedding: &str) -> Self {
        let (first, what) = (embedding.to_string(), What::Tied);
        Self { first, what }
    }
}

/// Whether a tensor can be imported, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It fits.
    Fits,
    /// It is the head, stored beside the embedding; it is compared with that and left out.
    Tied,
    /// It is stored a second time; it is compared with the first and left out.
    Copy,
    /// It is left out, and why.
    Ignored(String),
    /// It has a place, but its numbers are no weights.
    NoWeights,
    /// There is no such tensor in our model.
    NoPlace,
    /// Our model has it, but another tensor was taken for it.
    Taken,
    /// Our model has it with another shape: the shape that would fit, in the layout of the checkpoint.
    OtherShape(Vec<usize>),
    /// The checkpoint has no tensor for ours.
    Missing,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fits => f.write_str("fits"),
            Self::Tied => f.write_str("tied head, stored twice"),
            Self::Copy => f.write_str("stored once more"),
            Self::Ignored(why) => write!(f, "ignored, {why}"),
            Self::NoWeights => f.write_str("has no floating-point numbers"),
            Self::NoPlace => f.write_str("has no place"),
            Self::Taken => f.write_str("has a place that is taken"),
            Self::OtherShape(_) => f.write_str("has another shape"),
            Self::Missing => f.write_str("is missing"),
        }
    }
}

/// A named entry of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Theirs {
    /// Its name in the file.
    pub name: String,
    /// Its shape, if it is a tensor.
    pub shape: Option<Vec<usize>>,
    /// Its number type, or what it is.
    pub kind: String,
}

/// A tensor of the checkpoint, of our model, or of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// The entry of the checkpoint.
    pub theirs: Option<Theirs>,
    /// The name and shape of the parameter that it becomes.
    pub ours: Option<(String, Vec<usize>)>,
    /// Whether the matrix is transposed.
    pub transposed: bool,
    /// The number type of our tensor.
    pub kept: &'static str,
    /// Whether it fits, and if not, why.
    pub what: What,
}

impl Fit {
    fn of(theirs: Option<Theirs>, ours: Option<(String, Vec<usize>)>, what: What) -> Self {
        Self {
            theirs,
            ours,
            transposed: false,
            kept: "F32",
            what,
        }
    }

    /// A tensor of the checkpoint for which no place is known yet.
    fn placeless(entry: &Entry) -> Self {
        let theirs = Theirs {
            name: entry.theirs.clone(),
            shape: Some(entry.stored.shape.clone()),
            kind: entry.stored.dtype.name().to_string(),
        };
        Self::of(Some(theirs), None, What::NoPlace)
    }

    /// An entry of the checkpoint that is left out.
    pub fn ignored(ignored: &Ignored) -> Self {
        let theirs = Theirs {
            name: ignored.theirs.clone(),
            shape: ignored.shape.clone(),
            kind: ignored.kind.clone(),
        };
        Self::of(Some(theirs), None, What::Ignored(ignored.why.clone()))
    }

    /// A tensor of ours that is missing.
    pub fn missing(name: String, shape: Vec<usize>) -> Self {
        Self::of(None, Some((name, shape)), What::Missing)
    }

    /// Its name in the checkpoint, or ours if it is missing there.
    pub fn name(&self) -> &str {
        match (&self.theirs, &self.ours) {
            (Some(theirs), _) => &theirs.name,
            (None, Some((name, _))) => name,
            (None, None) => "",
        }
    }

    /// Whether the checkpoint can be imported in spite of it.
    pub fn is_fine(&self) -> bool {
        matches!(
            self.what,
            What::Fits | What::Tied | What::Copy | What::Ignored(_)
        )
    }

    /// Whether the checkpoint and our model name it differently.
    pub fn renamed(&self) -> bool {
        match (&self.theirs, &self.ours) {
            (Some(theirs), Some((name, _))) => theirs.name != *name,
            _ => false,
        }
    }

    /// Whether its numbers are converted to another type.
    pub fn cast(&self) -> bool {
        let kind = self.theirs.as_ref().map(|theirs| theirs.kind.as_str());
        self.what == What::Fits && kind != Some(self.kept)
    }

    /// The cells of a table: kind, layout, both names and shapes, and whether it fits.
    pub fn cells(&self) -> [String; 7] {
        let none = || "-".to_string();
        let (kind, name, shape) = match &self.theirs {
            Some(theirs) => {
                let shape = theirs.shape.as_deref().map_or_else(none, dimensions);
                let kind = match self.cast() {
                    true => format!("{} to {}", theirs.kind, self.kept),
                    false => theirs.kind.clone(),
                };
                (kind, theirs.name.clone(), shape)
            }
            None => (none(), none(), none()),
        };
        let (layout, our_name, our_shape) = match &self.ours {
            Some((name, shape)) => ("as it is", name.clone(), dimensions(shape)),
            None => ("-", none(), none()),
        };
        let layout = match self.transposed {
            true => "transposed",
            false => layout,
        };
        let (layout, what) = (layout.to_string(), self.what.to_string());
        [kind, layout, name, shape, our_name, our_shape, what]
    }

    /// The same as JSON.
    pub fn to_json(&self) -> Value {
        let theirs = self.theirs.as_ref().map(
            |theirs| json!({ "name": theirs.name, "shape": theirs.shape, "kind": theirs.kind }),
        );
        let ours = self.ours.as_ref();
        json!({
            "theirs": theirs,
            "ours": ours.map(|(name, shape)| json!({ "name": name, "shape": shape })),
            "renamed": self.renamed(),
            "transposed": self.transposed,
            "kept": self.kept,
            "what": self.what.to_string(),
        })
    }
}
