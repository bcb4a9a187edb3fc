# Plain QEMU for Debian guests, without KVM and without Lockstep: sourced by what compares with it, or checks the images alone.
# shellcheck shell=bash

PLAIN_QEMU=(qemu-system-x86_64 -accel tcg -cpu max -M microvm,acpi=on,rtc=on,pit=on,pic=on,isa-serial=on
    -nodefaults -no-user-config -display none -monitor none -no-reboot -serial stdio -device virtio-rng-device)
# The emulated processor counts with the host's counter, and the board has no clock that the kernel could calibrate itself with.
PLAIN_COMMAND_LINE="console=ttyS0 reboot=t panic=-1 quiet tsc=reliable lpj=4000000 no_timer_check"
PLAIN_COMMAND_LINE+=" tsc_early_khz=$(awk -F: '/^cpu MHz/ { printf "%d", $2 * 1000; exit }' /proc/cpuinfo)"
readonly PLAIN_QEMU PLAIN_COMMAND_LINE
