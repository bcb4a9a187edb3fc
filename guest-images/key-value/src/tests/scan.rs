//! Going through all keys while they change.

use super::{Numbers, Server};
use std::collections::BTreeSet;

/// Goes on with a scan. Gives the next cursor and the keys.
fn scan(server: &mut Server, cursor: &str, options: &str) -> (String, Vec<String>) {
    let reply = server.line(&format!("scan {cursor} {options}"));
    let mut lines = reply
        .split('|')
        .filter(|line| !line.starts_with(['*', '$']))
        .map(str::to_owned);
    (lines.next().unwrap(), lines.collect())
}

#[test]
fn keys_that_stay_are_found_once_while_others_come_and_go() {
    let mut numbers = Numbers::from_environment();
    let mut server = Server::new();
    let stable: BTreeSet<String> = (0..500).map(|key| format!("stable{key}")).collect();
    for key in &stable {
        server.line(&format!("set {key} v"));
    }
    let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
    loop {
        let (next, keys) = scan(&mut server, &cursor, "match stable* count 7");
        assert!(keys.len() <= 7);
        found.extend(keys);
        for _ in 0..20 {
            let command = numbers.pick(&["set", "getset"]);
            server.line(&format!("{command} other{} v", numbers.below(200)));
            server.line(&format!("del other{}", numbers.below(200)));
        }
        if next == "0" {
            break;
        }
        cursor = next;
    }
    assert_eq!(found.len(), stable.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), stable);
}

#[test]
fn cursors_are_what_any_client_can_hold() {
    let mut server = Server::new();
    for key in 0..200 {
        server.line(&format!("set {key} v"));
    }
    let (mut cursor, mut steps) = (scan(&mut server, "0", "count 1").0, 1);
    while cursor != "0" {
        assert!(cursor.parse::<u64>().unwrap() < 1 << 53);
        (cursor, steps) = (scan(&mut server, &cursor, "count 1").0, steps + 1);
    }
    assert_eq!(steps, 200);
}
