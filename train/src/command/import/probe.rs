//! `nerve import --probe`: checks by the loss on a text whether the weights expect the positions that the recipe gives them.
//!
//! The published code counts positions one lower in decoding than in training, and multiplies frequencies where others
//! divide. The right convention must have clearly the lowest loss, before anything that is generated can be trusted.

use super::super::answer::aligned;
use crate::data::{BadUtf8, DocumentReader, DocumentRule, ReadRules, Tokenizer};
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::family::brillm::{BriLlmState, BriLlmTask, Edges, SignalConfig, tables};
use crate::ladder::{Blueprint, load_into};
use crate::recipe::{Checked, Recipe};
use crate::run::TensorMap;
use brillm::candidate::Paths;
use brillm::counts::PairCounts;
use brillm::position::Encoding;
use burn::tensor::backend::AutodiffBackend;
use std::path::Path;
use std::sync::Arc;

/// Lines that are measured at most: the answer is clear after fewer.
const MOST_LINES: usize = 4096;

/// Lines that are measured at once.
const AT_ONCE: usize = 64;

/// The model that is measured, and the text that it is measured on.
pub(super) struct Probe<'a> {
    /// A text of lines.
    pub text: &'a Path,
    /// The recipe.
    pub recipe: &'a Checked,
    /// The recipe's model.
    pub config: &'a SignalConfig,
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The counts that the graph is made from.
    pub counts: Option<Arc<PairCounts>>,
    /// How often a pair must have been counted to own an edge.
    pub min_count: u32,
}

/// A convention of positions.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Convention {
    encoding: Encoding,
    first_hop: usize,
}

/// Nats per line under a convention.
struct Measured {
    convention: Convention,
    nats: Vec<f64>,
}

/// The measured conventions; the first one is the recipe's.
pub(super) struct Probed {
    measured: Vec<Measured>,
    tokens: usize,
}

impl Probe<'_> {
    /// Measures every convention, then passes the weights to `then`.
    ///
    /// # Errors
    /// `Invalid` if the text has no line of two tokens; else the errors of `then`.
    pub fn run<T: Send>(
        &self,
        tensors: TensorMap,
        checkpoint: &Path,
        then: impl FnOnce(TensorMap) -> Result<T, Error> + Send,
    ) -> Result<(Probed, T), Error> {
        let lines = self.lines()?;
        let measuring = Measuring {
            probe: self,
            lines: &lines,
            tensors,
            checkpoint,
            then,
        };
        let (measured, result) = device::run(&self.recipe.device, measuring)?;
        let tokens = lines.iter().map(|line| line.len() - 1).sum();
        Ok((Probed { measured, tokens }, result))
    }

    /// The beginnings of the text's lines, as long as the paths of the recipe.
    fn lines(&self) -> Result<Vec<Vec<u32>>, Error> {
        let rules = ReadRules {
            document: DocumentRule::Line,
            field: "text".to_string(),
            on_bad_utf8: BadUtf8::Error,
            max_line_bytes: 16 << 20,
            ..ReadRules::default()
        };
        let mut lines = Vec::new();
        for document in DocumentReader::open(self.text, &rules, None)? {
            let mut line = self.tokenizer.encode(&document?.text);
            line.truncate(self.recipe.data.window + 1);
            if line.len() > 1 {
                lines.push(line);
            }
            if lines.len() == MOST_LINES {
                break;
            }
        }
        if lines.is_empty() {
            let found = "no line of two tokens";
            let problem = Problem::new(self.text, "", found, "a text of lines");
            return Err(Error::Invalid(problem));
        }
        Ok(lines)
    }

    /// The recipe's convention, and those that the weights may have been trained with instead.
    fn conventions(&self) -> Vec<Convention> {
        let flow = &self.config.flow;
        let recipe = Convention {
            encoding: flow.encoding,
            first_hop: flow.first_hop,
        };
        let mut all = Vec::new();
        for encoding in [Encoding::ReferenceMultiply, Encoding::Standard] {
            for first_hop in [1, 0] {
                all.push(Convention {
                    encoding,
                    first_hop,
                });
            }
        }
        all.retain(|other| *other != recipe);
        all.insert(0, recipe);
        all
    }
}

struct Measuring<'a, F> {
    probe: &'a Probe<'a>,
    lines: &'a [Vec<u32>],
    tensors: TensorMap,
    checkpoint: &'a Path,
    then: F,
}

impl<T, F: FnOnce(TensorMap) -> Result<T, Error>> Task for Measuring<'_, F> {
    type Output = (Vec<Measured>, T);

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<Self::Output, Error> {
        let probe = self.probe;
        // The graph of the run that will be, not of the file that the recipe names.
        let mut recipe = Recipe::clone(probe.recipe);
        if let Some(config) = recipe.model.get_mut::<SignalConfig>()
            && let Edges::Counted { min_count, .. } = &mut config.edges
        {
            *min_count = probe.min_count;
        }
        let blueprint = Blueprint {
            recipe: &recipe,
            vocabulary: probe.tokenizer.vocabulary_size(),
            counts: probe.counts.as_ref(),
            ranks: None,
        };
        let policy = &probe.recipe.stage[probe.recipe.stage.len() - 1].policy;
        let skeleton = blueprint.skeleton::<B>(policy, &device);
        let model = load_into(skeleton, self.tensors, self.checkpoint)?;
        let Some(signal) = model.get::<BriLlmTask<B>>() else {
            unreachable!("the recipe's model is a graph")
        };
        let measure = |convention: Convention| {
            let mut core = signal.write();
            core.model.config.flow.encoding = convention.encoding;
            core.model.config.flow.first_hop = convention.first_hop;
            let nats = token_losses(&core, self.lines, recipe.data.window);
            Measured { convention, nats }
        };
        let measured = probe.conventions().into_iter().map(measure).collect();
        // The weights go back without a copy.
        let core = &mut *signal.write();
        let then = |weights, _| (self.then)(weights);
        let result = tables::lend(&mut core.model, &mut core.optimizer, None, then)?;
        Ok((measured, result))
    }
}

