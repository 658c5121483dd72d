//! `nerve data ngrams`: losses of n-gram models of a training split on other splits, estimated and queried as by KenLM.
//!
//! The targets are those of `nerve eval`: every token of every document, its end included, after the start symbol.

use std::f64::consts::LN_2;
use std::path::Path;

use serde_json::{Value, json};

use super::answer::{aligned, note_sorted_on_disk, print, print_json};
use crate::cli::data::NgramsArgs;
use crate::collective::{Ranks, on_ranks};
use crate::data::count::{Counted, Ngram, Room, is_of_rank, ngrams};
use crate::data::manifest::DocumentEntry;
use crate::data::ngram::{FALLBACK_DISCOUNTS, Fallback, Totals, Wanted};
use crate::data::{Split, StartRule, Tokenizer};
use crate::error::{Error, Problem};
use crate::say::note;
use crate::task::ratio_standard_error;

/// Orders where none is asked for.
const ORDERS: [usize; 4] = [1, 2, 3, 5];

/// The highest order that can be asked for.
const ORDER_MAX: usize = 16;

/// Estimates models of every order and prints one row of each for each held-out split. On several ranks each counts the n-grams that end
/// with some of the tokens.
///
/// # Errors
/// `Config` for an invalid order; `Invalid` if a split is broken, was made with another tokenizer, has nothing to predict
/// or a token that the models cannot predict, or if no training document is as long as an order that was asked for; `Resource` if what does
/// not fit into memory cannot be written.
pub fn run(arguments: &NgramsArgs) -> Result<(), Error> {
    on_ranks(arguments.room.longest_wait(), |ranks| {
        count_and_measure(arguments, ranks)
    })
}

fn count_and_measure(arguments: &NgramsArgs, ranks: &Ranks) -> Result<(), Error> {
    let open = || {
        check_orders(&arguments.order)?;
        let train = Split::open_on_disk(&arguments.split)?;
        let text = Text::open(&train, arguments.start)?;
        let mut held_out = Vec::new();
        for path in &arguments.valid {
            held_out.push(HeldOut::new(open_like(path, &train)?, &text));
        }
        Ok((train, text, held_out))
    };
    let (train, text, held_out) = ranks.agree(open())?;
    let orders = match arguments.order.is_empty() {
        true => &ORDERS[..],
        false => &arguments.order,
    };
    let counting = Counting {
        ranks,
        room: arguments.room.room(),
        wanted_bytes: arguments.room.bytes() / 4,
    };
    let longest = orders.iter().copied().max().unwrap_or(1);
    let counted = counting.count(&train, &text, longest)?;
    note_sorted_on_disk(counted.runs());
    let measured = counting.measure(counted.as_ref(), &text, &held_out, orders)?;
    let rows = measured.rows(arguments, &train, &text, &held_out, orders);
    let rows = ranks.said_once(rows)?;
    if !ranks.is_first() {
        return Ok(());
    }
    let n_predictable = measured.n_predictable();
    say_context(&text, &train, n_predictable);
    answer(arguments, &text, n_predictable, &rows)
}

fn check_orders(orders: &[usize]) -> Result<(), Error> {
    let mut orders = orders.iter();
    let Some(wrong) = orders.find(|order| !(1..=ORDER_MAX).contains(*order)) else {
        return Ok(());
    };
    let expected = format!("1 to {ORDER_MAX}");
    let problem = Problem::new("command line", "--order", wrong.to_string(), expected);
    Err(Error::config(problem))
}

/// A split to measure, in memory.
struct HeldOut {
    split: Split,
    sequences: Vec<Vec<u32>>,
}

impl HeldOut {
    fn new(split: Split, text: &Text) -> Self {
        let sequences = text.sequences(&split);
        Self { split, sequences }
    }

    /// The places at which something is predicted, with the number of their document.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let sequences = self.sequences.iter().enumerate();
        sequences.flat_map(|(document, of)| (1..of.len()).map(move |place| (document, place)))
    }
}

/// Who counts, and in how much memory.
struct Counting<'a> {
    ranks: &'a Ranks,
    room: Room,
    /// What the counts of n-grams may take that are looked up in one pass.
    wanted_bytes: usize,
}

