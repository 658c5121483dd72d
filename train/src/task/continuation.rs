//! `Continuation`: how a text is continued: how many tokens, which may be drawn, what ends it; and the tokens that a prompt
//! begins with. The same for every model; the drawing lies elsewhere.

use crate::data::{StartRule, Tokenizer};
use crate::error::Problem;
use brian::generate::{Next, NotFinite, Sampling};
use serde::Serialize;
use std::path::Path;

/// The longest text of a model without a context, in tokens, where a text is answered as a whole.
pub const LONGEST: usize = 65_536;

/// How a text is continued.
#[derive(Clone, Debug, PartialEq)]
pub struct Continuation {
    /// The most tokens that are drawn, ends included.
    pub n_tokens: usize,
    /// The context length: of a longer text, a Transformer sees this many last tokens.
    pub context: usize,
    /// Ids from here on are rows of the model that no token has: they are never drawn.
    pub vocabulary: usize,
    /// How a token is drawn.
    pub sampling: Sampling,
    /// Ids that are never drawn, because training never predicts them: the start symbol and padding.
    pub never: Vec<u32>,
    /// Ids that end a document.
    pub ends: Vec<u32>,
    /// What happens after one of them.
    pub at_end: AtEnd,
}

/// What happens at the end of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    /// The continuation stops.
    Stop,
    /// Another document follows, after its start symbol if there is one that is not the end itself.
    GoOn(Option<u32>),
}

/// Why no more tokens were drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The document is over.
    End,
    /// As many tokens as were asked for.
    Length,
    /// No token can follow in this graph.
    NoCandidate,
    /// The receiver of the tokens wants no more.
    Refused,
}

/// The tokens that were drawn, and why there are no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The drawn tokens, ends of documents included.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub stop: StopReason,
}

impl Continuation {
    /// A continuation up to the end of the document, or up to `n_tokens` tokens.
    pub fn new(tokenizer: &Tokenizer, n_tokens: usize, context: usize, sampling: Sampling) -> Self {
        let ends = tokenizer.ends().to_vec();
        let specials = tokenizer.specials();
        let never = [tokenizer.start_symbol(), specials.pad];
        let never = never.into_iter().flatten().filter(|id| !ends.contains(id));
        Self {
            n_tokens,
            context,
            vocabulary: tokenizer.vocabulary_size(),
            sampling,
            never: never.collect(),
            ends,
            at_end: AtEnd::Stop,
        }
    }

    /// The same, but after the end of a document another one follows.
    pub fn beyond_ends(self, tokenizer: &Tokenizer, rule: StartRule) -> Self {
        let symbol = opening(tokenizer, rule).filter(|id| !self.ends.contains(id));
        Self {
            at_end: AtEnd::GoOn(symbol),
            ..self
        }
    }

    /// How the continuation goes on after a token.
    pub fn behind(&self, token: u32) -> Next {
        match (self.ends.contains(&token), self.at_end) {
            (false, _) | (true, AtEnd::GoOn(None)) => Next::GoOn,
            (true, AtEnd::GoOn(Some(symbol))) => Next::BehindToo(symbol),
            (true, AtEnd::Stop) => Next::Stop,
        }
    }
}

/// The token before a text that has no token yet: the start symbol, or in older runs the end of another document.
pub fn opening(tokenizer: &Tokenizer, rule: StartRule) -> Option<u32> {
    match rule {
        StartRule::Symbol => tokenizer.start_symbol(),
        StartRule::FirstToken => tokenizer.specials().end,
    }
}

/// The tokens of a prompt as in training: after the start symbol; in older runs alone, or after the end symbol if the prompt
/// is empty. If the tokenizer has no such symbol, nothing is put in front.
pub fn prompt_tokens<'a>(
    tokenizer: &Tokenizer,
    rule: StartRule,
    text: impl Iterator<Item = u32> + Send + 'a,
) -> impl Iterator<Item = u32> + Send + 'a {
    let mut text = text.peekable();
    let is_behind = rule == StartRule::Symbol || text.peek().is_none();
    let before = opening(tokenizer, rule).filter(|_| is_behind);
    before.into_iter().chain(text)
}

/// The tokens of a text as in training; if there are none, the first token of the vocabulary.
pub fn begun(tokenizer: &Tokenizer, rule: StartRule, text: &str) -> Vec<u32> {
    let text = tokenizer.encode(text).into_iter();
    let mut tokens: Vec<u32> = prompt_tokens(tokenizer, rule, text).collect();
    if tokens.is_empty() {
        tokens.push(tokenizer.start());
    }
    tokens
}

