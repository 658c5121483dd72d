//! `Scorer`: how likely a model finds texts and how it goes on, with the tokens and the cuts of lm-eval 0.4.13.
//!
//! Spaces at the end of a context are part of what follows. Both are tokens of one text, cut behind as many as the context has
//! alone. Before a text without a context stands the start symbol. What is longer than the context, less a place for one token
//! that is drawn, loses its beginning. A long text is cut into windows, each behind one token of the one before.

use crate::characters::Characters;
use crate::data::Tokenizer;
use crate::model::Slots;
use crate::model::probabilities::Probabilities;
use crate::text::first_of;
use brian::generate::Sampling;

/// A model that is asked.
pub struct Scorer<'a> {
    /// Its texts.
    pub slots: &'a mut dyn Slots,
    /// Reads special tokens that are spelled out as these.
    pub tokenizer: &'a Tokenizer,
    /// The longest text.
    pub context: usize,
    /// Ids that are never drawn.
    pub never: &'a [u32],
    /// Texts that lost their beginning.
    pub n_cut: u64,
}

/// How likely some tokens are behind others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likelihood {
    /// The natural logarithm of their probability.
    pub ln: f64,
    /// Whether each is the likeliest in its place.
    pub is_greedy: bool,
}

/// Why a model says nothing of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silent {
    /// The logit of this id is not finite.
    NotFinite(usize),
    /// Nothing is put before texts, and this one has no context.
    NoStart,
    /// What is to be scored is longer than the context.
    TooLong(usize),
}

impl Silent {
    /// In words.
    pub fn found(&self) -> String {
        match self {
            Self::NotFinite(id) => format!("logits that are not finite, that of token {id} first"),
            Self::NoStart => "no context, and the tokenizer has no start symbol".to_string(),
            Self::TooLong(n) => format!("{n} tokens to be scored at once"),
        }
    }
}

