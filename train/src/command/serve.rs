//! `nerve serve`: answers requests to a trained model over HTTP, until a signal comes.

use super::answer;
use super::trained::Trained;
use crate::cli;
use crate::data::SpelledSpecials;
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::file::read_text;
use crate::say::note;
use crate::serve::engine;
use crate::serve::http::{Limits, Server, key_hash};
use crate::serve::metrics::Metrics;
use crate::serve::served::Served;
use crate::serve::{connection, engine::Bounds};
use crate::signal::{self, Stop};
use crate::task::Continuation;
use brian::generate::Sampling;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use serde_json::json;
use signal_hook::consts::SIGTERM;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of a body: a million token ids, or a text of a few books.
const BODY_BYTES: usize = 8 << 20;
/// The largest file of keys.
const KEY_BYTES: u64 = 1 << 20;

/// Serves until a signal comes.
///
/// # Errors
/// As [`Trained::open`]; `Config` for keys that are none; `Resource` if the address cannot be listened on.
pub fn run(arguments: &cli::Serve) -> Result<(), Error> {
    let stop = signal::install()?;
    let keys = keys(arguments.api_key_file.as_deref())?;
    let trained = Trained::open(&arguments.source)?;
    let device = trained.device.clone();
    let task = Serve {
        trained,
        arguments,
        listener: listen(arguments)?,
        keys,
        stop,
    };
    device::run(&device, task)
}

fn listen(arguments: &cli::Serve) -> Result<TcpListener, Error> {
    let address = format!("{}:{}", arguments.host, arguments.port);
    let bound = TcpListener::bind((arguments.host.as_str(), arguments.port));
    bound.map_err(|source| Error::resource(address, "listen", source))
}

/// The hashes of the keys of a file, one of each line.
fn keys(file: Option<&Path>) -> Result<Vec<[u8; 32]>, Error> {
    let Some(file) = file else {
        return Ok(Vec::new());
    };
    let text = read_text(file, "a file with a key per line", KEY_BYTES)?;
    let keys = text.lines().map(str::trim).filter(|key| !key.is_empty());
    let keys: Vec<_> = keys.map(key_hash).collect();
    match keys.is_empty() {
        false => Ok(keys),
        // Without any, everybody would be answered.
        true => {
            let problem = Problem::new(file, "", "no key", "a key per line");
            Err(Error::config(problem))
        }
    }
}

/// What the model allows.
fn bounds(trained: &Trained, arguments: &cli::Serve) -> Bounds {
    let context = trained.longest_text(arguments.longest as usize);
    let Continuation {
        vocabulary,
        never,
        ends,
        ..
    } = Continuation::new(&trained.tokenizer, 0, context, Sampling::plain(0));
    Bounds {
        n_slots: arguments.slots as usize,
        context,
        vocabulary,
        never,
        ends,
    }
}

struct Serve<'a> {
    trained: Trained,
    arguments: &'a cli::Serve,
    listener: TcpListener,
    keys: Vec<[u8; 32]>,
    stop: Stop,
}

/// Stops the server when the model's thread ends, however that is.
struct StopAtEnd(Stop);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.request(SIGTERM);
    }
}

impl Task for Serve<'_> {
    type Output = ();

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<(), Error> {
        let Self {
            mut trained,
            arguments,
            listener,
            keys,
            stop,
        } = self;
        let model = trained.only_model::<B>(&device)?.valid();
        let model = model.with_matmul_dtype(trained.device.dtype);
        let mut slots = model.slots(&trained.route().rules);
        let bounds = bounds(&trained, arguments);
        let parsing = trained.tokenizer_with(SpelledSpecials::Parse)?;
        let state = &trained.loaded.snapshot.state;
        let name = arguments.source.run.clone();
        let served = Served {
            name: name_of(&trained.loaded.path).unwrap_or_else(|| name.clone()),
            alias: name,
            facts: json!({
                "kind": trained.recipe.model.kind(), "stage": state.stage, "step": state.step,
                "slots": bounds.n_slots, "reads_only_new_tokens": slots.keeps(),
                "backend": trained.device.backend,
            }),
            // What is left of the checkpoint need not stay in memory.
            tokenizer: trained.tokenizer,
            parsing,
            start: trained.recipe.data.start,
            context: bounds.context,
            since: seconds_since_1970(),
        };
        drop(trained.loaded);
        let (jobs, received) = channel();
        let metrics = Arc::new(Metrics::default());
        let server = Arc::new(Server {
            served: Arc::new(served),
            jobs,
            metrics: metrics.clone(),
            limits: Limits {
                body_bytes: BODY_BYTES,
                queue: arguments.queue as usize,
                body_time: Duration::from_secs(30),
                answer_time: Duration::from_secs(arguments.time_limit_s),
            },
            keys,
            n_requests: 0.into(),
        });
        let of_connections = connection::Bounds {
            connections: 512,
            headers: 64,
            header_bytes: 64 << 10,
            header_time: Duration::from_secs(30),
            write_time: Duration::from_secs(30),
            drain_time: Duration::from_secs(arguments.drain_s),
        };
        let failed = |source| Error::resource("the server", "listen", source);
        let address = listener.local_addr().map_err(failed)?;
        answer::print_text(&format!("http://{address}\n"))?;
        note(&format!(
            "serving {} on http://{address}; SIGTERM lets answers end",
            server.served.name
        ));
        let served = std::thread::scope(|scope| {
            let stopping = StopAtEnd(stop.clone());
            // The senders of jobs go with it, and then the model's loop ends.
            let http =
                scope.spawn(move || connection::run(listener, &server, &of_connections, &stop));
            engine::run(&mut *slots, &received, &bounds, &metrics);
            drop(stopping);
            http.join()
                .unwrap_or_else(|_| Err(io::Error::other("a panic")))
        });
        served.map_err(failed)
    }
}

/// The name of the run that holds a checkpoint.
fn name_of(checkpoint: &Path) -> Option<String> {
    let run = checkpoint.parent()?.parent()?.canonicalize().ok()?;
    Some(run.file_name()?.to_string_lossy().into_owned())
}

fn seconds_since_1970() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_keys_has_one() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("keys");
        std::fs::write(&file, "one\n\n two \n").unwrap();
        assert_eq!(
            keys(Some(&file)).unwrap(),
            [key_hash("one"), key_hash("two")]
        );
        assert!(keys(None).unwrap().is_empty());
        std::fs::write(&file, "\n \n").unwrap();
        let error = keys(Some(&file)).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error
                .to_string()
                .ends_with("found no key, expected a key per line")
        );
    }
}
