//! `nerve bench`: times a run's training, evaluation, reading and sampling on its own data, beside the matrix products of its
//! device.

use super::answer::{self, maybe, readable_bytes, table};
use super::trained::{Trained, found};
use crate::cli;
use crate::collective::Ranks;
use crate::data::StartRule;
use crate::device::{self, MatrixProduct, Task};
use crate::error::Error;
use crate::ladder::{Inputs, Ladder};
use crate::learner::{ParameterOptimizer, TrainingLoader};
use crate::model::{Model, Ran};
use crate::render::Render;
use crate::say::note;
use crate::signal::Stop;
use crate::task::{Batch, Continuation, not_finite};
use brian::flops::TRAINING;
use brian::generate::Sampling;
use burn::data::dataloader::DataLoader;
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::train::InferenceStep;
use serde_json::{Value, json};
use std::io;
use std::time::Instant;

/// Measures and prints the speeds. No file is written. Of a run whose data are not there, as an imported one, those that need none.
///
/// # Errors
/// `Invalid` for the run; `Resource` if the device does not start; `Numerical` if a loss is not finite.
pub fn run(arguments: &cli::Bench) -> Result<(), Error> {
    let trained = Trained::open(&arguments.source)?;
    let device = trained.device.clone();
    let gflops = device::run(&device, MatrixProduct)?;
    let (run, recipe) = found(&arguments.source)?;
    let inputs = match Inputs::open(&recipe) {
        Ok(inputs) => Some(inputs),
        Err(missing @ Error::Invalid(_)) => {
            note(&format!("{missing}; steps and evaluation are not measured"));
            None
        }
        Err(error) => return Err(error),
    };
    let ladder = inputs.map(|inputs| Ladder {
        inputs,
        recipe,
        run,
        extensions: Vec::new(),
        stop: Stop::new(),
        render: Render::None,
        fail_on_collapse: false,
        ranks: Ranks::alone(),
    });
    let bench = Bench {
        trained,
        ladder,
        arguments,
    };
    let speeds = device::run(&device, bench)?;
    let memory = device::memory_bytes("/proc/self/status", "VmHWM:");
    let (threads, rounds, backend) = (device::threads(), arguments.rounds, &device.backend);
    let object = || {
        json!({
            "schema": 1,
            "backend": backend,
            "threads": threads,
            "product_gflops": gflops,
            "peak_memory_bytes": memory,
            "rounds": rounds,
            "speeds": speeds.iter().map(|speed| speed.json(gflops)).collect::<Value>(),
        })
    };
    let text = || {
        let head = "what | tokens | ms | tokens/s | GFLOP/s | of a large product";
        let table = table(head, speeds.iter().map(|speed| speed.row(gflops)));
        let memory = memory.map_or("unknown".to_string(), readable_bytes);
        format!(
            "{table}\nMedians of {rounds} rounds on {backend}, {threads} threads; a large product runs at {gflops:.0} GFLOP/s. \
             Peak memory of the host: {memory}.\n"
        )
    };
    answer::give(arguments.source.json, object, text)
}

/// How fast one thing is.
struct Speed {
    what: &'static str,
    /// Per round.
    tokens: u64,
    /// The median round.
    seconds: f64,
    /// Of a round, where they are counted.
    flops: Option<f64>,
}

impl Speed {
    fn gflops(&self) -> Option<f64> {
        Some(self.flops? / self.seconds / 1e9)
    }

    fn row(&self, peak: f64) -> [String; 6] {
        let gflops = self.gflops();
        [
            self.what.to_string(),
            self.tokens.to_string(),
            format!("{:.2}", self.seconds * 1e3),
            format!("{:.0}", self.tokens as f64 / self.seconds),
            maybe(gflops, |speed| format!("{speed:.1}")),
            maybe(gflops, |speed| format!("{:.0} %", 100.0 * speed / peak)),
        ]
    }

    fn json(&self, peak: f64) -> Value {
        json!({
            "what": self.what,
            "tokens": self.tokens,
            "milliseconds": self.seconds * 1e3,
            "tokens_per_second": self.tokens as f64 / self.seconds,
            "gflops": self.gflops(),
            "share_of_product": self.gflops().map(|speed| speed / peak),
        })
    }
}

struct Bench<'a> {
    trained: Trained,
    /// With the data of the run, if they are there.
    ladder: Option<Ladder>,
    arguments: &'a cli::Bench,
}

