# Debian packages, downloaded and unpacked into folders of their own: nothing is installed, and no root is needed.
#
# Sourced by `build` in this folder and by tests/lab/lab. They define `say` (a line on standard error), `lacks` (names what this
# machine lacks, and ends) and `cache` (the folder for what is unpacked).
# shellcheck shell=bash disable=SC2154

readonly KERNEL_PACKAGE=linux-image-cloud-amd64
# Folder of the cache with the kernel whose modules are taken.
kernel=kernel
# Options of apt for another release than this machine's.
release=()
readonly ELSEWHERE="run this on Debian or in its container (docker run -it debian:12)"

as_root() {
    if [[ $EUID -eq 0 ]]; then "$@"; else sudo -n "$@"; fi
}

# Downloads packages into folder $1; asks for newer package lists once where the first try finds nothing.
download() {
    local folder=$1
    shift
    # As root apt-get would hand the download to a user of its own, who may not write here.
    local get=(apt-get download -qq -o APT::Sandbox::User=root "${release[@]}" "$@")
    (cd "$folder" && { "${get[@]}" || { as_root apt-get update -qq "${release[@]}" && "${get[@]}"; }; }) >&2
}

# Downloads packages and unpacks them together into folder $1 of the cache, unless it is there.
unpack_packages() {
    local folder=$cache/$1 work package
    shift
    [[ -d $folder ]] && return
    command -v apt-get >/dev/null ||
        lacks "Debian's $* is needed, and there is no apt-get to download it with: $ELSEWHERE"
    mkdir -p "$(dirname "$folder")"
    work=$(mktemp -d "$cache/unpack.XXXXXX")
    say "downloading $*"
    if ! download "$work" "$@"; then
        rm -rf "$work"
        lacks "Debian's $* could not be downloaded; as root, with a network: apt-get update"
    fi
    for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/root"; done
    # Another caller may have been faster: then its copy is as good.
    mv -T "$work/root" "$folder" 2>/dev/null || [[ -d $folder ]]
    rm -rf "$work"
}

# The package of the kernel itself: the well-known name only points to the newest version.
kernel_package() {
    apt-cache depends "${release[@]}" "$KERNEL_PACKAGE" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | sed -n 1p || true
}

# Those of the packages that it depends on which hold the kernel and its modules: newer releases have them apart.
kernel_parts() {
    apt-cache depends "${release[@]}" "$1" | sed -n 's/^ *Depends: \(linux-\(binary\|modules\)-[0-9].*\)$/\1/p'
}

# Has packages come from Debian's release $1, with lists of its own in the cache: from where this machine's packages come, and under
# the same key. This machine's apt is left as it is.
use_release() {
    local name=$1 folder=$cache/apt-$1 uri
    command -v apt-get >/dev/null || lacks "packages of Debian $name are needed, and there is no apt-get to download them with: $ELSEWHERE"
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | sed -n 1p)
    [[ -n $uri ]] || lacks "this machine's apt does not know where Debian's packages come from: $ELSEWHERE"
    mkdir -p "$folder/lists/partial" "$folder/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $name main" >"$folder/sources.list"
    release=(-o "Dir::Etc::SourceList=$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$folder/lists"
        -o "Dir::Cache=$folder" -o APT::Sandbox::User=root)
}

# Puts the newest kernel into the cache's folder `$kernel`, unless one is there.
unpack_kernel() {
    local package
    [[ -d $cache/$kernel ]] && return
    command -v apt-cache >/dev/null ||
        lacks "Debian's $KERNEL_PACKAGE is needed, and there is no apt to find it with: $ELSEWHERE"
    package=$(kernel_package)
    if [[ -z $package ]]; then
        as_root apt-get update -qq "${release[@]}" >&2 || true
        package=$(kernel_package)
    fi
    [[ -n $package ]] ||
        lacks "$KERNEL_PACKAGE is unknown to apt: as root, with a network: apt-get update; elsewhere than on Debian, $ELSEWHERE"
    # shellcheck disable=SC2046
    unpack_packages "$kernel" "$package" $(kernel_parts "$package")
}

# Writes module $1 of the kernel in the cache, uncompressed, to file $2. Status 1: the kernel has no such module.
copy_module() {
    local found
    # The packages of Debian 13 have it under /usr.
    found=$(find "$cache/$kernel"/{usr/,}lib/modules -name "${1//[-_]/[-_]}.ko*" -print -quit 2>/dev/null) || true
    case $found in
        *.ko) cp "$found" "$2" ;;
        *.ko.xz) xz -dc "$found" >"$2" ;;
        *.ko.zst) zstd -qdc "$found" >"$2" ;;
        *) return 1 ;;
    esac
}