impl Counting<'_> {
    /// Counts the n-grams of a training split that end with the tokens of this rank.
    fn count(&self, train: &Split, text: &Text, longest: usize) -> Result<Box<dyn Counted>, Error> {
        let ends = |token: u32| is_of_rank(token, self.ranks.rank(), self.ranks.size());
        let counted = ngrams(longest, &self.room, &ends, &mut |take| {
            train.documents().iter().try_for_each(|document| {
                let context = text.context();
                context
                    .iter()
                    .try_for_each(|&symbol| take(true, &[symbol]))?;
                let begins = context.is_none();
                let mut pieces = train.pieces(document);
                let mut first = true;
                pieces.try_for_each(|piece| take(begins && std::mem::take(&mut first), &piece?))
            })
        });
        self.ranks.agree(counted)
    }

    /// Reads the counts once, or several times where what is wanted does not fit into memory at once.
    fn measure(
        &self,
        counted: &dyn Counted,
        text: &Text,
        held_out: &[HeldOut],
        orders: &[usize],
    ) -> Result<Measured, Error> {
        let longest = orders.iter().copied().max().unwrap_or(1);
        let mut measured = Measured::new(held_out, orders);
        let places = held_out.iter().enumerate();
        let places = places.flat_map(|(split, of)| of.places().map(move |place| (split, place)));
        let mut places = places.peekable();
        let mut is_first = true;
        while is_first || places.peek().is_some() {
            let (mut wanted, mut block) = (Wanted::default(), Vec::new());
            while let Some((split, (document, place))) =
                places.next_if(|_| wanted.bytes() < self.wanted_bytes || block.is_empty())
            {
                wanted.want(&held_out[split].sequences[document], place, longest);
                block.push((split, document, place));
            }
            let mut part = Totals::default();
            let read = counted.each(&mut |ngram: Ngram<'_>| {
                if ngram.reversed.len() <= longest {
                    wanted.add(&ngram);
                    if is_first {
                        part.add(&ngram);
                    }
                }
            });
            self.ranks.agree(read)?;
            if is_first {
                measured.totals = Totals::sum(self.ranks.gather(&part));
                measured.predictable = text.predictable(measured.totals.events());
                held_out
                    .iter()
                    .try_for_each(|of| of.require_predictable(&measured.predictable))?;
            }
            wanted.set(&self.ranks.gather(&wanted.found()));
            measured.add(&wanted, &block, held_out, orders);
            is_first = false;
        }
        Ok(measured)
    }
}

impl HeldOut {
    /// Whether every token can be predicted that has to be.
    fn require_predictable(&self, predictable: &[bool]) -> Result<(), Error> {
        let is_wrong = |sequence: &Vec<u32>| {
            let mut events = sequence.iter().skip(1);
            events.any(|&event| !predictable[event as usize])
        };
        let Some(wrong) = self.sequences.iter().position(is_wrong) else {
            return Ok(());
        };
        let start = self.split.documents()[wrong].start;
        let place = format!("the document at token {start}");
        let found = "the start symbol or padding inside of it";
        let expected = "tokens that can be predicted";
        let problem = Problem::new(self.split.path(), place, found, expected);
        let advice = "prepare the data again with specials in texts read as text";
        Err(Error::Invalid(problem.advise(advice)))
    }
}

/// What models of every order lose in every document of every split.
struct Measured {
    totals: Totals,
    predictable: Vec<bool>,
    /// By order, split and document.
    nats: Vec<Vec<Vec<f64>>>,
}

impl Measured {
    fn new(held_out: &[HeldOut], orders: &[usize]) -> Self {
        let nothing = held_out.iter().map(|of| vec![0.0; of.sequences.len()]);
        Self {
            totals: Totals::default(),
            predictable: Vec::new(),
            nats: vec![nothing.collect(); orders.len()],
        }
    }

    fn n_predictable(&self) -> usize {
        self.predictable.iter().filter(|&&it| it).count()
    }

    fn add(
        &mut self,
        wanted: &Wanted,
        block: &[(usize, usize, usize)],
        held_out: &[HeldOut],
        orders: &[usize],
    ) {
        let n_predictable = self.n_predictable();
        for (&order, nats) in orders.iter().zip(&mut self.nats) {
            let models = wanted.model(&self.totals, order, n_predictable);
            for &(split, document, place) in block {
                let sequence = &held_out[split].sequences[document];
                nats[split][document] += models.loss(sequence, place);
            }
        }
    }

