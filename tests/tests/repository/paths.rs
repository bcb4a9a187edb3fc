//! Finds what a Rust source names: every path, with the trees of `use` unfolded, outside comments,
//! literals and unit tests. A list of tokens is enough for it; names that a macro pastes together
//! are not seen.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path as it is written, and where.
#[derive(Debug)]
pub struct Named {
    /// Its segments: `["std", "time", "Instant"]`. A lone identifier or keyword is a path of one.
    pub segments: Vec<String>,
    /// Line of its last segment, from 1.
    pub line: usize,
}

impl Named {
    /// True if `pattern` (`std::time`, `HashMap`) stands somewhere in the path, whole segments
    /// only.
    pub fn contains(&self, pattern: &str) -> bool {
        let wanted: Vec<&str> = pattern.split("::").collect();
        self.segments.windows(wanted.len()).any(|window| window == wanted)
    }
}

/// Everything that `text` names, in its order.
///
/// # Errors
/// Why the text is no sequence of Rust tokens.
pub fn named(text: &str) -> Result<Vec<Named>, String> {
    let stream: TokenStream = text.parse().map_err(|error| format!("not Rust: {error}"))?;
    Ok(named_in(stream))
}

/// Everything that `stream` names, in its order.
pub fn named_in(stream: TokenStream) -> Vec<Named> {
    let mut found = Vec::new();
    collect(&[], stream, &mut found);
    found
}

/// Collects what `stream` names; paths in it begin with `prefix` (inside the braces of a `use`).
fn collect(prefix: &[String], stream: TokenStream, found: &mut Vec<Named>) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut rest = tokens.as_slice();
    let mut path = prefix.to_vec();
    while let Some((token, after)) = rest.split_first() {
        rest = after;
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' && is_for_tests(rest) => {
                rest = after_item(rest)
            }
            TokenTree::Group(group) => {
                let goes_on = group.delimiter() == Delimiter::Brace && path.len() > prefix.len();
                collect(if goes_on { &path } else { &[] }, group.stream(), found);
                path = prefix.to_vec();
            }
            TokenTree::Ident(ident) => {
                path.push(ident.to_string());
                if let Some(after_colons) = after_colons(rest) {
                    rest = after_colons;
                    continue_or_close(&mut path, prefix, rest, ident.span().start().line, found);
                } else {
                    found.push(Named {
                        segments: path,
                        line: ident.span().start().line,
                    });
                    path = prefix.to_vec();
                }
            }
            _ => path = prefix.to_vec(),
        }
    }
}

/// After `::`: an identifier or a brace goes on with the path; anything else (`*`, `<`) ends it.
fn continue_or_close(
    path: &mut Vec<String>,
    prefix: &[String],
    rest: &[TokenTree],
    line: usize,
    found: &mut Vec<Named>,
) {
    match rest.first() {
        Some(TokenTree::Ident(_)) => {}
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {}
        _ => found.push(Named {
            segments: std::mem::replace(path, prefix.to_vec()),
            line,
        }),
    }
}

/// What follows `::`, if `rest` begins with it.
fn after_colons(rest: &[TokenTree]) -> Option<&[TokenTree]> {
    match rest {
        [TokenTree::Punct(first), TokenTree::Punct(second), after @ ..] => {
            (first.as_char() == ':' && second.as_char() == ':').then_some(after)
        }
        _ => None,
    }
}

/// True if the attribute whose `#` was just read is `[cfg(test)]`.
fn is_for_tests(rest: &[TokenTree]) -> bool {
    let attribute = match rest.first() {
        Some(TokenTree::Group(group)) => group.stream().to_string(),
        _ => return false,
    };
    attribute.split_whitespace().collect::<String>() == "cfg(test)"
}

/// What follows the item that an attribute belongs to: its braces or its semicolon end it.
fn after_item(rest: &[TokenTree]) -> &[TokenTree] {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        _ => false,
    };
    let end = rest.iter().position(ends).map_or(rest.len(), |at| at + 1);
    &rest[end..]
}
