//! `ResidentTable`: edge table and AdamW moments on a GPU. It launches the kernels of a training step in order, brings rows up
//! to date, copies changed rows to the host, and reads loss and the other gradients from the report.

use super::arithmetic::{SQUARES, Shape};
use super::on_device::{OnDevice, What};
use super::plan::{Parts, Plan, behind};
use super::rows::{self, UpdateLaunch};
use super::score::{self, UNITS};
use super::trail;
use crate::candidate::{Group, Paths, at_places};
use crate::flow::Hop;
use crate::model::{BriLlm, Gradients, Learnt};
use crate::row_adamw::{Clock, FADED, Mode, Moments};
use crate::table::Table;
use burn::tensor::{Element, Shape as Sizes};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::bytes::Bytes;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::server::Handle;
use burn_cubecl::cubecl::{calculate_cube_count_elemwise, client::ComputeClient};
use burn_cubecl::tensor::CubeTensor;
use rayon::prelude::*;
use std::any::Any;

/// Numbers that are brought to a device or from it at a time: 64 MiB.
const PIECE: usize = 1 << 24;
/// Lists that a kernel may have, with what the runtime adds.
const BINDINGS: u32 = 12;
/// Units of a cube that works on a row in any order.
const ANY: usize = 256;
/// Bytes of shared memory for a strip of a matrix, the same everywhere: what a kernel sums does not depend on it, but in
/// which order.
const STRIP: usize = 18 << 10;

/// Launches a kernel of a table: so many cubes of so many units.
macro_rules! launch {
    ($table:expr, $($kernel:ident)::+, [$cubes:expr, $units:expr], $($given:expr),+ $(,)?) => {{
        let (count, dim, address) = $table.cubes($cubes, $units);
        $($kernel)::+::launch::<R>(&$table.client, count, dim, address, $($given),+)
    }};
}

/// Rows that have changed since the host saw them.
struct Stale {
    rows: Vec<bool>,
    any: bool,
}

impl Stale {
    fn new(rows: usize) -> Self {
        Self {
            rows: vec![false; rows],
            any: false,
        }
    }

    fn mark(&mut self, row: usize) {
        self.rows[row] = true;
        self.any = true;
    }

    /// Those rows, rising; none are left.
    fn take(&mut self) -> Vec<u32> {
        let rows = (0u32..).zip(&self.rows);
        let list = rows
            .filter(|(_, stale)| **stale)
            .map(|(row, _)| row)
            .collect();
        self.rows.fill(false);
        self.any = false;
        list
    }
}

/// A list on a device.
struct Buffer<R: CubeRuntime> {
    list: CubeTensor<R>,
    len: usize,
}

impl<R: CubeRuntime> Buffer<R> {
    fn new<T: Element>(
        client: &ComputeClient<R>,
        device: &R::CubeDevice,
        handle: Handle,
        len: usize,
    ) -> Self {
        let (client, device) = (client.clone(), device.clone());
        let list =
            CubeTensor::new_contiguous(client, device, Sizes::new([len]), handle, T::dtype());
        Self { list, len }
    }

    fn arg(&self) -> ArrayArg<R> {
        self.list.clone().into_array_arg()
    }
}

/// A table `[rows, d + 1, d]` and its moments on a device.
pub struct ResidentTable<R: CubeRuntime> {
    client: ComputeClient<R>,
    device: R::CubeDevice,
    shape: Shape,
    row_len: usize,
    values: Buffer<R>,
    first: Buffer<R>,
    second: Buffer<R>,
    stale_values: Stale,
    stale_moments: Stale,
    /// Whether rows may have steps to catch up with that were made here.
    behind: bool,
    /// Of [`rows::fade`], for all steps so far.
    times: Vec<f32>,
}

