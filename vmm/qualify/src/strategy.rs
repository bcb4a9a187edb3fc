//! Position strategies: where events may enter, chosen from what a host was found to do.
//!
//! | asked for | chosen | needs |
//! | --- | --- | --- |
//! | `auto` | exits | that exits are the same positions in every run |
//! | `none` | exits | the same |
//! | `step`, `statistic` | that clock | the same, and the clock right in ring 0, and in ring 3 right or silent |
//! | window exits | exits, and IRQ windows as exits | the same, and windows exact in both rings |
//! | a kernel | exits | the same, and that its instructions run in ring 0 |
//!
//! A guest that runs live needs a dirty log beside, which reports exactly the pages that were
//! written: common points, checkpoints, newcomers and snapshots are told what it says.
//!
//! `auto` takes no clock: each that there is makes every exit dearer (docs/hosts.md), and binds
//! what is recorded to hosts that have it too.

use super::bench::Ring;
use super::finding::{Finding, Judgement, Property, judgement_of};
use lockstep_kvm::{ClockKind, HostError};

/// The option that asks for an ordinary kernel, as errors name it.
pub const KERNEL_OPTION: &str = "--kernel";

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Instruction clock; none said: the host decides.
    pub clock: Option<ClockKind>,
    /// How far the clock is to reach; none said: as far as it does here.
    pub reach: Option<Reach>,
    /// IRQ-window exits count as exits.
    pub window_exits: bool,
    /// The guest is an ordinary kernel.
    pub kernel: bool,
    /// The guest runs live: whoever follows it is told what it has written.
    pub live: bool,
}

/// In which rings an instruction clock finds positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// In the guest's kernel.
    Ring0,
    /// Everywhere.
    BothRings,
}

/// What was chosen. Two sides, and a log and its replay, must have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strategy {
    /// Instruction clock.
    pub clock: ClockKind,
    /// How far it reaches.
    pub reach: Reach,
    /// IRQ-window exits count as exits.
    pub window_exits: bool,
}

const STEP_IN_RING_0: &str = "step in ring 0";

impl Strategy {
    /// Events enter at exits alone.
    pub const EXITS: Self = Self {
        clock: ClockKind::None,
        reach: Reach::Ring0,
        window_exits: false,
    };

    /// The clock, as the environment of a log names it. How far single stepping reaches differs
    /// between hosts, and is part of the name.
    #[must_use]
    pub fn clock_name(&self) -> String {
        match (self.clock, self.reach) {
            (ClockKind::Step, Reach::Ring0) => STEP_IN_RING_0.to_owned(),
            (clock, _) => clock.to_string(),
        }
    }

    /// The clock and its reach behind such a name.
    #[must_use]
    pub fn clock_named(name: &str) -> Option<(ClockKind, Reach)> {
        match name {
            "none" => Some((ClockKind::None, Reach::Ring0)),
            "statistic" => Some((ClockKind::Statistic, Reach::Ring0)),
            "step" => Some((ClockKind::Step, Reach::BothRings)),
            STEP_IN_RING_0 => Some((ClockKind::Step, Reach::Ring0)),
            _ => None,
        }
    }
}

impl std::fmt::Display for Strategy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.clock, self.window_exits) {
            (ClockKind::None, false) => formatter.write_str("at exits"),
            (ClockKind::None, true) => formatter.write_str("at exits, IRQ windows among them"),
            _ => write!(
                formatter,
                "at exits, and at instructions by the clock `{}`",
                self.clock_name()
            ),
        }
    }
}

impl Request {
    /// What has to be known of the host to choose: no more than this is measured.
    #[must_use]
    pub fn depends_on(&self) -> Vec<Property> {
        let mut properties = vec![Property::PortsOfRing3, Property::Determinism];
        match self.clock {
            None | Some(ClockKind::None) => {}
            Some(clock) => properties.extend(Ring::BOTH.map(|ring| Property::Clock(clock, ring))),
        }
        if self.window_exits {
            properties.extend(Ring::BOTH.map(Property::Window));
        }
        if self.kernel {
            properties.push(Property::Instructions);
        }
        if self.live {
            properties.extend([Property::DirtyLog, Property::FirstWriteCost]);
        }
        properties
    }

