//! The plan of a step on the GPU, made on the host from paths and groups: two lists, integers and floats, and where each part
//! of them begins; and the list of the rows that have to catch up.

use super::arithmetic::SQUARES;
use super::mix::Shares;
use crate::candidate::{Group, Paths};
use crate::flow::Hop;
use crate::model::BriLlm;
use crate::row_adamw::{Clock, FADED, Moments};
use burn_cubecl::cubecl::{self, prelude::*};
use rayon::prelude::*;

/// A list of numbers for kernels, named once.
macro_rules! parts {
    ($($(#[$about:meta])+ $name:ident,)+) => {
        /// Sizes of a step, and where the parts of its lists begin.
        #[derive(CubeType, CubeLaunch, Clone, Copy)]
        pub struct Parts {
            $($(#[$about])+ pub $name: u32,)+
        }

        impl Parts {
            /// For a kernel.
            pub fn launched<R: Runtime>(&self) -> PartsLaunch<R> {
                PartsLaunch::new($(self.$name),+)
            }
        }
    };
}

parts! {
    /// How many pairs of a token and a row compete, token by token.
    pairs,
    /// How many tokens are predicted, group by group.
    tokens,
    /// How many places the paths have.
    places,
    /// How many sequences.
    sequences,
    /// Places per sequence.
    seq,
    /// The position whose code the first hop adds.
    first_hop,
    /// How many rows are updated.
    rows,

    /// Integers. `[pairs]`: the row of a pair.
    pair_rows,
    /// `[pairs + places]`: the signal that goes along a row, of pairs and of edges on paths; those are its uses.
    use_signals,
    /// `[places]`: the row of an edge on a path.
    path_rows,
    /// `[places]`: one more than the token that is predicted at a place, or 0.
    token_of,
    /// `[sequences]`: edges of a path.
    lengths,
    /// `[tokens, 3]`: the first pair, how many, and which of them is the truth.
    token_parts,
    /// `[rows]`: the rows that are updated.
    row_list,
    /// `[rows + 1]`: where the uses of a row begin.
    use_starts,
    /// The uses, row by row.
    uses,
    /// `[rows]`: which entry of `steps` a row uses.
    row_steps,

    /// Floats. `[positions, d]`: the codes of positions.
    codes,
    /// `[sequences, d]`: the first signals.
    firsts,
    /// `[seq]`: the shares of the mix.
    shares,
    /// `[pairs]`: the weights with which rows compete.
    weights,
    /// `[tokens]`: `ln` of the weight of the truth alone.
    truth_ln_weights,
    /// `[steps, 4]`: what is left of the moments, the rate, the root of the second correction.
    steps,

    /// The report. `[tokens]`: losses.
    nats,
    /// `[places]`: gradients of the shares of the mix.
    of_shares,
    /// `[sequences, d]`: gradients of the first signals.
    of_firsts,
    /// `[SQUARES]`.
    squares,
    /// `[tokens, d]`, if codes are learnt: gradients of the code that a token meets.
    of_codes,
    /// `[places, d]`, likewise: gradients of the code that a path meets.
    of_hops,
    /// The end of the report.
    report,
}

/// A step.
pub struct Plan {
    /// Where each part begins.
    pub parts: Parts,
    /// The integers.
    pub plan: Vec<u32>,
    /// The floats.
    pub numbers: Vec<f32>,
    /// The shares of the mix.
    pub shares: Shares,
    /// Per sequence the derivative of its first signal by its node's bias.
    pub first_slopes: Vec<Vec<f32>>,
}

/// Writes numbers into a list of the device's width.
fn write(to: &mut [u32], from: impl IntoIterator<Item = usize>) {
    to.iter_mut()
        .zip(from)
        .for_each(|(to, from)| *to = from as u32);
}

/// Hands out one part of a list after the other.
struct Split<'a, T>(&'a mut [T]);

impl<'a, T> Split<'a, T> {
    fn next(&mut self, n: usize) -> &'a mut [T] {
        let (part, rest) = std::mem::take(&mut self.0).split_at_mut(n);
        self.0 = rest;
        part
    }
}

/// Where parts of given lengths begin in a list, which grows by them.
struct Places(usize);

impl Places {
    fn add(&mut self, n: usize) -> u32 {
        let start = self.0;
        self.0 += n;
        start as u32
    }
}

/// Which rows a step updates, in this order: back-off rows, own rows group by group, and those that only lie on a path.
struct Used {
    /// All but the own rows of groups, which follow from those.
    shared: Vec<usize>,
    only_on_paths: Vec<usize>,
    /// Per group, the place of its first own row.
    first_own: Vec<usize>,
    /// Per row, the number of its uses.
    counts: Vec<u32>,
    /// Edges of paths: the place of their row, and theirs on the paths; rising.
    edges: Vec<(usize, usize)>,
}

impl Used {
    /// Those of groups, and of the edges of paths with their rows.
    fn new(groups: &[Group], edges: &[(usize, usize, u32)], frozen: usize) -> Self {
        let trained = |group: &Group| {
            let back_off = group.rows[..group.shared].iter().copied();
            back_off
                .filter(|&row| row >= frozen)
                .collect::<Vec<usize>>()
        };
        let mut shared: Vec<usize> = groups.iter().flat_map(trained).collect();
        shared.sort_unstable();
        shared.dedup();
        let mut counts = vec![0; shared.len()];
        let place = |row: usize| shared.binary_search(&row).expect("it was found before");
        for group in groups {
            for row in trained(group) {
                counts[place(row)] += group.places.len() as u32;
            }
        }
        let mut first_own = Vec::new();
        for group in groups {
            first_own.push(counts.len());
            let own = group.rows.len() - group.shared;
            counts.extend(std::iter::repeat_n(group.places.len() as u32, own));
        }
        let mut used = Self {
            shared,
            only_on_paths: Vec::new(),
            first_own,
            counts,
            edges: Vec::new(),
        };
        for &(place, row, source) in edges.iter().filter(|(_, row, _)| *row >= frozen) {
            let at = used.place(groups, row, source);
            used.counts[at] += 1;
            used.edges.push((at, place));
        }
        used.edges.sort_unstable();
        used
    }

    /// Where a row of a path is, which is added if it is nowhere yet.
    fn place(&mut self, groups: &[Group], row: usize, source: u32) -> usize {
        if let Ok(place) = self.shared.binary_search(&row) {
            return place;
        }
        if let Ok(group) = groups.binary_search_by_key(&source, |group| group.source) {
            let own = &groups[group].rows[groups[group].shared..];
            if let Ok(index) = own.binary_search(&row) {
                return self.first_own[group] + index;
            }
        }
        let others = self.counts.len() - self.only_on_paths.len();
        let place = self.only_on_paths.iter().position(|&other| other == row);
        others
            + place.unwrap_or_else(|| {
                self.only_on_paths.push(row);
                self.counts.push(0);
                self.only_on_paths.len() - 1
            })
    }

    /// Where each row's uses begin, and their end.
    fn starts(&self) -> Vec<u32> {
        let mut sum = 0;
        let ends = self.counts.iter().map(|n| {
            sum += n;
            sum
        });
        std::iter::once(0).chain(ends).collect()
    }
}

/// What a group writes into the lists.
struct Job<'a> {
    group: &'a Group,
    /// Its first pair.
    begin: usize,
    pair_rows: &'a mut [u32],
    signals: &'a mut [u32],
    weights: &'a mut [f32],
    /// Of its own rows: their numbers, where the uses of each begin, and the uses.
    rows: &'a mut [u32],
    starts: &'a [u32],
    uses: &'a mut [u32],
}

impl Job<'_> {
    fn write(self) {
        let group = self.group;
        let (n, r) = (group.places.len(), group.rows.len());
        write(self.rows, group.rows[group.shared..].iter().copied());
        for (index, start) in (group.shared..r).zip(self.starts) {
            let uses = &mut self.uses[(start - self.starts[0]) as usize..][..n];
            write(uses, (self.begin + index..).step_by(r));
        }
        for (token, &place) in group.places.iter().enumerate() {
            let of_token = token * r..(token + 1) * r;
            let rows = &mut self.pair_rows[of_token.clone()];
            write(rows, group.rows.iter().copied());
            self.signals[of_token.clone()].fill(place as u32);
            self.weights[of_token].copy_from_slice(&group.weights);
        }
        for &(token, row, weight) in &group.corrections {
            self.weights[token as usize * r + row as usize] += weight;
        }
    }
}

