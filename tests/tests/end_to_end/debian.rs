//! The recipe of the Debian guests from outside, with packages that only look like them: the same
//! packages give the same bytes, and what is missing is named. With the real ones it is `make
//! guests-debian-check`.

use lockstep_tests::harness::Scratch;
use lockstep_tests::harness::process::run;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-images/debian/build");
const HOST: i32 = 4;
/// Bytes of an entry's head, before its name (initramfs buffer format, `newc`).
const HEAD_BYTES: usize = 110;

/// A busybox of few names, which packs nothing.
const BUSYBOX: &str = "case $1 in --list) echo busybox; echo ls; echo sh ;; gzip) cat ;; esac";

/// An entry of an archive.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    mode: usize,
    /// Owner, group, links, time, in this order.
    about: [usize; 4],
    content: Vec<u8>,
}

/// Entries up to the one that ends an archive.
fn entries(mut archive: &[u8]) -> Vec<Entry> {
    let mut found = Vec::new();
    loop {
        let field = |number: usize| {
            let text = std::str::from_utf8(&archive[6 + 8 * number..14 + 8 * number]).unwrap();
            usize::from_str_radix(text, 16).unwrap()
        };
        assert_eq!(&archive[..6], b"070701");
        let (name_bytes, content_bytes) = (field(11), field(6));
        let name = String::from_utf8_lossy(&archive[HEAD_BYTES..HEAD_BYTES + name_bytes - 1]).into_owned();
        if name == "TRAILER!!!" {
            return found;
        }
        let start = (HEAD_BYTES + name_bytes).next_multiple_of(4);
        found.push(Entry {
            name,
            mode: field(1),
            about: [field(2), field(3), field(4), field(5)],
            content: archive[start..start + content_bytes].to_vec(),
        });
        archive = &archive[(start + content_bytes).next_multiple_of(4)..];
    }
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A cache with unpacked packages whose files have this mode.
fn packages(scratch: &Scratch, name: &str, mode: u32) -> PathBuf {
    let cache = scratch.join(name);
    write(&cache.join("kernel/boot/vmlinuz-0"), "a kernel", mode);
    write(
        &cache.join("busybox/bin/busybox"),
        &format!("#!/bin/sh\n{BUSYBOX}\n"),
        0o755,
    );
    let modules = cache.join("kernel/lib/modules/0");
    write(&modules.join("modules.builtin"), "kernel/virtio-rng.ko\n", mode);
    for (module, needs) in [
        ("virtio", ""),
        ("virtio_mmio", "virtio"),
        ("virtio_net", "failover,virtio"),
        ("failover", ""),
        ("virtio_blk", "virtio"),
    ] {
        write(
            &modules.join(format!("{module}.ko")),
            &format!("license=GPL\0depends={needs}\0name={module}\0"),
            mode,
        );
    }
    cache
}

fn build(cache: &Path, to: &Path, image: &str) -> Command {
    let mut command = Command::new(SCRIPT);
    command.arg(to).arg(image).env("LAB_CACHE", cache);
    command
}

#[test]
fn the_same_packages_give_the_same_bytes() {
    let scratch = Scratch::new();
    let (first, second) = (scratch.join("first"), scratch.join("second"));
    let _ = run(&mut build(&packages(&scratch, "here", 0o644), &first, "shell")).expect_code(0);
    let cache = packages(&scratch, "elsewhere", 0o600);
    let mut strict = Command::new("sh");
    strict.args(["-c", "umask 077; exec \"$0\" \"$@\"", SCRIPT]);
    let _ = run(strict.arg(&second).arg("shell").env("LAB_CACHE", &cache)).expect_code(0);

    let initrd = std::fs::read(first.join("shell.initrd")).unwrap();
    assert_eq!(std::fs::read(second.join("shell.initrd")).unwrap(), initrd);
    assert_eq!(std::fs::read(first.join("vmlinuz")).unwrap(), b"a kernel");
    let entries = entries(&initrd);
    assert!(entries.is_sorted_by_key(|entry| &entry.name), "{entries:?}");
    assert!(
        entries.iter().all(|entry| entry.about == [0, 0, 1, 0]),
        "{entries:?}"
    );
    let entry = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap();
    assert_eq!(entry("init").mode, 0o100_755);
    assert_eq!(entry("bin/sh").mode, 0o120_777);
    assert_eq!(entry("bin/sh").content, b"busybox");
    // Each behind those that it needs, and without the one that is built in.
    let order = String::from_utf8_lossy(&entry("modules/order").content);
    assert_eq!(order, "virtio\nvirtio_mmio\nfailover\nvirtio_net\nvirtio_blk\n");
}

#[test]
fn a_module_that_the_kernel_lacks_is_named() {
    let scratch = Scratch::new();
    let cache = packages(&scratch, "here", 0o644);
    std::fs::remove_file(cache.join("kernel/lib/modules/0/failover.ko")).unwrap();
    let ended = run(&mut build(&cache, &scratch.join("built"), "shell")).expect_code(1);
    ended.expect_named(&["no module failover"]);
    assert!(!scratch.join("built").join("shell.initrd").exists());
}

#[test]
fn an_unknown_image_and_what_the_host_lacks_are_named() {
    let scratch = Scratch::new();
    let cache = packages(&scratch, "here", 0o644);
    let unknown = run(&mut build(&cache, &scratch.join("built"), "windows")).expect_code(1);
    unknown.expect_named(&["no image windows", "shell"]);
    let programs = scratch.directory("programs");
    for program in ["apt-cache", "apt-get", "sudo"] {
        write(&programs.join(program), "#!/bin/sh\nexit 100\n", 0o755);
    }
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut without = build(&cache, &scratch.join("built"), "redis");
    let ended = run(without.env("PATH", path)).expect_code(HOST);
    ended.expect_named(&["redis-server", "apt-get update"]);
}
