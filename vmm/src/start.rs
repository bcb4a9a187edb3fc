//! From the command line to an exit status.

use crate::cli::{Alone, Cli, Command, LogFormat, MachineArguments, Talk, full_version};
use crate::commands::record::Files;
use crate::commands::verify::Wanted;
use crate::commands::{disk, inspect, log, machines, record, replay, run, switchover, verify};
use crate::printing::print_text;
use crate::settings::Settings;
use crate::status::{CommandError, Status};
use clap::Parser;
use clap::error::ErrorKind;
use lockstep_demo::{DemoArguments, DemoError};
use lockstep_host::configuration::{Configuration, GuestFiles, Mode};
use lockstep_host::error::RunError;
use lockstep_host::pair::begin::{Side, begin};
use lockstep_kvm::Host;
use lockstep_logging_channel::Existing;
use lockstep_process::console::{self, TerminalGuard};
use lockstep_process::descriptors;
use lockstep_process::signals::{self, Signals};
use lockstep_process::writing::standard;
use lockstep_switch::SwitchArguments;
use std::error::Error;
use std::future::Future;
use tracing_subscriber::EnvFilter;

/// Carries out what the command line says.
#[must_use]
pub fn main() -> Status {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::DisplayVersion => {
            return print_start(&full_version());
        }
        Err(error) => return answer(&error),
    };
    // Before any thread is started.
    let watched = signals::watch(given_up(&cli.command));
    listen_to(&cli.talk);
    if reads_console(&cli.command) {
        console::keep_stops(standard::error_is_terminal());
    }
    let outcome = watched
        .map_err(CommandError::other("cannot listen for signals"))
        .and_then(|()| carry_out(cli.command));
    console::restore();
    let status = outcome.unwrap_or_else(|error| {
        report(&error, error.hint());
        error.status()
    });
    standard::flush();
    status
}

/// Prints what clap has to say instead of a command: help, the version, or what is wrong with the
/// command line.
fn answer(error: &clap::Error) -> Status {
    let text = |terminal| {
        let text = error.render();
        if terminal && !refuses_colour() {
            text.ansi().to_string()
        } else {
            text.to_string()
        }
    };
    if error.use_stderr() {
        standard::print_error(&text(standard::error_is_terminal()));
        return Status::Usage;
    }
    print_start(&text(standard::output_is_terminal()))
}

/// Prints what was asked for instead of a command.
fn print_start(text: &str) -> Status {
    let printed = print_text(text, Status::Success);
    printed.unwrap_or_else(|why| {
        standard::print_error(&format!("error: {why}\n"));
        why.status()
    })
}

