//! `in_float64`: runs the body of a test again in a process of its own, where tensors are float64.

use super::TestBackend;
use burn::tensor::{DType, set_default_dtypes};
use std::env;
use std::process::Command;

/// Set in the process of such a test.
const FLOAT64: &str = "NERVE_TEST_FLOAT64";

/// Runs the body of a test where two ways to one number are compared and no rounding may hide, or feign, a difference: layer after
/// layer makes a rounding of float32 larger. What tensors are made of is one setting of a device for a whole process, so the test
/// gets one of its own.
pub fn in_float64<Body: FnOnce()>(body: Body) {
    if env::var_os(FLOAT64).is_some() {
        let set = set_default_dtypes::<TestBackend>(&Default::default(), DType::F64, DType::I64);
        set.expect("nothing was made on the device before");
        return body();
    }
    let name = std::any::type_name::<Body>();
    let name = name.strip_suffix("::{{closure}}").expect("a closure");
    let (_, name) = name.split_once("::").expect("a path in a crate");
    let finished = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(FLOAT64, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&finished.stdout);
    let ran = finished.status.success() && said.contains("1 passed");
    let complaint = String::from_utf8_lossy(&finished.stderr);
    assert!(ran, "{name} in float64: {said}{complaint}");
}
