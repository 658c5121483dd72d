//! Tests of `nerve import` for Hugging Face directories: logits and losses of golden cases of every architecture, what a run of
//! one can do, and wrong directories, each refused in a line.
//!
//! `NERVE_FIXTURES` names a folder with more cases under `hf/`; `NERVE_SMOLLM2` a directory with SmolLM2-135M-Instruct.

use crate::determinism::check_every_resume;
use crate::support::{Finished, GOLDEN, TestAutodiff, TestBackend, Workplace};
use brian::generate::Sampling;
use brian::route::rules::Rules;
use burn::module::AutodiffModule;
use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use train::data::Tokenizer;
use train::import;
use train::ladder::{Blueprint, load_into, tokenizer};
use train::model::Model;
use train::recipe::{Checked, load_run};
use train::run::{RunDirectory, checkpoint};
use train::task::{Continuation, RoutePlan};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Imports into `runs` of a workplace, by its whole path, so that the run can be opened from here.
fn run_of(workplace: &Workplace, words: &str) -> Finished {
    let root = workplace.path("runs");
    let line = format!("import {words} --set run.root={}", root.display());
    workplace.nerve(&line).expect(0)
}

/// The golden cases of this project, and others if there is a folder of them.
fn cases() -> Vec<PathBuf> {
    let others = env::var_os("NERVE_FIXTURES").map(PathBuf::from);
    let mut all = Vec::new();
    for folder in [Some(fixtures()), others].into_iter().flatten() {
        let entries = fs::read_dir(folder.join("hf")).unwrap();
        // Absolute, as the program runs somewhere else.
        let paths = entries.map(|entry| entry.unwrap().path().canonicalize().unwrap());
        all.extend(paths.filter(|path| path.join("config.json").exists()));
    }
    all.sort();
    assert!(all.len() >= 6, "{all:?}");
    all
}

/// A run as `eval` and `sample` see it.
struct Imported {
    recipe: Checked,
    tokenizer: Tokenizer,
    model: Model<TestBackend>,
}

impl Imported {
    fn open(run: &Path) -> Self {
        let recipe = load_run(&run.join("recipe.toml"), &[]).unwrap();
        let tokenizer = tokenizer(&recipe).unwrap();
        let blueprint = Blueprint {
            recipe: &recipe,
            vocabulary: tokenizer.vocabulary_size(),
            counts: None,
            ranks: None,
        };
        let device = Device::<TestAutodiff>::default();
        let skeleton = blueprint.skeleton::<TestAutodiff>(&recipe.stage[0].policy, &device);
        let directory = RunDirectory::open(run).unwrap();
        let weights = checkpoint::latest(&directory)
            .unwrap()
            .unwrap()
            .snapshot
            .model;
        let model = load_into(skeleton, weights, run).unwrap().valid();
        Self {
            recipe,
            tokenizer,
            model,
        }
    }

    /// Logits of every place, row by row.
    fn logits(&self, ids: &[i32], [batch, seq]: [usize; 2]) -> Vec<Vec<f32>> {
        let data = TensorData::new(ids.to_vec(), [batch, seq]);
        let tokens = Tensor::<TestBackend, 2, Int>::from_data(data, &Default::default());
        let rows = vec![Default::default(); batch];
        let (logits, _) = self.model.forward(tokens, &rules(), &rows);
        let [_, _, vocabulary] = logits.dims();
        let all: Vec<f32> = logits.into_data().iter::<f32>().collect();
        all.chunks(vocabulary).map(<[f32]>::to_vec).collect()
    }

    fn greedy(&self, prompt: &[u32], n_tokens: usize) -> Vec<u32> {
        let greedy = Sampling {
            temperature: 0.0,
            ..Sampling::plain(1)
        };
        let context = self.recipe.model.context();
        let how = Continuation {
            never: Vec::new(),
            ends: Vec::new(),
            ..Continuation::new(&self.tokenizer, n_tokens, context, greedy)
        };
        self.model
            .continue_tokens(prompt, &rules(), &how)
            .unwrap()
            .tokens
    }
}

fn rules() -> Rules {
    RoutePlan::sequential().rules
}

