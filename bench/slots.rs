//! Prints how many tokens per second one text and sixteen texts gain in the slots of a decoder, and what a routed walk costs
//! beside a fixed path of as many blocks: what `nerve serve` can do, without its requests.
//!
//! Every text reads a prompt and then goes on; a text that has its token begins the next at once. Rounds are interleaved; the
//! table shows medians. `cargo bench -p bench --bench slots -- d256` measures only subjects with that in their names.
#![allow(missing_docs)]

use bench::{BenchBackend, Shape, VOCABULARY, by_lot, in_place, leaving_by_lot};
use brian::route::policy::{Policy, Select, SequenceInfo, Teacher};
use brian::{Baseline, Brian, Decoder, Rules};
use std::time::Instant;

const ROUNDS: usize = 7;
const CLIENTS: [usize; 2] = [1, 16];
const PROMPT: usize = 32;
const MAX_STEPS: usize = 8;
/// Blocks of a walk, on average.
const LIVE: usize = 4;
const WIDE: Shape = Shape {
    n_heads: 12,
    ..Shape::small(768, 12, 1, 256)
};
const NARROW: Shape = Shape::small(256, 6, 1, 256);

enum Model {
    Baseline(Box<Baseline<BenchBackend>>),
    Brian(Box<Brian<BenchBackend>>, Box<Rules>),
}

struct Subject {
    name: &'static str,
    model: Model,
    /// Tokens of each text behind its prompt, for one text and for several.
    n_tokens: [usize; 2],
}

impl Subject {
    fn decoder(&self) -> Decoder<'_, BenchBackend> {
        match &self.model {
            Model::Baseline(model) => Decoder::baseline(model),
            Model::Brian(model, rules) => Decoder::brian(model, rules),
        }
    }

    /// Tokens per second, and blocks of the pool per token.
    fn run(&self, n_clients: usize, n_tokens: usize) -> (f64, f64) {
        let mut decoder = self.decoder();
        let mut left = vec![0; n_clients];
        for client in 0..n_clients as u64 {
            let slot = decoder.open(SequenceInfo {
                sequence: client,
                difficulty: None,
            });
            let token = |place| ((client as usize * 31 + place * 7919) % VOCABULARY) as u32;
            let prompt: Vec<u32> = (0..PROMPT).map(token).collect();
            decoder.read(slot, &prompt, 1);
            left[slot] = n_tokens;
        }
        let (mut n_gained, mut n_blocks) = (0, 0);
        let begun = Instant::now();
        (0..n_clients).for_each(|slot| decoder.begin(slot, 1));
        while left.iter().any(|&left| left > 0) {
            let Some((slots, said)) = decoder.round() else {
                continue;
            };
            let _ = said.logits.into_data();
            for (slot, path) in slots.into_iter().zip(said.paths) {
                n_gained += 1;
                n_blocks += path.len();
                left[slot] -= 1;
                if left[slot] > 0 {
                    decoder.begin(slot, ((n_gained * 17) % VOCABULARY) as u32);
                }
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        let n_gained = n_gained as f64;
        (n_gained / seconds, n_blocks as f64 / n_gained)
    }
}

fn subjects() -> Vec<Subject> {
    let device = Default::default();
    let wide = WIDE.baseline().init(VOCABULARY, 1, &device);
    let mut config = NARROW.brian();
    config.route.max_steps = MAX_STEPS;
    let narrow: Brian<BenchBackend> = config.init(VOCABULARY, 1, &device);
    let n_pool = config.n_pool;
    let path = Teacher::Path {
        blocks: (0..LIVE).map(|step| step % n_pool).collect(),
    };
    let fixed = Rules {
        policy: Policy::Teacher(path),
        ..Rules::sequential()
    };
    let walks = by_lot();
    let greedy = Rules {
        policy: Policy::Router {
            teacher: None,
            select: Select::Argmax,
        },
        ..walks.clone()
    };
    let routed = leaving_by_lot(&narrow, LIVE as f64, MAX_STEPS);
    let all = vec![
        Subject {
            name: "baseline d768x12",
            model: Model::Baseline(Box::new(wide)),
            n_tokens: [24, 12],
        },
        Subject {
            name: "a fresh router, d256",
            model: Model::Brian(Box::new(narrow.clone()), Box::new(greedy)),
            n_tokens: [160, 80],
        },
        Subject {
            name: "path of 4, d256",
            model: Model::Brian(Box::new(narrow), Box::new(fixed)),
            n_tokens: [160, 80],
        },
        // Tokens that choose by lot share as few blocks as they can.
        Subject {
            name: "walks of 4 by lot, d256",
            model: Model::Brian(Box::new(routed), Box::new(walks)),
            n_tokens: [160, 80],
        },
    ];
    let arguments = std::env::args().skip(1);
    let named: Vec<String> = arguments.filter(|it| !it.starts_with('-')).collect();
    let is_named =
        |of: &Subject| named.is_empty() || named.iter().any(|name| of.name.contains(name));
    all.into_iter().filter(is_named).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    in_place(measure);
}

fn measure() {
    let subjects = subjects();
    let mut speeds = vec![[const { Vec::new() }; 2]; subjects.len()];
    let mut blocks = vec![0.0; subjects.len()];
    for round in 0..=ROUNDS {
        for (subject, (speeds, blocks)) in subjects.iter().zip(speeds.iter_mut().zip(&mut blocks)) {
            for (index, n_clients) in CLIENTS.into_iter().enumerate() {
                let (speed, n_blocks) = subject.run(n_clients, subject.n_tokens[index]);
                // The first round warms up.
                if round > 0 {
                    speeds[index].push(speed);
                    *blocks = n_blocks;
                }
            }
        }
    }
    println!("| model | blocks of the pool per token | tokens/s of 1 text | of 16 | 16 over 1 |");
    println!("|---|---|---|---|---|");
    for (subject, (speeds, blocks)) in subjects.iter().zip(speeds.iter().zip(&blocks)) {
        let ratios = speeds[1]
            .iter()
            .zip(&speeds[0])
            .map(|(many, one)| many / one);
        println!(
            "| {} | {blocks:.2} | {:.0} | {:.0} | {:.2} |",
            subject.name,
            median(speeds[0].clone()),
            median(speeds[1].clone()),
            median(ratios.collect())
        );
    }
    let of = |name: &str| {
        subjects
            .iter()
            .position(|subject| subject.name.starts_with(name))
    };
    if let (Some(path), Some(walks)) = (of("path"), of("walks")) {
        let ratios = speeds[walks][1].iter().zip(&speeds[path][1]);
        let ratio = median(ratios.map(|(walks, path)| walks / path).collect());
        println!("\nAt 16 texts walks gain {ratio:.2} times the tokens per second of the path.");
    }
}