/// The problem of logits that cannot be drawn from.
pub fn not_finite(model: &Path, found: NotFinite) -> Problem {
    let NotFinite {
        drawn,
        id,
        value,
        count,
        of,
    } = found;
    let place = format!("logits of token {} of the continuation", drawn + 1);
    let found = format!("{value} for id {id}, {count} of {of} not finite");
    let advice = "the weights are finite and too large, for the training has diverged: take an earlier checkpoint";
    Problem::new(model, place, found, "finite numbers").advise(advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Kind;

    fn bytes() -> Tokenizer {
        Tokenizer::train(Kind::Byte, std::iter::empty(), None).unwrap()
    }

    #[test]
    fn a_prompt_stands_behind_the_start_symbol() {
        let tokenizer = bytes();
        let of = |rule, text: &str| -> Vec<u32> {
            prompt_tokens(&tokenizer, rule, tokenizer.encode(text).into_iter()).collect()
        };
        assert_eq!(of(StartRule::Symbol, "ab"), [256, 97, 98]);
        assert_eq!(of(StartRule::Symbol, ""), [256]);
        assert_eq!(of(StartRule::FirstToken, "ab"), [97, 98]);
        assert_eq!(of(StartRule::FirstToken, ""), [257]);
    }

    #[test]
    fn a_document_ends_or_is_followed_by_the_start_of_another() {
        let tokenizer = bytes();
        let symbol = StartRule::Symbol;
        let stops = Continuation::new(&tokenizer, 9, 4, Sampling::plain(1));
        assert_eq!(
            (&stops.never[..], &stops.ends[..]),
            (&[256, 258][..], &[257][..])
        );
        assert_eq!(
            (stops.behind(97), stops.behind(257)),
            (Next::GoOn, Next::Stop)
        );
        let goes_on = stops.clone().beyond_ends(&tokenizer, symbol);
        assert_eq!(goes_on.behind(257), Next::BehindToo(256));
        let old = stops.beyond_ends(&tokenizer, StartRule::FirstToken);
        assert_eq!(old.behind(257), Next::GoOn);
    }

    /// Bytes, and what others call an end of a document or of a turn.
    fn of_others() -> Tokenizer {
        let mut file: serde_json::Value = serde_json::from_slice(bytes().file()).unwrap();
        let added = file["added_tokens"].as_array_mut().unwrap();
        let mut more = added[0].clone();
        for (id, text) in (260..).zip(["<eos>", "<|else|>", "<|im_end|>"]) {
            more["id"] = serde_json::json!(id);
            more["content"] = serde_json::json!(text);
            added.push(more.clone());
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        std::fs::write(&path, file.to_string()).unwrap();
        Tokenizer::load(&path).unwrap()
    }

    #[test]
    fn every_name_of_an_end_ends_a_document() {
        let tokenizer = of_others();
        assert_eq!(tokenizer.ends(), [257, 260, 262]);
        let how = Continuation::new(&tokenizer, 9, 4, Sampling::plain(1));
        assert_eq!((how.n_tokens, how.context), (9, 4));
        assert_eq!(
            [260, 261, 262].map(|id| how.behind(id)),
            [Next::Stop, Next::GoOn, Next::Stop]
        );
    }

    #[test]
    fn a_text_begins_as_in_training() {
        let tokenizer = bytes();
        assert_eq!(begun(&tokenizer, StartRule::Symbol, "ab"), [256, 97, 98]);
        assert_eq!(begun(&tokenizer, StartRule::Symbol, ""), [256]);
        assert_eq!(begun(&tokenizer, StartRule::FirstToken, "ab"), [97, 98]);
        assert_eq!(begun(&tokenizer, StartRule::FirstToken, ""), [257]);
        // Where a tokenizer has neither symbol, nothing comes first; without any token the first of the vocabulary.
        let characters = ["b", "<unk>", "a"].map(str::to_string);
        let tokenizer = Tokenizer::of_characters(Path::new("vocab.json"), &characters).unwrap();
        for rule in [StartRule::Symbol, StartRule::FirstToken] {
            assert_eq!(begun(&tokenizer, rule, "ab"), [2, 0]);
            assert_eq!(begun(&tokenizer, rule, ""), [0]);
            assert_eq!(opening(&tokenizer, rule), None);
        }
        let how = Continuation::new(&tokenizer, 9, 4, Sampling::plain(1));
        assert_eq!((&how.never[..], &how.ends[..]), (&[][..], &[][..]));
    }

    #[test]
    fn the_place_of_what_cannot_be_drawn_counts_from_one() {
        let found = NotFinite {
            drawn: 2,
            id: 7,
            value: f32::NAN,
            count: 3,
            of: 9,
        };
        let said = not_finite(Path::new("m"), found).to_string();
        assert!(
            said.starts_with(
                "m: logits of token 3 of the continuation: found NaN for id 7, 3 of 9 not finite"
            ),
            "{said}"
        );
    }

    #[test]
    fn a_symbol_that_begins_and_ends_documents_is_drawn_and_stands_once_between_two() {
        let mut file: serde_json::Value = serde_json::from_slice(bytes().file()).unwrap();
        // A file of others may lack what ours has.
        file["added_tokens"][0]["content"] = serde_json::json!("<other>");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        std::fs::write(&path, file.to_string()).unwrap();
        let tokenizer = Tokenizer::load(&path).unwrap();
        assert_eq!(tokenizer.start_symbol(), Some(257));
        let how = Continuation::new(&tokenizer, 9, 4, Sampling::plain(1));
        assert_eq!((&how.never[..], &how.ends[..]), (&[258][..], &[257][..]));
        let beyond = how.beyond_ends(&tokenizer, StartRule::Symbol);
        assert_eq!(
            (beyond.at_end, beyond.behind(257)),
            (AtEnd::GoOn(None), Next::GoOn)
        );
        assert_eq!(begun(&tokenizer, StartRule::Symbol, "a"), [257, 97]);
    }
}
