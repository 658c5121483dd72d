//! Reads `config.json` and `generation_config.json` into the configuration of a decoder of ours, or names the field that makes
//! the model another function. A field that is not known is refused, unless it is null or the user ignores it by name.

use super::family::{Biases, FAMILIES, Family, RMS_NORM_EPS, SLIDING_WINDOW, Window};
use super::fields::Fields;
use super::rope::rope;
use crate::error::{Error, Problem};
use brian::block::AttentionBias;
use brian::{BaselineConfig, Initial};
use serde_json::{Value, json};
use std::path::Path;

/// The largest width or length that a recipe may have.
const MOST: u64 = 1 << 20;
/// The most blocks that a recipe may have.
const MOST_BLOCKS: u64 = 4096;
/// The most rows of an embedding; only a bound against nonsense.
const MOST_ROWS: u64 = 1 << 26;

/// Fields that do not change what the model computes: they are of training, of sampling, or of the program.
const HARMLESS: [&str; 57] = [
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "is_decoder",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    // Slices of one product that are added up: the same sums in another order.
    "pretraining_tp",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
];

/// A model as its directory describes it.
#[derive(Debug)]
pub struct Described {
    /// Its architecture.
    pub family: &'static Family,
    /// Its sizes and rules.
    pub config: BaselineConfig,
    /// Rows of its embedding.
    pub vocabulary: usize,
    /// Its special tokens.
    pub symbols: Symbols,
    /// What the user should know, a line each.
    pub notes: Vec<String>,
}

/// Special tokens of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    /// What documents begin with.
    pub begin: Option<u32>,
    /// What ends a text, each of them.
    pub ends: Vec<u32>,
    /// What fills up rows.
    pub pad: Option<u32>,
}

/// Whether a file is the description of a model by Hugging Face: it names a type or an architecture.
///
/// # Errors
/// `Invalid` if it is no JSON object.
pub fn is_described(path: &Path) -> Result<bool, Error> {
    let fields = Fields::read(path)?;
    Ok(fields.has("model_type") || fields.has("architectures"))
}

/// Reads the description of a model; `ignored` are fields that the user knows to be harmless.
///
/// # Errors
/// `Invalid` with the first field that is wrong, not supported or not known.
pub fn describe(
    path: &Path,
    generation: Option<&Path>,
    ignored: &[String],
) -> Result<Described, Error> {
    let mut fields = Fields::read(path)?;
    let family = family(&mut fields)?;
    let vocabulary = fields.whole("vocab_size", Some(family.vocab_size), MOST_ROWS)?;
    let config = sizes(&mut fields, family)?;
    window(&mut fields, family, &config)?;
    neutral(&mut fields)?;
    let mut symbols = symbols(&mut fields, vocabulary)?;
    let mut notes = Vec::new();
    notes.extend(dropout(&mut fields)?);
    check(path, &config)?;
    left(path, &fields, ignored, &mut notes)?;
    if !fields.filled().is_empty() {
        let filled = fields.filled().join(", ");
        let note = "config.json leaves out what transformers fills in for";
        notes.push(format!("{note} {}: {filled}", family.architecture));
    }
    if let Some(generation) = generation {
        for_generation(generation, vocabulary, &mut symbols, &mut notes)?;
    }
    Ok(Described {
        family,
        config,
        vocabulary,
        symbols,
        notes,
    })
}

fn family(fields: &mut Fields) -> Result<&'static Family, Error> {
    let known = |of: fn(&Family) -> &str| {
        let names = FAMILIES.iter().map(|family| format!("{:?}", of(family)));
        names.collect::<Vec<_>>().join(", ")
    };
    let by_type = match fields.text("model_type")? {
        None => None,
        Some(name) => match FAMILIES.iter().find(|family| family.model_type == name) {
            Some(family) => Some(family),
            None => {
                let expected = format!("one of {}", known(|family| family.model_type));
                return Err(fields.wrong("model_type", &json!(name), &expected));
            }
        },
    };
    let Some(classes) = fields.take("architectures") else {
        return by_type.ok_or_else(|| {
            let expected = format!("one of {}", known(|family| family.model_type));
            fields.wrong("model_type", &Value::Null, &expected)
        });
    };
    let class = match classes.as_array().map(Vec::as_slice) {
        Some([class]) => class.as_str(),
        _ => None,
    };
    let is_this = |family: &&Family| Some(family.architecture) == class;
    match (by_type, FAMILIES.iter().find(is_this)) {
        (None, Some(family)) => Ok(family),
        (Some(told), Some(family)) if told.model_type == family.model_type => Ok(family),
        (Some(told), _) => {
            let expected = format!("[{:?}], as model_type says", told.architecture);
            Err(fields.wrong("architectures", &classes, &expected))
        }
        (None, None) => {
            let expected = format!("a list of one of {}", known(|family| family.architecture));
            Err(fields.wrong("architectures", &classes, &expected))
        }
    }
}

