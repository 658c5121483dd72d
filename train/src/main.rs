//! `nerve`: parse → command → exit code.

#![recursion_limit = "256"]

use clap::Parser;
use std::panic;
use std::process::ExitCode;
use train::cli::Cli;
use train::command;
use train::error::Error;

/// A panic is a bug of ours, never the user's mistake.
const BUG: u8 = 70;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match panic::catch_unwind(|| command::run(&cli.verb)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            // A run that was stopped and saved met no error.
            let kind = if matches!(error, Error::Stopped { .. }) {
                "nerve"
            } else {
                "error"
            };
            eprintln!("{kind}: {error}");
            ExitCode::from(error.exit_code())
        }
        Err(_) => {
            eprintln!("error: this is a bug in nerve; please report it with the lines above");
            ExitCode::from(BUG)
        }
    }
}
