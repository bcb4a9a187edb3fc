use super::published::Side;
use super::start::{Begun, Wish};
use super::*;
use crate::pair::holding::Holding;
use lockstep_core::replica::role::{Protection, Statistics};
use lockstep_logging_channel::message::FollowsBy;
use lockstep_shared_disk::fake::{self, FakeStore};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(30);
const ANYTHING: Wish = Wish::Anything { afresh: false };
const AFRESH: Wish = Wish::Anything { afresh: true };
const FIRST: Generation = Generation::FIRST;

fn name() -> MachineName {
    "web".parse().unwrap()
}

async fn identity(store: &FakeStore) -> Identity {
    let mut identity = Identity::open(store, &name(), "replica", PATIENCE).await.unwrap();
    identity.joined_at("unix:/run/web").unwrap();
    identity
}

async fn begun_holder(store: &FakeStore) -> (Identity, Claim) {
    let identity = identity(store).await;
    match identity.start(ANYTHING).begin().await.unwrap() {
        Begun::Holder(claim) => (identity, claim),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_holds_and_the_second_joins_it() {
    let store = FakeStore::default();
    let (_first, claim) = begun_holder(&store).await;
    assert_eq!(claim.generation, FIRST);
    let second = identity(&store).await.start(ANYTHING).begin().await.unwrap();
    assert!(matches!(second, Begun::Newcomer { holder, .. } if holder == claim));
}

#[tokio::test(start_paused = true)]
async fn an_ended_machine_is_followed_by_a_fresh_one() {
    let store = FakeStore::default();
    let (first, claim) = begun_holder(&store).await;
    first.ended(FIRST, claim.machine, "powered off", PATIENCE).await;
    let (_second, next) = begun_holder(&store).await;
    assert_eq!(next.generation, Generation(2));
    assert_ne!(next.machine, claim.machine);
}

#[tokio::test(start_paused = true)]
async fn afresh_is_refused_beside_a_holder_that_gives_signs_and_not_later() {
    let store = FakeStore::default();
    let (first, _claim) = begun_holder(&store).await;
    let (_published, receiver) = watch::channel(Published::default());
    let kept = first.keep_seen(async {}, FIRST, receiver);
    let second = identity(&store).await;
    let error = second.start(AFRESH).begin().await.unwrap_err().to_string();
    assert!(error.contains("afresh") && error.contains("is alive"), "{error}");
    drop(kept);
    let begun = second.start(AFRESH).begin().await.unwrap();
    assert!(matches!(begun, Begun::Holder(claim) if claim.generation == Generation(2)));
}

#[tokio::test(start_paused = true)]
async fn what_is_published_is_seen() {
    let store = FakeStore::default();
    let (first, _claim) = begun_holder(&store).await;
    let (publish, receiver) = watch::channel(Published::default());
    let _kept = first.keep_seen(async {}, FIRST, receiver);
    publish.send_modify(|published| published.protected = true);
    sleep(Duration::from_millis(2_500)).await;
    let seen = first.machine().seen(FIRST).await.unwrap().unwrap();
    assert_eq!(seen.counter(), 3);
    assert!(Published::from_json(seen.status()).unwrap().protected);
}

#[tokio::test(start_paused = true)]
async fn a_later_generation_is_noticed_after_a_store_that_hung() {
    let store = FakeStore::default();
    let (first, _claim) = begun_holder(&store).await;
    store.hang(true);
    let (_kept, mut later) = first.watch(FIRST, SECOND);
    sleep(Duration::from_secs(20)).await;
    store.hang(false);
    let next = fake::claim(Generation(2), 2);
    let _ = store.machine(&name()).claim_now(&next);
    assert_eq!(later.recv().await, Some(Generation(2)));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_for_ever_is_asked_a_bounded_number_of_times() {
    let asked = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = asked.clone();
    let ask = move || {
        count.set(count.get() + 1);
        Some(Box::pin(std::future::pending()) as lockstep_shared_disk::Asked<()>)
    };
    let asking = repeat::repeat(SECOND, ask, |_| ControlFlow::Continue(()));
    let _ = tokio::time::timeout(Duration::from_secs(86_400), asking).await;
    assert_eq!(asked.get(), 16);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_asked_once_at_a_time_who_the_other_side_is() {
    let store = FakeStore::default();
    let (first, claim) = begun_holder(&store).await;
    let mut holding = Holding::new(first, claim.machine);
    holding.hold(FIRST);
    store.hang(true);
    let protected = Statistics {
        protection: Protection::Protected,
        ..Statistics::default()
    };
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..1_000 {
        holding.publish(&protected, Some("the peer"), None, FollowsBy::Replay);
        sleep(SECOND).await;
    }
    // Others repeat theirs, each at most 16 times.
    assert!(tasks() - before < 100, "{} questions", tasks() - before);
}

#[test]
fn a_status_that_is_too_long_leaves_the_sides_out() {
    let side = Side {
        address: Some("x".repeat(4_000)),
        ..Side::default()
    };
    let published = Published {
        protected: true,
        sides: vec![side],
        ..Published::default()
    };
    let read = Published::from_json(&published.to_json()).unwrap();
    assert!(read.protected && read.sides.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_side_that_connects_to_a_holder_that_is_gone_notices_the_next_one() {
    let store = FakeStore::default();
    let (first, _claim) = begun_holder(&store).await;
    let since = Instant::now();
    let claimed = async {
        sleep(Duration::from_secs(1)).await;
        let _ = store.machine(&name()).claim_now(&fake::claim(Generation(2), 2));
        std::future::pending::<()>().await;
    };
    let done = tokio::select! {
        done = first.unless_overtaken(FIRST, std::future::pending::<()>()) => done,
        () = claimed => None,
    };
    assert_eq!(done, None);
    assert!(since.elapsed() <= Duration::from_secs(1) + LOOK_PAUSE);
    let done = first.unless_overtaken(Generation(2), async { 7 }).await;
    assert_eq!(done, Some(7));
}

/// A process that has ended.
fn dead() -> Party {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let mut party = process::own([8; 16], "replica");
    // No process of this start has ever had this number.
    (party.process.id, party.process.start_ticks) = (child.id(), u64::MAX);
    child.wait().unwrap();
    party
}

/// The process begins its program again where it could not join. The store may have been too slow
/// to forget who it was.
#[tokio::test(start_paused = true)]
async fn a_newcomer_that_this_process_was_is_not_waited_for_and_is_forgotten() {
    let store = FakeStore::default();
    let holder = Claim {
        party: dead(),
        ..fake::claim(FIRST, 8)
    };
    let machine = store.machine(&name());
    let _ = machine.claim_now(&holder);
    identity(&store).await.record(FIRST).await.unwrap();
    let again = identity(&store).await;
    let begun = again.start(ANYTHING).begin().await.unwrap();
    assert!(matches!(begun, Begun::Holder(claim) if claim.generation == Generation(2)));
    while !machine.backups(FIRST).await.unwrap().is_empty() {
        sleep(LOOK_PAUSE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_that_another_living_process_is_may_take_over() {
    let store = FakeStore::default();
    let holder = Claim {
        party: dead(),
        ..fake::claim(FIRST, 8)
    };
    let _ = store.machine(&name()).claim_now(&holder);
    let mut other = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let mut newcomer = identity(&store).await;
    (newcomer.party.process.id, newcomer.party.process.start_ticks) = process::started(other.id());
    newcomer.record(FIRST).await.unwrap();
    let mut start = identity(&store).await.start(ANYTHING);
    let waits = tokio::time::timeout(PATIENCE, start.begin()).await.is_err();
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(waits);
    assert!(matches!(start.begin().await.unwrap(), Begun::Holder(_)));
}

#[tokio::test(start_paused = true)]
async fn a_side_that_only_joins_begins_nothing() {
    let store = FakeStore::default();
    let error = identity(&store)
        .await
        .start(Wish::Join)
        .begin()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("nobody holds web"), "{error}");
    assert_eq!(store.machine(&name()).newest().await.unwrap(), None);
}
