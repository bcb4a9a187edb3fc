//! `lockstep disk`: images as an operator makes, looks at, checks and compares them.

use lockstep_shared_disk::image::{Format, Identity, Image, Options};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Ended, Guest, Scratch, kvm, lockstep, namespace};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

const FORMATS: [&str; 2] = ["raw", "qcow2"];

fn disk(arguments: &[&str], paths: &[&Path]) -> Ended {
    run(lockstep().arg("disk").args(arguments).args(paths))
}

fn made(scratch: &Scratch, name: &str, size: &str, format: &str) -> PathBuf {
    let path = scratch.join(name);
    let _ = disk(&["create", "--size", size, "--format", format], &[&path]).expect_code(0);
    path
}

/// Writes to an image as its machine would.
fn write(path: &Path, offset_bytes: u64, bytes: &[u8]) {
    let image = Image::open(path, &Options::default()).unwrap();
    image.write_at(offset_bytes, bytes).unwrap();
    image.flush().unwrap();
}

fn info(path: &Path) -> Value {
    let ended = disk(&["info", "--json"], &[path]);
    assert!(matches!(ended.code(), Some(0 | 3)), "{ended}");
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn an_image_that_is_made_is_described_and_sound() {
    let scratch = Scratch::new();
    for format in FORMATS {
        let path = made(&scratch, format, "64MiB", format);
        let said = info(&path);
        assert_eq!(said["format"], format);
        assert_eq!(said["size_bytes"], 64 << 20);
        assert!(said["allocated_bytes"].as_u64().unwrap() < 1 << 20, "{said}");
        assert_eq!(
            (&said["in_use"], &said["refused"], &said["machine"]),
            (&Value::Bool(false), &Value::Null, &Value::Null)
        );
        let ended = disk(&["info"], &[&path]).expect_code(0);
        assert!(ended.stdout.contains("67108864 bytes (64 MiB)"), "{ended}");
        assert!(ended.stdout.contains("result     it can be used"), "{ended}");
        assert_eq!(ended.stderr, "", "{ended}");
        let ended = disk(&["check"], &[&path]).expect_code(0);
        assert!(ended.stdout.contains(&format!("sound: {format}")), "{ended}");
        let again = disk(&["create", "--size", "1MiB"], &[&path]).expect_code(3);
        again.expect_named(&["exists", "nothing is overwritten"]);
        assert_eq!(info(&path)["size_bytes"], 64 << 20);
        let full = scratch.join(&format!("full-{format}"));
        let arguments = ["create", "--preallocate", "--size", "2MiB", "--format", format];
        let _ = disk(&arguments, &[&full]).expect_code(0);
        assert!(fs::metadata(&full).unwrap().blocks() * 512 >= 2 << 20);
    }
}

#[test]
fn a_sparse_terabyte_is_made_described_checked_and_compared_without_reading_it() {
    let scratch = Scratch::new();
    let [raw, qcow2] = FORMATS.map(|format| made(&scratch, format, "1TiB", format));
    for path in [&raw, &qcow2] {
        assert_eq!(info(path)["size_bytes"], 1_u64 << 40);
        let _ = disk(&["check"], &[path]).expect_code(0);
        write(path, (1 << 40) - 512, &[7; 512]);
    }
    let ended = disk(&["compare"], &[&raw, &qcow2]).expect_code(0);
    assert!(
        ended.stdout.contains("all 16777216 blocks of 64 KiB are equal"),
        "{ended}"
    );
}

/// Runs QEMU's program for images, which `tests/dependencies` installs.
fn qemu_img(arguments: &[&str], paths: &[&Path]) -> Ended {
    run(Command::new("qemu-img").args(arguments).args(paths)).expect_code(0)
}

#[test]
fn images_that_qemu_makes_and_images_that_are_made_here_are_the_same_to_both() {
    if !kvm::has_tool("qemu-img") {
        return;
    }
    let scratch = Scratch::new();
    let [bytes, raw, here, from_qemu, compressed, back] =
        ["bytes", "raw", "here", "from-qemu", "compressed", "back"].map(|name| scratch.join(name));
    let _ = qemu_img(&["check"], &[&made(&scratch, "empty", "8MiB", "qcow2")]);
    let mut content = vec![0; 8 << 20];
    content[17..3 << 20].fill(0x5a);
    content[(6 << 20) + 5..(7 << 20) + 1].fill(0xa5);
    fs::write(&bytes, &content).unwrap();
    let _ = qemu_img(&["convert", "-f", "raw", "-O", "qcow2"], &[&bytes, &from_qemu]);
    let _ = qemu_img(
        &["convert", "-c", "-f", "raw", "-O", "qcow2"],
        &[&bytes, &compressed],
    );
    let _ = qemu_img(&["convert", "-f", "raw", "-O", "raw"], &[&bytes, &raw]);
    for image in [&from_qemu, &compressed, &raw] {
        let _ = disk(&["check"], &[image]).expect_code(0);
        let ended = disk(&["compare"], &[image, &bytes]).expect_code(0);
        assert!(ended.stdout.contains("are equal"), "{ended}");
    }
    // QEMU reads what is written here into an image of either.
    let _ = made(&scratch, "here", "8MiB", "qcow2");
    write(&here, 0, &content);
    for image in [&here, &from_qemu, &compressed] {
        write(image, (2 << 20) + 511, b"written here");
        content[(2 << 20) + 511..][..12].copy_from_slice(b"written here");
        let _ = qemu_img(&["check", "-f", "qcow2"], &[image]);
        let _ = qemu_img(&["convert", "-f", "qcow2", "-O", "raw"], &[image, &back]);
        assert!(fs::read(&back).unwrap() == content, "{}", image.display());
    }
}

#[test]
fn what_a_guest_writes_into_an_image_of_either_program_is_what_qemu_reads() {
    let Some(_kvm) = kvm::shared() else { return };
    if !kvm::has_tool("qemu-img") {
        return;
    }
    let scratch = Scratch::new();
    let (of_qemu, back) = (scratch.join("of-qemu"), scratch.join("back"));
    let _ = qemu_img(&["create", "-q", "-f", "qcow2"], &[&of_qemu, Path::new("4M")]);
    for image in [made(&scratch, "here", "4MiB", "qcow2"), of_qemu] {
        let mut guest = lockstep();
        guest
            .arg("run")
            .arg(Guest::Disk.image())
            .args(["--command-line", "seed=7 requests=400 area_kib=512", "--disk"])
            .arg(&image);
        let ended = run(&mut guest).expect_code(0);
        assert!(ended.stdout.contains("are as they must be"), "{ended}");
        let _ = qemu_img(&["check", "-f", "qcow2"], &[&image]);
        let _ = qemu_img(&["convert", "-f", "qcow2", "-O", "raw"], &[&image, &back]);
        assert!(fs::read(&back).unwrap().iter().any(|byte| *byte != 0));
        let _ = disk(&["compare"], &[&image, &back]).expect_code(0);
    }
}

#[test]
fn images_that_differ_are_status_1_with_the_first_block() {
    let scratch = Scratch::new();
    let [raw, qcow2] = FORMATS.map(|format| made(&scratch, format, "8MiB", format));
    write(&raw, 5 * 65_536 + 17, b"abc");
    write(&raw, 90 * 65_536, b"d");
    for paths in [[&raw, &qcow2], [&qcow2, &raw]] {
        let ended = disk(&["compare"], &paths.map(PathBuf::as_path)).expect_code(1);
        let expected = "2 of 128 blocks of 64 KiB differ, in 4 bytes; the first is block 5, at byte 327697\n";
        assert_eq!(ended.stdout, expected, "{ended}");
        assert_eq!(ended.stderr, "", "{ended}");
    }
    let small = made(&scratch, "small", "1MiB", "raw");
    let ended = disk(&["compare"], &[&small, &qcow2]).expect_code(1);
    assert!(
        ended
            .stdout
            .contains("the sizes differ: 1048576 and 8388608 bytes"),
        "{ended}"
    );
}

#[test]
fn files_that_are_no_images_are_refused_with_a_hint() {
    let scratch = Scratch::new();
    let qcow2 = made(&scratch, "qcow2", "4MiB", "qcow2");
    write(&qcow2, 0, &[7; 4096]);
    let bytes = fs::read(&qcow2).unwrap();
    let mut header = bytes[..4096].to_vec();
    header[36..40].fill(0xff);
    let cases: [(&str, &[u8], &str, &str); 6] = [
        ("empty", b"", "has 0 bytes: it is empty", "truncate"),
        ("odd", b"not a disk", "not a multiple", "truncate"),
        (
            "vmdk",
            &[b"KDMV".as_slice(), &[0; 508]].concat(),
            "a VMDK image",
            "qemu-img convert",
        ),
        (
            "gzip",
            &[b"\x1f\x8b".as_slice(), &[0; 510]].concat(),
            "compressed by gzip",
            "qemu-img convert",
        ),
        (
            "cut",
            &bytes[..bytes.len() - 65_536],
            "it was cut",
            "qemu-img check",
        ),
        (
            "liar",
            &header,
            "its first table has 4294967295",
            "qemu-img check",
        ),
    ];
    for (name, content, why, hint) in cases {
        let path = scratch.join(name);
        fs::write(&path, content).unwrap();
        let ended = disk(&["check"], &[&path]).expect_code(3);
        ended.expect_named(&[why, hint, &path.display().to_string()]);
        assert_eq!(ended.stderr.matches("ERROR").count(), 1, "{ended}");
        let ended = disk(&["compare"], &[&path, &qcow2]).expect_code(3);
        ended.expect_named(&[why]);
    }
    let ended = disk(&["info"], &[&qcow2, &scratch.join("vmdk")]).expect_code(3);
    assert!(ended.stdout.contains("it can be used"), "{ended}");
    assert!(
        ended.stdout.contains("refused: ") && ended.stdout.contains("VMDK"),
        "{ended}"
    );
    for (path, hint) in [
        (scratch.path().to_owned(), "regular file"),
        (PathBuf::from("/dev/zero"), "regular file"),
        (scratch.join("none"), "lockstep disk create"),
    ] {
        disk(&["info"], &[&path]).expect_code(3).expect_named(&[hint]);
        disk(&["check"], &[&path]).expect_code(3).expect_named(&[hint]);
    }
    disk(&["create", "--size", "100"], &[&scratch.join("new")])
        .expect_code(3)
        .expect_named(&["not a multiple of its blocks of 512"]);
    let _ = disk(&["create", "--size", "1.5GiB"], &[&scratch.join("new")]).expect_code(2);
    assert!(!scratch.join("new").exists());
}

#[test]
fn an_image_in_use_is_described_with_its_user_and_otherwise_refused() {
    let scratch = Scratch::new();
    let path = made(&scratch, "disk", "1MiB", "raw");
    let image = Image::open(&path, &Options::default()).unwrap();
    let id = std::process::id();
    assert_eq!(info(&path)["in_use_by"]["process"], id);
    for arguments in [["check"], ["compare"]] {
        let paths = if arguments == ["check"] {
            vec![path.as_path()]
        } else {
            vec![path.as_path(), &path]
        };
        let ended = disk(&arguments, &paths).expect_code(3);
        ended.expect_named(&[&format!("is in use by process {id}"), "one user"]);
    }
    drop(image);
    let _ = disk(&["compare"], &[&path, &path]).expect_code(0);
}

#[test]
fn what_is_beside_an_image_is_told_and_held_to() {
    let scratch = Scratch::new();
    let path = made(&scratch, "disk", "1MiB", "raw");
    let identity = Identity {
        name: "web".parse().unwrap(),
        machine: lockstep_shared_disk::MachineId([0xab; 16]),
        generation: lockstep_shared_disk::Generation(3),
        side: lockstep_shared_disk::Line::shortened("left"),
        clean: false,
        format: Format::Raw,
        size_bytes: 1 << 20,
    };
    identity.write(&path).unwrap();
    let said = info(&path);
    assert_eq!(
        (&said["machine"], &said["generation"], &said["written_by"]),
        (&"web".into(), &3.into(), &"left".into())
    );
    assert_eq!(said["clean"], false);
    let ended = disk(&["info"], &[&path]).expect_code(0);
    assert!(ended.stdout.contains("last by left, and not closed"), "{ended}");
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 19)
        .unwrap();
    disk(&["check"], &[&path])
        .expect_code(3)
        .expect_named(&["has 524288 bytes, and had 1048576 when it was last used"]);
    fs::write(Identity::path(&path), "lockstep-disk 1\nname web\n").unwrap();
    disk(&["check"], &[&path])
        .expect_code(3)
        .expect_named(&["disk.lockstep", "its checksum is wrong"]);
}

#[test]
fn files_without_permission_to_write_are_looked_at() {
    let scratch = Scratch::new();
    for format in FORMATS {
        let path = made(&scratch, format, "1MiB", format);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        let _ = disk(&["info"], &[&path]).expect_code(0);
        let _ = disk(&["check"], &[&path]).expect_code(0);
        let _ = disk(&["compare"], &[&path, &path]).expect_code(0);
    }
}

#[test]
fn a_disk_that_is_full_is_an_error_and_leaves_no_image() {
    if !namespace::offered() {
        return;
    }
    for format in FORMATS {
        let script = format!(
            "mount -t tmpfs -o size=1024k lockstep /mnt && cd /mnt || exit 125\n\
             \"$0\" disk create --preallocate --size 8MiB --format {format} disk\n\
             status=$?\n\
             ls\n\
             exit $status"
        );
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .arg(lockstep().get_program());
        let ended = run(&mut command).expect_code(3);
        ended.expect_named(&[
            "cannot make image disk",
            "No space left on device",
            "free some space",
        ]);
        assert_eq!(ended.stdout, "", "{ended}");
    }
}
