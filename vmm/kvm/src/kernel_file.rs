//! What the kernel says of itself in files.

/// What a host does not say.
pub const UNKNOWN: &str = "unknown";

/// The first line of a file of the kernel's, or [`UNKNOWN`].
#[must_use]
pub fn first_line(path: &str) -> String {
    std::fs::read_to_string(path)
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| UNKNOWN.to_owned())
}
