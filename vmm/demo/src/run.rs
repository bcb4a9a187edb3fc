//! A demonstration from its start to its verdict.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::client::{self, Connection};
use super::command_lines::{Guest, Sides};
use super::control::Control;
use super::ending::{bring_down, read_everything_back};
use super::load::LoadResult;
use super::progress::{self, say};
use super::rounds::{Course, Round, direct, tell};
use super::scene::Scene;
use super::verdict::{Evidence, Verdict};
use super::workload::Workload;
use super::{DemoArguments, DemoError, Kill, KillSignal, Mode};
use lockstep_process::signals::Signals;
use lockstep_process::status::Status;

/// The guest image, from the root of the project.
const IMAGE: &str = "guest-images/build/key-value.elf";

/// Levels above the executable up to which the root of the project is looked for:
/// `target/release/lockstep` is three below.
const ANCESTORS: usize = 4;

/// Gives the demonstration; prints its timeline and verdict to standard output. [`Status::Success`]
/// only if nothing was lost, broken, wrong or diverged.
///
/// # Errors
/// It cannot be given: the error says what is missing, and how to get it.
pub fn run(arguments: &DemoArguments) -> Result<Status, DemoError> {
    let guest = find_guest(arguments)?;
    let failed = |source| DemoError::Runtime { source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    runtime.block_on(async {
        let mut signals = Signals::listen();
        let mut scene = Scene::prepare(arguments.keep)?;
        let outcome = tokio::select! {
            outcome = perform(arguments, guest, &mut scene) => outcome,
            () = signals.received() => Err(DemoError::Interrupted),
        };
        progress::clear();
        if let Some(kept) = scene.clear().await {
            tracing::info!("reports and messages are kept in {}", kept.display());
        }
        outcome
    })
}

fn find_guest(arguments: &DemoArguments) -> Result<Guest, DemoError> {
    let (Some(kernel), Some(initrd)) = (&arguments.kernel, &arguments.initrd) else {
        return find_image(arguments).map(Guest::Image);
    };
    if let Some(missing) = [kernel, initrd].into_iter().find(|file| !file.is_file()) {
        return Err(DemoError::LinuxMissing {
            file: missing.clone(),
        });
    }
    Ok(Guest::Linux {
        kernel: kernel.clone(),
        initrd: initrd.clone(),
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

async fn perform(arguments: &DemoArguments, guest: Guest, scene: &mut Scene) -> Result<Status, DemoError> {
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => getrandom::u32()
            .map_err(|error| DemoError::Runtime {
                source: io::Error::other(error),
            })?
            .into(),
    };
    let sides = Sides {
        guest,
        timeout_ms: arguments.timeout_ms,
        transfer_mbit: arguments.transfer_mbit,
        mode: arguments.mode,
        epoch_ms: arguments.epoch_ms,
    };
    let address = scene.start(&sides).await?;
    let mut clients = Vec::new();
    for client in 0..arguments.clients {
        let connection = Connection::open(address)
            .await
            .map_err(|source| DemoError::Client { client, source })?;
        clients.push((connection, Workload::new(seed, client)));
    }
    progress::clear();
    say(&format!(
        "{} clients, seed {seed}{}; {}",
        arguments.clients,
        mode(arguments),
        plan(arguments)
    ));

    let control = Arc::new(Control::default());
    let mut tasks = JoinSet::new();
    for (connection, workload) in clients {
        let control = Arc::clone(&control);
        tasks.spawn(async move { client::drive(connection, workload, &control).await });
    }
    let mut course = tokio::select! {
        course = direct(arguments, &sides, scene, &control) => course?,
        () = progress::show(&control) => Course::default(),
    };
    control.stop();
    let records = tasks.join_all().await;
    let waits = control.take_waits();
    let gap_ns = waits.gap_ns();
    if let Some(last) = course.rounds.last_mut() {
        last.waits = waits;
    }
    let (findings, mut troubles) = read_everything_back(&records, address).await;
    let loss = course.rounds.last().map(|last| last.loss);
    troubles.extend(course.troubles);
    troubles.extend(bring_down(scene, loss.as_ref()).await);

    let stories: Vec<_> = course.rounds.iter().map(Round::story).collect();
    let (load, reports) = (LoadResult::of(records.iter()), scene.reports());
    let evidence = Evidence {
        load: &load,
        findings,
        stories: &stories,
        gap_ns: stories.first().map_or(gap_ns, |first| first.gap_ns),
        reports: &reports,
        troubles: &troubles,
    };
    // The others were told when the next one began.
    stories
        .last()
        .into_iter()
        .for_each(|last| tell(last, arguments.rounds));
    Ok(conclude(arguments, &evidence))
}

fn mode(arguments: &DemoArguments) -> String {
    match (arguments.mode, arguments.epoch_ms) {
        (Mode::Replay, _) => String::new(),
        (Mode::Checkpoint, None) => ", checkpoints".to_owned(),
        (Mode::Checkpoint, Some(epoch_ms)) => format!(", checkpoints every {epoch_ms} ms"),
    }
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
    let loss = format!(
        "{replica} is {what} after {} of {} s",
        seconds(arguments.after),
        seconds(arguments.duration)
    );
    match arguments.rounds {
        1 => loss,
        rounds => format!("{rounds} rounds: {loss}, then a new backup joins"),
    }
}

fn conclude(arguments: &DemoArguments, evidence: &Evidence<'_>) -> Status {
    let verdict = Verdict::of(evidence);
    verdict.lines(evidence).iter().for_each(|line| say(line));
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
