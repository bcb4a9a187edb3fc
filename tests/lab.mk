# Targets of the lab (upstream KVM in QEMU's emulation, tests/lab/README.md) and of the tests' own needs.

.PHONY: deps lab lab-test lab-ci lab-linux lab-linux-figures lab-linux-figures-alone lab-cross lab-demo

deps: ## Install from Debian what the tests need and is missing
	tests/dependencies

lab: ## Boot the lab and run CMD inside (default: doctor)
	tests/lab/lab run $(or $(CMD),lockstep doctor)

lab-test: ## Run the lab's tests, or the one named TEST
	tests/lab/lab test $(TEST)

lab-ci: ## Run those of the lab's tests that continuous integration has time for
	tests/lab/lab ci

lab-linux: ## Run those of the lab's tests that have a Debian guest
	tests/lab/lab linux

lab-linux-figures: ## Measure what Debian guests cost inside the lab (ONLY="base idle": these workloads)
	LAB_TIMEOUT=7200 tests/lab/lab run --linux shell --linux computing --linux redis \
		--with tests/lab/linux-workloads --with tests/lab/linux-figures sh /lab/files/linux-figures $(ONLY)

lab-linux-figures-alone: guests-debian ## Measure the same guests in plain QEMU, for comparison (ONLY="base idle": these workloads)
	tests/lab/linux-figures-alone $(ONLY)

lab-cross: ## Replay in the lab what is recorded here, and the other way round (needs /dev/kvm)
	tests/lab/cross

lab-demo: ## Run the failover demo inside the lab (GUEST=linux: its guest is Debian's Linux with redis-server)
	tests/lab/lab demo $(GUEST) $(DEMO_OPTIONS)
