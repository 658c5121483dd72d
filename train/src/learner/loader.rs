//! Position in the data → micro-batch. A position is one integer, so a resume is a slice and costs nothing.

use crate::data::{
    Cut, DataConfig, DifficultySource, HostBatch, Mixture, Split, Tokenizer, Windows, collect,
};
use crate::error::Error;
use crate::task::{Batch, RoutePlan, StepPlan};
use brian::compat;
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The training splits of a recipe and their order.
pub struct TrainingData {
    sources: Vec<Windows>,
    mixture: Mixture,
    sequences: usize,
    by_rank: bool,
}

impl TrainingData {
    /// Opens and checks the splits; `sequences` is the size of a micro-batch.
    ///
    /// # Errors
    /// `Invalid` if a split is broken or was made with another tokenizer.
    pub fn open(
        config: &DataConfig,
        sequences: usize,
        tokenizer: &Tokenizer,
    ) -> Result<Self, Error> {
        let cut = Cut::training(config, tokenizer);
        let open = |path: &Path| open_windows(path, config, cut, tokenizer);
        let sources: Vec<Windows> = config
            .train
            .iter()
            .map(|source| open(&source.path))
            .collect::<Result<_, _>>()?;
        let lengths: Vec<u64> = sources.iter().map(Windows::len).collect();
        let weights: Vec<f64> = config.train.iter().map(|source| source.weight).collect();
        Ok(Self {
            mixture: Mixture::new(&lengths, &weights, config.order_seed)?,
            sources,
            sequences,
            by_rank: config.difficulty == DifficultySource::TokenRank,
        })
    }

    /// Hashes of the splits, by path.
    pub fn sha256(&self) -> BTreeMap<String, String> {
        self.sources
            .iter()
            .map(|windows| hash_of(windows.split()))
            .collect()
    }

    /// The splits, cut into windows.
    pub fn sources(&self) -> &[Windows] {
        &self.sources
    }

    fn micro_batch(&self, position: u64) -> HostBatch {
        let first = position * self.sequences as u64;
        let sequences = first..first + self.sequences as u64;
        let places = sequences
            .clone()
            .map(|sequence| self.mixture.place(sequence));
        let ids: Vec<_> = places.map(|place| (place.source, place.window)).collect();
        let host = collect(&self.sources, &ids, sequences.collect());
        ranked(host, self.by_rank)
    }
}

/// The validation splits of a recipe, each cut to the tokens a validation looks at. Clones share the splits.
#[derive(Clone)]
pub struct ValidationData {
    names: Vec<String>,
    sources: Arc<Vec<Windows>>,
    /// Windows of each source that are looked at.
    limits: Vec<u64>,
    sequences: usize,
    by_rank: bool,
    route: RoutePlan,
}

impl ValidationData {
    /// Opens and checks the splits. `targets` bounds what is predicted in each, up to the end of a window; 0 means all of
    /// it. With a `stride` windows overlap, see [`Cut::stride`].
    ///
    /// # Errors
    /// `Invalid` if a split is broken or was made with another tokenizer.
    ///
    /// # Panics
    /// If the stride is zero or beyond the window.
    pub fn open(
        splits: &[(String, &Path)],
        config: &DataConfig,
        sequences: usize,
        targets: u64,
        stride: Option<usize>,
        tokenizer: &Tokenizer,
    ) -> Result<Self, Error> {
        let cut = Cut {
            stride,
            ..Cut::measuring(config, tokenizer)
        };
        let sources: Vec<Windows> = splits
            .iter()
            .map(|(_, path)| open_windows(path, config, cut, tokenizer))
            .collect::<Result<_, _>>()?;
        let limit = |windows: &Windows| match targets {
            0 => windows.len(),
            targets => windows.enough_for(targets),
        };
        Ok(Self {
            names: splits.iter().map(|(name, _)| name.clone()).collect(),
            limits: sources.iter().map(limit).collect(),
            sources: Arc::new(sources),
            sequences,
            by_rank: config.difficulty == DifficultySource::TokenRank,
            route: RoutePlan::sequential(),
        })
    }

    /// The same splits, on walks that a stage leads.
    pub fn on(&self, route: RoutePlan) -> Self {
        Self {
            route,
            ..self.clone()
        }
    }

    /// Hashes of the splits, by path.
    pub fn sha256(&self) -> BTreeMap<String, String> {
        self.sources
            .iter()
            .map(|windows| hash_of(windows.split()))
            .collect()
    }

    /// The splits' names, in the order of [`Batch::source`].
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The splits, cut into windows, in the order of [`Batch::source`].
    pub fn sources(&self) -> &[Windows] {
        &self.sources
    }

    /// How many batches a validation takes.
    pub fn n_batches(&self) -> usize {
        let batches = |limit: &u64| limit.div_ceil(self.sequences as u64);
        self.limits.iter().map(batches).sum::<u64>() as usize
    }

