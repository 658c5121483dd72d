//! `Checkpoint`: all files of a foreign checkpoint as one; lists tensors by name, and reads their values later, as finite f32.
//!
//! Wrappers put a prefix before every tensor name: `torch.compile` `_orig_mod.`, data parallel training `module.`, a trainer
//! `model.`. A prefix that all weights have is removed.

use super::Pieces;
use super::number::Cast;
use super::pytorch::Globals;
use super::shards::Shards;
use super::source::{Source, Stored, dimensions, in_tensor, open};
use crate::error::Error;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is put before the names of a wrapped model.
const WRAPPERS: [&str; 3] = ["_orig_mod.", "module.", "model."];

/// How many wrappers may lie in each other.
const MOST_WRAPPERS: usize = 8;

/// What to do with a tensor that two files hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubled {
    /// Refuse it.
    Refused,
    /// Take that of the later file, as the reference does with the files of a release.
    LaterCounts,
}

/// A tensor of floating-point numbers.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name in the files.
    pub theirs: String,
    /// Its shape and number type.
    pub stored: Stored,
    /// The tensors of files that it consists of, by rows: one, unless our own checkpoint has cut it.
    parts: Vec<(usize, String)>,
}

/// An entry of a file that is not imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Its name without the prefixes of wrappers.
    pub name: String,
    /// Its name in the file.
    pub theirs: String,
    /// Its shape, if it is a tensor.
    pub shape: Option<Vec<usize>>,
    /// Its number type, or what it is.
    pub kind: String,
    /// Why it is not imported.
    pub why: String,
}

/// The files of a checkpoint.
pub struct Checkpoint {
    /// As the user named it.
    path: PathBuf,
    files: Vec<(PathBuf, Box<dyn Source>)>,
    tensors: BTreeMap<String, Entry>,
    ignored: Vec<Ignored>,
    prefix: String,
    casts: BTreeMap<String, Cast>,
}