fn log_probability(logits: &[f32], id: usize) -> f64 {
    let most = logits
        .iter()
        .fold(f32::NEG_INFINITY, |most, logit| most.max(*logit));
    let sum: f64 = logits
        .iter()
        .map(|logit| f64::from(logit - most).exp())
        .sum();
    f64::from(logits[id] - most) - sum.ln()
}

/// Ids of a golden case, and their shape.
fn input_ids(file: &Path) -> (Vec<i32>, [usize; 2]) {
    let bytes = fs::read(file).unwrap();
    let content = SafeTensors::deserialize(&bytes).unwrap();
    let ids = content.tensor("input_ids").unwrap();
    let [batch, seq] = *ids.shape() else {
        panic!("{:?}", ids.shape())
    };
    let (words, _) = ids.data().as_chunks::<8>();
    let ids = words.iter().map(|word| i64::from_le_bytes(*word) as i32);
    (ids.collect(), [batch, seq])
}

#[test]
fn every_golden_case_has_its_logits_and_its_loss() {
    for case in cases() {
        let workplace = Workplace::new();
        let (shown, expected) = (case.display(), case.join("expected.safetensors"));
        let line = format!("{shown} --tokenizer none --expected {}", expected.display());
        let run = run_of(&workplace, &line);
        let imported = Imported::open(&workplace.path(run.answer()));
        let (ids, [batch, seq]) = input_ids(&expected);
        let expected = import::read(&expected).unwrap();
        let found = imported.logits(&ids, [batch, seq]);
        for (found, expected) in found
            .iter()
            .flatten()
            .zip(expected["logits"].floats().iter())
        {
            assert!(
                (found - expected).abs() <= GOLDEN,
                "{shown}: {found} {expected}"
            );
        }
        let targets = (0..batch * seq).filter(|place| (place + 1) % seq != 0);
        let nats: Vec<f64> = targets
            .map(|place| -log_probability(&found[place], ids[place + 1] as usize))
            .collect();
        let loss = nats.iter().sum::<f64>() / nats.len() as f64;
        let expected = f64::from(expected["loss"].floats()[0]);
        assert!(
            (loss - expected).abs() <= f64::from(GOLDEN),
            "{shown}: {loss} {expected}"
        );
    }
}

/// The values that another program computed from the same weights.
#[test]
fn a_real_pretrained_model_says_what_it_says_elsewhere() {
    let Some(directory) = env::var_os("NERVE_SMOLLM2").map(PathBuf::from) else {
        return;
    };
    let workplace = Workplace::new();
    let run = run_of(&workplace, &directory.display().to_string());
    let imported = Imported::open(&workplace.path(run.answer()));
    let golden = fs::read(fixtures().join("hf/smollm2_135m.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let numbers = |name: &str| {
            let list = case[name].as_array().unwrap().iter();
            list.map(|number| number.as_f64().unwrap())
                .collect::<Vec<_>>()
        };
        let ids: Vec<u32> = numbers("ids").into_iter().map(|id| id as u32).collect();
        let text = case["text"].as_str().unwrap();
        assert_eq!(imported.tokenizer.encode(text), ids, "{text}");
        let signed: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let logits = imported.logits(&signed, [1, ids.len()]);
        for ((logits, next), expected) in logits.iter().zip(&ids[1..]).zip(numbers("logprobs")) {
            let found = log_probability(logits, *next as usize);
            assert!(
                (found - expected).abs() <= 2e-3,
                "{}: {found} {expected}",
                case["text"]
            );
        }
        let last = logits.last().unwrap();
        for (found, expected) in last.iter().zip(numbers("last_logits_head")) {
            assert!(
                (f64::from(*found) - expected).abs() <= 5e-3,
                "{found} {expected}"
            );
        }
        let greedy: Vec<u32> = numbers("greedy").into_iter().map(|id| id as u32).collect();
        assert_eq!(
            imported.greedy(&ids, greedy.len()),
            greedy,
            "{}",
            case["text"]
        );
    }
}

