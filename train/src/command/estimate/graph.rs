//! The size and cost of a BriLLM graph, from the counts of token pairs or, without any, from the vocabulary.

use crate::cli;
use crate::command::answer::readable_bytes;
use crate::data::Bigrams;
use crate::error::{Error, Problem};
use crate::family::brillm::{Edges, SignalConfig};
use brillm::candidate::Candidates;
use brillm::counts::PairCounts;
use brillm::graph::BackOff;
use serde_json::{Value, json};

/// The size of a graph, and what a token costs in it.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphCost {
    /// Number of nodes, one per token.
    pub nodes: u64,
    /// Pairs with an edge of their own.
    pub edges: u64,
    /// Rows of the edge table: one per edge, and those that the other pairs share.
    pub rows: u64,
    /// All parameters.
    pub parameters: u64,
    /// Bytes of the edge table.
    pub table_bytes: u64,
    /// Bytes of AdamW's moments.
    pub moments_bytes: u64,
    /// Parameters that a token uses in training, on average.
    pub active: u64,
    /// Forward FLOPs per token: in training, and in evaluation, where every row of the source competes.
    pub flops: [f64; 2],
    /// Whether pairs were counted; otherwise every pair has an edge, and the sizes are upper bounds.
    pub is_counted: bool,
}

impl GraphCost {
    /// The cost of a recipe. Counts come from `--counts`, else from the recipe's file, unless there is only a vocabulary.
    ///
    /// # Errors
    /// `Config` without counts and vocabulary, or for a vocabulary that no table can hold; `Invalid` for a broken file.
    pub fn of(
        config: &SignalConfig,
        arguments: &cli::Estimate,
        vocabulary: impl FnOnce() -> Result<usize, Error>,
    ) -> Result<Self, Error> {
        let file = arguments.counts.as_deref().or(config.counts());
        let named = arguments.counts.is_some();
        match (file, &config.edges) {
            (Some(file), Edges::Counted { .. }) if named || file.exists() => {
                let counts = Bigrams::load(file)?.counts;
                Ok(Self::counted(config, &counts))
            }
            (Some(file), _) if arguments.vocabulary.is_none() => {
                let expected = "the file of counts that decides which pairs have an edge";
                let problem = Problem::new(file, "", "no such file", expected);
                Err(Error::config(problem.advise(
                    "make it with nerve data bigrams, name one with --counts, or say --vocabulary N for the most it can be",
                )))
            }
            _ => Self::full(config, vocabulary()? as u64),
        }
    }

    fn counted(config: &SignalConfig, counts: &PairCounts) -> Self {
        let (min_count, back_off) = match &config.edges {
            Edges::Counted {
                min_count,
                back_off,
                ..
            } => (*min_count, *back_off),
            Edges::Full => (0, BackOff::SharedRow),
        };
        let graph = counts.graph(min_count, back_off);
        let rows_of =
            |source: u32| (graph.own_rows(source).len() + graph.shared(source).len()) as f64;
        let said: f64 = counts.tokens.iter().map(|&n| n as f64).sum();
        let times = counts.tokens.iter().zip(0..);
        let weighed = times.map(|(&n, source)| n as f64 * rows_of(source));
        let competing = weighed.sum::<f64>() / said.max(1.0);
        let sizes = [graph.nodes(), graph.edges(), graph.rows()].map(|n| n as u64);
        Self::new(config, sizes, competing, true)
    }

    fn full(config: &SignalConfig, nodes: u64) -> Result<Self, Error> {
        let width = config.d_node as u64;
        let edges = nodes.checked_mul(nodes);
        let rows = edges.and_then(|edges| edges.checked_add(1));
        let bytes = rows.and_then(|rows| rows.checked_mul(12 * width * (width + 1)));
        let (Some(rows), Some(_)) = (rows, bytes) else {
            let found =
                format!("{nodes}: a table of every pair has more bytes than can be counted");
            let expected = "a vocabulary whose pairs a table can hold";
            let problem = Problem::typed("--vocabulary", found, expected);
            return Err(Error::config(problem));
        };
        let sizes = [nodes, rows - 1, rows];
        Ok(Self::new(config, sizes, nodes as f64, false))
    }

    /// `competing`: rows that leave a source, in the mean over the text.
    fn new(
        config: &SignalConfig,
        [nodes, edges, rows]: [u64; 3],
        competing: f64,
        is_counted: bool,
    ) -> Self {
        let model = config.model();
        let parameters = model.n_parameters(nodes as usize, rows as usize);
        let row_len = model.row_len() as u64;
        let table_bytes = rows * row_len * config.storage.bytes();
        // The matrix of a row times a signal; the hop is one more.
        let product = 2.0 * (config.d_node * config.d_node) as f64;
        let trained = match config.candidates {
            Candidates::All => competing,
            Candidates::Frequent { n } | Candidates::Sampled { n } => competing.min(1.0 + n as f64),
        };
        Self {
            nodes,
            edges,
            rows,
            parameters,
            table_bytes,
            moments_bytes: 2 * parameters * config.storage.bytes(),
            active: ((trained * row_len as f64) as u64).min(parameters),
            flops: [trained, competing].map(|rows| product * (rows + 1.0)),
            is_counted,
        }
    }

