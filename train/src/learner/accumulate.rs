//! Forward and backward of the micro-batches of a step, whose gradients add up to that of the whole step.
//!
//! Micro-batch `i` belongs to rank `i mod N`. When the ranks have done one each, their gradients go in slices to the slices' owners,
//! who add them in the order of `i`, as one rank adds them: so the sum has the same bits for any number of ranks. In the end the
//! owners send their sums round. A parameter without a gradient anywhere stays without one.

use super::trainable::Trainable;
use crate::collective::Ranks;
use crate::task::{Batch, Measured, StepPlan};
use burn::module::{AutodiffModule, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};
use burn::train::TrainStep;
use std::ops::Range;
use std::time::{Duration, Instant};

/// The gradient of a step with its losses.
pub struct Accumulated {
    pub measured: Measured,
    pub gradients: GradientsParams,
    /// The time that this rank spent with exchanges, waiting for others included.
    pub exchange: Duration,
}

/// Runs the micro-batches of a step, all of which every rank is given. All ranks call it together.
pub fn accumulate<B: AutodiffBackend, M: Trainable<B>>(
    ranks: &Ranks,
    model: &M,
    plan: &StepPlan,
    micro_batches: Vec<Batch>,
) -> Accumulated {
    let run = |mut batch: Batch| {
        batch.plan = plan.clone();
        TrainStep::step(model, batch)
    };
    if ranks.is_alone() {
        let mut accumulator = GradientsAccumulator::new();
        let mut measured = Measured::default();
        for batch in micro_batches {
            let output = run(batch);
            measured += &output.item;
            accumulator.accumulate(model, output.grads);
        }
        return Accumulated {
            measured,
            gradients: accumulator.grads(),
            exchange: Duration::ZERO,
        };
    }
    let n_batches = micro_batches.len();
    let mut own = micro_batches
        .into_iter()
        .skip(ranks.rank())
        .step_by(ranks.size());
    let mut sum = OrderedSum::new(ranks, parameters(model));
    let (mut measured, mut exchange) = (Vec::new(), Duration::ZERO);
    for first in (0..n_batches).step_by(ranks.size()) {
        let gradient = own.next().map(|batch| {
            let output = run(batch);
            measured.push(output.item);
            flat(model, output.grads)
        });
        let begun = Instant::now();
        sum.add(gradient.as_ref(), (n_batches - first).min(ranks.size()));
        exchange += begun.elapsed();
    }
    let begun = Instant::now();
    let gradients = sum.spread(model);
    let measured = in_order(ranks, measured);
    exchange += begun.elapsed();
    Accumulated {
        measured: measured.iter().fold(Measured::default(), |mut sum, one| {
            sum += one;
            sum
        }),
        gradients,
        exchange,
    }
}

/// What each rank has of every so many-th of some things, in the order of these things, on all ranks.
pub fn in_order(ranks: &Ranks, own: Vec<Measured>) -> Vec<Measured> {
    let mut all: Vec<_> = ranks.gather(&own).into_iter().map(Vec::into_iter).collect();
    let mut in_order = Vec::new();
    while let Some(next) = all[in_order.len() % ranks.size()].next() {
        in_order.push(next);
    }
    in_order
}

/// Gradients of all parameters, one behind the other.
struct Flat {
    numbers: Vec<f32>,
    /// Of every parameter whether it has a gradient: 1 or 0.
    present: Vec<u8>,
}

/// Sums gradients slice by slice, this rank its own.
struct OrderedSum<'a> {
    ranks: &'a Ranks,
    /// Where the numbers of each parameter lie.
    parameters: Vec<Range<usize>>,
    /// The slice of every rank.
    slices: Vec<Range<usize>>,
    /// The sum of this rank's slice.
    own: Vec<f32>,
    /// Of every parameter whether any micro-batch so far had a gradient.
    present: Vec<u8>,
}

impl<'a> OrderedSum<'a> {
    fn new(ranks: &'a Ranks, parameters: Vec<Range<usize>>) -> Self {
        let n = parameters.last().map_or(0, |last| last.end);
        let border = |rank: usize| n * rank / ranks.size();
        let slices = (0..ranks.size()).map(|rank| border(rank)..border(rank + 1));
        let slices: Vec<Range<usize>> = slices.collect();
        Self {
            own: vec![0.0; slices[ranks.rank()].len()],
            present: vec![0; parameters.len()],
            ranks,
            parameters,
            slices,
        }
    }

