# Trees of files as file systems on images of disks: no root is needed, and the same tree gives the same bytes.
#
# Sourced by `build` in this folder, which defines `fail`, `cache`, `work`, and what finds programs of unpacked packages. The programs that
# make file systems are those of the packages of the image `root`, not this machine's.
# shellcheck shell=bash disable=SC2154

# Time of everything in a file system, in seconds since 1970. Zero stands for the time of now.
readonly DISK_SECONDS=1
# "lockstep", and what orders the names of an ext4 folder.
readonly DISK_UUID=6c6f636b-7374-6570-0000-000000000000
readonly EXT4_OPTIONS=root_owner=0:0,hash_seed=$DISK_UUID,lazy_itable_init=0,lazy_journal_init=0
# No xfs is made that is smaller.
readonly XFS_MEBIBYTES_MIN=300

# Runs program $1 of the image `root`, with its own libraries, at the time of the file systems.
disk_program() {
    local packages=$cache/debian/root program
    program=$(find_program "$packages" "$1")
    E2FSPROGS_FAKE_TIME=$DISK_SECONDS MKE2FS_CONFIG=$packages/etc/mke2fs.conf TZ=UTC0 FAKETIME='1970-01-01 00:00:01' \
        "$(find_loader "$packages")" --preload "$(find "$packages" -name libfaketime.so.1 -print -quit)" \
        --library-path "$(library_path "$packages")" "$program" "${@:2}"
}

# What may follow in a line of either program's commands.
check_names() {
    local odd
    odd=$(cd "$1" && find . -mindepth 1 \( -name '*["[:space:]]*' -o -lname '*["[:space:]]*' \) -print -quit)
    [[ -z $odd ]] || fail "a file system of a disk is not made with the name or the target of $odd"
}

# Commands for debugfs that put tree $1 into an ext4: modes as in an initrd, owner 0:0, names in the order of their bytes.
ext4_commands() {
    local name kind permissions target
    while IFS=$'\t' read -r name kind permissions target; do
        case $kind in
            l) printf 'symlink "/%s" "%s"\n' "$name" "$target" ;;
            d) printf 'mkdir "/%s"\nsif "/%s" mode 040755\n' "$name" "$name" ;;
            *)
                printf 'write "%s" "/%s"\n' "$1/$name" "$name"
                printf 'sif "/%s" mode 0100%s\n' "$name" "$((8#$permissions & 8#111 ? 755 : 644))"
                ;;
        esac
    done < <(cd "$1" && find . -mindepth 1 -printf '%P\t%y\t%m\t%l\n' | sort)
}

# Writes tree $1 as ext4 to file $2 of $3 MiB. mke2fs can take a folder itself, but with the times and the order of this machine's.
ext4_image() {
    local tree=$1 file=$2 mebibytes=$3 complaints
    truncate -s "${mebibytes}M" "$file"
    disk_program mke2fs -q -F -t ext4 -b 4096 -L lockstep -U "$DISK_UUID" -E "$EXT4_OPTIONS" "$file"
    ext4_commands "$tree" >"$work/commands"
    # Its status says nothing; its first line is its version.
    complaints=$(disk_program debugfs -w -f "$work/commands" "$file" 2>&1 >/dev/null | sed 1d)
    [[ -z $complaints ]] || fail "the files cannot be put into $file of $mebibytes MiB: ${complaints%%$'\n'*}"
    disk_program e2fsck -fn "$file" >"$work/checked" 2>&1 || fail "$file is not a clean ext4: $(<"$work/checked")"
}

# What mkfs.xfs calls a prototype: tree $1, with modes and owners as above.
xfs_prototype() {
    local entry name
    shopt -s nullglob dotglob
    for entry in "$1"/*; do
        name=${entry##*/}
        if [[ -L $entry ]]; then
            echo "$name l--777 0 0 $(readlink "$entry")"
        elif [[ -d $entry ]]; then
            echo "$name d--755 0 0"
            xfs_prototype "$entry"
            echo '$'
        elif [[ -x $entry ]]; then
            echo "$name ---755 0 0 $entry"
        else
            echo "$name ---644 0 0 $entry"
        fi
    done
}

# Writes tree $1 as xfs to file $2 of $3 MiB or what an xfs needs.
xfs_image() {
    local tree=$1 file=$2 mebibytes=$3
    truncate -s "$((mebibytes > XFS_MEBIBYTES_MIN ? mebibytes : XFS_MEBIBYTES_MIN))M" "$file"
    {
        printf '/\n0 0\nd--755 0 0\n'
        # In a shell of its own: it changes how names are matched.
        (xfs_prototype "$tree")
        echo '$'
    } >"$work/prototype"
    disk_program mkfs.xfs -q -L lockstep -m "uuid=$DISK_UUID" -p "$work/prototype" "$file"
}

# Writes tree $1 as an image of the file system $2 to file $3 of $4 MiB.
disk_image() {
    unpack_image root
    check_names "$1"
    case $2 in
        ext4) ext4_image "$1" "$3" "$4" ;;
        xfs) xfs_image "$1" "$3" "$4" ;;
    esac
}
