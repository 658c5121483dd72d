//! A tokenizer of plain numbers, for a model whose own tokenizer is not there: the text `17 4 92` is the ids 17, 4 and 92.
//!
//! It is a file as others have it, every number behind a space a token of its own, so that Python's `tokenizers` reads it too.

use serde_json::{Map, json};

/// A `tokenizer.json` of so many ids. What is no number below is read as id 0, and id 0 is not printed.
pub fn tokenizer_of_ids(vocabulary: usize) -> String {
    let token = |id: usize| format!("Ġ{id}");
    let all: Map<_, _> = (0..vocabulary).map(|id| (token(id), json!(id))).collect();
    let level = json!({
        "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true
    });
    let unknown = json!({
        "id": 0, "content": token(0), "special": true, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false
    });
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [unknown], "normalizer": null,
        "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": token(0), "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": false, "ignore_merges": true,
            "vocab": all, "merges": []
        }
    });
    file.to_string()
}
