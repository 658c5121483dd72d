//! The share of tokens that stand for what a vocabulary does not have.

/// Above this share it is said loudly: a loss is then mostly that of guessing what nobody can read.
pub const SHARE_LOUD: f64 = 0.01;

/// The share of unknown tokens; none of none is 0.
pub fn share(unknown: u64, tokens: u64) -> f64 {
    match tokens {
        0 => 0.0,
        _ => unknown as f64 / tokens as f64,
    }
}

/// What should be said of it: nothing where there is none, a warning above one in a hundred.
pub fn sentence(of: &str, unknown: u64, tokens: u64) -> Option<String> {
    let percent = 100.0 * share(unknown, tokens);
    let fact = format!("{of}: {unknown} of {tokens} tokens are <unk> ({percent:.2} %)");
    warning(of, unknown, tokens).or((unknown > 0).then_some(fact))
}

/// A warning above one in a hundred.
pub fn warning(of: &str, unknown: u64, tokens: u64) -> Option<String> {
    let share = share(unknown, tokens);
    (share > SHARE_LOUD).then(|| {
        let percent = 100.0 * share;
        format!(
            "warning: {of}: {unknown} of {tokens} tokens are <unk> ({percent:.2} %): this tokenizer does not know the text"
        )
    })
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