    /// Adds the gradients of the next micro-batches, one each of the first `n_senders` ranks.
    fn add(&mut self, gradient: Option<&Flat>, n_senders: usize) {
        let n_ranks = self.ranks.size();
        let sends = |rank: usize| rank < n_senders;
        let masks = match gradient {
            Some(flat) => vec![&flat.present[..]; n_ranks],
            None => vec![&[][..]; n_ranks],
        };
        let n_parameters = self.parameters.len();
        let mut present: Vec<Vec<u8>> = (0..n_ranks)
            .map(|rank| vec![0; if sends(rank) { n_parameters } else { 0 }])
            .collect();
        let mut from: Vec<&mut [u8]> = present.iter_mut().map(Vec::as_mut_slice).collect();
        self.ranks.exchange(&masks, &mut from);
        let slices = self.slices.iter();
        let to: Vec<&[u8]> = slices
            .map(|slice| {
                gradient.map_or(&[][..], |flat| {
                    bytemuck::cast_slice(&flat.numbers[slice.clone()])
                })
            })
            .collect();
        let slice = self.slices[self.ranks.rank()].clone();
        let mut numbers: Vec<Vec<f32>> = (0..n_ranks)
            .map(|rank| vec![0.0; if sends(rank) { slice.len() } else { 0 }])
            .collect();
        let mut from: Vec<&mut [u8]> = numbers
            .iter_mut()
            .map(|of| bytemuck::cast_slice_mut(of))
            .collect();
        self.ranks.exchange(&to, &mut from);
        for (numbers, mask) in numbers.iter().zip(&present).take(n_senders) {
            self.add_one(&slice, numbers, mask);
        }
    }

    /// Adds this rank's slice of the gradient of one micro-batch: a copy where it is the first, so that a zero keeps its sign.
    fn add_one(&mut self, slice: &Range<usize>, numbers: &[f32], mask: &[u8]) {
        let of = self.parameters.iter().zip(&mut self.present).zip(mask);
        for ((range, present), _) in of.filter(|(_, mask)| **mask == 1) {
            let here = range.start.max(slice.start)..range.end.min(slice.end);
            if !here.is_empty() {
                let here = here.start - slice.start..here.end - slice.start;
                let (sum, numbers) = (&mut self.own[here.clone()], &numbers[here]);
                match *present {
                    0 => sum.copy_from_slice(numbers),
                    _ => sum
                        .iter_mut()
                        .zip(numbers)
                        .for_each(|(sum, number)| *sum += number),
                }
            }
            *present = 1;
        }
    }

    /// The sums of all slices, on all ranks.
    fn spread<B: AutodiffBackend, M: AutodiffModule<B>>(self, model: &M) -> GradientsParams {
        let n = self.parameters.last().map_or(0, |last| last.end);
        let mut all = vec![0.0f32; n];
        let own: &[u8] = bytemuck::cast_slice(&self.own);
        let mut rest = &mut all[..];
        let mut from: Vec<&mut [u8]> = Vec::new();
        for slice in &self.slices {
            let (of_rank, others) = rest.split_at_mut(slice.len());
            from.push(bytemuck::cast_slice_mut(of_rank));
            rest = others;
        }
        self.ranks
            .exchange(&vec![own; self.slices.len()], &mut from);
        let mut visitor = Register {
            from: Flat {
                numbers: all,
                present: self.present,
            },
            parameters: self.parameters.into_iter(),
            index: 0,
            to: GradientsParams::new(),
        };
        model.visit(&mut visitor);
        visitor.to
    }
}

/// Where the numbers of each parameter lie if all lie one behind the other.
fn parameters<B: AutodiffBackend, M: AutodiffModule<B>>(model: &M) -> Vec<Range<usize>> {
    struct Lengths(Vec<Range<usize>>);

    impl<B: AutodiffBackend> ModuleVisitor<B> for Lengths {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let first = self.0.last().map_or(0, |last| last.end);
            self.0
                .push(first..first + param.lazy_shape().num_elements());
        }
    }

    let mut lengths = Lengths(Vec::new());
    model.visit(&mut lengths);
    lengths.0
}

/// The gradients of a micro-batch, one behind the other; zeros where a parameter has none.
fn flat<B: AutodiffBackend, M: AutodiffModule<B>>(model: &M, gradients: GradientsParams) -> Flat {
    struct Flatten {
        from: GradientsParams,
        to: Flat,
    }

    impl<B: AutodiffBackend> ModuleVisitor<B> for Flatten {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let gradient = self.from.remove::<B::InnerBackend, D>(param.id);
            self.to.present.push(gradient.is_some().into());
            match gradient {
                Some(gradient) => self.to.numbers.extend(gradient.into_data().iter::<f32>()),
                None => {
                    let n = self.to.numbers.len() + param.lazy_shape().num_elements();
                    self.to.numbers.resize(n, 0.0);
                }
            }
        }
    }

    let mut flatten = Flatten {
        from: gradients,
        to: Flat {
            numbers: Vec::new(),
            present: Vec::new(),
        },
    };
    model.visit(&mut flatten);
    flatten.to
}

