//! Lists.

use super::{Args, Ctx, Done, count, integer};
use crate::failure::Failure;
use crate::store::{End, List};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// `LPUSH key element [element ...]`
pub(crate) fn lpush(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    push(context, arguments, End::Left)
}

/// `RPUSH key element [element ...]`
pub(crate) fn rpush(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    push(context, arguments, End::Right)
}

fn push(context: &mut Ctx<'_, '_>, arguments: &Args<'_>, end: End) -> Done {
    let elements = arguments.from(2);
    let length = context
        .database
        .keyspace
        .edit_or_create(arguments.at(1), |list: &mut List| {
            list.reserve(elements.len())?;
            elements.for_each(|element| list.push(end, element));
            Ok(list.len())
        })?;
    context.reply.count(length);
    Ok(())
}

/// `LPOP key [count]`
pub(crate) fn lpop(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    pop(context, arguments, End::Left)
}

/// `RPOP key [count]`
pub(crate) fn rpop(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    pop(context, arguments, End::Right)
}

fn pop(context: &mut Ctx<'_, '_>, arguments: &Args<'_>, end: End) -> Done {
    match arguments.len() {
        2 => pop_one(context, arguments.at(1), end),
        3 => pop_many(context, arguments.at(1), count(arguments, 2)?, end),
        _ => Err(Failure::Arity),
    }
}

fn pop_one(context: &mut Ctx<'_, '_>, key: &[u8], end: End) -> Done {
    let element = context
        .database
        .keyspace
        .edit(key, |list: &mut List| Ok(list.pop(end)))?;
    context.reply.optional(element.flatten().as_deref());
    Ok(())
}

fn pop_many(context: &mut Ctx<'_, '_>, key: &[u8], count: usize, end: End) -> Done {
    let elements = context.database.keyspace.edit(key, |list: &mut List| {
        let count = count.min(list.len());
        Ok((0..count).map_while(|_| list.pop(end)).collect::<Vec<_>>())
    })?;
    match elements {
        Some(elements) => context.reply.bulks(elements.iter().map(Box::as_ref)),
        None => context.reply.nil_array(),
    }
    Ok(())
}

/// `LLEN key`
pub(crate) fn llen(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let list = context.database.keyspace.read::<List>(arguments.at(1))?;
    context.reply.count(list.map_or(0, List::len));
    Ok(())
}

/// `LRANGE key start stop`
pub(crate) fn lrange(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let (start, stop) = (integer(arguments, 2)?, integer(arguments, 3)?);
    let Some(list) = context.database.keyspace.read::<List>(arguments.at(1))? else {
        context.reply.array(0);
        return Ok(());
    };
    let start = position(start, list.len()).unwrap_or(0);
    let end = position(stop, list.len()).map_or(0, |stop| stop.saturating_add(1));
    context.reply.bulks(list.range(start, end.saturating_sub(start)));
    Ok(())
}

/// `LINDEX key index`
pub(crate) fn lindex(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let list = context.database.keyspace.read::<List>(arguments.at(1))?;
    let Some(list) = list else {
        context.reply.nil();
        return Ok(());
    };
    let index = position(integer(arguments, 2)?, list.len());
    context.reply.optional(index.and_then(|index| list.get(index)));
    Ok(())
}

/// Where an index points; negative ones count from the end. None is before the first element.
fn position(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let index = if index < 0 {
        index.saturating_add(length)
    } else {
        index
    };
    usize::try_from(index).ok()
}
