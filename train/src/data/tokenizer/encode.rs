//! Encodes texts to token ids, with the bytes each id stands for; spelled-out special tokens are read as text or parsed.

use serde::{Deserialize, Serialize};

use super::super::cut::{Cut, space_end, word_end};
use super::check::Piece;
use super::half_width::half_width;
use super::span::spans;
use super::{Kind, Normalise, Tokenizer};

/// Long texts are encoded in chunks of at least this size, which bounds memory.
const CHUNK_BYTES: usize = 64 << 10;

/// The library keeps about a hundred bytes per byte of text that it encodes at once.
const GROUP_BYTES: usize = 1 << 20;

/// How a special token that is spelled out in a text is read; HTML, for example, has `<s>` and `</s>` too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum SpelledSpecials {
    /// Text like any other.
    #[default]
    Text,
    /// The special, as one id.
    Parse,
}

/// The ids of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The ids; no special token is added.
    pub ids: Vec<u32>,
    /// Tokens that stand for another number of bytes than `token_bytes` says, such as unknown characters and full-width
    /// forms: position in `ids`, rising, and bytes.
    pub spans: Vec<(u64, u64)>,
}

impl Encoded {
    /// The bytes of the source that each id stands for.
    pub fn bytes(&self, tokenizer: &Tokenizer) -> impl Iterator<Item = u64> {
        let mut spans = self.spans.iter().peekable();
        (0..).zip(&self.ids).map(
            move |(place, id)| match spans.next_if(|(at, _)| *at == place) {
                Some((_, bytes)) => *bytes,
                None => tokenizer.bytes(*id).len() as u64,
            },
        )
    }

    fn push(&mut self, id: u32, token_bytes: usize, bytes: usize) {
        if token_bytes != bytes {
            self.spans.push((self.ids.len() as u64, bytes as u64));
        }
        self.ids.push(id);
    }
}

impl Tokenizer {
    /// Sets how special tokens that are spelled out in a text are read; the default is as text.
    pub fn with_spelled_specials(mut self, rule: SpelledSpecials) -> Self {
        self.spelled_specials = rule;
        let as_text = rule == SpelledSpecials::Text;
        self.encoder.set_encode_special_tokens(as_text);
        self
    }

    /// How special tokens that are spelled out in a text are read.
    pub fn spelled_specials(&self) -> SpelledSpecials {
        self.spelled_specials
    }

    /// How often special tokens are spelled out in a text.
    pub fn count_spelled(&self, text: &str) -> u64 {
        let mut rest = text;
        let mut count = 0;
        while let Some((_, end, _)) = self.next_added(rest, |added| added.is_special) {
            count += 1;
            rest = &rest[end..];
        }
        count
    }

