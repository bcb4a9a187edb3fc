//! Circles of files: files of one crate that import each other, directly or through others.
//!
//! A file imports another if it names, by `crate::`, `self::`, `super::` or the name of a module
//! below it, something that the other defines. A re-export (`pub use`) is a name and no import:
//! what is named through it is taken to be where it is defined, so that a module which only hands
//! on what its files provide is in no circle. Methods are found by their type, and make no import.
//! Unit tests are left out.

use crate::paths;
use crate::policy::Allowed;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};

/// A module: the path of its names in its crate, empty for the root.
type Module = Vec<String>;

/// Re-exports that follow one another: more than any crate here has.
const HOPS_MAX: usize = 8;

/// One file of a crate.
struct Source {
    file: String,
    /// Names that it re-exports, and what they stand for.
    handed_on: BTreeMap<String, Vec<String>>,
    /// Everything else that it names, and the line.
    named: Vec<(Vec<String>, usize)>,
}

/// An import of one file by another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    to: Module,
    text: String,
}

/// Complaints about the circles among `files` (path and text), but for those `allowed`, and about
/// those of `allowed` that are no circles any more.
pub fn complaints(files: &[(String, String)], allowed: &[Allowed]) -> Vec<String> {
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for files in crates(files) {
        match sources(&files) {
            Err(why) => found.push(why),
            Ok(sources) => {
                let imports = imports(&sources);
                for circle in circles(&imports) {
                    let names: Vec<&str> = circle
                        .iter()
                        .map(|module| sources[module].file.as_str())
                        .collect();
                    let index = allowed.iter().position(|one| one.holds(&names));
                    match index {
                        Some(index) => {
                            used.insert(index);
                        }
                        None => found.push(described(&circle, &sources, &imports)),
                    }
                }
            }
        }
    }
    let unused = allowed
        .iter()
        .enumerate()
        .filter(|(index, _)| !used.contains(index));
    found.extend(unused.map(|(_, one)| {
        format!(
            "no circle is within {:?} any more, which was allowed because {}",
            one.within, one.why
        )
    }));
    found
}

/// The files of each crate, under the path of its root's folder.
fn crates(files: &[(String, String)]) -> Vec<BTreeMap<Module, (&str, &str)>> {
    let roots: BTreeSet<&str> = files
        .iter()
        .filter_map(|(path, _)| {
            path.strip_suffix("/lib.rs")
                .or_else(|| path.strip_suffix("/main.rs"))
        })
        .collect();
    let mut crates: BTreeMap<&str, BTreeMap<Module, (&str, &str)>> = BTreeMap::new();
    for (path, text) in files {
        let mut above = path.rmatch_indices('/').map(|(at, _)| &path[..at]);
        let Some(root) = above.find(|folder| roots.contains(folder)) else {
            continue;
        };
        let module = module_of(&path[root.len() + 1..]);
        crates.entry(root).or_default().insert(module, (path, text));
    }
    crates.into_values().collect()
}

/// The module that a file is, by its path from its crate's root. The root of a program beside a
/// library is none of the library's modules, and nothing can name it.
fn module_of(path: &str) -> Module {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" => Module::new(),
        path => path.split('/').map(str::to_owned).collect(),
    }
}

fn sources(files: &BTreeMap<Module, (&str, &str)>) -> Result<BTreeMap<Module, Source>, String> {
    let has_library = files.contains_key(&Module::new());
    let read = |(module, (file, text)): (&Module, &(&str, &str))| {
        let stream: TokenStream = text
            .parse()
            .map_err(|error| format!("{file}: not Rust: {error}"))?;
        let mut source = Source {
            file: (*file).to_owned(),
            handed_on: BTreeMap::new(),
            named: Vec::new(),
        };
        source.take_items(stream, 0);
        // Without a library the program's root is the crate's.
        let is_root = !has_library && module.as_slice() == ["main"];
        Ok((if is_root { Module::new() } else { module.clone() }, source))
    };
    files.iter().map(read).collect()
}

impl Source {
    /// Takes the items of a module that is `depth` modules below the file's own.
    fn take_items(&mut self, stream: TokenStream, depth: usize) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut rest = tokens.as_slice();
        let mut others = Vec::new();
        while let Some((token, after)) = rest.split_first() {
            if let Some(length) = re_export(rest) {
                self.hand_on(&rest[..length], depth);
                rest = &rest[length..];
            } else if let [
                TokenTree::Ident(word),
                TokenTree::Ident(_),
                TokenTree::Group(body),
                after @ ..,
            ] = rest
                && word == "mod"
                && body.delimiter() == Delimiter::Brace
                && !is_for_tests(&others)
            {
                self.take_items(body.stream(), depth + 1);
                rest = after;
            } else {
                others.push(token.clone());
                rest = after;
            }
        }
        let named = paths::named_in(others.into_iter().collect());
        let placed = named
            .into_iter()
            .filter(|name| name.segments.len() > 1)
            .filter_map(|name| Some((lifted(name.segments, depth)?, name.line)));
        self.named.extend(placed);
    }

    /// Takes the names of a `pub use`.
    fn hand_on(&mut self, tokens: &[TokenTree], depth: usize) {
        let named = paths::named_in(tokens.iter().cloned().collect());
        let mut named = named.into_iter().map(|name| name.segments).peekable();
        while let Some(path) = named.next() {
            let renamed = named.next_if(|next| next.last().is_some_and(|last| last == "as"));
            let name = match renamed {
                Some(_) => named.next().and_then(|name| name.last().cloned()),
                None => path.last().cloned(),
            };
            if let Some((name, path)) = name.zip(lifted(path, depth)).filter(|_| depth == 0) {
                self.handed_on.insert(name, path);
            }
        }
    }
}

