//! Strings that are integers.

use super::{Args, Ctx, Done, integer};
use crate::failure::Failure;
use crate::number::{Decimal, parse_i64};
use crate::store::Text;

/// `INCR key`
pub(crate) fn incr(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    add(context, arguments.at(1), 1)
}

/// `DECR key`
pub(crate) fn decr(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    add(context, arguments.at(1), -1)
}

/// `INCRBY key increment`
pub(crate) fn incrby(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let increment = integer(arguments, 2)?;
    add(context, arguments.at(1), increment)
}

/// `DECRBY key decrement`
pub(crate) fn decrby(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let negated = integer(arguments, 2)?.checked_neg();
    add(
        context,
        arguments.at(1),
        negated.ok_or(Failure::Fixed("ERR decrement would overflow"))?,
    )
}

fn add(context: &mut Ctx<'_, '_>, key: &[u8], increment: i64) -> Done {
    const OVERFLOW: Failure = Failure::Fixed("ERR increment or decrement would overflow");
    let keyspace = &mut context.database.keyspace;
    let sum = keyspace.edit(key, |text: &mut Text| {
        let value = parse_i64(text.bytes()).ok_or(Failure::INTEGER)?;
        let sum = value.checked_add(increment).ok_or(OVERFLOW)?;
        text.replace(Decimal::signed(sum).as_bytes());
        Ok(sum)
    })?;
    let sum = sum.unwrap_or_else(|| {
        keyspace.put_text(key, Decimal::signed(increment).as_bytes(), false);
        increment
    });
    context.reply.integer(sum);
    Ok(())
}
