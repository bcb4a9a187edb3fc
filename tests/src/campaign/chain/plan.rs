//! A chain of losses, drawn from a seed: a machine that heals is struck again and again, while a
//! newcomer joins and when it is protected.

use crate::campaign::disks::Held;
use crate::campaign::kind::named;
use crate::campaign::plan::{TIMEOUT_MS, Title};
use crate::simulator::rng::{Rng, mix};
use std::fmt;
use std::str::FromStr;

/// Takeovers of a chain: the last one leads to generation 11 at least.
pub const LINKS: usize = 10;

/// One chain in so many has a disk, and of these one in so many a shared one.
const DISK_ONE_IN: u64 = 4;
const SHARED_ONE_IN: u64 = 3;

/// Steps of a side that joins. The product's stop points have these names.
pub const JOINING: [&str; 11] = [
    "found",
    "after-piece",
    "all-received",
    "stands",
    "before-record",
    "after-record",
    "before-loaded",
    "after-loaded",
    "before-acknowledge",
    "before-armed",
    "after-armed",
];

/// Steps of a holder that is joined.
pub const HOLDING: [&str; 13] = [
    "before-seen",
    "after-seen",
    "welcomed",
    "before-piece",
    "round",
    "before-capture",
    "saved",
    "captured",
    "saved-at",
    "all-sent",
    "before-joined",
    "before-arming",
    "after-arming",
];

/// Steps of a side that takes over.
const TAKING_OVER: [&str; 8] = [
    "before-claim",
    "claim-linked",
    "after-claim",
    "before-announce",
    "after-announce",
    "going-live",
    "live",
    "output-alone",
];

/// Trouble while a newcomer joins, or as it takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Nothing.
    None,
    /// The newcomer is killed at this step, and another one is started.
    KillNewcomer(&'static str),
    /// The newcomer stops at this step for a while.
    StopNewcomer(&'static str),
    /// The holder stops at this step for a while.
    StopHolder(&'static str),
    /// The channel is closed while the machine is sent.
    CloseChannel,
    /// A byte of what the newcomer is sent is changed.
    DamageChannel,
    /// The channel swallows everything for a while.
    CutChannel,
    /// The side that takes over stops at this step for a while.
    StopTakingOver(&'static str),
}

/// Loss of the machine when it is protected. Each leads to the next generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// SIGKILL to the holder.
    KillHolder,
    /// SIGKILL to its backup.
    KillBackup,
    /// SIGSTOP to the holder, for longer than the timeout.
    StopHolder,
    /// SIGSTOP to its backup, for longer than the timeout.
    StopBackup,
    /// The channel swallows everything, for ever.
    Cut,
    /// Both connections of the channel are closed.
    Close,
}

impl Loss {
    const ALL: [Self; 6] = [
        Self::KillHolder,
        Self::KillBackup,
        Self::StopHolder,
        Self::StopBackup,
        Self::Cut,
        Self::Close,
    ];

    /// True if the backup goes on, and is the next holder.
    #[must_use]
    pub fn hands_over(self) -> bool {
        matches!(self, Self::KillHolder | Self::StopHolder)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("nothing"),
            Self::KillNewcomer(step) => write!(formatter, "kill-newcomer@{step}"),
            Self::StopNewcomer(step) => write!(formatter, "stop-newcomer@{step}"),
            Self::StopHolder(step) => write!(formatter, "stop-holder@{step}"),
            Self::CloseChannel => formatter.write_str("close-channel@joining"),
            Self::DamageChannel => formatter.write_str("damage-channel@joining"),
            Self::CutChannel => formatter.write_str("cut-channel@joining"),
            Self::StopTakingOver(step) => write!(formatter, "stop-next@{step}"),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::KillHolder => "kill-holder",
            Self::KillBackup => "kill-backup",
            Self::StopHolder => "stop-holder",
            Self::StopBackup => "stop-backup",
            Self::Cut => "cut",
            Self::Close => "close",
        })
    }
}

