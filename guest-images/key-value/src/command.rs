//! What a command is, and how a request becomes one.

use crate::arguments::Arguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::session::Next;
use crate::store::argument_cost_bytes_max;
use crate::table;

/// What a command does. It writes its reply, or writes nothing and fails.
pub(crate) type Run = fn(&mut Context<'_, '_>, &Arguments<'_>) -> Result<(), Failure>;

/// Bytes of the longest name in the table; a longer one is unknown.
const NAME_BYTES_MAX: usize = 16;

/// Changes the keyspace.
pub(crate) const WRITE: u8 = 1;
/// Only reads the keyspace.
pub(crate) const READ: u8 = 2;
/// May add to the keyspace, so it is refused when that is full.
pub(crate) const DENY_OOM: u8 = 4;
/// Takes the same time whatever the key holds.
pub(crate) const FAST: u8 = 8;
/// About the server, not about keys.
pub(crate) const ADMIN: u8 = 16;

/// The names of the flags, as `COMMAND` shows them.
pub(crate) const FLAG_NAMES: [(u8, &str); 5] = [
    (WRITE, "write"),
    (READ, "readonly"),
    (DENY_OOM, "denyoom"),
    (FAST, "fast"),
    (ADMIN, "admin"),
];

/// What stands behind a name.
#[derive(Clone, Copy)]
pub(crate) enum Action {
    /// A command.
    Call(Run),
    /// Commands named by their second word, sorted, and perhaps one without it.
    Group(Option<Run>, &'static [Command]),
}

/// Which arguments are keys: the first, the last (negative: from the end) and the step; zeros if there is none.
#[derive(Clone, Copy)]
pub(crate) struct Keys(pub(crate) i8, pub(crate) i8, pub(crate) i8);

/// No argument is a key.
pub(crate) const NO_KEYS: Keys = Keys(0, 0, 0);
/// The first argument is a key.
pub(crate) const ONE_KEY: Keys = Keys(1, 1, 1);
/// All arguments are keys.
pub(crate) const ALL_KEYS: Keys = Keys(1, -1, 1);
/// Keys and values alternate.
pub(crate) const PAIRS: Keys = Keys(1, -1, 2);

/// One line of the table.
pub(crate) struct Command {
    /// Its name in lower case. A subcommand's starts with the group's and a bar.
    pub(crate) name: &'static str,
    /// Arguments with the name; negative: at least as many.
    pub(crate) arity: i8,
    /// Flags.
    pub(crate) flags: u8,
    /// Which arguments are keys.
    pub(crate) keys: Keys,
    /// What it does.
    pub(crate) action: Action,
}

impl Command {
    /// A command.
    pub(crate) const fn new(name: &'static str, arity: i8, flags: u8, keys: Keys, run: Run) -> Self {
        Self {
            name,
            arity,
            flags,
            keys,
            action: Action::Call(run),
        }
    }

    fn takes(&self, arguments: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 {
            arguments >= wanted
        } else {
            arguments == wanted
        }
    }

    /// The last word of its name.
    pub(crate) fn last_word(&self) -> &'static str {
        self.name.rsplit('|').next().unwrap_or(self.name)
    }
}

/// Does a request, which has at least one argument.
pub(crate) fn execute(context: &mut Context<'_, '_>, arguments: &Arguments<'_>) {
    let database = &mut *context.database;
    database.commands_processed = database.commands_processed.saturating_add(1);
    if database.keyspace.needs_time() {
        database.keyspace.advance(context.moment.monotonic_ms());
    }
    let (name, outcome) = match resolve(arguments) {
        Ok((command, run)) => (command.name, call(context, arguments, command, run)),
        Err((name, failure)) => (name, Err(failure)),
    };
    if let Err(failure) = outcome {
        context.reply.clear();
        failure.write(&mut context.reply, name, arguments);
    }
}

fn call(
    context: &mut Context<'_, '_>,
    arguments: &Arguments<'_>,
    command: &Command,
    run: Run,
) -> Result<(), Failure> {
    let is_replaying = context.database.is_replaying;
    if command.flags & DENY_OOM != 0 && !is_replaying && !has_room(context, arguments) {
        return Err(Failure::OutOfMemory);
    }
    if command.flags & WRITE != 0 && !is_replaying && context.database.append_only.is_some() {
        run_and_append(context, arguments, command, run)?;
    } else {
        run(context, arguments)?;
    }
    if context.reply.overflowed() {
        // What the command changed is changed, and its reply is lost: as after a broken connection.
        context.next = Next::Close;
        return Err(Failure::ReplyTooLong);
    }
    Ok(())
}

/// Does a command that may change the keyspace, and appends it to the file if it did.
fn run_and_append(
    context: &mut Context<'_, '_>,
    arguments: &Arguments<'_>,
    command: &Command,
    run: Run,
) -> Result<(), Failure> {
    let grows = command.flags & DENY_OOM != 0;
    let time_ms = context.moment.monotonic_ms();
    let database = &mut *context.database;
    if let Some(file) = &mut database.append_only
        && !file.make_room(&database.keyspace, time_ms, arguments, grows)
    {
        return Err(Failure::FILE_FULL);
    }
    let before = database.keyspace.changes();
    let _ = context.moment.take_wall_ns();
    let outcome = run(context, arguments);
    let database = &mut *context.database;
    if let Some(file) = &mut database.append_only
        && database.keyspace.changes() != before
    {
        let wall_ns = context.moment.take_wall_ns().unwrap_or_default();
        file.append(time_ms, wall_ns, arguments);
    }
    outcome
}

/// Whether the keyspace stays within its limit whatever a command makes of these arguments. Redis refuses once the
/// limit was passed; here no request, however many arguments it has, takes the memory that others live on.
fn has_room(context: &Context<'_, '_>, arguments: &Arguments<'_>) -> bool {
    let database = &context.database;
    let costs = arguments.from(0).map(argument_cost_bytes_max);
    let used = costs.fold(database.used_bytes(), usize::saturating_add);
    used <= database.limits.memory_bytes_max
}

/// The command a request means. On failure, also the name the error speaks of.
fn resolve(arguments: &Arguments<'_>) -> Result<(&'static Command, Run), (&'static str, Failure)> {
    let command = find(arguments.at(0)).ok_or(("", Failure::UnknownCommand))?;
    let (command, run) = match (command.action, arguments.get(1)) {
        (Action::Call(run), _) | (Action::Group(Some(run), _), None) => (command, run),
        (Action::Group(None, _), None) => return Err((command.name, Failure::Arity)),
        (Action::Group(_, members), Some(word)) => {
            find_member(members, word).ok_or((command.name, Failure::UnknownSubcommand))?
        }
    };
    if command.takes(arguments.len()) {
        Ok((command, run))
    } else {
        Err((command.name, Failure::Arity))
    }
}

/// The command of this name, in whatever case.
pub(crate) fn find(name: &[u8]) -> Option<&'static Command> {
    let mut lower = [0; NAME_BYTES_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let index = table::COMMANDS
        .binary_search_by(|command| command.name.as_bytes().cmp(lower))
        .ok()?;
    table::COMMANDS.get(index)
}

fn find_member(members: &'static [Command], word: &[u8]) -> Option<(&'static Command, Run)> {
    let member = members
        .iter()
        .find(|member| word.eq_ignore_ascii_case(member.last_word().as_bytes()))?;
    match member.action {
        Action::Call(run) => Some((member, run)),
        Action::Group(..) => None,
    }
}
