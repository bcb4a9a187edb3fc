//! Carrying probes out.

use super::error::QualifyError;
use crate::{Effort, Finding, KvmBench, Property, suite};
use lockstep_kvm::Host;
use std::sync::mpsc;
use std::thread::Builder;

/// Probes `properties` of `host`, in their order, and tells `begins` the place and name of each
/// before it is probed. On a thread of its own, called `name`: kicks and timers belong to the
/// thread whose vCPU they stop.
///
/// # Errors
/// The host starts no thread.
pub fn probe(
    name: &str,
    host: Host,
    properties: Vec<Property>,
    effort: Effort,
    mut begins: impl FnMut(usize, Property),
) -> Result<Vec<Finding>, QualifyError> {
    let (sender, begun) = mpsc::channel();
    let probing = move || {
        let bench = KvmBench::new(host);
        let one = |(number, property)| {
            // Nobody waits any more when the program is going away.
            let _ = sender.send((number, property));
            suite::probe(&bench, property, &effort)
        };
        properties.into_iter().enumerate().map(one).collect::<Vec<_>>()
    };
    let thread = Builder::new().name(name.to_owned()).spawn(probing);
    let thread = thread.map_err(QualifyError::Thread)?;
    for (number, property) in begun {
        begins(number, property);
    }
    thread.join().map_err(|_| QualifyError::NoFinding {
        thread: name.to_owned(),
    })
}
