//! The recipe of an imported decoder: `[model]` from its `config.json`, the rest from a template or from the user's `--recipe`;
//! and the recipe that trains on from the run.

use crate::cli;
use crate::data::Tokenizer;
use crate::device::DeviceConfig;
use crate::error::{Error, Problem};
use crate::import::hugging_face::{Described, Directory};
use crate::recipe::load::{from_text, read};
use crate::recipe::{Checked, StageStart};
use crate::run::RunDirectory;
use brian::BaselineConfig;
use brian::block::AttentionBias;
use brian::block::causal::RopeScaling;
use serde_json::Value;
use std::fmt::Debug;
use std::path::Path;

/// The name of the only stage.
const STAGE: &str = "pretrained";

/// What the template is called in messages.
const TEMPLATE: &str = "the recipe of the import";

/// The longest window of the template: a context of a hundred thousand tokens would not be trained at once.
const MOST_WINDOW: usize = 1024;

/// The recipe.
pub(super) fn of(
    arguments: &cli::Import,
    directory: &Directory,
    described: &Described,
    tokenizer: &Tokenizer,
) -> Result<Checked, Error> {
    let (file, text, mut sets) = match &arguments.recipe {
        None => (
            TEMPLATE.to_string(),
            template(directory, described, tokenizer),
            Vec::new(),
        ),
        Some(file) => {
            let mut text = read(file)?;
            if !has_model(&text) {
                text += &format!("\n{}", model(described));
            }
            (file.display().to_string(), text, rows(described, tokenizer))
        }
    };
    sets.extend(arguments.sets.iter().cloned());
    let checked = from_text(&file, text, &sets).map_err(Error::Config)?;
    agree(Path::new(&file), &checked, described)?;
    Ok(checked)
}

/// A recipe that starts from a run with the weights of its import.
pub(super) fn fine_tuning(run: &RunDirectory) -> Result<String, Error> {
    let file = run.recipe();
    let path = toml::Value::String(run.path().display().to_string());
    let text = read(&file)?;
    let imported =
        from_text(&file.display().to_string(), text.clone(), &[]).map_err(Error::Config)?;
    let mut name = imported.run.name.clone();
    name.truncate(90);
    let sets = [
        format!("run.name=\"{name}-finetuned\""),
        format!("stage.{STAGE}.start={{ kind = \"run\", path = {path} }}"),
        format!("stage.{STAGE}.steps=1000"),
        format!(
            "stage.{STAGE}.learning_rate={{ kind = \"warmup_cosine\", peak = 2e-5, warmup_steps = 50, floor = 2e-6 }}"
        ),
        format!("stage.{STAGE}.name=\"finetune\""),
    ];
    let checked = from_text(TEMPLATE, text, &sets).map_err(Error::Config)?;
    debug_assert!(matches!(checked.stage[0].start, StageStart::Run { .. }));
    Ok(checked.text().to_string())
}

/// Whether a text has a table `[model]`; a text that cannot be parsed is refused later.
fn has_model(text: &str) -> bool {
    let table: Result<toml::Table, _> = toml::from_str(text);
    table.is_ok_and(|table| table.contains_key("model"))
}

/// Rows of the embedding, where there are more than tokens.
fn rows(described: &Described, tokenizer: &Tokenizer) -> Vec<String> {
    let more = described.vocabulary > tokenizer.vocabulary_size();
    let set = more.then(|| format!("tokenizer.rows={}", described.vocabulary));
    set.into_iter().collect()
}