    /// Chooses.
    ///
    /// # Errors
    /// [`HostError::Property`]: the host was not found to do what was asked for.
    pub fn choose(&self, findings: &[Finding]) -> Result<Strategy, HostError> {
        need(findings, Property::PortsOfRing3, &[Judgement::Yes], "every guest")?;
        need(findings, Property::Determinism, &[Judgement::Yes], "every guest")?;
        if self.kernel {
            need(findings, Property::Instructions, &[Judgement::Yes], KERNEL_OPTION)?;
        }
        if self.live {
            let user = "every guest that runs live";
            need(findings, Property::DirtyLog, &[Judgement::Yes], user)?;
        }
        if self.window_exits {
            for ring in Ring::BOTH {
                need(
                    findings,
                    Property::Window(ring),
                    &[Judgement::Yes],
                    "--window-exits",
                )?;
            }
        }
        let (clock, reach) = match self.clock {
            None | Some(ClockKind::None) => (ClockKind::None, Reach::Ring0),
            Some(clock) => (clock, self.choose_reach(clock, findings)?),
        };
        Ok(Strategy {
            clock,
            reach,
            window_exits: self.window_exits,
        })
    }

    fn choose_reach(&self, clock: ClockKind, findings: &[Finding]) -> Result<Reach, HostError> {
        let user = format!("--clock {clock}");
        let (kernel, programs) = (
            Property::Clock(clock, Ring::Zero),
            Property::Clock(clock, Ring::Three),
        );
        need(findings, kernel, &[Judgement::Yes], &user)?;
        if self.reach == Some(Reach::BothRings) {
            need(findings, programs, &[Judgement::Yes], &user)?;
        }
        // Silent there is harmless; wrong, or not known, is not.
        need(findings, programs, &[Judgement::Yes, Judgement::No], &user)?;
        let here = match judgement_of(findings, programs) {
            Judgement::Yes => Reach::BothRings,
            _ => Reach::Ring0,
        };
        Ok(self.reach.map_or(here, |wanted| wanted.min(here)))
    }

    /// Why `strategy` was chosen, for people.
    #[must_use]
    pub fn reason(&self, strategy: &Strategy) -> String {
        let clock = match (self.clock, strategy.reach) {
            (None, _) => {
                "`auto`: exits are exact here, and every instruction clock there is makes them dearer"
            }
            (Some(ClockKind::None), _) => "asked for, and exits are exact here",
            (Some(_), Reach::BothRings) => "asked for, and exact here in both rings",
            (Some(_), Reach::Ring0) => "asked for, and exact here in ring 0; in ring 3 events enter at exits",
        };
        let windows = if strategy.window_exits {
            "; IRQ windows were asked for, and are exact here"
        } else {
            ""
        };
        format!("{clock}{windows}")
    }
}

