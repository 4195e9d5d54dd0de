# Everything that is done by hand to this repository; `make` alone lists it. What a recipe does stands in deploy/local.

# make run PROFILE=dev builds faster and runs slower.
PROFILE ?= release
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BINARY := $(TARGET_DIR)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/amphi

.DEFAULT_GOAL := help
.PHONY: help run test check generated bench bench-gateway bench-streams bench-chat up down cargo

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: cargo ## build Amphi and run it: everything in one process, with a media server; data in .amphi, Ctrl-C stops it
	@echo "make run: installs what is missing, builds Amphi (the first time takes minutes), and runs it"
	@deploy/local/install postgresql nginx-rtmp ffmpeg || echo "make run: goes on without it"
	@cargo build --profile $(PROFILE) --bin amphi
	@exec deploy/local/run $(BINARY)

test: cargo ## run all tests, against private PostgreSQL, RabbitMQ, Redis and media servers; ARGS="-p auth" runs some
	@exec deploy/local/test $(ARGS)

check: cargo ## formatting, lints, and whether the generated documents are up to date
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@$(MAKE) --no-print-directory generated
	@status=$$(git -c safe.directory='*' status --porcelain proto-docs README.md) || exit 1; \
	changed=$$(echo "$$status" | sed '/^[MADRC] /d'); \
	if [ -n "$$changed" ]; then \
	  echo "$$changed"; echo "make check: these documents are generated and were out of date; look at them and git add them"; exit 1; \
	fi

generated: cargo ## write proto-docs/ and the table in README.md from the code
	cargo run -q --bin amphi -- docs

bench: cargo ## measure
	@exec bench/run

bench-gateway: cargo ## measure the gateway beside nginx, haproxy and caddy; some 6 minutes
	@exec bench/gateway

bench-streams: cargo ## measure lists, callbacks, their news and viewers of streams; some 5 minutes; ARGS="news" measures a part
	@exec bench/streams $(ARGS)

bench-chat: cargo ## measure chat beside nchan, Socket.IO and ws: fan-out, writes, memory, a storm; some 4 minutes; ARGS="writes" measures a part
	@exec bench/chat $(ARGS)

up: ## start the private services that tests use, and keep them: rerun one test against them
	@deploy/local/install postgresql rabbitmq redis
	@deploy/local/services up

down: ## stop them, and remove their data; where a test run uses them, its end does that
	@deploy/local/services down

cargo: # and what it needs to link
	@command -v cargo >/dev/null || { echo "make: cargo is missing: install Rust, with rustup or from your system's packages"; exit 1; }
	@deploy/local/install build