/// Refuses a table `[model]` that is not that of the directory. Its context may be shorter.
fn agree(file: &Path, checked: &Checked, described: &Described) -> Result<(), Error> {
    let wrong = |field: &str, found: String, expected: String| {
        let expected = format!("{expected}, as config.json says");
        let problem = Problem::new(file, format!("model.{field}"), found, expected);
        let advice = "leave [model] away: the import writes it";
        Err(Error::config(problem.advise(advice)))
    };
    let Some(found) = checked.model.get::<BaselineConfig>() else {
        return wrong(
            "kind",
            checked.model.kind().to_string(),
            "\"baseline\"".to_string(),
        );
    };
    let rows = checked.rows(described.vocabulary);
    if rows != described.vocabulary {
        let expected = format!("{}, the rows of the embedding", described.vocabulary);
        let problem = Problem::new(file, "tokenizer.rows", rows.to_string(), expected);
        return Err(Error::config(problem));
    }
    let wanted = &described.config;
    if found.context > wanted.context {
        let expected = format!("at most {}", wanted.context);
        return wrong("context", found.context.to_string(), expected);
    }
    fn said(value: Option<impl Debug>) -> String {
        value.map_or("none".to_string(), |value| format!("{value:?}"))
    }
    let fields = |config: &BaselineConfig| {
        let heads = config.heads();
        [
            ("d_model", config.d_model.to_string()),
            ("n_heads", heads.n_heads.to_string()),
            ("n_kv_heads", heads.n_kv_heads.to_string()),
            ("d_head", heads.d_head.to_string()),
            ("attention_bias", format!("{:?}", config.attention_bias)),
            (
                "query_key_norm",
                (config.query_key_norm == Some(true)).to_string(),
            ),
            (
                "untied_head",
                (config.untied_head == Some(true)).to_string(),
            ),
            ("logit_cap", said(config.logit_cap)),
            ("d_ff", config.d_ff.to_string()),
            ("n_layers", config.n_layers.to_string()),
            ("rope_base", format!("{:?}", config.rope_base)),
            ("rope_scaling", format!("{:?}", config.rope_scaling)),
            ("norm_epsilon", format!("{:?}", config.norm_epsilon)),
            ("residual_scale", said(config.residual_scale)),
            ("width_transfer", said(config.width_transfer)),
        ]
    };
    for ((field, found), (_, wanted)) in fields(found).into_iter().zip(fields(wanted)) {
        if found != wanted {
            return wrong(field, found, wanted);
        }
    }
    Ok(())
}

/// The table `[model]`.
fn model(described: &Described) -> String {
    let config = &described.config;
    let heads = config.heads();
    let mut lines = vec![
        "[model]".to_string(),
        format!(
            "kind = \"baseline\"               # {}",
            described.family.architecture
        ),
        format!("d_model = {}", config.d_model),
        format!("n_heads = {}", heads.n_heads),
        format!("n_kv_heads = {}", heads.n_kv_heads),
        format!("d_head = {}", heads.d_head),
    ];
    match config.attention_bias {
        Some(AttentionBias::QueryKeyValue) => {
            lines.push("attention_bias = \"query_key_value\"".to_string())
        }
        Some(AttentionBias::All) => lines.push("attention_bias = \"all\"".to_string()),
        None => {}
    }
    for (key, value) in [
        ("query_key_norm", config.query_key_norm),
        ("untied_head", config.untied_head),
    ] {
        lines.extend(value.map(|value| format!("{key} = {value}")));
    }
    lines.push(format!("d_ff = {}", config.d_ff));
    lines.push(format!("n_layers = {}", config.n_layers));
    lines.push(format!("context = {}", config.context));
    lines.push(format!("rope_base = {:?}", config.rope_base));
    match config.rope_scaling {
        None => {}
        Some(RopeScaling::Linear { factor }) => {
            lines.push(format!(
                "rope_scaling = {{ kind = \"linear\", factor = {factor:?} }}"
            ));
        }
        Some(RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_context,
        }) => lines.push(format!(
            "rope_scaling = {{ kind = \"llama3\", factor = {factor:?}, low_freq_factor = {low:?}, \
             high_freq_factor = {high:?}, original_context = {original_context} }}"
        )),
    }
    lines.push(format!("norm_epsilon = {:?}", config.norm_epsilon));
    if let brian::Initial::Scaled { std } = config.initial {
        lines.push(format!(
            "initial = {{ kind = \"scaled\", std = {std:?} }}  # of no effect on imported weights"
        ));
    }
    lines.join("\n") + "\n"
}

