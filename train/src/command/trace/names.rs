//! Names of tokens: how tokens are displayed, and which token a typed name means.

use crate::data::Tokenizer;
use crate::escape;
use serde_json::{Value, json};

/// A pair of tokens: an edge from the first to the second.
pub type Pair = (u32, u32);

/// The displayed names of tokens, and the search for a token by name.
pub struct Names<'a> {
    tokenizer: &'a Tokenizer,
    shown: Vec<String>,
}

impl<'a> Names<'a> {
    /// The names of all tokens of a tokenizer.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        let ids = 0..tokenizer.vocabulary_size() as u32;
        Self {
            tokenizer,
            shown: ids.map(|id| shown(tokenizer, id)).collect(),
        }
    }

    /// The displayed name of a token: one line, without control characters of terminals.
    pub fn of(&self, id: u32) -> &str {
        self.shown.get(id as usize).map_or("?", String::as_str)
    }

    /// A token as JSON.
    pub fn json(&self, id: u32) -> Value {
        json!({ "id": id, "token": self.of(id) })
    }

    /// The displayed name of an edge.
    pub fn pair(&self, (source, target): Pair) -> String {
        format!("{} → {}", self.of(source), self.of(target))
    }

    /// The token that was typed: by its id, its text, its displayed name, or as the tokenizer's file spells it.
    ///
    /// # Errors
    /// What was found instead of a token.
    pub fn token(&self, typed: &str) -> Result<u32, String> {
        let ids = 0..self.shown.len() as u32;
        if let Some(id) = typed.strip_prefix('#').and_then(|id| id.parse().ok()) {
            return match ids.contains(&id) {
                true => Ok(id),
                false => Err(format!("the id {id} of {} tokens", ids.end)),
            };
        }
        let text = |id: &u32| self.tokenizer.bytes(*id) == typed.as_bytes() && !typed.is_empty();
        let shown = |id: &u32| self.of(*id) == typed;
        let spelled = |id: &u32| self.tokenizer.token_text(*id) == typed;
        let found = ids.clone().find(text).or_else(|| ids.clone().find(shown));
        let found = found.or_else(|| ids.clone().find(spelled));
        found.ok_or_else(|| self.pieces(typed))
    }

    /// The pair that was typed as `A,B`. A comma may be a part of either token, so every comma is tried.
    ///
    /// # Errors
    /// What was found instead of two tokens.
    pub fn edge(&self, typed: &str) -> Result<Pair, String> {
        let commas = typed.match_indices(',');
        let splits = commas.map(|(at, _)| (&typed[..at], &typed[at + 1..]));
        let both = |(source, target): (&str, &str)| {
            Some((self.token(source).ok()?, self.token(target).ok()?))
        };
        let mut found: Vec<Pair> = splits.clone().filter_map(both).collect();
        found.dedup();
        let typed = escape::terminal(typed);
        let splits: Vec<(&str, &str)> = splits.collect();
        Err(match (found.as_slice(), splits.as_slice()) {
            (&[pair], _) => return Ok(pair),
            ([], []) => format!("{typed:?} without a comma"),
            ([], &[(source, target)]) => {
                let wrong = self.token(source).and(self.token(target));
                wrong.err().unwrap_or_default()
            }
            ([], _) => format!("{typed:?}, which no comma cuts into two tokens"),
            (pairs, _) => {
                let pairs = pairs.iter().map(|(a, b)| format!("#{a},#{b}"));
                let pairs = pairs.collect::<Vec<_>>().join(" or ");
                format!("{typed:?}, which may be {pairs}")
            }
        })
    }

    fn pieces(&self, typed: &str) -> String {
        let ids = self.tokenizer.encode(typed);
        let pieces = ids
            .iter()
            .take(8)
            .map(|&id| format!("{} (#{id})", self.of(id)));
        let pieces = pieces.collect::<Vec<_>>().join(" ");
        let typed = escape::terminal(typed);
        match ids.len() {
            0 => "an empty text".to_string(),
            1 => format!("{typed:?}, which is in no vocabulary; it reads as {pieces}"),
            n => format!("{typed:?}, which is {n} tokens: {pieces}"),
        }
    }
}

/// Marks for what would not be seen; a token that is no text, or that a terminal would obey, is shown by its id.
fn shown(tokenizer: &Tokenizer, id: u32) -> String {
    let by_id = || format!("#{id}");
    let bytes = tokenizer.bytes(id);
    if bytes.is_empty() {
        let text = escape::terminal(&tokenizer.token_text(id));
        return if text.is_empty() { by_id() } else { text };
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return by_id();
    };
    let marked = text.replace('\n', "⏎").replace('\t', "⇥").replace(' ', "␣");
    match escape::terminal(&marked) == marked {
        true => marked,
        false => by_id(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Kind;

    fn tokenizer() -> Tokenizer {
        Tokenizer::train(
            Kind::Character,
            ["ab,=x \n\x1b罗#"]
                .into_iter()
                .map(|text| Ok(text.to_string())),
            None,
        )
        .unwrap()
    }

    #[test]
    fn every_token_has_one_name_and_the_name_leads_back() {
        let tokenizer = tokenizer();
        let names = Names::new(&tokenizer);
        for id in 0..tokenizer.vocabulary_size() as u32 {
            let name = names.of(id);
            assert!(
                !name.contains(char::is_control) && !name.contains(' '),
                "{name:?}"
            );
            assert_eq!(names.token(name), Ok(id), "{name:?}");
            assert_eq!(names.token(&format!("#{id}")), Ok(id));
        }
        assert_eq!(names.token(" "), names.token("␣"));
        assert_eq!(names.token("\n"), names.token("⏎"));
        assert_eq!(names.token("</s>"), Ok(tokenizer.specials().end.unwrap()));
    }

    #[test]
    fn a_comma_may_be_a_token() {
        let tokenizer = tokenizer();
        let names = Names::new(&tokenizer);
        let id = |text: &str| names.token(text).unwrap();
        assert_eq!(names.edge("a,b"), Ok((id("a"), id("b"))));
        assert_eq!(names.edge(",,x"), Ok((id(","), id("x"))));
        assert_eq!(names.edge("x,,"), Ok((id("x"), id(","))));
        assert_eq!(names.edge(",,,"), Ok((id(","), id(","))));
        assert_eq!(names.edge("罗,␣"), Ok((id("罗"), id(" "))));
        assert_eq!(names.edge("#4,#5"), Ok((4, 5)));
        for (typed, part) in [
            ("ab", "without a comma"),
            ("ab,x", "2 tokens"),
            ("a,#99", "the id 99 of"),
            ("a,q", "in no vocabulary"),
            ("a,", "an empty text"),
            ("ab,a,b", "no comma"),
        ] {
            let error = names.edge(typed).unwrap_err();
            assert!(error.contains(part), "{typed}: {error}");
        }
    }
}