    /// The size as rows of a table.
    pub fn rows(&self) -> Vec<[String; 2]> {
        let kind = match self.is_counted {
            true => "with an edge of their own, of the pairs that were counted",
            false => "every pair has an edge: the most it can be",
        };
        let (rows, shared) = (self.rows, self.rows - self.edges);
        let [_, evaluation] = self.flops;
        let evaluation =
            format!("{evaluation:.3e} forward FLOPs per token, over the whole vocabulary");
        let named = [
            ("nodes", self.nodes.to_string()),
            ("edges", format!("{}, {kind}", self.edges)),
            ("rows", format!("{rows}, {shared} of them shared")),
            ("edge table", readable_bytes(self.table_bytes)),
            ("moments", readable_bytes(self.moments_bytes)),
            ("evaluation", evaluation),
        ];
        named.map(|(name, text)| [name.to_string(), text]).into()
    }

    /// The size as JSON.
    pub fn json(&self) -> Value {
        json!({
            "nodes": self.nodes,
            "edges": self.edges,
            "rows": self.rows,
            "shared_rows": self.rows - self.edges,
            "parameters": self.parameters,
            "table_bytes": self.table_bytes,
            "moments_bytes": self.moments_bytes,
            "flops_per_token_training": self.flops[0],
            "flops_per_token_evaluation": self.flops[1],
            "counted": self.is_counted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;

    fn config(sets: &[&str]) -> SignalConfig {
        let tiny = BUNDLED
            .iter()
            .find(|bundled| (bundled.kind, bundled.size) == ("brillm", "tiny"))
            .unwrap();
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        let recipe = from_text("tiny.toml", tiny.text.to_string(), &sets).unwrap();
        let Some(config) = recipe.model.get::<SignalConfig>() else {
            panic!("a graph");
        };
        config.clone()
    }

    #[test]
    fn a_graph_has_the_size_of_its_counts() {
        let config = config(&["model.edges.min_count=1"]);
        let d = config.d_node as u64;
        let texts: [&[u32]; 2] = [&[0, 1, 2, 0, 1], &[1, 2, 2]];
        let counts = PairCounts::of(4, texts);
        let cost = GraphCost::counted(&config, &counts);
        // 0→1, 1→2, 2→0, 2→2.
        assert_eq!((cost.nodes, cost.edges), (4, 4));
        assert_eq!(
            cost.table_bytes,
            cost.rows * d * (d + 1) * config.storage.bytes()
        );
        assert!(cost.parameters > cost.rows * d * (d + 1));
        assert_eq!(
            cost.moments_bytes,
            2 * config.storage.bytes() * cost.parameters
        );
        assert!(cost.flops[0] <= cost.flops[1] && cost.flops[0] >= 4.0 * (d * d) as f64);
    }

    #[test]
    fn without_counts_every_pair_has_an_edge_and_too_many_are_refused() {
        let config = config(&[]);
        let d = config.d_node as f64;
        let cost = GraphCost::full(&config, 100).unwrap();
        assert_eq!(
            (cost.edges, cost.rows, cost.is_counted),
            (10_000, 10_001, false)
        );
        assert_eq!(cost.flops[1], 2.0 * d * d * 101.0);
        let error = GraphCost::full(&config, 1 << 40).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn what_competes_is_the_mean_over_the_text_and_as_many_as_are_drawn() {
        let shared = "model.edges.back_off='shared_row'";
        let texts: [&[u32]; 2] = [&[0, 1, 2, 0, 1], &[1, 2, 2]];
        let counts = PairCounts::of(4, texts);
        let cost = |sets: &[&str]| GraphCost::counted(&config(sets), &counts);
        // Tokens 0, 1 and 2 were seen 2, 3 and 3 times and have 1, 1 and 2 edges, and each one row that others share:
        // (2 · 2 + 3 · 2 + 3 · 3) / 8 = 2.375 rows compete, and the hop is one more. d = 16, so a row has 272 numbers.
        let all = cost(&[shared]);
        assert_eq!((all.edges, all.rows, all.table_bytes), (4, 5, 5 * 272 * 4));
        assert_eq!((all.flops, all.active), ([512.0 * 3.375; 2], 646));
        // With one other candidate drawn, two compete in training.
        let drawn = cost(&[shared, "model.candidates={kind='sampled',n=1}"]);
        assert_eq!(
            (drawn.flops, drawn.active),
            ([512.0 * 3.0, 512.0 * 3.375], 544)
        );
        let many = cost(&[shared, "model.candidates={kind='frequent',n=9}"]);
        assert_eq!(many.flops, all.flops);
        // Two pairs were seen twice.
        assert_eq!(cost(&[shared, "model.edges.min_count=2"]).edges, 2);
        let half = cost(&[shared, "model.storage=bf16", "optimizer.mode=touched"]);
        assert_eq!(
            (half.table_bytes, half.moments_bytes),
            (all.table_bytes / 2, 4 * half.parameters)
        );
    }
}
