//! Times to live.
//!
//! A deadline is a time of the monotonic clock, in milliseconds. Dates are turned into such when they are given.

use super::{Args, Ctx, Done, integer};
use crate::failure::Failure;

const MS_PER_SECOND: i64 = 1000;

/// What a time is given in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

/// What a time is counted from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Now,
    /// 1970-01-01 00:00 UTC.
    Epoch,
}

/// The deadline that an argument of `SET` and the like gives, which must be above zero.
pub(super) fn deadline_ms(
    context: &mut Ctx<'_, '_>,
    arguments: &Args<'_>,
    index: usize,
    unit: Unit,
    start: Start,
) -> Result<u64, Failure> {
    let value = integer(arguments, index)?;
    if value <= 0 {
        return Err(Failure::ExpireTime);
    }
    let deadline = monotonic_ms(context, value, unit, start)?;
    Ok(u64::try_from(deadline).unwrap_or(0))
}

/// A given time on the monotonic clock; below zero if it was before that started.
fn monotonic_ms(context: &mut Ctx<'_, '_>, value: i64, unit: Unit, start: Start) -> Result<i64, Failure> {
    let ms = match unit {
        Unit::Seconds => value.checked_mul(MS_PER_SECOND).ok_or(Failure::ExpireTime)?,
        Unit::Milliseconds => value,
    };
    let now = context.moment.monotonic_ms();
    context.database.keyspace.advance(now);
    let from_now = match start {
        Start::Now => ms,
        Start::Epoch => ms.saturating_sub_unsigned(context.moment.wall_ms()),
    };
    from_now.checked_add_unsigned(now).ok_or(Failure::ExpireTime)
}

/// `EXPIRE key seconds [NX | XX | GT | LT]`
pub(crate) fn expire(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    set(context, arguments, Unit::Seconds, Start::Now)
}

/// `PEXPIRE key milliseconds [NX | XX | GT | LT]`
pub(crate) fn pexpire(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    set(context, arguments, Unit::Milliseconds, Start::Now)
}

/// `EXPIREAT key seconds [NX | XX | GT | LT]`
pub(crate) fn expireat(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    set(context, arguments, Unit::Seconds, Start::Epoch)
}

/// `PEXPIREAT key milliseconds [NX | XX | GT | LT]`
pub(crate) fn pexpireat(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    set(context, arguments, Unit::Milliseconds, Start::Epoch)
}

fn set(context: &mut Ctx<'_, '_>, arguments: &Args<'_>, unit: Unit, start: Start) -> Done {
    let conditions = Conditions::read(arguments)?;
    let value = integer(arguments, 2)?;
    let deadline = monotonic_ms(context, value, unit, start)?;
    let now = context.moment.monotonic_ms();
    let (key, keyspace) = (arguments.at(1), &mut context.database.keyspace);
    let done = match keyspace.deadline(key) {
        Some(current) if conditions.allow(deadline, current) => {
            match u64::try_from(deadline) {
                Ok(deadline) if deadline > now => keyspace.set_deadline(key, Some(deadline)),
                _ => drop(keyspace.remove(key)),
            }
            true
        }
        _ => false,
    };
    context.reply.flag(done);
    Ok(())
}

/// When `EXPIRE` sets a deadline.
#[derive(Default)]
struct Conditions {
    absent: bool,
    present: bool,
    later: bool,
    sooner: bool,
}

impl Conditions {
    fn read(arguments: &Args<'_>) -> Result<Self, Failure> {
        let mut read = Self::default();
        for index in 3..arguments.len() {
            match arguments.at(index).to_ascii_lowercase().as_slice() {
                b"nx" => read.absent = true,
                b"xx" => read.present = true,
                b"gt" => read.later = true,
                b"lt" => read.sooner = true,
                _ => return Err(Failure::UnsupportedOption(index)),
            }
        }
        if read.absent && (read.present || read.later || read.sooner) {
            let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
            return Err(Failure::Fixed(text));
        }
        if read.later && read.sooner {
            return Err(Failure::Fixed(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(read)
    }

    /// A key without deadline counts as one whose deadline is never.
    fn allow(&self, deadline: i64, current: Option<u64>) -> bool {
        let current = current.map(|current| i64::try_from(current).unwrap_or(i64::MAX));
        let refused = (self.absent && current.is_some())
            || (self.present && current.is_none())
            || (self.later && current.is_none_or(|current| deadline <= current))
            || (self.sooner && current.is_some_and(|current| deadline >= current));
        !refused
    }
}

/// `TTL key`
pub(crate) fn ttl(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    remaining(context, arguments, |ms| {
        ms.saturating_add(MS_PER_SECOND / 2) / MS_PER_SECOND
    })
}

/// `PTTL key`
pub(crate) fn pttl(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    remaining(context, arguments, |ms| ms)
}

fn remaining(context: &mut Ctx<'_, '_>, arguments: &Args<'_>, round: fn(i64) -> i64) -> Done {
    const NO_KEY: i64 = -2;
    const NO_DEADLINE: i64 = -1;
    let value = match context.database.keyspace.deadline(arguments.at(1)) {
        None => NO_KEY,
        Some(None) => NO_DEADLINE,
        Some(Some(deadline)) => {
            let ms = deadline.saturating_sub(context.moment.monotonic_ms());
            round(i64::try_from(ms).unwrap_or(i64::MAX))
        }
    };
    context.reply.integer(value);
    Ok(())
}

/// `PERSIST key`
pub(crate) fn persist(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let keyspace = &mut context.database.keyspace;
    let had_deadline = keyspace.deadline(arguments.at(1)).flatten().is_some();
    if had_deadline {
        keyspace.set_deadline(arguments.at(1), None);
    }
    context.reply.flag(had_deadline);
    Ok(())
}
