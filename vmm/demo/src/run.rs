//! A demonstration from its start to its verdict.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::client::{self, ClientRecord, Connection};
use super::control::Control;
use super::load::LoadResult;
use super::processes::Process;
use super::scene::Scene;
use super::timeline::{Loss, Timeline};
use super::verdict::{Evidence, Verdict};
use super::workload::{Findings, Workload};
use super::{DemoArguments, DemoError, Kill, KillSignal, progress};
use lockstep_process::clock::monotonic_ns;
use lockstep_process::signals::Signals;
use lockstep_process::status::Status;
use lockstep_process::writing::standard;

/// The guest image, from the root of the project.
const IMAGE: &str = "guest-images/build/key-value.elf";

/// Levels above the executable up to which the root of the project is looked for:
/// `target/release/lockstep` is three below.
const ANCESTORS: usize = 4;

/// Gives the demonstration; prints its timeline and verdict to standard output. [`Status::Success`]
/// only if nothing was lost, broken, wrong or diverged.
///
/// # Errors
/// Where it cannot be given: what is missing, and how to get it.
pub fn run(arguments: &DemoArguments) -> Result<Status, DemoError> {
    let image = find_image(arguments)?;
    let failed = |source| DemoError::Runtime { source };
    let executable = std::env::current_exe().map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    runtime.block_on(async {
        let mut signals = Signals::listen();
        let mut scene = Scene::prepare(executable)?;
        let outcome = tokio::select! {
            outcome = perform(arguments, image, &mut scene) => outcome,
            () = signals.received() => Err(DemoError::Interrupted),
        };
        progress::clear();
        if let Some(kept) = scene.clear(arguments.keep).await {
            tracing::info!("reports and messages are kept in {}", kept.display());
        }
        outcome
    })
}

fn find_image(arguments: &DemoArguments) -> Result<PathBuf, DemoError> {
    let looked_for = match &arguments.image {
        Some(image) => vec![image.clone()],
        None => {
            let executable = std::env::current_exe().unwrap_or_default();
            let beside = executable
                .ancestors()
                .skip(1)
                .take(ANCESTORS)
                .map(|ancestor| ancestor.join(IMAGE));
            std::iter::once(PathBuf::from(IMAGE)).chain(beside).collect()
        }
    };
    match looked_for.iter().find(|path| path.is_file()) {
        Some(image) => Ok(image.clone()),
        None => Err(DemoError::ImageMissing { looked_for }),
    }
}

async fn perform(arguments: &DemoArguments, image: PathBuf, scene: &mut Scene) -> Result<Status, DemoError> {
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => getrandom::u32()
            .map_err(|error| DemoError::Runtime {
                source: io::Error::other(error),
            })?
            .into(),
    };
    let address = scene.start(&image, arguments.timeout_ms).await?;
    let mut clients = Vec::new();
    for client in 0..arguments.clients {
        let connection = Connection::open(address)
            .await
            .map_err(|source| DemoError::Client { client, source })?;
        clients.push((connection, Workload::new(seed, client)));
    }
    progress::clear();
    say(&format!(
        "{} clients, seed {seed}; {}",
        arguments.clients,
        plan(arguments)
    ));

    let control = Arc::new(Control::default());
    let mut tasks = JoinSet::new();
    for (connection, workload) in clients {
        let control = Arc::clone(&control);
        tasks.spawn(async move { client::drive(connection, workload, &control).await });
    }
    let loss = tokio::select! {
        loss = direct(arguments, scene, &control) => loss?,
        () = progress::show(&control, arguments.duration) => None,
    };
    control.stop();
    let records = tasks.join_all().await;
    let (findings, mut troubles) = read_everything_back(&records, address).await;
    troubles.extend(bring_down(scene, loss.as_ref()).await);
    Ok(conclude(
        arguments,
        scene,
        &records,
        loss.as_ref(),
        findings,
        &troubles,
    ))
}

fn plan(arguments: &DemoArguments) -> String {
    let seconds = |time: Duration| time.as_secs_f64();
    let replica = match arguments.kill {
        Kill::Primary => "the primary",
        Kill::Backup => "the backup",
        Kill::None => return format!("nothing is lost in {} s", seconds(arguments.duration)),
    };
    let what = match arguments.signal {
        KillSignal::Kill => "killed",
        KillSignal::Stop => "stopped",
    };
    format!(
        "{replica} is {what} after {} of {} s",
        seconds(arguments.after),
        seconds(arguments.duration)
    )
}

