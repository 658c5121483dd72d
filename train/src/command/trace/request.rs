//! Parses the options of `nerve trace` (edges, replacements, ablations, what-ifs) into a `TraceRequest`; lists all errors.

use super::names::{Names, Pair};
use crate::cli;
use crate::error::{Error, Problem};
use brillm::explain::Replacement;

/// The parsed arguments.
pub struct TraceRequest {
    /// The text's tokens; `None` if no text was given.
    pub tokens: Option<Vec<u32>>,
    /// Changes of the model that hold for everything else.
    pub edits: Vec<Edit>,
    /// Changes of the text, each tried by itself.
    pub what_ifs: Vec<WhatIf>,
    /// Edges to describe.
    pub edges: Vec<Pair>,
    /// Edges to leave out.
    pub ablations: Vec<Pair>,
}

/// An edge and what replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    pub pair: Pair,
    pub by: Replacement,
}

/// A change of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhatIf {
    /// The signals that arrived at these positions, from 1, are left out of every mix.
    Drop(Vec<usize>),
    /// The tokens at these positions, from 1, are removed from the text.
    Remove(Vec<usize>),
}

impl WhatIf {
    /// The change as it is typed.
    pub fn name(&self) -> String {
        let (kind, positions) = match self {
            Self::Drop(positions) => ("drop", positions),
            Self::Remove(positions) => ("remove", positions),
        };
        let positions: Vec<String> = positions.iter().map(usize::to_string).collect();
        format!("{kind}={}", positions.join(","))
    }
}

impl Edit {
    /// The edit as it is displayed.
    pub fn name(&self, names: &Names<'_>) -> String {
        let by = match self.by {
            Replacement::Zero => "zero".to_string(),
            Replacement::BackOff => "its shared row".to_string(),
            Replacement::Edge(source, target) => names.pair((source, target)),
        };
        format!("{} replaced by {by}", names.pair(self.pair))
    }
}

impl TraceRequest {
    /// Reads all arguments.
    ///
    /// # Errors
    /// `Config` with everything that is wrong.
    pub fn read(
        arguments: &cli::Trace,
        names: &Names<'_>,
        tokens: Option<Vec<u32>>,
    ) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let n_tokens = tokens.as_ref().map_or(0, Vec::len);
        let edit = |typed: &str| edit(names, typed);
        let what_if = |typed: &str| what_if(typed, n_tokens);
        let pair = |typed: &str| pair(names, typed);
        let asked = Self {
            edits: all("--set-edge", &arguments.set_edge, &mut problems, edit),
            what_ifs: all("--what-if", &arguments.what_if, &mut problems, what_if),
            edges: all("--edge", &arguments.edge, &mut problems, pair),
            ablations: all("--ablate", &arguments.ablate, &mut problems, pair),
            tokens,
        };
        match problems.is_empty() {
            true => Ok(asked),
            false => Err(Error::Config(problems)),
        }
    }
}

/// What was found, what was expected, and what to do.
type Wrong = [String; 3];

fn all<T>(
    flag: &str,
    typed: &[String],
    problems: &mut Vec<Problem>,
    read: impl Fn(&str) -> Result<T, Wrong>,
) -> Vec<T> {
    let mut found = Vec::new();
    for typed in typed {
        match read(typed) {
            Ok(value) => found.push(value),
            Err([wrong, expected, advice]) => {
                problems.push(Problem::typed(flag, wrong, expected).advise(advice));
            }
        }
    }
    found
}

const BY_ID: &str = "name tokens by their ids if nothing else works, as in '#17,#4'";

fn pair(names: &Names<'_>, typed: &str) -> Result<Pair, Wrong> {
    let wrong = |found| [found, "two tokens, as in a,b".into(), BY_ID.into()];
    names.edge(typed).map_err(wrong)
}

/// An equals sign may be a part of a token, so every one is tried.
fn edit(names: &Names<'_>, typed: &str) -> Result<Edit, Wrong> {
    let expected = "an edge and what replaces it, as in a,b=zero, a,b=shared or a,b=c,d";
    let mut wrong = format!("{typed:?} without an equals sign");
    for (at, _) in typed.match_indices('=') {
        let by = match &typed[at + 1..] {
            "zero" => Ok(Replacement::Zero),
            "shared" => Ok(Replacement::BackOff),
            other => names.edge(other).map(|(a, b)| Replacement::Edge(a, b)),
        };
        match (names.edge(&typed[..at]), by) {
            (Ok(pair), Ok(by)) => return Ok(Edit { pair, by }),
            (Err(found), _) | (_, Err(found)) => wrong = found,
        }
    }
    Err([wrong, expected.to_string(), BY_ID.to_string()])
}

fn what_if(typed: &str, n_tokens: usize) -> Result<WhatIf, Wrong> {
    let expected = format!("drop=N or remove=N, with N from 1 to {n_tokens}");
    let advice = "N counts the tokens of the text; `nerve trace` shows them".to_string();
    let wrong = || [format!("{typed:?}"), expected.clone(), advice.clone()];
    let (kind, list) = typed.split_once('=').ok_or_else(wrong)?;
    let position = |n: &str| {
        let n = n.trim().parse().ok();
        n.filter(|n| (1..=n_tokens).contains(n)).ok_or_else(wrong)
    };
    let mut positions: Vec<usize> = list.split(',').map(position).collect::<Result<_, _>>()?;
    positions.sort_unstable();
    positions.dedup();
    match kind {
        "drop" => Ok(WhatIf::Drop(positions)),
        "remove" => Ok(WhatIf::Remove(positions)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Kind, Tokenizer};

    #[test]
    fn positions_lie_in_the_text() {
        assert_eq!(what_if("drop=3", 3), Ok(WhatIf::Drop(vec![3])));
        assert_eq!(what_if("remove=2,1,2", 3), Ok(WhatIf::Remove(vec![1, 2])));
        for wrong in [
            "drop", "drop=", "drop=0", "drop=4", "drop=-1", "keep=1", "drop=1,9", "=1",
        ] {
            assert!(what_if(wrong, 3).is_err(), "{wrong}");
        }
        assert_eq!(WhatIf::Drop(vec![3, 5]).name(), "drop=3,5");
    }

    #[test]
    fn an_edge_is_replaced_by_nothing_by_its_shared_row_or_by_another_edge() {
        let text = std::iter::once(Ok("ab=,".to_string()));
        let tokenizer = Tokenizer::train(Kind::Character, text, None).unwrap();
        let names = Names::new(&tokenizer);
        let [a, b, equals] = ["a", "b", "="].map(|name| names.token(name).unwrap());
        for (typed, pair, by) in [
            ("a,b=zero", (a, b), Replacement::Zero),
            ("b,a=shared", (b, a), Replacement::BackOff),
            ("a,b=b,a", (a, b), Replacement::Edge(b, a)),
            ("a,==zero", (a, equals), Replacement::Zero),
            ("=,a==,b", (equals, a), Replacement::Edge(equals, b)),
        ] {
            assert_eq!(edit(&names, typed), Ok(Edit { pair, by }), "{typed}");
        }
        for typed in ["a,b", "a,b=", "a,b=none", "=zero", "a=zero"] {
            assert!(edit(&names, typed).is_err(), "{typed}");
        }
    }
}
