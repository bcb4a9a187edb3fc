//! The processor of this host: what manuals leave open (flags after a multiplication,
//! approximations, errata) differs between models.

/// Vendor, family and model, as Linux names them.
#[must_use]
pub fn processor() -> String {
    named(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn named(cpuinfo: &str) -> String {
    let field = |name: &str| {
        let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        fields
            .into_iter()
            .find(|(key, _)| key.trim() == name)
            .map_or("unknown", |(_, value)| value.trim())
    };
    format!(
        "{} family {} model {}",
        field("vendor_id"),
        field("cpu family"),
        field("model")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_processor_is_named() {
        let text = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: EPYC\n\nprocessor\t: 1\n";
        assert_eq!(named(text), "AuthenticAMD family 25 model 1");
        assert_eq!(named(""), "unknown family unknown model unknown");
    }
}
