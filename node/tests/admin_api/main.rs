//! The admin API through its public doors: a real single-node cluster and real actors behind the routers.

mod health;
mod kube;
mod kubectl;
mod maas_api;
mod watch;
mod world;
