//! Digests of the machine, by which a replay is compared.

use super::{Machine, MachineError};
use crate::machine::cpu::Vcpu;
use crate::machine::cpu::saved::PROCESSOR_PART;
use crate::machine::devices::saved::{NoDigest, part};
use crate::machine::door::Door;
use crate::machine::memory;
use lockstep_logging_channel::PartDigest;

impl<V: Vcpu> Machine<V> {
    pub(super) fn digest_at_interval(&mut self, door: &mut dyn Door) -> Result<(), MachineError> {
        let interval = self.policy.digest_interval_exits;
        self.digest_due |= interval != 0 && self.exits.is_multiple_of(interval);
        if !self.digest_due || !self.vcpu.is_whole()? {
            return Ok(());
        }
        self.digest_due = false;
        let mut parts = vec![part("registers", &self.vcpu.registers()?)?];
        parts.extend(self.devices.digests()?);
        parts.push(part(PROCESSOR_PART, &self.vcpu.compared()?)?);
        let point = self.point();
        Ok(door.digests(point, parts)?)
    }

    /// Digests of everything; none within an instruction, where registers are not the same on every
    /// host.
    pub(super) fn final_digests(&mut self) -> Result<Vec<PartDigest>, MachineError> {
        if !self.vcpu.is_whole()? {
            return Ok(Vec::new());
        }
        let vcpu = self.vcpu.save()?;
        let mut parts = vec![part("registers", &vcpu.digested())?];
        parts.extend(self.devices.digests()?);
        let name = "memory".to_owned();
        parts.push(match memory::digest(&self.memory) {
            Ok(digest) => PartDigest { part: name, digest },
            Err(why) => return Err(NoDigest { part: name, why }.into()),
        });
        parts.push(part(PROCESSOR_PART, &vcpu.compared())?);
        Ok(parts)
    }
}
