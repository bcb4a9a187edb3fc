//! Time until a backup is armed again whose image lacks what was written while it was gone.

use lockstep_tests::harness::{Client, Guest, Replica, Reply, Scratch, Switch, lockstep, wait_until};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// Size of each image. It has no hole.
const IMAGE_MIB: usize = 256;
/// Written while the backup is gone, one after the other.
const CHANGED_MIB: [usize; 4] = [0, 1, 16, 64];
/// Bytes that are written at a time.
const VALUE_BYTES: usize = 64 << 10;

/// A side of the machine `store` on `image`.
fn side(scratch: &Scratch, switch: &Switch, name: &str, image: &Path) -> Replica {
    let report = scratch.join(&format!("{name}.jsonl"));
    let mut command = lockstep();
    command
        .arg("replica")
        .arg(Guest::KeyValue.image())
        .args(["--name=store", "--timeout-ms=2000", "--lag-ms-max=60000"])
        .args(["--command-line=appendonly=always", "--disk"])
        .arg(image)
        .arg("--shared-directory")
        .arg(scratch.join("shared"))
        .arg("--network")
        .arg(switch.attachment())
        .arg("--report")
        .arg(&report);
    Replica::start(name, &mut command, report)
}

/// A row for each amount of change.
pub fn figures() -> Value {
    let scratch = Scratch::new();
    scratch.directory("shared");
    let switch = Switch::start_quiet(&scratch);
    let images = ["left.img", "right.img"].map(|name| scratch.write(name, vec![0; IMAGE_MIB << 20]));
    let mut holder = side(&scratch, &switch, "holder", &images[0]);
    holder.wait_for("begun");
    let mut client = Client::connect(switch.client_address());
    let value = "v".repeat(VALUE_BYTES);
    let mut backup = side(&scratch, &switch, "backup", &images[1]);
    backup.wait_for("armed");
    let rows = CHANGED_MIB.map(|changed_mib| {
        let _ = backup.process.kill();
        wait_for_count(&holder, "solo", "the holder goes on alone");
        for _ in 0..(changed_mib << 20) / VALUE_BYTES {
            assert_eq!(client.call(&["SET", "key", &value]), Reply::ok());
        }
        let sent = holder.count("sent");
        let begun = Instant::now();
        backup = side(&scratch, &switch, &format!("backup-{changed_mib}"), &images[1]);
        backup.wait_for("armed");
        let armed_ms = begun.elapsed().as_secs_f64() * 1e3;
        let event = wait_until(
            || {
                holder
                    .events()
                    .into_iter()
                    .filter(|line| line["event"] == "sent")
                    .nth(sent)
            },
            || "the holder has sent".to_owned(),
        );
        json!({
            "image_mib": IMAGE_MIB,
            "changed_mib": changed_mib,
            "armed_ms": armed_ms,
            "disk_bytes_compared": event["disk_bytes_compared"],
            "disk_bytes_copied": event["disk_bytes_copied"],
        })
    });
    Value::Array(rows.to_vec())
}

/// Waits until `event` was reported as often as newcomers were sent the machine.
fn wait_for_count(replica: &Replica, event: &str, what: &str) {
    let times = replica.count("sent");
    wait_until(
        || (replica.count(event) >= times).then_some(()),
        || what.to_owned(),
    );
}

/// Prints them.
pub fn print(figures: &Value) {
    println!("\na backup joins again: image MiB, changed MiB, armed ms, MiB compared, MiB copied");
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    for row in figures.as_array().into_iter().flatten() {
        let mib = |key: &str| number(&row[key]) / f64::from(1 << 20);
        println!(
            "{:>8} {:>8} {:10.0} {:10.1} {:10.1}",
            row["image_mib"],
            row["changed_mib"],
            number(&row["armed_ms"]),
            mib("disk_bytes_compared"),
            mib("disk_bytes_copied")
        );
    }
}
