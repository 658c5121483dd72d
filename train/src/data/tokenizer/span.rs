//! Counts the bytes of a text that each token stands for, from the offsets that the tokenizer library returns.

/// The bytes of each token: `token_bytes` where they add up to the part of the text that the tokens came from, else a
/// share of that part. The sum is always `text_bytes`.
///
/// `offsets`: for each token, the range of bytes it came from. Tokens within one character have the same range. A token
/// without a range (a space put in front) shares that of the next token. Text without a token (trimmed space) counts for
/// the next token.
pub(super) fn spans(
    token_bytes: &[usize],
    offsets: &[(usize, usize)],
    text_bytes: usize,
) -> Vec<usize> {
    let mut bytes = Vec::with_capacity(token_bytes.len());
    let (mut first, mut start) = (0, 0);
    while first < token_bytes.len() {
        let mut end = offsets[first].1.max(start);
        let mut next = first + 1;
        while next < token_bytes.len() && (end == start || offsets[next].0 < end) {
            end = end.max(offsets[next].1);
            next += 1;
        }
        if next == token_bytes.len() {
            end = text_bytes;
        }
        share(&token_bytes[first..next], end - start, &mut bytes);
        (first, start) = (next, end);
    }
    bytes
}

/// Divides `total` among tokens by their sizes.
fn share(sizes: &[usize], total: usize, bytes: &mut Vec<usize>) {
    if sizes.iter().sum::<usize>() == total {
        return bytes.extend_from_slice(sizes);
    }
    let weight = |size: &usize| (*size).max(1);
    let all: usize = sizes.iter().map(weight).sum();
    let (mut seen, mut given) = (0, 0);
    for size in sizes {
        seen += weight(size);
        let until = total * seen / all;
        bytes.push(until - given);
        given = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_the_text_belongs_to_one_token() {
        // Sizes of the tokens, where they came from, bytes of the text, bytes of each.
        type Case<'a> = (&'a [usize], &'a [(usize, usize)], usize, &'a [usize]);
        let cases: [Case; 7] = [
            (&[1, 2], &[(0, 1), (1, 3)], 3, &[1, 2]),
            // Two tokens within one character, and a token that ends within one.
            (&[1, 1], &[(0, 2), (0, 2)], 2, &[1, 1]),
            (&[2, 1], &[(0, 3), (1, 3)], 3, &[2, 1]),
            // A ligature of three bytes that is read as two letters; an unknown character.
            (&[2, 1], &[(0, 3), (3, 4)], 4, &[3, 1]),
            (&[0, 0, 1], &[(0, 2), (0, 2), (2, 3)], 3, &[1, 1, 1]),
            // A space in front of the text, in the first token and as a token of its own.
            (&[3, 2], &[(0, 2), (2, 4)], 4, &[2, 2]),
            // Trimmed spaces.
            (&[3, 3], &[(1, 3), (4, 6)], 7, &[3, 4]),
        ];
        for (sizes, offsets, text_bytes, expected) in cases {
            assert_eq!(spans(sizes, offsets, text_bytes), expected, "{offsets:?}");
        }
        assert_eq!(spans(&[1, 5], &[(0, 0), (0, 5)], 5), [0, 5]);
        assert!(spans(&[], &[], 0).is_empty());
    }
}
