//! Tests of descriptions, names and the tokenizer of ids.
