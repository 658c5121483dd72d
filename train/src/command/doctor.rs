//! `nerve doctor`: reports backends, devices, memory and speed of this machine.

use super::answer::{self, aligned, readable_bytes};
use crate::cli;
use crate::device::{self, BACKENDS, DeviceConfig, MatrixProduct};
use crate::error::Error;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Prints the report. A backend that does not start is a line of the report, not an error.
///
/// # Errors
/// `Resource` if stdout cannot be written.
pub fn run(arguments: &cli::Doctor) -> Result<(), Error> {
    let backends = BACKENDS.map(|(name, compiled)| look(name, compiled));
    let memory =
        ["MemTotal:", "MemAvailable:"].map(|which| device::memory_bytes("/proc/meminfo", which));
    let burn_toml = burn_configuration();
    let autotune = autotune(burn_toml.as_deref());
    let drivers = drivers();
    if arguments.json {
        let backends: Vec<Value> = backends.iter().map(Backend::json).collect();
        return answer::print_json(&json!({
            "schema": 1,
            "nerve": env!("CARGO_PKG_VERSION"),
            "threads": device::threads(),
            "memory_bytes": memory[0],
            "free_memory_bytes": memory[1],
            "burn_toml": burn_toml,
            "autotune_cache": autotune,
            "drivers": drivers,
            "backends": backends,
        }));
    }
    let [all, free] = memory.map(|bytes| bytes.map_or("unknown".to_string(), readable_bytes));
    let burn_toml = burn_toml.map(|path| path.display().to_string());
    let burn_toml = burn_toml.unwrap_or("none in force".to_string());
    let mut lines = vec![
        ("nerve", env!("CARGO_PKG_VERSION").to_string()),
        ("threads", device::threads().to_string()),
        ("memory", format!("{all}, {free} of it free")),
        ("burn.toml", burn_toml),
        ("autotune cache", autotune),
    ];
    lines.extend(drivers.into_iter().map(|driver| ("driver", driver)));
    lines.extend(backends.iter().map(Backend::line));
    let row = |(name, text): (&str, String)| [name.to_string(), text];
    let table: Vec<[String; 2]> = lines.into_iter().map(row).collect();
    answer::print(&aligned(&table))
}

struct Backend {
    name: &'static str,
    /// GFLOP/s, or why there are none.
    speed: Result<f64, String>,
}

fn look(name: &'static str, compiled: bool) -> Backend {
    let speed = match compiled {
        true => device::run(&DeviceConfig::first(name), MatrixProduct)
            .map_err(|error| error.to_string()),
        false => Err(format!("not compiled in (add --features {name})")),
    };
    Backend { name, speed }
}

impl Backend {
    fn line(&self) -> (&'static str, String) {
        let found = match &self.speed {
            Ok(speed) => format!("ok, f32 {speed:.0} GFLOP/s"),
            Err(cause) => cause.clone(),
        };
        (self.name, found)
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

/// Where Burn's GPU backends remember which of their kernels are fast here: the first run of a shape tries them all.
fn autotune(burn_toml: Option<&Path>) -> String {
    if let Some(burn_toml) = burn_toml {
        return format!("as {} says", burn_toml.display());
    }
    let here = std::env::current_dir().unwrap_or_default();
    let project = here
        .ancestors()
        .find(|place| place.join("Cargo.toml").is_file())
        .map(|project| project.join("target"));
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/cubecl"));
    let users = std::env::var_os("XDG_CACHE_HOME").map(|cache| Path::new(&cache).join("cubecl"));
    let Some(place) = project.or(users).or(home) else {
        return "unknown".to_string();
    };
    let place = place.join("autotune");
    let found = if place.is_dir() { "" } else { ", nothing yet" };
    format!("{}{found}", place.display())
}

/// The drivers of GPUs that this system says it has.
fn drivers() -> Vec<String> {
    let query = "--query-gpu=name,driver_version,memory.total,memory.free";
    let arguments = [query, "--format=csv,noheader"];
    let nvidia = Command::new("nvidia-smi").args(arguments).output();
    let nvidia = nvidia.map_or(Vec::new(), |output| output.stdout);
    let nvidia = String::from_utf8_lossy(&nvidia);
    let card = |line: &str| match line.split(", ").collect::<Vec<_>>()[..] {
        [name, driver, total, free] => Some(format!(
            "cuda: {name}, driver {driver}, {total}, {free} of it free"
        )),
        _ => None,
    };
    let cards = nvidia.lines().filter_map(card);
    let chosen = std::env::var_os("VK_DRIVER_FILES").or(std::env::var_os("VK_ICD_FILENAMES"));
    let files: Vec<PathBuf> = match chosen {
        Some(chosen) => std::env::split_paths(&chosen).collect(),
        None => ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"]
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flat_map(|files| files.flatten().map(|file| file.path()))
            .collect(),
    };
    let vulkan = files.iter().filter(|file| file.is_file());
    let vulkan = vulkan.map(|file| format!("vulkan: {}", file.display()));
    let mut drivers: Vec<String> = cards.chain(vulkan).collect();
    drivers.sort();
    drivers
}