impl Plan {
    /// Prepares a step; rows before `frozen` are not updated, and groups rise by their sources.
    pub fn new(model: &BriLlm, paths: &Paths<'_>, groups: &[Group], frozen: usize) -> Self {
        assert!(
            groups.is_sorted_by_key(|group| group.source),
            "groups rise by their sources"
        );
        let d = model.config.d_node;
        let flow = model.config.flow;
        let (batch, seq) = (paths.batch(), paths.seq);
        let n_places = batch * seq;
        let lengths: Vec<usize> = (0..batch).map(|sequence| paths.length(sequence)).collect();
        let edges = (0..n_places).filter(|place| place % seq < lengths[place / seq]);
        let edge = |place: usize| {
            let source = paths.sources[place];
            (place, model.graph.row(source, paths.targets[place]), source)
        };
        let edges: Vec<(usize, usize, u32)> = edges.map(edge).collect();
        let used = Used::new(groups, &edges, frozen);
        let use_starts = used.starts();
        let n_rows = used.counts.len();
        let n_uses = use_starts[n_rows] as usize;
        let pairs: usize = groups.iter().map(Group::pairs).sum();
        let tokens: usize = groups.iter().map(|group| group.places.len()).sum();

        let shares = Shares::new(flow.mix, &model.parameters.mix, seq);
        let first = |sequence: usize| {
            let node = paths.sources[sequence * seq];
            let bias = model.parameters.node_bias_of(node, d);
            flow.first_signal(bias, &model.parameters.codes)
        };
        let (firsts, first_slopes): (Vec<Vec<f32>>, _) = (0..batch).map(first).unzip();
        let codes = model.codes(seq + flow.first_hop);
        let learns_codes = !model.parameters.codes.is_empty();
        let d_codes = if learns_codes { d } else { 0 };

        let (mut whole, mut others, mut report) = (Places(0), Places(0), Places(0));
        let parts = Parts {
            pairs: pairs as u32,
            tokens: tokens as u32,
            places: n_places as u32,
            sequences: batch as u32,
            seq: seq as u32,
            first_hop: flow.first_hop as u32,
            rows: n_rows as u32,
            pair_rows: whole.add(pairs),
            use_signals: whole.add(pairs + n_places),
            row_list: whole.add(n_rows),
            uses: whole.add(n_uses),
            use_starts: whole.add(n_rows + 1),
            path_rows: whole.add(n_places),
            token_of: whole.add(n_places),
            lengths: whole.add(batch),
            token_parts: whole.add(3 * tokens),
            row_steps: whole.add(n_rows),
            weights: others.add(pairs),
            codes: others.add(codes.len()),
            firsts: others.add(batch * d),
            shares: others.add(seq),
            truth_ln_weights: others.add(tokens),
            steps: others.add(0),
            nats: report.add(tokens),
            of_shares: report.add(n_places),
            of_firsts: report.add(batch * d),
            squares: report.add(SQUARES),
            of_codes: report.add(tokens * d_codes),
            of_hops: report.add(n_places * d_codes),
            report: report.add(0),
        };
        let mut plan = vec![0; whole.0];
        let mut numbers = vec![0.0; others.0];
        let mut rest = Split(&mut plan);
        let pair_rows = rest.next(pairs);
        let signals = rest.next(pairs);
        let path_signals = rest.next(n_places);
        let rows = rest.next(n_rows);
        let uses = rest.next(n_uses);
        rest.next(n_rows + 1).copy_from_slice(&use_starts);
        let path_rows = rest.next(n_places);
        let token_of = rest.next(n_places);
        write(rest.next(batch), lengths);
        let token_parts = rest.next(3 * tokens);

        for &(place, row, _) in &edges {
            path_rows[place] = row as u32;
            path_signals[place] = match (flow.hop, place % seq) {
                (Hop::Previous, 1..) => n_places + place - 1,
                _ => place,
            } as u32;
        }
        let mut truth_ln_weights = Vec::with_capacity(tokens);
        let mut begin = 0;
        let mut entries = token_parts.chunks_exact_mut(3);
        for group in groups {
            for (token, &place) in group.places.iter().enumerate() {
                let r = group.rows.len();
                let entry = [begin as u32, r as u32, group.truth[token]];
                entries
                    .next()
                    .expect("one per token")
                    .copy_from_slice(&entry);
                begin += r;
                truth_ln_weights.push(group.truth_ln_weight[token]);
                token_of[place] = truth_ln_weights.len() as u32;
            }
        }

        // Rows that groups share, and edges of paths, which come behind the pairs that use their row.
        let n_shared = used.shared.len();
        let mut next = use_starts[..n_shared].to_vec();
        let mut begin = 0;
        for group in groups {
            let (n, r) = (group.places.len(), group.rows.len());
            for (index, row) in group.rows[..group.shared].iter().enumerate() {
                if let Ok(place) = used.shared.binary_search(row) {
                    for token in 0..n {
                        uses[next[place] as usize] = (begin + token * r + index) as u32;
                        next[place] += 1;
                    }
                }
            }
            begin += n * r;
        }
        for of_row in used.edges.chunk_by(|a, b| a.0 == b.0) {
            let end = use_starts[of_row[0].0 + 1] as usize;
            let places = of_row.iter().map(|(_, place)| pairs + place);
            write(&mut uses[end - of_row.len()..end], places);
        }
        let mut rest = Split(rows);
        write(rest.next(n_shared), used.shared.iter().copied());
        let first_on_paths = n_rows - used.only_on_paths.len();
        let mut own_rows = Split(rest.next(first_on_paths - n_shared));
        write(rest.0, used.only_on_paths.iter().copied());

        let mut others = Split(&mut numbers);
        let mut weights = Split(others.next(pairs));
        others.next(codes.len()).copy_from_slice(&codes);
        others.next(batch * d).copy_from_slice(&firsts.concat());
        let to = others.next(seq).iter_mut().zip(shares.narrow());
        to.for_each(|(to, share)| *to = share);
        others.next(tokens).copy_from_slice(&truth_ln_weights);

        let (mut pair_rows, mut signals) = (Split(pair_rows), Split(signals));
        let mut own_uses = Split(uses);
        own_uses.next(use_starts[n_shared] as usize);
        let mut begin = 0;
        let mut jobs = Vec::with_capacity(groups.len());
        for (group, &first) in groups.iter().zip(&used.first_own) {
            let n = group.pairs();
            let own = group.rows.len() - group.shared;
            let starts = &use_starts[first..=first + own];
            jobs.push(Job {
                group,
                begin,
                pair_rows: pair_rows.next(n),
                signals: signals.next(n),
                weights: weights.next(n),
                rows: own_rows.next(own),
                starts,
                uses: own_uses.next((starts[own] - starts[0]) as usize),
            });
            begin += n;
        }
        jobs.into_par_iter().for_each(Job::write);
        Self {
            parts,
            plan,
            numbers,
            shares,
            first_slopes,
        }
    }

