//! The loop's own choice among real channels: a flood from one keeps no other waiting for longer
//! than two rounds.

use super::*;
use lockstep_core::replica::role::{Config, Input, Outcome};
use lockstep_logging_channel::message::Heartbeat;
use lockstep_logging_channel::transport::Connection;
use lockstep_logging_channel::{Generation, Message, codec};
use lockstep_network::Attachment;
use lockstep_process::signals::Signal;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};

/// Things in a flood. They fit the queue of messages from the vCPU (256), and what a socket buffers
/// (200 KiB).
const FLOOD: usize = 200;
/// Sources that take turns.
const SOURCES: usize = 7;
/// Turns after which everything that waits has come: a socket may show what it has in the second
/// round only.
const TURNS_MAX: usize = 2 * SOURCES;
/// A broadcast of no known protocol.
const FRAME: [u8; 60] = {
    let mut frame = [0xff; 60];
    (frame[6], frame[12], frame[13]) = (0x02, 0x88, 0xb6);
    frame
};

/// The loop's ends of everything.
struct Ends {
    link: Link,
    from_cpu: mpsc::Receiver<FromCpu>,
    answers: mpsc::UnboundedReceiver<Answer>,
    witnesses: Witnesses,
    frames: NetworkReceiver,
    machine: MachineThread,
    disks: DiskThreads,
    signals: Signals,
    turns: Turns,
}

/// Everybody else's.
struct Others {
    peer: UnixStream,
    network: UnixStream,
    cpu: mpsc::Sender<FromCpu>,
    store: mpsc::UnboundedSender<Answer>,
    signals: watch::Sender<Option<Signal>>,
    _machine: oneshot::Sender<Result<Ended, RunError>>,
}

async fn ends() -> (Ends, Others) {
    let (here, peer) = UnixStream::pair().unwrap();
    here.set_nonblocking(true).unwrap();
    let (read, write) = tokio::net::UnixStream::from_std(here).unwrap().into_split();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("switch");
    let switch = UnixListener::bind(&socket).unwrap();
    let (_, frames) = lockstep_network::open(&Attachment::Switch(socket)).await.unwrap();
    let (network, _) = switch.accept().unwrap();
    let (cpu, from_cpu) = mpsc::channel(super::super::FROM_CPU_WAITING_MAX);
    let (store, answers) = mpsc::unbounded_channel();
    let (machine, outcome) = oneshot::channel();
    let (signals, asked) = watch::channel(None);
    let ends = Ends {
        link: Link::over(Connection::new(read, write, "the peer")),
        from_cpu,
        answers,
        witnesses: Witnesses::open(&[], &Config::default()).await.unwrap(),
        frames,
        machine: MachineThread::without_machine(outcome),
        disks: DiskThreads::default(),
        signals: Signals::of(asked),
        turns: Turns::default(),
    };
    let others = Others {
        peer,
        network,
        cpu,
        store,
        signals,
        _machine: machine,
    };
    (ends, others)
}

impl Ends {
    /// Source of the next thing that happens.
    async fn next(&mut self) -> &'static str {
        let sources = Sources {
            link: &mut self.link,
            from_cpu: &mut self.from_cpu,
            answers: &mut self.answers,
            witnesses: &mut self.witnesses,
            frames: &mut self.frames,
            machine: &mut self.machine,
            signals: &mut self.signals,
            newcomers: None,
            sending: None,
            holding: None,
            disks: &self.disks,
        };
        let waits = Waits {
            wake_at_ns: None,
            connected: true,
            closing: false,
            runs: true,
        };
        match next(sources, waits, &mut self.turns).await {
            Happened::Cpu(_) => "vCPU",
            Happened::Peer(Ok(Some(_))) => "peer",
            Happened::Frame(_) => "network",
            Happened::Answer(_) => "store",
            Happened::Stop => "signal",
            _ => "anything else",
        }
    }
}

impl Others {
    fn peer_says(&mut self, times: usize) {
        let mut heartbeat = Vec::new();
        codec::encode_message(&Message::Heartbeat(Heartbeat::default()), &mut heartbeat).unwrap();
        self.peer.write_all(&heartbeat.repeat(times)).unwrap();
    }

    fn network_says(&mut self, times: usize) {
        // Frames in a stream have their length before them.
        let frame = [&(FRAME.len() as u32).to_be_bytes()[..], &FRAME].concat();
        self.network.write_all(&frame.repeat(times)).unwrap();
    }

    fn cpu_says(&mut self, times: usize) {
        for exits in 0..times as u64 {
            self.cpu.try_send(Input::Ran { exits }).unwrap();
        }
    }
}

/// Floods one source, then lets every other bring one thing: all of them are taken.
async fn others_have_their_turn(flooded: &str, flood: impl FnOnce(&mut Others)) {
    let (mut ends, mut others) = ends().await;
    flood(&mut others);
    for _ in 0..TURNS_MAX {
        assert_eq!(ends.next().await, flooded);
    }
    for (source, says) in [
        ("peer", Others::peer_says as fn(&mut Others, usize)),
        ("network", Others::network_says),
        ("vCPU", Others::cpu_says),
    ] {
        if source != flooded {
            says(&mut others, 1);
        }
    }
    others.store.send((Generation(2), Outcome::Lost)).unwrap();
    others.signals.send(Some(Signal::SIGTERM)).unwrap();
    // The sockets are looked at.
    tokio::task::yield_now().await;
    let mut waiting = vec!["peer", "network", "vCPU", "store", "signal"];
    for _ in 0..TURNS_MAX {
        let taken = ends.next().await;
        waiting.retain(|source| *source != taken);
    }
    assert!(
        waiting.is_empty(),
        "a flood from the {flooded} starves {waiting:?}"
    );
}

#[tokio::test]
async fn a_flood_from_the_peer_starves_no_other() {
    others_have_their_turn("peer", |others| others.peer_says(FLOOD)).await;
}

#[tokio::test]
async fn a_flood_from_the_network_starves_no_other() {
    others_have_their_turn("network", |others| others.network_says(FLOOD)).await;
}

#[tokio::test]
async fn a_flood_from_the_vcpu_starves_no_other() {
    others_have_their_turn("vCPU", |others| others.cpu_says(FLOOD)).await;
}
