//! Sets.

use super::{Args, Ctx, Done, count};
use crate::failure::Failure;
use crate::store::Set;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// `SADD key member [member ...]`
pub(crate) fn sadd(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let added = context
        .database
        .keyspace
        .edit_or_create(arguments.at(1), |set: &mut Set| {
            Ok(arguments.from(2).filter(|member| set.insert(member)).count())
        })?;
    context.reply.count(added);
    Ok(())
}

/// `SREM key member [member ...]`
pub(crate) fn srem(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let removed = context.database.keyspace.edit(arguments.at(1), |set: &mut Set| {
        Ok(arguments.from(2).filter(|member| set.remove(member)).count())
    })?;
    context.reply.count(removed.unwrap_or(0));
    Ok(())
}

/// `SMEMBERS key`
pub(crate) fn smembers(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    match context.database.keyspace.read::<Set>(arguments.at(1))? {
        Some(set) => context.reply.bulks(set.iter()),
        None => context.reply.array(0),
    }
    Ok(())
}

/// `SISMEMBER key member`
pub(crate) fn sismember(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let set = context.database.keyspace.read::<Set>(arguments.at(1))?;
    context
        .reply
        .flag(set.is_some_and(|set| set.contains(arguments.at(2))));
    Ok(())
}

/// `SCARD key`
pub(crate) fn scard(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let set = context.database.keyspace.read::<Set>(arguments.at(1))?;
    context.reply.count(set.map_or(0, Set::len));
    Ok(())
}

/// `SPOP key [count]`. Takes the first members in the order of their bytes: a choice every machine makes alike.
pub(crate) fn spop(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    match arguments.len() {
        2 => pop_one(context, arguments.at(1)),
        3 => pop_many(context, arguments.at(1), count(arguments, 2)?),
        _ => Err(Failure::SYNTAX),
    }
}

fn pop_one(context: &mut Ctx<'_, '_>, key: &[u8]) -> Done {
    let member = context
        .database
        .keyspace
        .edit(key, |set: &mut Set| Ok(set.pop()))?;
    context.reply.optional(member.flatten().as_deref());
    Ok(())
}

fn pop_many(context: &mut Ctx<'_, '_>, key: &[u8], count: usize) -> Done {
    let members = context.database.keyspace.edit(key, |set: &mut Set| {
        let count = count.min(set.len());
        Ok((0..count).map_while(|_| set.pop()).collect::<Vec<_>>())
    })?;
    context
        .reply
        .bulks(members.unwrap_or_default().iter().map(Box::as_ref));
    Ok(())
}
