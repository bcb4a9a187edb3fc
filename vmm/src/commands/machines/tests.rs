use super::*;
use lockstep_host::pair::identity::published::Disk;
use lockstep_shared_disk::fake::{self, FakeStore};
use lockstep_shared_disk::{Generation, Line, MachineId};

fn name() -> MachineName {
    "web".parse().unwrap()
}

fn seen(counter: u64, published: &Published) -> Seen {
    Seen::new(Generation(2), [1; 16], counter, &published.to_json()).unwrap()
}

/// Generation 2, held by a process of another host.
async fn held() -> (FakeStore, Arc<dyn MachineStore>) {
    let store = FakeStore::default();
    let machine = store.open(&name()).await.unwrap();
    let claimed = machine.claim(&fake::claim(Generation(2), 1)).await;
    assert!(claimed.is_ok());
    (store, machine)
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_gives_no_sign_is_told() {
    let (store, machine) = held().await;
    let protected = Published {
        protected: true,
        ..Published::default()
    };
    machine.put_seen(&seen(1, &protected)).await.unwrap();
    let found = look(&store, &name()).await.unwrap().to_json();
    assert_eq!(
        (&found["protected"], &found["condition"]),
        (&json!(false), &json!("not seen"))
    );
    let why = found["why_not"].as_str().unwrap();
    assert!(
        why.contains("party 1 (host example, process 1), was not seen"),
        "{why}"
    );
    assert_eq!(found["sides"][0]["address"], "unix:/run/1");
    assert_eq!(found["sides"][0]["gone"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_gives_signs_says_who_takes_part() {
    let (store, machine) = held().await;
    let published = Published {
        protected: true,
        since_unix_s: 1_700_000_000,
        why_not: None,
        divergences: 2,
        mode: Some("checkpoint".to_owned()),
        mode_why: Some("it was started so".to_owned()),
        compared: Vec::new(),
        sides: vec![
            Side::of(&fake::party(1), "primary"),
            Side {
                lag_ms: Some(3),
                ..Side::of(&fake::party(2), "backup")
            },
        ],
        disks: vec![
            Disk {
                name: "disk 0 (a.img)".to_owned(),
                ..Disk::default()
            },
            Disk {
                name: "disk 1 (b.img)".to_owned(),
                waiting: 3,
                error: Some("it cannot be flushed".to_owned()),
                since_unix_s: Some(1_700_000_000),
                failures: 2,
            },
        ],
    };
    machine.put_seen(&seen(1, &published)).await.unwrap();
    let later = async {
        sleep(Duration::from_millis(900)).await;
        machine.put_seen(&seen(2, &published)).await.unwrap();
    };
    let name = name();
    let (found, ()) = tokio::join!(look(&store, &name), later);
    let found = found.unwrap();
    let text = found.text();
    let json = found.to_json();
    assert_eq!(json["generation"], 2);
    assert_eq!(json["since"], "2023-11-14T22:13:20Z");
    assert_eq!(
        (&json["protected"], &json["why_not"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(
        (&json["sides"][1]["lag_ms"], &json["divergences"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(json["sides"][1]["gone"], false);
    assert_eq!(
        (&json["mode"], &json["mode_why"]),
        (&json!("checkpoint"), &json!("it was started so"))
    );
    assert_eq!(
        text,
        "web: generation 2, protected since 2023-11-14T22:13:20Z; mode checkpoint (it was started so); \
         2 divergences\n  \
         primary: host example, process 1, unix:/run/1\n  \
         backup: host example, process 2, unix:/run/2, 3 ms behind\n  \
         disk 0 (a.img): works\n  \
         disk 1 (b.img): NOT working since 2023-11-14T22:13:20Z: it cannot be flushed (2 tries failed); 3 requests wait\n"
    );
    assert_eq!(json["disks"][1]["waiting"], 3);
    assert_eq!(json["disks"][1]["failures"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_has_ended_says_how() {
    let (store, machine) = held().await;
    let ended = Ended {
        generation: Generation(2),
        machine: MachineId([9; 16]),
        how: Line::shortened("powered off with status 0"),
        at_unix_s: 951_782_400,
    };
    machine.put_ended(&ended).await.unwrap();
    let found = look(&store, &name()).await.unwrap();
    assert_eq!(
        found.text(),
        "web: generation 2, NOT protected since 2000-02-29T00:00:00Z: it has ended: powered off with status 0\n  \
         primary: host example, process 1, unix:/run/1, gone\n"
    );
    assert_eq!(found.to_json()["sides"][0]["gone"], true);
}

#[tokio::test(start_paused = true)]
async fn of_a_dead_holder_only_what_is_proven_is_told() {
    let (store, machine) = held().await;
    let backup = Side {
        lag_ms: Some(3),
        ..Side::of(&fake::party(2), "backup")
    };
    let published = Published {
        sides: vec![Side::of(&fake::party(1), PRIMARY), backup],
        ..Published::default()
    };
    machine.put_seen(&seen(1, &published)).await.unwrap();
    let mut found = look(&store, &name()).await.unwrap();
    found.condition = Condition::Dead;
    let text = found.text();
    assert!(
        text.ends_with(
            "  primary: host example, process 1, unix:/run/1, gone\n  \
             backup: host example, process 2, unix:/run/2, as last published\n"
        ),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_and_a_silent_store_are_told() {
    let store = FakeStore::default();
    let unknown = look(&store, &name()).await.err().unwrap();
    assert!(
        unknown.to_string().contains("no machine is called web"),
        "{unknown}"
    );
    assert_eq!(unknown.status(), Status::Configuration);
    store.hang(true);
    let silent = look(&store, &name()).await.err().unwrap();
    assert!(silent.to_string().contains("does not answer"), "{silent}");
}

#[test]
fn a_time_is_written_as_it_is_in_utc() {
    for (unix_s, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_868_799, "2000-02-29T23:59:59Z"),
        (951_868_800, "2000-03-01T00:00:00Z"),
        (1_735_689_599, "2024-12-31T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ] {
        assert_eq!(utc(unix_s), text);
    }
}
