//! `Choice`: a text on its way from tokens to an answer: its characters, where a string ends it, its logarithms and routes.

use super::engine::{Event, Reason, Token};
use super::refusal::Refusal;
use super::request::Completion;
use super::served::{Prompt, Served};
use crate::characters::Characters;
use crate::text::first_of;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc::UnboundedReceiver;

/// What stands for a logarithm of no probability at all, which JSON has no number for.
const NO_PROBABILITY: f64 = -9999.0;

/// A text on its way.
pub struct Choice {
    index: usize,
    prompt: Prompt,
    request: Arc<Completion>,
    served: Arc<Served>,
    events: UnboundedReceiver<Event>,
    characters: Characters,
    /// Characters that may be the beginning of a string that ends the text.
    held: String,
    /// Characters of the text before `held`.
    n_released: usize,
    /// Tokens that begin in what is held, and where.
    pending: VecDeque<Listed>,
    is_begun: bool,
    finish: Option<&'static str>,
    n_drawn: usize,
}

/// A token of an answer.
struct Listed {
    token: Token,
    /// Characters of the text before it.
    offset: usize,
}

/// Some more of a text.
#[derive(Default)]
pub struct Piece {
    text: String,
    tokens: Vec<Listed>,
    finish: Option<&'static str>,
}

impl Choice {
    /// Before the first event.
    pub fn new(
        index: usize,
        prompt: Prompt,
        request: Arc<Completion>,
        served: Arc<Served>,
        events: UnboundedReceiver<Event>,
    ) -> Self {
        Self {
            index,
            prompt,
            request,
            served,
            events,
            characters: Characters::default(),
            held: String::new(),
            n_released: 0,
            pending: VecDeque::new(),
            is_begun: false,
            finish: None,
            n_drawn: 0,
        }
    }

    /// Its place in the answer.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Tokens that were drawn.
    pub fn n_drawn(&self) -> usize {
        self.n_drawn
    }

    /// Whether nothing will come any more.
    pub fn is_over(&self) -> bool {
        self.finish.is_some()
    }

    /// Some more of the text.
    ///
    /// # Errors
    /// If the model can say nothing.
    pub fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<Piece, Refusal>> {
        loop {
            let mut piece = Piece::default();
            let event = ready!(self.events.poll_recv(context));
            match event {
                Some(Event::Read(token)) => {
                    let offset = self.n_characters();
                    self.n_released += self.characters_of(token.id).chars().count();
                    piece.tokens.push(Listed { token, offset });
                }
                Some(Event::Drawn(token)) => {
                    self.begin(&mut piece);
                    self.n_drawn += 1;
                    let (id, offset) = (token.id, self.n_characters());
                    self.pending.push_back(Listed { token, offset });
                    let text = self.characters_of(id);
                    self.held.push_str(&text);
                    self.release(&mut piece, None);
                }
                Some(Event::End(reason)) => {
                    self.begin(&mut piece);
                    let rest = self.characters.rest();
                    self.held.push_str(&rest);
                    self.release(&mut piece, Some(reason));
                }
                Some(Event::NotFinite(id)) => return Poll::Ready(Err(not_finite(id))),
                None => return Poll::Ready(Err(gone())),
            }
            let is_something = !piece.text.is_empty() || !piece.tokens.is_empty();
            if is_something || piece.finish.is_some() {
                return Poll::Ready(Ok(piece));
            }
        }
    }

    fn characters_of(&mut self, id: u32) -> String {
        let bytes = self.served.tokenizer.bytes(id);
        self.characters.add(bytes)
    }

    fn n_characters(&self) -> usize {
        self.n_released + self.held.chars().count()
    }

    /// The end of the prompt, which is part of the answer or not.
    fn begin(&mut self, piece: &mut Piece) {
        if std::mem::replace(&mut self.is_begun, true) {
            return;
        }
        self.characters = Characters::default();
        self.n_released = 0;
        if self.request.echo {
            piece.text.push_str(&self.prompt.text);
            self.n_released = self.prompt.text.chars().count();
        }
    }