    /// One row per order and split; says which orders are left out, and where discounts could not be estimated.
    fn rows(
        &self,
        arguments: &NgramsArgs,
        train: &Split,
        text: &Text,
        held_out: &[HeldOut],
        orders: &[usize],
    ) -> Result<Vec<MeasuredOrder>, Error> {
        let (mut rows, mut said) = (Vec::new(), Vec::new());
        for (&order, nats) in orders.iter().zip(&self.nats) {
            if self.totals.longest() < order {
                let problem = too_short(train, self.totals.longest(), order);
                match arguments.order.is_empty() {
                    true => note(&problem.to_string()),
                    false => return Err(Error::Invalid(problem)),
                }
                continue;
            }
            say_fallbacks(&self.totals.fallbacks(order), &mut said);
            for (of, nats) in held_out.iter().zip(nats) {
                rows.push(measured_order(&self.totals, order, text, of, nats)?);
            }
        }
        Ok(rows)
    }
}

fn too_short(train: &Split, longest: usize, order: usize) -> Problem {
    let found = format!("no n-gram of more than {longest} tokens, start symbol included");
    let expected = format!("some of {order} for --order {order}");
    let advice = format!("an order of at most {longest} is the same model");
    Problem::new(train.path(), "", found, expected).advise(advice)
}

/// How documents become sequences, and what their tokens stand for.
struct Text {
    start: Option<u32>,
    /// What nothing predicts: the start symbol, whether it is put in or not, and padding.
    never: Vec<u32>,
    vocabulary: usize,
    token_bytes: Vec<u32>,
}

impl Text {
    fn open(train: &Split, rule: StartRule) -> Result<Self, Error> {
        // The split's directory keeps the tokenizer that made it.
        let file = train.path().with_file_name("tokenizer.json");
        let tokenizer = Tokenizer::load(&file)?;
        if tokenizer.sha256() != train.tokenizer_sha256() {
            let expected = "the tokenizer that made the data beside it";
            let problem = Problem::new(&file, "", "another tokenizer", expected);
            return Err(Error::Invalid(problem.advise("prepare the data again")));
        }
        train.require(&tokenizer, "prepare the data again")?;
        let never = [tokenizer.start_symbol(), tokenizer.specials().pad];
        Ok(Self {
            start: match rule {
                StartRule::Symbol => tokenizer.start_symbol(),
                StartRule::FirstToken => None,
            },
            never: never.into_iter().flatten().collect(),
            vocabulary: tokenizer.vocabulary_size(),
            token_bytes: tokenizer.token_bytes(),
        })
    }

    /// What stands before a document: an id of its own, because a symbol that also ends documents can be predicted.
    fn context(&self) -> Option<u32> {
        self.start.map(|_| self.vocabulary as u32)
    }

    /// The documents; the first token of each sequence is context only.
    fn sequences(&self, split: &Split) -> Vec<Vec<u32>> {
        let sequence = |document: &DocumentEntry| {
            let tokens = split.tokens(document.range());
            self.context().into_iter().chain(tokens).collect()
        };
        split.documents().iter().map(sequence).collect()
    }

    /// All ids but the start symbol and padding, unless documents hold them all the same, as they do a symbol that also ends
    /// them.
    fn predictable(&self, events: &[u32]) -> Vec<bool> {
        let mut predictable = vec![true; self.vocabulary];
        for &special in &self.never {
            predictable[special as usize] = false;
        }
        predictable.extend(self.context().map(|_| false));
        for &event in events {
            predictable[event as usize] = true;
        }
        predictable
    }
}

fn open_like(path: &Path, train: &Split) -> Result<Split, Error> {
    let split = Split::open(path)?;
    split.require_like(train)?;
    let says = |split: &Split| match split.ends_documents() {
        true => "end with a symbol",
        false => "do not",
    };
    if says(&split) != says(train) {
        let (held_out, train_path) = (path.display(), train.path().display());
        let (here, there) = (says(&split), says(train));
        note(&format!(
            "documents of {held_out} {here}, those of {train_path} {there}: ends count in one of them only"
        ));
    }
    Ok(split)
}

/// A held-out split measured with one model.
struct MeasuredOrder {
    split: String,
    order: usize,
    documents: usize,
    targets: u64,
    bytes: u64,
    nats: f64,
    standard_error: Option<f64>,
    fallbacks: Vec<usize>,
    stored: u64,
}

impl MeasuredOrder {
    fn loss(&self) -> f64 {
        self.nats / self.targets as f64
    }

    fn bits_per_byte(&self) -> Option<f64> {
        (self.bytes > 0).then(|| self.nats / LN_2 / self.bytes as f64)
    }
}

