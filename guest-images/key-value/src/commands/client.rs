//! `CLIENT`: who is connected. A session knows itself only.

use super::{Args, Ctx, Done};
use crate::failure::Failure;
use crate::number::Decimal;
use alloc::vec::Vec;

/// `CLIENT ID`
pub(crate) fn id(context: &mut Ctx<'_, '_>, _: &Args<'_>) -> Done {
    context
        .reply
        .integer(i64::try_from(context.client.id).unwrap_or(i64::MAX));
    Ok(())
}

/// `CLIENT GETNAME`
pub(crate) fn getname(context: &mut Ctx<'_, '_>, _: &Args<'_>) -> Done {
    let name = context.client.name.as_slice();
    context.reply.optional((!name.is_empty()).then_some(name));
    Ok(())
}

/// `CLIENT SETNAME connection-name`
pub(crate) fn setname(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    set_name(context, arguments.at(2))?;
    context.reply.ok();
    Ok(())
}

/// Gives the client a name of printable characters, or takes it if `name` is empty.
pub(super) fn set_name(context: &mut Ctx<'_, '_>, name: &[u8]) -> Done {
    if !name.iter().all(u8::is_ascii_graphic) {
        let text = "ERR Client names cannot contain spaces, newlines or special characters.";
        return Err(Failure::Fixed(text));
    }
    context.client.name = name.to_vec();
    Ok(())
}

/// `CLIENT SETINFO <LIB-NAME libname | LIB-VER libver>`. Nobody can ask for it, so it is not kept.
pub(crate) fn setinfo(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    if !arguments.is(2, "lib-name") && !arguments.is(2, "lib-ver") {
        return Err(Failure::SYNTAX);
    }
    context.reply.ok();
    Ok(())
}

/// `CLIENT LIST`: the client that asks.
pub(crate) fn list(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    if arguments.len() > 2 {
        return Err(Failure::SYNTAX);
    }
    let line = describe(context);
    context.reply.bulk(&line);
    Ok(())
}

fn describe(context: &Ctx<'_, '_>) -> Vec<u8> {
    let mut line = b"id=".to_vec();
    line.extend_from_slice(Decimal::unsigned(context.client.id).as_bytes());
    line.extend_from_slice(b" name=");
    line.extend_from_slice(&context.client.name);
    line.extend_from_slice(b" db=0 cmd=client|list resp=2\n");
    line
}
