//! `Completion`: a request for completions, read from JSON field by field. What is not known, or would change the answer and is
//! not there, is refused by its name; nothing is ignored but what has no effect.

use super::refusal::{Refusal, shown};
use super::served::{Prompt, Served};
use axum::http::StatusCode;
use serde_json::{Map, Value};

/// The most texts of one request: prompts times continuations.
pub const MOST_TEXTS: usize = 256;
/// The most likely tokens that are named in the place of each.
const MOST_LIKELY: usize = 20;
/// The most strings that end a text.
const MOST_STOPS: usize = 64;
/// The longest string that ends a text, in bytes.
const LONGEST_STOP: usize = 1024;
/// Tokens that are drawn where the request does not say.
const TOKENS: usize = 16;
/// The seed where the request does not say: an answer is the same whenever it is asked for.
const SEED: u64 = 1;

/// What is to be completed, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The prompts.
    pub prompts: Vec<Prompt>,
    /// Continuations of each.
    pub n: usize,
    /// The most tokens of each.
    pub max_tokens: usize,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Only so many of the likeliest tokens compete; 0 for all.
    pub top_k: usize,
    /// Only the likeliest with this share of the probability compete.
    pub top_p: f64,
    /// Only tokens with this share of the likeliest one's probability compete.
    pub min_p: f64,
    /// Decides the draws.
    pub seed: u64,
    /// Strings that end a text, without them.
    pub stop: Vec<String>,
    /// Whether the prompt is part of the answer.
    pub echo: bool,
    /// How many likely tokens are named for each; none for no logarithm.
    pub logprobs: Option<usize>,
    /// Whether the end of a document ends a text.
    pub stops_at_end: bool,
    /// Whether walks or energies are part of the answer.
    pub return_routes: bool,
    /// Whether the answer comes in pieces, and whether the last one counts tokens.
    pub stream: Option<Stream>,
}

/// An answer in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Whether the last piece counts tokens.
    pub counts: bool,
}

/// The fields of a request, each taken once.
pub struct Fields(Map<String, Value>);

impl Fields {
    /// The fields of a JSON object.
    ///
    /// # Errors
    /// If it is none.
    pub fn of(value: Value) -> Result<Self, Refusal> {
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(Refusal::whole(
                StatusCode::BAD_REQUEST,
                "invalid_json",
                format!("body: found {}, expected a JSON object", shown(&other)),
            )),
        }
    }

    /// That no field is left.
    ///
    /// # Errors
    /// The first that is.
    pub fn nothing_else(&self) -> Result<(), Refusal> {
        match self.0.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((name, value)) => {
                let name = crate::escape::terminal(&crate::text::beginning(name, 60));
                let expected = "no such field: it is not known, and could change the answer";
                Err(Refusal::field(name, shown(value), expected))
            }
        }
    }

    /// A field that has to be there.
    ///
    /// # Errors
    /// If it is not.
    pub fn require(&mut self, name: &str, expected: &str) -> Result<Value, Refusal> {
        self.take(name)
            .ok_or_else(|| Refusal::field(name, "nothing", expected))
    }

    /// A field that is there and not `null`.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// A field, or what stands for it.
    ///
    /// # Errors
    /// If it is something else.
    pub fn read<T>(
        &mut self,
        name: &str,
        absent: T,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, Refusal> {
        match self.take(name) {
            None => Ok(absent),
            Some(value) => {
                read(&value).ok_or_else(|| Refusal::field(name, shown(&value), expected))
            }
        }
    }

    fn number(
        &mut self,
        name: &str,
        absent: f64,
        expected: &str,
        holds: impl Fn(f64) -> bool,
    ) -> Result<f64, Refusal> {
        self.read(name, absent, expected, |value| {
            value.as_f64().filter(|number| holds(*number))
        })
    }

    fn count(
        &mut self,
        name: &str,
        absent: usize,
        expected: &str,
        holds: impl Fn(u64) -> bool,
    ) -> Result<usize, Refusal> {
        self.read(name, absent, expected, |value| {
            let count = value.as_u64().filter(|count| holds(*count))?;
            usize::try_from(count).ok()
        })
    }

    /// A field that is true or false, and what it is if it is not there.
    ///
    /// # Errors
    /// If it is something else.
    pub fn flag(&mut self, name: &str, absent: bool) -> Result<bool, Refusal> {
        self.read(name, absent, "true or false", Value::as_bool)
    }
}