    /// The rows that are updated.
    pub fn rows(&self) -> impl Iterator<Item = usize> + Clone {
        let rows = &self.plan[self.parts.row_list as usize..][..self.parts.rows as usize];
        rows.iter().map(|&row| row as usize)
    }

    /// Adds the steps of the rows that are updated; rows with one key, which is at most `last`, share a step.
    pub fn add_steps(
        &mut self,
        last: u32,
        key: impl Fn(usize) -> u32,
        step: impl Fn(u32) -> [f32; 4],
    ) {
        let mut known = vec![0u32; last as usize + 1];
        let mut n = 0;
        let (row_list, row_steps) = (self.parts.row_list as usize, self.parts.row_steps as usize);
        for index in 0..self.parts.rows as usize {
            let key = key(self.plan[row_list + index] as usize);
            let known = &mut known[key as usize];
            if *known == 0 {
                n += 1;
                *known = n;
                self.numbers.extend(step(key));
            }
            self.plan[row_steps + index] = *known - 1;
        }
    }
}

/// The rows of a list that have to catch up with step `time`, `[rows, 3]`: see [`fade`](super::rows::fade).
pub fn behind(
    rows: impl Iterator<Item = usize>,
    Moments {
        touched, current, ..
    }: &Moments,
    time: u32,
    clock: &Clock<'_>,
) -> Vec<u32> {
    let mut list = Vec::new();
    for row in rows.filter(|&row| row >= clock.frozen && current[row] < time) {
        let after = current[row];
        let moves = touched[row] > 0 && after < touched[row] + FADED;
        if moves || clock.adamw.weight_decay != 0.0 {
            list.extend([row as u32, after, touched[row]]);
        }
    }
    list
}
