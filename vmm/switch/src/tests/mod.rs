//! Fake machines on a real switch, over real sockets, with real TCP clients.

mod forwarding;
mod frames;
mod running;
mod starting;
mod station;
