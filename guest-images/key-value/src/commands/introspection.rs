//! `COMMAND`: the table of commands.

use super::{Args, Ctx, Done};
use crate::command::{Action, Command, FLAG_NAMES, Keys, find};
use crate::reply::Reply;
use crate::table::COMMANDS;

/// `COMMAND`
pub(crate) fn all(context: &mut Ctx<'_, '_>, _: &Args<'_>) -> Done {
    context.reply.array(COMMANDS.len());
    COMMANDS
        .iter()
        .for_each(|command| describe(&mut context.reply, command));
    Ok(())
}

/// `COMMAND COUNT`
pub(crate) fn count(context: &mut Ctx<'_, '_>, _: &Args<'_>) -> Done {
    context.reply.count(COMMANDS.len());
    Ok(())
}

/// `COMMAND DOCS [command-name ...]`. There are none, which `redis-cli` takes as such.
pub(crate) fn docs(context: &mut Ctx<'_, '_>, _: &Args<'_>) -> Done {
    context.reply.array(0);
    Ok(())
}

/// `COMMAND INFO [command-name ...]`
pub(crate) fn info(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    if arguments.len() == 2 {
        return all(context, arguments);
    }
    let names = arguments.from(2);
    context.reply.array(names.len());
    for name in names {
        match find(name) {
            Some(command) => describe(&mut context.reply, command),
            None => context.reply.nil_array(),
        }
    }
    Ok(())
}

/// `COMMAND LIST`
pub(crate) fn list(context: &mut Ctx<'_, '_>, _: &Args<'_>) -> Done {
    context
        .reply
        .bulks(COMMANDS.iter().map(|command| command.name.as_bytes()));
    Ok(())
}

/// Ten elements, as since Redis 7.0: name, arity, flags, first key, last key, step, categories, hints, key
/// specifications, subcommands.
fn describe(reply: &mut Reply<'_>, command: &Command) {
    let Keys(first, last, step) = command.keys;
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(command.arity.into());
    let flags = || FLAG_NAMES.iter().filter(|(bit, _)| command.flags & bit != 0);
    reply.array(flags().count());
    flags().for_each(|(_, name)| reply.status(name));
    [first, last, step]
        .into_iter()
        .for_each(|number| reply.integer(number.into()));
    (0..3).for_each(|_| reply.array(0));
    match command.action {
        Action::Call(_) => reply.array(0),
        Action::Group(_, members) => {
            reply.array(members.len());
            members.iter().for_each(|member| describe(reply, member));
        }
    }
}
