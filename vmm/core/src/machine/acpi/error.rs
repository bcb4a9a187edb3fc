//! Why a board has no ACPI tables.

/// Reason why a board has no tables.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcpiError {
    /// A device that the tables are about is not there.
    #[error("ACPI tables need {what}, which the board does not have")]
    Missing {
        /// The device.
        what: &'static str,
    },
    /// A device is where no resource of a table can say that it is.
    #[error("ACPI tables cannot say where the board has `{name}`")]
    Place {
        /// The device.
        name: &'static str,
    },
    /// The tables do not fit.
    #[error("the ACPI tables have {bytes} bytes; {bytes_max} is the most")]
    Length {
        /// Their length.
        bytes: u64,
        /// The room for them.
        bytes_max: u64,
    },
    /// There is no such memory.
    #[error("the ACPI tables cannot be written at {address:#x}: {why}")]
    Memory {
        /// Address that they would have.
        address: u64,
        /// The reason.
        why: String,
    },
}
