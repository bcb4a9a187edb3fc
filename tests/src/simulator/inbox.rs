//! Items that wait to be read by a replica loop: a queue for each of its sources, of which the real
//! choice takes in turn.

use std::collections::VecDeque;

use lockstep_core::replica::cpu::FromCpu;
use lockstep_core::replica::driving::Turns;
use lockstep_core::replica::role::Input;

/// Origin of an item. In the order in which the real loop asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The connection to the peer.
    Peer,
    /// The virtual CPU.
    Cpu,
    /// The store.
    Answer,
    /// The witness.
    Witness,
    /// Frames that are for nobody here.
    Crowd,
    /// The end of the virtual CPU's thread.
    Ended,
    /// A signal.
    Stop,
}

impl Source {
    const ALL: [Self; 7] = [
        Self::Peer,
        Self::Cpu,
        Self::Answer,
        Self::Witness,
        Self::Crowd,
        Self::Ended,
        Self::Stop,
    ];

    /// The source of this.
    fn of(told: &FromCpu) -> Self {
        match told {
            Input::Received(_) | Input::ReceivedEntries(_) | Input::PeerClosed(_) => Self::Peer,
            Input::Claimed { .. } => Self::Answer,
            Input::Witnessed { .. } => Self::Witness,
            Input::GuestEnded { .. } | Input::Diverged { .. } => Self::Ended,
            Input::StopRequested => Self::Stop,
            _ => Self::Cpu,
        }
    }
}

/// Item in a process's sockets and queues.
#[derive(Debug)]
pub enum Item {
    /// Bytes from the peer.
    Bytes(Vec<u8>),
    /// Bytes from the peer that had come before.
    Again(Vec<u8>),
    /// The peer has closed.
    Closed,
    /// A frame that is for nobody here.
    Stray,
    /// Something else.
    Told(FromCpu),
}

/// Everything that waits.
#[derive(Debug, Default)]
pub struct Inbox {
    queues: [VecDeque<Item>; Source::ALL.len()],
    turns: Turns,
}

impl Inbox {
    /// Puts something from the peer behind what has come from it.
    pub fn put_from_peer(&mut self, item: Item) {
        self.queues[Source::Peer as usize].push_back(item);
    }

    /// Puts what the role machine is to be told behind what has come from the same source.
    pub fn put(&mut self, told: FromCpu) {
        self.queues[Source::of(&told) as usize].push_back(Item::Told(told));
    }

    /// Takes what is next, and says from where. `crowded`: there is always one more frame.
    pub fn take(&mut self, crowded: bool) -> Option<(Source, Item)> {
        let (turns, queues) = (&mut self.turns, &mut self.queues);
        turns.next(Source::ALL.len(), |place| {
            let source = Source::ALL[place];
            let item = match source {
                Source::Crowd => crowded.then_some(Item::Stray),
                _ => queues[place].pop_front(),
            };
            item.map(|item| (source, item))
        })
    }

    /// Takes the next that waits of the virtual CPU's.
    pub fn take_from_cpu(&mut self) -> Option<FromCpu> {
        match self.queues[Source::Cpu as usize].pop_front()? {
            Item::Told(told) => Some(told),
            _ => None,
        }
    }

    /// Nothing of the peer's is read any more.
    pub fn part(&mut self) {
        self.queues[Source::Peer as usize].clear();
    }

    /// True if nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// True if bytes of the peer wait.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        let mut items = self.queues[Source::Peer as usize].iter();
        items.any(|item| matches!(item, Item::Bytes(_)))
    }
}
