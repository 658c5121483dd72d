//! Facts about one edge of the graph: counts, size, dead outputs, updates, competition.

use super::names::{Names, Pair};
use super::subject::{DECODING, Subject};
use super::table::{Column, Table, number};
use crate::command::answer::maybe;
use crate::error::Error;
use brillm::explain::{DEAD, DeadOutputs, EdgeSize, Opposition, opposition};
use brillm::prior::{Prior, Weights};
use brillm::row_adamw::Mode;
use serde_json::{Value, json};

/// The facts about an edge.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeCard {
    pub pair: Pair,
    /// The row of the edge table it uses.
    pub row: usize,
    /// How many pairs of its source share the row; `None` if the row is its own.
    pub shared_by: Option<u32>,
    /// How often the pair occurs in the counted text.
    pub count: Option<u32>,
    /// The rank of the target by that count among all tokens that may follow the source, from 1.
    pub count_rank: Option<usize>,
    /// The probability of the pair in a smoothed bigram model of the counts, and the rank by that.
    pub bigram: Option<(f64, usize)>,
    pub size: EdgeSize,
    /// How many of its outputs are dead, and where that was measured.
    pub dead: (DeadOutputs, &'static str),
    /// The optimizer's record of its updates.
    pub updates: Updates,
    /// When it competes with the true edge.
    pub opposition: Opposition,
}

/// When training changed a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updates {
    /// The step of its last gradient, 0 for none, of so many so far.
    Last { step: u64, of: u64 },
    /// How many steps gave it a gradient, of so many so far.
    Times { n: u64, of: u64 },
    /// The checkpoint has no optimizer.
    Unknown,
}

impl EdgeCard {
    /// Collects the facts from the edge's signals in the text, or in the validation split if the text does not reach it.
    ///
    /// # Errors
    /// `Invalid` if the validation split is needed and broken.
    pub fn new(subject: &mut Subject<'_>, pair: Pair) -> Result<Self, Error> {
        let dead = dead(subject, pair)?;
        let (source, target) = pair;
        let core = &*subject.core;
        let graph = &core.model.graph;
        let row = graph.row(source, target);
        let shared = graph.shared(source).into_iter();
        let on_row = shared.filter(|(shared, _)| *shared == row);
        let counts = core.counts.as_deref();
        let place = |value: &dyn Fn(u32) -> f64| {
            let better = |other: &u32| {
                let (a, b) = (value(*other), value(target));
                a > b || a == b && *other < target
            };
            1 + (0..graph.nodes() as u32).filter(better).count()
        };
        let bigram = counts.map(|counts| Weights::new(Prior::Bigram, Some(counts), graph));
        Ok(Self {
            pair,
            row,
            shared_by: (!graph.is_own(row)).then(|| on_row.map(|(_, n)| n).sum()),
            count: counts.map(|counts| counts.count(source, target)),
            count_rank: counts.map(|counts| place(&|other| f64::from(counts.count(source, other)))),
            bigram: bigram.map(|weights| {
                let of = |other| weights.of(source, other);
                (of(target), place(&of))
            }),
            size: EdgeSize::of(&core.model, row),
            dead,
            updates: updates(subject, row),
            opposition: opposition(&core.training, source, target),
        })
    }