/// The inverse.
struct Register {
    from: Flat,
    parameters: std::vec::IntoIter<Range<usize>>,
    index: usize,
    to: GradientsParams,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Register {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let range = self.parameters.next().expect("as many as were counted");
        self.index += 1;
        if self.from.present[self.index - 1] == 1 {
            let numbers = self.from.numbers[range].to_vec();
            let data = TensorData::new(numbers, param.lazy_shape());
            let gradient = Tensor::<B::InnerBackend, D>::from_data(data, &param.lazy_device());
            self.to.register(param.id, gradient);
        }
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::collective::threads::on_ranks;
    use crate::data::HostBatch;
    use crate::device::tests::Learning;
    use crate::task::RoutePlan;
    use brian::random;
    use burn::module::Module;
    use burn::tensor::backend::Backend;
    use burn::train::{InferenceStep, TrainOutput};

    /// Two parameters, of which the second has a gradient in every third micro-batch only, and one that never has any.
    #[derive(Module, Debug)]
    struct Toy<B: Backend> {
        always: Param<Tensor<B, 2>>,
        sometimes: Param<Tensor<B, 1>>,
        never: Param<Tensor<B, 1>>,
    }

    fn drawn<B: Backend, const D: usize>(
        name: &str,
        number: u64,
        dims: [usize; D],
    ) -> Tensor<B, D> {
        let n: usize = dims.iter().product();
        let key = random::key(7, name, number);
        let of = |place| (random::uniform(key, place) as f32 - 0.5) * 10f32.powi(place as i32 % 7);
        let values: Vec<f32> = (0..n as u64).map(of).collect();
        Tensor::from_data(TensorData::new(values, dims), &Default::default())
    }

    impl<B: Backend> Toy<B> {
        fn new() -> Self {
            Self {
                always: Param::from_tensor(drawn("always", 0, [5, 3])),
                sometimes: Param::from_tensor(drawn("sometimes", 0, [4])),
                never: Param::from_tensor(drawn("never", 0, [2])),
            }
        }

        fn loss(&self, batch: &Batch) -> Tensor<B, 1> {
            let number = batch.host.sequences[0];
            let always = (self.always.val() * drawn("factor", number, [5, 3])).sum();
            match number % 3 {
                0 => always + (self.sometimes.val() * drawn("other", number, [4]) * -0.0).sum(),
                _ => always,
            }
        }

        fn measured(&self, batch: &Batch) -> Measured {
            let mut measured = Measured {
                nats: self.loss(batch).into_data().iter::<f64>().sum(),
                targets: 1 + batch.host.sequences[0],
                ..Measured::default()
            };
            measured.terms.insert("cost".into(), measured.nats / 3.0);
            measured
        }
    }

    impl<B: AutodiffBackend> TrainStep for Toy<B> {
        type Input = Batch;
        type Output = Measured;

        fn step(&self, batch: Batch) -> TrainOutput<Measured> {
            TrainOutput::new(self, self.loss(&batch).backward(), self.measured(&batch))
        }
    }

    impl<B: Backend> InferenceStep for Toy<B> {
        type Input = Batch;
        type Output = Measured;

        fn step(&self, batch: Batch) -> Measured {
            self.measured(&batch)
        }
    }

    impl<B: AutodiffBackend> Trainable<B> for Toy<B> {}

    fn bits<const D: usize>(
        gradients: &GradientsParams,
        of: &Param<Tensor<Learning, D>>,
    ) -> Option<Vec<u32>> {
        let gradient = gradients.get::<<Learning as AutodiffBackend>::InnerBackend, D>(of.id)?;
        Some(
            gradient
                .into_data()
                .iter::<f32>()
                .map(f32::to_bits)
                .collect(),
        )
    }

    #[test]
    fn the_sum_over_micro_batches_has_the_same_bits_for_any_number_of_ranks() {
        let batch = |number| Batch {
            host: HostBatch {
                sequences: vec![number],
                ..HostBatch::default()
            },
            source: 0,
            plan: StepPlan::default(),
        };
        let plan = StepPlan::idle(RoutePlan::sequential());
        for n_batches in 1..=7 {
            // A number of the second kind comes first, so that a parameter is absent at first.
            let batches: Vec<Batch> = (1..=n_batches).map(batch).collect();
            let of = |ranks: &Ranks| {
                let model = Toy::<Learning>::new();
                let found = accumulate(ranks, &model, &plan, batches.clone());
                let gradients = (
                    bits(&found.gradients, &model.always).unwrap(),
                    bits(&found.gradients, &model.sometimes),
                    bits(&found.gradients, &model.never),
                );
                (gradients, found.measured)
            };
            let expected = of(&Ranks::alone());
            assert_eq!(expected.0.1.is_some(), n_batches >= 3);
            assert_eq!(expected.0.2, None);
            for size in 2..=4 {
                for found in on_ranks(size, |ranks| of(&ranks)) {
                    assert_eq!(found, expected, "{n_batches} on {size} ranks");
                }
            }
        }
    }
}