impl<R: CubeRuntime> ResidentTable<R> {
    /// Brings a table to a device, unless it is of a kind that the kernels do not know or larger than there is room for.
    ///
    /// `room` is the memory of a device, from the largest allocation it allows.
    pub fn open(
        device: &R::CubeDevice,
        model: &BriLlm,
        moments: &Moments,
        room: impl Fn(u64) -> u64,
    ) -> Option<Self> {
        let (Table::F32(values), Table::F32(first), Table::F32(second)) =
            (&model.parameters.edges, &moments.first, &moments.second)
        else {
            return None;
        };
        if model.config.flow.bias.of_node() {
            return None;
        }
        let client = R::client(device);
        let properties = client.properties();
        let (hardware, page) = (&properties.hardware, properties.memory.max_page_size);
        let bytes = 4 * values.len() as u64;
        // A tenth is for what a step needs besides.
        if bytes == 0 || bytes > page || 3 * bytes > room(page) / 10 * 9 {
            return None;
        }
        if hardware.max_bindings < BINDINGS {
            return None;
        }
        let d = model.config.d_node;
        let most = hardware.max_units_per_cube as usize;
        if d > most.min(256) || most < ANY || hardware.max_shared_memory_size < STRIP + (8 << 10) {
            return None;
        }
        let shape = Shape {
            d,
            lanes: (128 / d).max(1),
            strip: (STRIP / 4 / (d + 1)).min(d),
        };
        let list = || {
            let n = values.len();
            // Nobody else has pages of this size: they are as large as what lies on them.
            let handle = client.memory_persistent_allocation((), |()| client.empty(4 * n));
            Buffer::new::<f32>(&client, device, handle.expect("the device answers"), n)
        };
        let table = Self {
            client: client.clone(),
            device: device.clone(),
            shape,
            row_len: model.config.row_len(),
            values: list(),
            first: list(),
            second: list(),
            stale_values: Stale::new(model.graph.rows()),
            stale_moments: Stale::new(model.graph.rows()),
            behind: false,
            times: Vec::new(),
        };
        table.upload(&table.values, values);
        match moments.touched.iter().all(|&touched| touched == 0) {
            true => [&table.first, &table.second].map(|to| table.clear(to)),
            false => [(&table.first, first), (&table.second, second)]
                .map(|(to, from)| table.upload(to, from)),
        };
        Some(table)
    }

    fn uploaded<T: CubeElement + Element>(&self, list: Vec<T>) -> Buffer<R> {
        let len = list.len();
        let handle = self.client.create(Bytes::from_elems(list));
        Buffer::new::<T>(&self.client, &self.device, handle, len)
    }

    fn empty(&self, len: usize) -> Buffer<R> {
        let handle = self.client.empty(4 * len);
        Buffer::new::<f32>(&self.client, &self.device, handle, len)
    }

    fn read(&self, buffer: &Buffer<R>) -> Bytes {
        let bytes = self.client.read_one(buffer.list.handle.clone());
        bytes.expect("the device has done its work")
    }

    /// So many cubes of so many units, and how wide an index is.
    fn cubes(&self, n: usize, units: usize) -> (CubeCount, CubeDim, AddressType) {
        let dim = CubeDim::new_1d(units as u32);
        let count = calculate_cube_count_elemwise(&self.client, n * units, dim);
        (count, dim, AddressType::from_len(self.values.len))
    }

    fn upload(&self, table: &Buffer<R>, from: &[f32]) {
        for (index, piece) in from.chunks(PIECE).enumerate() {
            let part = self.uploaded(piece.to_vec());
            let n = part.len;
            let (table, start) = (table.arg(), index * PIECE);
            launch!(
                self,
                rows::put,
                [n.div_ceil(ANY), ANY],
                table,
                part.arg(),
                start,
                n,
            );
        }
    }

    fn clear(&self, table: &Buffer<R>) {
        for start in (0..table.len).step_by(PIECE) {
            let n = PIECE.min(table.len - start);
            launch!(
                self,
                rows::clear,
                [n.div_ceil(ANY), ANY],
                table.arg(),
                start,
                n
            );
        }
    }

