# Sourced by scripts/test and scripts/demo: brings a Debian or Ubuntu machine to where they can run.
# Installs what is missing and nothing else; a second run finds everything and says so.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '== %s\n' "$*"; }

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/virt-balance"
export UV_CACHE_DIR="$CACHE/uv" PIP_CACHE_DIR="$CACHE/pip" UV_LINK_MODE=copy

# What for: python3-* and gcc build libvirt's binding; libvirt and QEMU run the guests;
# libc6-dev, xz-utils and zstd make what the guests boot; libvirtd is for tests.
PACKAGES=(
    ca-certificates python3 python3-dev python3-venv gcc libc6-dev pkg-config libvirt-dev
    libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86
    xz-utils zstd kmod util-linux mount procps
)

become_root() {
    [ "$(id -u)" -eq 0 ] && return
    command -v sudo >/dev/null || { echo "$0: run this as root (there is no sudo)" >&2; exit 1; }
    say "not root: going on with sudo"
    exec sudo -- env "HOME=$HOME" "XDG_CACHE_HOME=${XDG_CACHE_HOME:-$HOME/.cache}" "$0" "$@"
}

install_packages() {
    command -v apt-get >/dev/null || {
        echo "$0: needs apt-get (Debian 12, Debian 13, Ubuntu 24.04)" >&2; exit 1; }
    local missing=()
    for package in "${PACKAGES[@]}"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing+=("$package")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        say "packages: all there"
        return
    fi
    say "packages: installing ${missing[*]}"
    apt-get update -qq
    # policy-rc.d keeps freshly installed services from starting: the host's libvirt is not ours.
    local policy=/usr/sbin/policy-rc.d ours=no
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        ours=yes
    fi
    local status=0
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" >"$CACHE/apt.log" 2>&1 || status=$?
    [ "$ours" = no ] || rm -f "$policy"
    [ "$status" -eq 0 ] || { tail -n 20 "$CACHE/apt.log" >&2; exit "$status"; }
}

# libvirt's QEMU driver does not start without the user and group its system package would make.
make_qemu_user() {
    getent group kvm >/dev/null || groupadd --system kvm
    getent group libvirt-qemu >/dev/null || groupadd --system libvirt-qemu
    getent passwd libvirt-qemu >/dev/null && return
    say "user: making libvirt-qemu"
    useradd --system --gid kvm --groups libvirt-qemu --home-dir /var/lib/libvirt \
        --no-create-home --shell /usr/sbin/nologin libvirt-qemu
}

make_environment() {
    local python=python3 wanted
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "$0: $("$python" --version) is too old: needs Python 3.11 or newer" >&2; exit 1; }
    wanted="$("$python" --version) $(cat uv.lock pyproject.toml | sha256sum)"
    if [ "$(cat .venv/.complete 2>/dev/null)" = "$wanted" ]; then
        say "environment: .venv is up to date"
        return
    fi
    say "environment: filling .venv as uv.lock says"
    "$python" -m venv .venv
    .venv/bin/pip install -q --disable-pip-version-check "$(grep -A1 '^name = "uv"' uv.lock |
        sed -n 's/^version = "\(.*\)"/uv==\1/p')"
    UV_PROJECT_ENVIRONMENT=.venv .venv/bin/uv sync --frozen --quiet --inexact
    printf '%s\n' "$wanted" >.venv/.complete
}

setup() {
    become_root "$@"
    mkdir -p "$CACHE"
    install_packages
    make_qemu_user
    make_environment
}
