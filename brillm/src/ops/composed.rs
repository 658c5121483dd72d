//! The switch `NERVE_COMPOSED`: whether every operation runs as its definition, composed of tensor operations.

use std::sync::LazyLock;

/// True with `NERVE_COMPOSED=1` in the environment: to change an equation, or to check a fused version.
pub(crate) fn only() -> bool {
    static ASKED: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("NERVE_COMPOSED").is_some_and(|value| value == "1"));
    #[cfg(test)]
    if super::tests::asks_for_definitions() {
        return true;
    }
    *ASKED
}
