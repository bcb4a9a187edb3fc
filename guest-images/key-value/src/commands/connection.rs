//! The connection itself.

use super::{Args, Ctx, Done, integer};
use crate::failure::Failure;
use crate::session::Next;

/// The protocol this server speaks.
const PROTOCOL: i64 = 2;

/// `PING [message]`
pub(crate) fn ping(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    match (arguments.get(1), arguments.len()) {
        (None, _) => context.reply.raw(b"+PONG\r\n"),
        (Some(message), 2) => context.reply.bulk(message),
        _ => return Err(Failure::Arity),
    }
    Ok(())
}

/// `ECHO message`
pub(crate) fn echo(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    context.reply.bulk(arguments.at(1));
    Ok(())
}

/// `SELECT index`. There is database 0 only.
pub(crate) fn select(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    const NO_INT: &str = "ERR value is out of range, value must between -2147483648 and 2147483647";
    let index = i32::try_from(integer(arguments, 1)?).map_err(|_| Failure::Fixed(NO_INT))?;
    if index != 0 {
        return Err(Failure::Fixed("ERR DB index is out of range"));
    }
    context.reply.ok();
    Ok(())
}

/// `HELLO [protover [AUTH username password] [SETNAME clientname]]`
pub(crate) fn hello(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    if let Some(text) = arguments.get(1) {
        let version = crate::number::parse_i64(text).ok_or(Failure::Fixed(
            "ERR Protocol version is not an integer or out of range",
        ))?;
        if version != PROTOCOL {
            return Err(Failure::Fixed("NOPROTO unsupported protocol version"));
        }
        hello_options(context, arguments)?;
    }
    context.reply.array(14);
    for (field, value) in [("server", "redis"), ("version", super::info::VERSION)] {
        context.reply.bulk(field.as_bytes());
        context.reply.bulk(value.as_bytes());
    }
    context.reply.bulk(b"proto");
    context.reply.integer(PROTOCOL);
    context.reply.bulk(b"id");
    context
        .reply
        .integer(i64::try_from(context.client.id).unwrap_or(i64::MAX));
    for (field, value) in [("mode", "standalone"), ("role", "master")] {
        context.reply.bulk(field.as_bytes());
        context.reply.bulk(value.as_bytes());
    }
    context.reply.bulk(b"modules");
    context.reply.array(0);
    Ok(())
}

/// There are no passwords: the default user may come with any, and there are no others.
fn hello_options(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let mut name = None;
    let mut index = 2;
    while index < arguments.len() {
        let following = arguments.len() - index - 1;
        if arguments.is(index, "auth") && following >= 2 {
            if arguments.at(index + 1) != b"default" {
                let text = "WRONGPASS invalid username-password pair or user is disabled.";
                return Err(Failure::Fixed(text));
            }
            index += 3;
        } else if arguments.is(index, "setname") && following >= 1 {
            name = arguments.get(index + 1);
            index += 2;
        } else {
            return Err(Failure::HelloOption(index));
        }
    }
    name.map_or(Ok(()), |name| super::client::set_name(context, name))
}

/// `QUIT`
pub(crate) fn quit(context: &mut Ctx<'_, '_>, _: &Args<'_>) -> Done {
    context.next = Next::Close;
    context.reply.ok();
    Ok(())
}

/// `RESET`. A session has no state but its name.
pub(crate) fn reset(context: &mut Ctx<'_, '_>, _: &Args<'_>) -> Done {
    context.client.name.clear();
    context.reply.status("RESET");
    Ok(())
}
