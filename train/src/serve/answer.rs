//! `Answer`: the texts of one request on their way to a client, in one JSON object or in events that a server sends.

use super::choice::{Choice, Piece};
use super::refusal::Refusal;
use super::request::Completion;
use super::served::Served;
use axum::http::StatusCode;
use hyper::body::{Body, Bytes, Frame};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// The texts of one request. Dropped before its end, it gives them up.
pub struct Answer {
    id: String,
    request: Arc<Completion>,
    served: Arc<Served>,
    choices: Vec<Choice>,
    limit: Duration,
    /// When its time is over.
    end: Pin<Box<Sleep>>,
}

impl Answer {
    /// Before the first piece of any text.
    pub fn new(
        id: String,
        request: Arc<Completion>,
        served: Arc<Served>,
        choices: Vec<Choice>,
        limit: Duration,
    ) -> Self {
        Self {
            id,
            request,
            served,
            choices,
            limit,
            end: Box::pin(sleep(limit)),
        }
    }

    /// Some more of a text, by its index; nothing at the end of all.
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<(usize, Piece), Refusal>>> {
        if self.end.as_mut().poll(context).is_ready() {
            let message = format!("the answer took more than {} s", self.limit.as_secs());
            let status = StatusCode::REQUEST_TIMEOUT;
            return Poll::Ready(Some(Err(Refusal::whole(status, "timeout", message))));
        }
        for choice in self.choices.iter_mut().filter(|choice| !choice.is_over()) {
            if let Poll::Ready(piece) = choice.poll_piece(context) {
                let index = choice.index();
                return Poll::Ready(Some(piece.map(|piece| (index, piece))));
            }
        }
        match self.choices.iter().all(Choice::is_over) {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    }

    /// The whole answer.
    ///
    /// # Errors
    /// If the model can say nothing, or the time is over.
    pub async fn whole(mut self) -> Result<Value, Refusal> {
        let mut all: Vec<Piece> = self.choices.iter().map(|_| Piece::default()).collect();
        while let Some(next) = std::future::poll_fn(|context| self.poll_next(context)).await {
            let (index, piece) = next?;
            all[index].append(piece);
        }
        let texts = all.iter().enumerate();
        let choices = texts.map(|(index, text)| text.json(index, &self.request, &self.served));
        let mut object = self.object(choices.collect());
        object["usage"] = self.usage();
        Ok(object)
    }

    /// The answer in events.
    pub fn events(self) -> Events {
        Events {
            answer: self,
            ready: VecDeque::new(),
            is_over: false,
        }
    }

    fn object(&self, choices: Value) -> Value {
        json!({
            "id": self.id, "object": "text_completion", "created": self.served.since,
            "model": self.served.name, "choices": choices,
        })
    }

    fn usage(&self) -> Value {
        let prompts = self.request.prompts.iter();
        let n_prompt: usize = prompts.map(|prompt| prompt.tokens.len()).sum();
        let n_drawn: usize = self.choices.iter().map(Choice::n_drawn).sum();
        json!({
            "prompt_tokens": n_prompt, "completion_tokens": n_drawn, "total_tokens": n_prompt + n_drawn,
        })
    }
}

/// An answer in events, as the body of a response.
pub struct Events {
    answer: Answer,
    ready: VecDeque<Bytes>,
    is_over: bool,
}

impl Events {
    fn add(&mut self, data: &str) {
        self.ready.push_back(format!("data: {data}\n\n").into());
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let events = self.get_mut();
        loop {
            if let Some(ready) = events.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(ready))));
            }
            if events.is_over {
                return Poll::Ready(None);
            }
            let answer = &mut events.answer;
            let next = match answer.poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(next) => next,
            };
            match next {
                Some(Ok((index, piece))) => {
                    let choice = piece.json(index, &answer.request, &answer.served);
                    let data = answer.object(json!([choice])).to_string();
                    events.add(&data);
                }
                Some(Err(refusal)) => {
                    events.is_over = true;
                    events.add(&refusal.json().to_string());
                }
                None => {
                    events.is_over = true;
                    if answer.request.stream.is_some_and(|stream| stream.counts) {
                        let mut last = answer.object(json!([]));
                        last["usage"] = answer.usage();
                        events.add(&last.to_string());
                    }
                    events.add("[DONE]");
                }
            }
        }
    }
}
