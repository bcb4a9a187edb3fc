# Determinism over a long time.

SOAK_OPTIONS = $(if $(GUEST),--guest $(GUEST)) $(if $(TIME),--seconds $(TIME)) $(if $(EVENTS),--events $(EVENTS)) \
	$(if $(COMMON_POINTS),--common-points $(COMMON_POINTS)) $(if $(ONLY),--only "$(ONLY)") \
	$(if $(GUEST_OPTIONS),--command-line "$(GUEST_OPTIONS)")

# A pair of Debian guests, and the log of half an hour, are in memory there; it boots, joins and heals in minutes.
SOAK_LAB_LINUX = LAB_MEMORY_MIB=$${LAB_MEMORY_MIB:-6144} LAB_TIMEOUT=$$(( $(or $(TIME),30) * 3 + 3600 ))

.PHONY: soak

ifeq ($(LAB),1)
soak: ## Record and replay guests under load for TIME seconds (default 30), or until EVENTS events or COMMON_POINTS common points (GUEST=linux: a Debian guest, and a pair that is struck; LAB=1: in the lab)
	$(if $(filter linux,$(GUEST)),$(SOAK_LAB_LINUX),LAB_TIMEOUT=$$(( $(or $(TIME),30) * 2 + 900 ))) \
		tests/lab/lab run $(if $(filter linux,$(GUEST)),--linux mixed) --program soak \
		sh -c 'cd /tmp; LOCKSTEP_GUESTS=/lab/guests LOCKSTEP_BIN=/lab/bin/lockstep soak $(SOAK_OPTIONS)'
else
soak: build deps
	cargo build --release --locked -p lockstep-tests --bin soak
	@# What this host cannot run is not built first.
	$(if $(filter linux,$(GUEST)),LOCKSTEP_BIN=target/release/lockstep target/release/soak $(SOAK_OPTIONS) --list)
	$(if $(filter linux,$(GUEST)),guest-images/debian/build guest-images/build/debian mixed)
	LOCKSTEP_BIN=target/release/lockstep target/release/soak $(SOAK_OPTIONS)
endif
