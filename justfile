# What to type often; `just --list` shows it.

export RUSTDOCFLAGS := "-D warnings"

# All that must hold before a push.
check: fmt clippy test doc deny typos

fmt:
    cargo fmt --all --check

# In the release profile like everything else, so that Burn is compiled once.
clippy:
    cargo clippy --workspace --all-targets --release -- -D warnings

test:
    cargo test --release --workspace

doc:
    cargo doc --release --no-deps --workspace

deny:
    cargo deny check

typos:
    typos

bench:
    cargo bench -p bench

demo:
    bash assets/demo.sh

# Stock lm-eval and the OpenAI client against `nerve serve`, in a cached environment; RUN is a run, as `last`.
ecosystem RUN="last":
    bash tests/scripts/ecosystem.sh target/release/nerve {{RUN}}
