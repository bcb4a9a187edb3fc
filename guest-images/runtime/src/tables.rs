//! Descriptors the processor reads, as numbers (Intel SDM volume 3, section 6.14.1).

/// Selector of ring-0 code, where every gate leads.
const RING0_CODE: u128 = 0x08;
/// Present, ring 0, 64-bit interrupt gate: interrupts are off inside.
const INTERRUPT_GATE: u128 = 0x8E;

/// The interrupt gate that leads to `handler`.
#[must_use]
pub const fn gate(handler: u64) -> u128 {
    let handler = handler as u128;
    (handler & 0xffff) | RING0_CODE << 16 | INTERRUPT_GATE << 40 | (handler >> 16) << 48
}

#[cfg(test)]
mod tests {
    use super::gate;

    #[test]
    fn a_gate_holds_its_handler_in_three_parts() {
        let descriptor = gate(0x1122_3344_5566_7788);

        assert_eq!(descriptor, 0x0000_0000_1122_3344_5566_8E00_0008_7788);
    }
}