fn measured_order(
    totals: &Totals,
    order: usize,
    text: &Text,
    of: &HeldOut,
    nats: &[f64],
) -> Result<MeasuredOrder, Error> {
    let split = &of.split;
    let mut per_document = Vec::new();
    let mut bytes = 0;
    let documents = split.documents().iter().zip(&of.sequences).zip(nats);
    for ((document, sequence), nats) in documents {
        let targets = sequence.len() - 1;
        if targets > 0 {
            per_document.push((*nats, targets as u64));
            let end = document.range().end;
            bytes += split.span_bytes(end - targets..end, &text.token_bytes);
        }
    }
    let targets = per_document.iter().map(|(_, targets)| targets).sum();
    if targets == 0 {
        let found = format!("{} documents of one token each", split.documents().len());
        let expected = "something to predict: the first token of a document is only context here";
        let problem = Problem::new(split.path(), "", found, expected);
        let advice = "prepare longer documents, or with an end of each";
        return Err(Error::Invalid(problem.advise(advice)));
    }
    Ok(MeasuredOrder {
        split: split.path().display().to_string(),
        order,
        documents: per_document.len(),
        targets,
        bytes,
        nats: per_document.iter().map(|(nats, _)| nats).sum(),
        standard_error: ratio_standard_error(&per_document),
        fallbacks: totals.fallbacks(order).iter().map(|it| it.order).collect(),
        stored: totals.stored(order),
    })
}

/// Says each once, though models of several orders share their lower ones.
fn say_fallbacks(fallbacks: &[Fallback], said: &mut Vec<Fallback>) {
    for fallback in fallbacks {
        if said.contains(fallback) {
            continue;
        }
        said.push(*fallback);
        let length = fallback.order;
        let [one, two, three, four] = fallback.counts_of_counts;
        let [first, second, third] = FALLBACK_DISCOUNTS;
        let reason = match length {
            1 => "usual where few different tokens are",
            _ => "usual where some of the text is there more than once",
        };
        note(&format!(
            "warning: discounts of {length}-grams cannot be estimated, for {one}, {two}, {three} and {four} of them have count 1, \
             2, 3 and 4 ({reason}): {first}, {second} and {third} are taken instead"
        ));
    }
}

fn say_context(text: &Text, train: &Split, n_predictable: usize) {
    let context = match text.start {
        Some(symbol) => format!("the start symbol (id {symbol}) is the context of the first token"),
        None => "the first token of a document is context only and does not count".to_string(),
    };
    let end = match train.ends_documents() {
        true => "the end of a document is predicted",
        false => "documents have no end to predict",
    };
    note(&format!(
        "{context}, {end}, {n_predictable} ids can be predicted"
    ));
}