impl Trouble {
    /// Every one.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let joining = JOINING
            .iter()
            .flat_map(|step| [Self::KillNewcomer(step), Self::StopNewcomer(step)]);
        let holding = HOLDING.iter().map(|step| Self::StopHolder(step));
        let taking_over = TAKING_OVER.iter().map(|step| Self::StopTakingOver(step));
        let channel = [Self::CloseChannel, Self::DamageChannel, Self::CutChannel];
        std::iter::once(Self::None)
            .chain(joining)
            .chain(holding)
            .chain(taking_over)
            .chain(channel)
            .collect()
    }

    /// The point at which the newcomer of this link stops or dies by itself.
    #[must_use]
    pub fn newcomer_point(self, ordinal: u64) -> Option<String> {
        match self {
            Self::KillNewcomer(step) => Some(format!("{step}:{}:KILL", of(step, ordinal))),
            Self::StopNewcomer(step) | Self::StopTakingOver(step) => {
                Some(format!("{step}:{}:STOP", of(step, ordinal)))
            }
            _ => None,
        }
    }

    /// The point at which its holder stops, of which it must be told when it starts.
    #[must_use]
    pub fn holder_point(self, ordinal: u64) -> Option<String> {
        match self {
            Self::StopHolder(step) => Some(format!("{step}:{}:STOP", of(step, ordinal))),
            _ => None,
        }
    }
}

/// The passing of a step at which it is met: the first, where each newcomer passes it once.
fn of(step: &str, ordinal: u64) -> u64 {
    match step {
        "after-piece" | "before-piece" | "before-acknowledge" => ordinal,
        _ => 1,
    }
}

/// A newcomer that joins, and what is lost then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// While it joins.
    pub trouble: Trouble,
    /// Once the machine is protected.
    pub loss: Loss,
    /// The passing of a step that comes more than once.
    pub ordinal: u64,
    /// Time for which a side that stops in `trouble` stays so.
    pub trouble_ms: u64,
    /// Time for which a side that stops in `loss` stays so: longer than the timeout.
    pub loss_ms: u64,
    /// Time for which the machine is protected before the loss.
    pub protected_ms: u64,
}

/// The plan of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seed of the campaign.
    pub seed: u64,
    /// The round.
    pub round: u64,
    /// Trouble or loss in every link, where the caller wants that.
    pub only: Option<Only>,
    /// Its links.
    pub links: Vec<Link>,
    /// Clients.
    pub clients: usize,
    /// Disk of the machine, where it has one.
    pub held: Option<Held>,
}

/// Part of a link that is the same in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// The trouble.
    Trouble(Trouble),
    /// The loss.
    Loss(Loss),
}

impl Only {
    /// Every one.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let troubles = Trouble::all().into_iter().map(Self::Trouble);
        troubles.chain(Loss::ALL.map(Self::Loss)).collect()
    }
}

impl fmt::Display for Only {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trouble(trouble) => write!(formatter, "{trouble}"),
            Self::Loss(loss) => write!(formatter, "{loss}"),
        }
    }
}

impl FromStr for Only {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(Self::all(), text).ok_or_else(|| format!("no chain has `{text}`; --list names them"))
    }
}

impl Plan {
    /// The chain of `round` in the campaign `seed`.
    #[must_use]
    pub fn draw(seed: u64, round: u64, only: Option<Only>) -> Self {
        let mut rng = Rng::new(mix(mix(seed ^ 0xc4a1) ^ round));
        let mut links: Vec<Link> = (0..LINKS).map(|_| draw_link(&mut rng, only)).collect();
        for number in 1..LINKS {
            let (before, from_here) = links.split_at_mut(number);
            make_passable(&mut from_here[0], &mut before[number - 1], only);
        }
        Self {
            seed,
            round,
            only,
            links,
            clients: rng.within(3, 5) as usize,
            held: rng.once_in(DISK_ONE_IN).then(|| {
                if rng.once_in(SHARED_ONE_IN) {
                    Held::Shared
                } else {
                    Held::Mirrored
                }
            }),
        }
    }

    /// Number of points: links in which a side is to kill or stop itself.
    #[must_use]
    pub fn points(&self) -> usize {
        let troubles = self.links.iter().map(|link| (link.trouble, link.ordinal));
        troubles
            .filter(|(trouble, ordinal)| {
                trouble.newcomer_point(*ordinal).is_some() || trouble.holder_point(*ordinal).is_some()
            })
            .count()
    }

    /// The names of the round.
    #[must_use]
    pub fn title(&self) -> Title {
        let only = self.only.map_or(String::new(), |only| format!(":{only}"));
        let links: Vec<String> = self.links.iter().map(Link::describe).collect();
        let disk = self.held.map_or(String::new(), |held| format!(", {held} disk"));
        Title {
            seed: self.seed,
            round: self.round,
            kind: format!("chain{only}"),
            plan: format!("chain of {}{disk}: {}", self.links.len(), links.join("; ")),
            fault: "chain".to_owned(),
            point: "chain".to_owned(),
            step: "chain",
        }
    }
}