fn sizes(fields: &mut Fields, family: &Family) -> Result<BaselineConfig, Error> {
    let d_model = fields.whole("hidden_size", Some(family.hidden_size), MOST)?;
    let d_ff = fields.whole("intermediate_size", Some(family.intermediate_size), MOST)?;
    let n_layers = fields.whole(
        "num_hidden_layers",
        Some(family.num_hidden_layers),
        MOST_BLOCKS,
    )?;
    let n_heads = fields.whole(
        "num_attention_heads",
        Some(family.num_attention_heads),
        MOST,
    )?;
    let n_kv_heads = family.num_key_value_heads.unwrap_or(n_heads as u64);
    let n_kv_heads = fields.whole("num_key_value_heads", Some(n_kv_heads), MOST)?;
    let derived = || {
        let width = d_model / n_heads;
        let divides = d_model.is_multiple_of(n_heads);
        let expected =
            format!("a number, as hidden_size {d_model} is no multiple of {n_heads} heads");
        divides.then_some(width as u64).ok_or(expected)
    };
    let d_head = match (
        fields.has("head_dim"),
        family.head_dim.map_or_else(derived, Ok),
    ) {
        (_, Ok(d_head)) => fields.whole("head_dim", Some(d_head), MOST)?,
        (true, Err(_)) => fields.whole("head_dim", None, MOST)?,
        (false, Err(expected)) => return Err(fields.wrong("head_dim", &Value::Null, &expected)),
    };
    let context = Some(family.max_position_embeddings);
    let context = fields.whole("max_position_embeddings", context, MOST)?;
    let rope = rope(fields)?;
    let norm_epsilon = fields.number("rms_norm_eps", Some(RMS_NORM_EPS))?;
    let untied = !fields.truth("tie_word_embeddings", false)?;
    // Of fresh weights only.
    let std = match fields.has("initializer_range") {
        true => fields.number("initializer_range", Some(0.02))?,
        false => 0.02,
    };
    let attention_bias = match family.biases {
        Biases::AsTold => fields
            .truth("attention_bias", false)?
            .then_some(AttentionBias::All),
        Biases::Never => {
            fields.neutral(
                "attention_bias",
                &json!(false),
                "this architecture has none",
            )?;
            None
        }
        Biases::QueryKeyValue => Some(AttentionBias::QueryKeyValue),
    };
    Ok(BaselineConfig {
        d_model,
        n_heads,
        n_kv_heads: Some(n_kv_heads),
        d_head: Some(d_head),
        attention_bias,
        query_key_norm: family.normed.then_some(true),
        untied_head: untied.then_some(true),
        logit_cap: None,
        d_ff,
        n_layers,
        context,
        rope_base: rope.base,
        rope_scaling: rope.scaling,
        norm_epsilon,
        residual_scale: None,
        width_transfer: None,
        initial: Initial::Scaled {
            std: if std > 0.0 && std <= 1.0 { std } else { 0.02 },
        },
    })
}

/// Attention over a window is not supported, unless the window holds the whole context.
fn window(fields: &mut Fields, family: &Family, config: &BaselineConfig) -> Result<(), Error> {
    if let Some(kinds) = fields.take("layer_types") {
        let full = |kind: &Value| kind == "full_attention";
        let list = kinds.as_array();
        if !list.is_some_and(|list| list.len() == config.n_layers && list.iter().all(full)) {
            let expected = format!("\"full_attention\" for each of {} layers", config.n_layers);
            return Err(fields.wrong("layer_types", &kinds, &expected));
        }
    }
    let is_used = match family.window {
        Window::Unknown => return Ok(()),
        Window::Always => true,
        Window::IfUsed => {
            fields.take("max_window_layers");
            fields.truth("use_sliding_window", false)?
        }
    };
    let is_absent = !fields.has("sliding_window");
    let value = match fields.take("sliding_window") {
        None if is_absent => json!(SLIDING_WINDOW),
        None => return Ok(()),
        Some(value) => value,
    };
    let holds = value
        .as_u64()
        .is_some_and(|window| window >= config.context as u64);
    if holds || !is_used {
        return Ok(());
    }
    let default = match is_absent {
        true => ", which an absent field means here",
        false => "",
    };
    let expected = format!(
        "null, or at least max_position_embeddings {}: attention over a window is not supported{default}",
        config.context
    );
    let problem = fields.problem("sliding_window", &value, &expected);
    let advice = "within the window attention is full: to use the model there, lower max_position_embeddings to it";
    Err(Error::Invalid(problem.advise(advice)))
}

