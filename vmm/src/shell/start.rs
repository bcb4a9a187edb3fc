//! From the command line to an exit status.

use super::cli::{Cli, Command, LogFormat, MachineArguments, Talk, full_version};
use super::commands::{log, record, replay, run, verify};
use super::configuration::{Configuration, Settings};
use super::console::{self, TerminalGuard};
use super::pair::{backup, primary};
use super::signals::{self, Signals};
use super::status::{CommandError, Status};
use super::switch::SwitchArguments;
use clap::Parser;
use clap::error::ErrorKind;
use lockstep_logging_channel::Existing;
use std::error::Error;
use std::future::Future;
use std::io::{IsTerminal, Write};
use tracing_subscriber::EnvFilter;

/// Carries out what the command line says.
#[must_use]
pub fn main() -> Status {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::DisplayVersion => {
            // Nothing can be done where standard output is closed.
            let _ = std::io::stdout().write_all(full_version().as_bytes());
            return Status::Success;
        }
        Err(error) => {
            // Nothing can be done where standard error is closed.
            let _ = error.print();
            return if error.use_stderr() {
                Status::Usage
            } else {
                Status::Success
            };
        }
    };
    listen_to(&cli.talk);
    let outcome = signals::watch(given_up(&cli.command))
        .map_err(CommandError::other("cannot listen for signals"))
        .and_then(|()| carry_out(cli.command));
    console::restore();
    outcome.unwrap_or_else(|error| {
        report(&error);
        error.status()
    })
}

fn listen_to(talk: &Talk) {
    let level = match (talk.quiet, talk.verbose) {
        (true, _) => "error",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(EnvFilter::new(level))
        .with_target(false)
        .with_ansi(wants_colour());
    match talk.log_format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
}

/// The whole chain once, numbered, with a hint.
fn report(error: &CommandError) {
    let mut lines = format!("{error}");
    let mut source = error.source();
    let mut number = 1;
    while let Some(cause) = source {
        lines.push_str(&format!("\n  {number}: {cause}"));
        source = cause.source();
        number += 1;
    }
    if let Some(hint) = error.hint() {
        lines.push_str(&format!("\n  hint: {hint}"));
    }
    tracing::error!("{lines}");
}

/// The status of `command` when a signal ends it before it has begun. What was to run until it is stopped has been stopped; what was to give
/// an answer has given none.
fn given_up(command: &Command) -> Status {
    match command {
        Command::Run(_)
        | Command::Record { .. }
        | Command::Primary(_)
        | Command::Backup(_)
        | Command::Switch(_) => Status::Success,
        Command::Replay { .. }
        | Command::Verify { .. }
        | Command::Demo(_)
        | Command::Doctor(_)
        | Command::Log(_) => Status::Failure,
    }
}

/// Signals are listened for before the terminal is taken: one that came in between would leave it taken.
fn carry_out(command: Command) -> Result<Status, CommandError> {
    match command {
        Command::Run(machine) => on_machine(machine, async |image, configuration| {
            let mut signals = Signals::listen();
            let _terminal = TerminalGuard::take();
            run::run(&image, &configuration, &mut signals).await
        }),
        Command::Record {
            machine,
            log,
            overwrite,
        } => on_machine(machine, async move |image, configuration| {
            let mut signals = Signals::listen();
            let _terminal = TerminalGuard::take();
            let existing = if overwrite {
                Existing::Overwrite
            } else {
                Existing::Refuse
            };
            record::record(
                &image,
                &log.unwrap_or_default(),
                existing,
                &configuration,
                &mut signals,
            )
            .await
        }),
        Command::Replay { machine, log } => on_machine(machine, async move |image, configuration| {
            replay::replay(&image, &log.unwrap_or_default(), &configuration).await
        }),
        Command::Verify { machine, runs } => on_machine(machine, async move |image, configuration| {
            verify::verify(&image, runs, &configuration).await
        }),
        Command::Primary(machine) => on_machine(machine, async |image, configuration| {
            let signals = Signals::listen();
            let _terminal = TerminalGuard::take();
            primary::primary(&image, &configuration, signals).await
        }),
        Command::Backup(machine) => on_machine(machine, async |image, configuration| {
            backup::backup(&image, &configuration).await
        }),
        Command::Switch(arguments) => switch(&arguments),
        Command::Demo(arguments) => super::demo::run(&arguments).map_err(CommandError::Demo),
        Command::Doctor(arguments) => super::doctor::doctor(&arguments),
        Command::Log(command) => log::log(&command),
    }
}

fn switch(arguments: &SwitchArguments) -> Result<Status, CommandError> {
    super::switch::run(arguments)
        .map(|()| Status::Success)
        .map_err(CommandError::Switch)
}

/// Resolves the settings, and runs a command on the image and what holds.
fn on_machine<F>(
    machine: MachineArguments,
    command: impl FnOnce(std::path::PathBuf, Configuration) -> F,
) -> Result<Status, CommandError>
where
    F: Future<Output = Result<Status, CommandError>>,
{
    let file = machine
        .config
        .as_deref()
        .map(Settings::read)
        .transpose()?
        .unwrap_or_default();
    let settings = machine.settings.over(file);
    if machine.print_config {
        print!("{}", settings.over(Settings::defaults()).to_toml()?);
        return Ok(Status::Success);
    }
    let configuration = Configuration {
        requalify: machine.requalify,
        ..settings.resolve()?
    };
    // The command line is refused without an image, unless it asks for the settings only.
    in_runtime(command(machine.image.unwrap_or_default(), configuration))
}

fn in_runtime<F: Future<Output = Result<Status, CommandError>>>(work: F) -> Result<Status, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CommandError::other("cannot start the runtime"))?;
    let outcome = runtime.block_on(work);
    // A claim may be waiting in storage that does not answer: it must not keep the process.
    runtime.shutdown_background();
    outcome
}

/// Colours are for a terminal, unless its user wants none (the convention of no-color.org).
fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !refused
}
