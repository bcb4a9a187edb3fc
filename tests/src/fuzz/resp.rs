//! What a client of the key-value guest sends. Whatever it is: no panic; the replies, and whether the connection ends, do not
//! depend on how it was cut into pieces; a call adds a bounded number of bytes; and when every key is removed, nothing is
//! counted as used.
//!
//! The first two bytes choose how the rest is cut for the second of two runs.

use lockstep_guest_key_value::{Clock, Database, Limits, Next, OUTPUT_BYTES_FULL, Session};

use super::input::Input;

/// Memory of the store: little, so that it runs out.
const MEMORY_BYTES_MAX: usize = 64 << 10;

/// The longest reply, as the guest's documentation has it.
const REPLY_BYTES_MAX: usize = 16 << 20;

/// Bytes of the replies that are compared; of the rest only how many there are.
const COMPARED_BYTES_MAX: usize = 1 << 20;

/// A time at which nothing is special.
struct Still;

impl Clock for Still {
    fn monotonic_ns(&mut self) -> u64 {
        5_000_000_000
    }

    fn wall_ns(&mut self) -> u64 {
        1_700_000_000_123_456_789
    }
}

/// What a client saw.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    replies: Vec<u8>,
    reply_bytes: usize,
    closed: bool,
    used_bytes: usize,
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let cut = input.word();
    let said = input.rest();
    let whole = converse(&[said]);
    let pieces = cut_up(said, cut);
    assert_eq!(converse(&pieces), whole, "cut into {} pieces", pieces.len());
}

/// Pieces of 1 to 64 bytes, of lengths that `seed` makes.
fn cut_up(mut bytes: &[u8], seed: u16) -> Vec<&[u8]> {
    let mut state = u32::from(seed) | 1;
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        state = state.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        let longest = 1 << (seed & 7).min(6);
        let length = 1 + (state >> 16) as usize % longest;
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fn converse(pieces: &[&[u8]]) -> Seen {
    let limits = Limits {
        memory_bytes_max: MEMORY_BYTES_MAX,
        clients_max: 4,
    };
    let (mut database, mut session, mut seen) = (Database::new(limits), Session::new(7), Seen::default());
    for piece in pieces {
        seen.receive(&mut database, &mut session, piece);
    }
    seen.used_bytes = database.used_bytes();
    assert_empties(&mut database);
    seen
}

impl Seen {
    /// Hands `piece` over, then takes everything that is to be had before more is given.
    fn receive(&mut self, database: &mut Database, session: &mut Session, piece: &[u8]) {
        let mut more = piece;
        loop {
            let mut output = Vec::new();
            let next = session.receive(database, &mut Still, more, &mut output);
            assert!(output.len() <= OUTPUT_BYTES_FULL + REPLY_BYTES_MAX);
            assert!(
                !self.closed || output.is_empty() && next == Next::Close,
                "a closed session says more"
            );
            self.closed = next == Next::Close;
            self.reply_bytes += output.len();
            let room = COMPARED_BYTES_MAX.saturating_sub(self.replies.len());
            self.replies.extend(output.iter().take(room));
            if !session.has_pending() {
                return;
            }
            more = &[];
        }
    }
}

/// Removes every key by its name: then nothing may be counted.
fn assert_empties(database: &mut Database) {
    let mut session = Session::new(8);
    let mut ask = |request: &[u8]| {
        let mut output = Vec::new();
        session.receive(database, &mut Still, request, &mut output);
        output
    };
    let keys = bulks(&ask(b"KEYS *\r\n"));
    for key in keys {
        let request = [
            format!("*2\r\n$3\r\nDEL\r\n${}\r\n", key.len()).as_bytes(),
            &key,
            b"\r\n",
        ]
        .concat();
        assert_eq!(ask(&request), b":1\r\n", "a key that is listed can be removed");
    }
    assert_eq!(ask(b"DBSIZE\r\n"), b":0\r\n");
    assert_eq!(database.used_bytes(), 0, "bytes of no key are counted");
}

/// The strings of an array reply.
fn bulks(reply: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = reply;
    let count = head(&mut rest, b'*');
    let strings = (0..count).map(|_| {
        let length = head(&mut rest, b'$');
        let (string, after) = rest.split_at(length);
        rest = after.strip_prefix(b"\r\n").expect("the end of a string");
        string.to_vec()
    });
    strings.collect()
}

/// Takes a line that gives a number after `kind`.
fn head(rest: &mut &[u8], kind: u8) -> usize {
    let end = rest
        .windows(2)
        .position(|pair| pair == b"\r\n")
        .expect("the end of a line");
    let line = std::str::from_utf8(&rest[..end]).expect("a line of text");
    *rest = &rest[end + 2..];
    let number = line.strip_prefix(char::from(kind)).expect("a line of this kind");
    number.parse().expect("a number")
}