fn listen_to(talk: &Talk) {
    let level = match (talk.quiet, talk.verbose) {
        (true, _) => "error",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    standard::begin(talk.log_format == LogFormat::Json);
    let subscriber = tracing_subscriber::fmt()
        .with_writer(|| standard::Messages)
        // It would print what it cannot write, and panic where that cannot be printed.
        .log_internal_errors(false)
        .with_env_filter(EnvFilter::new(level))
        .with_target(false)
        .with_ansi(wants_colour());
    match talk.log_format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
}

/// The whole chain once, numbered, with a hint.
fn report(error: &dyn Error, hint: Option<&str>) {
    let mut lines = format!("{error}");
    let mut source = error.source();
    let mut number = 1;
    while let Some(cause) = source {
        lines.push_str(&format!("\n  {number}: {cause}"));
        source = cause.source();
        number += 1;
    }
    if let Some(hint) = hint {
        lines.push_str(&format!("\n  hint: {hint}"));
    }
    tracing::error!("{lines}");
}

/// True for the commands whose guest reads standard input.
fn reads_console(command: &Command) -> bool {
    matches!(
        command,
        Command::Run(_)
            | Command::Record { .. }
            | Command::Verify { log: None, .. }
            | Command::Primary(_)
            | Command::Backup(_)
            | Command::Replica { .. }
    )
}

/// The status of `command` when a signal ends it before it has begun. What was to run until it is
/// stopped has been stopped; what was to give an answer has given none.
fn given_up(command: &Command) -> Status {
    match command {
        Command::Run(_)
        | Command::Record { .. }
        | Command::Primary(_)
        | Command::Backup(_)
        | Command::Replica { .. }
        | Command::Switch(_) => Status::Success,
        Command::Replay { .. }
        | Command::Verify { .. }
        | Command::Demo(_)
        | Command::Doctor(_)
        | Command::List(_)
        | Command::Status { .. }
        | Command::Switchover(_)
        | Command::Inspect(_)
        | Command::Log(_)
        | Command::Disk(_) => Status::Failure,
    }
}

/// Signals are listened for before the terminal is taken: one that came in between would leave it
/// taken.
fn carry_out(command: Command) -> Result<Status, CommandError> {
    if !matches!(command, Command::Inspect(_) | Command::Log(_) | Command::Disk(_)) {
        descriptors::provide()?;
    }
    match command {
        Command::Run(Alone(machine)) => on_machine(machine, async |guest, configuration| {
            let mut signals = Signals::listen();
            let _terminal = TerminalGuard::new(true);
            run::run(&guest, &configuration, &mut signals).await
        }),
        Command::Record {
            machine: Alone(machine),
            log,
            overwrite,
            snapshot_every,
        } => on_machine(machine, async move |guest, configuration| {
            refuse_checkpoints("record", &configuration)?;
            let mut signals = Signals::listen();
            let _terminal = TerminalGuard::new(true);
            let existing = if overwrite {
                Existing::Overwrite
            } else {
                Existing::Refuse
            };
            let files = Files {
                log: &log.unwrap_or_default(),
                existing,
                snapshot_every,
            };
            record::record(&guest, files, &configuration, &mut signals).await
        }),
        Command::Replay {
            machine: Alone(machine),
            log,
            from,
        } => on_machine(machine, async move |guest, configuration| {
            refuse_checkpoints("replay", &configuration)?;
            replay::replay(&guest, &log.unwrap_or_default(), from, &configuration).await
        }),
        Command::Verify {
            machine: Alone(machine),
            runs,
            log,
            snapshot_every,
        } => on_machine(machine, async move |guest, configuration| {
            refuse_checkpoints("verify", &configuration)?;
            let mut signals = Signals::listen();
            let _terminal = TerminalGuard::new(true);
            let wanted = Wanted {
                log,
                runs,
                snapshot_every,
            };
            verify::verify(&guest, &wanted, &configuration, &mut signals).await
        }),
        Command::Primary(machine) => on_machine(machine, async |guest, configuration| {
            let signals = Signals::listen();
            let _terminal = TerminalGuard::new(true);
            begin(Side::Primary, &guest, &configuration, signals).await
        }),
        Command::Backup(machine) => on_machine(machine, async |guest, configuration| {
            let signals = Signals::listen();
            let _terminal = TerminalGuard::new(false);
            begin(Side::Backup, &guest, &configuration, signals).await
        }),
        Command::Replica { machine, afresh } => on_machine(machine, async move |guest, configuration| {
            let signals = Signals::listen();
            let _terminal = TerminalGuard::new(false);
            begin(Side::Replica { afresh }, &guest, &configuration, signals).await
        }),
        Command::List(store) => in_runtime(machines::list(&store)),
        Command::Status { name, store } => in_runtime(machines::status(&name, &store)),
        Command::Switchover(arguments) => in_runtime(async {
            let mut signals = Signals::listen();
            switchover::switchover(&arguments, &mut signals).await
        }),
        Command::Switch(arguments) => switch(&arguments),
        Command::Demo(arguments) => demo(&arguments),
        Command::Doctor(arguments) => crate::doctor::doctor(&arguments),
        Command::Inspect(arguments) => inspect::inspect(&arguments),
        Command::Log(command) => log::log(&command),
        Command::Disk(command) => disk::disk(&command),
    }
}

/// Refuses the mode in which a log has no replay.
fn refuse_checkpoints(command: &str, configuration: &Configuration) -> Result<(), RunError> {
    match configuration.mode {
        Mode::Replay | Mode::ReplayThenCheckpoint => Ok(()),
        Mode::Checkpoint => {
            let why = format!("there is nothing to {command} in mode checkpoint: only a pair has it");
            Err(RunError::setting("mode", why))
        }
    }
}

fn switch(arguments: &SwitchArguments) -> Result<Status, CommandError> {
    lockstep_switch::run(arguments)
        .map(|()| Status::Success)
        .map_err(CommandError::Switch)
}

/// Gives a demonstration. The host is asked here: the processes of one would only say it later.
fn demo(arguments: &DemoArguments) -> Result<Status, CommandError> {
    let given = |outcome: Result<Status, DemoError>| {
        outcome.unwrap_or_else(|why| {
            report(&why, why.hint());
            why.status()
        })
    };
    if let Err(why) = arguments.check() {
        return Ok(given(Err(why)));
    }
    Host::open().map_err(RunError::Host)?;
    Ok(given(lockstep_demo::run(arguments)))
}

/// Resolves the settings, and runs a command on the guest and what holds.
fn on_machine<F>(
    machine: MachineArguments,
    command: impl FnOnce(GuestFiles, Configuration) -> F,
) -> Result<Status, CommandError>
where
    F: Future<Output = Result<Status, RunError>>,
{
    let file = machine
        .config
        .as_deref()
        .map(Settings::read)
        .transpose()?
        .unwrap_or_default();
    let settings = machine.settings.over(file);
    let settings = match machine.kernel {
        Some(_) => settings.over(Settings::of_kernels()),
        None => settings,
    };
    if machine.print_config {
        let text = settings.over(Settings::defaults()).to_toml()?;
        return print_text(&text, Status::Success);
    }
    let configuration = Configuration {
        requalify: machine.requalify,
        ..settings.resolve()?
    };
    let guest = match machine.kernel {
        Some(kernel) => {
            let initrd = machine.initrd;
            GuestFiles::Linux { kernel, initrd }
        }
        // The command line is refused without either, unless it asks for the settings only.
        None => GuestFiles::Image(machine.image.unwrap_or_default()),
    };
    in_runtime(command(guest, configuration))
}

fn in_runtime<E: Into<CommandError>>(
    work: impl Future<Output = Result<Status, E>>,
) -> Result<Status, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CommandError::other("cannot start the runtime"))?;
    let outcome = runtime.block_on(work);
    // A claim may be waiting in storage that does not answer: it must not keep the process.
    runtime.shutdown_background();
    outcome.map_err(E::into)
}

/// Colours are for a terminal, unless its user wants none.
fn wants_colour() -> bool {
    standard::error_is_terminal() && !refuses_colour()
}

/// The convention of no-color.org.
fn refuses_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
