//! The arguments of one request, as ranges of the bytes received: none of them is copied.

/// Where one argument lies, counted from the start of its request (a request has less than 4 GiB).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// First byte.
    pub(crate) start: u32,
    /// Bytes.
    pub(crate) length: u32,
}

/// The arguments of one request, the command's name first.
#[derive(Clone, Copy)]
pub(crate) struct Arguments<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Arguments<'a> {
    /// Arguments that lie in `bytes`.
    pub(crate) fn new(bytes: &'a [u8], spans: &'a [Span]) -> Self {
        Self { bytes, spans }
    }

    /// How many there are, with the command's name.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// One of them, if there are as many.
    pub(crate) fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|span| self.slice(*span))
    }

    /// One that the command's arity promises; empty if it is missing all the same.
    pub(crate) fn at(&self, index: usize) -> &'a [u8] {
        self.get(index).unwrap_or_default()
    }

    /// All from `index` on.
    pub(crate) fn from(&self, index: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let (bytes, spans) = (self.bytes, self.spans.get(index..).unwrap_or_default());
        spans.iter().map(move |span| slice(bytes, *span))
    }

    /// All from `index` on, two by two; the last one alone is left out.
    pub(crate) fn pairs_from(&self, index: usize) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let (bytes, spans) = (self.bytes, self.spans.get(index..).unwrap_or_default());
        spans
            .as_chunks::<2>()
            .0
            .iter()
            .map(move |[first, second]| (slice(bytes, *first), slice(bytes, *second)))
    }

    /// Whether one of them is this word, in whatever case.
    pub(crate) fn is(&self, index: usize, word: &str) -> bool {
        self.at(index).eq_ignore_ascii_case(word.as_bytes())
    }

    fn slice(&self, span: Span) -> &'a [u8] {
        slice(self.bytes, span)
    }
}

fn slice(bytes: &[u8], span: Span) -> &[u8] {
    let start = span.start as usize;
    bytes
        .get(start..start.saturating_add(span.length as usize))
        .unwrap_or_default()
}
