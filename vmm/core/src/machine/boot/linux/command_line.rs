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

/// Reason why the parameter `name` with this value, empty for none, cannot be had. Names have `_` where
/// they may have `-`.
fn refusal(name: &str, value: &str) -> Option<&'static str> {
    Some(match name {
        "lapic" => "there is no local APIC",
        "apic" | "x2apic" | "x2apic_phys" => "there is no APIC",
        "acpi" if value.starts_with("off") => "its devices are announced by ACPI",
        "maxcpus" | "nr_cpus" | "possible_cpus" if value != "1" => "there is one processor",
        "crashkernel" => "a kernel that another starts is not rewritten",
        "tsc" => "the time-stamp counter is hidden",
        "clocksource" if value.starts_with("tsc") => "the time-stamp counter is hidden",
        "panic" if !value.starts_with('-') => "a kernel that panics ends the machine at once",
        "reboot" => "a guest's own restart is told from that of a panic by how it is asked for",
        _ => return None,
    })
}

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
    for parameter in parameters(said).take_while(|parameter| *parameter != "--") {
        let plain = parameter.replace('"', "");
        let (name, value) = plain.split_once('=').unwrap_or((&plain, ""));
        if let Some(why) = refusal(&name.replace('-', "_"), value) {
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

/// The parameters of a command line, with their quotes: space between two quotes parts nothing
/// (`next_arg` in Linux's lib/cmdline.c).
fn parameters(said: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    said.split(move |character: char| {
        is_quoted ^= character == '"';
        !is_quoted && character.is_ascii_whitespace()
    })
    .filter(|parameter| !parameter.is_empty())
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
            ("\"lapic\"", "no local APIC"),
            ("apic=debug", "no APIC"),
            ("x2apic", "no APIC"),
            ("x2apic_phys", "no APIC"),
            ("acpi=off", "announced by ACPI"),
            ("maxcpus=2", "one processor"),
            ("nr-cpus=2", "one processor"),
            ("possible_cpus=\"2\"", "one processor"),
            ("crashkernel=64M", "not rewritten"),
            ("tsc=reliable", "hidden"),
            ("clocksource=tsc", "hidden"),
            ("panic=0", "ends the machine"),
            ("panic", "ends the machine"),
            ("reboot=warm", "told from that of a panic"),
            ("a=\"b c\" reboot=t", "told from that of a panic"),
        ] {
            let refused = complete(said).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        // A program's own arguments are no parameters of the kernel.
        assert!(complete("init=/bin/sh -- lapic").is_ok());
        for said in [
            "clocksource=acpi_pm",
            "maxcpus=1",
            "panic=-1",
            "run=\"grep lapic /proc/cmdline\"",
            "x2apicks",
        ] {
            assert!(complete(said).is_ok(), "{said}");
        }
    }
}