fn need(
    findings: &[Finding],
    property: Property,
    accepted: &[Judgement],
    user: &str,
) -> Result<(), HostError> {
    let finding = findings.iter().find(|finding| finding.property == property);
    let judgement = finding.map_or(Judgement::Untried, |finding| finding.judgement);
    if accepted.contains(&judgement) {
        return Ok(());
    }
    Err(HostError::Property {
        property: property.to_string(),
        user: user.to_owned(),
        judgement: judgement.word(),
        seen: finding.map_or_else(
            || "it was not measured".to_owned(),
            |finding| finding.seen.clone(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(property: Property, judgement: Judgement) -> Finding {
        Finding {
            property,
            judgement,
            tried: String::new(),
            seen: format!("what was seen of {property}"),
            follows: String::new(),
        }
    }

    /// A host that does everything right, but for these.
    fn host_but(others: &[(Property, Judgement)]) -> Vec<Finding> {
        let all = [ClockKind::Step, ClockKind::Statistic]
            .into_iter()
            .flat_map(|clock| Ring::BOTH.map(|ring| Property::Clock(clock, ring)))
            .chain(Ring::BOTH.map(Property::Window))
            .chain([Property::PortsOfRing3, Property::Determinism, Property::DirtyLog]);
        all.map(|property| {
            let other = others.iter().find(|(named, _)| *named == property);
            finding(
                property,
                other.map_or(Judgement::Yes, |(_, judgement)| *judgement),
            )
        })
        .collect()
    }

    fn clock(clock: ClockKind) -> Request {
        Request {
            clock: Some(clock),
            ..Request::default()
        }
    }

    fn windows() -> Request {
        Request {
            window_exits: true,
            ..Request::default()
        }
    }

    fn expect_refused(request: Request, findings: &[Finding], property: Property) {
        let why = request.choose(findings).unwrap_err();
        let text = why.to_string();
        assert!(text.contains(&property.to_string()), "{text}");
        assert!(text.contains(&format!("what was seen of {property}")), "{text}");
    }

    #[test]
    fn auto_takes_exits_and_depends_on_nothing_else() {
        let auto = Request::default();
        assert_eq!(auto.depends_on(), [Property::PortsOfRing3, Property::Determinism]);
        assert_eq!(auto.choose(&host_but(&[])).unwrap(), Strategy::EXITS);
        let clockless = host_but(&[
            (Property::Clock(ClockKind::Step, Ring::Zero), Judgement::Wrong),
            (Property::Window(Ring::Zero), Judgement::Wrong),
        ]);
        assert_eq!(auto.choose(&clockless).unwrap(), Strategy::EXITS);
    }

    #[test]
    fn a_host_on_which_two_runs_differ_runs_nothing() {
        for judgement in [Judgement::Wrong, Judgement::No, Judgement::Untried] {
            let host = host_but(&[(Property::Determinism, judgement)]);
            expect_refused(Request::default(), &host, Property::Determinism);
        }
        let host = host_but(&[(Property::PortsOfRing3, Judgement::No)]);
        expect_refused(clock(ClockKind::None), &host, Property::PortsOfRing3);
    }

    #[test]
    fn a_dirty_log_that_is_not_exact_runs_nothing_live_and_replays() {
        let live = Request {
            live: true,
            ..Request::default()
        };
        assert!(live.depends_on().contains(&Property::DirtyLog));
        assert!(!Request::default().depends_on().contains(&Property::DirtyLog));
        assert_eq!(live.choose(&host_but(&[])).unwrap(), Strategy::EXITS);
        for judgement in [Judgement::Wrong, Judgement::No, Judgement::Untried] {
            let host = host_but(&[(Property::DirtyLog, judgement)]);
            expect_refused(live, &host, Property::DirtyLog);
            assert_eq!(Request::default().choose(&host).unwrap(), Strategy::EXITS);
        }
    }

    #[test]
    fn a_clock_that_is_not_right_in_ring_0_is_refused_by_its_property() {
        for kind in [ClockKind::Step, ClockKind::Statistic] {
            for judgement in [Judgement::Wrong, Judgement::No, Judgement::Untried] {
                let property = Property::Clock(kind, Ring::Zero);
                expect_refused(clock(kind), &host_but(&[(property, judgement)]), property);
            }
        }
    }

    #[test]
    fn in_ring_3_a_clock_may_be_silent_but_not_wrong() {
        let property = Property::Clock(ClockKind::Step, Ring::Three);
        let silent = clock(ClockKind::Step).choose(&host_but(&[(property, Judgement::No)]));
        assert_eq!(silent.unwrap().clock_name(), "step in ring 0");
        for judgement in [Judgement::Wrong, Judgement::Untried] {
            expect_refused(
                clock(ClockKind::Step),
                &host_but(&[(property, judgement)]),
                property,
            );
        }
        let everywhere = clock(ClockKind::Step).choose(&host_but(&[])).unwrap();
        assert_eq!(everywhere.clock_name(), "step");
    }

    #[test]
    fn a_log_stepped_in_ring_0_replays_where_both_are_stepped_and_not_the_other_way() {
        let as_recorded = |reach| Request {
            reach: Some(reach),
            ..clock(ClockKind::Step)
        };
        let both = host_but(&[]);
        let property = Property::Clock(ClockKind::Step, Ring::Three);
        let ring_0 = host_but(&[(property, Judgement::No)]);
        let replay = as_recorded(Reach::Ring0).choose(&both).unwrap();
        assert_eq!(replay.clock_name(), "step in ring 0");
        expect_refused(as_recorded(Reach::BothRings), &ring_0, property);
    }

    #[test]
    fn windows_are_positions_only_where_they_are_exact_in_both_rings() {
        let strategy = windows().choose(&host_but(&[])).unwrap();
        assert!(strategy.window_exits);
        for ring in Ring::BOTH {
            let property = Property::Window(ring);
            assert!(windows().depends_on().contains(&property));
            expect_refused(windows(), &host_but(&[(property, Judgement::Wrong)]), property);
        }
    }

    #[test]
    fn what_was_not_measured_is_not_there() {
        let why = Request::default().choose(&[]).unwrap_err().to_string();
        assert!(why.contains("it was not measured"), "{why}");
    }

    #[test]
    fn the_names_of_clocks_lead_back_to_them() {
        for (clock, reach) in [
            (ClockKind::None, Reach::Ring0),
            (ClockKind::Statistic, Reach::Ring0),
            (ClockKind::Step, Reach::Ring0),
            (ClockKind::Step, Reach::BothRings),
        ] {
            let strategy = Strategy {
                clock,
                reach,
                window_exits: false,
            };
            assert_eq!(
                Strategy::clock_named(&strategy.clock_name()),
                Some((clock, reach))
            );
        }
        assert_eq!(Strategy::clock_named("sundial"), None);
    }
}