impl Scorer<'_> {
    /// How likely a text follows another.
    ///
    /// # Errors
    /// If the model says nothing of it.
    pub fn behind(&mut self, context: &str, text: &str) -> Result<Likelihood, Silent> {
        let (context, text) = self.tokens(context, text)?;
        self.score(&context, &text)
    }

    /// The tokens of a context and of what follows.
    fn tokens(&self, context: &str, text: &str) -> Result<(Vec<u32>, Vec<u32>), Silent> {
        if context.is_empty() {
            let text = self.tokenizer.encode(text);
            let start = self.tokenizer.start_symbol().ok_or(Silent::NoStart)?;
            return Ok(match text.first() == Some(&start) {
                true => (text[..1].to_vec(), text[1..].to_vec()),
                false => (vec![start], text),
            });
        }
        let bare = context.trim_end_matches(is_space);
        let whole = self.tokenizer.encode(&format!("{context}{text}"));
        let context = self.tokenizer.encode(bare);
        let text = whole.get(context.len()..).unwrap_or_default().to_vec();
        match context.is_empty() {
            // A context of spaces alone.
            true => Err(Silent::NoStart),
            false => Ok((context, text)),
        }
    }

    /// The most tokens that are read for a score: one less than the context.
    fn longest(&self) -> usize {
        self.context - 1
    }

    fn score(&mut self, context: &[u32], text: &[u32]) -> Result<Likelihood, Silent> {
        let all = [context, text].concat();
        let n_lost = all.len().saturating_sub(self.longest());
        if n_lost >= context.len() {
            return Err(Silent::TooLong(text.len()));
        }
        self.n_cut += u64::from(n_lost > 0);
        let (all, n_before) = (&all[n_lost..], context.len() - n_lost);
        let mut sum = Likelihood {
            ln: 0.0,
            is_greedy: true,
        };
        if text.is_empty() {
            return Ok(sum);
        }
        let slot = self.slots.open();
        let scored = self.add(&mut sum, slot, all, n_before);
        self.slots.close(slot);
        scored.map(|()| sum)
    }

    /// Adds the logarithms of all tokens from `n_before` on.
    fn add(
        &mut self,
        sum: &mut Likelihood,
        slot: usize,
        all: &[u32],
        n_before: usize,
    ) -> Result<(), Silent> {
        let read = &all[..all.len() - 1];
        let mut end = 0;
        for piece in read.chunks(self.slots.chunk()) {
            let first = end;
            end += piece.len();
            // Behind the last token of the context stands the first that counts.
            let first_wanted = (n_before - 1).clamp(first, end - 1);
            let said = self.slots.read(slot, piece, end - first_wanted);
            for (place, said) in (first_wanted..end).zip(said) {
                if place + 1 < n_before {
                    continue;
                }
                let of = Probabilities::of(&said.logits).map_err(Silent::NotFinite)?;
                let ln = of.ln(all[place + 1]);
                sum.ln += ln;
                sum.is_greedy &= ln == of.likeliest(1)[0].1;
            }
        }
        Ok(())
    }

    /// The logarithm of the probability of a whole text.
    ///
    /// # Errors
    /// If the model says nothing of it.
    pub fn whole(&mut self, text: &str) -> Result<f64, Silent> {
        let tokens = self.tokenizer.encode(text);
        let start = self.tokenizer.start_symbol().ok_or(Silent::NoStart)?;
        let longest = self.longest() - 1;
        let mut ln = 0.0;
        let mut done = 0;
        while done < tokens.len() {
            let end = tokens.len().min(done + longest);
            // Of a later window the context reaches back as far as it may.
            let window = match done {
                0 => [&[start], &tokens[..end]].concat(),
                _ => tokens[end - longest - 1..end].to_vec(),
            };
            let n_before = window.len() - (end - done);
            ln += self.score(&window[..n_before], &window[n_before..])?.ln;
            done = end;
        }
        Ok(ln)
    }

    /// How a text goes on, up to a string, the end of the document or so many tokens.
    ///
    /// # Errors
    /// If the model says nothing of it.
    pub fn go_on(
        &mut self,
        prompt: &str,
        stop: &[String],
        max_tokens: usize,
    ) -> Result<String, Silent> {
        let mut tokens = self.tokenizer.encode(prompt);
        if tokens.is_empty() {
            tokens.push(self.tokenizer.start_symbol().ok_or(Silent::NoStart)?);
        }
        let longest = self.longest().saturating_sub(max_tokens).max(1);
        let n_lost = tokens.len().saturating_sub(longest);
        self.n_cut += u64::from(n_lost > 0);
        let tokens = &tokens[n_lost..];
        let slot = self.slots.open();
        let text = self.draw(slot, tokens, stop, max_tokens);
        self.slots.close(slot);
        text
    }

    fn draw(
        &mut self,
        slot: usize,
        prompt: &[u32],
        stop: &[String],
        max_tokens: usize,
    ) -> Result<String, Silent> {
        let mut said = None;
        for piece in prompt.chunks(self.slots.chunk()) {
            said = self.slots.read(slot, piece, 1).pop();
        }
        let mut said = said.expect("a prompt has a token");
        let greedy = Sampling {
            temperature: 0.0,
            ..Sampling::plain(0)
        };
        let (mut text, mut characters) = (String::new(), Characters::default());
        let vocabulary = self.tokenizer.vocabulary_size();
        let most = max_tokens.min(self.context + 1 - prompt.len());
        for step in 0..most {
            let drawn = said.draw(vocabulary, greedy, self.never, step);
            let Some(next) = drawn.map_err(Silent::NotFinite)? else {
                break;
            };
            text += &characters.add(self.tokenizer.bytes(next));
            if let Some(end) = first_of(&text, stop) {
                text.truncate(end);
                return Ok(text);
            }
            if self.tokenizer.ends().contains(&next) || step + 1 == most {
                break;
            }
            self.slots.begin(slot, next);
            said = std::iter::repeat_with(|| self.slots.round())
                .find_map(|mut through| through.pop())
                .expect("rounds come to an end")
                .1;
        }
        text += &characters.rest();
        if let Some(end) = first_of(&text, stop) {
            text.truncate(end);
        }
        Ok(text)
    }
}

