# The campaign on real pairs (tests/src/campaign).

comma := ,
TORTURE := target/torture
TORTURE_FEATURES := lockstep/crash-points$(if $(MUTANT),$(comma)lockstep/mutants)
TORTURE_LOCKSTEP := $(TORTURE)/lockstep$(if $(MUTANT),-mutants)

# Defects that real pairs show within a few rounds, some of them in rounds of one kind: NAME/KIND.
TORTURE_MUTANTS := ReleaseOneEarly AcknowledgeUnread SpeakWhileClaiming SkipTestAndSet TakeLostForWon \
	IgnoreLease/far-blackhole-to-backup@time \
	GoLiveEarly/hold-replay-kill-primary@backup:replay \
	ForgetUnreleased/slow-kill-primary@time \
	DoNotWaitOutLease/slow-damage-to-backup@time \
	AskOnce/storage-away-kill-primary@time \
	ImpatientBackup/slow-blackhole-to-backup@time

.PHONY: torture torture-mutants

torture: guests ## Break ROUNDS real pairs under load (default 50), from SEED on; ROUND=N or ONLY=KIND repeats
	@# The test target: as in `make test`.
	cargo build --locked --workspace --features $(TORTURE_FEATURES) --bin torture --bin lockstep --test repository
	@mkdir -p $(TORTURE)
	@# A copy, because the next build without stop points takes its place.
	@cp target/debug/lockstep $(TORTURE_LOCKSTEP)
	LOCKSTEP_BIN=$(TORTURE_LOCKSTEP) target/debug/torture --json $(TORTURE)/summary.json --svg $(TORTURE)/failover.svg \
		--rounds $(or $(ROUNDS),50) $(if $(SEED),--seed $(SEED)) $(if $(ROUND),--round $(ROUND)) $(if $(ONLY),--only $(ONLY)) \
		$(if $(MUTANT),--mutant $(MUTANT)) $(TORTURE_OPTIONS)

torture-mutants: guests ## Show that the campaign finds deliberate defects in real pairs
	@for plan in $(TORTURE_MUTANTS); do \
		mutant=$${plan%%/*}; kind=$${plan#$$mutant}; kind=$${kind#/}; \
		if $(MAKE) --no-print-directory torture MUTANT=$$mutant ONLY=$$kind ROUNDS=40 SEED=1 \
			TORTURE_OPTIONS="--failures-max 1 --keep $(TORTURE)/mutants" >$(TORTURE)/mutants.out 2>&1; \
		then echo "$$mutant: not found"; exit 1; \
		elif grep -q FAILED $(TORTURE)/mutants.out; \
		then grep -A1 FAILED $(TORTURE)/mutants.out | tail -n 1 | sed "s/^ */$$mutant: /"; \
		else cat $(TORTURE)/mutants.out; exit 1; fi; \
	done
