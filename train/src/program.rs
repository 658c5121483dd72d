//! `main_with`: the `main` of a program: parses the command line, runs the command with a registry of families and hooks,
//! prints errors and panics to stderr, and returns the exit code.

use crate::cli::Cli;
use crate::error::Error;
use crate::registry::Registry;
use crate::render::is_end_by_key;
use crate::say::say_own;
use crate::{command, escape, signal};
use clap::Parser;
use std::panic;
use std::process::ExitCode;

/// A panic is a bug of ours, never the user's mistake.
const BUG: u8 = 70;

/// Runs what was typed, with all verbs, for the families and hooks of a registry: the `main` of a program.
pub fn main_with(registry: Registry) -> ExitCode {
    let cli = Cli::parse();
    // The usual hook would panic once more where stderr is closed.
    panic::set_hook(Box::new(|panic| {
        if !is_end_by_key(panic) {
            say_own(&panic.to_string());
        }
    }));
    let run = || {
        registry.install()?;
        signal::survive_file_limit()?;
        command::run(&cli.verb)
    };
    match panic::catch_unwind(panic::AssertUnwindSafe(run)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            // A run that was stopped and saved met no error.
            let kind = match error {
                Error::Stopped { .. } | Error::Interrupted { .. } => "nerve",
                _ => "error",
            };
            // Each problem is one line, whatever names are part of it.
            let lines: Vec<String> = error
                .lines()
                .iter()
                .map(|line| escape::terminal(line))
                .collect();
            // One that another rank met is said there.
            if !lines.is_empty() {
                say_own(&format!("{kind}: {}", lines.join("\n")));
            }
            ExitCode::from(error.exit_code())
        }
        Err(_) => {
            say_own("error: this is a bug in nerve; please report it with the lines above");
            ExitCode::from(BUG)
        }
    }
}
