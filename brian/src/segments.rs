//! `Segments`: which tokens of windows belong to one text, where a window may hold several, one behind another. A text attends to
//! itself alone and counts its places from zero, as if it were alone.

use std::ops::Range;

/// How texts lie in windows of `seq` tokens; tokens count `[batch * seq]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    seq: usize,
    /// The first token of every text, and the number of all tokens.
    begins: Vec<usize>,
    /// The text of every token.
    of_token: Vec<usize>,
}

impl Segments {
    /// Every window is one text.
    pub fn whole(batch: usize, seq: usize) -> Self {
        Self::new(seq, &vec![seq; batch])
    }

    /// Texts of these lengths, window by window.
    ///
    /// # Panics
    /// If a text is empty, or crosses the end of a window of `seq` tokens.
    pub fn new(seq: usize, lengths: &[usize]) -> Self {
        let mut segments = Self {
            seq,
            begins: vec![0],
            of_token: Vec::new(),
        };
        for (text, &length) in lengths.iter().enumerate() {
            let begin = segments.of_token.len();
            let left = seq - begin % seq;
            assert!(
                (1..=left).contains(&length),
                "a text of {length} tokens where {left} of a window are left"
            );
            segments.of_token.resize(begin + length, text);
            segments.begins.push(begin + length);
        }
        let n_tokens = segments.of_token.len();
        assert!(
            n_tokens.is_multiple_of(seq.max(1)),
            "{n_tokens} tokens in windows of {seq}"
        );
        segments
    }

    /// Whether every window is one text.
    pub fn is_whole(&self) -> bool {
        self.len() * self.seq == self.of_token.len()
    }

    /// How many texts there are.
    pub fn len(&self) -> usize {
        self.begins.len() - 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens of every text.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.begins.windows(2).map(|ends| ends[0]..ends[1])
    }

    /// The window of a text.
    pub fn window(&self, text: usize) -> usize {
        self.begins[text] / self.seq
    }

    /// The text of a token.
    pub fn of_token(&self, token: usize) -> usize {
        self.of_token[token]
    }

    /// How many tokens of its text lie before a token.
    pub fn place(&self, token: usize) -> usize {
        token - self.begins[self.of_token[token]]
    }

    /// The places of all tokens.
    pub fn places(&self) -> Vec<usize> {
        self.ranges().flat_map(|text| 0..text.len()).collect()
    }

    /// The text of every token.
    pub fn of_tokens(&self) -> &[usize] {
        &self.of_token
    }

    /// The mean over tokens of how long their texts are: so many keys attention is counted to have.
    pub fn mean_length(&self) -> f64 {
        let squares = self.ranges().map(|text| (text.len() * text.len()) as f64);
        squares.sum::<f64>() / self.of_token.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_window_count_their_places_from_zero() {
        let segments = Segments::new(4, &[3, 1, 4, 2, 2]);
        assert_eq!(segments.places(), [0, 1, 2, 0, 0, 1, 2, 3, 0, 1, 0, 1]);
        assert_eq!(segments.of_tokens(), [0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 4, 4]);
        let places: Vec<usize> = (0..12).map(|token| segments.place(token)).collect();
        assert_eq!(places, segments.places());
        let windows: Vec<usize> = (0..5).map(|text| segments.window(text)).collect();
        assert_eq!(windows, [0, 0, 1, 2, 2]);
        assert!(!segments.is_whole());
        // (9 + 1 + 16 + 4 + 4) / 12
        assert_eq!(segments.mean_length(), 34.0 / 12.0);
    }

    #[test]
    fn a_window_of_one_text_is_whole() {
        let segments = Segments::whole(2, 3);
        assert_eq!(segments, Segments::new(3, &[3, 3]));
        assert!(segments.is_whole());
        assert_eq!((segments.len(), segments.mean_length()), (2, 3.0));
        assert!(Segments::whole(0, 0).is_empty());
    }

    #[test]
    #[should_panic(expected = "a text of 2 tokens where 1 of a window are left")]
    fn no_text_crosses_the_end_of_a_window() {
        let _ = Segments::new(4, &[3, 2]);
    }
}
