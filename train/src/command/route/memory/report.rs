//! `MemoryReport`: what the tokens of a few sequences read from the memory, read by read, with the largest shares of each; as text for a
//! terminal and as JSON, whose fields are named in `docs/brian.md`.

use super::{page, picture};
use crate::command::answer::{aligned, fitted, table};
use crate::escape;
use brian::memory::{MemoryRead, MemoryUse, ReadAt, ReadShare};
use brian::route::trace::Walks;
use serde_json::{Value, json};

/// The most shares of a read in a line of a terminal.
const IN_A_LINE: usize = 3;

/// The most reads on a terminal.
const MOST_LINES: usize = 60;

/// What the tokens of a few sequences read.
#[derive(Clone, Debug, Default)]
pub struct MemoryReport {
    /// The run and its step.
    pub title: String,
    /// The kind of the memory.
    pub kind: &'static str,
    /// How many shares of a read are listed.
    pub top: usize,
    /// Blocks to choose from.
    pub n_pool: usize,
    /// Sums over all reads.
    pub usage: MemoryUse,
    /// The same of what blocks attend to, beside codes.
    pub attended: MemoryUse,
    /// The sequences.
    pub sequences: Vec<ReadSequence>,
    /// How many there are besides.
    pub sequences_left_out: usize,
}

/// What the tokens of a sequence read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadSequence {
    /// The texts of its tokens.
    pub tokens: Vec<String>,
    /// How many tokens there are besides.
    pub tokens_left_out: usize,
    /// The reads, by their tokens and then in the order of the walk.
    pub reads: Vec<ShownRead>,
}

/// One read of one token.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownRead {
    /// The token.
    pub token: usize,
    /// Where in its walk.
    pub at: ReadAt,
    /// What the read counts for.
    pub weight: f32,
    /// The attention to the memory.
    pub of_memory: f32,
    /// The attention to what the block made at this step.
    pub own: f32,
    /// The largest shares, the largest first.
    pub shares: Vec<ShownShare>,
    /// How many others there are.
    pub n_left_out: usize,
    /// Their sum.
    pub left_out: f32,
}

/// The attention to what one token had written at one step.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownShare {
    /// The token.
    pub token: usize,
    /// The step, from 1; 0 is before the walk.
    pub step: usize,
    /// The blocks that the token had run at that step.
    pub blocks: Vec<usize>,
    /// Its share.
    pub share: f32,
}

impl ReadSequence {
    /// The reads of a pass over one sequence, with the `top` largest shares of each.
    pub fn new(walks: &Walks, reads: &[MemoryRead], tokens: Vec<String>, top: usize) -> Self {
        let mut reads: Vec<ShownRead> = reads
            .iter()
            .map(|read| ShownRead::new(walks, read, top))
            .collect();
        // Within a token in the order of the walk: before it decides, in the block that it runs, behind the exit.
        let place = |at| match at {
            ReadAt::Decision { step } => (step, 0),
            ReadAt::Block { step, .. } => (step, 1),
            ReadAt::Exit => (usize::MAX, 0),
        };
        reads.sort_by_key(|read| (read.token, place(read.at)));
        Self {
            tokens,
            tokens_left_out: 0,
            reads,
        }
    }

    /// A token by its place and text.
    pub fn name(&self, token: usize) -> String {
        format!("{token} {}", self.tokens[token])
    }

    /// The reads at which there was something to read.
    pub fn of_something(&self) -> impl Iterator<Item = &ShownRead> {
        self.reads.iter().filter(|read| read.n_shares() > 0)
    }

    /// Whose share it is, in words.
    pub fn source(&self, share: &ShownShare) -> String {
        let blocks: Vec<String> = share.blocks.iter().map(usize::to_string).collect();
        let by = match (share.step, blocks.is_empty()) {
            (0, _) => "before the walk".to_string(),
            (step, true) => format!("step {step}, no block"),
            (step, false) => format!("step {step}, block {}", blocks.join(" + ")),
        };
        format!("{} ({by})", self.name(share.token))
    }

    fn json(&self) -> Value {
        let texts = self.tokens.iter().map(|text| json!({ "text": text }));
        json!({
            "tokens": texts.collect::<Value>(),
            "tokens_left_out": self.tokens_left_out,
            "reads": self.reads.iter().map(ShownRead::json).collect::<Value>(),
        })
    }

    /// What is said where only the first reads of something are shown.
    pub fn notes(&self, n_shown: usize) -> Vec<String> {
        let n_of_something = self.of_something().count();
        let notes = [
            (n_of_something - n_shown, "more reads, which --json lists"),
            (
                self.reads.len() - n_of_something,
                "reads that found nothing of earlier steps yet",
            ),
            (self.tokens_left_out, "more tokens, which are not looked at"),
        ];
        let some = notes.into_iter().filter(|(n, _)| *n > 0);
        some.map(|(n, what)| format!("{what}: {n}")).collect()
    }

