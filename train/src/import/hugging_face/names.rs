//! Which tensor of a Hugging Face decoder becomes which parameter, or which columns of one; compares them all, and reads them
//! into our layout, one parameter after the other.
//!
//! PyTorch keeps a linear map as `[out, in]`, we as `[in, out]`: its matrices are transposed. Queries, keys and values are
//! three matrices there and lie side by side here, so three tensors become one parameter. Rotary pairs lie in halves in both.

use super::super::checkpoint::Checkpoint;
use super::super::fit::{self, Again, Fit, Target, Wanted, What};
use super::super::source::in_tensor;
use super::config::Described;
use crate::error::{Error, Problem};
use crate::run::{HostTensor, TensorMap};
use brian::block::AttentionBias;
use std::collections::BTreeMap;
use std::ops::Range;

/// Their name of the head.
const HEAD: &str = "lm_head.weight";
/// Their name of the embedding.
const EMBEDDING: &str = "embed_tokens.weight";
/// How the names of buffers with rotary angles end, which older programs have stored.
const ANGLES: &str = "rotary_emb.inv_freq";

/// A tensor that a model must have, and what it becomes.
struct Place {
    /// Its name in the checkpoint, without `model.` in front.
    name: String,
    /// The path of our parameter.
    path: String,
    /// The shape of our parameter.
    shape: Vec<usize>,
    /// The columns of it that the tensor becomes, where there are others; all if it is `None`.
    columns: Option<Range<usize>>,
    /// Whether it is a matrix to be transposed.
    transposed: bool,
}

impl Place {
    fn new(
        name: impl Into<String>,
        path: impl Into<String>,
        shape: &[usize],
        transposed: bool,
    ) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            shape: shape.to_vec(),
            columns: None,
            transposed,
        }
    }

    /// The shape of the part that it becomes.
    fn part(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let (Some(columns), Some(last)) = (&self.columns, shape.last_mut()) {
            *last = columns.len();
        }
        shape
    }

    /// What it becomes, for a table.
    fn ours(&self) -> String {
        let path = &self.path;
        match (&self.columns, self.shape.len()) {
            (None, _) => path.clone(),
            (Some(Range { start, end }), 1) => format!("{path}[{start}..{end}]"),
            (Some(Range { start, end }), _) => format!("{path}[.., {start}..{end}]"),
        }
    }
}

/// All tensors that the model must have. Sizes are bounded, so that no product overflows.
fn places(described: &Described) -> Vec<Place> {
    let config = &described.config;
    let (d_model, d_ff, rows) = (config.d_model, config.d_ff, described.vocabulary);
    let heads = config.heads();
    let (d_queries, d_keys) = (heads.d_queries(), heads.d_keys());
    let width = d_queries + 2 * d_keys;
    let mut all = vec![
        Place::new(EMBEDDING, "embedding.weight", &[rows, d_model], false),
        Place::new("norm.weight", "norm.gamma", &[d_model], false),
    ];
    if config.untied_head == Some(true) {
        all.push(Place::new(
            HEAD,
            "unembedding.weight",
            &[rows, d_model],
            false,
        ));
    }
    for n in 0..config.n_layers {
        let mut add = |theirs: &str, ours: &str, shape: &[usize], transposed| {
            let (theirs, ours) = (format!("layers.{n}.{theirs}"), format!("blocks.{n}.{ours}"));
            all.push(Place::new(theirs, ours, shape, transposed));
        };
        add(
            "input_layernorm.weight",
            "attention_norm.gamma",
            &[d_model],
            false,
        );
        add(
            "post_attention_layernorm.weight",
            "feed_forward_norm.gamma",
            &[d_model],
            false,
        );
        add(
            "mlp.gate_proj.weight",
            "feed_forward.gate.weight",
            &[d_model, d_ff],
            true,
        );
        add(
            "mlp.up_proj.weight",
            "feed_forward.up.weight",
            &[d_model, d_ff],
            true,
        );
        add(
            "mlp.down_proj.weight",
            "feed_forward.down.weight",
            &[d_ff, d_model],
            true,
        );
        add(
            "self_attn.o_proj.weight",
            "attention.output.weight",
            &[d_queries, d_model],
            true,
        );
        if config.attention_bias == Some(AttentionBias::All) {
            add(
                "self_attn.o_proj.bias",
                "attention.output.bias",
                &[d_model],
                false,
            );
        }
        if config.query_key_norm == Some(true) {
            add(
                "self_attn.q_norm.weight",
                "attention.query_norm.gamma",
                &[heads.d_head],
                false,
            );
            add(
                "self_attn.k_norm.weight",
                "attention.key_norm.gamma",
                &[heads.d_head],
                false,
            );
        }
        let mut start = 0;
        for (letter, own) in [("q", d_queries), ("k", d_keys), ("v", d_keys)] {
            let columns = Some(start..start + own);
            start += own;
            let mut add = |kind: &str, shape: &[usize], transposed| {
                let theirs = format!("layers.{n}.self_attn.{letter}_proj.{kind}");
                let ours = format!("blocks.{n}.attention.query_key_value.{kind}");
                let columns = columns.clone();
                let place = Place::new(theirs, ours, shape, transposed);
                all.push(Place { columns, ..place });
            };
            add("weight", &[d_model, width], true);
            if config.attention_bias.is_some() {
                add("bias", &[width], false);
            }
        }
    }
    all
}