/// White space as Python's `str.isspace` and `\s` have it.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Kind;
    use crate::model::{CHUNK, Said};

    /// A model of bytes that finds the byte after the last one likely, and keeps what it was asked.
    #[derive(Default)]
    struct Alphabet {
        tokens: Vec<u32>,
        underway: bool,
        reads: Vec<(Vec<u32>, usize)>,
    }

    const LIKELY: f32 = 4.0;

    fn said(last: u32) -> Said {
        let logit = |id: u32| if id == last + 1 { LIKELY } else { 0.0 };
        Said {
            logits: (0..260).map(logit).collect(),
            ..Said::default()
        }
    }

    impl Slots for Alphabet {
        fn keeps(&self) -> bool {
            true
        }

        fn open(&mut self) -> usize {
            self.tokens.clear();
            0
        }

        fn tokens(&self, _: usize) -> &[u32] {
            &self.tokens
        }

        fn read(&mut self, _: usize, tokens: &[u32], n_wanted: usize) -> Vec<Said> {
            self.reads.push((tokens.to_vec(), n_wanted));
            self.tokens.extend(tokens);
            let wanted = &self.tokens[self.tokens.len() - n_wanted..];
            wanted.iter().map(|&last| said(last)).collect()
        }

        fn begin(&mut self, _: usize, token: u32) {
            self.tokens.push(token);
            self.underway = true;
        }

        fn round(&mut self) -> Vec<(usize, Said)> {
            match std::mem::take(&mut self.underway) {
                true => vec![(0, said(*self.tokens.last().unwrap()))],
                false => Vec::new(),
            }
        }

        fn truncate(&mut self, _: usize, _: usize) {}

        fn close(&mut self, _: usize) {}
    }

    fn asked<R>(context: usize, ask: impl FnOnce(&mut Scorer<'_>) -> R) -> (R, Alphabet, u64) {
        let tokenizer = Tokenizer::train(Kind::Byte, std::iter::empty(), None).unwrap();
        let mut model = Alphabet::default();
        let mut scorer = Scorer {
            slots: &mut model,
            tokenizer: &tokenizer,
            context,
            never: &[256, 258],
            n_cut: 0,
        };
        let answer = ask(&mut scorer);
        let n_cut = scorer.n_cut;
        (answer, model, n_cut)
    }

    /// Logarithms of a likely and of an unlikely byte.
    fn lns() -> [f64; 2] {
        let total = f64::from(LIKELY).exp() + 259.0;
        [f64::from(LIKELY) - total.ln(), -total.ln()]
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} and {expected}");
    }

    #[test]
    fn only_what_follows_counts_and_spaces_before_it_do() {
        let [likely, unlikely] = lns();
        let (found, model, _) = asked(99, |it| it.behind("xa", "bcx").unwrap());
        near(found.ln, 2.0 * likely + unlikely);
        assert!(!found.is_greedy);
        // The last byte is not read, and nothing is wanted of the first.
        assert_eq!(model.reads, [(b"xabc".map(u32::from).to_vec(), 3)]);
        assert!(asked(99, |it| it.behind("xa", "bc").unwrap()).0.is_greedy);
        // A space at the end of the context is scored.
        near(
            asked(99, |it| it.behind("a ", "!").unwrap()).0.ln,
            unlikely + likely,
        );
        // Behind the start symbol nothing is likely.
        near(
            asked(99, |it| it.behind("", "ab").unwrap()).0.ln,
            unlikely + likely,
        );
        assert_eq!(
            asked(99, |it| it.behind("a", "").unwrap()).0,
            Likelihood {
                ln: 0.0,
                is_greedy: true
            }
        );
        assert_eq!(asked(99, |it| it.behind("  ", "a")).0, Err(Silent::NoStart));
    }

    #[test]
    fn what_is_too_long_loses_its_beginning() {
        let [likely, _] = lns();
        // A place is left for a token that is drawn: four bytes are scored, and three of them are read.
        let (found, model, n_cut) = asked(5, |it| it.behind("xyab", "cd").unwrap());
        near(found.ln, 2.0 * likely);
        assert_eq!(
            (n_cut, model.reads),
            (1, vec![(b"abc".map(u32::from).to_vec(), 2)])
        );
        let too_long = asked(5, |it| it.behind("a", "bcde")).0;
        assert_eq!(too_long, Err(Silent::TooLong(4)));
    }

    #[test]
    fn windows_of_a_long_text_count_every_byte_once() {
        let [likely, unlikely] = lns();
        let text: String = ('a'..='z').collect();
        for context in [4, 5, 9, 27, 28, 29, 99] {
            let (found, model, _) = asked(context, |it| it.whole(&text).unwrap());
            // The first is behind the start symbol, all others behind a byte.
            near(found, unlikely + 25.0 * likely);
            let longest = model.reads.iter().map(|(read, _)| read.len()).max();
            assert!(longest.unwrap() < context - 1, "{context}");
        }
        assert_eq!(asked(9, |it| it.whole("").unwrap()).0, 0.0);
    }

    #[test]
    fn long_contexts_are_read_in_chunks_of_which_the_last_is_wanted() {
        let context = "x".repeat(CHUNK + 10);
        let (found, model, _) = asked(9999, |it| it.behind(&context, "yz").unwrap());
        let [likely, _] = lns();
        near(found.ln, 2.0 * likely);
        let reads: Vec<_> = model
            .reads
            .iter()
            .map(|(read, n)| (read.len(), *n))
            .collect();
        assert_eq!(reads, [(CHUNK, 1), (11, 2)]);
        // What counts begins at the border of a chunk, or beside it.
        for n in [CHUNK - 1, CHUNK, CHUNK + 1] {
            let context = "x".repeat(n);
            let (found, _, _) = asked(9999, |it| it.behind(&context, "yz").unwrap());
            near(found.ln, 2.0 * likely);
        }
    }

    #[test]
    fn a_text_goes_on_to_a_string_or_to_its_length() {
        let stop = |text: &str| vec![text.to_string()];
        let (text, _, _) = asked(99, |it| it.go_on("a", &[], 4).unwrap());
        assert_eq!(text, "bcde");
        let (text, _, _) = asked(99, |it| it.go_on("a", &stop("de"), 9).unwrap());
        assert_eq!(text, "bc");
        // Room for the prompt's last two bytes and what is drawn.
        let (text, model, n_cut) = asked(6, |it| it.go_on("xxxma", &[], 3).unwrap());
        assert_eq!((text.as_str(), n_cut), ("bcd", 1));
        assert_eq!(model.reads[0].0, b"ma".map(u32::from));
    }
}