impl Completion {
    /// Reads a request.
    ///
    /// # Errors
    /// The first field that is wrong or not known.
    pub fn read(value: Value, served: &Served) -> Result<Self, Refusal> {
        let mut fields = Fields::of(value)?;
        served.check_model(fields.take("model").as_ref())?;
        let prompt = fields.require("prompt", PROMPT)?;
        let n = fields.count("n", 1, "a number from 1 to 256", |n| {
            (1..=MOST_TEXTS as u64).contains(&n)
        })?;
        let completion = Self {
            prompts: prompts(&prompt, n, served)?,
            n,
            max_tokens: fields.count("max_tokens", TOKENS, "a number of at least 0", |_| true)?,
            temperature: fields.number(
                "temperature",
                1.0,
                "a number of at least 0",
                |temperature| temperature >= 0.0 && temperature.is_finite(),
            )?,
            top_k: fields.read("top_k", 0, "a number of tokens; 0 or -1 for all", |value| {
                match value.as_i64() {
                    Some(-1) => Some(0),
                    _ => usize::try_from(value.as_u64()?).ok(),
                }
            })?,
            top_p: fields.number("top_p", 1.0, "a number above 0 and at most 1", |top_p| {
                top_p > 0.0 && top_p <= 1.0
            })?,
            min_p: fields.number("min_p", 0.0, "a number from 0 to 1", |min_p| {
                (0.0..=1.0).contains(&min_p)
            })?,
            seed: fields.read("seed", SEED, "a whole number", |value| {
                value.as_u64().or_else(|| Some(value.as_i64()? as u64))
            })?,
            stop: stops(fields.take("stop"))?,
            echo: fields.flag("echo", false)?,
            logprobs: logprobs(fields.take("logprobs"))?,
            stops_at_end: !fields.flag("ignore_eos", false)?,
            return_routes: fields.flag("return_routes", false)?,
            stream: stream(fields.flag("stream", false)?, fields.take("stream_options"))?,
        };
        neutral(&mut fields)?;
        fields.nothing_else()?;
        Ok(completion)
    }
}

/// Fields that would change the answer and are not there are taken where they ask for nothing; the name of the user has no
/// effect.
fn neutral(fields: &mut Fields) -> Result<(), Refusal> {
    for penalty in ["presence_penalty", "frequency_penalty"] {
        fields.number(penalty, 0.0, "0: there are no penalties", |it| it == 0.0)?;
    }
    fields.number(
        "repetition_penalty",
        1.0,
        "1: there are no penalties",
        |it| it == 1.0,
    )?;
    fields.number("best_of", 1.0, "1: all continuations are given", |it| {
        it == 1.0
    })?;
    fields.read("logit_bias", (), "nothing: there are no biases", |bias| {
        bias.as_object()?.is_empty().then_some(())
    })?;
    fields.read(
        "suffix",
        (),
        "nothing: texts go on at their end",
        |suffix| suffix.as_str()?.is_empty().then_some(()),
    )?;
    fields.read("user", (), "a text", |user| user.as_str().map(drop))
}

const PROMPT: &str = "a text, a list of texts, a list of token ids or a list of such lists";

