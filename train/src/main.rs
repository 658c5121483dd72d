//! `nerve`: the program with the built-in models.

#![recursion_limit = "256"]

use std::process::ExitCode;
use train::allocator::{Allocator, allocator};
use train::{Registry, main_with};

#[global_allocator]
static ALLOCATOR: Allocator = allocator();

fn main() -> ExitCode {
    main_with(Registry::built_in())
}
