# What protection costs.

.PHONY: bench

bench: build deps ## Measure what protection costs: a table, and bench.json (ONLY=channel: the lease on a full channel)
ifndef ONLY
	cargo bench --locked -p lockstep-logging-channel
	cargo bench --locked -p lockstep-core --bench gate
endif
	LOCKSTEP_BIN=target/release/lockstep cargo run --release --locked -p lockstep-tests --bin bench -- $(ONLY)
