# Determinism over a long time.

SOAK_OPTIONS = $(if $(TIME),--seconds $(TIME)) $(if $(EVENTS),--events $(EVENTS)) \
	$(if $(COMMON_POINTS),--common-points $(COMMON_POINTS)) $(if $(ONLY),--only "$(ONLY)") \
	$(if $(GUEST_OPTIONS),--command-line "$(GUEST_OPTIONS)")

.PHONY: soak

ifeq ($(LAB),1)
soak: ## Record and replay guests under load for TIME seconds (default 30), or until EVENTS events or COMMON_POINTS common points (LAB=1: in the lab)
	LAB_TIMEOUT=$$(( $(or $(TIME),30) * 2 + 900 )) tests/lab/lab run --program soak \
		sh -c 'cd /tmp; LOCKSTEP_GUESTS=/lab/guests LOCKSTEP_BIN=/lab/bin/lockstep soak $(SOAK_OPTIONS)'
else
soak: build deps
	cargo build --release --locked -p lockstep-tests --bin soak
	LOCKSTEP_BIN=target/release/lockstep target/release/soak $(SOAK_OPTIONS)
endif
