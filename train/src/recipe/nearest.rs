//! Lists known names in messages, and finds the one that a misspelled name was probably meant to be.

/// The names of a choice in words: `one of "matrices", "all"`.
pub fn one_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    match quoted.as_slice() {
        [only] => only.clone(),
        several => format!("one of {}", several.join(", ")),
    }
}

/// The known name closest to `name`, if it is close enough to be a typing error: at most a third of it is different.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        // The cost is the product of the lengths, and the name may be a megabyte long.
        .filter(|known| known.len().abs_diff(name.len()) <= 4 * allowed && name.len() <= 200)
        .map(|known| (edit_distance(name, known), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// How many letters to insert, delete, replace or swap with their neighbour (optimal string alignment).
fn edit_distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for i in 0..from.len() {
        let mut row = vec![i + 1];
        for j in 0..to.len() {
            let replaced = last[j] + usize::from(from[i] != to[j]);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from[i] == to[j - 1] && from[i - 1] == to[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_is_symmetric_and_zero_only_for_equal_names() {
        let names = ["", "a", "d_model", "d_modl", "n_heads", "heads", "größe"];
        for from in names {
            for to in names {
                assert_eq!(edit_distance(from, to), edit_distance(to, from));
                assert_eq!(edit_distance(from, to) == 0, from == to);
            }
        }
    }

    #[test]
    fn each_kind_of_slip_costs_one() {
        for slip in ["stepss", "step", "staps", "setps"] {
            assert_eq!(edit_distance(slip, "steps"), 1, "{slip}");
        }
    }

    #[test]
    fn a_slip_finds_its_name_and_another_word_finds_none() {
        let known = ["d_model", "d_ff", "n_heads"];
        assert_eq!(nearest("d_modl", known), Some("d_model"));
        assert_eq!(nearest("nheads", known), Some("n_heads"));
        assert_eq!(nearest("dropout", known), None);
        assert_eq!(nearest("", known), None);
    }
}
