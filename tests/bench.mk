# What protection costs.
#
#   make bench                                    everything
#   make bench ONLY=channel                       the lease on a full channel
#   make bench ONLY=healing                       a newcomer joins (minutes); FULL=1: every cell three times (an hour)
#   make bench ONLY=healing HEALING="memory=1024 pages=0,10000 mbit=1000 rounds=3 timeout=200"
#   make bench ONLY=recording                     snapshots of a recording (a minute or two)
#   make bench ONLY=checkpoint [ROUNDS=3]    checkpoint mode beside replay (some minutes)
#   make bench ONLY=disks [ROUNDS=3]         disks beside fio on the host, and a backup that joins again (some minutes)
#   make bench TIMEOUT_MS=2000                    on a host so busy that pairs part
#   make bench BEFORE=lockstep BEFORE_GUESTS=folder [ONLY=channel] [ROUNDS=5]     an earlier build and this one in turn

.PHONY: bench

BENCH_ARGUMENTS := $(ONLY) $(if $(FULL),full) $(HEALING) $(if $(ROUNDS),rounds=$(ROUNDS)) \
	$(if $(TIMEOUT_MS),timeout=$(TIMEOUT_MS))
BENCH_BEFORE := $(if $(BEFORE),LOCKSTEP_BIN_BEFORE=$(BEFORE) LOCKSTEP_GUESTS_BEFORE=$(BEFORE_GUESTS))

bench: build deps ## Measure what protection costs: tables, and bench.json (ONLY=channel, healing, recording, checkpoint or disks, FULL=1, BEFORE=an earlier lockstep)
	@tests/dependencies bench
ifeq ($(ONLY)$(BEFORE),)
	cargo bench --locked -p lockstep-logging-channel
	cargo bench --locked -p lockstep-core --bench gate
endif
	LOCKSTEP_BIN=target/release/lockstep $(BENCH_BEFORE) \
		cargo run --release --locked -p lockstep-tests --bin bench -- $(BENCH_ARGUMENTS)
