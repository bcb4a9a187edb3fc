# Guest images. `make guests` puts them into guest-images/build/; `make guests-lint` is clippy for what only
# an image holds.

GUESTS := smoke entropy compute steady disk key-value diverging
GUEST_FEATURES := $(foreach guest,$(GUESTS),lockstep-guest-$(guest)/image)
GUEST_BUILD := --profile guest $(foreach guest,$(GUESTS),-p lockstep-guest-$(guest)) \
	--features "$(GUEST_FEATURES)"
# Guests run on processors whose features the machine hides: nothing beyond the baseline may be compiled in.
GUEST_CARGO := RUSTFLAGS="-C target-cpu=x86-64" cargo

.PHONY: guests guests-debian guests-debian-check guests-lint

guests: ## Build the guest images
	$(GUEST_CARGO) build --quiet $(GUEST_BUILD) --bins
	@mkdir -p guest-images/build
	@for guest in $(GUESTS); do \
		image="guest-images/build/$$guest.elf"; \
		cmp -s "$${CARGO_TARGET_DIR:-target}/guest/$$guest" "$$image" || \
			{ cp "$${CARGO_TARGET_DIR:-target}/guest/$$guest" "$$image.$$$$" && mv "$$image.$$$$" "$$image"; } || exit 1; \
	done

guests-debian: ## Make Debian guests out of Debian's packages: a kernel, and initrds with what it runs
	guest-images/debian/build

guests-debian-check: guests-debian ## Boot each Debian guest in plain QEMU, and make it a second time: the same bytes
	guest-images/debian/check

guests-lint: ## Lints of what only a guest image holds
	$(GUEST_CARGO) clippy $(GUEST_BUILD) --bins --lib -- -D warnings
