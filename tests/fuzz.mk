# Targets of the fuzzer (tests/fuzz). The same targets run as ordinary tests in `make test`.

FUZZ_TARGETS := $(sort $(basename $(notdir $(wildcard tests/fuzz/fuzz_targets/*.rs))))
FUZZ_BUILD := target/fuzz
# An input of 4 KiB has no reason to take a minute, 2 GiB, or 256 MiB at once.
FUZZ_LIMITS := -timeout=60 -rss_limit_mb=2048 -malloc_limit_mb=256
# The stable compiler has the sanitizer and its library; it only asks to be told that the flag for it may change.
FUZZ := RUSTC_BOOTSTRAP=1 cargo fuzz
FUZZ_OPTIONS := --fuzz-dir tests/fuzz --target-dir $(FUZZ_BUILD) --features libfuzzer

.PHONY: fuzz fuzz-guest fuzz-tool

fuzz: fuzz-tool ## Fuzz every target, or the one named TARGET, for TIME seconds each (default 60)
	cargo run --quiet --locked -p lockstep-tests --example fuzz_corpus -- $(FUZZ_BUILD)/seeds
	@$(FUZZ) build $(FUZZ_OPTIONS) $(TARGET) || { \
		echo "The targets could not be built for libFuzzer, which needs a C++ compiler (c++) and the sanitizer library of a rustup toolchain."; \
		echo "The same targets without it: cargo test -p lockstep-tests --test fuzz_corpora"; \
		exit 1; }
	@for target in $(or $(TARGET),$(FUZZ_TARGETS)); do \
		mkdir -p $(FUZZ_BUILD)/corpus/$$target; \
		echo "=== fuzz: $$target, $(or $(TIME),60) s"; \
		$(FUZZ) run $(FUZZ_OPTIONS) $$target $(FUZZ_BUILD)/corpus/$$target $(FUZZ_BUILD)/seeds/$$target \
			-- -max_total_time=$(or $(TIME),60) $(FUZZ_LIMITS) -print_final_stats=1 || exit 1; \
	done

fuzz-guest: ## Record and replay random guests on KVM for TIME seconds (default 60), from SEED on (default: the time)
	cargo build --release --locked -p lockstep-tests --bin fuzz-guest
	target/release/fuzz-guest --seconds $(or $(TIME),60) $(if $(SEED),--first $(SEED))

fuzz-tool:
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
