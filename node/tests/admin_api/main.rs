//! The admin API through its public doors: a real single-node cluster and real actors behind the routers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bounds;
mod health;
mod key_bounds;
mod kube;
mod kubectl;
mod maas_api;
mod members;
mod names;
mod offboarding;
mod port;
mod quota;
mod usage;
mod watch;
mod world;
