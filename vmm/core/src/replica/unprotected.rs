//! The door of a machine that nobody records: it asks the outside, and outputs leave at once.

use super::recorder::{Outside, disk_number_bytes};
use crate::machine::disk::Request;
use crate::machine::door::{Door, DoorError, Horizon, Kick, Kicked, Question, Readiness};
use lockstep_logging_channel::{DeviceId, End, Event, ExecutionPoint, OutputTarget, PartDigest, Value};

/// Lets an output go.
pub type Release = Box<dyn FnMut(OutputTarget, Vec<u8>) -> Result<(), DoorError>>;

/// The door without a log.
pub struct Unprotected<O> {
    outside: O,
    release: Release,
}

impl<O: Outside> Unprotected<O> {
    /// A door to `outside`.
    pub fn new(outside: O, release: Release) -> Self {
        Self { outside, release }
    }
}

impl<O: Outside> Door for Unprotected<O> {
    fn answer(&mut self, _point: ExecutionPoint, question: Question) -> Result<Value, DoorError> {
        self.outside.answer(question)
    }

    fn arrival(
        &mut self,
        _point: ExecutionPoint,
        readiness: Readiness<'_>,
    ) -> Result<Option<Event>, DoorError> {
        self.outside.arrival(readiness)
    }

    fn horizon(&mut self, point: ExecutionPoint) -> Result<Horizon, DoorError> {
        Ok(self.outside.horizon(point))
    }

    fn kicked(&mut self, kick: Kick<'_>) -> Result<Kicked, DoorError> {
        self.outside.kicked(kick)
    }

    fn output(
        &mut self,
        _point: ExecutionPoint,
        target: OutputTarget,
        bytes: Vec<u8>,
    ) -> Result<(), DoorError> {
        (self.release)(target, bytes)
    }

    fn disk_request(
        &mut self,
        _point: ExecutionPoint,
        device: DeviceId,
        request: Request,
    ) -> Result<(), DoorError> {
        let leaves = self.outside.shares_disk(device) && request.operation.leaves();
        let number = disk_number_bytes(request.number);
        self.outside.disk_request(device, request)?;
        if leaves {
            (self.release)(OutputTarget::disk(device), number)?;
        }
        Ok(())
    }

    fn digests(&mut self, _point: ExecutionPoint, _parts: Vec<PartDigest>) -> Result<(), DoorError> {
        Ok(())
    }

    fn end(&mut self, _point: ExecutionPoint, _end: End) -> Result<(), DoorError> {
        Ok(())
    }
}
