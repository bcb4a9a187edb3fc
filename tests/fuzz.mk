# Targets of the fuzzer (tests/fuzz). The same targets run as ordinary tests in `make test`.

FUZZ_TARGETS := log handshake configuration image devices switch resp
FUZZ_BUILD := target/fuzz
# An input of 4 KiB has no reason to take a minute, 2 GiB, or 256 MiB at once.
FUZZ_LIMITS := -timeout=60 -rss_limit_mb=2048 -malloc_limit_mb=256

.PHONY: fuzz fuzz-tool

fuzz: fuzz-tool ## Fuzz every target, or the one named TARGET, for TIME seconds each (default 60; needs nightly)
	cargo run --quiet --locked -p lockstep-tests --example fuzz_corpus -- $(FUZZ_BUILD)/seeds
	@for target in $(or $(TARGET),$(FUZZ_TARGETS)); do \
		mkdir -p $(FUZZ_BUILD)/corpus/$$target; \
		echo "=== fuzz: $$target, $(or $(TIME),60) s"; \
		cargo +nightly fuzz run --fuzz-dir tests/fuzz --target-dir $(FUZZ_BUILD) --features libfuzzer $$target \
			$(FUZZ_BUILD)/corpus/$$target $(FUZZ_BUILD)/seeds/$$target \
			-- -max_total_time=$(or $(TIME),60) $(FUZZ_LIMITS) -print_final_stats=1 || exit 1; \
	done

fuzz-tool:
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
