//! The data plane through its port: a real cluster of one, real actors, replicas that are simulated or scripted.

mod answers;
mod client;
mod edges;
mod endings;
mod refusals;
mod scripted;
mod world;