impl Checkpoint {
    /// Reads names, shapes and number types.
    ///
    /// # Errors
    /// `Invalid` if a file is missing or broken, if an index is wrong about its shards, or if tensors do not go together.
    pub fn open(paths: &[PathBuf], globals: Globals, doubled: Doubled) -> Result<Self, Error> {
        let mut all = Self {
            path: paths.first().cloned().unwrap_or_default(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            ignored: Vec::new(),
            prefix: String::new(),
            casts: BTreeMap::new(),
        };
        let mut found: BTreeMap<String, (usize, Stored)> = BTreeMap::new();
        for path in paths {
            let mut shards = Shards::of(path)?;
            for (number, path) in shards.files.clone().into_iter().enumerate() {
                let source = open(&path, globals)?;
                let file = all.files.len();
                for (name, stored) in source.tensors() {
                    shards.require_place(number, name)?;
                    let entry = (file, stored.clone());
                    let Some((first, other)) = found.insert(name.clone(), entry) else {
                        continue;
                    };
                    if doubled == Doubled::Refused {
                        let first = all.files[first].0.display();
                        let found = format!("a second tensor of this name, first in {first}");
                        return Err(in_tensor(&path, name, found, "every tensor once"));
                    }
                    let why = format!("again in {}, which counts", path.display());
                    all.ignore(name, Some(other.shape), other.dtype.name(), why);
                }
                all.files.push((path, source));
            }
            shards.require_all_found()?;
        }
        all.sort_out(found)?;
        Ok(all)
    }

    fn ignore(&mut self, theirs: &str, shape: Option<Vec<usize>>, kind: &str, why: String) {
        self.ignored.push(Ignored {
            name: String::new(),
            theirs: theirs.to_string(),
            shape,
            kind: kind.to_string(),
            why,
        });
    }

    /// Keeps weights and ignores the rest.
    fn sort_out(&mut self, found: BTreeMap<String, (usize, Stored)>) -> Result<(), Error> {
        let is_weight = |stored: &Stored| stored.dtype.number().is_some();
        let weights = found.iter().filter(|(_, (_, stored))| is_weight(stored));
        let names: Vec<&str> = weights.map(|(name, _)| name.as_str()).collect();
        self.prefix = prefix(&names);
        let prefix = self.prefix.clone();
        let plain = |name: &str| name.strip_prefix(&prefix).unwrap_or(name).to_string();
        let asides = self.files.iter().flat_map(|(_, source)| source.asides());
        for aside in asides.cloned().collect::<Vec<_>>() {
            let why = "no tensor of numbers".to_string();
            self.ignore(&aside.name, None, &aside.kind, why);
        }
        let mut groups: BTreeMap<String, BTreeMap<String, Entry>> = BTreeMap::new();
        for (theirs, (file, stored)) in found {
            if !is_weight(&stored) {
                let (kind, why) = (stored.dtype.name(), "whole numbers".to_string());
                self.ignore(&theirs, Some(stored.shape), kind, why);
                continue;
            }
            let name = plain(&theirs);
            let entry = Entry {
                parts: vec![(file, theirs.clone())],
                theirs,
                stored,
            };
            match part_of(&name) {
                Some((whole, which)) => {
                    let group = groups.entry(whole.to_string()).or_default();
                    group.insert(which.to_string(), entry);
                }
                None => drop(self.tensors.insert(name, entry)),
            }
        }
        for (name, group) in groups {
            let whole = self.join(&name, group)?;
            if self.tensors.insert(name.clone(), whole).is_some() {
                let found = "it whole and in parts";
                return Err(in_tensor(&self.path, &name, found, "every tensor once"));
            }
        }
        for ignored in &mut self.ignored {
            ignored.name = plain(&ignored.theirs);
        }
        Ok(())
    }

    /// A tensor that our own checkpoint has cut by rows, `NAME@00001-of-00002`.
    fn join(&self, name: &str, group: BTreeMap<String, Entry>) -> Result<Entry, Error> {
        let count = group.len();
        let wrong = |found: String| {
            let expected = format!("its {count} parts by rows, complete and of one kind");
            Err(in_tensor(&self.path, name, found, expected))
        };
        let mut whole: Option<Entry> = None;
        for (number, (which, part)) in (1..).zip(group) {
            let Stored { shape, dtype } = &part.stored;
            let numbered = which == format!("{number:05}-of-{count:05}");
            let continues = whole.as_ref().is_none_or(|Entry { stored, .. }| {
                stored.shape.get(1..) == shape.get(1..) && stored.dtype == *dtype
            });
            if !numbered || shape.is_empty() || !continues {
                let shape = dimensions(shape);
                return wrong(format!("part {which} of shape {shape}"));
            }
            let Some(whole) = &mut whole else {
                whole = Some(Entry {
                    theirs: name.to_string(),
                    ..part
                });
                continue;
            };
            let stored = &mut whole.stored;
            stored.shape[0] = stored.shape[0].saturating_add(shape[0]);
            if stored.bytes().is_none() {
                return wrong(format!("shape {}", dimensions(&stored.shape)));
            }
            whole.parts.extend(part.parts);
        }
        Ok(whole.expect("a group has a part"))
    }

    /// The path that the user gave, for messages about the whole checkpoint.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files it consists of.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// The tensors of floating-point numbers, by name.
    pub fn tensors(&self) -> &BTreeMap<String, Entry> {
        &self.tensors
    }

    /// The entries that are not imported.
    pub fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// The prefix that was removed from every name; empty if there was none.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The keys under which the files keep their tensors, if they have any.
    pub fn keys(&self) -> Vec<&str> {
        let keys = self.files.iter().map(|(_, source)| source.key());
        let mut keys: Vec<&str> = keys.filter(|key| !key.is_empty()).collect();
        keys.dedup();
        keys
    }

    /// A possible reason why names do not fit.
    pub fn hint(&self) -> Option<String> {
        let borne = |wrapper: &str| {
            let names = self.tensors.keys();
            let n = names.filter(|name| name.starts_with(wrapper)).count();
            (n > 0).then(|| format!("{n} of {} names begin with {wrapper}, a prefix that is taken off only where all do", self.tensors.len()))
        };
        let of_many = || {
            let name = self.path.file_name()?.to_string_lossy();
            let is_part = name.contains("-of-") && !name.contains("00001-of-00001");
            is_part.then(|| {
                "the file is one of several: name their index or directory instead".to_string()
            })
        };
        WRAPPERS.into_iter().find_map(borne).or_else(of_many)
    }

    /// What was lost in converting tensors to f32: those that were read, and lost something.
    pub fn casts(&self) -> &BTreeMap<String, Cast> {
        &self.casts
    }

    /// Reads the values of a tensor in row-major order, piece by piece.
    ///
    /// # Errors
    /// `Invalid` if the file does not hold them, or if one of them is not finite.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn read(&mut self, name: &str, pieces: Pieces<'_>) -> Result<(), Error> {
        let Entry {
            theirs,
            parts,
            stored,
        } = &self.tensors[name];
        let mut census = Census::default();
        let mut cast = Cast::default();
        for (file, part) in parts {
            let (_, source) = &mut self.files[*file];
            cast.add(source.read(part, &mut |piece| {
                census.count(piece);
                pieces(piece);
            })?);
        }
        let (path, _) = &self.files[parts[0].0];
        census.require_finite(path, theirs, stored, cast)?;
        if cast != Cast::default() {
            self.casts.insert(name.to_string(), cast);
        }
        Ok(())
    }