impl Task for Bench<'_> {
    type Output = Vec<Speed>;

    fn run<B: AutodiffBackend>(mut self, device: B::Device) -> Result<Vec<Speed>, Error> {
        let learner = self.trained.only_model::<B>(&device)?;
        let model = learner.valid();
        let mut speeds = Vec::new();
        if let Some(ladder) = &self.ladder {
            speeds.push(self.evaluate(ladder, &model, &device)?);
        }
        // A graph reads a prompt as it reads what follows, token by token.
        if model.own_optimizer().is_none() {
            speeds.extend(self.read(&model, &device)?);
        }
        speeds.push(self.sample(&model, &device)?);
        // Last, for it changes a graph's weights, which all clones share.
        if let Some(ladder) = &self.ladder {
            speeds.push(self.train(ladder, learner, &device)?);
        }
        Ok(speeds)
    }
}

impl Bench<'_> {
    /// The median time of a round, the device's queue drained before the clock stops.
    fn median<B: Backend>(
        &self,
        device: &B::Device,
        mut round: impl FnMut() -> Result<(), Error>,
    ) -> Result<f64, Error> {
        self.median_behind::<B, ()>(device, || (), |()| round())
    }

    /// The same of rounds that need something made before, which is not timed.
    fn median_behind<B: Backend, T>(
        &self,
        device: &B::Device,
        make: impl Fn() -> T,
        mut round: impl FnMut(T) -> Result<(), Error>,
    ) -> Result<f64, Error> {
        let sync = || {
            let refused = |cause| Error::resource("device", "wait", io::Error::other(cause));
            B::sync(device).map_err(refused)
        };
        let mut times = Vec::new();
        for index in 0..self.arguments.warm_up + self.arguments.rounds {
            let made = make();
            sync()?;
            let start = Instant::now();
            round(made)?;
            sync()?;
            if index >= self.arguments.warm_up {
                times.push(start.elapsed().as_secs_f64());
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    /// Forward passes over the first batch of the first validation split.
    fn evaluate<B: Backend>(
        &self,
        ladder: &Ladder,
        model: &Model<B>,
        device: &B::Device,
    ) -> Result<Speed, Error> {
        let batch = self.first_batch(ladder);
        let tokens = (batch.host.batch * batch.host.seq) as u64;
        let seconds = self.median::<B>(device, || {
            let _ = model.step(batch.clone());
            Ok(())
        })?;
        Ok(Speed {
            what: "evaluate",
            tokens,
            seconds,
            flops: self
                .flops_per_token(model, &batch)
                .map(|flops| flops * tokens as f64),
        })
    }

    /// Reads a prompt at once, then the rest of a text token by token, from caches.
    fn read<B: Backend>(&self, model: &Model<B>, device: &B::Device) -> Result<[Speed; 2], Error> {
        let context = self.trained.recipe.model.context();
        let n_prefill = (self.arguments.prefill as usize).min(context - 1);
        let n_decode = (self.arguments.tokens as usize).min(context - n_prefill);
        let ids = match &self.ladder {
            Some(ladder) => self.first_batch(ladder).host.inputs,
            None => (0..self.trained.tokenizer.vocabulary_size() as u32).collect(),
        };
        let ids = ids.into_iter().cycle();
        let text: Vec<u32> = ids.take(n_prefill + n_decode).collect();
        let rules = self.trained.route().rules;
        let model = model.with_matmul_dtype(self.trained.device.dtype);
        let prompted = || {
            let mut sequence = model.decoding(&rules);
            drop(sequence.follow(&text[..n_prefill]));
            sequence
        };
        let prefill = self.median::<B>(device, || {
            drop(prompted());
            Ok(())
        })?;
        let decode = self.median_behind::<B, _>(device, prompted, |mut sequence| {
            for end in n_prefill..text.len() {
                drop(sequence.follow(&text[..=end]));
            }
            Ok(())
        })?;
        let speed = |what, tokens, seconds| Speed {
            what,
            tokens: tokens as u64,
            seconds,
            flops: None,
        };
        Ok([
            speed("prefill", n_prefill, prefill),
            speed("decode", n_decode, decode),
        ])
    }

    /// Continues one text, as `nerve sample` does.
    fn sample<B: Backend>(&self, model: &Model<B>, device: &B::Device) -> Result<Speed, Error> {
        let start = [self.trained.tokenizer.start()];
        let context = self.trained.recipe.model.context();
        let rules = self.trained.route().rules;
        let model = model.with_matmul_dtype(self.trained.device.dtype);
        let tokens = (self.arguments.tokens as usize).min(context - 1);
        let tokenizer = &self.trained.tokenizer;
        // Behind the end of a document another one follows, so that the number of tokens is known.
        let how = Continuation::new(tokenizer, tokens, context, Sampling::plain(1))
            .beyond_ends(tokenizer, StartRule::FirstToken);
        let checkpoint = &self.trained.loaded.path;
        let seconds = self.median::<B>(device, || {
            let drawn = model.continue_tokens(&start, &rules, &how);
            drawn.map_err(|found| Error::Invalid(not_finite(checkpoint, found)))?;
            Ok(())
        })?;
        Ok(Speed {
            what: "sample",
            tokens: tokens as u64,
            seconds,
            flops: None,
        })
    }

    /// Optimizer steps, as at the beginning of the stage that the checkpoint was saved in.
    fn train<B: AutodiffBackend>(
        &self,
        ladder: &Ladder,
        learner: Model<B>,
        device: &B::Device,
    ) -> Result<Speed, Error> {
        let (recipe, stage) = (&self.trained.recipe, self.trained.stage());
        let flops = self.flops_per_token(&learner.valid(), &self.first_batch(ladder));
        let accumulate = stage.micro_batches(recipe.batch.accumulate).at(0);
        let rounds = self.arguments.warm_up + self.arguments.rounds;
        let loader = TrainingLoader {
            data: ladder.inputs.train.clone(),
            positions: 0..rounds * accumulate as u64,
        };
        let mut batches = DataLoader::<B, Batch>::iter(&loader);
        let optimizer = ParameterOptimizer::new(&recipe.optimizer);
        let mut state = self.trained.loaded.snapshot.state.clone();
        state.stage_step = 0;
        let mut session = ladder.session(stage, state, optimizer, Vec::new());
        session.model = Some(learner);
        let seconds = self.median::<B>(device, || {
            session.bare_step(batches.by_ref().take(accumulate).collect())
        })?;
        let tokens = (recipe.batch.sequences * recipe.data.window * accumulate) as u64;
        Ok(Speed {
            what: "train",
            tokens,
            seconds,
            flops: flops.map(|flops| TRAINING * flops * tokens as f64),
        })
    }

    fn first_batch(&self, ladder: &Ladder) -> Batch {
        let valid = ladder.inputs.valid.on(self.trained.route());
        let first = valid.batches().next();
        first.expect("a split without a window was refused when it was opened")
    }

    /// FLOPs of a token in a forward pass, by the walks of a batch.
    fn flops_per_token<B: Backend>(&self, model: &Model<B>, batch: &Batch) -> Option<f64> {
        let vocabulary = self.trained.tokenizer.vocabulary_size();
        let vocabulary = self.trained.recipe.rows(vocabulary);
        let rules = self.trained.route().rules;
        let seq = batch.host.seq;
        let model_config = &self.trained.recipe.model;
        let walked = model_config
            .routes()
            .then(|| model.forward_batch(batch, &rules).1);
        let (trace, texts) = (walked.flatten(), batch.segments());
        let ran = Ran {
            batch: batch.host.batch,
            seq,
            texts: &texts,
            rules: &rules,
            walks: trace.as_ref().map(|trace| &trace.walks),
        };
        let flops = model_config.flops(vocabulary, &ran)?;
        Some(flops / (ran.batch * ran.seq) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_tokens_and_operations_over_seconds_and_a_share_of_the_product() {
        let speed = Speed {
            what: "train",
            tokens: 500,
            seconds: 0.25,
            flops: Some(1e9),
        };
        // 2000 tokens and 4e9 operations a second, of 16e9.
        assert_eq!(speed.gflops(), Some(4.0));
        assert_eq!(
            speed.row(16.0),
            ["train", "500", "250.00", "2000", "4.0", "25 %"]
        );
        let object = speed.json(16.0);
        let number = |name: &str| object[name].as_f64().unwrap();
        assert_eq!(
            [
                "tokens",
                "milliseconds",
                "tokens_per_second",
                "gflops",
                "share_of_product"
            ]
            .map(number),
            [500.0, 250.0, 2000.0, 4.0, 0.25]
        );
        let uncounted = Speed {
            flops: None,
            ..speed
        };
        assert_eq!(uncounted.row(16.0)[3..], ["2000", "-", "-"]);
        assert!(uncounted.json(16.0)["gflops"].is_null());
    }
}
