//! The command line of a kernel: what every one is given, and what a user may not say.

/// Parameters with which Linux runs on the PC board, each with its reason.
pub const DEFAULTS: [(&str, &str); 14] = [
    ("console=ttyS0", "the only console"),
    ("pci=off", "there is no PCI"),
    ("noapic", "interrupts come by the 8259A pair"),
    ("nolapic", "there is no local APIC"),
    ("lpj=4000000", "there is no counter to calibrate delays with"),
    ("no_timer_check", "the timer works"),
    ("clocksource=acpi_pm", "the one whose reads exit"),
    ("i8042.noaux", "there is no keyboard controller"),
    ("i8042.nokbd", "there is no keyboard controller"),
    ("io_delay=none", "every port access exits"),
    (
        "random.trust_cpu=off",
        "no processor's random numbers are to be had",
    ),
    (
        "randomize_kstack_offset=off",
        "it reads the time-stamp counter at every system call",
    ),
    ("panic=-1", "a kernel that panics ends the machine at once"),
    (
        "reboot=panic_warm",
        "a restart by a panic is told from the guest's own",
    ),
];

/// Parameters that ask for what there is not: the beginning of the parameter, and why.
const REFUSED: [(&str, &str); 11] = [
    ("lapic", "there is no local APIC"),
    ("apic=", "there is no APIC"),
    ("x2apic", "there is no APIC"),
    ("x2apic_phys", "there is no APIC"),
    ("acpi=off", "its devices are announced by ACPI"),
    ("maxcpus=", "there is one processor"),
    ("nr_cpus=", "there is one processor"),
    ("possible_cpus=", "there is one processor"),
    ("crashkernel=", "a kernel that another starts is not rewritten"),
    ("tsc=", "the time-stamp counter is hidden"),
    ("clocksource=tsc", "the time-stamp counter is hidden"),
];

/// A parameter that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest command line has `{parameter}`, and {why}")]
pub struct Contradiction {
    /// The parameter.
    pub parameter: String,
    /// Reason why it cannot be had.
    pub why: &'static str,
}

/// The whole command line where a user has said `said`: the defaults, and his own behind them, so
/// that he has the last word where that can be.
///
/// # Errors
/// [`Contradiction`].
pub fn complete(said: &str) -> Result<String, Contradiction> {
    for parameter in said.split_ascii_whitespace().take_while(|word| *word != "--") {
        let refused = REFUSED.iter().find(|(name, _)| {
            let has_value = name.contains('=');
            parameter == *name || has_value && parameter.starts_with(name)
        });
        if let Some((_, why)) = refused {
            let parameter = parameter.to_owned();
            return Err(Contradiction { parameter, why });
        }
    }
    let defaults = DEFAULTS.map(|(parameter, _)| parameter);
    let said = said.trim();
    Ok(defaults
        .into_iter()
        .chain((!said.is_empty()).then_some(said))
        .collect::<Vec<_>>()
        .join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_says_comes_last() {
        let whole = complete(" root=/dev/vda  quiet ").unwrap();
        assert!(whole.starts_with("console=ttyS0 "), "{whole}");
        assert!(whole.ends_with(" root=/dev/vda  quiet"), "{whole}");
        assert!(!complete("").unwrap().ends_with(' '));
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_the_reason() {
        for (said, why) in [
            ("quiet lapic", "no local APIC"),
            ("maxcpus=2", "one processor"),
            ("crashkernel=64M", "not rewritten"),
            ("clocksource=tsc", "hidden"),
        ] {
            let refused = complete(said).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        // A program's own arguments are no parameters of the kernel.
        assert!(complete("init=/bin/sh -- lapic").is_ok());
        assert!(complete("clocksource=acpi_pm").is_ok());
    }
}