    /// Brings the rows of a table that `wanted` says, rising, to the host's.
    fn bring(&self, table: &Buffer<R>, wanted: &[u32], to: &mut Table) {
        let Table::F32(to) = to else {
            unreachable!("only a table of f32 lies on a device");
        };
        let row_len = self.row_len;
        for list in wanted.chunks((PIECE / row_len).max(1)) {
            let part = self.empty(list.len() * row_len);
            let rows = self.uploaded(list.to_vec());
            launch!(
                self,
                rows::take,
                [list.len(), ANY],
                table.arg(),
                rows.arg(),
                part.arg(),
                list.len() as u32,
                row_len,
            );
            let found = self.read(&part);
            let found = f32::from_bytes(&found).par_chunks_exact(row_len);
            let (mut rest, mut next) = (&mut to[..], 0);
            let place = |&row: &u32| {
                let row = row as usize;
                let (_, after) = std::mem::take(&mut rest).split_at_mut((row - next) * row_len);
                let (here, after) = after.split_at_mut(row_len);
                (rest, next) = (after, row + 1);
                here
            };
            let places: Vec<&mut [f32]> = list.iter().map(place).collect();
            let pairs = places.into_par_iter().zip(found);
            pairs.for_each(|(to, from)| to.copy_from_slice(from));
        }
    }

    /// Brings rows to step `time`, there.
    fn fade(
        &mut self,
        rows: impl Iterator<Item = usize>,
        moments: &mut Moments,
        time: u32,
        clock: &Clock<'_>,
    ) {
        if clock.mode == Mode::Touched {
            return;
        }
        for step in self.times.len() / 3..clock.rates.len() {
            let rate = f64::from(clock.rates[step]);
            let step = clock.adamw.step(rate, clock.corrections[step], [1.0; 2]);
            self.times.extend([step.keep, step.rate, step.root]);
        }
        let list = behind(rows, moments, time, clock);
        if list.is_empty() {
            return;
        }
        let entries = list.chunks_exact(3).map(|entry| entry[0] as usize);
        for row in entries {
            moments.current[row] = time;
            self.stale_values.mark(row);
        }
        let n = list.len() / 3;
        let fades = clock.fades.iter();
        let fades = fades.flat_map(|[left_1, left_2]| [*left_1 as f32, left_2.sqrt() as f32]);
        let (list, fades) = (
            self.uploaded(list),
            self.uploaded(fades.collect::<Vec<f32>>()),
        );
        let times = self.uploaded(self.times.clone());
        launch!(
            self,
            rows::fade,
            [n, ANY],
            self.values.arg(),
            self.first.arg(),
            self.second.arg(),
            list.arg(),
            times.arg(),
            fades.arg(),
            n as u32,
            time,
            clock.adamw.epsilon as f32,
            self.row_len,
            FADED,
            clock.adamw.weight_decay != 0.0,
        );
    }

