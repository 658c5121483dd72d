//! Tests of tables in shards against whole ones: steps, losses and candidates have equal bits for any number of processes, which are
//! threads here.

use super::tests::{ADAMW, NODES, Text, competition, groups, models};
use crate::candidate::Candidates;
use crate::generate::{Candidate, Decoding, SignalState};
use crate::graph::Graph;
use crate::model::{BackOffRows, BriLlm, row_places};
use crate::prior::Prior;
use crate::row_adamw::Mode;
use crate::shard::Peers;
use crate::table::{Storage, Table};
use crate::training::RowAdamW;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

struct Thread {
    rank: usize,
    to: Vec<Mutex<Sender<Vec<u8>>>>,
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
}

impl Peers for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn exchange(&self, to: &[&[u8]], from: &mut [&mut [u8]]) {
        for (sender, bytes) in self.to.iter().zip(to) {
            sender.lock().unwrap().send(bytes.to_vec()).unwrap();
        }
        for (receiver, bytes) in self.from.iter().zip(from) {
            bytes.copy_from_slice(&receiver.lock().unwrap().recv().unwrap());
        }
    }
}

fn threads(size: usize) -> Vec<Arc<Thread>> {
    let mut of: Vec<(Vec<_>, Vec<_>)> = (0..size).map(|_| (Vec::new(), Vec::new())).collect();
    for from in 0..size {
        for to in 0..size {
            let (sender, receiver) = channel();
            of[from].0.push(Mutex::new(sender));
            of[to].1.push(Mutex::new(receiver));
        }
    }
    let threads = of.into_iter().enumerate();
    threads
        .map(|(rank, (to, from))| Arc::new(Thread { rank, to, from }))
        .collect()
}

/// What a table is trained as.
#[derive(Clone, Copy, Debug)]
struct How {
    mode: Mode,
    storage: Storage,
    back_off_rows: BackOffRows,
    candidates: Candidates,
}

/// All bits that a training leaves: of numbers beside the table, of every row with its moments, of losses and of candidates.
#[derive(Debug, PartialEq)]
struct Left {
    rest: Vec<u32>,
    rows: Vec<(usize, Vec<u32>)>,
    losses: Vec<u64>,
    candidates: Vec<(u32, usize, u32, u32)>,
}

/// Trains the model, of which this process holds some rows or all.
fn trained(mut model: BriLlm, how: How) -> Left {
    let competes = competition(&model, how.candidates, Prior::Bigram, &[NODES as u32 - 1]);
    let mut optimizer = RowAdamW::new(&model, how.mode, ADAMW, Some(0.05));
    let mut losses = Vec::new();
    for step in 0..4 {
        let text = Text::new(step, 5, 7, NODES - 2);
        let groups = groups(&model, &text, &competes);
        let learnt = optimizer.step(&mut model, &text.paths(), &groups, 0.02);
        losses.extend(learnt.nats);
        losses.push(learnt.gradient_norm);
    }
    optimizer.catch_up(&mut model);
    let everybody = competes.evaluation();
    let text = Text::new(9, 4, 6, NODES - 2);
    losses.extend(model.token_losses(&text.paths(), &groups(&model, &text, &everybody)));
    let mut state = SignalState::start(&model, 3);
    let mut candidates = Vec::new();
    for token in [0, 1, 5, 0] {
        let all = state.candidates(&model, &everybody, Decoding::NATIVE);
        let bits = |one: Candidate| {
            (
                one.target,
                one.row,
                one.energy.to_bits(),
                one.score.to_bits(),
            )
        };
        candidates.extend(all.into_iter().map(bits));
        state.advance(&model, Decoding::NATIVE, token);
    }
    let d = model.config.d_node;
    let row = |(place, row): (usize, usize)| {
        let edges = &optimizer.edges;
        let tables = [&model.parameters.edges, &edges.first, &edges.second];
        let values = tables.map(|table| table.part(row_places(place, d)).into_owned());
        let mut bits: Vec<u32> = values.concat().into_iter().map(f32::to_bits).collect();
        bits.extend([edges.touched[place], edges.current[place]]);
        (row, bits)
    };
    let rest = [
        &model.parameters.mix,
        &model.parameters.node_bias,
        &model.parameters.codes,
    ];
    let moments = [&optimizer.mix, &optimizer.node_bias, &optimizer.codes]
        .into_iter()
        .flatten();
    let rest = rest.into_iter().chain(moments).flatten();
    Left {
        rest: rest.map(|value| value.to_bits()).collect(),
        rows: model
            .graph
            .numbers_here()
            .into_iter()
            .enumerate()
            .map(row)
            .collect(),
        losses: losses.into_iter().map(f64::to_bits).collect(),
        candidates,
    }
}

/// The part of a model that a process holds.
fn part(model: &BriLlm, thread: &Arc<Thread>) -> BriLlm {
    let d = model.config.d_node;
    let graph = model.graph.as_ref().clone().shared_among(thread.clone());
    let mut edges = Table::zeros(
        model.config.storage,
        graph.rows_here() * model.config.row_len(),
    );
    for (place, row) in graph.numbers_here().into_iter().enumerate() {
        edges.set(row_places(place, d).start, &model.parameters.edge(row, d));
    }
    let mut part = model.clone();
    part.parameters.edges = edges;
    part.graph = Arc::new(graph);
    part
}

