# make demo   set everything up, build, and show the main job
# make test   set everything up, build, and pass every test
# make install   build for release, and install the programs under PREFIX (/usr/local); then, on a node: lattice shim install
#                STATIC=1 links them statically, for nodes with another C library or none

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

TOOLS  := $(CURDIR)/target/tools
ROOTFS := $(CURDIR)/target/rootfs
BUILT := $(or $(CARGO_TARGET_DIR),target)
STATIC_TARGET := $(shell uname -m)-unknown-linux-musl
# The newest runsc that setup could get; the one on PATH otherwise.
export LATTICE_RUNSC = $(wildcard $(TOOLS)/runsc/runsc)
export LATTICE_ROOTFS = $(ROOTFS)

# What the control plane costs by the number of peers, on SQLite and on a Postgres of its own; see docs/benchmarks.md.
.PHONY: bench-control
bench-control: setup-test
	cargo build --release --bin latticed
	tests/with-postgres cargo run --release -p latticed --example control_bench
	tests/with-postgres cargo run --release -p latticed --example control_bench -- --sandboxed

# What the policy program costs, beside no policy, nftables and iptables; `make bench-egress ARGS=--quick` for half a minute.
.PHONY: bench-egress
bench-egress: setup-test
	cargo run --release -p lattice-ebpf --example egress_bench -- $(ARGS)

# What the user-space WireGuard device costs, beside wireguard-go: Debian's, and where Go is there, a current one. ARGS="1 2" for a
# quick look; see docs/benchmarks.md.
WIREGUARD_GO := golang.zx2c4.com/wireguard@v0.0.0-20260522210424-ecfc5a8d5446
.PHONY: bench-overlay
bench-overlay: setup-test
	[ -x $(TOOLS)/wireguard ] || ! command -v go >/dev/null || GOBIN=$(TOOLS) go install $(WIREGUARD_GO) || \
	    echo "no current wireguard-go to be had: Debian's alone is measured"
	newer=$(TOOLS)/wireguard; [ -x $$newer ] || newer=; LATTICE_WIREGUARD_GO=$$newer \
	    cargo run --release -p lattice-overlay --example tun_bench -- $(ARGS)

# What pod mode's network costs, beside wireguard-go with gVisor's TCP/IP stack, which is built where Go is; ARGS=quick for a minute.
NETSTACK := overlay/examples/pod_bench/netstack
.PHONY: bench-pod
bench-pod: setup-test
	! command -v go >/dev/null || (mkdir -p $(TOOLS) && cd $(NETSTACK) && go build -o $(TOOLS)/netstack .) || \
	    echo "no netstack to be had: ours alone is measured"
	other=$(TOOLS)/netstack; [ -x $$other ] || other=; LATTICE_NETSTACK=$$other \
	    cargo run --release -p lattice-overlay --example pod_bench -- $(ARGS)

# What a containerd shim costs: ours, without and with an identity, beside containerd's own and, where Go is there, gVisor's. ARGS="5 3" for a quick
# look: rounds, and pods at rest.
.PHONY: bench-shim
bench-shim: setup-test
	cargo build --release --bins
	cargo run --release -p lattice-tests --example shim_bench -- $(ARGS)

# How long the first packet to a peer takes until its answer is there: direct, through NATs, by a relay; ARGS=100 for more samples.
.PHONY: bench-paths
bench-paths: setup-test
	cargo build --release --bin lattice --bin latticed
	cargo run --release -p lattice-tests --example paths_bench -- $(ARGS)

# What the relay costs, beside coturn, where Go is derper, and a process that only copies datagrams; ARGS=1 for a quick look.
DERPER := tailscale.com/cmd/derper@v1.92.0
.PHONY: bench-relay
bench-relay: setup-test
	! command -v go >/dev/null || ([ -x $(TOOLS)/derper ] || GOBIN=$(TOOLS) go install $(DERPER)) && \
	    (cd relay/examples/relay_bench/derp && go build -o $(TOOLS)/derp-load .) || echo "no derper to be had"
	export LATTICE_DERPER=$(TOOLS)/derper LATTICE_DERP_LOAD=$(TOOLS)/derp-load; \
	    [ -x $$LATTICE_DERPER ] && [ -x $$LATTICE_DERP_LOAD ] || export LATTICE_DERPER=; cargo run --release -p lattice-relay --example relay_bench -- $(ARGS)