    /// The facts as a table.
    pub fn table(&self, names: &Names<'_>) -> Table {
        let title = format!("edge {}", names.pair(self.pair));
        let mut table = Table::new(title, &[Column::Left(""), Column::Left("")]);
        let row = match self.shared_by {
            None => format!("{}, its own", self.row),
            Some(n) => format!("{}, shared by {n} pairs of this source", self.row),
        };
        let place = |place: usize| format!(", place {place} of what may follow");
        let count = maybe(self.count, |n| {
            format!("{n} times{}", maybe(self.count_rank, place))
        });
        let bigram = maybe(self.bigram, |(p, rank)| {
            format!("p = {}{}", number(p), place(rank))
        });
        let updates = match self.updates {
            Updates::Last { step: 0, of } => format!("never, in {of} steps"),
            Updates::Last { step, of } => format!("last in step {step} of {of}"),
            Updates::Times { n, of } => format!("in {n} of {of} steps"),
            Updates::Unknown => "unknown: the checkpoint has no optimizer".to_string(),
        };
        let (dead, place) = self.dead;
        let signals = dead.signals;
        let dead = match dead.share().map(|share| 100.0 * share) {
            Some(share) => format!("{share:.1} %, over {signals} signals of the {place}"),
            None => format!("unknown: no signal reached the source in the {place}"),
        };
        let competes = match self.opposition {
            Opposition::Always => {
                "wherever its source stands and something else is true".to_string()
            }
            Opposition::Listed { place } => {
                format!("wherever its source stands, in place {place} of the list")
            }
            Opposition::Never => "never: training only raises it".to_string(),
            Opposition::Drawn { per_step } => {
                let draws = number(per_step);
                format!("by chance: drawn {draws} times per step with its source")
            }
        };
        for [name, value] in [
            ["row", &row],
            ["seen in training", &count],
            ["smoothed bigram", &bigram],
            ["Frobenius norm of W", &number(self.size.frobenius)],
            ["spectral norm of W", &number(self.size.spectral)],
            ["length of b", &number(self.size.bias)],
            ["dead outputs", &dead],
            ["updated", &updates],
            ["competes", &competes],
        ] {
            table.row([name.to_string(), value.to_string()]);
        }
        table
    }

    /// The facts as JSON.
    pub fn json(&self, names: &Names<'_>) -> Value {
        let (kind, listed, drawn) = match self.opposition {
            Opposition::Always => ("always", None, None),
            Opposition::Listed { place } => ("listed", Some(place as f64), None),
            Opposition::Never => ("never", None, None),
            Opposition::Drawn { per_step } => ("drawn", None, Some(per_step)),
        };
        let (last_step, times, steps) = match self.updates {
            Updates::Last { step, of } => (Some(step), None, Some(of)),
            Updates::Times { n, of } => (None, Some(n), Some(of)),
            Updates::Unknown => (None, None, None),
        };
        let (dead, place) = self.dead;
        json!({
            "source": names.json(self.pair.0),
            "target": names.json(self.pair.1),
            "row": self.row,
            "shared": self.shared_by.is_some(),
            "shared_by": self.shared_by,
            "count": self.count,
            "count_rank": self.count_rank,
            "bigram_probability": self.bigram.map(|(p, _)| p),
            "bigram_rank": self.bigram.map(|(_, rank)| rank),
            "frobenius_norm": self.size.frobenius,
            "spectral_norm": self.size.spectral,
            "bias_norm": self.size.bias,
            "dead_share": dead.share(),
            "dead_below_slope": DEAD,
            "dead_signals": dead.signals,
            "dead_measured_on": place,
            "last_step": last_step,
            "n_updates": times,
            "steps": steps,
            "raised_per_pass": self.count,
            "competes": kind,
            "competes_place": listed,
            "draws_per_step": drawn,
        })
    }
}

fn dead(subject: &mut Subject<'_>, pair: Pair) -> Result<(DeadOutputs, &'static str), Error> {
    let mut found = DeadOutputs::default();
    if let Some(tokens) = &subject.tokens {
        found.add(&subject.core.model, DECODING, tokens, pair);
    }
    if found.signals > 0 {
        return Ok((found, "text"));
    }
    for window in subject.validation()? {
        found.add(&subject.core.model, DECODING, &window, pair);
    }
    Ok((found, "validation split"))
}

/// The optimizer's record of the updates of a row.
fn updates(subject: &Subject<'_>, row: usize) -> Updates {
    let optimizer = &subject.trained.loaded.snapshot.optimizer;
    let touched = optimizer.get("edges.touched");
    let touched = touched.and_then(|touched| touched.floats().get(row).copied());
    let Some((n, rates)) = touched.zip(optimizer.get("rates")) else {
        return Updates::Unknown;
    };
    let (n, of) = (n as u64, rates.len() as u64);
    match subject.core.optimizer.mode {
        Mode::Touched => Updates::Times { n, of },
        Mode::Exact | Mode::Dense => Updates::Last { step: n, of },
    }
}