/// A run's name from that of a directory.
fn name(directory: &Path) -> String {
    let whole = directory.canonicalize().unwrap_or(directory.to_path_buf());
    let name = whole
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = name.chars().map(allowed).take(80).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    match name {
        "" | "last" => "imported".to_string(),
        name => name.to_string(),
    }
}

/// Whether the tokenizer's own template puts a symbol in front of every text, as the model was trained.
fn begins_with_symbol(tokenizer: &Tokenizer) -> bool {
    let json: Value = serde_json::from_slice(tokenizer.file()).unwrap_or_default();
    let processor = &json["post_processor"];
    let mut parts = vec![processor];
    parts.extend(processor["processors"].as_array().into_iter().flatten());
    let template = parts
        .iter()
        .find(|part| part["type"] == "TemplateProcessing");
    let first = template.and_then(|template| template.pointer("/single/0"));
    first.is_some_and(|first| first.get("SpecialToken").is_some())
}

fn template(directory: &Directory, described: &Described, tokenizer: &Tokenizer) -> String {
    let name = name(directory.path());
    let backend = DeviceConfig::any().backend;
    let window = described.config.context.min(MOST_WINDOW);
    let rows = match described.vocabulary > tokenizer.vocabulary_size() {
        true => format!(
            "\nrows = {}                    # of the embedding: rows without a token are never drawn",
            described.vocabulary
        ),
        false => String::new(),
    };
    let (start, why) = match begins_with_symbol(tokenizer) {
        true => ("symbol", "as the tokenizer's template does"),
        false => (
            "first_token",
            "as the tokenizer's template puts no symbol in front",
        ),
    };
    let model = model(described);
    format!(
        r#"# A pretrained decoder, imported. Its stage stands for the training before: nothing was trained here.
#
# The data, once: nerve data prepare TEXTS --output data --tokenizer THIS_RUN/tokenizer.json

format = 2                      # of this file

[run]
name = "{name}"
root = "runs"                   # where run directories are made
seed = 1                        # every draw in training

[device]
backend = "{backend}"           # ndarray | flex | wgpu | vulkan | cuda; must be compiled in
index = 0                       # which of several devices
dtype = "f32"                   # of products: f32 | bf16; weights are f32

[tokenizer]
file = "tokenizer.json"{rows}

[data]
window = {window}                     # tokens per sequence
documents = "run_on"            # run_on: windows may hold several documents | separate | packed
start = "{start}"               # symbol | first_token, {why}
order_seed = 1                  # the order of the windows
difficulty = "none"             # none | label | token_rank | {{ kind = "file", path = "…" }}
train = [{{ path = "data/train.bin", weight = 1.0 }}]
valid = [{{ name = "text", path = "data/valid.bin" }}]

{model}
[optimizer]
kind = "adamw"
betas = [0.9, 0.95]
epsilon = 1e-8
weight_decay = 0.01
decay = "matrices"              # matrices | all: gains and biases too
clip_norm = 1.0                 # of the whole gradient

[batch]
sequences = 1                   # computed at once
accumulate = 8                  # such batches per step

[[stage]]
name = "{STAGE}"
steps = 1                       # none was done here
start = "fresh"                 # fresh | previous | {{ kind = "run", path = "runs/…" }}
policy = "none"                 # none: a decoder of fixed depth has no pool
learning_rate = {{ kind = "constant", peak = 1e-5, warmup_steps = 0 }}
freeze = []                     # as in [{{ group = "embedding", until_step = 100 }}]

[watch]                         # every 0 steps means never
log_every_steps = 10
valid_every_steps = 100
valid_tokens = 8192             # of each source above
sample_every_steps = 0
sample_tokens = 32
sample_prompts = []

[checkpoint]
every_steps = 100
keep_last = 2                   # at least 2, so that a damaged one is never the only one
keep_best = true                # the lowest validation loss
"#
    )
}