/// Nats of every line over the whole vocabulary.
fn token_losses(core: &BriLlmState, lines: &[Vec<u32>], seq: usize) -> Vec<f64> {
    let mut all = Vec::with_capacity(lines.len());
    for lines in lines.chunks(AT_ONCE) {
        let (mut sources, mut targets, mut valid) = (Vec::new(), Vec::new(), Vec::new());
        for line in lines {
            let pad = seq + 1 - line.len();
            let padded = |tokens: &[u32]| [tokens, &vec![0; pad]].concat();
            sources.extend(padded(&line[..line.len() - 1]));
            targets.extend(padded(&line[1..]));
            valid.extend((0..seq).map(|place| place < line.len() - 1));
        }
        let paths = Paths {
            sources: &sources,
            targets: &targets,
            valid: &valid,
            seq,
        };
        let groups = core.evaluation.groups(&core.model.graph, &paths, &|_| 0.0);
        let nats = core.model.token_losses(&paths, &groups);
        all.extend(nats.chunks(seq).map(|line| line.iter().sum::<f64>()));
    }
    all
}

impl Probed {
    /// One row per convention.
    pub fn table(&self) -> String {
        let head = [
            "codes",
            "first hop at",
            "nats per token",
            "more than the recipe",
        ];
        let mut table = vec![head.map(str::to_string)];
        for (index, measured) in self.measured.iter().enumerate() {
            let more = match (index, self.more(measured)) {
                (0, _) => "the recipe".to_string(),
                (_, (more, f64::INFINITY)) => format!("{more:+.4} on a single line"),
                (_, (more, error)) => format!("{more:+.4} ± {error:.4}"),
            };
            let mean = measured.nats.iter().sum::<f64>() / self.tokens as f64;
            let which = match measured.convention.first_hop {
                0 => "position 0 (one back)",
                _ => "position 1 (as trained)",
            };
            table.push([
                name(measured.convention.encoding).to_string(),
                which.to_string(),
                format!("{mean:.4}"),
                more,
            ]);
        }
        aligned(&table)
    }

    /// A warning if the recipe's convention is not clearly the best: two standard errors below all others.
    pub fn warning(&self) -> Option<String> {
        let clear = |measured: &&Measured| {
            let (more, error) = self.more(measured);
            more > 2.0 * error
        };
        let mut others = self.measured[1..].iter();
        let rival = others.find(|measured| !clear(measured))?.convention;
        Some(format!(
            "the recipe's positions are not clearly the best on this text: encoding = {:?} with first_hop = {} \
             is not two standard errors above; do not trust what these weights generate before that is understood",
            name(rival.encoding),
            rival.first_hop
        ))
    }

    /// Nats per token above the recipe's, and the standard error of that over lines.
    fn more(&self, measured: &Measured) -> (f64, f64) {
        let pairs = measured.nats.iter().zip(&self.measured[0].nats);
        let differences: Vec<f64> = pairs.map(|(other, own)| other - own).collect();
        let n = differences.len() as f64;
        let mean = differences.iter().sum::<f64>() / n;
        let squares: f64 = differences.iter().map(|x| (x - mean).powi(2)).sum();
        let error = match differences.len() {
            1 => f64::INFINITY,
            _ => (squares / (n - 1.0) * n).sqrt() / self.tokens as f64,
        };
        (mean * n / self.tokens as f64, error)
    }
}

fn name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::ReferenceMultiply => "reference_multiply",
        Encoding::Standard => "standard",
        _ => "the recipe's",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(own: &[f64], other: &[f64]) -> Probed {
        let measured = |first_hop, nats: &[f64]| Measured {
            convention: Convention {
                encoding: Encoding::Standard,
                first_hop,
            },
            nats: nats.to_vec(),
        };
        Probed {
            measured: vec![measured(1, own), measured(0, other)],
            tokens: 10,
        }
    }

    #[test]
    fn only_a_difference_beyond_two_standard_errors_is_clear() {
        let clear = probed(&[1.0, 2.0, 3.0], &[2.0, 3.1, 3.9]);
        assert_eq!(clear.warning(), None);
        let (more, error) = clear.more(&clear.measured[1]);
        assert!((more - 0.3).abs() < 1e-12 && (error - 0.01 * 3f64.sqrt()).abs() < 1e-12);
        for unclear in [
            probed(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]),
            probed(&[1.0, 2.0, 3.0], &[0.0, 1.0, 2.0]),
            probed(&[1.0, 2.0, 3.0], &[9.0, 2.0, 3.0]),
            probed(&[1.0], &[9.0]),
            probed(&[1.0, 2.0], &[f64::NAN, 3.0]),
        ] {
            assert!(unclear.warning().unwrap().contains("first_hop = 0"));
        }
    }
}
