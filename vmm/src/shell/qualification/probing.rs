//! Carrying probes out.

use crate::kvm::Host;
use crate::shell::error::RunError;
use lockstep_qualify::{Effort, Finding, KvmBench, Property, suite};
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
) -> Result<Vec<Finding>, RunError> {
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
    let thread = thread.map_err(RunError::other("cannot start the measuring thread"))?;
    for (number, property) in begun {
        begins(number, property);
    }
    thread.join().map_err(|_| RunError::Defect {
        what: format!("{name}: a probe ended without a finding"),
    })
}
