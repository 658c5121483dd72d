//! Tests that `parity` and `execution` also pass in processes with `NERVE_PORTABLE` (no x86-64-v3 vector instructions) and with
//! `NERVE_COMPOSED` (tensor operations instead of kernels).

use std::env::current_exe;
use std::process::Command;

/// Runs tests of models again, in a process with a variable set: golden cases, values and gradients, and groups beside each other.
fn passes_with(variable: &str) {
    let finished = Command::new(current_exe().unwrap())
        .args(["parity::", "execution::"])
        .env(variable, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&finished.stdout);
    assert!(finished.status.success(), "{said}");
    assert!(!said.contains(" 0 passed"), "{said}");
}

#[test]
fn models_of_other_processors_pass_the_same_tests() {
    passes_with("NERVE_PORTABLE");
}

#[test]
fn models_composed_of_tensor_operations_pass_the_same_tests() {
    passes_with("NERVE_COMPOSED");
}