impl Link {
    fn describe(&self) -> String {
        match self.trouble {
            Trouble::None => self.loss.to_string(),
            trouble => format!("{trouble} {}", self.loss),
        }
    }
}

fn draw_link(rng: &mut Rng, only: Option<Only>) -> Link {
    let troubles = Trouble::all();
    let trouble = if rng.once_in(4) {
        Trouble::None
    } else {
        troubles[rng.below(troubles.len() as u64) as usize]
    };
    let loss = match rng.below(3) {
        0 => Loss::KillHolder,
        _ => Loss::ALL[rng.below(Loss::ALL.len() as u64) as usize],
    };
    let (mut trouble, mut loss) = match only {
        Some(Only::Trouble(trouble)) => (trouble, loss),
        Some(Only::Loss(loss)) => (trouble, loss),
        None => (trouble, loss),
    };
    // Only the side that takes over passes these steps.
    if matches!(trouble, Trouble::StopTakingOver(_)) {
        match only {
            Some(Only::Loss(_)) => trouble = Trouble::None,
            _ => loss = Loss::KillHolder,
        }
    }
    Link {
        trouble,
        loss,
        ordinal: rng.within(1, 6),
        trouble_ms: match rng.below(2) {
            0 => rng.within(5, TIMEOUT_MS / 2),
            _ => rng.within(TIMEOUT_MS, TIMEOUT_MS * 2),
        },
        loss_ms: rng.within(TIMEOUT_MS * 5 / 4, TIMEOUT_MS * 2),
        protected_ms: rng.within(0, 200),
    }
}

/// A holder knows its point when it starts: as the newcomer of the link before, which takes over
/// and has no other point.
fn make_passable(link: &mut Link, before: &mut Link, only: Option<Only>) {
    if link.trouble.holder_point(link.ordinal).is_none() {
        return;
    }
    let is_taken = before.trouble.newcomer_point(before.ordinal).is_some();
    if is_taken || (!before.loss.hands_over() && matches!(only, Some(Only::Loss(_)))) {
        link.trouble = Trouble::None;
    } else if !before.loss.hands_over() {
        before.loss = Loss::KillHolder;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::fixtures::expect_names;
    use std::collections::BTreeSet;

    #[test]
    fn everything_that_can_happen_in_a_chain_has_a_name_of_its_own() {
        expect_names(Only::all());
    }

    #[test]
    fn everything_comes_in_a_hundred_chains() {
        let links = (0..100).flat_map(|round| Plan::draw(1, round, None).links);
        let (troubles, losses): (BTreeSet<_>, BTreeSet<_>) =
            links.map(|link| (link.trouble, link.loss)).unzip();
        assert_eq!(troubles.len(), Trouble::all().len());
        assert_eq!(losses.len(), Loss::ALL.len());
        let held: BTreeSet<_> = (0..100).map(|round| Plan::draw(1, round, None).held).collect();
        assert_eq!(held.len(), 3);
    }

    #[test]
    fn who_stops_while_it_takes_over_has_something_to_take_over() {
        let only = "stop-next@live".parse().unwrap();
        let links = Plan::draw(3, 3, Some(only)).links;
        assert!(links.iter().all(|link| link.loss == Loss::KillHolder));
    }

    #[test]
    fn a_holder_that_stops_was_the_newcomer_of_the_link_before_and_had_no_other_point() {
        let only = ["stop-holder@saved", "close"].map(|only| Some(only.parse().unwrap()));
        for only in [None].into_iter().chain(only) {
            for links in (0..100).map(|round| Plan::draw(1, round, only).links) {
                for pair in links.windows(2) {
                    let stops = matches!(pair[1].trouble, Trouble::StopHolder(_));
                    let before = (pair[0].trouble.newcomer_point(1), pair[0].loss.hands_over());
                    assert!(!stops || before == (None, true), "{pair:?}");
                    if let Some(Only::Loss(loss)) = only {
                        assert_eq!(pair[0].loss, loss);
                    }
                }
            }
        }
    }

    #[test]
    fn every_link_in_which_a_side_kills_or_stops_itself_has_a_point() {
        let points = |only: &str| Plan::draw(3, 3, Some(only.parse().unwrap())).points();
        for only in ["kill-newcomer@found", "stop-holder@saved", "stop-next@live"] {
            assert_eq!(points(only), LINKS, "{only}");
        }
        for only in ["nothing", "cut-channel@joining"] {
            assert_eq!(points(only), 0, "{only}");
        }
    }
}
