# Lockstep: `make` lists what there is.

.DEFAULT_GOAL := help
LOCKSTEP := target/release/lockstep

include guest-images/guests.mk
include tests/lab.mk
-include tests/fuzz.mk
-include tests/sim.mk
-include tests/soak.mk
-include tests/bench.mk
-include tests/torture.mk

.PHONY: help build test demo lint check

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST) | sort

build: guests ## Build the lockstep command and the guest images
	cargo build --release --bin lockstep

test: guests deps ## Run every test (needs /dev/kvm; without it, `make lab-test`), after installing what they need
	@tests/kvm-here test || true
	@# With a test target the dependencies have the features that `cargo test` gives them, and are built once.
	cargo build --workspace --bin lockstep --test repository
	LOCKSTEP_BIN=$(CURDIR)/target/debug/lockstep tests/counted cargo test --workspace
	@tests/kvm-here test || true

lint: guests-lint ## Formatting, lints, and links of the documentation, as CI checks them
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

ifeq ($(LAB),1)
demo: lab-demo ## Kill the sides of a protected machine under load, one after another, and watch (LAB=1: inside the lab)
else
demo:
	@tests/kvm-here demo
	@$(MAKE) --no-print-directory build
	$(LOCKSTEP) demo $(DEMO_OPTIONS)
endif
