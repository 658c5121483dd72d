//! `routes`: what is answered under which path.

use super::answer::Answer;
use super::choice::Choice;
use super::engine::{Job, Scores};
use super::metrics::Metrics;
use super::refusal::{Refusal, shown};
use super::request::{Completion, Fields, token_ids};
use super::served::Served;
use crate::task::prompt_tokens;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use brian::generate::Sampling;
use brian::random;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

/// What every request is answered with.
pub struct Server {
    /// The model.
    pub served: Arc<Served>,
    /// To the model's thread.
    pub jobs: Sender<Job>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Bounds on requests.
    pub limits: Limits,
    /// Hashes of the keys, one of which a request has to bring; anybody is answered without any.
    pub keys: Vec<[u8; 32]>,
    /// Requests so far.
    pub n_requests: AtomicU64,
}

/// Bounds on requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Texts that may wait.
    pub queue: usize,
    /// How long a body may take to come.
    pub body_time: Duration,
    /// How long an answer may take.
    pub answer_time: Duration,
}

type Shared = State<Arc<Server>>;

/// All routes.
pub fn routes(server: Arc<Server>) -> Router {
    Router::new()
        .route(
            "/health",
            get(async || axum_json(&json!({ "status": "ok" }))),
        )
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .route("/tokenizer_info", get(tokenizer_info))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/v1/tokenizer_info", get(tokenizer_info))
        .route("/v1/tokenize", post(tokenize))
        .route("/v1/detokenize", post(detokenize))
        .fallback(async || {
            let message =
                "no such path; see /v1/models, /v1/completions, /tokenize, /health and /metrics";
            Refusal::whole(StatusCode::NOT_FOUND, "no_such_path", message)
        })
        .method_not_allowed_fallback(async || {
            let message = "this path has another method";
            Refusal::whole(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
        })
        .layer(middleware::from_fn_with_state(server.clone(), watched))
        .with_state(server)
}

fn axum_json(value: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (headers, value.to_string()).into_response()
}

/// Asks for the key and counts the answer.
async fn watched(State(server): Shared, request: Request, next: Next) -> Response {
    let is_open = server.keys.is_empty() || request.uri().path() == "/health";
    let response = match is_open || has_key(request.headers(), &server.keys) {
        true => next.run(request).await,
        false => {
            let message = "the header Authorization: Bearer KEY is missing, or the key is another";
            let refusal = Refusal::whole(StatusCode::UNAUTHORIZED, "wrong_key", message);
            refusal.into_response()
        }
    };
    server.metrics.answered(response.status().as_u16());
    response
}

/// Whether a request brings one of the keys. Hashes are compared, all of each, so that the time tells nothing about a key.
fn has_key(headers: &HeaderMap, keys: &[[u8; 32]]) -> bool {
    let given = headers.get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let given: [u8; 32] = Sha256::digest(given.unwrap_or_default()).into();
    let differs = |key: &[u8; 32]| {
        let pairs = key.iter().zip(&given);
        pairs.fold(0, |differs, (a, b)| differs | (a ^ b))
    };
    keys.iter()
        .fold(false, |found, key| found | (differs(key) == 0))
}

/// The body of a request as JSON.
async fn json_of(server: &Server, body: Body) -> Result<Value, Refusal> {
    let limit = server.limits.body_bytes;
    let read = timeout(server.limits.body_time, to_bytes(body, limit));
    let bytes = match read.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let message = format!(
                "body: found one that broke off or is longer, expected at most {limit} bytes"
            );
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Err(Refusal::whole(status, "body_too_large", message));
        }
        Err(_) => {
            let message = "body: it did not come in time";
            let status = StatusCode::REQUEST_TIMEOUT;
            return Err(Refusal::whole(status, "timeout", message));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let complaint = crate::text::json_complaint(&error);
        let (line, column) = (error.line(), error.column());
        let message = format!(
            "body: line {line}, column {column}: found {complaint}, expected a JSON object"
        );
        Refusal::whole(StatusCode::BAD_REQUEST, "invalid_json", message)
    })
}

/// Work on a text, on a thread that no other request waits for.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        let message = "this is a bug in nerve; please report it";
        Err(Refusal::whole(
            StatusCode::INTERNAL_SERVER_ERROR,
            "bug",
            message,
        ))
    })
}

async fn completions(State(server): Shared, body: Body) -> Result<Response, Refusal> {
    let value = json_of(&server, body).await?;
    let served = server.served.clone();
    let request = Arc::new(aside(move || Completion::read(value, &served)).await?);
    let answer = server.begin(request.clone())?;
    if request.stream.is_none() {
        return Ok(axum_json(&answer.whole().await?));
    }
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    Ok((headers, Body::new(answer.events())).into_response())
}