/// A workplace with a copy of a golden case as `model`.
fn copied(case: &str) -> Workplace {
    let workplace = Workplace::new();
    fs::create_dir(workplace.path("model")).unwrap();
    for entry in fs::read_dir(fixtures().join("hf").join(case)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(
            entry.path(),
            workplace.path("model").join(entry.file_name()),
        )
        .unwrap();
    }
    workplace
}

fn change_json(workplace: &Workplace, file: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let path = workplace.path("model").join(file);
    let mut content = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Err(_) => json!({}),
    };
    change(content.as_object_mut().unwrap());
    fs::write(path, content.to_string()).unwrap();
}

fn set(workplace: &Workplace, field: &str, value: Value) {
    change_json(workplace, "config.json", |config| {
        drop(config.insert(field.to_string(), value))
    });
}

/// Tensors by name: kind, shape, bytes.
type Raw = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

/// Writes a file of tensors anew.
fn change_tensors(workplace: &Workplace, file: &str, change: impl FnOnce(&mut Raw)) {
    let path = workplace.path("model").join(file);
    let bytes = fs::read(&path).unwrap();
    let content = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = content.iter().map(|(name, view)| {
        let kind = format!("{:?}", view.dtype());
        (
            name.to_string(),
            (kind, view.shape().to_vec(), view.data().to_vec()),
        )
    });
    let mut tensors: Raw = tensors.collect();
    change(&mut tensors);
    let (mut header, mut numbers) = (Map::new(), Vec::new());
    for (name, (kind, shape, data)) in tensors {
        let start = numbers.len();
        numbers.extend(data);
        let info = json!({ "dtype": kind, "shape": shape, "data_offsets": [start, numbers.len()] });
        header.insert(name, info);
    }
    let header = Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    fs::write(path, [&length[..], header.as_bytes(), &numbers].concat()).unwrap();
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

const WHOLE: &str = "model.safetensors";
const QUERY: &str = "model.layers.1.self_attn.q_proj.weight";

/// A matrix with its rows and columns exchanged.
fn turned((_, shape, data): &mut (String, Vec<usize>, Vec<u8>)) {
    let [rows, columns] = shape[..] else {
        panic!("{shape:?}")
    };
    assert_eq!(rows, columns);
    let at = |index: usize| 4 * (index % rows * columns + index / rows);
    *data = (0..rows * columns)
        .flat_map(|index| data[at(index)..at(index) + 4].to_vec())
        .collect();
}

/// The one line that refuses, and that no run was made.
fn refused(workplace: &Workplace, finished: Finished, what: &str) -> String {
    assert_eq!(finished.code, 3, "{what}: {}", finished.stderr);
    let error = finished.stderr;
    assert_eq!(error.trim_end().lines().count(), 1, "{what}: {error}");
    assert!(!workplace.path("runs").exists(), "{what}: {error}");
    error
}

/// A case, what is wrong with it, and what the refusal says.
type Wrong = (&'static str, fn(&Workplace), &'static str);

#[test]
fn wrong_descriptions_are_refused_by_their_field() {
    let wrongs: &[Wrong] = &[
        (
            "llama_tied_mha",
            |w| set(w, "model_type", json!("gpt2")),
            "model_type: found \"gpt2\", expected one of",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "architectures", json!(["LlamaModel"])),
            "architectures: found [\"LlamaModel\"], expected [\"LlamaForCausalLM\"]",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "architectures", json!(["MistralForCausalLM"])),
            "architectures: found",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "hidden_act", json!("gelu")),
            "hidden_act: found \"gelu\", expected \"silu\"",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "mlp_bias", json!(true)),
            "mlp_bias: found true, expected false",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "hidden_size", json!("32")),
            "hidden_size: found \"32\", expected a whole number",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "hidden_size", json!(48)),
            "here [61, 48] instead of [61, 32]",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "num_hidden_layers", json!(1_000_000_000_000u64)),
            "num_hidden_layers: found 1000000000000",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "num_hidden_layers", json!(5)),
            "is missing (model.layers.4.input_layernorm.weight)",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "num_hidden_layers", json!(3)),
            "has no place (model.layers.3.",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "num_key_value_heads", json!(3)),
            "num_key_value_heads: found 3, expected a divisor",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "head_dim", json!(7)),
            "head_dim: found 7, expected an even width",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "rms_norm_eps", json!(0)),
            "rms_norm_eps: found 0",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "attention_bias", json!(true)),
            "is missing (model.layers.0.self_attn.k_proj.bias)",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "tie_word_embeddings", json!(false)),
            "is missing (lm_head.weight)",
        ),
        (
            "llama_untied_gqa",
            |w| set(w, "tie_word_embeddings", json!(true)),
            "tensor \"lm_head.weight\": found",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "eos_token_id", json!([2, 61])),
            "eos_token_id: found [2,61], expected null, an id below vocab_size 61",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "quantization_config", json!({"bits": 4})),
            "quantization_config: found",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "num_local_experts", json!(8)),
            "num_local_experts: found 8, expected no such field",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "final_logit_softcapping", json!(30.0)),
            "final_logit_softcapping: found 30.0",
        ),
        (
            "llama_tied_mha",
            |w| {
                set(
                    w,
                    "rope_parameters",
                    json!({"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}),
                )
            },
            "rope_parameters.rope_type: found \"yarn\"",
        ),
        (
            "llama_tied_mha",
            |w| {
                set(
                    w,
                    "rope_parameters",
                    json!({"rope_theta": 1e4, "partial_rotary_factor": 0.5}),
                )
            },
            "rope_parameters.partial_rotary_factor: found 0.5",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "rope_theta", json!(5e5)),
            "rope_parameters.rope_theta: found 10000.0, expected 500000.0",
        ),
        (
            "llama_tied_mha",
            |w| set(w, "rope_scaling", json!({"type": "linear", "factor": 2.0})),
            "rope_scaling: found",
        ),
        (
            "llama_tied_mha",
            |w| {
                change_json(w, "config.json", |config| {
                    config.remove("rope_parameters");
                    config.insert(
                        "rope_scaling".to_string(),
                        json!({"type": "dynamic", "factor": 2.0}),
                    );
                })
            },
            "rope_scaling.type: found \"dynamic\"",
        ),
        (
            "llama3_scaled_rope_sharded",
            |w| {
                change_json(w, "config.json", |config| {
                    config["rope_parameters"]
                        .as_object_mut()
                        .unwrap()
                        .remove("low_freq_factor");
                })
            },
            "rope_parameters.low_freq_factor: found none",
        ),
        (
            "mistral_full_window",
            |w| set(w, "sliding_window", json!(64)),
            "sliding_window: found 64, expected null, or at least max_position_embeddings 128",
        ),
        (
            "mistral_full_window",
            |w| {
                change_json(w, "config.json", |config| {
                    config.remove("sliding_window");
                    config.insert("max_position_embeddings".to_string(), json!(8192));
                })
            },
            "sliding_window: found 4096",
        ),
        (
            "qwen2_biased_qkv",
            |w| {
                change_json(w, "config.json", |config| {
                    config.insert("use_sliding_window".to_string(), json!(true));
                    config.insert("sliding_window".to_string(), json!(16));
                })
            },
            "sliding_window: found 16",
        ),
        (
            "qwen3_normed_qk",
            |w| {
                set(
                    w,
                    "layer_types",
                    json!([
                        "full_attention",
                        "sliding_attention",
                        "full_attention",
                        "full_attention"
                    ]),
                )
            },
            "layer_types: found",
        ),
        (
            "llama_tied_mha",
            |w| {
                change_json(w, "generation_config.json", |config| {
                    config.insert("eos_token_id".to_string(), json!(99));
                })
            },
            "generation_config.json: eos_token_id: found 99",
        ),
        (
            "llama_tied_mha",
            |w| {
                w.write(
                    "model/config.json",
                    r#"{"model_type": "llama", "vocab_size": 61, "vocab_size": 62}"#,
                )
            },
            "the key \"vocab_size\" twice",
        ),
        (
            "llama_tied_mha",
            |w| w.write("model/config.json", r#"{"model_type": "llama""#),
            "config.json: line 1",
        ),
    ];
    check(wrongs);
}