fn require_equal_bits(model: &BriLlm, how: How, sizes: std::ops::RangeInclusive<usize>) {
    let mut model = model.clone();
    model.config.storage = how.storage;
    model.config.back_off_rows = how.back_off_rows;
    model.parameters.edges = model.parameters.edges.stored_as(how.storage);
    let whole = trained(model.clone(), how);
    assert_eq!(whole.rows.len(), model.graph.rows());
    for size in sizes {
        let parts: Vec<Left> = thread::scope(|scope| {
            let of = |thread: Arc<Thread>| {
                let model = &model;
                scope.spawn(move || trained(part(model, &thread), how))
            };
            let running: Vec<_> = threads(size).into_iter().map(of).collect();
            running.into_iter().map(|of| of.join().unwrap()).collect()
        });
        let context = || format!("{size} processes, {how:?}, {:?}", model.config.flow);
        let mut rows = vec![None; model.graph.rows()];
        for part in parts {
            assert_eq!(part.rest, whole.rest, "{}", context());
            assert_eq!(part.losses, whole.losses, "{}", context());
            assert_eq!(part.candidates, whole.candidates, "{}", context());
            for (row, bits) in part.rows {
                // Back-off rows lie in every process, all others in one.
                assert!(rows[row].is_none() || !model.graph.is_own(row), "{row}");
                rows[row] = Some(bits);
            }
        }
        for (row, bits) in whole.rows.iter() {
            assert_eq!(rows[*row].as_ref(), Some(bits), "row {row}: {}", context());
        }
    }
}

#[test]
fn a_table_in_shards_is_trained_read_and_continued_with_the_bits_of_a_whole_one() {
    let exact = How {
        mode: Mode::Exact,
        storage: Storage::F32,
        back_off_rows: BackOffRows::Trained,
        candidates: Candidates::All,
    };
    let touched = How {
        mode: Mode::Touched,
        ..exact
    };
    for model in models() {
        require_equal_bits(&model, exact, 1..=5);
        for candidates in [Candidates::Frequent { n: 2 }, Candidates::Sampled { n: 3 }] {
            require_equal_bits(
                &model,
                How {
                    candidates,
                    ..touched
                },
                2..=3,
            );
        }
        let dense = How {
            mode: Mode::Dense,
            back_off_rows: BackOffRows::Frozen,
            ..exact
        };
        require_equal_bits(&model, dense, 3..=3);
        let halves = How {
            storage: Storage::Bf16,
            ..touched
        };
        require_equal_bits(&model, halves, 2..=4);
    }
}

#[test]
fn shards_are_of_equal_size_and_every_row_is_found_where_it_lies() {
    for model in models() {
        let (graph, rows) = (&model.graph, model.graph.rows());
        for size in 1..=4 {
            let parts: Vec<_> = threads(size)
                .into_iter()
                .map(|thread| graph.as_ref().clone().shared_among(thread))
                .collect();
            let own = |part: &Graph| part.rows_here() - graph.back_off_rows();
            let sizes: Vec<usize> = parts.iter().map(own).collect();
            assert_eq!(sizes.iter().sum::<usize>(), graph.edges());
            let longest = (0..NODES as u32)
                .map(|source| graph.targets(source).len())
                .max();
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(most - least <= longest.unwrap(), "{sizes:?}");
            for part in &parts {
                for (place, row) in part.numbers_here().into_iter().enumerate() {
                    let source = graph.pair(row).map_or(0, |(source, _)| source);
                    assert_eq!(part.place(source, row), place);
                }
            }
            for range in [
                0..rows,
                0..1,
                1..rows - 1,
                rows / 2..rows,
                3..3,
                rows - 1..rows,
            ] {
                let mut found = Vec::new();
                for (rank, part) in parts.iter().enumerate() {
                    for (source, piece) in part.pieces_of(rank, range.clone()) {
                        let places = part.place_of_piece(source, &piece);
                        let numbers = part.numbers_here();
                        assert_eq!(numbers[places].to_vec(), piece.clone().collect::<Vec<_>>());
                        found.extend(piece);
                    }
                    // The same pieces, whoever asks.
                    let asked = parts[0].pieces_of(rank, range.clone());
                    assert_eq!(asked, part.pieces_of(rank, range.clone()));
                }
                found.sort_unstable();
                assert_eq!(found, range.collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn a_source_with_many_rows_is_alone_where_the_others_have_as_many_together() {
    let many: Vec<u32> = (0..50).collect();
    let lists = std::iter::once(many).chain((1..51).map(|node| vec![node]));
    let graph = Graph::new(51, lists);
    for thread in threads(2) {
        let part = graph.clone().shared_among(thread);
        assert_eq!(part.rows_here(), graph.back_off_rows() + 50);
    }
}

#[test]
fn rows_begin_with_the_values_that_they_have_in_the_whole_table() {
    for model in models() {
        let config = model.config;
        let uniform = |_: &str, place: u64| (place % 1009) as f64 / 1009.0;
        let whole = config.init(NODES, model.graph.rows(), &uniform);
        for thread in threads(3) {
            let part = model.graph.as_ref().clone().shared_among(thread);
            let rows = part.numbers_here();
            let found = config.init_rows(NODES, &rows, &uniform);
            for (place, row) in rows.into_iter().enumerate() {
                let d = config.d_node;
                assert_eq!(found.edge(place, d), whole.edge(row, d));
            }
            assert_eq!(found.node_bias, whole.node_bias);
        }
    }
}
