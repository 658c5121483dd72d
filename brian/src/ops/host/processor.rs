//! `v3`: the x86-64-v3 vector instructions for kernels written for them, or `None` if the processor lacks them or
//! `NERVE_PORTABLE=1` forbids them.

use pulp::x86::V3;
use std::sync::LazyLock;

/// The instructions of x86-64-v3, if the machine has them.
///
/// With `NERVE_PORTABLE=1` in the environment kernels compute as without them, to test the code of other processors.
/// tested on this one.
pub fn v3() -> Option<V3> {
    static ALLOWED: LazyLock<Option<V3>> = LazyLock::new(|| {
        let is_portable = std::env::var_os("NERVE_PORTABLE").is_some_and(|value| value == "1");
        V3::try_new().filter(|_| !is_portable)
    });
    *ALLOWED
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use std::env::current_exe;
    use std::process::Command;

    #[test]
    fn kernels_of_other_processors_agree_with_their_definitions_too() {
        let mut tests = Command::new(current_exe().unwrap());
        // All but this one.
        tests.args(["ops::", "--skip", "processor"]);
        tests.env("NERVE_PORTABLE", "1");
        let finished = tests.output().unwrap();
        let said = String::from_utf8_lossy(&finished.stdout);
        assert!(finished.status.success(), "{said}");
        assert!(!said.contains(" 0 passed"), "{said}");
    }
}
