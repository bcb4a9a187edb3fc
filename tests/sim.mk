# Targets of the simulator (tests/src/simulator).

.PHONY: sim mutants

sim: ## Simulate SEEDS pairs and their failures (default 100,000), from seed FIRST on, on all processors
	cargo run --release --locked -p lockstep-tests --bin simulate -- --seeds $(or $(SEEDS),100000) --first $(or $(FIRST),0)

mutants: ## Show that the simulator finds deliberate defects
	cargo test --locked --workspace --features lockstep-tests/mutants --test mutants -- --nocapture
