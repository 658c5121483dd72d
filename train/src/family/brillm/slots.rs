//! `Signals`: several texts that a graph reads, each a signal at a node. What is said is as in training: positions count on,
//! and a token may follow itself, so that every target has a probability.

use super::state::BriLlmState;
use crate::model::{Numbered, Said, Slots};
use brillm::generate::{Decoding, SignalState};
use std::sync::RwLockReadGuard;

/// The signals of several texts in one graph.
pub(super) struct Signals<'a> {
    graph: RwLockReadGuard<'a, BriLlmState>,
    texts: Numbered<Text>,
    begun: Vec<usize>,
}

#[derive(Default)]
struct Text {
    tokens: Vec<u32>,
    /// The signal at the last token that was read.
    signal: Option<SignalState>,
}

impl<'a> Signals<'a> {
    pub fn new(graph: RwLockReadGuard<'a, BriLlmState>) -> Self {
        Self {
            graph,
            texts: Numbered::default(),
            begun: Vec::new(),
        }
    }
}

/// Follows the edge to a token, or starts there.
fn follow(graph: &BriLlmState, signal: &mut Option<SignalState>, token: u32) {
    match signal {
        Some(signal) => signal.advance(&graph.model, Decoding::NATIVE, token),
        None => *signal = Some(SignalState::start(&graph.model, token)),
    }
}

/// What is said behind a signal.
fn said(graph: &BriLlmState, signal: &SignalState) -> Said {
    let n_nodes = graph.model.graph.nodes();
    let mut said = Said {
        logits: vec![f32::NEG_INFINITY; n_nodes],
        energies: vec![f32::NEG_INFINITY; n_nodes],
        ..Said::default()
    };
    for candidate in signal.candidates(&graph.model, &graph.evaluation, Decoding::NATIVE) {
        let target = candidate.target as usize;
        (said.logits[target], said.energies[target]) = (candidate.score, candidate.energy);
    }
    said
}

impl Slots for Signals<'_> {
    fn keeps(&self) -> bool {
        true
    }

    fn open(&mut self) -> usize {
        self.texts.open(Text::default())
    }

    fn tokens(&self, slot: usize) -> &[u32] {
        &self.texts.get(slot).tokens
    }

    fn read(&mut self, slot: usize, tokens: &[u32], n_wanted: usize) -> Vec<Said> {
        let graph: &BriLlmState = &self.graph;
        let text = self.texts.get_mut(slot);
        // A text that was cut back is read again.
        let first = match text.signal {
            Some(_) => text.tokens.len(),
            None => 0,
        };
        text.tokens.extend_from_slice(tokens);
        let unread = &text.tokens[first..];
        assert!(
            (1..=unread.len()).contains(&n_wanted),
            "{n_wanted} of {} tokens",
            unread.len()
        );
        let first_wanted = unread.len() - n_wanted;
        let signal = &mut text.signal;
        let mut found = Vec::with_capacity(n_wanted);
        // Inside the pool, so that its threads stay awake between two tokens.
        rayon::scope(|_| {
            for (place, &token) in unread.iter().enumerate() {
                follow(graph, signal, token);
                if let (true, Some(signal)) = (place >= first_wanted, &signal) {
                    found.push(said(graph, signal));
                }
            }
        });
        found
    }

    fn begin(&mut self, slot: usize, token: u32) {
        self.texts.get_mut(slot).tokens.push(token);
        self.begun.push(slot);
    }

    fn round(&mut self) -> Vec<(usize, Said)> {
        let begun = std::mem::take(&mut self.begun);
        let graph: &BriLlmState = &self.graph;
        let texts = &mut self.texts;
        rayon::scope(|_| {
            let go = |slot: usize| {
                let Text { tokens, signal } = texts.get_mut(slot);
                let token = *tokens.last().expect("a token was begun");
                follow(graph, signal, token);
                (slot, said(graph, signal.as_ref().expect("a signal")))
            };
            begun.into_iter().map(go).collect()
        })
    }

    fn truncate(&mut self, slot: usize, length: usize) {
        let text = self.texts.get_mut(slot);
        text.tokens.truncate(length);
        text.signal = None;
    }

    fn close(&mut self, slot: usize) {
        self.begun.retain(|&begun| begun != slot);
        self.texts.close(slot);
    }
}
