//! Opens and checks the training and validation splits of a recipe and serves them to burn-train as micro-batches.
//! A position in the training data is one integer, so a resume costs nothing.

use crate::data::token_file::TokenFile;
use crate::data::{
    Cut, DataConfig, DifficultySource, HostBatch, Mixture, Split, TokenSource, Tokenizer, Windows,
    collect,
};
use crate::error::Error;
use crate::task::{Batch, RoutePlan, StepPlan};
use brian::compat;
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;
use std::collections::BTreeMap;
use std::ops::Range;
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
        let sources: Vec<Windows> = config
            .train
            .iter()
            .map(|source| open_windows(source.tokens(), config, cut, tokenizer))
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
        hashes(&self.sources)
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
        splits: &[(String, TokenSource<'_>)],
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
            .map(|(_, source)| open_windows(*source, config, cut, tokenizer))
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

    /// The same splits, with the route plan of a stage.
    pub fn on(&self, route: RoutePlan) -> Self {
        Self {
            route,
            ..self.clone()
        }
    }

    /// Hashes of the splits, by path.
    pub fn sha256(&self) -> BTreeMap<String, String> {
        hashes(&self.sources)
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

/// Checks that a split is intact, has the requested difficulty, and was made with the tokenizer, if one is given. Without one
/// only the header of another program's file can be checked.
///
/// # Errors
/// `Invalid` with the first thing that is wrong.
pub fn check_split(
    source: TokenSource<'_>,
    config: &DataConfig,
    tokenizer: Option<&Tokenizer>,
) -> Result<(), Error> {
    let Some(tokenizer) = tokenizer else {
        if !Split::is_prepared(source) {
            return TokenFile::open(source).map(drop);
        }
        let split = Split::open(source.path)?;
        return config.difficulty.of_documents(&split).map(drop);
    };
    let cut = Cut::measuring(config, tokenizer);
    open_windows(source, config, cut, tokenizer).map(drop)
}

fn open_windows(
    source: TokenSource<'_>,
    config: &DataConfig,
    cut: Cut,
    tokenizer: &Tokenizer,
) -> Result<Windows, Error> {
    let split = Split::open_for(source, tokenizer)?;
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

fn hashes(sources: &[Windows]) -> BTreeMap<String, String> {
    let splits = sources.iter().map(Windows::split);
    splits
        .map(|split| {
            (
                split.path().display().to_string(),
                split.sha256().to_string(),
            )
        })
        .collect()
}

/// The micro-batches of a stage, from one position to another.
#[derive(Clone)]
pub struct TrainingLoader {
    /// The training data.
    pub data: Arc<TrainingData>,
    /// Positions of the micro-batches.
    pub positions: Range<u64>,
}

impl<B: Backend> DataLoader<B, Batch> for TrainingLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let batches = self.positions.clone().map(|position| Batch {
            host: self.data.micro_batch(position),
            source: 0,
            // The session hands over the plan of the step with the batch.
            plan: StepPlan::default(),
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

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::data::shard::tests::split_of_lines;
    use crate::data::{Kind, TrainSource, ValidSource};
    use crate::device::tests::Host;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    fn tokenizer() -> Tokenizer {
        Tokenizer::train(Kind::Byte, std::iter::empty(), None).unwrap()
    }

    /// Windows of three tokens, over two splits to train on and two to measure.
    fn config() -> DataConfig {
        let tiny = BUNDLED.iter().find(|one| one.kind == "baseline").unwrap();
        let recipe = from_text("r.toml", tiny.text.to_string(), &[]).unwrap();
        let train = [&["abcdefghij", "kl"][..], &["mnopq"]].map(|lines| TrainSource {
            path: split_of_lines(lines),
            weight: 1.0,
            format: None,
        });
        let valid =
            [("a", &["rstuvwx", "yz"][..]), ("b", &["ABCD"])].map(|(name, lines)| ValidSource {
                name: name.to_string(),
                path: split_of_lines(lines),
                format: None,
            });
        DataConfig {
            window: 3,
            train: train.into(),
            valid: valid.into(),
            ..recipe.data.clone()
        }
    }

    fn valid(config: &DataConfig, targets: u64) -> ValidationData {
        let splits: Vec<(String, TokenSource<'_>)> = config
            .valid
            .iter()
            .map(|source| (source.name.clone(), source.tokens()))
            .collect();
        ValidationData::open(&splits, config, 2, targets, None, &tokenizer()).unwrap()
    }

    #[test]
    fn micro_batches_follow_each_other_and_an_epoch_has_every_window_once() {
        let data = Arc::new(TrainingData::open(&config(), 2, &tokenizer()).unwrap());
        let lengths: Vec<u64> = data.sources().iter().map(Windows::len).collect();
        let mut seen = [BTreeSet::new(), BTreeSet::new()];
        for position in 0..2 * lengths.iter().max().unwrap() {
            let host = data.micro_batch(position);
            assert_eq!((host.batch, host.seq), (2, 3));
            // Row r of micro-batch p has the number 2 p + r.
            assert_eq!(host.sequences, [2 * position, 2 * position + 1]);
            for (source, window) in host.ids {
                let visits = &mut seen[source];
                if (visits.len() as u64) < lengths[source] {
                    assert!(
                        visits.insert(window),
                        "{source}: {window} twice in an epoch"
                    );
                }
            }
        }
        let complete = |(seen, length): (&BTreeSet<u64>, &u64)| *seen == (0..*length).collect();
        assert!(seen.iter().zip(&lengths).all(complete), "{seen:?}");
    }

    #[test]
    fn a_loader_gives_its_positions_and_a_slice_of_them_counts_from_its_start() {
        let data = Arc::new(TrainingData::open(&config(), 2, &tokenizer()).unwrap());
        let loader = TrainingLoader {
            data: data.clone(),
            positions: 3..8,
        };
        let loader: &dyn DataLoader<Host, Batch> = &loader;
        let first = |batch: Batch| batch.host.sequences[0];
        assert_eq!(
            loader.iter().map(first).collect::<Vec<_>>(),
            [6, 8, 10, 12, 14]
        );
        assert_eq!(loader.num_items(), 5);
        let slice = loader.slice(1, 3);
        assert_eq!(slice.iter().map(first).collect::<Vec<_>>(), [8, 10]);
        let mut batches = loader.iter();
        assert_eq!(batches.next().unwrap().host, data.micro_batch(3));
        let progress = batches.progress();
        assert_eq!((progress.items_processed, progress.items_total), (1, 5));
        assert_eq!(batches.by_ref().count(), 4);
        assert_eq!(
            (batches.next().is_none(), batches.progress().items_processed),
            (true, 5)
        );
    }

    #[test]
    fn a_validation_has_every_window_once_in_file_order_under_a_number_of_its_own() {
        let config = config();
        let data = valid(&config, 0);
        let batches: Vec<Batch> = data.batches().collect();
        let ids: Vec<(usize, u64)> = batches
            .iter()
            .flat_map(|batch| batch.host.ids.clone())
            .collect();
        let all = data.sources().iter().enumerate();
        let expected: Vec<(usize, u64)> = all
            .flat_map(|(source, windows)| (0..windows.len()).map(move |window| (source, window)))
            .collect();
        assert_eq!(ids, expected);
        assert_eq!(
            (
                batches.len(),
                ValidationLoader(Arc::new(data.clone())).0.n_batches()
            ),
            (data.n_batches(), batches.len())
        );
        assert!(
            batches.iter().all(|batch| batch.host.batch <= 2
                && batch.host.ids.iter().all(|id| id.0 == batch.source))
        );
        let numbers: BTreeSet<u64> = batches
            .iter()
            .flat_map(|batch| batch.host.sequences.clone())
            .collect();
        assert_eq!(numbers.len(), ids.len());
        let targets: u64 = batches.iter().map(Batch::targets).sum();
        // Each byte and the end of each document is a target: 7 + 1, 2 + 1 and 4 + 1.
        assert_eq!(targets, 16);
        let bytes: u64 = batches.iter().map(|batch| batch.host.bytes).sum();
        assert_eq!(bytes, 13);
    }

    #[test]
    fn a_bounded_validation_looks_at_as_many_targets_and_not_at_a_window_more() {
        let config = config();
        let all = valid(&config, 0);
        for most in 1..=8 {
            let data = valid(&config, most);
            for (source, limit) in data.limits.iter().enumerate() {
                let windows = &all.sources()[source];
                let targets = |n: u64| -> usize {
                    (0..n)
                        .map(|window| {
                            windows
                                .get(window)
                                .valid
                                .iter()
                                .filter(|valid| **valid)
                                .count()
                        })
                        .sum()
                };
                let whole = *limit == windows.len();
                assert!(whole || targets(*limit) as u64 >= most, "{most}: {limit}");
                assert!((targets(limit - 1) as u64) < most, "{most}: {limit}");
            }
            let n: u64 = data.limits.iter().map(|limit| limit.div_ceil(2)).sum();
            assert_eq!(
                (data.n_batches() as u64, data.batches().count() as u64),
                (n, n)
            );
        }
        let mut route = RoutePlan::sequential();
        route.rules.without_memory = true;
        let on = all.on(route.clone());
        assert!(on.batches().all(|batch| batch.plan.route == route));
        assert!(all.batches().all(|batch| batch.plan.route != route));
    }

    #[test]
    fn splits_of_another_tokenizer_are_refused_by_their_hash() {
        let config = config();
        let data = TrainingData::open(&config, 1, &tokenizer()).unwrap();
        let paths: Vec<PathBuf> = config
            .train
            .iter()
            .map(|source| source.path.clone())
            .collect();
        for (path, windows) in paths.iter().zip(data.sources()) {
            assert_eq!(
                data.sha256()[&path.display().to_string()],
                windows.split().sha256()
            );
        }
        let words =
            Tokenizer::train(Kind::Character, [Ok("abc".to_string())].into_iter(), None).unwrap();
        assert_eq!(
            TrainingData::open(&config, 1, &words)
                .err()
                .unwrap()
                .exit_code(),
            3
        );
        assert!(check_split(paths[0].as_path().into(), &config, Some(&words)).is_err());
        assert!(check_split(paths[0].as_path().into(), &config, Some(&tokenizer())).is_ok());
        assert!(check_split(paths[0].as_path().into(), &config, None).is_ok());
    }
}
