//! A key-value server that speaks the Redis protocol: the parts that need no machine.
#![no_std]
