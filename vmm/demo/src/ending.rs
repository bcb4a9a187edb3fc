//! The end of a demonstration: everything is read back, and the pair ends as a user would end it.

use std::io;
use std::net::SocketAddr;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

use super::client::{self, ClientRecord, Connection};
use super::processes::Process;
use super::scene::Scene;
use super::timeline::Loss;
use super::workload::Findings;
use super::{Kill, KillSignal};
use lockstep_process::status::Status;

/// Reads what every client wrote, on connections of its own.
pub(super) async fn read_everything_back(
    records: &[ClientRecord],
    address: SocketAddr,
) -> (Findings, Vec<String>) {
    let (mut findings, mut troubles) = (Findings::default(), Vec::new());
    for (client, record) in records.iter().enumerate() {
        let answers = async {
            let mut connection = Connection::open(address).await?;
            client::read_back(&mut connection, &record.workload).await
        };
        let answers = answers.await.unwrap_or_else(|error: io::Error| {
            troubles.push(format!("what client {client} wrote cannot be read back: {error}"));
            Vec::new()
        });
        findings.add(record.workload.judge(&answers));
    }
    (findings, troubles)
}

/// Ends the pair as a user would, after the `loss` of the last round, and says what did not end as
/// it must.
pub(super) async fn bring_down(scene: &mut Scene, loss: Option<&Loss>) -> Vec<String> {
    let Some((primary, backup)) = scene.pair() else {
        return Vec::new();
    };
    let (primary, backup) = (&mut primary.process, &mut backup.process);
    let Some(loss) = loss else {
        primary.signal(Signal::SIGTERM);
        let (primary_ended, backup_ended) = (primary.end().await, backup.end().await);
        let diverged = |status: &io::Result<ExitStatus>| exit_code(status) == Some(Status::Divergence as i32);
        let named = [
            ("primary", primary_ended, primary),
            ("backup", backup_ended, backup),
        ];
        let diverged = named.iter().filter(|(_, status, _)| diverged(status));
        return diverged
            .map(|(name, _, process)| format!("the {name} diverged: {}", process.messages()))
            .collect();
    };
    let (victim, survivor) = if loss.replica == Kill::Primary {
        (primary, backup)
    } else {
        (backup, primary)
    };
    let mut troubles = Vec::new();
    if loss.signal == KillSignal::Stop {
        troubles.extend(not_fenced(victim).await);
    }
    let ended = survivor.end().await;
    if exit_code(&ended) != Some(Status::Success as i32) {
        troubles.push(format!(
            "the survivor did not end in good order ({ended:?}): {}",
            survivor.messages()
        ));
    }
    troubles
}

/// Complaint about the end of a replica that was stopped and woken: it must be fenced.
pub(super) async fn not_fenced(victim: &mut Process) -> Option<String> {
    let ended = victim.ended().await.and_then(|status| status.code());
    (ended != Some(Status::Fenced as i32)).then(|| {
        let said = victim.messages();
        format!("the woken replica was to end with status 41 and ended with {ended:?}: {said}")
    })
}

fn exit_code(status: &io::Result<ExitStatus>) -> Option<i32> {
    status.as_ref().ok().and_then(ExitStatus::code)
}