/// True if the item that begins behind `before` is a unit test's.
fn is_for_tests(before: &[TokenTree]) -> bool {
    matches!(before, [.., TokenTree::Group(group)] if group.stream().to_string() == "cfg (test)")
}

/// Length of the `pub use …;` that `tokens` begin with, if they do.
fn re_export(tokens: &[TokenTree]) -> Option<usize> {
    let is = |token: Option<&TokenTree>, word: &str| matches!(token, Some(TokenTree::Ident(ident)) if ident == word);
    if !is(tokens.first(), "pub") {
        return None;
    }
    let scope = usize::from(matches!(tokens.get(1), Some(TokenTree::Group(_))));
    if !is(tokens.get(1 + scope), "use") {
        return None;
    }
    let ends = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';');
    tokens.iter().position(ends).map(|at| at + 1)
}

/// A path that was named `depth` modules below a file's own, as that file would name it. None where
/// it stays below.
fn lifted(mut path: Vec<String>, depth: usize) -> Option<Vec<String>> {
    if path.first().is_some_and(|first| first == "crate") {
        return Some(path);
    }
    for _ in 0..depth {
        if path.first()? != "super" {
            return None;
        }
        path.remove(0);
    }
    Some(path)
}

/// The imports of each file.
fn imports(sources: &BTreeMap<Module, Source>) -> BTreeMap<Module, BTreeSet<Import>> {
    let of = |(module, source): (&Module, &Source)| {
        let found = source.named.iter().filter_map(|(path, line)| {
            let to = resolve(sources, module, path, HOPS_MAX).filter(|to| to != module)?;
            let text = format!(
                "{}:{line} -> {} ({})",
                source.file,
                sources[&to].file,
                path.join("::")
            );
            Some(Import { to, text })
        });
        (module.clone(), found.collect())
    };
    sources.iter().map(of).collect()
}

/// The file that defines what `path`, named in `module`, leads to. None where it leads out of the
/// crate, or is not a path of modules.
fn resolve(
    sources: &BTreeMap<Module, Source>,
    module: &Module,
    path: &[String],
    hops: usize,
) -> Option<Module> {
    let hops = hops.checked_sub(1)?;
    let (mut at, mut rest) = begin(sources, module, path)?;
    while let Some((first, after)) = rest.split_first() {
        let mut below = at.clone();
        below.push(first.clone());
        if sources.contains_key(&below) {
            (at, rest) = (below, after);
            continue;
        }
        return match sources.get(&at)?.handed_on.get(first) {
            Some(handed_on) => resolve(sources, &at, &[handed_on, after].concat(), hops),
            None => Some(at),
        };
    }
    sources.contains_key(&at).then_some(at)
}

/// The module in which `path` begins, and the rest of it.
fn begin<'a>(
    sources: &BTreeMap<Module, Source>,
    module: &Module,
    path: &'a [String],
) -> Option<(Module, &'a [String])> {
    let first = path.first()?.as_str();
    let mut at = module.clone();
    match first {
        "crate" => Some((Module::new(), &path[1..])),
        "self" => Some((at, &path[1..])),
        "super" => {
            let above = path.iter().take_while(|segment| *segment == "super").count();
            at.truncate(at.len().checked_sub(above)?);
            Some((at, &path[above..]))
        }
        _ => {
            at.push(first.to_owned());
            sources.contains_key(&at).then_some((at, &path[1..]))
        }
    }
}

/// Groups of two files or more, each of which can be reached from each.
fn circles(imports: &BTreeMap<Module, BTreeSet<Import>>) -> Vec<BTreeSet<Module>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = imports
        .keys()
        .map(|module| (module, reached_from(imports, module)))
        .collect();
    let circle_of = |module: &Module| -> BTreeSet<Module> {
        let there = &reached[module];
        let and_back = there.iter().filter(|other| reached[**other].contains(module));
        and_back.map(|other| (*other).clone()).collect()
    };
    let all: BTreeSet<BTreeSet<Module>> = imports.keys().map(circle_of).collect();
    all.into_iter().filter(|circle| circle.len() > 1).collect()
}

fn reached_from<'a>(
    imports: &'a BTreeMap<Module, BTreeSet<Import>>,
    from: &'a Module,
) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut ahead = vec![from];
    while let Some(module) = ahead.pop() {
        for import in &imports[module] {
            if reached.insert(&import.to) {
                ahead.push(&import.to);
            }
        }
    }
    reached
}

/// The circle with what ties it.
fn described(
    circle: &BTreeSet<Module>,
    sources: &BTreeMap<Module, Source>,
    imports: &BTreeMap<Module, BTreeSet<Import>>,
) -> String {
    let files: Vec<&str> = circle
        .iter()
        .map(|module| sources[module].file.as_str())
        .collect();
    let ties = circle.iter().flat_map(|module| &imports[module]);
    let ties: Vec<&str> = ties
        .filter(|import| circle.contains(&import.to))
        .map(|import| import.text.as_str())
        .collect();
    format!(
        "these files import each other: {}\n    {}",
        files.join(" "),
        ties.join("\n    ")
    )
}
