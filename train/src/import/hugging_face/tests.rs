//! Tests of descriptions that leave fields out, of both spellings of rotary angles, and of the tokenizer of ids.

use super::*;
use crate::data::Tokenizer;
use crate::error::Error;
use brian::block::AttentionBias;
use brian::block::causal::RopeScaling;
use std::fs;
use std::path::Path;

fn described(json: &str) -> Result<Described, Error> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("config.json");
    fs::write(&path, json).unwrap();
    describe(&path, None, &[])
}

#[test]
fn what_is_left_out_is_what_the_library_takes_and_is_said() {
    // model_type; layers; widths: model, feed-forward, head; heads: of queries, of keys; context; rows.
    let cases = [
        ("llama", 32, [4096, 11_008, 128], [32, 32], 2048, 32_000),
        // A window of 4096 would be in use in the full context.
        ("mistral", 32, [4096, 14_336, 128], [32, 8], 131_072, 32_000),
        ("qwen2", 32, [4096, 22_016, 128], [32, 32], 32_768, 151_936),
        ("qwen3", 32, [4096, 22_016, 128], [32, 32], 32_768, 151_936),
    ];
    for (model_type, n_layers, widths, heads, context, rows) in cases {
        let window = match model_type {
            "mistral" => ", \"sliding_window\": null",
            _ => "",
        };
        let found = described(&format!("{{\"model_type\": {model_type:?}{window}}}")).unwrap();
        let config = found.config;
        let shape = config.heads();
        assert_eq!(
            (config.n_layers, found.vocabulary),
            (n_layers, rows),
            "{model_type}"
        );
        assert_eq!(
            [config.d_model, config.d_ff, shape.d_head],
            widths,
            "{model_type}"
        );
        assert_eq!([shape.n_heads, shape.n_kv_heads], heads, "{model_type}");
        assert_eq!(config.context, context, "{model_type}");
        assert_eq!((config.norm_epsilon, config.rope_base), (1e-6, 10_000.0));
        assert_eq!(config.untied_head, Some(true));
        let bias = (model_type == "qwen2").then_some(AttentionBias::QueryKeyValue);
        assert_eq!(config.attention_bias, bias);
        assert_eq!(
            config.query_key_norm,
            (model_type == "qwen3").then_some(true)
        );
        let said = &found.notes[0];
        assert!(
            said.contains("rms_norm_eps 1e-6") && said.contains("rope_theta 10000.0"),
            "{said}"
        );
    }
    // Widths of heads follow the other sizes, but not where the library has a number.
    let small = |model_type: &str| {
        let sizes = "\"hidden_size\": 64, \"num_attention_heads\": 4, \"num_key_value_heads\": 2";
        let json = format!("{{\"model_type\": {model_type:?}, {sizes}}}");
        described(&json).unwrap().config.heads().d_head
    };
    assert_eq!((small("llama"), small("qwen3")), (16, 128));
}

#[test]
fn both_spellings_of_rotary_angles_are_the_same() {
    let of = |fields: &str| {
        let config = described(&format!("{{\"model_type\": \"llama\", {fields}}}"))
            .unwrap()
            .config;
        (config.rope_base, config.rope_scaling)
    };
    let linear = Some(RopeScaling::Linear { factor: 4.0 });
    for fields in [
        r#""rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4}"#,
        r#""rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 4.0}"#,
        r#""rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500000}"#,
        r#""rope_theta": 500000.0, "rope_parameters": {"rope_type": "linear", "factor": 4.0}"#,
    ] {
        assert_eq!(of(fields), (5e5, linear), "{fields}");
    }
    for fields in [
        r#""rope_theta": 10000.0, "rope_scaling": null"#,
        r#""rope_scaling": {"rope_type": "default"}"#,
        r#""rope_parameters": {"rope_theta": 10000.0}"#,
    ] {
        assert_eq!(of(fields), (1e4, None), "{fields}");
    }
}

#[test]
fn a_window_that_holds_the_context_is_none() {
    let of = |fields: &str| described(&format!("{{\"model_type\": {fields}}}"));
    for fields in [
        r#""mistral", "max_position_embeddings": 4096"#,
        r#""mistral", "sliding_window": 8192, "max_position_embeddings": 8192"#,
        r#""qwen2", "sliding_window": 16, "use_sliding_window": false, "max_window_layers": 3"#,
        r#""qwen2", "sliding_window": null, "use_sliding_window": true"#,
    ] {
        assert!(of(fields).is_ok(), "{fields}");
    }
    for fields in [r#""mistral""#, r#""qwen3", "use_sliding_window": true"#] {
        let error = of(fields).unwrap_err().to_string();
        assert!(error.contains("sliding_window: found 4096"), "{error}");
    }
}

#[test]
fn texts_of_a_model_without_a_tokenizer_are_its_ids() {
    let file = tokenizer_of_ids(1234).into_bytes();
    let tokenizer = Tokenizer::from_bytes(Path::new("ids"), file).unwrap();
    assert_eq!(tokenizer.vocabulary_size(), 1234);
    assert_eq!(tokenizer.encode("17 4 1233"), [17, 4, 1233]);
    assert_eq!(tokenizer.encode("0 7"), [0, 7]);
    assert_eq!(tokenizer.decode(&[17, 4, 1233]).trim(), "17 4 1233");
    assert_eq!(tokenizer.encode(" 5  6"), [5, 0, 6]);
    assert_eq!(tokenizer.encode("1234"), [0]);
}