    /// The kernels of a step; returns the report.
    fn step(
        &self,
        model: &BriLlm,
        parts: &Parts,
        plan: Vec<u32>,
        numbers: Vec<f32>,
        clock: &Clock<'_>,
    ) -> Vec<f32> {
        let Shape { d, lanes, .. } = self.shape;
        let flow = model.config.flow;
        let previous = flow.hop == Hop::Previous;
        let learn_codes = !model.parameters.codes.is_empty();
        let [pairs, tokens, places, sequences, rows] = [
            parts.pairs,
            parts.tokens,
            parts.places,
            parts.sequences,
            parts.rows,
        ]
        .map(|n| n as usize);
        let (plan, numbers) = (self.uploaded(plan), self.uploaded(numbers));
        let (signals, slopes) = (self.empty(2 * places * d), self.empty(places * d));
        let (directions, backs) = (self.empty((pairs + places) * d), self.empty(pairs * d));
        let (energies, of_mixes) = (self.empty(pairs + places), self.empty(tokens * d));
        let (squares, report) = (self.empty(rows.max(1)), self.empty(parts.report as usize));
        let (shape, units) = (self.shape, d * lanes);

        launch!(
            self,
            trail::walk,
            [sequences, units],
            self.values.arg(),
            plan.arg(),
            numbers.arg(),
            signals.arg(),
            slopes.arg(),
            parts.launched(),
            shape,
            previous,
        );
        launch!(
            self,
            score::score,
            [pairs, units],
            self.values.arg(),
            plan.arg(),
            numbers.arg(),
            signals.arg(),
            directions.arg(),
            backs.arg(),
            energies.arg(),
            parts.launched(),
            shape,
        );
        launch!(
            self,
            score::softmax,
            [tokens, UNITS],
            plan.arg(),
            numbers.arg(),
            energies.arg(),
            report.arg(),
            parts.launched(),
            (1.0 / tokens as f64) as f32,
        );
        launch!(
            self,
            score::gather,
            [tokens, units],
            plan.arg(),
            energies.arg(),
            directions.arg(),
            backs.arg(),
            of_mixes.arg(),
            report.arg(),
            parts.launched(),
            shape,
            learn_codes,
        );
        launch!(
            self,
            trail::walk_back,
            [sequences, units],
            self.values.arg(),
            plan.arg(),
            numbers.arg(),
            signals.arg(),
            slopes.arg(),
            of_mixes.arg(),
            directions.arg(),
            energies.arg(),
            report.arg(),
            parts.launched(),
            shape,
            previous,
            learn_codes,
        );
        if rows > 0 {
            launch!(
                self,
                rows::descend,
                [rows, units],
                self.values.arg(),
                self.first.arg(),
                self.second.arg(),
                plan.arg(),
                numbers.arg(),
                signals.arg(),
                directions.arg(),
                energies.arg(),
                squares.arg(),
                parts.launched(),
                of_all(clock),
                shape,
                clock.clip.is_some(),
                flow.bias.of_edge(),
            );
        }
        launch!(
            self,
            rows::add_squares,
            [SQUARES, UNITS],
            squares.arg(),
            report.arg(),
            parts.launched(),
        );
        f32::from_bytes(&self.read(&report)).to_vec()
    }
}

impl<R: CubeRuntime> OnDevice for ResidentTable<R> {
    fn learn(
        &mut self,
        model: &BriLlm,
        moments: &mut Moments,
        paths: &Paths<'_>,
        groups: &[Group],
        clock: &Clock<'_>,
    ) -> Option<(Learnt, Gradients)> {
        let pairs: usize = groups.iter().map(Group::pairs).sum();
        let bytes = 4 * self.shape.d * (pairs + paths.sources.len());
        let page = self.client.properties().memory.max_page_size;
        if pairs == 0 || bytes as u64 > page || 8 * pairs > u32::MAX as usize {
            return None;
        }
        let mut plan = Plan::new(model, paths, groups, clock.frozen);
        self.behind = true;
        let time = clock.rates.len() as u32;
        self.fade(plan.rows(), moments, time - 1, clock);
        let touched = &moments.touched;
        let key = |row: usize| clock.key(touched[row]);
        plan.add_steps(time, key, |key| step_of(key, clock));
        for row in plan.rows() {
            moments.touched[row] = clock.touch(moments.touched[row]);
            moments.current[row] = time;
            self.stale_values.mark(row);
            self.stale_moments.mark(row);
        }
        let Plan {
            parts,
            plan,
            numbers,
            shares,
            first_slopes,
            ..
        } = plan;
        let report = self.step(model, &parts, plan, numbers, clock);
        let of = Report {
            d: self.shape.d,
            parts: &parts,
            report: &report,
        };
        let mut gradients = of.gradients(model, paths, groups, &first_slopes);
        gradients.mix = shares.gradient(&of.of_shares(paths), model.parameters.mix.len());
        let square = of.square() + gradients.square();
        let learnt = Learnt {
            nats: of.token_losses(paths, groups),
            gradient_norm: square.sqrt(),
        };
        Some((learnt, gradients))
    }

    fn catch_up(&mut self, moments: &mut Moments, clock: &Clock<'_>) {
        if !std::mem::take(&mut self.behind) {
            return;
        }
        let time = clock.rates.len() as u32;
        self.fade(0..moments.current.len(), moments, time, clock);
        if clock.mode != Mode::Touched {
            let frozen = clock.frozen.min(moments.current.len());
            moments.current[frozen..].fill(time);
        }
    }