/// Lets the load run, and a replica be lost in it.
async fn direct(
    arguments: &DemoArguments,
    scene: &mut Scene,
    control: &Control,
) -> Result<Option<Loss>, DemoError> {
    let start = Instant::now();
    let end = start + arguments.duration;
    if arguments.kill == Kill::None {
        sleep_until(end).await;
        still_a_pair(arguments, scene)?;
        return Ok(None);
    }
    sleep_until(start + arguments.after).await;
    still_a_pair(arguments, scene)?;
    let victim = scene.pair().and_then(|(primary, backup)| match arguments.kill {
        Kill::Primary => Some(primary),
        Kill::Backup => Some(backup),
        Kill::None => None,
    });
    let Some(victim) = victim else {
        return Ok(None);
    };
    let mut loss = lose(arguments, victim);
    control.lost(loss.at_ns);
    if arguments.signal == KillSignal::Stop {
        sleep_until(start + (arguments.after + arguments.duration) / 2).await;
        loss.woken_at_ns = Some(monotonic_ns());
        victim.signal(Signal::SIGCONT);
    }
    sleep_until(end).await;
    Ok(Some(loss))
}

/// Neither replica has given up the other.
fn still_a_pair(arguments: &DemoArguments, scene: &Scene) -> Result<(), DemoError> {
    let (primary, backup) = scene.reports();
    let parted = [("primary", &primary), ("backup", &backup)]
        .into_iter()
        .find_map(|(replica, report)| {
            let cause = report.first("noticed")?.field("cause").unwrap_or_default();
            Some((replica, cause))
        });
    match parted {
        None => Ok(()),
        Some((replica, cause)) => Err(DemoError::Parted {
            replica,
            cause,
            timeout_ms: arguments.timeout_ms,
        }),
    }
}

fn lose(arguments: &DemoArguments, victim: &Process) -> Loss {
    let (process, at_ns) = (victim.id(), monotonic_ns());
    victim.signal(match arguments.signal {
        KillSignal::Kill => Signal::SIGKILL,
        KillSignal::Stop => Signal::SIGSTOP,
    });
    Loss {
        replica: arguments.kill,
        signal: arguments.signal,
        process,
        at_ns,
        woken_at_ns: None,
    }
}

/// Reads what every client wrote, on connections of its own.
async fn read_everything_back(records: &[ClientRecord], address: SocketAddr) -> (Findings, Vec<String>) {
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

/// Ends the pair as a user would, and says what did not end as it must.
async fn bring_down(scene: &mut Scene, loss: Option<&Loss>) -> Vec<String> {
    let Some((primary, backup)) = scene.pair() else {
        return Vec::new();
    };
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
        let ended = victim.ended().await.and_then(|status| status.code());
        if ended != Some(Status::Fenced as i32) {
            let said = victim.messages();
            troubles.push(format!(
                "the woken replica was to end with status 41 and ended with {ended:?}: {said}"
            ));
        }
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

fn exit_code(status: &io::Result<ExitStatus>) -> Option<i32> {
    status.as_ref().ok().and_then(ExitStatus::code)
}

fn conclude(
    arguments: &DemoArguments,
    scene: &Scene,
    records: &[ClientRecord],
    loss: Option<&Loss>,
    findings: Findings,
    troubles: &[String],
) -> Status {
    let load = LoadResult::of(records.iter());
    let (primary, backup) = scene.reports();
    let timeline = loss.map(|loss| {
        let (lost, survivor) = if loss.replica == Kill::Primary {
            (&primary, &backup)
        } else {
            (&backup, &primary)
        };
        Timeline::of(loss, lost, survivor, &load)
    });
    let evidence = Evidence {
        load: &load,
        findings,
        timeline: timeline.as_ref(),
        primary: &primary,
        backup: &backup,
        troubles,
    };
    let verdict = Verdict::of(&evidence);
    timeline
        .iter()
        .flat_map(Timeline::lines)
        .for_each(|line| say(&line));
    verdict.lines(&evidence).iter().for_each(|line| say(line));
    if arguments.json {
        // A structure of numbers always has a JSON form.
        say(&serde_json::to_string(&verdict).unwrap_or_default());
    }
    if verdict.ok {
        Status::Success
    } else {
        Status::Failure
    }
}

/// A line on standard output. Who closed it still gets the exit status.
fn say(line: &str) {
    standard::console().push(format!("{line}\n").as_bytes());
}
