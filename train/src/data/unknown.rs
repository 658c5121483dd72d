//! The share of unknown tokens (`<unk>`) in a text, and messages about it.

/// Above this share there is a warning: the loss then mostly measures the prediction of `<unk>`.
pub const SHARE_LOUD: f64 = 0.01;

/// The share of unknown tokens; 0 if there are no tokens.
pub fn share(unknown: u64, tokens: u64) -> f64 {
    match tokens {
        0 => 0.0,
        _ => unknown as f64 / tokens as f64,
    }
}

/// A sentence about unknown tokens: none if there are none, a warning above one in a hundred.
pub fn sentence(of: &str, unknown: u64, tokens: u64) -> Option<String> {
    let fact = || fact(of, unknown, tokens);
    warning(of, unknown, tokens).or_else(|| (unknown > 0).then(fact))
}

/// A warning if more than one in a hundred tokens is unknown.
pub fn warning(of: &str, unknown: u64, tokens: u64) -> Option<String> {
    (share(unknown, tokens) > SHARE_LOUD).then(|| {
        let fact = fact(of, unknown, tokens);
        format!("warning: {fact}: this tokenizer does not know the text")
    })
}

fn fact(of: &str, unknown: u64, tokens: u64) -> String {
    let percent = 100.0 * share(unknown, tokens);
    format!("{of}: {unknown} of {tokens} tokens are <unk> ({percent:.2} %)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundredth_is_said_and_more_is_a_warning() {
        assert_eq!((share(1, 4), share(0, 0)), (0.25, 0.0));
        assert_eq!(sentence("valid", 0, 100), None);
        let said = sentence("valid", 1, 100).unwrap();
        assert_eq!(said, "valid: 1 of 100 tokens are <unk> (1.00 %)");
        assert!(
            sentence("valid", 2, 100)
                .unwrap()
                .starts_with("warning: valid: 2 of 100")
        );
        assert_eq!(
            (warning("valid", 1, 100), warning("valid", 0, 0)),
            (None, None)
        );
    }
}