    fn line(&self, read: &ShownRead) -> [String; 4] {
        let named = |share: &ShownShare| {
            let (source, share) = (self.source(share), percent(share.share));
            format!("{share} {source}")
        };
        let mut shares: Vec<String> = read.shares.iter().take(IN_A_LINE).map(named).collect();
        let n_more = read.n_shares() - shares.len();
        if n_more > 0 {
            shares.push(format!("and {n_more} more"));
        }
        [
            fitted(&self.name(read.token), 16),
            read.place(),
            percent(read.of_memory),
            shares.join(", "),
        ]
    }
}

impl ShownRead {
    fn new(walks: &Walks, read: &MemoryRead, top: usize) -> Self {
        let mut shares = read.shares.clone();
        shares.sort_by(|a, b| b.share.total_cmp(&a.share));
        let others = shares.split_off(top.min(shares.len()));
        let shown = |share: ReadShare| ShownShare {
            token: share.writer,
            step: share.step,
            blocks: match share.step.checked_sub(1) {
                Some(step) => walks.blocks(step, share.writer),
                None => Vec::new(),
            },
            share: share.share,
        };
        Self {
            token: read.reader,
            at: read.at,
            weight: read.weight,
            of_memory: read.mass(),
            own: read.own,
            shares: shares.into_iter().map(shown).collect(),
            n_left_out: others.len(),
            // A sum of none would be −0.
            left_out: others.iter().fold(0.0, |sum, share| sum + share.share),
        }
    }

    /// How many shares there are.
    pub fn n_shares(&self) -> usize {
        self.shares.len() + self.n_left_out
    }

    /// Where in its walk, in words.
    pub fn place(&self) -> String {
        match self.at {
            ReadAt::Decision { step } => format!("before step {step}"),
            ReadAt::Block { step, block } => format!("step {step}, block {block}"),
            ReadAt::Exit => "behind the exit".to_string(),
        }
    }

    fn json(&self) -> Value {
        let (at, step, block) = match self.at {
            ReadAt::Decision { step } => ("decision", Some(step), None),
            ReadAt::Block { step, block } => ("block", Some(step), Some(block)),
            ReadAt::Exit => ("exit", None, None),
        };
        let share = |share: &ShownShare| {
            json!({
                "token": share.token,
                "step": share.step,
                "blocks": share.blocks,
                "share": rounded(share.share),
            })
        };
        json!({
            "token": self.token,
            "at": at,
            "step": step,
            "block": block,
            "weight": rounded(self.weight),
            "of_memory": rounded(self.of_memory),
            "own": rounded(self.own),
            "shares": self.shares.iter().map(share).collect::<Value>(),
            "left_out": { "shares": self.n_left_out, "sum": rounded(self.left_out) },
        })
    }
}

impl MemoryReport {
    /// The report as JSON.
    pub fn json(&self) -> Value {
        let sequences = self.sequences.iter().map(ReadSequence::json);
        json!({
            "schema": 1,
            "title": self.title,
            "memory": self.kind,
            "n_pool": self.n_pool,
            "top": self.top,
            "numbers": self.named().into_iter().collect::<Value>(),
            "sequences": sequences.collect::<Value>(),
            "sequences_left_out": self.sequences_left_out,
        })
    }

    /// The report for a terminal of this width: the numbers, and the reads of the first sequence.
    pub fn terminal(&self, width: usize) -> String {
        let title = escape::terminal(&self.title);
        let mut parts = vec![format!("{title}, memory {}\n", self.kind)];
        parts.push(aligned(&self.numbers()));
        if let Some(sequence) = self.sequences.first() {
            let reads = sequence.of_something().take(MOST_LINES);
            let head = "token | read | of memory | the largest shares";
            let lines = table(head, reads.map(|read| sequence.line(read)));
            let lines = lines.lines().map(|line| fitted(line, width) + "\n");
            parts.push(lines.collect());
            let n_shown = sequence.of_something().count().min(MOST_LINES);
            parts.extend(lines_of(sequence.notes(n_shown)));
        }
        parts.extend(self.more_sequences().map(|line| line + "\n"));
        parts.join("\n")
    }

    /// The report as one self-contained HTML page.
    pub fn html(&self) -> String {
        page::page(self)
    }

    /// The reads of the first sequence as a standalone SVG.
    pub fn svg(&self) -> String {
        let nothing = ReadSequence::default();
        picture::map(self.sequences.first().unwrap_or(&nothing))
    }

    fn named(&self) -> Vec<(String, f64)> {
        let mut named = self.usage.named("memory");
        named.extend(self.attended.named("attended"));
        named
    }

    /// Means over all reads, as rows of a table.
    pub(super) fn numbers(&self) -> Vec<[String; 2]> {
        super::super::report::rows(self.named())
    }

    /// What is said of sequences that are not shown.
    pub(super) fn more_sequences(&self) -> Option<String> {
        let n = self.sequences_left_out;
        (n > 0).then(|| format!("more sequences, of which --sequences shows some: {n}"))
    }
}

/// A share in percent.
pub(super) fn percent(share: f32) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Single precision has no more digits.
fn rounded(share: f32) -> f64 {
    (f64::from(share) * 1e6).round() / 1e6
}

