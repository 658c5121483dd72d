//! `Served`: the model that is served as requests see it: its name, its tokenizer, how long texts may be.

use super::refusal::{Refusal, shown};
use crate::data::{StartRule, Tokenizer};
use crate::task::prompt_tokens;
use axum::http::StatusCode;
use serde_json::{Value, json};

/// A prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// As the model reads it: a text behind the start symbol as in training, ids as they come.
    pub tokens: Vec<u32>,
    /// As `echo` shows it.
    pub text: String,
}

/// What requests have to know of a model.
pub struct Served {
    /// Its name.
    pub name: String,
    /// Another name that it answers to: what was typed.
    pub alias: String,
    /// What `/v1/models` tells besides.
    pub facts: Value,
    /// Reads texts as in training.
    pub tokenizer: Tokenizer,
    /// The same, but special tokens that are spelled out become their ids.
    pub parsing: Tokenizer,
    /// What stands before a text.
    pub start: StartRule,
    /// The longest text, in tokens.
    pub context: usize,
    /// When serving began, in seconds since 1970.
    pub since: u64,
}

impl Served {
    /// That a request means this model.
    ///
    /// # Errors
    /// If it names another.
    pub fn check_model(&self, model: Option<&Value>) -> Result<(), Refusal> {
        let is_this = |name: &str| name == self.name || name == self.alias;
        match model {
            None => Ok(()),
            Some(Value::String(name)) if is_this(name) => Ok(()),
            Some(other) => Err(Refusal {
                status: StatusCode::NOT_FOUND,
                code: "model_not_found",
                ..Refusal::field("model", shown(other), format!("{:?}", self.name))
            }),
        }
    }

    /// Ids from 0 to here.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.vocabulary_size()
    }

    /// A text behind what stands before it in training.
    ///
    /// # Errors
    /// If it has no token or too many.
    pub fn prompt_of_text(&self, text: &str, field: &str) -> Result<Prompt, Refusal> {
        let tokens = self.tokenizer.encode(text).into_iter();
        let tokens = prompt_tokens(&self.tokenizer, self.start, tokens).collect();
        self.prompt(tokens, text.to_string(), field)
    }

    /// Ids as they come.
    ///
    /// # Errors
    /// As [`Self::prompt_of_text`].
    pub fn prompt_of_ids(&self, tokens: Vec<u32>, field: &str) -> Result<Prompt, Refusal> {
        let text = self.tokenizer.continued(&tokens);
        self.prompt(tokens, text, field)
    }

    fn prompt(&self, tokens: Vec<u32>, text: String, field: &str) -> Result<Prompt, Refusal> {
        if tokens.is_empty() {
            let expected = "at least one: nothing is put before a text here";
            return Err(Refusal::field(field, "no token", expected));
        }
        if tokens.len() > self.context {
            let found = format!("{} tokens", tokens.len());
            let expected = format!("at most {}, the context of the model", self.context);
            return Err(Refusal {
                code: "context_length_exceeded",
                ..Refusal::field(field, found, expected)
            });
        }
        Ok(Prompt { tokens, text })
    }

    /// How a token is spelled in answers: as in the tokenizer's file, so that two tokens never look the same.
    pub fn piece(&self, id: u32) -> String {
        let piece = self.tokenizer.token_text(id);
        match piece.is_empty() {
            true => format!("token_id:{id}"),
            false => piece,
        }
    }

    /// The entry of `/v1/models`.
    pub fn json(&self) -> Value {
        let mut entry = json!({
            "id": self.name, "object": "model", "created": self.since, "owned_by": "nerve",
            "max_model_len": self.context, "vocabulary": self.vocabulary(),
        });
        if let (Some(entry), Some(facts)) = (entry.as_object_mut(), self.facts.as_object()) {
            entry.extend(facts.clone());
        }
        entry
    }
}