    /// All batches, source after source, in file order.
    pub fn batches(&self) -> impl Iterator<Item = Batch> + '_ {
        let of_source = move |source: usize| {
            let starts = (0..self.limits[source]).step_by(self.sequences);
            starts.map(move |start| self.batch(source, start))
        };
        (0..self.sources.len()).flat_map(of_source)
    }

    fn batch(&self, source: usize, start: u64) -> Batch {
        let end = (start + self.sequences as u64).min(self.limits[source]);
        let ids: Vec<_> = (start..end).map(|window| (source, window)).collect();
        // Windows of different sources have different numbers.
        let sequences = (start..end).map(|window| (source as u64) << 40 | window);
        let host = ranked(
            collect(&self.sources, &ids, sequences.collect()),
            self.by_rank,
        );
        Batch {
            host,
            source,
            plan: StepPlan::idle(self.route.clone()),
        }
    }
}

/// Whether a split is whole, has the difficulty that is asked for, and is of a tokenizer, where that is known.
///
/// # Errors
/// `Invalid` with the first thing that is wrong.
pub fn check_split(
    path: &Path,
    config: &DataConfig,
    tokenizer: Option<&Tokenizer>,
) -> Result<(), Error> {
    let Some(tokenizer) = tokenizer else {
        let split = Split::open(path)?;
        return config.difficulty.of_documents(&split).map(drop);
    };
    open_windows(path, config, Cut::measuring(config, tokenizer), tokenizer).map(drop)
}

fn open_windows(
    path: &Path,
    config: &DataConfig,
    cut: Cut,
    tokenizer: &Tokenizer,
) -> Result<Windows, Error> {
    let split = Split::open(path)?;
    let advice = "name the tokenizer.json beside the data, or prepare the data again";
    split.require(tokenizer, advice)?;
    let difficulty = config.difficulty.of_documents(&split)?;
    let token_bytes = Arc::new(tokenizer.token_bytes());
    let windows = Windows::new(Arc::new(split), cut, token_bytes)?;
    Ok(windows.graded(difficulty))
}

/// The batch with the reference's difficulty, if that is wanted.
fn ranked(mut host: HostBatch, by_rank: bool) -> HostBatch {
    if by_rank {
        let rows = host.inputs.chunks(host.seq);
        let rows: Vec<Vec<i64>> = rows
            .map(|row| row.iter().map(|&id| id.into()).collect())
            .collect();
        host.difficulty = compat::difficulty(&rows).into_iter().map(Some).collect();
    }
    host
}

fn hash_of(split: &Split) -> (String, String) {
    (
        split.path().display().to_string(),
        split.sha256().to_string(),
    )
}

/// The micro-batches of a stage, from one position to another.
#[derive(Clone)]
pub struct TrainingLoader {
    /// What is drawn from.
    pub data: Arc<TrainingData>,
    /// Positions of the micro-batches.
    pub positions: Range<u64>,
    /// Who leads the walks; the strategy completes the plan.
    pub route: RoutePlan,
}

impl<B: Backend> DataLoader<B, Batch> for TrainingLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let batches = self.positions.clone().map(|position| {
            let plan = StepPlan::idle(self.route.clone());
            Batch {
                host: self.data.micro_batch(position),
                source: 0,
                plan,
            }
        });
        Box::new(Counted::new(
            batches,
            DataLoader::<B, Batch>::num_items(self),
        ))
    }

    fn num_items(&self) -> usize {
        (self.positions.end - self.positions.start) as usize
    }

    fn to_device(&self, _device: &B::Device) -> Arc<dyn DataLoader<B, Batch>> {
        Arc::new(self.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, Batch>> {
        let first = self.positions.start;
        Arc::new(Self {
            positions: first + start as u64..first + end as u64,
            ..self.clone()
        })
    }
}

/// All validation batches, as burn-train wants them.
#[derive(Clone)]
pub struct ValidationLoader(pub Arc<ValidationData>);

impl<B: Backend> DataLoader<B, Batch> for ValidationLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        Box::new(Counted::new(self.0.batches(), self.0.n_batches()))
    }

    fn num_items(&self) -> usize {
        self.0.n_batches()
    }

    fn to_device(&self, _device: &B::Device) -> Arc<dyn DataLoader<B, Batch>> {
        Arc::new(self.clone())
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<B, Batch>> {
        unreachable!("a validation is never cut for several devices")
    }
}

/// An iterator that knows how far it is.
struct Counted<I> {
    inner: I,
    done: usize,
    total: usize,
}

impl<I> Counted<I> {
    fn new(inner: I, total: usize) -> Self {
        Self {
            inner,
            done: 0,
            total,
        }
    }
}

impl<I: Iterator> Iterator for Counted<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let item = self.inner.next();
        self.done += usize::from(item.is_some());
        item
    }
}

impl<I: Iterator> DataLoaderIterator<I::Item> for Counted<I> {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.total)
    }
}
