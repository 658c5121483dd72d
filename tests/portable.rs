//! What kernels compute on a processor without the vector instructions of x86-64-v3.

use std::env::current_exe;
use std::process::Command;

#[test]
fn models_of_other_processors_pass_the_same_tests() {
    let finished = Command::new(current_exe().unwrap())
        .args(["parity::", "causality::", "decode::", "execution::"])
        .env("NERVE_PORTABLE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&finished.stdout);
    assert!(finished.status.success(), "{said}");
    assert!(!said.contains(" 0 passed"), "{said}");
}
