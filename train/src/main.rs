//! `nerve`: parse → command → exit code.

#![recursion_limit = "256"]

use clap::Parser;
use std::panic;
use std::process::ExitCode;
use train::allocator::{Allocator, allocator};
use train::cli::Cli;
use train::error::Error;
use train::render::is_end_by_key;
use train::say::say;
use train::{command, escape, signal};

#[global_allocator]
static ALLOCATOR: Allocator = allocator();

/// A panic is a bug of ours, never the user's mistake.
const BUG: u8 = 70;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The usual hook would panic once more where stderr is closed.
    panic::set_hook(Box::new(|panic| {
        if !is_end_by_key(panic) {
            say(&panic.to_string());
        }
    }));
    let run = || signal::survive_file_limit().and_then(|()| command::run(&cli.verb));
    match panic::catch_unwind(run) {
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
            say(&format!("{kind}: {}", lines.join("\n")));
            ExitCode::from(error.exit_code())
        }
        Err(_) => {
            say("error: this is a bug in nerve; please report it with the lines above");
            ExitCode::from(BUG)
        }
    }
}