    /// The ids of a text; no special token is added.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut all = self.encode_all(&[text]);
        all.pop().expect("one text gives one list")
    }

    /// The ids of several texts, in parallel where that helps.
    pub fn encode_all<S: AsRef<str>>(&self, texts: &[S]) -> Vec<Vec<u32>> {
        let all = self.encode_spans(texts).into_iter();
        all.map(|encoded| encoded.ids).collect()
    }

    /// The ids of several texts, with the bytes that they stand for, in parallel where that helps.
    pub fn encode_spans<S: AsRef<str>>(&self, texts: &[S]) -> Vec<Encoded> {
        match self.checked.kind {
            Kind::Byte | Kind::Character => {
                let texts = texts.iter();
                texts.map(|text| self.encode_each(text.as_ref())).collect()
            }
            _ => self.encode_pieces(texts),
        }
    }

    /// Where a text can be cut so that its parts get the same ids as the whole.
    pub fn cut(&self) -> Cut {
        match self.checked.kind {
            Kind::Byte | Kind::Character => Cut::Lines,
            _ => self.checked.cut,
        }
    }

    /// For kinds that need no context.
    fn encode_each(&self, text: &str) -> Encoded {
        let mut encoded = Encoded::default();
        let mut rest = text;
        let parses = self.spelled_specials == SpelledSpecials::Parse;
        while let Some((start, end, id)) =
            self.next_added(rest, |added| parses || !added.is_special)
        {
            self.encode_plain(&rest[..start], &mut encoded);
            encoded.push(id, 0, end - start);
            rest = &rest[end..];
        }
        self.encode_plain(rest, &mut encoded);
        encoded
    }

    fn encode_plain(&self, text: &str, encoded: &mut Encoded) {
        if self.checked.kind == Kind::Byte {
            encoded.ids.extend(text.bytes().map(u32::from));
            return;
        }
        for c in text.chars() {
            let read = match self.checked.normalise {
                Normalise::HalfWidth => half_width(c),
                _ => c,
            };
            // A tokenizer of characters has one.
            let unknown = self.checked.unknown.unwrap_or_default();
            let id = self.character_ids.get(&read).copied().unwrap_or(unknown);
            encoded.push(id, self.bytes(id).len(), c.len_utf8());
        }
    }

    /// The first added token of some kind that is spelled out in a text: its start, its end and its id.
    fn next_added(
        &self,
        text: &str,
        is_wanted: impl Fn(&Piece) -> bool,
    ) -> Option<(usize, usize, u32)> {
        let starts = text.char_indices();
        let mut starts = starts.filter(|(_, c)| self.added_starts.contains(c));
        starts.find_map(|(start, _)| {
            let pieces = &self.checked.pieces;
            let added = self.added.iter().map(|id| (&pieces[*id as usize], *id));
            let wanted = added.filter(|(piece, _)| is_wanted(piece));
            let hits = wanted.filter(|(piece, _)| text[start..].starts_with(&piece.text));
            // As in the library, the longest.
            let hit = hits.max_by_key(|(piece, _)| piece.text.len());
            hit.map(|(piece, id)| (start, start + piece.text.len(), id))
        })
    }

    fn encode_pieces<S: AsRef<str>>(&self, texts: &[S]) -> Vec<Encoded> {
        let mut all = vec![Encoded::default(); texts.len()];
        let mut group: Vec<(usize, &str)> = Vec::new();
        let mut group_bytes = 0;
        for (owner, text) in texts.iter().enumerate() {
            for chunk in chunks(text.as_ref(), CHUNK_BYTES, self.checked.cut) {
                group.push((owner, chunk));
                group_bytes += chunk.len();
                if group_bytes >= GROUP_BYTES {
                    self.encode_group(&group, &mut all);
                    group.clear();
                    group_bytes = 0;
                }
            }
        }
        self.encode_group(&group, &mut all);
        all
    }

    /// Appends the ids of chunks to the lists of their owners.
    fn encode_group(&self, group: &[(usize, &str)], all: &mut [Encoded]) {
        let chunks: Vec<&str> = group.iter().map(|(_, chunk)| *chunk).collect();
        // Where nothing is changed or added before the cut, bytes are those of the tokens.
        let is_literal = self.checked.is_literal;
        let encodings = match is_literal {
            true => self.encoder.encode_batch_fast(chunks, false),
            false => self.encoder.encode_batch(chunks, false),
        };
        let Ok(encodings) = encodings else {
            // No input is known that gets here. Single bytes are a correct spelling of any text, if there are tokens for them.
            for (owner, chunk) in group {
                for id in chunk
                    .bytes()
                    .filter_map(|byte| self.byte_ids[usize::from(byte)])
                {
                    all[*owner].push(id, self.bytes(id).len(), 1);
                }
            }
            return;
        };
        for ((owner, chunk), mut encoding) in group.iter().zip(encodings) {
            let ids = encoding.get_ids();
            let token_bytes: Vec<usize> = ids.iter().map(|id| self.bytes(*id).len()).collect();
            if is_literal && token_bytes.iter().sum::<usize>() == chunk.len() {
                all[*owner].ids.extend_from_slice(ids);
                continue;
            }
            if is_literal && let Ok(located) = self.encoder.encode(*chunk, false) {
                encoding = located;
            }
            let bytes = spans(&token_bytes, encoding.get_offsets(), chunk.len());
            let ids = encoding.get_ids().iter();
            for ((id, token_bytes), bytes) in ids.zip(token_bytes).zip(bytes) {
                all[*owner].push(*id, token_bytes, bytes);
            }
        }
    }
}

/// Cuts a text only where its parts get the same ids as the whole. A chunk ends at the first such position after at least
/// `chunk_bytes`.
pub(super) fn chunks(text: &str, chunk_bytes: usize, cut: Cut) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = match cut {
            Cut::Words => word_end(rest, chunk_bytes),
            Cut::Spaces => space_end(rest, chunk_bytes),
            Cut::Lines | Cut::Nowhere => None,
        };
        let (chunk, tail) = rest.split_at(end.unwrap_or(rest.len()));
        rest = tail;
        Some(chunk)
    })
}
