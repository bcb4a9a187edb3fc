# What protection costs.

.PHONY: bench

bench: build deps ## Measure what protection costs: a table, and bench.json
	cargo bench --locked -p lockstep-logging-channel
	cargo bench --locked -p lockstep --bench gate
	LOCKSTEP_BIN=target/release/lockstep cargo run --release --locked -p lockstep-tests --bin bench