/// Lines as one part of a text, if there are any.
fn lines_of(lines: Vec<String>) -> Option<String> {
    (!lines.is_empty()).then(|| lines.join("\n") + "\n")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use brian::route::trace::Decisions;

    /// Three tokens in a pool of two with three steps, of which the second token mixes the first one's; what the last two tokens read.
    pub fn report(texts: [&str; 3], top: usize) -> MemoryReport {
        let step = |actions: [usize; 3], fused: [bool; 3]| Decisions {
            actions: actions.to_vec(),
            fused: fused.to_vec(),
            likeliest: [1, 0].repeat(3),
            ..Decisions::default()
        };
        let walks = Walks {
            batch: 1,
            seq: 3,
            n_pool: 2,
            max_steps: 3,
            hard_exit: false,
            steps: vec![
                step([0, 1, 2], [false, true, false]),
                step([2, 0, 1], [false; 3]),
                step([0, 0, 1], [false; 3]),
            ],
            ..Walks::default()
        };
        let share = |(writer, step, share): (usize, usize, f32)| ReadShare {
            writer,
            step,
            share,
        };
        let read = |reader, at, shares: &[(usize, usize, f32)], own| MemoryRead {
            reader,
            at,
            weight: 1.0,
            shares: shares.iter().copied().map(share).collect(),
            own,
        };
        let block = |step, block| ReadAt::Block { step, block };
        let reads = [
            read(1, block(1, 1), &[], 1.0),
            read(2, block(2, 1), &[(0, 1, 0.25), (1, 1, 0.125)], 0.625),
            read(1, block(2, 0), &[(0, 1, 0.5), (1, 0, 0.25)], 0.25),
            read(
                2,
                ReadAt::Exit,
                &[(0, 2, 0.5), (1, 2, 0.375), (2, 1, 0.125)],
                0.0,
            ),
        ];
        let texts = texts.map(str::to_string).to_vec();
        let usage = MemoryUse {
            reads: 4.0,
            mass: vec![1.125],
            share: None,
            open: 2.0,
        };
        MemoryReport {
            title: "run <1>".to_string(),
            kind: "key_value_prefix",
            top,
            n_pool: 2,
            usage,
            attended: MemoryUse::default(),
            sequences: vec![ReadSequence::new(&walks, &reads, texts, top)],
            sequences_left_out: 0,
        }
    }

    #[test]
    fn a_share_names_the_token_the_step_and_the_blocks_that_wrote() {
        let json = report(["a", "b", "c"], 9).json();
        let reads = json["sequences"][0]["reads"].as_array().unwrap();
        let tokens: Vec<u64> = reads
            .iter()
            .map(|read| read["token"].as_u64().unwrap())
            .collect();
        assert_eq!(tokens, [1, 1, 2, 2], "token by token");
        assert_eq!(
            reads[1],
            json!({
                "token": 1, "at": "block", "step": 2, "block": 0, "weight": 1.0, "of_memory": 0.75, "own": 0.25,
                "shares": [
                    { "token": 0, "step": 1, "blocks": [0], "share": 0.5 },
                    { "token": 1, "step": 0, "blocks": [], "share": 0.25 },
                ],
                "left_out": { "shares": 0, "sum": 0.0 },
            })
        );
        assert_eq!(reads[2]["shares"][1]["blocks"], json!([1, 0]), "mixed");
        assert_eq!(
            reads[3]["shares"][0]["blocks"],
            json!([]),
            "it passed the step"
        );
        assert_eq!(
            (&reads[3]["at"], &reads[3]["step"]),
            (&json!("exit"), &json!(null))
        );
        assert_eq!(json["numbers"]["memory/open"], 0.5);
        assert_eq!(json["sequences"][0]["tokens"][2]["text"], "c");
    }

    #[test]
    fn what_is_not_listed_is_counted() {
        let json = report(["a", "b", "c"], 1).json();
        let read = &json["sequences"][0]["reads"][3];
        assert_eq!(read["shares"].as_array().unwrap().len(), 1);
        assert_eq!(read["shares"][0]["share"], 0.5, "the largest");
        assert_eq!(read["left_out"], json!({ "shares": 2, "sum": 0.5 }));
        let mut short = report(["a", "b", "c"], 1);
        short.sequences_left_out = 7;
        short.sequences[0].tokens_left_out = 5;
        for text in [short.terminal(100), short.html()] {
            for said in [
                "--sequences shows some: 7",
                "not looked at: 5",
                "found nothing of earlier steps yet: 1",
            ] {
                assert!(text.contains(said), "{said}: {text}");
            }
        }
        assert!(short.terminal(100).contains("and 2 more"));
    }

    #[test]
    fn a_terminal_shows_who_read_what_and_no_line_is_too_wide() {
        let text = report(["one", "\x1b[31m", "c"], 9).terminal(80);
        assert!(text.contains("step 2, block 0"), "{text}");
        assert!(text.contains("75.0 %"), "{text}");
        assert!(text.contains("50.0 % 0 one (step 1, block 0)"), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
        let wide = text
            .lines()
            .filter(|line| line.chars().count() > 80)
            .count();
        assert_eq!(wide, 0, "{text}");
    }
}