    /// Moves to the piece what no string can end any more; all of it at the end.
    fn release(&mut self, piece: &mut Piece, end: Option<Reason>) {
        let stops = &self.request.stop;
        let hit = first_of(&self.held, stops);
        let n_bytes = match (hit, end) {
            (Some(place), _) => {
                self.finish = Some("stop");
                // Nobody needs what is drawn behind it.
                self.events.close();
                place
            }
            (None, Some(reason)) => {
                self.finish = Some(match reason {
                    Reason::Stop => "stop",
                    Reason::Length => "length",
                });
                self.held.len()
            }
            (None, None) => {
                let kept = stops.iter().map(|stop| overlap(&self.held, stop)).max();
                self.held.len() - kept.unwrap_or(0)
            }
        };
        let rest = self.held.split_off(n_bytes);
        let text = std::mem::replace(&mut self.held, rest);
        self.n_released += text.chars().count();
        piece.text.push_str(&text);
        piece.finish = self.finish;
        let is_out = |listed: &Listed| listed.offset < self.n_released;
        let goes = |listed: &Listed| match hit {
            Some(_) => is_out(listed),
            None => is_out(listed) || end.is_some() || self.held.is_empty(),
        };
        while self.pending.front().is_some_and(&goes) {
            piece.tokens.extend(self.pending.pop_front());
        }
    }
}

/// The longest end of a text that a string may begin with, in bytes.
fn overlap(text: &str, stop: &str) -> usize {
    let ends = (1..stop.len().min(text.len() + 1)).rev();
    let ends = ends.filter(|&n| stop.is_char_boundary(n));
    let mut fitting = ends.filter(|&n| text.ends_with(&stop[..n]));
    fitting.next().unwrap_or(0)
}

fn not_finite(id: usize) -> Refusal {
    let message = format!(
        "the model's logits are not finite, that of token {id} first: its training has diverged; serve an earlier checkpoint"
    );
    Refusal::whole(StatusCode::INTERNAL_SERVER_ERROR, "not_finite", message)
}

fn gone() -> Refusal {
    let message = "the server is shutting down";
    Refusal::whole(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message)
}

impl Piece {
    /// Puts another piece of the same text behind this one.
    pub fn append(&mut self, other: Self) {
        self.text.push_str(&other.text);
        self.tokens.extend(other.tokens);
        self.finish = other.finish.or(self.finish);
    }

    /// As an entry of `choices`.
    pub fn json(&self, index: usize, request: &Completion, served: &Served) -> Value {
        let mut choice = json!({
            "index": index,
            "text": self.text,
            "logprobs": request.logprobs.map(|_| self.logprobs(served)),
            "finish_reason": self.finish,
        });
        if request.return_routes {
            let tokens = self.tokens.iter().map(|listed| &listed.token);
            choice["routes"] = tokens.clone().map(|token| json!(token.path)).collect();
            if tokens.clone().any(|token| token.energy.is_some()) {
                choice["energies"] = tokens.map(|token| json!(token.energy)).collect();
            }
        }
        choice
    }

    fn logprobs(&self, served: &Served) -> Value {
        let tokens = self.tokens.iter();
        let likeliest = |token: &Token| -> Value {
            let Some(ln) = token.ln else {
                return Value::Null;
            };
            let all = token.likeliest.iter().copied().chain([(token.id, ln)]);
            let all = all.map(|(id, ln)| (served.piece(id), number(ln)));
            Value::Object(all.collect())
        };
        json!({
            "tokens": tokens.clone().map(|of| served.piece(of.token.id)).collect::<Vec<_>>(),
            "token_logprobs": tokens.clone().map(|of| of.token.ln.map(number)).collect::<Vec<_>>(),
            "top_logprobs": tokens.clone().map(|of| likeliest(&of.token)).collect::<Vec<_>>(),
            "text_offset": tokens.map(|of| of.offset).collect::<Vec<_>>(),
        })
    }
}

fn number(ln: f64) -> Value {
    json!(ln.max(NO_PROBABILITY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_become_a_string_that_ends_the_text_is_held() {
        assert_eq!(overlap("abc", "cd"), 1);
        assert_eq!(overlap("abc", "bcd"), 2);
        assert_eq!(overlap("abc", "abc"), 0);
        assert_eq!(overlap("abc", "abcd"), 3);
        assert_eq!(overlap("xaa", "aab"), 2);
        assert_eq!(overlap("é", "éa"), 2);
        assert_eq!(overlap("a\u{e8}", "\u{e9}a"), 0);
        assert_eq!(overlap("", "a"), 0);
    }
}