fn prompts(value: &Value, n: usize, served: &Served) -> Result<Vec<Prompt>, Refusal> {
    let wrong = || Refusal::field("prompt", shown(value), PROMPT);
    let several = |values: &[Value], read: &dyn Fn(&Value, String) -> Result<Prompt, Refusal>| {
        if values.len() * n > MOST_TEXTS {
            let found = format!("{} prompts, each {n} times", values.len());
            let expected = format!("at most {MOST_TEXTS} texts in one request");
            return Err(Refusal::field("prompt", found, expected));
        }
        let places = values.iter().enumerate();
        places
            .map(|(place, value)| read(value, format!("prompt[{place}]")))
            .collect()
    };
    match value {
        Value::String(text) => Ok(vec![served.prompt_of_text(text, "prompt")?]),
        Value::Array(values) => match values.first() {
            Some(Value::String(_)) => several(values, &|value, field| match value {
                Value::String(text) => served.prompt_of_text(text, &field),
                other => Err(Refusal::field(field, shown(other), "a text, as the first")),
            }),
            Some(Value::Array(_)) => several(values, &|value, field| match value {
                Value::Array(ids) => of_ids(ids, &field, served),
                other => {
                    let expected = "a list of token ids, as the first";
                    Err(Refusal::field(field, shown(other), expected))
                }
            }),
            Some(Value::Number(_)) => Ok(vec![of_ids(values, "prompt", served)?]),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

fn of_ids(values: &[Value], field: &str, served: &Served) -> Result<Prompt, Refusal> {
    served.prompt_of_ids(token_ids(values, field, served)?, field)
}

/// Token ids of a vocabulary.
///
/// # Errors
/// The first that is none.
pub fn token_ids(values: &[Value], field: &str, served: &Served) -> Result<Vec<u32>, Refusal> {
    let vocabulary = served.vocabulary();
    let id = |(place, value): (usize, &Value)| {
        let id = value.as_u64().filter(|id| *id < vocabulary as u64);
        id.map(|id| id as u32).ok_or_else(|| {
            let expected = format!("a token id below {vocabulary}");
            Refusal::field(format!("{field}[{place}]"), shown(value), expected)
        })
    };
    values.iter().enumerate().map(id).collect()
}

fn stops(value: Option<Value>) -> Result<Vec<String>, Refusal> {
    let expected =
        format!("a text, or a list of at most {MOST_STOPS}, each of 1 to {LONGEST_STOP} bytes");
    let wrong = |value: &Value| Refusal::field("stop", shown(value), &expected);
    let values = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(values)) if values.len() <= MOST_STOPS => values,
        Some(text @ Value::String(_)) => vec![text],
        Some(other) => return Err(wrong(&other)),
    };
    let text = |value: &Value| {
        let text = value
            .as_str()
            .filter(|text| (1..=LONGEST_STOP).contains(&text.len()));
        text.map(str::to_string).ok_or_else(|| wrong(value))
    };
    values.iter().map(text).collect()
}

/// `true` is one, `false` none.
fn logprobs(value: Option<Value>) -> Result<Option<usize>, Refusal> {
    match value {
        None | Some(Value::Bool(false)) => Ok(None),
        Some(Value::Bool(true)) => Ok(Some(1)),
        Some(value) => match value.as_u64().filter(|n| *n <= MOST_LIKELY as u64) {
            Some(n) => Ok(Some(n as usize)),
            None => {
                let expected = format!("a number from 0 to {MOST_LIKELY}, true or false");
                Err(Refusal::field("logprobs", shown(&value), expected))
            }
        },
    }
}

fn stream(streams: bool, options: Option<Value>) -> Result<Option<Stream>, Refusal> {
    let mut counts = false;
    if let Some(options) = options {
        let Value::Object(options) = options else {
            return Err(Refusal::field(
                "stream_options",
                shown(&options),
                "an object",
            ));
        };
        let mut options = Fields(options);
        counts = options.flag("include_usage", false)?;
        options.flag("include_obfuscation", false)?;
        options.nothing_else()?;
        if !streams {
            let expected = "nothing without `stream`";
            return Err(Refusal::field("stream_options", "an object", expected));
        }
    }
    Ok(streams.then_some(Stream { counts }))
}
