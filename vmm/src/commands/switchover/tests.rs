use super::*;
use lockstep_host::pair::identity::published::Published;
use lockstep_shared_disk::fake::{self, FakeStore};
use lockstep_shared_disk::{Ended, Generation, MachineId, Seen};

const HELD: Generation = Generation(2);
const NEXT: Generation = Generation(3);
const LIMIT: Duration = Duration::from_secs(30);

fn web() -> MachineName {
    "web".parse().unwrap()
}

/// Answer of a holder to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Nothing,
    /// The party of this number claims the next generation, of the machine with this number.
    Claimed(u8, u8),
    Refuses,
    Ends,
}

/// Generation 2 of the machine `web`, protected, whose holder answers a request with `does`.
struct Holder {
    store: FakeStore,
    machine: Arc<dyn MachineStore>,
    does: Does,
    /// The next generation is protected.
    again: bool,
}

impl Holder {
    async fn new(does: Does) -> Self {
        let store = FakeStore::default();
        let machine = store.open(&web()).await.unwrap();
        assert!(machine.claim(&fake::claim(HELD, 1)).await.is_ok());
        Self {
            store,
            machine,
            does,
            again: true,
        }
    }

    async fn run(&self) {
        let mut done = false;
        for counter in 1.. {
            for (generation, protected) in [(HELD, true), (NEXT, self.again)] {
                let published = Published {
                    protected,
                    ..Published::default()
                };
                let seen = Seen::new(generation, [1; 16], counter, &published.to_json());
                self.machine.put_seen(&seen.unwrap()).await.unwrap();
            }
            let asked = self.machine.switchover(HELD).await.unwrap();
            if asked.is_some() && !std::mem::replace(&mut done, true) {
                self.does_it().await;
            }
            sleep(Duration::from_millis(700)).await;
        }
    }

    async fn does_it(&self) {
        let machine = &self.machine;
        match self.does {
            Does::Nothing => {}
            Does::Claimed(number, id) => {
                let claim = Claim {
                    machine: MachineId([id; 16]),
                    ..fake::claim(NEXT, number)
                };
                machine.claim(&claim).await.unwrap();
                // As its first sign of life does.
                machine.remove_switchover(HELD).await.unwrap();
            }
            Does::Refuses => machine.remove_switchover(HELD).await.unwrap(),
            Does::Ends => {
                let ended = Ended {
                    generation: HELD,
                    machine: MachineId([9; 16]),
                    how: Line::shortened("its guest powered off with status 0"),
                    at_unix_s: 1,
                };
                machine.put_ended(&ended).await.unwrap();
            }
        }
    }

    async fn asked(&self, no_wait: bool) -> Result<Found, CommandError> {
        self.asked_until(no_wait, std::future::pending()).await
    }

    /// The same, until a signal comes.
    async fn asked_until(
        &self,
        no_wait: bool,
        stopped: impl Future<Output = ()>,
    ) -> Result<Found, CommandError> {
        let name = web();
        tokio::select! {
            outcome = switched_over(&self.store, &name, LIMIT, no_wait, stopped) => outcome,
            () = self.run() => unreachable!("a holder never ends"),
        }
    }

    /// Why a request to a holder that does this leads to nothing.
    async fn refusal(does: Does) -> String {
        let why = Self::new(does).await.asked(false).await.err().unwrap();
        assert_eq!(why.status(), Status::Failure);
        why.to_string()
    }
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_the_former_backup_holds_the_machine_and_is_protected() {
    let mut holder = Holder::new(Does::Claimed(2, 9)).await;
    let found = holder.asked(false).await.unwrap().to_json();
    assert_eq!(
        (&found["generation"], &found["protected"]),
        (&3.into(), &true.into())
    );

    holder = Holder::new(Does::Claimed(2, 9)).await;
    holder.again = false;
    let begun = Instant::now();
    let why = holder.asked(false).await.err().unwrap().to_string();
    assert!(begun.elapsed() >= LIMIT, "{:?}", begun.elapsed());
    assert_eq!(
        why,
        "web was switched over to party 2 (host example, process 2), and is not protected: no backup has joined"
    );

    holder = Holder::new(Does::Claimed(2, 9)).await;
    holder.again = false;
    assert!(holder.asked(true).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_the_holder_instead_is_named() {
    for (does, named) in [
        (
            Does::Claimed(1, 9),
            "has lost its backup meanwhile, and goes on alone in generation 3",
        ),
        (
            Does::Claimed(3, 8),
            "party 3 (host example, process 3) has begun it afresh in generation 3",
        ),
        (Does::Refuses, "has lost its backup, and nobody can take over"),
        (Does::Ends, "it has ended: its guest powered off with status 0"),
        (Does::Nothing, "has not handed it over within 30 s"),
    ] {
        let why = Holder::refusal(does).await;
        assert!(
            why.starts_with("web is not switched over: ") && why.contains(named),
            "{why}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_is_taken_back() {
    let holder = Holder::new(Does::Nothing).await;
    assert!(holder.asked(false).await.is_err());
    assert_eq!(holder.machine.switchover(HELD).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_signal_takes_the_request_back() {
    let holder = Holder::new(Does::Nothing).await;
    let asked_for = async {
        while holder.machine.switchover(HELD).await.unwrap().is_none() {
            sleep(LOOK_PAUSE).await;
        }
    };
    let why = holder
        .asked_until(false, asked_for)
        .await
        .err()
        .unwrap()
        .to_string();
    assert_eq!(why, "web is not switched over: a signal has stopped this");
    assert_eq!(holder.machine.switchover(HELD).await.unwrap(), None);

    let why = holder
        .asked_until(false, async {})
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(why.ends_with("and nobody was asked"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn the_time_begins_with_the_request() {
    let mut holder = Holder::new(Does::Claimed(2, 9)).await;
    holder.again = false;
    let begun = Instant::now();
    let name = web();
    let second = Duration::from_secs(1);
    let outcome = tokio::select! {
        outcome = switched_over(&holder.store, &name, second, false, std::future::pending()) => outcome,
        () = holder.run() => unreachable!("a holder never ends"),
    };
    let why = outcome.err().unwrap().to_string();
    assert!(why.starts_with("web was switched over"), "{why}");
    assert!(begun.elapsed() > second, "it was looked at first");
}

#[tokio::test(start_paused = true)]
async fn another_request_is_named_and_stays() {
    let holder = Holder::new(Does::Nothing).await;
    let first = Switchover {
        generation: HELD,
        id: [3; 16],
        by: Line::shortened("host other, process 7"),
        at_unix_s: 1,
    };
    holder.machine.ask_switchover(&first).await.unwrap();
    let why = holder.asked(false).await.err().unwrap().to_string();
    assert_eq!(
        why,
        "web is not switched over: another switchover is under way, asked for by host other, process 7"
    );
    assert_eq!(holder.machine.switchover(HELD).await.unwrap(), Some(first));
}
