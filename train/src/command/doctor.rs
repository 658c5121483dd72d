//! `nerve doctor`: what this program can use on this machine.

use super::answer::{self, aligned, readable_bytes};
use crate::cli;
use crate::device::{self, BACKENDS, DeviceConfig, Dtype, MatrixProduct};
use crate::error::Error;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Reports; a backend that does not start is a line of the report and no error.
///
/// # Errors
/// `Resource` if stdout cannot be written.
pub fn run(arguments: &cli::Doctor) -> Result<(), Error> {
    let backends: Vec<Backend> = BACKENDS
        .iter()
        .map(|(name, compiled)| look(name, *compiled))
        .collect();
    let memory = device::memory_bytes("/proc/meminfo", "MemTotal:");
    let burn_toml = burn_configuration();
    if arguments.json {
        let backends: Vec<Value> = backends.iter().map(Backend::json).collect();
        return answer::print_json(&json!({
            "schema": 1,
            "nerve": env!("CARGO_PKG_VERSION"),
            "threads": device::threads(),
            "memory_bytes": memory,
            "burn_toml": burn_toml,
            "backends": backends,
        }));
    }
    let mut table = vec![
        ["nerve".to_string(), env!("CARGO_PKG_VERSION").to_string()],
        ["threads".to_string(), device::threads().to_string()],
        [
            "memory".to_string(),
            memory.map_or("unknown".to_string(), readable_bytes),
        ],
        [
            "burn.toml".to_string(),
            burn_toml.map_or("none in force".to_string(), |path| {
                path.display().to_string()
            }),
        ],
    ];
    table.extend(backends.iter().map(Backend::row));
    answer::print(&aligned(&table))
}

struct Backend {
    name: &'static str,
    /// GFLOP/s, or why there are none.
    speed: Result<f64, String>,
}

fn look(name: &'static str, compiled: bool) -> Backend {
    let config = DeviceConfig {
        backend: name.to_string(),
        index: 0,
        dtype: Dtype::F32,
    };
    let speed = match compiled {
        true => device::run(&config, MatrixProduct).map_err(|error| error.to_string()),
        false => Err(format!("not compiled in (add --features {name})")),
    };
    Backend { name, speed }
}

impl Backend {
    fn row(&self) -> [String; 2] {
        let found = match &self.speed {
            Ok(speed) => format!("ok, f32 {speed:.0} GFLOP/s"),
            Err(cause) => cause.clone(),
        };
        [self.name.to_string(), found]
    }

    fn json(&self) -> Value {
        match &self.speed {
            Ok(speed) => json!({ "name": self.name, "ok": true, "gflops": speed }),
            Err(cause) => json!({ "name": self.name, "ok": false, "cause": cause }),
        }
    }
}

/// The file that Burn reads its settings from, if one is in force here.
fn burn_configuration() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let files = here
        .ancestors()
        .flat_map(|place| ["burn.toml", "cubecl.toml"].map(|name| place.join(name)));
    files.into_iter().find(|file| file.is_file())
}
