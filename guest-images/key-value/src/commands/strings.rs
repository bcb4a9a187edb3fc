//! Strings.

use super::expiry::{Start, Unit, deadline_ms};
use super::{Args, Ctx, Done};
use crate::failure::Failure;
use crate::request::BULK_BYTES_MAX;
use crate::store::{Kind, Text};

/// `GET key`
pub(crate) fn get(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let text = context.database.keyspace.read::<Text>(arguments.at(1))?;
    context.reply.optional(text.map(Text::bytes));
    Ok(())
}

/// When `SET` sets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    Absent,
    Present,
}

/// What becomes of the key's deadline.
#[derive(Clone, Copy)]
enum Expiry {
    Gone,
    Kept,
    /// Given by an argument, with its unit and where it counts from.
    Given(usize, Unit, Start),
}

impl Expiry {
    /// Redis lets the same option come again; the last one counts.
    fn is_given_in(self, unit: Unit, start: Start) -> bool {
        matches!(self, Self::Given(_, its_unit, its_start) if its_unit == unit && its_start == start)
    }
}

/// `SET key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT seconds | PXAT milliseconds | KEEPTTL]`
pub(crate) fn set(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let (key, value) = (arguments.at(1), arguments.at(2));
    if arguments.len() == 3 {
        context.database.keyspace.put_text(key, value, false);
        context.reply.ok();
        return Ok(());
    }
    let (condition, expiry, get) = set_options(arguments)?;
    let deadline = match expiry {
        Expiry::Given(index, unit, start) => Some(deadline_ms(context, arguments, index, unit, start)?),
        Expiry::Gone | Expiry::Kept => None,
    };
    let keyspace = &mut context.database.keyspace;
    if get {
        context
            .reply
            .optional(keyspace.read::<Text>(key)?.map(Text::bytes));
    }
    let refused = match condition {
        Condition::Always => false,
        Condition::Absent => keyspace.contains(key),
        Condition::Present => !keyspace.contains(key),
    };
    if !refused {
        keyspace.put_text(key, value, matches!(expiry, Expiry::Kept));
        if deadline.is_some() {
            keyspace.set_deadline(key, deadline);
        }
    }
    match (get, refused) {
        (true, _) => {}
        (false, true) => context.reply.nil(),
        (false, false) => context.reply.ok(),
    }
    Ok(())
}

fn set_options(arguments: &Args<'_>) -> Result<(Condition, Expiry, bool), Failure> {
    let (mut condition, mut expiry, mut get) = (Condition::Always, None, false);
    let mut index = 3;
    while index < arguments.len() {
        if arguments.is(index, "nx") && condition != Condition::Present {
            condition = Condition::Absent;
        } else if arguments.is(index, "xx") && condition != Condition::Absent {
            condition = Condition::Present;
        } else if arguments.is(index, "get") {
            get = true;
        } else if arguments.is(index, "keepttl") && !matches!(expiry, Some(Expiry::Given(..))) {
            expiry = Some(Expiry::Kept);
        } else if let Some((unit, start)) = set_expiry_unit(arguments, index)
            && expiry.is_none_or(|before| before.is_given_in(unit, start))
        {
            index += 1;
            if index == arguments.len() {
                return Err(Failure::SYNTAX);
            }
            expiry = Some(Expiry::Given(index, unit, start));
        } else {
            return Err(Failure::SYNTAX);
        }
        index += 1;
    }
    Ok((condition, expiry.unwrap_or(Expiry::Gone), get))
}

fn set_expiry_unit(arguments: &Args<'_>, index: usize) -> Option<(Unit, Start)> {
    let units = [
        ("ex", Unit::Seconds, Start::Now),
        ("px", Unit::Milliseconds, Start::Now),
        ("exat", Unit::Seconds, Start::Epoch),
        ("pxat", Unit::Milliseconds, Start::Epoch),
    ];
    let (_, unit, start) = units.into_iter().find(|(word, ..)| arguments.is(index, word))?;
    Some((unit, start))
}

/// `SETNX key value`
pub(crate) fn setnx(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let keyspace = &mut context.database.keyspace;
    let absent = !keyspace.contains(arguments.at(1));
    if absent {
        keyspace.put_text(arguments.at(1), arguments.at(2), false);
    }
    context.reply.flag(absent);
    Ok(())
}

/// `SETEX key seconds value`
pub(crate) fn setex(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    set_expiring(context, arguments, Unit::Seconds)
}

/// `PSETEX key milliseconds value`
pub(crate) fn psetex(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    set_expiring(context, arguments, Unit::Milliseconds)
}

fn set_expiring(context: &mut Ctx<'_, '_>, arguments: &Args<'_>, unit: Unit) -> Done {
    let deadline = deadline_ms(context, arguments, 2, unit, Start::Now)?;
    let keyspace = &mut context.database.keyspace;
    keyspace.put_text(arguments.at(1), arguments.at(3), false);
    keyspace.set_deadline(arguments.at(1), Some(deadline));
    context.reply.ok();
    Ok(())
}

/// `GETSET key value`
pub(crate) fn getset(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let keyspace = &mut context.database.keyspace;
    context
        .reply
        .optional(keyspace.read::<Text>(arguments.at(1))?.map(Text::bytes));
    keyspace.put_text(arguments.at(1), arguments.at(2), false);
    Ok(())
}

/// `STRLEN key`
pub(crate) fn strlen(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let text = context.database.keyspace.read::<Text>(arguments.at(1))?;
    context.reply.count(text.map_or(0, |text| text.bytes().len()));
    Ok(())
}

/// `APPEND key value`
pub(crate) fn append(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let more = arguments.at(2);
    let length = context
        .database
        .keyspace
        .edit_or_create(arguments.at(1), |text: &mut Text| {
            if text.bytes().len().saturating_add(more.len()) > BULK_BYTES_MAX {
                return Err(Failure::STRING_BYTES);
            }
            text.append(more);
            Ok(text.bytes().len())
        })?;
    context.reply.count(length);
    Ok(())
}

/// `MGET key [key ...]`
pub(crate) fn mget(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let keys = arguments.from(1);
    context.reply.array(keys.len());
    for key in keys {
        let text = context.database.keyspace.value(key).and_then(Text::of);
        context.reply.optional(text.map(Text::bytes));
        if context.reply.overflowed() {
            break;
        }
    }
    Ok(())
}

/// `MSET key value [key value ...]`
pub(crate) fn mset(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    if arguments.len().is_multiple_of(2) {
        return Err(Failure::Arity);
    }
    for (key, value) in arguments.pairs_from(1) {
        context.database.keyspace.put_text(key, value, false);
    }
    context.reply.ok();
    Ok(())
}
