//! Hashes.

use super::{Args, Ctx, Done};
use crate::failure::Failure;
use crate::store::Hash;

/// `HSET key field value [field value ...]`
pub(crate) fn hset(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    if !arguments.len().is_multiple_of(2) {
        return Err(Failure::Arity);
    }
    let added = context
        .database
        .keyspace
        .edit_or_create(arguments.at(1), |hash: &mut Hash| {
            Ok(arguments
                .pairs_from(2)
                .filter(|(field, value)| hash.insert(field, value))
                .count())
        })?;
    context.reply.count(added);
    Ok(())
}

/// `HGET key field`
pub(crate) fn hget(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let hash = context.database.keyspace.read::<Hash>(arguments.at(1))?;
    context
        .reply
        .optional(hash.and_then(|hash| hash.get(arguments.at(2))));
    Ok(())
}

/// `HDEL key field [field ...]`
pub(crate) fn hdel(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let removed = context
        .database
        .keyspace
        .edit(arguments.at(1), |hash: &mut Hash| {
            Ok(arguments.from(2).filter(|field| hash.remove(field)).count())
        })?;
    context.reply.count(removed.unwrap_or(0));
    Ok(())
}

/// `HGETALL key`
pub(crate) fn hgetall(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let Some(hash) = context.database.keyspace.read::<Hash>(arguments.at(1))? else {
        context.reply.array(0);
        return Ok(());
    };
    context.reply.array(hash.len().saturating_mul(2));
    for (field, value) in hash.iter() {
        context.reply.bulk(field);
        context.reply.bulk(value);
        if context.reply.overflowed() {
            break;
        }
    }
    Ok(())
}

/// `HLEN key`
pub(crate) fn hlen(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let hash = context.database.keyspace.read::<Hash>(arguments.at(1))?;
    context.reply.count(hash.map_or(0, Hash::len));
    Ok(())
}

/// `HEXISTS key field`
pub(crate) fn hexists(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let hash = context.database.keyspace.read::<Hash>(arguments.at(1))?;
    context
        .reply
        .flag(hash.is_some_and(|hash| hash.get(arguments.at(2)).is_some()));
    Ok(())
}