    fn download(&mut self, what: What, model: &mut BriLlm, moments: &mut Moments) {
        if what != What::Nothing {
            let rows = self.stale_values.take();
            self.bring(&self.values, &rows, &mut model.parameters.edges);
        }
        if what == What::All {
            let rows = self.stale_moments.take();
            self.bring(&self.first, &rows, &mut moments.first);
            self.bring(&self.second, &rows, &mut moments.second);
        }
    }

    fn is_ahead(&self) -> bool {
        self.behind || self.stale_values.any || self.stale_moments.any
    }

    fn lies_on(&self, device: &dyn Any) -> bool {
        device.downcast_ref::<R::CubeDevice>() == Some(&self.device)
    }
}

/// What is left of the moments of rows with a key, their rate and the root of their second correction.
fn step_of(key: u32, clock: &Clock<'_>) -> [f32; 4] {
    let (corrections, fades) = clock.of_key(key);
    let step = clock.adamw.step(clock.rate(), corrections, [1.0; 2]);
    [fades[0] as f32, fades[1] as f32, step.rate, step.root]
}

fn of_all<R: CubeRuntime>(clock: &Clock<'_>) -> UpdateLaunch<R> {
    let step = clock.adamw.step(clock.rate(), [1.0; 2], [1.0; 2]);
    let [new_1, new_2] = clock.adamw.betas.map(|beta| 1.0 - beta as f32);
    let clip = clock.clip.unwrap_or(f32::MAX);
    UpdateLaunch::new(step.keep, step.epsilon, new_1, new_2, clip)
}

/// What a step reports, taken apart.
struct Report<'a> {
    d: usize,
    parts: &'a Parts,
    report: &'a [f32],
}

impl Report<'_> {
    fn part(&self, start: u32, n: usize) -> &[f32] {
        &self.report[start as usize..][..n]
    }

    fn vector(&self, start: u32, index: usize) -> &[f32] {
        self.part(start + (index * self.d) as u32, self.d)
    }

    fn square(&self) -> f64 {
        let squares = self.part(self.parts.squares, SQUARES);
        squares.iter().copied().map(f64::from).sum()
    }

    fn token_losses(&self, paths: &Paths<'_>, groups: &[Group]) -> Vec<f64> {
        let found = self.part(self.parts.nats, self.parts.tokens as usize);
        at_places(groups, found.iter().copied().map(f64::from), paths)
    }

    /// Of the shares of the mix, step by step, summed over the sequences.
    fn of_shares(&self, paths: &Paths<'_>) -> Vec<f64> {
        let found = self.part(self.parts.of_shares, self.parts.places as usize);
        let mut sums = vec![0.0; paths.seq];
        for (sequence, found) in found.chunks_exact(paths.seq).enumerate() {
            for (sum, found) in sums.iter_mut().zip(&found[..paths.length(sequence)]) {
                *sum += f64::from(*found);
            }
        }
        sums
    }

    /// Of everything but the table and the mix.
    fn gradients(
        &self,
        model: &BriLlm,
        paths: &Paths<'_>,
        groups: &[Group],
        first_slopes: &[Vec<f32>],
    ) -> Gradients {
        let mut gradients = Gradients::zeros(&model.parameters);
        let first_hop = model.config.flow.first_hop;
        let learn_codes = !gradients.codes.is_empty();
        for (sequence, slopes) in first_slopes.iter().enumerate() {
            let begin = sequence * paths.seq;
            let length = paths.length(sequence);
            if length == 0 {
                continue;
            }
            let found = self.vector(self.parts.of_firsts, sequence).iter();
            let first: Vec<f32> = found
                .zip(slopes)
                .map(|(found, slope)| found * slope)
                .collect();
            gradients.add_to_node(paths.sources[begin], &first);
            gradients.add_to_code(0, &first);
            for edge in (0..length).filter(|_| learn_codes) {
                let found = self.vector(self.parts.of_hops, begin + edge);
                gradients.add_to_code(edge + first_hop, found);
            }
        }
        let places = groups.iter().flat_map(|group| &group.places);
        for (token, place) in places.enumerate().filter(|_| learn_codes) {
            let found = self.vector(self.parts.of_codes, token);
            gradients.add_to_code(place % paths.seq + first_hop, found);
        }
        gradients
    }
}