    /// How a tensor differs from `values`, those of the tensor named `other`, compared bit by bit; `None` if it does not.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    ///
    /// # Panics
    /// If there is no such tensor, or it has more values.
    pub fn difference(
        &mut self,
        name: &str,
        other: &str,
        values: &[f32],
    ) -> Result<Option<String>, Error> {
        let (mut at, mut different, mut first) = (0, 0u64, None);
        self.read(name, &mut |piece| {
            for (own, value) in piece.iter().zip(&values[at..]) {
                if own.to_bits() != value.to_bits() {
                    different += 1;
                    first.get_or_insert((at, *own, *value));
                }
                at += 1;
            }
        })?;
        Ok(first.map(|(index, own, value)| {
            let within = in_shape(index as u64, &self.tensors[name].stored.shape);
            format!(
                "{different} of {at} numbers that differ from those of {other}, the first at index {index}, {within}: {own} and \
                 {value}"
            )
        }))
    }

    /// All values of a tensor.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn values(&mut self, name: &str) -> Result<Vec<f32>, Error> {
        let mut values = Vec::with_capacity(self.tensors[name].stored.len());
        self.read(name, &mut |piece| values.extend_from_slice(piece))?;
        Ok(values)
    }
}

/// What all names begin with.
fn prefix(names: &[&str]) -> String {
    let mut prefix = String::new();
    for _ in 0..MOST_WRAPPERS {
        let bears = |name: &&str, wrapper: &str| {
            let rest = name.strip_prefix(&prefix);
            rest.is_some_and(|rest| rest.starts_with(wrapper))
        };
        let borne = |wrapper: &&str| names.iter().all(|name| bears(name, wrapper));
        match WRAPPERS.into_iter().find(borne) {
            Some(wrapper) if !names.is_empty() => prefix += wrapper,
            _ => break,
        }
    }
    prefix
}

/// The tensor whose part a name is, and which part.
fn part_of(name: &str) -> Option<(&str, &str)> {
    let (whole, which) = name.rsplit_once('@')?;
    let (number, count) = which.split_once("-of-")?;
    let digits = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(number) && digits(count)).then_some((whole, which))
}

/// What is not finite among values that come in pieces.
#[derive(Default)]
struct Census {
    seen: u64,
    not_finite: u64,
    first: Option<(u64, f32)>,
}

impl Census {
    fn count(&mut self, piece: &[f32]) {
        let bad = piece.iter().filter(|value| !value.is_finite()).count();
        if bad > 0 {
            let place = piece.iter().position(|value| !value.is_finite());
            let place = place.expect("there is one");
            self.first
                .get_or_insert((self.seen + place as u64, piece[place]));
        }
        self.not_finite += bad as u64;
        self.seen += piece.len() as u64;
    }

    fn require_finite(
        &self,
        path: &Path,
        name: &str,
        stored: &Stored,
        cast: Cast,
    ) -> Result<(), Error> {
        let Some((first, value)) = self.first else {
            return Ok(());
        };
        let (n, seen) = (self.not_finite, self.seen);
        let place = in_shape(first, &stored.shape);
        let (what, value, expected) = match cast.first_overflow {
            Some(value) if cast.overflowed == n => (
                "too large for single precision",
                format!("{value:e}"),
                "numbers up to 3.4e38",
            ),
            _ => (
                "that are not finite",
                value.to_string(),
                "weights of a trained model",
            ),
        };
        let found =
            format!("{n} of {seen} numbers {what}, the first at index {first}, {place}: {value}");
        Err(in_tensor(path, name, found, expected))
    }
}

/// The index of a value along every dimension, as text.
pub fn in_shape(index: u64, shape: &[usize]) -> String {
    let mut rest = index as usize;
    let mut places: Vec<usize> = Vec::new();
    for length in shape.iter().rev() {
        places.push(rest % length.max(&1));
        rest /= length.max(&1);
    }
    places.reverse();
    dimensions(&places)
}
