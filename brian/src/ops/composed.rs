//! The switch `NERVE_COMPOSED`: whether every operation runs as its definition, composed of tensor operations.

use std::sync::LazyLock;

/// True with `NERVE_COMPOSED=1` in the environment: to change an equation, or to check a fused version.
pub(crate) fn only() -> bool {
    static ASKED: LazyLock<bool> = LazyLock::new(|| {
        let asked = std::env::var_os("NERVE_COMPOSED");
        asked.is_some_and(|value| value == "1")
    });
    #[cfg(test)]
    if here::is_asked() {
        return true;
    }
    *ASKED
}

/// For a test that holds both against the same numbers.
#[cfg(test)]
pub(crate) mod here {
    use std::cell::Cell;

    thread_local! {
        static ASKED: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn is_asked() -> bool {
        ASKED.get()
    }

    /// Runs a test with everything that its own thread asks for composed of tensor operations.
    #[cfg(feature = "ndarray")]
    pub(crate) fn composed(test: impl FnOnce()) {
        let before = ASKED.replace(true);
        test();
        ASKED.set(before);
    }
}
