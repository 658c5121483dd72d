//! `Metrics`: what the server counts, as text for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Counters of a server since it started, and what it does now.
#[derive(Debug, Default)]
pub struct Metrics {
    prompt_tokens: AtomicU64,
    drawn_tokens: AtomicU64,
    rounds: AtomicU64,
    waiting: AtomicUsize,
    running: AtomicUsize,
    connections: AtomicUsize,
    /// By status.
    answers: Mutex<BTreeMap<u16, u64>>,
}

impl Metrics {
    /// So many tokens of a prompt were read.
    pub fn read(&self, n: usize) {
        self.prompt_tokens.fetch_add(n as u64, Relaxed);
    }

    /// A token was drawn.
    pub fn drawn(&self) {
        self.drawn_tokens.fetch_add(1, Relaxed);
    }

    /// Every token that was underway has gone further.
    pub fn round(&self) {
        self.rounds.fetch_add(1, Relaxed);
    }

    /// So many texts have a slot.
    pub fn running(&self, n: usize) {
        self.running.store(n, Relaxed);
    }

    /// Places in the queue for `n` more texts, if then at most `most` wait; an empty queue takes any number.
    pub fn queue(self: &Arc<Self>, n: usize, most: usize) -> Option<Vec<Place>> {
        let longer = |waiting: usize| {
            let fits = waiting == 0 || waiting + n <= most;
            fits.then_some(waiting + n)
        };
        self.waiting.fetch_update(Relaxed, Relaxed, longer).ok()?;
        Some((0..n).map(|_| Place(self.clone())).collect())
    }

    /// A request was answered with this status.
    pub fn answered(&self, status: u16) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry(status).or_default() += 1;
    }

    /// A connection was opened; the guard closes it.
    pub fn connection(&self) -> Connection<'_> {
        self.connections.fetch_add(1, Relaxed);
        Connection(self)
    }

    /// In the text format of Prometheus.
    pub fn text(&self) -> String {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        let mut add = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
            let _ = writeln!(
                text,
                "# HELP nerve_{name} {help}\n# TYPE nerve_{name} {kind}"
            );
            for (labels, value) in values {
                let _ = writeln!(text, "nerve_{name}{labels} {value}");
            }
        };
        let one = |value: u64| [(String::new(), value)];
        let by_status = answers.iter();
        let by_status: Vec<_> = by_status
            .map(|(status, n)| (format!("{{status=\"{status}\"}}"), *n))
            .collect();
        add(
            "requests_total",
            "counter",
            "Requests that were answered, by status.",
            &by_status,
        );
        let read = self.prompt_tokens.load(Relaxed);
        add(
            "prompt_tokens_total",
            "counter",
            "Tokens of prompts that were read.",
            &one(read),
        );
        let drawn = self.drawn_tokens.load(Relaxed);
        add(
            "drawn_tokens_total",
            "counter",
            "Tokens that were drawn.",
            &one(drawn),
        );
        let rounds = self.rounds.load(Relaxed);
        let help = "Rounds, in each of which every token underway goes one step further.";
        add("rounds_total", "counter", help, &one(rounds));
        let waiting = self.waiting.load(Relaxed) as u64;
        add(
            "texts_waiting",
            "gauge",
            "Texts that wait for a slot.",
            &one(waiting),
        );
        let running = self.running.load(Relaxed) as u64;
        add(
            "texts_running",
            "gauge",
            "Texts that have a slot.",
            &one(running),
        );
        let open = self.connections.load(Relaxed) as u64;
        add(
            "connections",
            "gauge",
            "Connections that are open.",
            &one(open),
        );
        text
    }
}

/// A place in the queue, free again when it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Metrics>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connection<'a>(&'a Metrics);

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_written() {
        let metrics = Arc::new(Metrics::default());
        metrics.read(7);
        metrics.drawn();
        metrics.round();
        let places = metrics.queue(3, 2).unwrap();
        metrics.running(2);
        [200, 400, 200]
            .into_iter()
            .for_each(|it| metrics.answered(it));
        let open = metrics.connection();
        let text = metrics.text();
        for line in [
            "nerve_requests_total{status=\"200\"} 2",
            "nerve_requests_total{status=\"400\"} 1",
            "nerve_prompt_tokens_total 7",
            "nerve_drawn_tokens_total 1",
            "nerve_rounds_total 1",
            "nerve_texts_waiting 3",
            "nerve_texts_running 2",
            "nerve_connections 1",
            "# TYPE nerve_connections gauge",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        }
        drop((open, places));
        assert!(metrics.text().contains("nerve_texts_waiting 0"));
        assert!(metrics.text().contains("nerve_connections 0"));
    }

    #[test]
    fn a_queue_has_as_many_places_as_it_says_and_takes_any_number_when_it_is_empty() {
        let metrics = Arc::new(Metrics::default());
        let many = metrics.queue(9, 4).unwrap();
        assert!(metrics.queue(1, 4).is_none());
        drop(many);
        let mut places = metrics.queue(3, 4).unwrap();
        assert!(metrics.queue(2, 4).is_none());
        places.extend(metrics.queue(1, 4).unwrap());
        assert!(metrics.queue(1, 4).is_none());
        places.pop();
        assert!(metrics.queue(1, 4).is_some());
    }
}