impl Server {
    /// Hands the texts of a request to the model.
    fn begin(&self, request: Arc<Completion>) -> Result<Answer, Refusal> {
        let n_texts = request.prompts.len() * request.n;
        let places = self.metrics.queue(n_texts, self.limits.queue);
        let mut places = places.ok_or_else(|| {
            let message = format!("{} texts wait already; ask again later", self.limits.queue);
            Refusal::whole(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
        })?;
        let has_scores = request.logprobs.is_some() || request.return_routes;
        let scores = Scores {
            prompt: request.echo && has_scores,
            n_likeliest: request.logprobs,
            routes: request.return_routes,
        };
        let mut choices = Vec::with_capacity(n_texts);
        for prompt in &request.prompts {
            for continuation in 0..request.n {
                let (events, heard) = unbounded_channel();
                let job = Job {
                    prompt: prompt.tokens.clone(),
                    n_tokens: request.max_tokens,
                    sampling: Sampling {
                        temperature: request.temperature,
                        top_k: request.top_k,
                        top_p: request.top_p,
                        min_p: request.min_p,
                        // As `nerve sample` draws them.
                        seed: random::key(request.seed, "continuation", continuation as u64),
                    },
                    stops_at_end: request.stops_at_end,
                    scores,
                    events,
                    place: places.pop(),
                };
                // If the model's thread is gone, the choice says so.
                let _ = self.jobs.send(job);
                let (request, served) = (request.clone(), self.served.clone());
                let prompt = prompt.clone();
                choices.push(Choice::new(choices.len(), prompt, request, served, heard));
            }
        }
        let number = self.n_requests.fetch_add(1, Ordering::Relaxed);
        let id = format!("cmpl-{:x}-{number:x}", self.served.since);
        let (served, limit) = (self.served.clone(), self.limits.answer_time);
        Ok(Answer::new(id, request, served, choices, limit))
    }
}

async fn models(State(server): Shared) -> Response {
    axum_json(&json!({ "object": "list", "data": [server.served.json()] }))
}

async fn metrics(State(server): Shared) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (headers, server.metrics.text()).into_response()
}

async fn chat() -> Refusal {
    let message = "this model's tokenizer brings no template of a chat; use /v1/completions";
    Refusal::whole(StatusCode::NOT_FOUND, "no_chat_template", message)
}

async fn tokenizer_info(State(server): Shared) -> Response {
    let served = &server.served;
    let specials = served.tokenizer.specials();
    let piece = |id: Option<u32>| id.map(|id| served.piece(id));
    let ends = served.tokenizer.ends().iter();
    let start = served.tokenizer.start_symbol();
    axum_json(&json!({
        "tokenizer_class": "tokenizer.json",
        "bos_token": piece(specials.begin), "bos_token_id": specials.begin,
        "eos_token": piece(specials.end), "eos_token_id": specials.end,
        "pad_token": piece(specials.pad), "pad_token_id": specials.pad,
        "unk_token": piece(specials.unknown), "unk_token_id": specials.unknown,
        "end_tokens": ends.map(|id| served.piece(*id)).collect::<Vec<_>>(),
        "start_of_texts": piece(start), "start_of_texts_id": start,
        "vocab_size": served.vocabulary(), "max_model_len": served.context,
        "sha256": served.tokenizer.sha256(), "chat_template": null,
    }))
}

async fn tokenize(State(server): Shared, body: Body) -> Result<Response, Refusal> {
    let mut fields = Fields::of(json_of(&server, body).await?)?;
    let served = server.served.clone();
    served.check_model(fields.take("model").as_ref())?;
    let prompt = match fields.require("prompt", "a text")? {
        Value::String(text) => text,
        other => return Err(Refusal::field("prompt", shown(&other), "a text")),
    };
    let adds = fields.flag("add_special_tokens", true)?;
    let names = fields.flag("return_token_strs", false)?;
    fields.nothing_else()?;
    let encoding = served.clone();
    let tokens: Vec<u32> = aside(move || {
        let text = encoding.parsing.encode(&prompt);
        Ok(match adds {
            false => text,
            true => prompt_tokens(&encoding.parsing, encoding.start, text.into_iter()).collect(),
        })
    })
    .await?;
    let pieces = names.then(|| {
        tokens
            .iter()
            .map(|id| served.piece(*id))
            .collect::<Vec<_>>()
    });
    Ok(axum_json(&json!({
        "count": tokens.len(), "max_model_len": served.context, "tokens": tokens, "token_strs": pieces,
    })))
}

async fn detokenize(State(server): Shared, body: Body) -> Result<Response, Refusal> {
    const IDS: &str = "a list of token ids";
    let mut fields = Fields::of(json_of(&server, body).await?)?;
    let served = server.served.clone();
    served.check_model(fields.take("model").as_ref())?;
    let tokens = match fields.require("tokens", IDS)? {
        Value::Array(values) => token_ids(&values, "tokens", &served)?,
        other => return Err(Refusal::field("tokens", shown(&other), IDS)),
    };
    fields.nothing_else()?;
    let text = aside(move || Ok(served.tokenizer.decode(&tokens))).await?;
    Ok(axum_json(&json!({ "prompt": text })))
}

/// The hash that a key is known by.
pub fn key_hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_whole_of_it_behind_bearer() {
        let keys = [key_hash("one"), key_hash("two")];
        let asked = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            has_key(&headers, &keys)
        };
        assert!(asked("Bearer one") && asked("Bearer two"));
        for wrong in [
            "one",
            "Bearer on",
            "Bearer onee",
            "Bearer ",
            "bearer one",
            "Basic one",
        ] {
            assert!(!asked(wrong), "{wrong}");
        }
        assert!(!has_key(&HeaderMap::new(), &keys));
    }
}