#[test]
fn wrong_weights_are_refused_by_their_tensor_or_file() {
    let wrongs: &[Wrong] = &[
        (
            "llama_tied_mha",
            |w| change_tensors(w, WHOLE, |all| drop(all.remove(QUERY))),
            "is missing (model.layers.1.self_attn.q_proj.weight)",
        ),
        (
            "llama_tied_mha",
            |w| {
                change_tensors(w, WHOLE, |all| {
                    all.insert(
                        "model.layers.1.self_attn.q_proj.bias".to_string(),
                        ("F32".to_string(), vec![32], bytes_of(&[0.0; 32])),
                    );
                })
            },
            "has no place (model.layers.1.self_attn.q_proj.bias)",
        ),
        (
            "llama_tied_mha",
            |w| {
                change_tensors(w, WHOLE, |all| {
                    let mut head = all["model.embed_tokens.weight"].clone();
                    head.2[5] ^= 1;
                    all.insert("lm_head.weight".to_string(), head);
                })
            },
            "tensor \"lm_head.weight\": found 1 of 1952 numbers that differ",
        ),
        (
            "llama_tied_mha",
            |w| {
                change_tensors(w, WHOLE, |all| {
                    all.get_mut(QUERY).unwrap().2[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
                })
            },
            "tensor \"model.layers.1.self_attn.q_proj.weight\": found 1 of 1024 numbers that are not finite, the first at index 2",
        ),
        (
            "llama_tied_mha",
            |w| {
                change_tensors(w, WHOLE, |all| {
                    all.get_mut(QUERY).unwrap().0 = "I32".to_string()
                })
            },
            "has no floating-point numbers (model.layers.1.self_attn.q_proj.weight)",
        ),
        (
            "llama_tied_mha",
            |w| {
                change_tensors(w, WHOLE, |all| {
                    all.get_mut(QUERY).unwrap().0 = "F8_E4M3".to_string()
                })
            },
            "dtype \"F8_E4M3\"",
        ),
        (
            "llama_tied_mha",
            |w| change_tensors(w, WHOLE, |all| all.get_mut(QUERY).unwrap().1 = vec![16, 64]),
            "here [32, 32] instead of [16, 64]",
        ),
        (
            "llama_tied_mha",
            |w| change_tensors(w, WHOLE, |all| turned(all.get_mut(QUERY).unwrap())),
            "expected.safetensors: logits [",
        ),
        (
            "llama_tied_mha",
            |w| {
                change_tensors(w, WHOLE, |all| {
                    let up = all.remove("model.layers.0.mlp.up_proj.weight").unwrap();
                    let gate = all
                        .insert("model.layers.0.mlp.gate_proj.weight".to_string(), up)
                        .unwrap();
                    all.insert("model.layers.0.mlp.up_proj.weight".to_string(), gate);
                })
            },
            "expected.safetensors: logits [",
        ),
        (
            "llama_tied_mha",
            |w| {
                change_tensors(w, WHOLE, |all| {
                    let angles = [1.0, 0.1, 0.03, 0.001];
                    all.insert(
                        "model.layers.0.self_attn.rotary_emb.inv_freq".to_string(),
                        ("F32".to_string(), vec![4], bytes_of(&angles)),
                    );
                })
            },
            "tensor \"model.layers.0.self_attn.rotary_emb.inv_freq\": found 3e-2 at index 2",
        ),
        (
            "llama_tied_mha",
            |w| {
                let file = w.path("model").join(WHOLE);
                let bytes = fs::read(&file).unwrap();
                fs::write(file, &bytes[..bytes.len() - 100]).unwrap();
            },
            "model.safetensors: found",
        ),
        (
            "llama_tied_mha",
            |w| fs::remove_file(w.path("model").join(WHOLE)).unwrap(),
            "model: found no weights",
        ),
        (
            "llama_tied_mha",
            |w| {
                fs::copy(
                    w.path("assets/tokenizers/byte.json"),
                    w.path("model/tokenizer.json"),
                )
                .map(drop)
                .unwrap()
            },
            "tokenizer.json: found 260 tokens, expected at most 61",
        ),
        (
            "llama3_scaled_rope_sharded",
            |w| fs::remove_file(w.path("model/model-00003-of-00006.safetensors")).unwrap(),
            "model-00003-of-00006.safetensors: found no such file",
        ),
        (
            "llama3_scaled_rope_sharded",
            |w| {
                let shard = |number: usize| {
                    w.path("model")
                        .join(format!("model-{number:05}-of-00006.safetensors"))
                };
                fs::copy(shard(2), shard(3)).unwrap();
            },
            "model-00003-of-00006.safetensors: tensor",
        ),
        (
            "llama3_scaled_rope_sharded",
            |w| {
                fs::copy(
                    w.path("model/model-00001-of-00006.safetensors"),
                    w.path("model").join(WHOLE),
                )
                .map(drop)
                .unwrap()
            },
            "an index of shards beside a whole model",
        ),
        (
            "llama3_scaled_rope_sharded",
            |w| {
                change_json(w, "model.safetensors.index.json", |index| {
                    let places = index["weight_map"].as_object_mut().unwrap();
                    places.insert(
                        "model.layers.9.mlp.up_proj.weight".to_string(),
                        json!("model-00001-of-00006.safetensors"),
                    );
                })
            },
            "tensor \"model.layers.9.mlp.up_proj.weight\": found none",
        ),
        (
            "llama3_scaled_rope_sharded",
            |w| {
                change_json(w, "model.safetensors.index.json", |index| {
                    index["weight_map"]
                        .as_object_mut()
                        .unwrap()
                        .remove("model.norm.weight");
                })
            },
            "tensor \"model.norm.weight\": found it here, expected a tensor that it names",
        ),
    ];
    check(wrongs);
}

fn check(wrongs: &[Wrong]) {
    for (case, change, expected) in wrongs {
        let workplace = copied(case);
        change(&workplace);
        let tokenizer = match workplace.path("model/tokenizer.json").exists() {
            true => "",
            false => "--tokenizer none",
        };
        let line = format!("import model {tokenizer} --expected model/expected.safetensors");
        let error = refused(&workplace, workplace.nerve(&line), expected);
        assert!(
            error.contains(expected),
            "expected: {expected}\nfound: {error}"
        );
    }
}

#[test]
fn options_that_do_not_go_with_a_directory_are_refused() {
    let workplace = copied("llama_tied_mha");
    let error = refused(&workplace, workplace.nerve("import model"), "no tokenizer");
    assert!(
        error.contains("tokenizer.json: found no such file"),
        "{error}"
    );
    for (line, expected) in [
        (
            "import model --tokenizer none --vocabulary v.json",
            "--vocabulary: found a file",
        ),
        (
            "import model --tokenizer none --ignore-field hidden_size",
            "--ignore-field: found \"hidden_size\"",
        ),
        (
            "import model --tokenizer none --set model.d_model=64",
            "model.d_model: found 64, expected 32, as config.json says",
        ),
        (
            "import model --tokenizer none --set model.logit_cap=30",
            "model.logit_cap: found 30.0, expected none, as config.json says",
        ),
        (
            "import model --tokenizer none --set model.residual_scale=depth",
            "model.residual_scale: found Depth, expected none, as config.json says",
        ),
        ("import model/model.safetensors", "--recipe: found none"),
        (
            "import model/model.safetensors --expected x",
            "--expected: found a value",
        ),
    ] {
        let error = workplace.nerve(line).expect(2).stderr;
        assert!(error.contains(expected), "{line}: {error}");
    }
}

/// The weights of the run that a line makes.
fn weights(workplace: &Workplace, line: &str) -> (String, Vec<u8>) {
    let finished = workplace.nerve(line).expect(0);
    let run = workplace.path(finished.answer());
    let file = run.join("ckpt/step-00000000/model-00001-of-00001.safetensors");
    (finished.stderr, fs::read(file).unwrap())
}

#[test]
fn spellings_and_copies_that_change_nothing_change_nothing() {
    let plain = copied("llama_tied_mha");
    let line = "import model --tokenizer none --expected model/expected.safetensors";
    let (_, expected) = weights(&plain, line);
    let recipe = |workplace: &Workplace| {
        let text = fs::read_to_string(workplace.path("runs/model/recipe.toml")).unwrap();
        let of_model = text.split("[model]").nth(1).unwrap();
        of_model.split("[optimizer]").next().unwrap().to_string()
    };
    let of_plain = recipe(&plain);
    type Change = fn(&Workplace);
    let changes: &[(Change, &str)] = &[
        (
            |w| {
                change_json(w, "config.json", |config| {
                    for field in [
                        "rope_parameters",
                        "dtype",
                        "head_dim",
                        "num_key_value_heads",
                        "rope_theta",
                        "attention_bias",
                    ] {
                        config.remove(field);
                    }
                    config.insert("torch_dtype".to_string(), json!("float32"));
                    config.insert("rope_scaling".to_string(), Value::Null);
                    config.insert("pretraining_tp".to_string(), json!(2));
                    config.insert("eos_token_id".to_string(), json!([2, 7]));
                })
            },
            "num_key_value_heads 4",
        ),
        (
            |w| change_json(w, "config.json", |config| drop(config.remove("model_type"))),
            "taken over",
        ),
        (
            |w| {
                change_tensors(w, WHOLE, |all| {
                    let embedding = all["model.embed_tokens.weight"].clone();
                    all.insert("lm_head.weight".to_string(), embedding);
                    let angles = (
                        "F32".to_string(),
                        vec![4],
                        bytes_of(&[1.0, 0.1, 0.01, 0.001]),
                    );
                    all.insert(
                        "model.layers.2.self_attn.rotary_emb.inv_freq".to_string(),
                        angles,
                    );
                })
            },
            "rotary angles, which are those of config.json",
        ),
        (
            |w| {
                change_tensors(w, WHOLE, |all| {
                    let old = std::mem::take(all).into_iter();
                    *all = old
                        .map(|(name, tensor)| (format!("_orig_mod.{name}"), tensor))
                        .collect();
                })
            },
            "the prefix _orig_mod.model. was taken off",
        ),
    ];
    for (change, said) in changes {
        let workplace = copied("llama_tied_mha");
        change(&workplace);
        let (stderr, found) = weights(&workplace, line);
        assert!(found == expected, "{said}");
        assert_eq!(recipe(&workplace), of_plain);
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
    let workplace = copied("llama_tied_mha");
    set(&workplace, "house_style", json!("x"));
    let error = refused(&workplace, workplace.nerve(line), "an unknown field");
    assert!(error.contains("house_style: found \"x\""), "{error}");
    let (stderr, found) = weights(&workplace, &format!("{line} --ignore-field house_style"));
    assert!(found == expected);
    assert!(
        stderr.contains("the field house_style of config.json is ignored"),
        "{stderr}"
    );
}

#[test]
fn a_recipe_of_ones_own_brings_everything_but_the_model() {
    let workplace = copied("llama_untied_gqa");
    let tiny = fs::read_to_string(workplace.path("assets/recipes/baseline/tiny.toml")).unwrap();
    let (before, rest) = tiny.split_once("[model]").unwrap();
    let (_, after) = rest.split_once("[optimizer]").unwrap();
    workplace.write("mine.toml", format!("{before}[optimizer]{after}"));
    let words = "model --tokenizer none --recipe mine.toml";
    let run = run_of(&workplace, words);
    let imported = Imported::open(&workplace.path(run.answer()));
    assert_eq!(imported.recipe.model.context(), 128);
    // With its own table it must be that of the directory.
    workplace.write("mine.toml", tiny);
    let error = workplace.nerve(&format!("import {words}")).expect(2).stderr;
    assert!(error.contains("as config.json says"), "{error}");
}

#[test]
fn special_tokens_are_those_of_the_model() {
    let workplace = copied("llama_tied_mha");
    change_json(&workplace, "generation_config.json", |config| {
        config.insert("eos_token_id".to_string(), json!([7, 2]));
        config.insert("temperature".to_string(), json!(0.6));
    });
    let run = run_of(&workplace, "model --tokenizer none");
    let imported = Imported::open(&workplace.path(run.answer()));
    let specials = imported.tokenizer.specials();
    assert_eq!((specials.begin, specials.end), (Some(1), Some(7)));
    assert_eq!(imported.tokenizer.ends(), [2, 7]);
    for said in [
        "what ends a text is any of the tokens 2, 7",
        "only special tokens are taken over, not temperature 0.6",
    ] {
        assert!(run.stderr.contains(said), "{}", run.stderr);
    }
}

#[test]
fn rows_without_a_token_are_said_and_never_drawn() {
    let workplace = copied("llama_tied_mha");
    workplace.write("letters.txt", "abcdefghijklmnopqrs");
    workplace
        .nerve("tokenizer train letters.txt --kind character --output letters.json")
        .expect(0);
    let run = run_of(&workplace, "model --tokenizer letters.json");
    assert!(
        run.stderr
            .contains("38 of 61 rows of the embedding have no token"),
        "{}",
        run.stderr
    );
    let imported = Imported::open(&workplace.path(run.answer()));
    assert_eq!(imported.recipe.tokenizer.rows, Some(61));
    assert_eq!(imported.logits(&[1, 2], [1, 2])[0].len(), 61);
    let hot = Sampling {
        temperature: 100.0,
        ..Sampling::plain(3)
    };
    let how = Continuation::new(&imported.tokenizer, 300, 128, hot);
    let how = Continuation {
        never: Vec::new(),
        ends: Vec::new(),
        ..how
    };
    let drawn = imported
        .model
        .continue_tokens(&[0], &rules(), &how)
        .unwrap()
        .tokens;
    assert_eq!(drawn.len(), 300);
    assert!(
        drawn.iter().all(|id| *id < 23) && drawn.iter().any(|id| *id > 18),
        "{drawn:?}"
    );
}

#[test]
fn an_imported_run_is_measured_sampled_timed_trained_on_and_resumed() {
    let workplace = copied("qwen3_normed_qk");
    let run = workplace
        .nerve("import model --tokenizer none --set run.name=base")
        .expect(0);
    assert_eq!(run.answer(), "runs/base");
    fs::remove_dir_all(workplace.path("model")).unwrap();
    let numbers = |seed: usize| {
        let ids = (0..400).map(|place| ((place * place + seed * place) % 61).to_string());
        ids.collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> = (1..9).map(numbers).collect();
    workplace.write("ids.txt", texts.join("\n"));
    let prepare = "data prepare ids.txt --document line --valid 0.3 --output data \
                   --tokenizer runs/base/tokenizer.json";
    workplace.nerve(prepare).expect(0);
    let measured = workplace.nerve("eval runs/base --json").expect(0).json();
    let loss = measured["splits"][0]["loss/lm"].as_f64().unwrap();
    assert!(loss.is_finite() && loss > 1.0, "{loss}");
    let sampled = workplace
        .nerve_with(
            "sample runs/base --tokens 5 --temperature 0 --json --prompt 3",
            &[],
        )
        .expect(0)
        .json();
    let text = sampled["samples"][0]["text"].as_str().unwrap();
    let ids: Vec<u32> = text
        .split_whitespace()
        .map(|id| id.parse().unwrap())
        .collect();
    assert!(!ids.is_empty() && ids.iter().all(|id| *id < 61), "{text}");
    workplace
        .nerve("bench runs/base --rounds 1 --warm-up 0 --tokens 4")
        .expect(0);
    workplace
        .nerve("estimate runs/base/recipe.toml --gflops 10")
        .expect(0);
    workplace.nerve("runs verify runs/base").expect(0);
    let tune = "fit runs/base/finetune.toml --render none --set run.name=tuned --set data.window=16 \
                --set stage.finetune.steps=8 --set stage.finetune.learning_rate.warmup_steps=1 \
                --set watch.log_every_steps=1 --set watch.valid_every_steps=2 --set watch.valid_tokens=64 \
                --set checkpoint.every_steps=1 --set checkpoint.keep_last=9 --set batch.accumulate=2";
    let tuned = workplace.nerve(tune).expect(0);
    check_every_resume(&workplace, tuned.answer());
    let after = workplace
        .nerve(&format!("eval {} --json", tuned.answer()))
        .expect(0)
        .json();
    let after = after["splits"][0]["loss/lm"].as_f64().unwrap();
    assert!((after - loss).abs() < 0.5, "from {loss} to {after}");
}