fn answer(
    arguments: &NgramsArgs,
    text: &Text,
    n_predictable: usize,
    rows: &[MeasuredOrder],
) -> Result<(), Error> {
    if arguments.json {
        let start = match text.start {
            Some(_) => StartRule::Symbol,
            None => StartRule::FirstToken,
        };
        let row = |row: &MeasuredOrder| {
            json!({
                "split": row.split, "order": row.order, "documents": row.documents, "tokens": row.targets,
                "targets": row.targets, "bytes": row.bytes, "loss/lm": row.loss(),
                "standard_error": row.standard_error, "perplexity": row.loss().exp(),
                "bits_per_byte": row.bits_per_byte(), "fallback_discounts": row.fallbacks,
                "stored_ngrams": row.stored,
            })
        };
        return print_json(&json!({
            "schema": 1, "start": start, "start_symbol": text.start,
            "predictable_ids": n_predictable,
            "rows": rows.iter().map(row).collect::<Vec<Value>>(),
        }));
    }
    let head = [
        "split",
        "order",
        "documents",
        "targets",
        "bytes",
        "loss/lm",
        "standard error",
        "perplexity",
        "bits per byte",
        "stored n-grams",
    ];
    let mut table = vec![head.map(str::to_string)];
    let digits = |value: Option<f64>, places: usize| {
        value.map_or("-".to_string(), |value| format!("{value:.places$}"))
    };
    table.extend(rows.iter().map(|row| {
        [
            row.split.clone(),
            row.order.to_string(),
            row.documents.to_string(),
            row.targets.to_string(),
            row.bytes.to_string(),
            format!("{:.6}", row.loss()),
            digits(row.standard_error, 6),
            format!("{:.4}", row.loss().exp()),
            digits(row.bits_per_byte(), 4),
            row.stored.to_string(),
        ]
    }));
    print(&aligned(&table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::shard::tests::split_of_lines;

    const LINES: [&str; 5] = ["abab", "\u{e9}a", "b", "abc", "ab"];
    const END: u32 = 257;

    fn text(start: Option<u32>) -> Text {
        Text {
            start,
            never: vec![start.unwrap_or(256), 258],
            vocabulary: 260,
            token_bytes: (0..260).map(|id| u32::from(id < 256)).collect(),
        }
    }

    #[test]
    fn a_row_is_the_sum_over_all_targets_of_all_documents() {
        let split = Split::open(split_of_lines(&LINES)).unwrap();
        for start in [Some(256), Some(END), None] {
            let text = text(start);
            let counting = Counting {
                ranks: &Ranks::alone(),
                room: Room {
                    bytes: 1 << 16,
                    folder: std::env::temp_dir(),
                },
                // A few places at a time.
                wanted_bytes: 4000,
            };
            let counted = counting.count(&split, &text, 4).unwrap();
            let split = Split::open(split.path()).unwrap();
            let of = HeldOut::new(split, &text);
            let orders = [1, 2, 3, 4];
            let held_out = std::slice::from_ref(&of);
            let measured = counting.measure(counted.as_ref(), &text, held_out, &orders);
            let measured = measured.unwrap();
            for order in orders {
                let nats = &measured.nats[order - 1][0];
                let row = measured_order(&measured.totals, order, &text, &of, nats).unwrap();
                let mut documents = Vec::new();
                let mut bytes = 0;
                for line in LINES {
                    let ids = line.bytes().map(u32::from).chain([END]);
                    // The symbol in front has an id behind all others.
                    let ids: Vec<u32> = start.map(|_| 260).into_iter().chain(ids).collect();
                    let mut wanted = Wanted::default();
                    (1..ids.len()).for_each(|place| wanted.want(&ids, place, 4));
                    counted.each(&mut |ngram| wanted.add(&ngram)).unwrap();
                    let model = wanted.model(&measured.totals, order, measured.n_predictable());
                    let nats = (1..ids.len()).map(|place| model.loss(&ids, place));
                    documents.push((nats.sum::<f64>(), ids.len() as u64 - 1));
                    // Without a symbol the first byte is context only.
                    bytes += line.len() as u64 - u64::from(start.is_none());
                }
                let nats: f64 = documents.iter().map(|(nats, _)| nats).sum();
                let targets = if start.is_some() { 18 } else { 13 };
                assert_eq!((row.targets, row.documents, row.bytes), (targets, 5, bytes));
                assert!((row.nats - nats).abs() < 1e-9, "order {order}");
                assert!((row.loss() - nats / targets as f64).abs() < 1e-12);
                let bits = row.bits_per_byte().unwrap();
                assert!((bits - nats / 2f64.ln() / bytes as f64).abs() < 1e-12);
                assert_eq!(row.standard_error, ratio_standard_error(&documents));
                assert_eq!(
                    (row.order, row.stored),
                    (order, measured.totals.stored(order))
                );
            }
        }
    }

    #[test]
    fn what_nothing_predicts_is_the_symbol_in_front_and_padding() {
        let split = Split::open(split_of_lines(&LINES)).unwrap();
        let of = |start| {
            let text = text(start);
            let sequences = text.sequences(&split);
            text.predictable(
                &sequences
                    .iter()
                    .flat_map(|of| &of[1..])
                    .copied()
                    .collect::<Vec<_>>(),
            )
        };
        for (start, length, never) in [
            (Some(256), 261, &[256, 258, 260][..]),
            // A symbol that also ends documents is predicted there.
            (Some(END), 261, &[258, 260]),
            (None, 260, &[256, 258]),
        ] {
            let predictable = of(start);
            assert_eq!(predictable.len(), length);
            let found: Vec<usize> = (0..length).filter(|&id| !predictable[id]).collect();
            assert_eq!(found, never, "{start:?}");
        }
    }

    #[test]
    fn an_order_is_from_one_to_sixteen() {
        for orders in [&[][..], &[1], &[16], &[3, 2, 1]] {
            assert!(check_orders(orders).is_ok());
        }
        for orders in [&[0][..], &[17], &[1, 17]] {
            let error = check_orders(orders).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("expected 1 to 16"), "{error}");
        }
    }
}