/// A name of the checkpoint without the wrapper that all but the head have.
fn plain(name: &str) -> &str {
    name.strip_prefix("model.").unwrap_or(name)
}

/// The embedding and the stored head of a model whose head is tied, by their names in the checkpoint.
fn tied<'c>(checkpoint: &'c Checkpoint, described: &Described) -> Option<(&'c str, &'c str)> {
    let named = |plain_name: &str| {
        let mut names = checkpoint.tensors().keys();
        names
            .find(|name| plain(name) == plain_name)
            .map(String::as_str)
    };
    let is_tied = described.config.untied_head != Some(true);
    named(HEAD).zip(named(EMBEDDING)).filter(|_| is_tied)
}

/// Matches every tensor of a checkpoint with those of the model.
pub fn compare(checkpoint: &Checkpoint, described: &Described) -> Vec<Fit> {
    let places = places(described);
    let transposed: BTreeMap<&str, bool> = places
        .iter()
        .map(|place| (place.name.as_str(), place.transposed))
        .collect();
    let wanted = places.iter().map(|place| {
        let wanted = Wanted {
            // As all but the head are called in files.
            name: match place.name == HEAD {
                true => place.name.clone(),
                false => format!("model.{}", place.name),
            },
            ours: (place.ours(), place.shape.clone()),
            shape: place.part(),
        };
        (place.name.clone(), wanted)
    });
    let target = |name: &str| {
        let transposed = transposed.get(plain(name))?;
        Some(Target::new(plain(name), *transposed))
    };
    let again = tied(checkpoint, described).into_iter();
    let again = again.map(|(head, first)| (head.to_string(), Again::tied(first)));
    let mut fits = fit::compare(checkpoint, &wanted.collect(), &again.collect(), target);
    let angles = vec![described.config.heads().d_head / 2];
    for (name, fit) in checkpoint.tensors().keys().zip(&mut fits) {
        if fit.what == What::NoPlace && name.ends_with(ANGLES) {
            fit.what = match checkpoint.tensors()[name].stored.shape == angles {
                true => What::Ignored("rotary angles, which are those of config.json".to_string()),
                false => What::OtherShape(angles.clone()),
            };
        }
    }
    fits
}

