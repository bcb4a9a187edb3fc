# The image `systemd`: a small Debian whose first process is systemd. Sourced by `build`, which has unpacked the packages; what their
# installation would do, as far as it is wanted, is done here.
# shellcheck shell=bash

readonly SYSTEMD_PACKAGES="systemd systemd-sysv dbus dbus-bin dbus-daemon dbus-system-bus-common udev login passwd bash dash
    coreutils util-linux mount kmod base-files base-passwd procps iproute2 mawk sed grep findutils libc-bin hostname debianutils"
# What no boot needs: documents, translations, what names hardware, time zones, characters of other encodings.
readonly SYSTEMD_LEAVES_OUT=(usr/share/{doc,man,info,locale,lintian,bash-completion,zsh,zoneinfo,bug,gettext,common-licenses}
    usr/lib/udev/hwdb.d usr/lib/x86_64-linux-gnu/gconv usr/lib/valgrind)

# Units for what has been done here, for which there is no module, or which would build at the first boot what nothing asks for.
readonly SYSTEMD_MASKS=(systemd-sysusers.service proc-sys-fs-binfmt_misc.automount systemd-hwdb-update.service)

# Puts what is in the unpacked packages $1 into tree $2, in which busybox, modules and init are.
stage_systemd() {
    local packages=$1 tree=$2 folder name
    install -D "$tree/bin/busybox" "$tree/usr/bin/busybox"
    rm -r "$tree/bin"
    # Debian's file system since 12: /bin and the like are links into /usr; packages have files in both.
    cp -r "$packages"/{etc,usr,var} "$tree/"
    for folder in bin sbin lib lib64; do
        mkdir -p "$tree/usr/$folder"
        [[ ! -d $packages/$folder ]] || cp -r "$packages/$folder/." "$tree/usr/$folder/"
        ln -s "usr/$folder" "$tree/$folder"
    done
    (cd "$tree" && rm -rf "${SYSTEMD_LEAVES_OUT[@]}")
    mkdir -p "$tree"/{run,var/tmp,var/log,etc/systemd/system/multi-user.target.wants}
    cp -r "$here/systemd/etc" "$tree/"
    # Root has no password: whoever has the console has the machine.
    sed 's/^root:[^:]*:/root::/' "$packages/usr/share/base-passwd/passwd.master" >"$tree/etc/passwd"
    cp "$packages/usr/share/base-passwd/group.master" "$tree/etc/group"
    # Those that packages want (usr/lib/sysusers.d).
    for name in messagebus:998 systemd-network:997; do
        echo "${name%:*}:!*:${name#*:}:${name#*:}::/:/usr/sbin/nologin" >>"$tree/etc/passwd"
        echo "${name%:*}:x:${name#*:}:" >>"$tree/etc/group"
    done
    echo systemd-journal:x:999: >>"$tree/etc/group"
    cp "$packages/usr/share/libc-bin/nsswitch.conf" "$tree/etc/"
    install -m 755 "$here/systemd/run" "$tree/lockstep-run"
    ln -s ../lockstep.service "$tree/etc/systemd/system/multi-user.target.wants/"
    ln -s /lib/systemd/system/multi-user.target "$tree/etc/systemd/system/default.target"
    for name in "${SYSTEMD_MASKS[@]}"; do ln -s /dev/null "$tree/etc/systemd/system/$name"; done
    for name in auth account password session; do
        echo "$name required pam_unix.so$([[ $name != auth ]] || echo ' nullok')" >"$tree/etc/pam.d/common-$name"
    done
    cp "$tree/etc/pam.d/common-session" "$tree/etc/pam.d/common-session-noninteractive"
}
