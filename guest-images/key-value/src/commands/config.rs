//! `CONFIG`: what is set, and that it cannot be changed.

use super::{Args, Ctx, Done};
use crate::append_only::{AppendOnly, Policy};
use crate::failure::Failure;
use crate::glob;
use crate::number::Decimal;
use crate::request::BULK_BYTES_MAX;
use alloc::vec::Vec;

enum Setting {
    Word(&'static str),
    Number(usize),
}

/// `CONFIG GET parameter [parameter ...]`. Parameters are patterns.
pub(crate) fn get(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let mut settings = Vec::from(settings(context));
    settings.retain(|(name, _)| arguments.from(2).any(|pattern| matches(pattern, name)));
    context.reply.array(settings.len().saturating_mul(2));
    for (name, setting) in settings {
        context.reply.bulk(name.as_bytes());
        match setting {
            Setting::Word(word) => context.reply.bulk(word.as_bytes()),
            Setting::Number(number) => context.reply.bulk(Decimal::unsigned(number as u64).as_bytes()),
        }
    }
    Ok(())
}

/// `CONFIG SET parameter value [parameter value ...]`. Nothing can be changed: a machine's configuration is given
/// when it starts, to both of a pair alike.
pub(crate) fn set(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    if !arguments.len().is_multiple_of(2) {
        return Err(Failure::Arity);
    }
    let settings = settings(context);
    let is_known = |index: usize| settings.iter().any(|(name, _)| arguments.is(index, name));
    let unknown = (2..arguments.len()).step_by(2).find(|index| !is_known(*index));
    Err(unknown.map_or(Failure::Immutable(2), Failure::UnknownOption))
}

/// `CONFIG RESETSTAT`
pub(crate) fn resetstat(context: &mut Ctx<'_, '_>, _: &Args<'_>) -> Done {
    context.database.commands_processed = 0;
    context.database.connections_received = 0;
    context.reply.ok();
    Ok(())
}

fn matches(pattern: &[u8], name: &str) -> bool {
    glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes())
}

fn settings(context: &Ctx<'_, '_>) -> [(&'static str, Setting); 10] {
    let policy = context.database.append_only.as_ref().map(AppendOnly::policy);
    let limits = context.database.limits;
    [
        ("appendfsync", Setting::Word(policy.map_or("no", Policy::name))),
        (
            "appendonly",
            Setting::Word(if policy.is_some() { "yes" } else { "no" }),
        ),
        ("databases", Setting::Number(1)),
        ("io-threads", Setting::Number(1)),
        ("maxclients", Setting::Number(limits.clients_max)),
        ("maxmemory", Setting::Number(limits.memory_bytes_max)),
        ("maxmemory-policy", Setting::Word("noeviction")),
        ("proto-max-bulk-len", Setting::Number(BULK_BYTES_MAX)),
        ("save", Setting::Word("")),
        ("timeout", Setting::Number(0)),
    ]
}