# Every reader of hostile bytes for FUZZ_SECONDS each (30); see fuzz/src/lib.rs.
.PHONY: fuzz
fuzz: setup-test
	@fuzz/run

# RuntimeClass `lattice` and the Helm chart on a real Kubernetes of one node, which is built once (Go, ten minutes) and then comes up in
# 20 s; not in CI.
.PHONY: e2e-kubernetes
e2e-kubernetes: setup-test
	@command -v etcd >/dev/null || apt-get -qq install -y --no-install-recommends etcd-server openssl >/dev/null
	tests/kubernetes/fetch $(TOOLS)/kubernetes
	cargo build --release --bins
	LATTICE_BIN=$(abspath $(BUILT))/release tests/kubernetes/node $(TOOLS)/kubernetes $(BUILT)/release tests/kubernetes/run

# Both Dockerfiles, and the two agents of deploy/compose, for machines with Docker.
.PHONY: e2e-docker
e2e-docker: rootfs static
	tests/docker $(BUILT)/$(STATIC_TARGET)/release

# The same pods in a k3d cluster, for machines with Docker, where alone it can run.
.PHONY: e2e-k3d
e2e-k3d: setup-test static
	tests/kubernetes/k3d $(BUILT)/$(STATIC_TARGET)/release tests/kubernetes/run

.PHONY: help demo test lint setup setup-test rootfs e2e-build-gvisor-rootfs e2e-import-gvisor-rootfs clean

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

demo: rootfs
	cargo build --release --bin lattice --bin latticed --bin lattice-demo
	$(MAKE) --no-print-directory run-demo

.PHONY: run-demo
run-demo:
	@target/release/lattice-demo

test: setup-test rootfs
	$(MAKE) --no-print-directory run-test

.PHONY: run-test
run-test:
	cargo build --workspace --bins
	tests/run

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo deny check bans licenses sources

# Installs what is missing: Debian packages, and the newer runsc of bookworm-backports beside the system's own; for the
# tests also peers to compare with, and kernels for virtual machines.
setup:
	@tests/setup $(TOOLS) demo

setup-test:
	@tests/setup $(TOOLS) test

rootfs: setup
	@rootfs/build $(ROOTFS)

# DESTDIR is for packagers.
PREFIX := /usr/local
PROGRAMS := lattice latticed containerd-shim-lattice-v1
PROGRAMS_DIR = $(BUILT)/$(if $(STATIC),$(STATIC_TARGET)/)release
.PHONY: install
install: $(if $(STATIC),static,native)
	install -D -t $(DESTDIR)$(PREFIX)/bin $(PROGRAMS:%=$(PROGRAMS_DIR)/%)

.PHONY: native
native:
	cargo build --release $(PROGRAMS:%=--bin %)

# In target/ARCH-unknown-linux-musl/release: each one file that runs on any Linux of this architecture.
.PHONY: static
static:
	@[ -e "$$(rustc --print target-libdir --target $(STATIC_TARGET))" ] || rustup target add $(STATIC_TARGET)
	@command -v musl-gcc >/dev/null || tests/setup $(TOOLS) static
	cargo build --release --target $(STATIC_TARGET) $(PROGRAMS:%=--bin %)
	@for program in $(PROGRAMS:%=$(BUILT)/$(STATIC_TARGET)/release/%); do \
	    ! readelf -lW $$program | grep INTERP || { echo "$$program is not static" >&2; exit 1; }; \
	done

e2e-build-gvisor-rootfs: rootfs

# Where the documented Kubernetes manifests look for it.
e2e-import-gvisor-rootfs: rootfs
	mkdir -p /opt/lattice/agent-rootfs
	cp -a $(ROOTFS)/. /opt/lattice/agent-rootfs/

clean:
	cargo clean
