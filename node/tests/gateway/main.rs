//! The data plane through its port: a real cluster of one, real actors, replicas that are simulated or scripted.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod answers;
mod bodies;
mod bombs;
mod bytes;
mod client;
mod clients;
mod complaints;
mod connections;
mod cors;
mod counts;
mod edges;
mod endings;
mod floods;
mod hang_ups;
mod hard;
mod keep_alive;
mod limits;
mod media;
mod poison;
mod records;
mod refusals;
mod rest;
mod retries;
mod scripted;
mod slow_clients;
mod spans;
mod speech;
mod steering;
mod world;
mod wrong_keys;