/// Fields with one value that is supported.
fn neutral(fields: &mut Fields) -> Result<(), Error> {
    for (name, value, why) in [
        (
            "hidden_act",
            json!("silu"),
            "the gate of the feed-forward is SwiGLU's",
        ),
        (
            "mlp_bias",
            json!(false),
            "biases of the feed-forward are not supported",
        ),
        (
            "partial_rotary_factor",
            json!(1.0),
            "whole heads are turned",
        ),
        (
            "rope_interleaved",
            json!(false),
            "pairs of rotary angles lie in two halves of a head",
        ),
        ("use_mrope", json!(false), "places are numbers in a row"),
        (
            "is_encoder_decoder",
            json!(false),
            "a decoder reads no other text",
        ),
        (
            "add_cross_attention",
            json!(false),
            "a decoder reads no other text",
        ),
        ("pruned_heads", json!({}), "no head is left out"),
        (
            "quantization_config",
            Value::Null,
            "weights of other types than f32, f16 and bf16 are not supported",
        ),
        (
            "auto_map",
            Value::Null,
            "the model is computed by code that comes with it",
        ),
    ] {
        fields.neutral(name, &value, why)?;
    }
    Ok(())
}

fn symbols(fields: &mut Fields, vocabulary: usize) -> Result<Symbols, Error> {
    Ok(Symbols {
        begin: fields.ids("bos_token_id", vocabulary)?.first().copied(),
        ends: fields.ids("eos_token_id", vocabulary)?,
        pad: fields.ids("pad_token_id", vocabulary)?.first().copied(),
    })
}

/// Dropout is of training only, and there is none here.
fn dropout(fields: &mut Fields) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    for name in [
        "attention_dropout",
        "hidden_dropout",
        "resid_pdrop",
        "embd_pdrop",
    ] {
        let share = match fields.has(name) {
            true => fields.number(name, Some(0.0))?,
            false => 0.0,
        };
        if share != 0.0 {
            notes.push(format!(
                "{name} {share:?} is of training; training here has no dropout"
            ));
        }
    }
    Ok(notes)
}

/// What no model can be built from, by the names of `config.json`.
fn check(path: &Path, config: &BaselineConfig) -> Result<(), Error> {
    let Some(problem) = config.check().into_iter().next() else {
        return Ok(());
    };
    let theirs = match problem.field.as_str() {
        "d_model" => "hidden_size",
        "n_heads" => "num_attention_heads",
        "n_kv_heads" => "num_key_value_heads",
        "d_head" => "head_dim",
        "d_ff" => "intermediate_size",
        "n_layers" => "num_hidden_layers",
        "context" => "max_position_embeddings",
        "rope_base" => "rope_theta",
        "norm_epsilon" => "rms_norm_eps",
        // Those of rotary angles, which have their own names.
        other => other.rsplit('.').next().unwrap_or(other),
    };
    let expected = problem.expected.replace("n_heads", "num_attention_heads");
    Err(Error::Invalid(Problem::new(
        path,
        theirs,
        problem.found,
        expected,
    )))
}

/// Refuses a field that is left over and not known to be harmless.
fn left(
    path: &Path,
    fields: &Fields,
    ignored: &[String],
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    for (name, value) in fields.left().filter(|(name, _)| !HARMLESS.contains(name)) {
        if ignored.iter().any(|ignored| ignored == name) {
            notes.push(format!(
                "the field {name} of config.json is ignored, as you said"
            ));
            continue;
        }
        let expected = "no such field: it is not known and may change what the model computes";
        let problem = fields.problem(name, value, expected);
        let advice = "if you know that it does not, say --ignore-field with its name";
        return Err(Error::Invalid(problem.advise(advice)));
    }
    for name in ignored {
        if !fields.left().any(|(left, _)| left == name) {
            let expected = format!("a field of {} that is not understood", path.display());
            let found = super::super::json::shown(name);
            return Err(Error::config(Problem::typed(
                "--ignore-field",
                found,
                expected,
            )));
        }
    }
    Ok(())
}

/// The special tokens that `generation_config.json` has override those of the model, as they do in transformers.
fn for_generation(
    path: &Path,
    vocabulary: usize,
    symbols: &mut Symbols,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    let mut fields = Fields::read(path)?;
    let theirs = self::symbols(&mut fields, vocabulary)?;
    if !theirs.ends.is_empty() {
        symbols.ends = theirs.ends;
    }
    symbols.begin = theirs.begin.or(symbols.begin);
    symbols.pad = theirs.pad.or(symbols.pad);
    let program = ["_from_model_config", "transformers_version"];
    let others = fields.left().filter(|(name, _)| !program.contains(name));
    let others: Vec<String> = others
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    if !others.is_empty() {
        let others = crate::error::shortened(&others.join(", "), 200).into_owned();
        notes.push(format!(
            "of generation_config.json only special tokens are taken over, not {others}"
        ));
    }
    Ok(())
}
