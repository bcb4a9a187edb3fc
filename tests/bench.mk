# What protection costs.

.PHONY: bench

bench: build deps ## Measure what protection costs: a table, and bench.json
	cargo bench -p lockstep-logging-channel
	LOCKSTEP_BIN=target/release/lockstep cargo run --release -p lockstep-tests --bin bench
