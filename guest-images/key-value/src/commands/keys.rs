//! Keys, whatever they hold.

use super::{Args, Ctx, Done, integer};
use crate::failure::Failure;
use crate::glob;
use crate::number::{Decimal, parse_u64};
use crate::store::Value;
use alloc::vec::Vec;

/// Keys `SCAN` goes through at once unless told otherwise, as in Redis.
const SCAN_COUNT: usize = 10;

/// `DEL key [key ...]`, and `UNLINK`
pub(crate) fn del(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let keyspace = &mut context.database.keyspace;
    let removed = arguments.from(1).filter(|key| keyspace.remove(key)).count();
    context.reply.count(removed);
    Ok(())
}

/// `EXISTS key [key ...]`. A key named twice counts twice.
pub(crate) fn exists(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let keyspace = &mut context.database.keyspace;
    let present = arguments.from(1).filter(|key| keyspace.contains(key)).count();
    context.reply.count(present);
    Ok(())
}

/// `TYPE key`
pub(crate) fn type_of(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let value = context.database.keyspace.value(arguments.at(1));
    context.reply.status(value.map_or("none", Value::type_name));
    Ok(())
}

/// `KEYS pattern`
pub(crate) fn keys(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let pattern = arguments.at(1);
    let all = context.database.keyspace.iter().map(|(key, _)| key.bytes());
    let found: Vec<&[u8]> = all.filter(|key| glob::matches(pattern, key)).collect();
    context.reply.bulks(found.into_iter());
    Ok(())
}

/// What `SCAN` is asked for.
struct Scan<'a> {
    pattern: Option<&'a [u8]>,
    type_name: Option<&'a [u8]>,
    count: usize,
}

impl<'a> Scan<'a> {
    fn read(arguments: &Args<'a>) -> Result<Self, Failure> {
        let mut scan = Self {
            pattern: None,
            type_name: None,
            count: SCAN_COUNT,
        };
        let mut index = 2;
        while index < arguments.len() {
            let operand = arguments.get(index + 1).ok_or(Failure::SYNTAX)?;
            if arguments.is(index, "match") {
                scan.pattern = Some(operand);
            } else if arguments.is(index, "type") {
                scan.type_name = Some(operand);
            } else if arguments.is(index, "count") {
                let count = integer(arguments, index + 1)?;
                scan.count = usize::try_from(count)
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or(Failure::SYNTAX)?;
            } else {
                return Err(Failure::SYNTAX);
            }
            index += 2;
        }
        Ok(scan)
    }

    fn wants(&self, key: &[u8], value: &Value) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, key))
            && self
                .type_name
                .is_none_or(|name| name.eq_ignore_ascii_case(value.type_name().as_bytes()))
    }
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`
///
/// The cursor is the hash to go on with. Keys with equal hashes come together, so a key that exists all the time is
/// returned, and once.
pub(crate) fn scan(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let cursor = parse_u64(arguments.at(1)).ok_or(Failure::Fixed("ERR invalid cursor"))?;
    let scan = Scan::read(arguments)?;
    let (mut found, mut last_hash, mut next_cursor) = (Vec::new(), None, 0);
    for (visited, (key, value)) in context.database.keyspace.iter_from(cursor).enumerate() {
        if visited >= scan.count && last_hash != Some(key.hash()) {
            next_cursor = key.hash();
            break;
        }
        last_hash = Some(key.hash());
        if scan.wants(key.bytes(), value) {
            found.push(key.bytes());
        }
    }
    context.reply.array(2);
    context.reply.bulk(Decimal::unsigned(next_cursor).as_bytes());
    context.reply.bulks(found.into_iter());
    Ok(())
}

/// `DBSIZE`
pub(crate) fn dbsize(context: &mut Ctx<'_, '_>, _: &Args<'_>) -> Done {
    context.reply.count(context.database.keyspace.len());
    Ok(())
}

/// `FLUSHALL [ASYNC | SYNC]`, and `FLUSHDB`: there is one database, and it is emptied before the reply.
pub(crate) fn flush(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    match arguments.len() {
        1 => {}
        2 if arguments.is(1, "async") || arguments.is(1, "sync") => {}
        _ => return Err(Failure::SYNTAX),
    }
    context.database.keyspace.clear();
    context.reply.ok();
    Ok(())
}
