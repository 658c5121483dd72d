//! `--expected FILE`: the logits that the model must give, computed somewhere else. They find what shapes cannot show: square
//! matrices that were stored transposed, tensors under each other's names, rotary pairs in another order.

use crate::data::Tokenizer;
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::file::read_regular;
use crate::import::hugging_face::Described;
use crate::keys::require_distinct_tensors;
use crate::ladder::{Blueprint, load_into};
use crate::recipe::Checked;
use crate::run::TensorMap;
use crate::task::RoutePlan;
use brian::route::policy::SequenceInfo;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor, TensorData};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::path::Path;

/// The largest file that is read.
const MOST_BYTES: u64 = 1 << 32;

/// What a logit may differ by, as a share of the largest one, or of 1 if all are smaller: f32 over many layers.
const MOST_DIFFERENCE: f32 = 1e-3;

/// Texts as ids, and their logits.
pub(super) struct Expected {
    ids: Vec<i32>,
    /// `[batch, seq, vocabulary]`
    shape: [usize; 3],
    logits: Vec<f32>,
}

/// Reads `input_ids` `[batch, seq]` of i64 and `logits` `[batch, seq, vocabulary]` of f32.
pub(super) fn read(file: &Path, described: &Described) -> Result<Expected, Error> {
    let expected = "a safetensors file with input_ids and logits";
    let bytes = read_regular(file, expected, MOST_BYTES)?;
    let wrong = |place: &str, found: String, expected: String| {
        Error::Invalid(Problem::new(file, place, found, expected))
    };
    let content = SafeTensors::deserialize(&bytes)
        .map_err(|cause| wrong("", cause.to_string(), expected.to_string()))?;
    require_distinct_tensors(file, &bytes).map_err(Error::Invalid)?;
    let tensor = |name: &str, dtype: Dtype| -> Result<TensorView<'_>, Error> {
        let place = format!("tensor {name:?}");
        let view = content.tensor(name);
        let view = view.map_err(|_| wrong(&place, "none".to_string(), expected.to_string()))?;
        match view.dtype() == dtype {
            true => Ok(view),
            false => Err(wrong(
                &place,
                format!("{:?}", view.dtype()),
                format!("{dtype:?}"),
            )),
        }
    };
    let (ids, logits) = (
        tensor("input_ids", Dtype::I64)?,
        tensor("logits", Dtype::F32)?,
    );
    let vocabulary = described.vocabulary;
    let [batch, seq] = *ids.shape() else {
        let found = format!("shape {:?}", ids.shape());
        return Err(wrong(
            "tensor \"input_ids\"",
            found,
            "[batch, seq]".to_string(),
        ));
    };
    let context = described.config.context;
    if batch == 0 || seq == 0 || seq > context {
        let expected = format!("rows of 1 to {context} ids, by max_position_embeddings");
        return Err(wrong(
            "tensor \"input_ids\"",
            format!("shape {:?}", ids.shape()),
            expected,
        ));
    }
    let shape = [batch, seq, vocabulary];
    if logits.shape() != shape {
        let found = format!("shape {:?}", logits.shape());
        return Err(wrong("tensor \"logits\"", found, format!("{shape:?}")));
    }
    let (ids, _) = ids.data().as_chunks::<8>();
    let ids = ids.iter().map(|bytes| match i64::from_le_bytes(*bytes) {
        id if (0..vocabulary as i64).contains(&id) => Ok(id as i32),
        id => {
            let expected = format!("ids below vocab_size {vocabulary}");
            Err(wrong("tensor \"input_ids\"", format!("id {id}"), expected))
        }
    });
    let (values, _) = logits.data().as_chunks::<4>();
    Ok(Expected {
        ids: ids.collect::<Result<_, _>>()?,
        shape,
        logits: values
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect(),
    })
}

impl Expected {
    /// Compares the logits of the model with these; returns a line about them.
    pub fn compare(
        &self,
        file: &Path,
        recipe: &Checked,
        tokenizer: &Tokenizer,
        model: TensorMap,
    ) -> Result<String, Error> {
        let forward = Forward {
            expected: self,
            recipe,
            vocabulary: tokenizer.vocabulary_size(),
            model,
            file,
        };
        let found = device::run(&recipe.device, forward)?;
        let largest = self
            .logits
            .iter()
            .fold(1f32, |most, logit| most.max(logit.abs()));
        let most = MOST_DIFFERENCE * largest;
        let pairs = found.iter().zip(&self.logits).enumerate();
        // A difference that is no number is the largest.
        let differences = pairs.map(|(index, (found, expected))| {
            let difference = (found - expected).abs();
            (
                index,
                if difference.is_nan() {
                    f32::INFINITY
                } else {
                    difference
                },
            )
        });
        let worst = differences.max_by(|(_, left), (_, right)| left.total_cmp(right));
        let (index, difference) = worst.expect("there is a logit");
        if difference <= most {
            return Ok(format!(
                "{}: all {} logits are these, up to {difference:.1e} of {largest:.3}",
                file.display(),
                found.len()
            ));
        }
        let [_, seq, vocabulary] = self.shape;
        let (row, id) = (index / vocabulary, index % vocabulary);
        let place = format!("logits [{}, {}, {id}]", row / seq, row % seq);
        let found = format!("{} from these weights", found[index]);
        let expected = format!("{} within {most:.1e}", self.logits[index]);
        let problem = Problem::new(file, place, found, expected);
        let advice = "a matrix may be transposed, or a tensor under another's name";
        Err(Error::Invalid(problem.advise(advice)))
    }
}

struct Forward<'a> {
    expected: &'a Expected,
    recipe: &'a Checked,
    vocabulary: usize,
    model: TensorMap,
    file: &'a Path,
}

impl Task for Forward<'_> {
    type Output = Vec<f32>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<Vec<f32>, Error> {
        let blueprint = Blueprint {
            recipe: self.recipe,
            vocabulary: self.vocabulary,
            counts: None,
            ranks: None,
        };
        let policy = &self.recipe.stage[self.recipe.stage.len() - 1].policy;
        let skeleton = blueprint.skeleton::<B>(policy, &device);
        let model = load_into(skeleton, self.model, self.file)?.valid();
        let Expected {
            ids,
            shape: [batch, seq, _],
            ..
        } = self.expected;
        let ids = TensorData::new(ids.clone(), [*batch, *seq]);
        let tokens = Tensor::<B::InnerBackend, 2, Int>::from_data(ids, &device);
        let rows = vec![SequenceInfo::default(); *batch];
        let (logits, _) = model.forward(tokens, &RoutePlan::sequential().rules, &rows);
        Ok(logits.into_data().iter::<f32>().collect())
    }
}