/// Reads all values into our layout; the caller has compared the shapes. What is not kept is compared with what stands for it.
///
/// # Errors
/// `Invalid` if a file does not hold them or they are not finite, if the head of a tied model is not its embedding, or if
/// stored rotary angles are others than those of `config.json`.
pub fn load(checkpoint: &mut Checkpoint, described: &Described) -> Result<TensorMap, Error> {
    let names = checkpoint.tensors().keys();
    let stored: BTreeMap<String, String> = names
        .map(|name| (plain(name).to_string(), name.clone()))
        .collect();
    let angles: Vec<String> = stored
        .values()
        .filter(|name| name.ends_with(ANGLES))
        .cloned()
        .collect();
    for name in angles {
        require_angles(checkpoint, described, &name)?;
    }
    let mut model = TensorMap::new();
    let mut parts: BTreeMap<String, Vec<Place>> = BTreeMap::new();
    for place in places(described) {
        parts.entry(place.path.clone()).or_default().push(place);
    }
    for (path, places) in parts {
        let shape = places[0].shape.clone();
        let values = match &places[..] {
            [whole] if !whole.transposed => checkpoint.values(&stored[&whole.name])?,
            parts => {
                let mut values = vec![0.0; shape.iter().product()];
                for part in parts {
                    fill(checkpoint, &stored[&part.name], part, &mut values)?;
                }
                values
            }
        };
        model.insert(path, HostTensor::new(shape, values));
    }
    let tied =
        tied(checkpoint, described).map(|(head, first)| (head.to_string(), first.to_string()));
    if let Some((head, embedding)) = tied {
        require_tied(checkpoint, &head, &embedding, &model["embedding.weight"])?;
    }
    Ok(model)
}

/// Writes a tensor to its columns of our parameter.
fn fill(
    checkpoint: &mut Checkpoint,
    name: &str,
    part: &Place,
    values: &mut [f32],
) -> Result<(), Error> {
    let width = *part.shape.last().expect("a parameter has a dimension");
    let columns = part.columns.clone().unwrap_or(0..width);
    let stored = &checkpoint.tensors()[name].stored.shape;
    // Theirs is read row by row: our column by column if it is transposed.
    let row_len = stored.last().copied().unwrap_or(1).max(1);
    let (mut row, mut column) = (0, 0);
    checkpoint.read(name, &mut |piece| {
        for value in piece {
            let (row_of_ours, column_of_ours) = match part.transposed {
                true => (column, row),
                false => (row, column),
            };
            values[row_of_ours * width + columns.start + column_of_ours] = *value;
            column += 1;
            if column == row_len {
                (row, column) = (row + 1, 0);
            }
        }
    })
}

/// Refuses stored rotary angles that are not those which the model computes, before they are scaled or after.
fn require_angles(
    checkpoint: &mut Checkpoint,
    described: &Described,
    name: &str,
) -> Result<(), Error> {
    let d_head = described.config.heads().d_head;
    let rope = described.config.rope();
    let entry = &checkpoint.tensors()[name];
    let (number, theirs) = (entry.stored.dtype.name(), entry.theirs.clone());
    // They are stored as they were computed: in few bits, or in many that were computed from few.
    let most = match number {
        "BF16" => 1e-2,
        "F16" => 2e-3,
        _ => 1e-4,
    };
    let values = checkpoint.values(name)?;
    for (pair, found) in values.into_iter().enumerate() {
        let [plain, scaled] = rope.turns(pair, d_head);
        let is = |expected: f64| (f64::from(found) - expected).abs() <= most * expected + 1e-7;
        if !is(plain) && !is(scaled) {
            let expected = format!("{plain:e}, by rope_theta {:?} of config.json", rope.base);
            let found = format!("{found:e} at index {pair}");
            return Err(in_tensor(checkpoint.path(), &theirs, found, expected));
        }
    }
    Ok(())
}

/// Refuses a head with values of its own in a model whose head is tied by `config.json`.
fn require_tied(
    checkpoint: &mut Checkpoint,
    head: &str,
    embedding: &str,
    values: &HostTensor,
) -> Result<(), Error> {
    let Some(found) = checkpoint.difference(head, embedding, &values.floats())? else {
        return Ok(());
    };
    let expected = "the embedding, to the bit, as tie_word_embeddings is true";
    let problem = Problem::new(
        checkpoint.path(),
        format!("tensor {:?}", checkpoint.tensors()[head].theirs),
        found,
        expected,
    );
    let advice = "if the head has values of its own, say tie_word_embeddings false in config.json";
    Err(Error::Invalid(problem.advise(advice)))
}
